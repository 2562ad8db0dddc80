//! Listings of keys as text and as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Serialize, Serializer};

use crate::net::api::action::ListingForm;
use crate::net::api::render::ttl_s;
use crate::net::api::target::percent_encode;
use crate::net::http::response::{Body, JSON, Response, TEXT};
use crate::net::http::status::Status;
use crate::raft::types::Index;
use crate::replica::io::{Listed, Page};
use crate::util::time::LogicalTime;

/// A page as JSON.
#[derive(Serialize)]
struct PageJson<'a> {
    revision: u64,
    keys: KeysJson<'a>,
    next: Option<&'a str>,
}

/// Written down key by key: they need no memory of their own.
struct KeysJson<'a> {
    page: &'a Page,
    time: LogicalTime,
}

impl Serialize for KeysJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.page.iter().map(|listed| key_json(&listed, self.time)))
    }
}

/// One element of `keys`.
#[derive(Serialize)]
struct KeyJson<'a> {
    key: &'a str,
    revision: u64,
    size: u64,
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
    let next = page.last_key().filter(|_| page.has_more);
    match form {
        ListingForm::Text => text(page, next),
        ListingForm::Json => json(&PageJson { revision: revision.0, keys: KeysJson { page, time }, next }),
    }
}

fn text(page: &Page, next: Option<&str>) -> Response {
    let mut body = Vec::with_capacity(page.key_bytes() + page.len());
    for listed in page.iter() {
        percent_encode(listed.key, &mut body);
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

fn key_json<'a>(listed: &Listed<'a>, time: LogicalTime) -> KeyJson<'a> {
    let text = listed.value.map(std::str::from_utf8);
    KeyJson {
        key: listed.key,
        revision: listed.revision.0,
        size: listed.size,
        ttl: ttl_s(listed.expires_at, time),
        value: text.and_then(Result::ok),
        value_base64: listed
            .value
            .filter(|_| text.is_some_and(|text| text.is_err()))
            .map(|value| BASE64.encode(value)),
    }
}

/// A number of keys.
pub(crate) fn count(count: u64, form: ListingForm, revision: Index) -> Response {
    match form {
        ListingForm::Text => Response::new(Status::Ok, TEXT, Body::Owned(format!("{count}\n").into_bytes())),
        ListingForm::Json => json(&CountJson { revision: revision.0, count }),
    }
}

fn json(value: &impl Serialize) -> Response {
    let mut body = serde_json::to_vec(value).expect("a listing is strings and numbers");
    body.push(b'\n');
    let mut response = Response::new(Status::Ok, JSON, Body::Owned(body));
    response.is_foreign = true;
    response
}
