//! From the head of a request to what it asks for.

use std::fmt::Write as _;

use crate::kv::command::{Command, Condition};
use crate::limits::READY_TIMEOUT_MS_DEFAULT;
use crate::net::api::action::{Action, Render, StatusPage};
use crate::net::api::condition::{condition, if_match, if_none_match};
use crate::net::api::content_type::stored_content_type;
use crate::net::api::follow::follow_key;
use crate::net::api::page;
use crate::net::api::query::{Query, bad_parameter};
use crate::net::api::target::{Target, parse_key};
use crate::net::http::framing::BodyLength;
use crate::net::http::head::RequestHead;
use crate::net::http::problem::Problem;
use crate::net::http::response::{Body, JSON, Response, TEXT};
use crate::net::http::status::Status;
use crate::replica::io::{Consistency, Request};

const KEY_PREFIX: &str = "/v1/storage/key/";
const ALLOW_KEY: &str = "GET, HEAD, POST, PUT, DELETE";
const ALLOW_READ: &str = "GET, HEAD";

/// What a request asks for, known before its body is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// Something of the node. The body, if any, means nothing.
    Call(Action),
    /// To set a key to the body.
    Put(PutPlan),
    /// Something that is always the same.
    Answer(Response),
}

/// A [`Command::Put`] without its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutPlan {
    key: String,
    content_type: Option<String>,
    condition: Condition,
    timeout_ms: Option<u64>,
}

impl PutPlan {
    /// The action, as soon as the body is there.
    #[must_use]
    pub fn into_action(self, value: Vec<u8>) -> Action {
        let PutPlan { key, content_type, condition, timeout_ms } = self;
        let render = Render::Write { is_put: true, condition: describe(&key, &condition) };
        let request =
            Request::Write(Command::Put { key, value, content_type, condition, ttl_ms: None }.into());
        Action::Submit { request, timeout_ms, render }
    }
}

/// Finds out what a request asks for. `length` tells whether it has a body.
///
/// # Errors
/// It asks for nothing that there is, or in a wrong way. Nothing was done, and the connection is usable once the
/// body is out of the way.
pub fn route(head: &RequestHead<'_, '_>, length: BodyLength) -> Result<Plan, Problem> {
    if head.target == "*" && head.method == "OPTIONS" || head.method == "CONNECT" {
        return Err(method_not_allowed(head.method, ALLOW_KEY));
    }
    let target = Target::parse(head.target)?;
    if let Some(key) = target.path.strip_prefix(KEY_PREFIX) {
        return route_key(head, key, target.query, length);
    }
    let page: fn(&Query<'_>) -> Result<Plan, Problem> = match target.path {
        "/" => |_| Ok(Plan::Answer(Response::new(Status::Ok, TEXT, Body::Static(page::ROOT)))),
        "/livez" => |_| Ok(Plan::Answer(Response::new(Status::Ok, TEXT, Body::Static("ok\n")))),
        "/v1/version" => |_| Ok(Plan::Answer(Response::new(Status::Ok, JSON, Body::Static(page::VERSION)))),
        "/v1/cluster" => |_| Ok(Plan::Call(Action::Status(StatusPage::Cluster))),
        "/v1/cluster/leader" => |_| Ok(Plan::Call(Action::Status(StatusPage::Leader))),
        "/readyz" => ready,
        _ => return Err(not_found(target.path)),
    };
    if !is_read(head.method) {
        return Err(method_not_allowed(head.method, ALLOW_READ));
    }
    let known: &[&str] = if target.path == "/readyz" { &["timeout", "verbose"] } else { &["timeout"] };
    let query = Query::parse(target.query, known)?;
    query.timeout_ms()?;
    page(&query)
}

fn ready(query: &Query<'_>) -> Result<Plan, Problem> {
    let timeout_ms = query.timeout_ms()?.or(Some(READY_TIMEOUT_MS_DEFAULT));
    let render = Render::Ready { verbose: query.flag("verbose")? };
    Ok(Plan::Call(Action::Submit { request: Request::Barrier, timeout_ms, render }))
}

fn route_key(
    head: &RequestHead<'_, '_>,
    key: &str,
    query: &str,
    length: BodyLength,
) -> Result<Plan, Problem> {
    match head.method {
        "GET" | "HEAD" => read(head, key, query),
        "PUT" => put(head, key, &Query::parse(query, &["if_absent", "if_rev", "timeout"])?, length),
        "DELETE" => delete(head, key, &Query::parse(query, &["if_absent", "if_rev", "timeout"])?),
        "POST" => {
            let query = Query::parse(query, &["delete", "if_absent", "if_rev", "timeout"])?;
            if query.flag("delete")? { delete(head, key, &query) } else { put(head, key, &query, length) }
        }
        method => Err(method_not_allowed(method, ALLOW_KEY)),
    }
}

