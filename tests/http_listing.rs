//! Many keys: listings as text and as JSON, pages, counts, deletion by prefix.
#![allow(clippy::unwrap_used, reason = "a test may end that way")]

#[path = "support/http.rs"]
mod http;

use std::collections::BTreeMap;

use http::{Answer, Client, VALUE_BYTES_MAX, reply, view};
use keva::kv::command::Command;
use keva::limits::{KEY_BYTES_MAX, PAGE_BYTES_MAX, PAGE_KEYS_DEFAULT, PAGE_KEYS_MAX};
use keva::net::api::target::{percent_decode, percent_encode};
use keva::net::api::{Action, ListingForm, Render, render};
use keva::raft::types::Index;
use keva::replica::io::{Consistency, KeyRange, Listing, NotApplied, Outcome, Request};
use keva::util::time::LogicalTime;
use proptest::collection::btree_set;
use proptest::prelude::*;

const KEYS: &str = "/v1/storage/keys";
const JSON: &str = "Accept: application/json\r\n";

fn encoded(key: &str) -> String {
    let mut out = Vec::new();
    percent_encode(key, &mut out);
    String::from_utf8(out).unwrap()
}

fn put(client: &mut Client, key: &str, value: &str) {
    let target = format!("/v1/storage/key/{}", encoded(key));
    assert_eq!(client.tell("PUT", &target, "", value).status, 200, "{key:?}");
}

fn filled(keys: &[&str]) -> Client {
    let mut client = Client::new();
    for key in keys {
        put(&mut client, key, key);
    }
    client
}

fn list(client: &mut Client, query: &str, headers: &str) -> Answer {
    client.tell("GET", &format!("{KEYS}?{query}"), headers, "")
}

fn request(query: &str) -> (Request, Option<u64>) {
    match Client::understood("GET", &format!("{KEYS}?{query}"), JSON, "") {
        Action::Submit { request, timeout_ms, .. } => (request, timeout_ms),
        other => panic!("{other:?}"),
    }
}

#[test]
fn text_is_a_key_per_line() {
    let mut client = filled(&["b", "a/x y", "a+%", "\n", "\u{fc}", "a/z"]);
    let answer = list(&mut client, "", "");
    assert_eq!((answer.status, answer.text()), (200, "%0A\na%2B%25\na/x%20y\na/z\nb\n%C3%BC\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!((answer.header("etag"), answer.header("keva-revision")), (Some("W/\"6\""), Some("6")));
    assert_eq!((answer.header("keva-next"), answer.header("vary")), (None, Some("Accept")));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let head = client.tell("HEAD", KEYS, "", "");
    assert_eq!((head.status, &head.headers), (200, &answer.headers));
    let none = list(&mut client, "prefix=none", "");
    assert_eq!((none.status, none.text(), none.header("content-length")), (200, "", Some("0")));
}

#[test]
fn json_says_everything() {
    let mut client = Client::new();
    client.node.time = LogicalTime(5_000);
    put(&mut client, "a", "1");
    client.tell("PUT", "/v1/storage/key/b?ttl=30s", "", "\u{e4}\"");
    client.ask(b"PUT /v1/storage/key/c HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n\xff\xfe\0");
    client.node.time = LogicalTime(5_001);
    let answer = list(&mut client, "", JSON);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    let expected = "{\"revision\":3,\"keys\":[{\"key\":\"a\",\"revision\":1,\"size\":1},\
                    {\"key\":\"b\",\"revision\":2,\"size\":3,\"ttl\":30},\
                    {\"key\":\"c\",\"revision\":3,\"size\":3}],\"next\":null}\n";
    assert_eq!(answer.text(), expected);
    let expected = "{\"revision\":3,\"keys\":[{\"key\":\"a\",\"revision\":1,\"size\":1,\"value\":\"1\"},\
                    {\"key\":\"b\",\"revision\":2,\"size\":3,\"ttl\":30,\"value\":\"\u{e4}\\\"\"},\
                    {\"key\":\"c\",\"revision\":3,\"size\":3,\"value_base64\":\"//4A\"}],\"next\":null}\n";
    assert_eq!(list(&mut client, "values", JSON).text(), expected);
    assert_eq!(list(&mut client, "limit=1", JSON).json()["next"], "a");
    assert_eq!(list(&mut client, "count", JSON).text(), "{\"revision\":3,\"count\":3}\n");
    assert_eq!(list(&mut client, "count&prefix=b", "").text(), "1\n");
}

