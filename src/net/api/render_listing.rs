//! Listings of keys as text and as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::net::api::action::ListingForm;
use crate::net::api::render::ttl_s;
use crate::net::api::target::percent_encode;
use crate::net::http::response::{Body, JSON, Response, TEXT};
use crate::net::http::status::Status;
use crate::raft::types::Index;
use crate::replica::io::{Item, Page};
use crate::util::time::LogicalTime;

/// A page as JSON.
#[derive(Serialize)]
struct PageJson<'a> {
    revision: u64,
    keys: Vec<KeyJson<'a>>,
    next: Option<&'a str>,
}

/// One element of `keys`.
#[derive(Serialize)]
struct KeyJson<'a> {
    key: &'a str,
    revision: u64,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// How many keys there are.
#[derive(Serialize)]
struct CountJson {
    revision: u64,
    count: u64,
}

/// A page of keys. `time` is the cluster's, for what keys have left.
pub(crate) fn page(page: &Page, form: ListingForm, revision: Index, time: LogicalTime) -> Response {
    // Where the page ended, if there is a next one.
    let next = page.keys.last().filter(|_| page.has_more).map(|(key, _)| key.as_ref());
    match form {
        ListingForm::Text => text(page, next),
        ListingForm::Json { with_values } => {
            let keys = page.keys.iter().map(|(key, item)| key_json(key, item, with_values, time)).collect();
            json(&PageJson { revision: revision.0, keys, next })
        }
    }
}

fn text(page: &Page, next: Option<&str>) -> Response {
    let mut body = Vec::new();
    for (key, _) in &page.keys {
        percent_encode(key, &mut body);
        body.push(b'\n');
    }
    let mut response = Response::new(Status::Ok, TEXT, Body::Owned(body));
    response.next = next.map(|key| {
        let mut encoded = Vec::new();
        percent_encode(key, &mut encoded);
        String::from_utf8(encoded).expect("percent-encoded text is ASCII")
    });
    response.is_foreign = true;
    response
}

fn key_json<'a>(key: &'a str, item: &'a Item, with_values: bool, time: LogicalTime) -> KeyJson<'a> {
    let value = std::str::from_utf8(&item.value);
    KeyJson {
        key,
        revision: item.revision.0,
        size: item.value.len(),
        ttl: ttl_s(item, time),
        value: value.ok().filter(|_| with_values),
        value_base64: (with_values && value.is_err()).then(|| BASE64.encode(&item.value)),
    }
}

/// A number of keys.
pub(crate) fn count(count: u64, form: ListingForm, revision: Index) -> Response {
    match form {
        ListingForm::Text => Response::new(Status::Ok, TEXT, Body::Owned(format!("{count}\n").into_bytes())),
        ListingForm::Json { .. } => json(&CountJson { revision: revision.0, count }),
    }
}

fn json(value: &impl Serialize) -> Response {
    let mut body = serde_json::to_vec(value).expect("a listing is strings and numbers");
    body.push(b'\n');
    let mut response = Response::new(Status::Ok, JSON, Body::Owned(body));
    response.is_foreign = true;
    response
}
