//! Conditional requests (RFC 9110, section 13) over revisions, and their twins among the query parameters.

use crate::kv::command::{Condition, Matcher};
use crate::limits::CONDITION_REVISIONS_MAX;
use crate::net::api::query::{Query, bad_parameter};
use crate::net::http::head::RequestHead;
use crate::net::http::problem::Problem;
use crate::raft::types::Index;

/// How entity tags are compared (RFC 9110, section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag equals nothing.
    Strong,
    /// `W/` makes no difference.
    Weak,
}

/// `If-Match`.
///
/// # Errors
/// The header is malformed.
pub fn if_match(head: &RequestHead<'_, '_>) -> Result<Option<Matcher>, Problem> {
    matcher(head, "if-match", Comparison::Strong)
}

/// `If-None-Match`.
///
/// # Errors
/// The header is malformed.
pub fn if_none_match(head: &RequestHead<'_, '_>) -> Result<Option<Matcher>, Problem> {
    matcher(head, "if-none-match", Comparison::Weak)
}

/// The condition of a write: the headers and the parameters `if_rev` and `if_absent`.
///
/// # Errors
/// One of them is malformed, or they contradict one another.
pub fn condition(head: &RequestHead<'_, '_>, query: &Query<'_>) -> Result<Condition, Problem> {
    let if_rev = match query.get("if_rev") {
        None => None,
        Some(text) => Some(Matcher::Revisions(vec![parse_revision(text.as_bytes()).ok_or_else(|| {
            bad_parameter(format!(
                "if_rev must be a revision, a number from 1, not \"{text}\"; for a key that must be absent use if_absent"
            ))
        })?])),
    };
    let if_absent = query.flag("if_absent")?.then_some(Matcher::Any);
    let if_match = merge(if_match(head)?, if_rev, "the header If-Match and the parameter if_rev disagree")?;
    let if_none_match = merge(
        if_none_match(head)?,
        if_absent,
        "the header If-None-Match and the parameter if_absent disagree",
    )?;
    if if_match.is_some() && if_none_match == Some(Matcher::Any) {
        return Err(contradiction(
            "If-Match (or if_rev) asks for a key that exists and If-None-Match: * (or if_absent) for one that does not: \
             they can never both hold; use one of them",
        ));
    }
    Ok(Condition { if_match, if_none_match })
}

fn merge(
    header: Option<Matcher>,
    twin: Option<Matcher>,
    message: &'static str,
) -> Result<Option<Matcher>, Problem> {
    match (header, twin) {
        (Some(header), Some(twin)) if header != twin => Err(contradiction(message)),
        (header, twin) => Ok(header.or(twin)),
    }
}

fn contradiction(detail: &'static str) -> Problem {
    Problem::bad_request("contradicting-conditions", detail)
}

fn matcher(
    head: &RequestHead<'_, '_>,
    name: &'static str,
    comparison: Comparison,
) -> Result<Option<Matcher>, Problem> {
    let mut result: Option<Matcher> = None;
    for line in head.values(name) {
        if line == b"*" && result.is_none() {
            result = Some(Matcher::Any);
            continue;
        }
        match result.get_or_insert_with(|| Matcher::Revisions(Vec::new())) {
            Matcher::Any => return Err(malformed_tags(name)),
            Matcher::Revisions(revisions) => parse_tags(line, name, comparison, revisions)?,
        }
    }
    Ok(result)
}

/// Adds the revisions of a list of entity tags. A tag that is no revision was not made here: it matches nothing. A list
/// without a tag is an error: it comes from a script whose variable is empty, and must not make a write unconditional.
fn parse_tags(
    line: &[u8],
    name: &'static str,
    comparison: Comparison,
    revisions: &mut Vec<Index>,
) -> Result<(), Problem> {
    let mut rest = line;
    let mut has_tag = false;
    loop {
        rest = rest.trim_ascii_start();
        let (is_weak, tag) = match rest.strip_prefix(b"W/") {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        if let Some(tag) = tag.strip_prefix(b"\"") {
            let end = tag.iter().position(|byte| *byte == b'"').ok_or_else(|| malformed_tags(name))?;
            if !tag[..end].iter().all(|byte| matches!(byte, b'!'..=b'~' | 0x80..)) {
                return Err(malformed_tags(name));
            }
            let usable = comparison == Comparison::Weak || !is_weak;
            let revision = parse_revision(&tag[..end]).filter(|_| usable);
            if let Some(revision) = revision.filter(|revision| !revisions.contains(revision)) {
                if revisions.len() == CONDITION_REVISIONS_MAX {
                    let detail = format!("{name} lists more than {CONDITION_REVISIONS_MAX} revisions");
                    return Err(Problem::bad_request("bad-condition", detail));
                }
                revisions.push(revision);
            }
            rest = tag[end + 1..].trim_ascii_start();
            has_tag = true;
        } else if is_weak {
            return Err(malformed_tags(name));
        }
        // Empty members of a list are allowed (RFC 9110, section 5.6.1.2).
        match rest.split_first() {
            None if has_tag => return Ok(()),
            None => return Err(malformed_tags(name)),
            Some((b',', tail)) => rest = tail,
            Some(_) => return Err(malformed_tags(name)),
        }
    }
}

fn malformed_tags(name: &str) -> Problem {
    let twin = if name == "if-match" { "if_rev=5" } else { "if_absent" };
    let detail = format!(
        "the header {name} must be * or revisions in double quotes, like {name}: \"5\"; a shell may have removed the \
         quotes, or a variable may be empty (for a write, ?{twin} needs none)"
    );
    Problem::bad_request("bad-condition", detail)
}

/// A revision in its only spelling: decimal, from 1, no leading zero.
fn parse_revision(text: &[u8]) -> Option<Index> {
    if !text.iter().all(u8::is_ascii_digit) || text.first() == Some(&b'0') {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().map(Index)
}
