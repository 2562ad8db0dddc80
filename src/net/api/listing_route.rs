//! `/v1/storage/keys`.

use crate::kv::command::{Command, Write};
use crate::limits::{KEY_BYTES_MAX, PAGE_KEYS_DEFAULT, PAGE_KEYS_MAX};
use crate::net::api::accept::preferred;
use crate::net::api::action::{ListingForm, Render};
use crate::net::api::body_plan::submit;
use crate::net::api::condition::{if_match, if_none_match};
use crate::net::api::follow::follow_listing;
use crate::net::api::idempotency::idempotency_key;
use crate::net::api::query::{Query, bad_parameter, shortened};
use crate::net::api::route::{Plan, method_not_allowed};
use crate::net::api::transaction_route::refuse_conditions;
use crate::net::http::head::RequestHead;
use crate::net::http::problem::Problem;
use crate::replica::io::{KeyRange, Listing};

const ALLOW: &str = "GET, HEAD, DELETE";
/// The forms of a listing, the one for shells first.
const FORMS: [&str; 2] = ["text/plain", "application/json"];

/// What a request to this path asks for. `query` is still encoded.
pub(crate) fn route(head: &RequestHead<'_, '_>, query: &str) -> Result<Plan, Problem> {
    match head.method {
        "GET" | "HEAD" => list(head, query),
        "DELETE" => delete(head, query),
        method => Err(method_not_allowed(method, ALLOW)),
    }
}

fn list(head: &RequestHead<'_, '_>, query: &str) -> Result<Plan, Problem> {
    let query = Query::parse(
        query,
        &[
            "after",
            "consistency",
            "count",
            "end",
            "limit",
            "prefix",
            "since",
            "start",
            "timeout",
            "values",
            "wait",
            "watch",
        ],
    )?;
    let range = range(&query)?;
    let with_values = query.flag("values")?;
    let listing = if query.flag("count")? {
        if with_values || query.get("limit").is_some() {
            let detail = "count gives a number and no keys; leave limit and values out";
            return Err(bad_parameter(String::from(detail)));
        }
        Listing::Count
    } else {
        Listing::Page { limit: limit(&query)?, with_values }
    };
    let form = match preferred(head, &FORMS) {
        // With watch, they mean nothing in any form; that is said there.
        0 if with_values && query.get("watch").is_none() => {
            let detail =
                "values are listed as JSON only; send Accept: application/json, or read the keys one by one";
            return Err(bad_parameter(String::from(detail)));
        }
        0 => ListingForm::Text,
        _ => ListingForm::Json,
    };
    let render = Render::Listing { form, if_match: if_match(head)?, if_none_match: if_none_match(head)? };
    let (consistency, timeout_ms) = (query.consistency()?, query.timeout_ms()?);
    follow_listing(head, &query, range, listing, consistency, timeout_ms, render).map(Plan::Call)
}

/// The part of the keys that is meant. An empty bound is none, so that `after=$next` is right on the first page, too.
fn range(query: &Query<'_>) -> Result<KeyRange, Problem> {
    let bound = |name| match query.get(name) {
        None | Some("") => Ok(None),
        Some(text) => check_length(name, text).map(|()| Some(text.to_owned())),
    };
    Ok(KeyRange {
        prefix: bound("prefix")?.unwrap_or_default(),
        start: bound("start")?,
        end: bound("end")?,
        after: bound("after")?,
    })
}

fn check_length(name: &str, text: &str) -> Result<(), Problem> {
    if text.len() > KEY_BYTES_MAX {
        let detail = format!("{name} has {} bytes; no key has more than {KEY_BYTES_MAX}", text.len());
        return Err(bad_parameter(detail));
    }
    Ok(())
}

fn limit(query: &Query<'_>) -> Result<usize, Problem> {
    let Some(text) = query.get("limit") else { return Ok(PAGE_KEYS_DEFAULT) };
    let limit = text.parse().ok().filter(|limit| (1..=PAGE_KEYS_MAX).contains(limit));
    limit.ok_or_else(|| {
        bad_parameter(format!(
            "limit must be a number from 1 to {PAGE_KEYS_MAX}, not \"{}\"; for more, ask for the next page with after",
            shortened(text)
        ))
    })
}

fn delete(head: &RequestHead<'_, '_>, query: &str) -> Result<Plan, Problem> {
    let query = Query::parse(query, &["all", "prefix", "timeout"])?;
    refuse_conditions(head, "to delete several keys under conditions use POST /v1/storage/txn")?;
    let prefix = match (query.flag("all")?, query.get("prefix")) {
        (true, None) => String::new(),
        (false, Some(prefix)) if !prefix.is_empty() => {
            check_length("prefix", prefix)?;
            prefix.to_owned()
        }
        (true, Some(_)) => {
            return Err(bad_parameter(String::from("prefix and all exclude one another; give one of them")));
        }
        (false, _) => {
            let detail = "which keys? give a prefix that is not empty, or, to delete every key, all";
            return Err(bad_parameter(String::from(detail)));
        }
    };
    let idempotency_key = idempotency_key(head)?;
    let render = Render::Write { is_put: false, wanted: None };
    let command = Command::DeletePrefix { prefix };
    Ok(Plan::Call(submit(Write { command, idempotency_key }, query.timeout_ms()?, render)))
}