#[test]
fn the_form_is_negotiated() {
    let mut client = filled(&["a"]);
    for (accept, is_json) in [
        ("", false),
        ("Accept: */*\r\n", false),
        ("Accept: text/html,*/*;q=0.8\r\n", false),
        ("Accept: image/png\r\n", false),
        (JSON, true),
        ("Accept: text/plain;q=0.5, application/json\r\n", true),
        ("Accept: text/plain;q=0.5\r\nAccept: application/*\r\n", true),
    ] {
        let answer = list(&mut client, "", accept);
        assert_eq!(answer.header("content-type").unwrap().contains("json"), is_json, "{accept}");
    }
    let refused = list(&mut client, "values", "");
    assert_eq!(refused.problem(), (400, "bad-parameter".into()));
    assert!(refused.member("detail").contains("Accept: application/json"));
}

#[test]
fn parameters() {
    let range = |prefix: &str, start: Option<&str>, end: Option<&str>, after: Option<&str>| KeyRange {
        prefix: prefix.into(),
        start: start.map(Into::into),
        end: end.map(Into::into),
        after: after.map(Into::into),
    };
    let page = |limit, with_values| Listing::Page { limit, with_values };
    let rows = [
        ("", range("", None, None, None), page(PAGE_KEYS_DEFAULT, false)),
        (
            "prefix=a%2Fb&start=%C3%BC&end=x+y&after=%0A",
            range("a/b", Some("\u{fc}"), Some("x+y"), Some("\n")),
            page(PAGE_KEYS_DEFAULT, false),
        ),
        ("prefix=&start=&end=&after=", range("", None, None, None), page(PAGE_KEYS_DEFAULT, false)),
        ("limit=1&values", range("", None, None, None), page(1, true)),
        ("limit=10000", range("", None, None, None), page(PAGE_KEYS_MAX, false)),
        ("count&prefix=a&after=b", range("a", None, None, Some("b")), Listing::Count),
    ];
    for (query, range, listing) in rows {
        let consistency = Consistency::Linearizable;
        assert_eq!(request(query), (Request::List { range, listing, consistency }, None), "{query}");
    }
    let (asked, timeout_ms) = request("consistency=stale&timeout=2s");
    assert!(matches!(asked, Request::List { consistency: Consistency::Stale, .. }));
    assert_eq!(timeout_ms, Some(2_000));

    let long = "x".repeat(KEY_BYTES_MAX + 1);
    let rows = [
        ("limit=0", "bad-parameter"),
        ("limit=10001", "bad-parameter"),
        ("limit=-1", "bad-parameter"),
        ("limit=", "bad-parameter"),
        ("limit=1e3", "bad-parameter"),
        ("count&limit=5", "bad-parameter"),
        ("count&values", "bad-parameter"),
        ("count=1", "bad-parameter"),
        ("values=yes", "bad-parameter"),
        ("consistency=strong", "bad-parameter"),
        ("timeout=6m", "bad-parameter"),
        ("prefix=a&prefix=b", "bad-parameter"),
        ("prefix=%ff", "not-utf8"),
        ("prefix=%", "bad-percent-encoding"),
        ("all", "unknown-parameter"),
        ("prefx=a", "unknown-parameter"),
    ];
    let longest = [format!("prefix={long}"), format!("start={long}"), format!("after={long}")];
    let rows = rows.into_iter().chain(longest.iter().map(|query| (query.as_str(), "bad-parameter")));
    for (query, code) in rows {
        let mut client = Client::new();
        let answer = list(&mut client, query, JSON);
        assert_eq!(answer.problem(), (400, code.into()), "{query}");
        assert!(client.calls.is_empty() && !client.is_closing());
    }
}

/// Start is in, end and after are out; bounds in the middle of nowhere are fine.
#[test]
fn ranges() {
    let mut client = filled(&["a", "a/1", "a/2", "a/3", "b", "\u{1f600}"]);
    for (query, expected) in [
        ("prefix=a/", "a/1\na/2\na/3\n"),
        ("start=a/2", "a/2\na/3\nb\n%F0%9F%98%80\n"),
        ("end=a/2", "a\na/1\n"),
        ("after=a/2", "a/3\nb\n%F0%9F%98%80\n"),
        ("prefix=a/&start=a/2&end=a/3", "a/2\n"),
        ("prefix=a/&after=a", "a/1\na/2\na/3\n"),
        ("prefix=a/&start=b", ""),
        ("start=b&end=a", ""),
        ("after=%F0%9F%98%80", ""),
    ] {
        assert_eq!(list(&mut client, query, "").text(), expected, "{query}");
    }
}