fn read(head: &RequestHead<'_, '_>, key: &str, query: &str) -> Result<Plan, Problem> {
    let key = parse_key(key)?;
    let known = &["consistency", "missing", "since", "timeout", "wait", "watch"];
    let query = Query::parse(query, known)?;
    let consistency = match query.get("consistency") {
        None | Some("linearizable") => Consistency::Linearizable,
        Some("stale") => Consistency::Stale,
        Some(other) => {
            return Err(bad_parameter(format!("consistency must be linearizable or stale, not \"{other}\"")));
        }
    };
    let missing_is_error = match query.get("missing") {
        None => None,
        Some("404") => Some(key.clone()),
        Some(other) => return Err(bad_parameter(format!("missing must be 404, not \"{other}\""))),
    };
    let timeout_ms = query.timeout_ms()?;
    let render =
        Render::Read { missing_is_error, if_match: if_match(head)?, if_none_match: if_none_match(head)? };
    follow_key(head, &query, key, consistency, timeout_ms, render).map(Plan::Call)
}

fn put(
    head: &RequestHead<'_, '_>,
    key: &str,
    query: &Query<'_>,
    length: BodyLength,
) -> Result<Plan, Problem> {
    let key = parse_key(key)?;
    let timeout_ms = query.timeout_ms()?;
    check_write(head)?;
    check_whole_body(head)?;
    if length == BodyLength::None {
        let detail = "the request has no body and no Content-Length; to store an empty value send Content-Length: 0 \
                      (with curl: -d '')";
        return Err(Problem::new(Status::LengthRequired, "length-required", detail));
    }
    let condition = condition(head, query)?;
    Ok(Plan::Put(PutPlan { key, content_type: stored_content_type(head)?, condition, timeout_ms }))
}

fn delete(head: &RequestHead<'_, '_>, key: &str, query: &Query<'_>) -> Result<Plan, Problem> {
    let key = parse_key(key)?;
    let timeout_ms = query.timeout_ms()?;
    check_write(head)?;
    let condition = condition(head, query)?;
    let render = Render::Write { is_put: false, condition: describe(&key, &condition) };
    let request = Request::Write(Command::Delete { key, condition }.into());
    Ok(Plan::Call(Action::Submit { request, timeout_ms, render }))
}

/// Who sends an idempotency key relies on it: without it being remembered, a repetition would be a second execution.
fn check_write(head: &RequestHead<'_, '_>) -> Result<(), Problem> {
    if head.values("idempotency-key").next().is_some() {
        return Err(Problem::bad_request(
            "idempotency-key-not-supported",
            "Idempotency-Key is not supported by this version; leave it out, and make writes that may be repeated \
             safe with if_rev or if_absent",
        ));
    }
    Ok(())
}

/// A part of a value, or a compressed one, would be given to readers as if it were the value itself (RFC 9110,
/// sections 9.3.4 and 14.4).
fn check_whole_body(head: &RequestHead<'_, '_>) -> Result<(), Problem> {
    if head.values("content-range").next().is_some() {
        let detail = "Content-Range is not supported; a write replaces the whole value";
        return Err(Problem::bad_request("partial-write-not-supported", detail));
    }
    if head.members("content-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let detail =
            "Content-Encoding is not kept with a value; leave the header out to store the bytes as they are";
        return Err(Problem::new(Status::UnsupportedMediaType, "content-encoding-not-supported", detail));
    }
    Ok(())
}

fn describe(key: &str, condition: &Condition) -> Option<Box<(String, Condition)>> {
    let is_conditional = condition.if_match.is_some() || condition.if_none_match.is_some();
    is_conditional.then(|| Box::new((key.to_owned(), condition.clone())))
}

fn is_read(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}

fn method_not_allowed(method: &str, allow: &'static str) -> Problem {
    let detail = format!("the method {} is not allowed here; allowed: {allow}", shortened(method));
    let mut problem = Problem::new(Status::MethodNotAllowed, "method-not-allowed", detail);
    problem.allow = Some(allow);
    problem
}

fn not_found(path: &str) -> Problem {
    let detail = format!("there is nothing at {}; GET / lists what there is", shortened(path));
    Problem::new(Status::NotFound, "no-such-path", detail)
}

/// The beginning of a text of the client's, for a message.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut result: String = text.chars().take(CHARS_MAX).collect();
    if result.len() < text.len() {
        result.write_str("...").expect("writing to a String cannot fail");
    }
    result
}
