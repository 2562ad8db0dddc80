//! The replica's replies as HTTP responses.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::kv::command::{Condition, Matcher};
use crate::net::api::action::{NodeView, Render};
use crate::net::api::condition::matches;
use crate::net::api::content_type::guessed_content_type;
use crate::net::http::problem::{Applied, Problem};
use crate::net::http::response::{Body, ContentType, JSON, Response, TEXT};
use crate::net::http::status::Status;
use crate::raft::types::Index;
use crate::replica::io::{Applied as Done, Item, NotApplied, Outcome, Reply};

/// The answer to a successful write, byte for byte what the original Keva said.
const DONE: &str = "{\"done\":\"true\"}";

/// The response to a request whose action was [`super::Action::Submit`].
///
/// # Panics
/// The reply is not of the kind that the request asks for.
#[must_use]
pub fn render(render: Render, reply: Reply, node: &NodeView) -> Response {
    let revision = reply.revision;
    let mut response = match (reply.outcome, render) {
        (Outcome::NotApplied(reason), Render::Ready { verbose }) => not_ready(reason, verbose, node),
        (Outcome::NotApplied(reason), _) => not_applied(reason).to_response(),
        (Outcome::OutcomeUnknown, _) => outcome_unknown().to_response(),
        (Outcome::Applied(Done::Written), Render::Write { is_put, .. }) => written(revision, is_put),
        (Outcome::Applied(Done::ConditionFailed { current }), Render::Write { condition, .. }) => {
            with_revision(condition_failed(current, condition.as_deref()), revision)
        }
        (Outcome::Value(item), Render::Read { missing_is_error, if_match, if_none_match }) => {
            with_revision(value(item, missing_is_error, if_match, if_none_match), revision)
        }
        (Outcome::Reached, Render::Ready { verbose }) => with_revision(ready(verbose, node), revision),
        (outcome, render) => unreachable!("the reply {outcome:?} does not belong to {render:?}"),
    };
    response.node = Some(node.node.clone());
    response.leader.clone_from(&node.leader);
    response
}

fn with_revision(mut response: Response, revision: Index) -> Response {
    response.revision = Some(revision);
    response
}

fn written(revision: Index, is_put: bool) -> Response {
    let mut response = with_revision(Response::new(Status::Ok, JSON, Body::Static(DONE)), revision);
    response.etag = is_put.then_some(revision);
    response
}

/// RFC 9110, section 13.2.2: `If-Match` first, then `If-None-Match`.
fn value(
    item: Option<Item>,
    missing_is_error: Option<String>,
    if_match: Option<Matcher>,
    if_none_match: Option<Matcher>,
) -> Response {
    let current = item.as_ref().map(|item| item.revision);
    let mut response = if if_match.is_some_and(|matcher| !matches(&matcher, current)) {
        let detail = match current {
            Some(current) => format!("the key is at revision {current}, which If-Match does not list"),
            None => String::from("the key does not exist, so If-Match cannot hold"),
        };
        Problem::new(Status::PreconditionFailed, "precondition-failed", detail).to_response()
    } else if if_none_match.is_some_and(|matcher| matches(&matcher, current)) {
        Response::empty(Status::NotModified)
    } else {
        match (item, missing_is_error) {
            (Some(item), _) => found(item),
            (None, Some(key)) => {
                let detail = format!("key {} does not exist", quoted(&key));
                Problem::new(Status::NotFound, "key-not-found", detail).to_response()
            }
            (None, None) => Response::empty(Status::NoContent),
        }
    };
    response.etag = current;
    response.is_live = true;
    response
}

fn found(item: Item) -> Response {
    let content_type = match item.content_type {
        Some(name) => ContentType::Stored(name),
        None => ContentType::Known(guessed_content_type(&item.value)),
    };
    let mut response = Response::new(Status::Ok, TEXT, Body::Value(item.value));
    response.content_type = content_type;
    response.is_foreign = true;
    response
}

fn condition_failed(current: Option<Index>, description: Option<&(String, Condition)>) -> Response {
    let detail = match description {
        Some((key, condition)) => explain_condition(key, condition, current),
        None => String::from("the condition did not hold"),
    };
    let mut response = Problem::new(Status::PreconditionFailed, "precondition-failed", detail).to_response();
    response.etag = current;
    response
}

