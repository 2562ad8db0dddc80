//! Requests that a web page made.
//!
//! A page of any site can make the browser of whoever reads it send a `POST`, although it cannot read the answer. Inside
//! a trusted network, browsers would so carry out what strangers want. Such requests are told by what browsers add to
//! them, and programs that are no browsers do not.

use crate::net::http::head::RequestHead;
use crate::net::http::problem::Problem;
use crate::net::http::status::Status;

/// Refuses a request that writes and was made by a page of another origin.
///
/// # Errors
/// It was.
pub fn refuse_cross_site(head: &RequestHead<'_, '_>) -> Result<(), Problem> {
    let writes = matches!(head.method, "POST" | "PUT" | "DELETE");
    if !writes || !is_cross_site(head) {
        return Ok(());
    }
    let detail = "a browser sent this request for a web page of another origin, so nothing was changed; pages may only \
                  write to the origin that they come from: serve page and node from one origin, or let the page ask a \
                  program of yours that sends the request";
    Err(Problem::new(Status::Forbidden, "cross-site", detail))
}

/// `Sec-Fetch-Site` (W3C Fetch Metadata) says it; but without TLS browsers send it only to this machine. `Origin` (RFC
/// 6454) comes with every request that writes, and is compared with the name under which the page knows this node.
fn is_cross_site(head: &RequestHead<'_, '_>) -> bool {
    let mut sites = head.values("sec-fetch-site").peekable();
    if sites.peek().is_some() {
        return !sites.all(|site| matches!(site, b"same-origin" | b"none"));
    }
    let host = head.values("host").next().unwrap_or_default();
    head.values("origin").any(|origin| {
        let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    })
}
