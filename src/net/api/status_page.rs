//! `GET /` for people with a browser: how the cluster is, and what there is. No script, and none could run.

use std::fmt::{self, Write as _};

use crate::net::api::action::NodeView;
use crate::net::api::cluster::{ClusterView, match_of, role_of};
use crate::net::api::health::Health;
use crate::net::api::page;
use crate::net::http::response::{Body, Response};
use crate::net::http::status::Status;
use crate::replica::io::ReplicaStatus;

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "body{font-family:sans-serif;margin:2em auto;max-width:60em;padding:0 1em}table{border-collapse:collapse}th,td{border:1px solid;padding:.3em .6em;text-align:left}pre{overflow:auto}";
/// Nothing is loaded, run, sent or framed; the only style is the one above, known by its SHA-256.
const POLICY: &str = "default-src 'none'; style-src 'sha256-RAh2uJrHFoK/ZgH2H0UPBgl3Cc8txQS0ytJJ9nlz5ro='; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const WRITE_TO_MEMORY: &str = "writing to a String cannot fail";

/// Text inside HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The page.
pub(super) fn html(status: &ReplicaStatus, cluster: &ClusterView<'_>, node: &NodeView) -> Response {
    let mut response = Response::new(Status::Ok, HTML, Body::Owned(text(status, cluster, node).into_bytes()));
    response.policy = Some(POLICY);
    response.is_negotiated = true;
    response
}

fn text(status: &ReplicaStatus, cluster: &ClusterView<'_>, node: &NodeView) -> String {
    let mut page = String::new();
    let name = Escaped(&node.node);
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Keva: {name}</title>\
         <style>{STYLE}</style></head><body>\n<h1>Keva: {name}</h1>\n"
    )
    .expect(WRITE_TO_MEMORY);
    write_summary(&mut page, status, cluster, node);
    write_members(&mut page, status, cluster);
    write!(
        page,
        "<h2>This node</h2>\n<pre>{}</pre>\n<h2>What there is</h2>\n<pre>{}</pre>\n\
         <p><a href=\"/v1/cluster\">/v1/cluster</a> <a href=\"/v1/storage/keys\">/v1/storage/keys</a> \
         <a href=\"/readyz?verbose\">/readyz?verbose</a> <a href=\"/v1/openapi.json\">/v1/openapi.json</a></p>\n\
         </body></html>\n",
        Escaped(&Health::of(status).to_text()),
        Escaped(page::ROOT)
    )
    .expect(WRITE_TO_MEMORY);
    page
}

fn write_summary(page: &mut String, status: &ReplicaStatus, cluster: &ClusterView<'_>, node: &NodeView) {
    let leader = node.leader.as_deref().unwrap_or("none is known");
    let tolerated = cluster.members.len().saturating_sub(1) / 2;
    writeln!(
        page,
        "<p>Leader: <b>{}</b>, term {}. This node is {}. Committed {}, applied {}, {} keys. Failed nodes that a cluster of \
         this size survives: {tolerated}.</p>",
        Escaped(leader),
        status.term,
        status.role.as_str(),
        status.commit_index,
        status.applied_index,
        status.keys
    )
    .expect(WRITE_TO_MEMORY);
}

fn write_members(page: &mut String, status: &ReplicaStatus, cluster: &ClusterView<'_>) {
    page.push_str(
        "<table><tr><th>Node</th><th>Role</th><th>Address</th><th>Reached</th><th>Match</th><th>Version</th></tr>\n",
    );
    for member in cluster.members {
        let is_reached = member.id == status.id || member.connected;
        let index = match_of(member.id, status).map_or_else(|| String::from("?"), |index| index.to_string());
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}, ports {} and {}</td><td>{}</td><td>{index}</td><td>{}</td></tr>",
            Escaped(member.identity),
            role_of(member.id, status).unwrap_or("?"),
            Escaped(member.address),
            member.keva_port,
            member.user_port,
            if is_reached { "yes" } else { "no" },
            Escaped(member.version.unwrap_or("?")),
        )
        .expect(WRITE_TO_MEMORY);
    }
    page.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(
            Escaped("<b a=\"x\" b='y'>&amp;\u{fc}").to_string(),
            "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;\u{fc}"
        );
    }

    /// A browser drops a style whose hash is not the one that the policy names.
    #[test]
    fn the_policy_names_the_style() {
        use base64::Engine as _;
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut sum = Command::new("sha256sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("coreutils are there");
        sum.stdin.take().expect("piped").write_all(STYLE.as_bytes()).expect("it reads");
        let output = sum.wait_with_output().expect("it ends").stdout;
        let digits = std::str::from_utf8(&output[..64]).expect("hexadecimal digits");
        let bytes: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("digits")).collect();
        let hash = base64::engine::general_purpose::STANDARD.encode(bytes);
        assert!(POLICY.contains(&format!("'sha256-{hash}'")), "the style's hash is {hash}");
    }
}