fn explain_condition(key: &str, condition: &Condition, current: Option<Index>) -> String {
    let key = quoted(key);
    let wanted = match &condition.if_match {
        Some(Matcher::Revisions(revisions)) => Some(listed(revisions)),
        _ => None,
    };
    match (current, wanted) {
        (None, Some(wanted)) => format!("key {key} does not exist, so it is not at revision {wanted}"),
        (None, None) => format!("key {key} does not exist"),
        (Some(current), Some(wanted))
            if condition.if_match.as_ref().is_some_and(|matcher| !matches(matcher, Some(current))) =>
        {
            format!("key {key} is at revision {current}, not {wanted}")
        }
        (Some(current), _) => format!("key {key} exists, at revision {current}"),
    }
}

fn listed(revisions: &[Index]) -> String {
    let mut text = String::new();
    for (position, revision) in revisions.iter().enumerate() {
        let separator = if position == 0 { "" } else { " or " };
        write!(text, "{separator}{revision}").expect("writing to a String cannot fail");
    }
    if text.is_empty() { String::from("one that If-Match lists") } else { text }
}

/// In double quotes. The text becomes a JSON string later, which takes care of everything else.
fn quoted(key: &str) -> String {
    format!("\"{key}\"")
}

fn not_applied(reason: NotApplied) -> Problem {
    let (status, code, detail) = match reason {
        NotApplied::Overloaded => (
            Status::ServiceUnavailable,
            "overloaded",
            "this node has too many requests waiting; try again in a moment",
        ),
        NotApplied::NoLeader => (
            Status::ServiceUnavailable,
            "no-leader",
            "no leader could be reached in time, so the request had no effect; try again",
        ),
        NotApplied::Superseded => (
            Status::ServiceUnavailable,
            "superseded",
            "the write came too late to be ordered and can never take effect; try again",
        ),
        NotApplied::InFlight => (
            Status::Conflict,
            "idempotency-key-in-flight",
            "a request with this Idempotency-Key is being carried out; wait for its answer, or send this one again in a \
             moment",
        ),
        NotApplied::Stopping => (
            Status::ServiceUnavailable,
            "stopping",
            "this node is stopping; send the request to another node",
        ),
        NotApplied::DiskFull => (
            Status::InsufficientStorage,
            "disk-full",
            "the disk of this node or of the leader is full, so nothing was written: make space on it, or delete keys; \
             reads, deletions and values that do not grow still work",
        ),
        NotApplied::NotReady => (
            Status::ServiceUnavailable,
            "not-ready",
            "this node is being restored, or is new and waits for the other nodes; try again, or send the request to \
             another node; GET /readyz?verbose says how far it is",
        ),
    };
    Problem::new(status, code, detail)
}

fn outcome_unknown() -> Problem {
    let detail = "the write was handed to a leader, but its outcome was not learned in time: it may have taken effect \
                  or may still do so; read the key before you repeat it";
    Problem { applied: Applied::Unknown, ..Problem::new(Status::GatewayTimeout, "outcome-unknown", detail) }
}

fn ready(verbose: bool, node: &NodeView) -> Response {
    let body = match &node.leader {
        Some(leader) if verbose => {
            let health = node.health.to_text();
            Body::Owned(format!("ok\nleader: {leader}\nlinearizable read: works\n{health}").into_bytes())
        }
        _ => Body::Static("ok\n"),
    };
    Response::new(Status::Ok, TEXT, body)
}

/// The problem of the request itself, but for the status: whoever asks whether the node is ready wants a 503.
fn not_ready(reason: NotApplied, verbose: bool, node: &NodeView) -> Response {
    let detail = if verbose {
        let leader = match &node.leader {
            Some(leader) => format!("the leader is {leader}"),
            None => String::from("no leader is known"),
        };
        let why = match reason {
            NotApplied::Overloaded => "too many requests wait on this node",
            NotApplied::NoLeader => "a linearizable read was not confirmed by a leader in time",
            NotApplied::Superseded | NotApplied::InFlight | NotApplied::DiskFull => {
                "a linearizable read was not carried out"
            }
            NotApplied::Stopping => "this node is stopping",
            NotApplied::NotReady => "this node is being restored, or is new and waits for the other nodes",
        };
        let health = node.health.to_text().trim_end().replace('\n', "; ");
        format!("not ready: {leader}; {why}; {health}").into()
    } else {
        Cow::Borrowed("not ready; GET /readyz?verbose says why")
    };
    Problem::new(Status::ServiceUnavailable, "not-ready", detail).to_response()
}