/// Page by page, as a shell does it: each page's last key is where the next one begins.
#[test]
fn pages_follow_one_another() {
    let keys: Vec<String> = (0..25).map(|number| format!("k {number:02}\n")).collect();
    let mut client = filled(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    let (mut next, mut pages, mut found) = (String::new(), 0, Vec::new());
    loop {
        let answer = list(&mut client, &format!("limit=10&after={next}"), "");
        found.extend(answer.text().lines().map(|line| percent_decode(line, "it").unwrap().into_owned()));
        pages += 1;
        match answer.header("keva-next") {
            Some(key) => next = key.to_owned(),
            None => break,
        }
    }
    assert_eq!((pages, found), (3, keys));
    let exact = list(&mut client, "limit=25", "");
    assert_eq!(exact.header("keva-next"), None, "nothing follows");
}

/// Memory is bounded by a page, whatever the values.
#[test]
fn large_values_make_short_pages() {
    let mut client = Client::new();
    let value = "v".repeat(VALUE_BYTES_MAX);
    for number in 0..20 {
        put(&mut client, &format!("{number:02}"), &value);
    }
    let answer = list(&mut client, "values", JSON);
    let json = answer.json();
    let count = json["keys"].as_array().unwrap().len();
    assert!((1..20).contains(&count) && !json["next"].is_null(), "{count}");
    assert!(answer.body.len() < PAGE_BYTES_MAX + VALUE_BYTES_MAX + 4096);
    assert_eq!(list(&mut client, "", JSON).json()["keys"].as_array().unwrap().len(), 20);
}

#[test]
fn conditions_of_listings() {
    let mut client = filled(&["a", "b"]);
    for (headers, status) in [
        ("If-None-Match: \"2\"\r\n", 304),
        ("If-None-Match: \"1\"\r\n", 200),
        ("If-None-Match: *\r\n", 304),
        ("If-Match: \"2\"\r\n", 200),
        ("If-Match: \"1\"\r\n", 412),
        ("If-None-Match: 2\r\n", 400),
    ] {
        for query in ["", "count"] {
            let answer = list(&mut client, query, headers);
            assert_eq!(answer.status, status, "{headers} {query}");
            assert_eq!(answer.header("etag"), (status != 400).then_some("W/\"2\""), "{headers}");
        }
    }
    let form = ListingForm::Text;
    let how = Render::Listing { form, if_match: None, if_none_match: None };
    let failed = render(how, reply(3, Outcome::NotApplied(NotApplied::NoLeader)), &view());
    assert_eq!((failed.status.code(), failed.etag), (503, None));
}

/// The time of a wait is over: the answer is the one to a listing that has not changed.
#[test]
fn a_wait_ends_like_a_plain_listing() {
    let mut client = filled(&["a", "b"]);
    for (headers, status) in [
        ("If-None-Match: \"2\"\r\n", 304),
        ("If-None-Match: W/\"2\"\r\n", 304),
        ("If-None-Match: \"2\"\r\nIf-Match: \"2\"\r\n", 304),
        ("If-None-Match: \"2\"\r\nIf-Match: \"1\"\r\n", 412),
    ] {
        let (plain, wait) = (list(&mut client, "", headers), list(&mut client, "wait=1s", headers));
        assert_eq!((plain.status, wait.status), (status, status), "{headers}");
        let but_names = |answer: &Answer| -> Vec<(String, String)> {
            answer.headers.iter().filter(|(name, _)| !name.starts_with("Keva-")).cloned().collect()
        };
        assert_eq!(but_names(&wait), but_names(&plain), "{headers}");
        assert_eq!(wait.header("keva-revision"), plain.header("keva-revision"), "{headers}");
    }
}

/// What is wrong with values and watch is not the form.
#[test]
fn values_mean_nothing_with_watch() {
    for headers in ["", JSON] {
        let answer = list(&mut filled(&["a"]), "watch&values", headers);
        assert_eq!(answer.status, 400);
        assert_eq!(answer.member("detail"), "values means nothing with watch; leave one of them out");
    }
}

#[test]
fn deletion_by_prefix() {
    let mut client = filled(&["a", "a/1", "a/2", "b"]);
    let answer = client.tell("DELETE", &format!("{KEYS}?prefix=a%2F"), "", "");
    assert_eq!((answer.status, answer.text()), (200, "{\"deleted\":2}"));
    assert_eq!((answer.header("keva-revision"), answer.header("etag")), (Some("5"), None));
    assert_eq!(list(&mut client, "", "").text(), "a\nb\n");
    assert_eq!(client.tell("DELETE", &format!("{KEYS}?prefix=none"), "", "").text(), "{\"deleted\":0}");
    let key = "Idempotency-Key: d\r\n";
    for _ in 0..2 {
        assert_eq!(client.tell("DELETE", &format!("{KEYS}?all"), key, "").text(), "{\"deleted\":2}");
    }
    assert_eq!(list(&mut client, "count", "").text(), "0\n");

    let long = format!("prefix={}", "x".repeat(KEY_BYTES_MAX + 1));
    for (query, headers, code, part) in [
        ("", "", "bad-parameter", "to delete every key, all"),
        ("prefix=", "", "bad-parameter", "a prefix that is not empty"),
        ("prefix", "", "bad-parameter", "a prefix that is not empty"),
        ("all&prefix=a", "", "bad-parameter", "exclude one another"),
        ("all&prefix=", "", "bad-parameter", "exclude one another"),
        ("all=true", "", "bad-parameter", "takes no value"),
        (long.as_str(), "", "bad-parameter", "no key has more than 1024"),
        ("prefix=a&if_rev=1", "", "unknown-parameter", "if_rev"),
        ("prefix=a&if_absent", "", "unknown-parameter", "if_absent"),
        ("prefix=a&limit=1", "", "unknown-parameter", "limit"),
        ("prefix=a", "If-Match: \"1\"\r\n", "bad-condition", "/v1/storage/txn"),
        ("all", "If-None-Match: *\r\n", "bad-condition", "/v1/storage/txn"),
    ] {
        let mut client = Client::new();
        let answer = client.tell("DELETE", &format!("{KEYS}?{query}"), headers, "");
        assert_eq!(answer.problem(), (400, code.into()), "{query} {headers}");
        assert!(answer.member("detail").contains(part), "{}", answer.member("detail"));
        assert!(client.calls.is_empty());
    }
    match Client::understood("DELETE", &format!("{KEYS}?all&timeout=1s"), "", "") {
        Action::Submit { request: Request::Write(write), timeout_ms: Some(1_000), .. } => {
            assert_eq!(write.command, Command::DeletePrefix { prefix: String::new() });
        }
        other => panic!("{other:?}"),
    }
}

/// A key with an item that cannot be text, in the middle of ones that can.
#[test]
fn values_survive_json() {
    let mut client = Client::new();
    let values: [&[u8]; 6] =
        [b"", b"\0", b"\"\\\x08\x1f", "\u{2028}\u{10ffff}".as_bytes(), b"\xc3", b"\xff\xff"];
    for (number, value) in values.iter().enumerate() {
        let head = format!(
            "PUT /v1/storage/key/{number} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
            value.len()
        );
        client.ask([head.as_bytes(), value].concat());
    }
    let json = list(&mut client, "values", JSON).json();
    for (entry, value) in json["keys"].as_array().unwrap().iter().zip(values) {
        assert_eq!(entry["size"], value.len());
        match std::str::from_utf8(value) {
            Ok(text) => {
                assert_eq!((entry["value"].as_str(), &entry["value_base64"]), (Some(text), &().into()));
            }
            Err(_) => {
                use base64::Engine as _;
                let encoded = entry["value_base64"].as_str().unwrap();
                assert_eq!(base64::engine::general_purpose::STANDARD.decode(encoded).unwrap(), value);
            }
        }
    }
}

#[test]
fn an_empty_count_and_revision() {
    let how = || Render::Listing { form: ListingForm::Json, if_match: None, if_none_match: None };
    let response = render(how(), reply(0, Outcome::Count(0)), &view());
    assert_eq!(
        (response.body.as_slice(), response.etag),
        (&b"{\"revision\":0,\"count\":0}\n"[..], Some(Index(0)))
    );
}

proptest! {
    /// Whatever the keys: the lines of all pages, decoded, are the keys in their order, and so is the JSON.
    #[test]
    fn any_keys_survive_a_listing(
        keys in btree_set("\\PC{1,20}|[\0-\x7f]{1,8}|[/.%+ ]{1,6}", 1..30),
        limit in 1usize..8,
    ) {
        let mut client = Client::new();
        let mut expected = BTreeMap::new();
        for key in &keys {
            put(&mut client, key, key);
            expected.insert(key.clone(), key.clone());
        }
        let (mut found, mut next) = (Vec::new(), String::new());
        loop {
            let answer = list(&mut client, &format!("limit={limit}&after={next}"), "");
            prop_assert!(answer.body.iter().all(|byte| *byte == b'\n' || byte.is_ascii_graphic()));
            for line in answer.text().lines() {
                found.push(percent_decode(line, "it").unwrap().into_owned());
                let value = client.tell("GET", &format!("/v1/storage/key/{line}"), "", "");
                prop_assert_eq!(&value.body, found.last().unwrap().as_bytes(), "a line is a URL's end");
            }
            match answer.header("keva-next") {
                Some(key) => next = key.to_owned(),
                None => break,
            }
        }
        prop_assert!(found.iter().eq(expected.keys()));
        let json = list(&mut client, "values", JSON).json();
        let listed: BTreeMap<String, String> = json["keys"].as_array().unwrap().iter()
            .map(|entry| (entry["key"].as_str().unwrap().to_owned(), entry["value"].as_str().unwrap().to_owned()))
            .collect();
        prop_assert_eq!(listed, expected);
    }
}
