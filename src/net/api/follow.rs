//! Requests that follow keys: `?watch` is a stream of changes, `?wait=` an answer as soon as something changes.
//!
//! Both begin with a question to the replica, so that what is followed is linearizable: nothing that was acknowledged
//! before the request is missed. What comes after it is what this node applies.

use std::rc::Rc;

use crate::kv::command::Matcher;
use crate::limits::WAIT_MS_MAX;
use crate::net::api::accept::preferred;
use crate::net::api::action::{Action, Render};
use crate::net::api::condition::{if_match, if_none_match};
use crate::net::api::query::{Query, bad_parameter, parse_duration_ms};
use crate::net::api::render::render_unchanged;
use crate::net::http::head::RequestHead;
use crate::net::http::problem::Problem;
use crate::net::http::response::{Body, ContentType, Response, TEXT};
use crate::net::http::status::Status;
use crate::net::watch::{Filter, Format, WaitFor};
use crate::raft::types::Index;
use crate::replica::io::{Consistency, Item, KeyRange, Listing, Request};
use crate::util::time::Millis;

/// The forms of a stream, and an older name of the second one.
const FORMATS: [&str; 3] = ["text/event-stream", "application/x-ndjson", "application/ndjson"];

/// What follows a reply of the replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Follow {
    /// A stream of changes.
    Watch(Watch),
    /// One answer, perhaps later.
    Wait(Wait),
}

/// A stream of changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// Of these keys.
    pub filter: Filter,
    /// How they are written.
    pub format: Format,
    /// Changes above this revision. `None`: from the beginning of the stream on.
    pub since: Option<Index>,
    /// Whether the node must ask whether it is up to date before it begins.
    pub consistency: Consistency,
    /// The request was HTTP/1.1.
    pub is_chunked: bool,
    /// The request was `HEAD`: there is no stream behind the head.
    pub is_head: bool,
}

/// A request that is answered when something changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wait {
    /// What it asks for.
    pub goal: Goal,
    /// How long it waits, in milliseconds.
    pub wait_ms: u64,
    /// Until when: see [`Follow::begin`].
    pub until: Millis,
    /// Whether the node must ask whether it is up to date before it begins.
    pub consistency: Consistency,
    /// How the answer is to look.
    pub render: Render,
}

/// What a waiting request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Goal {
    /// A key's value.
    Key {
        /// The key.
        key: String,
        /// The values that are no news. `None`: only one that is absent.
        known: Option<Matcher>,
        /// A key that does not match this is an error at once.
        if_match: Option<Matcher>,
    },
    /// A listing.
    List {
        /// Of these keys.
        range: Rc<KeyRange>,
        /// What is wanted of them.
        listing: Listing,
        /// Only changes above this revision are news.
        above: Index,
    },
}

impl Follow {
    /// The request is here: its time begins.
    pub fn begin(&mut self, now: Millis) {
        if let Follow::Wait(wait) = self {
            wait.until = now.after(wait.wait_ms);
        }
    }

    /// Whether the replica need not be asked by a node that has applied everything up to `applied`.
    #[must_use]
    pub fn begins_at_once(&self, applied: Index) -> bool {
        match self {
            // A revision that this node does not have yet: it has to ask.
            Follow::Watch(watch) => {
                watch.consistency == Consistency::Stale && watch.since.is_none_or(|since| since <= applied)
            }
            Follow::Wait(Wait { goal: Goal::List { above, .. }, consistency, .. }) => {
                *consistency == Consistency::Stale && *above <= applied
            }
            Follow::Wait(Wait { goal: Goal::Key { .. }, .. }) => false,
        }
    }

    /// A stream or a listing that begins at a revision which does not exist, although the leader was asked.
    #[must_use]
    pub fn refusal(&self, applied: Index) -> Option<Problem> {
        let since = match self {
            Follow::Watch(watch) => watch.since,
            Follow::Wait(Wait { goal: Goal::List { above, .. }, .. }) => Some(*above),
            Follow::Wait(_) => None,
        };
        since.filter(|since| *since > applied).map(|since| {
            let detail = format!(
                "there is no revision {since} yet, the newest one is {applied}; a revision of another cluster, or of one \
                 whose data was lost, means nothing here: begin again with since=0"
            );
            Problem::bad_request("revision-in-the-future", detail)
        })
    }
}

