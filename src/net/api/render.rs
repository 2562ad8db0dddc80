//! The replica's replies as HTTP responses.

use std::borrow::Cow;

use crate::kv::command::Matcher;
use crate::net::api::action::{NodeView, Render};
use crate::net::api::content_type::guessed_content_type;
use crate::net::api::failure::{not_applied, outcome_unknown, quoted};
use crate::net::api::{render_listing, render_write};
use crate::net::http::problem::Problem;
use crate::net::http::response::{Body, ContentType, Response, TEXT};
use crate::net::http::status::Status;
use crate::raft::types::Index;
use crate::replica::io::{Item, NotApplied, Outcome, Reply};
use crate::util::time::LogicalTime;

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
        (Outcome::Applied(outcome), Render::Write { is_put, wanted }) => {
            render_write::applied(outcome, revision, is_put, wanted.as_deref())
        }
        (Outcome::Value(item), Render::Read { missing_is_error, if_match, if_none_match }) => {
            let conditions = (if_match, if_none_match);
            with_revision(value(item, missing_is_error, conditions, node.time), revision)
        }
        (Outcome::Page(page), Render::Listing { form, if_match, if_none_match }) => {
            listing(revision, (if_match, if_none_match), || {
                render_listing::page(&page, form, revision, node.time)
            })
        }
        (Outcome::Count(count), Render::Listing { form, if_match, if_none_match }) => {
            listing(revision, (if_match, if_none_match), || render_listing::count(count, form, revision))
        }
        (Outcome::Reached, Render::Ready { verbose }) => with_revision(ready(verbose, node), revision),
        (outcome, render) => unreachable!("the reply {outcome:?} does not belong to {render:?}"),
    };
    sign(&mut response, node);
    response
}

/// Says who answers.
pub(super) fn sign(response: &mut Response, node: &NodeView) {
    response.node = Some(node.node.clone());
    response.leader.clone_from(&node.leader);
}

/// Whole seconds that a key has left: rounded up, so that one that is there never has 0 before its time.
pub(super) fn ttl_s(expires_at: Option<LogicalTime>, time: LogicalTime) -> Option<u64> {
    expires_at.map(|expires_at| (expires_at - time).div_ceil(1000))
}

fn with_revision(mut response: Response, revision: Index) -> Response {
    response.revision = Some(revision);
    response
}

/// `If-Match` and `If-None-Match` of a read.
type Conditions = (Option<Matcher>, Option<Matcher>);

/// What the conditions of a read make of it, if they do: RFC 9110, section 13.2.2: `If-Match` first, then
/// `If-None-Match`.
fn precluded(conditions: &Conditions, current: Option<Index>, what: &str) -> Option<Response> {
    let (if_match, if_none_match) = conditions;
    if if_match.as_ref().is_some_and(|matcher| !matcher.matches(current)) {
        let detail = match current {
            Some(current) => format!("the {what} is at revision {current}, which If-Match does not list"),
            None => format!("the {what} does not exist, so If-Match cannot hold"),
        };
        return Some(Problem::new(Status::PreconditionFailed, "precondition-failed", detail).to_response());
    }
    let is_known = if_none_match.as_ref().is_some_and(|matcher| matcher.matches(current));
    is_known.then(|| Response::empty(Status::NotModified))
}

fn value(
    item: Option<Item>,
    missing_is_error: Option<String>,
    conditions: Conditions,
    time: LogicalTime,
) -> Response {
    let current = item.as_ref().map(|item| item.revision);
    let ttl_s = item.as_ref().and_then(|item| ttl_s(item.expires_at, time));
    let mut response = precluded(&conditions, current, "key").unwrap_or_else(|| match item {
        Some(item) => found(item),
        None => missing(missing_is_error),
    });
    response.etag = current;
    response.ttl_s = ttl_s;
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

fn missing(is_error: Option<String>) -> Response {
    match is_error {
        None => Response::empty(Status::NoContent),
        Some(key) => {
            let detail = format!("key {} does not exist", quoted(&key));
            Problem::new(Status::NotFound, "key-not-found", detail).to_response()
        }
    }
}

/// The answer to whoever waited for another listing than the one of `revision`, and there is none.
///
/// # Panics
/// A listing is not what was asked for.
pub(super) fn render_unchanged(how: &Render, revision: Index) -> Response {
    let Render::Listing { if_match, .. } = how else { unreachable!("{how:?} is no listing") };
    listing(revision, (if_match.clone(), Some(Matcher::Any)), || unreachable!("a listing exists"))
}

/// A listing changes with every write, as far as its tag says. The tag is weak, as text and JSON have the same one, and
/// what keys have left of their life goes down without a write.
fn listing(revision: Index, conditions: Conditions, make: impl FnOnce() -> Response) -> Response {
    let response = precluded(&conditions, Some(revision), "listing").unwrap_or_else(make);
    let mut response = with_revision(response, revision);
    response.etag = Some(revision);
    response.is_etag_weak = true;
    response.is_live = true;
    response.is_negotiated = true;
    response
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
