//! `/v1/storage/key/KEY`.

use crate::kv::command::{Command, Write};
use crate::net::api::action::Render;
use crate::net::api::body_plan::{BodyKind, BodyPlan, ValuePlan, submit, wanted};
use crate::net::api::condition::{condition, if_match, if_none_match};
use crate::net::api::content_type::stored_content_type;
use crate::net::api::follow::follow_key;
use crate::net::api::idempotency::idempotency_key;
use crate::net::api::query::{Query, bad_parameter, shortened};
use crate::net::api::route::{Plan, method_not_allowed};
use crate::net::api::target::parse_key;
use crate::net::http::framing::BodyLength;
use crate::net::http::head::RequestHead;
use crate::net::http::problem::Problem;
use crate::net::http::status::Status;

const ALLOW: &str = "GET, HEAD, POST, PUT, DELETE";

/// What a request for a key asks for. `key` and `query` are still encoded.
pub(crate) fn route(
    head: &RequestHead<'_, '_>,
    key: &str,
    query: &str,
    length: BodyLength,
) -> Result<Plan, Problem> {
    match head.method {
        "GET" | "HEAD" => read(head, key, query),
        "PUT" => {
            let query = Query::parse(query, &["if_absent", "if_rev", "timeout", "ttl"])?;
            write_body(head, key, &query, length, BodyKind::Put)
        }
        "DELETE" => delete(head, key, &Query::parse(query, &["if_absent", "if_rev", "timeout"])?),
        "POST" => post(head, key, query, length),
        method => Err(method_not_allowed(method, ALLOW)),
    }
}

fn read(head: &RequestHead<'_, '_>, key: &str, query: &str) -> Result<Plan, Problem> {
    let key = parse_key(key)?;
    let known = &["consistency", "missing", "since", "timeout", "wait", "watch"];
    let query = Query::parse(query, known)?;
    let consistency = query.consistency()?;
    let missing_is_error = match query.get("missing") {
        None => None,
        Some("404") => Some(key.clone()),
        Some(other) => {
            return Err(bad_parameter(format!("missing must be 404, not \"{}\"", shortened(other))));
        }
    };
    let timeout_ms = query.timeout_ms()?;
    let render =
        Render::Read { missing_is_error, if_match: if_match(head)?, if_none_match: if_none_match(head)? };
    follow_key(head, &query, key, consistency, timeout_ms, render).map(Plan::Call)
}

fn post(head: &RequestHead<'_, '_>, key: &str, query: &str, length: BodyLength) -> Result<Plan, Problem> {
    let query = Query::parse(query, &["add", "append", "delete", "if_absent", "if_rev", "timeout", "ttl"])?;
    let (deletes, appends, add) = (query.flag("delete")?, query.flag("append")?, query.get("add"));
    match (deletes, appends, add) {
        (false, false, None) => write_body(head, key, &query, length, BodyKind::Put),
        (false, true, None) => write_body(head, key, &query, length, BodyKind::Append),
        (false, false, Some(by)) => add_to(head, key, &query, by),
        (true, false, None) if query.get("ttl").is_some() => {
            Err(bad_parameter(String::from("a key that is deleted has no time to live; leave ttl out")))
        }
        (true, false, None) => delete(head, key, &query),
        _ => Err(bad_parameter(String::from(
            "append, add and delete exclude one another; to do several things at once use POST /v1/storage/txn",
        ))),
    }
}

fn write_body(
    head: &RequestHead<'_, '_>,
    key: &str,
    query: &Query<'_>,
    length: BodyLength,
    kind: fn(ValuePlan) -> BodyKind,
) -> Result<Plan, Problem> {
    let key = parse_key(key)?;
    let (timeout_ms, ttl_ms) = (query.timeout_ms()?, query.ttl_ms()?);
    let idempotency_key = idempotency_key(head)?;
    check_body(head, length, "to store an empty value send Content-Length: 0 (with curl: -d '')")?;
    let condition = condition(head, query)?;
    let plan = ValuePlan { key, content_type: stored_content_type(head)?, condition, ttl_ms };
    Ok(Plan::Body(BodyPlan { kind: kind(plan), idempotency_key, timeout_ms }))
}

fn add_to(head: &RequestHead<'_, '_>, key: &str, query: &Query<'_>, by: &str) -> Result<Plan, Problem> {
    let key = parse_key(key)?;
    let by: i64 = by.parse().map_err(|_| {
        let (least, most) = (i64::MIN, i64::MAX);
        bad_parameter(format!(
            "add must be a whole number from {least} to {most}, like add=1 or add=-5, not \"{}\"",
            shortened(by)
        ))
    })?;
    let (timeout_ms, ttl_ms) = (query.timeout_ms()?, query.ttl_ms()?);
    let idempotency_key = idempotency_key(head)?;
    let condition = condition(head, query)?;
    let render = Render::Write { is_put: true, wanted: wanted(&key, &condition) };
    let command = Command::Add { key, by, condition, ttl_ms };
    Ok(Plan::Call(submit(Write { command, idempotency_key }, timeout_ms, render)))
}

fn delete(head: &RequestHead<'_, '_>, key: &str, query: &Query<'_>) -> Result<Plan, Problem> {
    let key = parse_key(key)?;
    let timeout_ms = query.timeout_ms()?;
    let idempotency_key = idempotency_key(head)?;
    let condition = condition(head, query)?;
    let render = Render::Write { is_put: false, wanted: wanted(&key, &condition) };
    let command = Command::Delete { key, condition };
    Ok(Plan::Call(submit(Write { command, idempotency_key }, timeout_ms, render)))
}

/// Whether the request has a body, and all of it: a part of a value, or a compressed one, would be given to readers as
/// if it were the value itself (RFC 9110, sections 9.3.4 and 14.4).
pub(crate) fn check_body(
    head: &RequestHead<'_, '_>,
    length: BodyLength,
    advice: &str,
) -> Result<(), Problem> {
    if head.values("content-range").next().is_some() {
        let detail = "Content-Range is not supported; a body is taken as a whole";
        return Err(Problem::bad_request("partial-write-not-supported", detail));
    }
    if head.members("content-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let detail =
            "Content-Encoding is not kept with a value; leave the header out to store the bytes as they are";
        return Err(Problem::new(Status::UnsupportedMediaType, "content-encoding-not-supported", detail));
    }
    if length == BodyLength::None {
        let detail = format!("the request has no body and no Content-Length; {advice}");
        return Err(Problem::new(Status::LengthRequired, "length-required", detail));
    }
    Ok(())
}
