//! What became of a write, as a response.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::kv::command::{Condition, Matcher, Requirement};
use crate::net::api::action::Wanted;
use crate::net::api::failure::{key_reused, quoted, refused};
use crate::net::http::problem::Problem;
use crate::net::http::response::{Body, JSON, Response, TEXT};
use crate::net::http::status::Status;
use crate::raft::types::Index;
use crate::replica::io::{Applied, OperationResult, TransactionResult};

/// The answer to a successful write, byte for byte what the original Keva said.
const DONE: &str = "{\"done\":\"true\"}";

/// The response to a write that was applied. It is made from the outcome alone, whatever kind of write was asked for: a
/// repeated one has the outcome of its first time.
pub(crate) fn applied(outcome: Applied, revision: Index, is_put: bool, wanted: Option<&Wanted>) -> Response {
    let mut response = match outcome {
        Applied::Written => {
            put_response(Response::new(Status::Ok, JSON, Body::Static(DONE)), revision, is_put)
        }
        Applied::Counted(value) => {
            let body = Body::Owned(value.to_string().into_bytes());
            put_response(Response::new(Status::Ok, TEXT, body), revision, is_put)
        }
        Applied::Deleted(count) => {
            let body = format!("{{\"deleted\":{count}}}").into_bytes();
            Response::new(Status::Ok, JSON, Body::Owned(body))
        }
        Applied::Transaction(result) => transaction(&result, revision),
        Applied::ConditionFailed { current } => {
            let mut response = precondition_failed(condition_text(wanted, current));
            response.etag = current;
            response
        }
        Applied::RequirementFailed { position, current } => {
            precondition_failed(requirement_text(wanted, position, current))
        }
        Applied::Refused(refusal) => refused(&refusal).to_response(),
        Applied::KeyReused => key_reused().to_response(),
        Applied::Repeated { .. } | Applied::Skipped => {
            unreachable!("a replica answers with the first outcome, and not at all for what was skipped")
        }
    };
    response.revision = Some(revision);
    response
}

fn put_response(mut response: Response, revision: Index, is_put: bool) -> Response {
    response.etag = is_put.then_some(revision);
    response
}

fn precondition_failed(detail: String) -> Response {
    Problem::new(Status::PreconditionFailed, "precondition-failed", detail).to_response()
}

fn condition_text(wanted: Option<&Wanted>, current: Option<Index>) -> String {
    match wanted {
        Some(Wanted::Condition(key, condition)) => explain_condition(key, condition, current),
        _ => String::from("the condition did not hold"),
    }
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
            if condition.if_match.as_ref().is_some_and(|matcher| !matcher.matches(Some(current))) =>
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

/// Names the first condition that did not hold.
fn requirement_text(wanted: Option<&Wanted>, position: u32, current: Option<Index>) -> String {
    let requirement = match wanted {
        Some(Wanted::Requirements(list)) => usize::try_from(position).ok().and_then(|at| list.get(at)),
        _ => None,
    };
    let Some((key, requirement)) = requirement else {
        return format!("if[{position}] did not hold, so nothing was changed");
    };
    let key = quoted(key);
    let why = match (requirement, current) {
        (Requirement::Revision(wanted), None) => {
            format!("key {key} does not exist, so it is not at revision {wanted}")
        }
        (Requirement::Revision(wanted), Some(current)) => {
            format!("key {key} is at revision {current}, not {wanted}")
        }
        (Requirement::Value(_), Some(current)) => {
            format!("key {key} has another value, at revision {current}")
        }
        (_, None) => format!("key {key} does not exist"),
        (_, Some(current)) => format!("key {key} exists, at revision {current}"),
    };
    format!("if[{position}] did not hold, so nothing was changed: {why}")
}

/// The answer to a transaction that took effect.
#[derive(Serialize)]
struct TransactionJson<'a> {
    succeeded: bool,
    revision: u64,
    results: Vec<ResultJson<'a>>,
}

/// One element of `results`.
#[derive(Serialize)]
#[serde(untagged)]
enum ResultJson<'a> {
    Put { put: &'a str, revision: u64 },
    Added { add: &'a str, value: i64 },
    Deleted { delete: &'a str, existed: bool },
    Missing { get: &'a str, missing: bool },
    Text { get: &'a str, revision: u64, value: &'a str },
    Bytes { get: &'a str, revision: u64, value_base64: String },
}

fn transaction(result: &TransactionResult, revision: Index) -> Response {
    let json = TransactionJson {
        succeeded: result.succeeded,
        revision: revision.0,
        results: result.results.iter().map(|result| result_json(result, revision)).collect(),
    };
    let mut body = serde_json::to_vec(&json).expect("the results are strings and numbers");
    body.push(b'\n');
    let mut response = Response::new(Status::Ok, JSON, Body::Owned(body));
    response.is_foreign = true;
    response
}

fn result_json(result: &OperationResult, revision: Index) -> ResultJson<'_> {
    match result {
        OperationResult::Put { key } => ResultJson::Put { put: key, revision: revision.0 },
        OperationResult::Added { key, value } => ResultJson::Added { add: key, value: *value },
        OperationResult::Deleted { key, existed } => ResultJson::Deleted { delete: key, existed: *existed },
        OperationResult::Got { key, found: None } => ResultJson::Missing { get: key, missing: true },
        OperationResult::Got { key, found: Some((revision, value)) } => match std::str::from_utf8(value) {
            Ok(value) => ResultJson::Text { get: key, revision: revision.0, value },
            Err(_) => {
                ResultJson::Bytes { get: key, revision: revision.0, value_base64: BASE64.encode(value) }
            }
        },
    }
}