impl Watch {
    /// The head of the stream.
    #[must_use]
    pub fn response(&self, revision: Index) -> Response {
        let mut response = Response::new(Status::Ok, TEXT, Body::Stream { is_chunked: self.is_chunked });
        response.content_type = ContentType::Known(self.format.content_type());
        response.revision = Some(revision);
        response.is_foreign = true;
        response.is_live = true;
        response.is_negotiated = true;
        response
    }
}

impl Wait {
    /// The answer to a listing that has not changed up to `revision`.
    #[must_use]
    pub fn unchanged_listing(&self, revision: Index) -> Response {
        render_unchanged(&self.render, revision)
    }
}

impl Goal {
    /// Which keys matter.
    #[must_use]
    pub fn filter(&self) -> Filter {
        match self {
            Goal::Key { key, .. } => Filter::key(key),
            Goal::List { range, .. } => Filter::Range(Rc::clone(range)),
        }
    }

    /// Which of their changes.
    #[must_use]
    pub fn wait_for(&self) -> WaitFor {
        match self {
            Goal::Key { known: None, .. } => WaitFor::Presence,
            Goal::Key { known: Some(Matcher::Any), .. } => WaitFor::Absence,
            Goal::Key { .. } | Goal::List { .. } => WaitFor::Change,
        }
    }

    /// Whether a key's state is an answer.
    #[must_use]
    pub fn is_answer(&self, item: Option<&Item>) -> bool {
        let Goal::Key { known, if_match, .. } = self else { return false };
        let current = item.map(|item| item.revision);
        let is_refused = if_match.as_ref().is_some_and(|matcher| !matcher.matches(current));
        is_refused || known.as_ref().map_or(current.is_some(), |known| !known.matches(current))
    }
}

/// What becomes of a `GET` of a key, with `watch`, `wait` or neither. The query knows `since`, `wait` and `watch`.
///
/// # Errors
/// The parameters are malformed or contradict one another.
pub fn follow_key(
    head: &RequestHead<'_, '_>,
    query: &Query<'_>,
    key: String,
    consistency: Consistency,
    timeout_ms: Option<u64>,
    render: Render,
) -> Result<Action, Problem> {
    if query.flag("watch")? {
        refuse_with_watch(query, &["missing"])?;
        return watch(head, query, Filter::key(&key), consistency, timeout_ms);
    }
    refuse_since(query)?;
    let request = Request::Read { key: key.clone(), consistency };
    let Some(wait_ms) = wait_ms(query)? else {
        return Ok(Action::Submit { request, timeout_ms, render });
    };
    let goal = Goal::Key { key, known: if_none_match(head)?, if_match: if_match(head)? };
    let wait = Wait { goal, wait_ms, until: Millis::NEVER, consistency, render };
    Ok(submit(request, timeout_ms, Follow::Wait(wait)))
}

/// What becomes of a listing, with `watch`, `wait` or neither. The query knows `count`, `limit`, `since`, `values`, `wait`
/// and `watch`.
///
/// # Errors
/// The parameters are malformed or contradict one another.
pub fn follow_listing(
    head: &RequestHead<'_, '_>,
    query: &Query<'_>,
    range: KeyRange,
    listing: Listing,
    consistency: Consistency,
    timeout_ms: Option<u64>,
    render: Render,
) -> Result<Action, Problem> {
    if query.flag("watch")? {
        refuse_with_watch(query, &["count", "limit", "values"])?;
        return watch(head, query, Filter::Range(Rc::new(range)), consistency, timeout_ms);
    }
    refuse_since(query)?;
    let above = match (wait_ms(query)?, if_none_match(head)?) {
        (Some(_), Some(Matcher::Any)) => {
            let detail = "with wait, If-None-Match is the revision of a listing, the one in its ETag; * means nothing here";
            return Err(Problem::bad_request("bad-condition", detail));
        }
        (Some(wait_ms), Some(Matcher::Revisions(revisions))) => {
            revisions.into_iter().max().map(|above| (wait_ms, above))
        }
        // Nothing to compare with: what there is is news.
        (_, _) => None,
    };
    let Some((wait_ms, above)) = above else {
        let request = Request::List { range, listing, consistency };
        return Ok(Action::Submit { request, timeout_ms, render });
    };
    let goal = Goal::List { range: Rc::new(range), listing, above };
    let wait = Wait { goal, wait_ms, until: Millis::NEVER, consistency, render };
    Ok(submit(Request::Barrier, timeout_ms, Follow::Wait(wait)))
}

