//! `/v1/storage/txn`.

use crate::kv::command::{Requirement, Transaction};
use crate::net::api::action::Wanted;
use crate::net::api::body_plan::{BodyKind, BodyPlan};
use crate::net::api::idempotency::idempotency_key;
use crate::net::api::key_route::check_body;
use crate::net::api::query::Query;
use crate::net::api::route::{Plan, method_not_allowed};
use crate::net::http::framing::BodyLength;
use crate::net::http::head::RequestHead;
use crate::net::http::problem::Problem;

const ALLOW: &str = "POST";
/// Headers whose meaning a transaction says in its body.
const CONDITIONAL: [&str; 2] = ["if-match", "if-none-match"];

/// What a request to this path asks for.
pub(crate) fn route(head: &RequestHead<'_, '_>, query: &str, length: BodyLength) -> Result<Plan, Problem> {
    if head.method != "POST" {
        return Err(method_not_allowed(head.method, ALLOW));
    }
    let query = Query::parse(query, &["timeout"])?;
    refuse_conditions(head, "a transaction has its conditions in \"if\"")?;
    check_body(head, length, "a transaction is sent as JSON in the request's body")?;
    Ok(Plan::Body(BodyPlan {
        kind: BodyKind::Transaction,
        idempotency_key: idempotency_key(head)?,
        timeout_ms: query.timeout_ms()?,
    }))
}

/// A condition must not be ignored.
pub(crate) fn refuse_conditions(head: &RequestHead<'_, '_>, advice: &str) -> Result<(), Problem> {
    if CONDITIONAL.into_iter().any(|name| head.values(name).next().is_some()) {
        let detail = format!("If-Match and If-None-Match are about one key; {advice}");
        return Err(Problem::bad_request("bad-condition", detail));
    }
    Ok(())
}

/// What to remember of a transaction's conditions, for the message when one does not hold.
pub(crate) fn wanted_by(transaction: &Transaction) -> Option<Box<Wanted>> {
    if transaction.conditions.is_empty() || transaction.otherwise.is_some() {
        return None;
    }
    let without_value = |(key, requirement): &(String, Requirement)| match requirement {
        Requirement::Value(_) => (key.clone(), Requirement::Value(Vec::new())),
        other => (key.clone(), other.clone()),
    };
    Some(Box::new(Wanted::Requirements(transaction.conditions.iter().map(without_value).collect())))
}