fn watch(
    head: &RequestHead<'_, '_>,
    query: &Query<'_>,
    filter: Filter,
    consistency: Consistency,
    timeout_ms: Option<u64>,
) -> Result<Action, Problem> {
    for name in ["if-match", "if-none-match"] {
        if head.values(name).next().is_some() {
            let detail =
                format!("the header {name} means nothing with watch; since=R says where the stream begins");
            return Err(Problem::bad_request("bad-condition", detail));
        }
    }
    let watch = Watch {
        filter,
        format: format(head),
        since: since(head, query)?,
        consistency,
        is_chunked: !head.is_http_10,
        is_head: head.method == "HEAD",
    };
    Ok(submit(Request::Barrier, timeout_ms, Follow::Watch(watch)))
}

fn submit(request: Request, timeout_ms: Option<u64>, follow: Follow) -> Action {
    Action::Submit { request, timeout_ms, render: Render::Follow(Box::new(follow)) }
}

fn refuse_with_watch(query: &Query<'_>, names: &[&'static str]) -> Result<(), Problem> {
    match names.iter().chain(&["wait"]).find(|name| query.get(name).is_some()) {
        None => Ok(()),
        Some(name) => Err(bad_parameter(format!("{name} means nothing with watch; leave one of them out"))),
    }
}

fn refuse_since(query: &Query<'_>) -> Result<(), Problem> {
    if query.get("since").is_some() {
        return Err(bad_parameter("since is for watch; with wait, If-None-Match has the revision".into()));
    }
    Ok(())
}

/// `wait` in milliseconds.
fn wait_ms(query: &Query<'_>) -> Result<Option<u64>, Problem> {
    let Some(text) = query.get("wait") else { return Ok(None) };
    parse_duration_ms(text).filter(|ms| (1..=WAIT_MS_MAX).contains(ms)).map(Some).ok_or_else(|| {
        let most = WAIT_MS_MAX / 60_000;
        bad_parameter(format!("wait must be like 500ms, 30s or 2m, from 1ms to {most}m, not \"{text}\""))
    })
}

/// Where a stream goes on. A browser that lost its connection sends the id of the last event with the first request's
/// address, so the header wins (WHATWG HTML, section 9.2.4).
fn since(head: &RequestHead<'_, '_>, query: &Query<'_>) -> Result<Option<Index>, Problem> {
    let parameter = match query.get("since") {
        None => None,
        Some(text) => Some(parse_since(text.as_bytes()).ok_or_else(|| {
            bad_parameter(format!("since must be a revision, or 0 for everything, not \"{text}\""))
        })?),
    };
    match head.single("last-event-id")? {
        None | Some(b"") => Ok(parameter),
        Some(id) => parse_since(id).map(Some).ok_or_else(|| {
            let detail = "the header Last-Event-ID must be the id of an event: a revision";
            Problem::bad_request("bad-last-event-id", detail)
        }),
    }
}

fn parse_since(text: &[u8]) -> Option<Index> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().map(Index)
}

/// Server-sent events, unless JSON lines are liked better.
fn format(head: &RequestHead<'_, '_>) -> Format {
    if preferred(head, &FORMATS) == 0 { Format::ServerSentEvents } else { Format::JsonLines }
}
