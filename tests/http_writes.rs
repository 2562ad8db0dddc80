//! Writes of one key besides the plain ones: append, add, lives, idempotency keys.

#[path = "support/http.rs"]
mod http;

use http::{Client, VALUE_BYTES_MAX, reply, view};
use keva::kv::command::{Command, Write};
use keva::limits::TTL_MS_MAX;
use keva::net::api::{Action, NodeView, Render, render};
use keva::raft::types::Index;
use keva::replica::io::{Applied, Item, NotApplied, Outcome, Refusal, Request};
use keva::util::time::LogicalTime;

const K: &str = "/v1/storage/key/k";

fn at(query: &str) -> String {
    format!("{K}?{query}")
}

fn write(method: &str, target: &str, headers: &str, body: &str) -> Write {
    match Client::understood(method, target, headers, body) {
        Action::Submit { request: Request::Write(write), .. } => write,
        other => panic!("{other:?}"),
    }
}

#[test]
fn append_adds_bytes_behind_the_value() {
    let mut client = Client::new();
    let first = client.tell("POST", &at("append"), "Content-Type: text/csv\r\n", "a,b\n");
    assert_eq!((first.status, first.text()), (200, "{\"done\":\"true\"}"));
    assert_eq!((first.header("etag"), first.header("keva-revision")), (Some("\"1\""), Some("1")));
    assert_eq!(client.tell("POST", &at("append"), "", "c,d\n").status, 200);
    assert_eq!(client.tell("POST", &at("append"), "", "").status, 200, "nothing is something");
    let read = client.tell("GET", K, "", "");
    assert_eq!((read.text(), read.header("content-type")), ("a,b\nc,d\n", Some("text/csv")));
    assert_eq!(read.header("etag"), Some("\"3\""));
    let failed = client.tell("POST", &at("append&if_rev=1"), "", "x");
    assert_eq!(
        (failed.problem(), failed.header("etag")),
        ((412, "precondition-failed".into()), Some("\"3\""))
    );
    assert_eq!(failed.member("detail"), "key \"k\" is at revision 3, not 1");
}

#[test]
fn an_appended_value_has_the_bound_of_a_written_one() {
    let mut client = Client::new();
    let most = "x".repeat(VALUE_BYTES_MAX);
    assert_eq!(client.tell("PUT", K, "", &most).status, 200);
    let over = client.tell("POST", &at("append"), "", "y");
    assert_eq!(over.problem(), (413, "value-too-large".into()));
    let detail = over.member("detail");
    assert!(detail.contains(&format!("would have {} bytes", VALUE_BYTES_MAX + 1)), "{detail}");
    assert!(detail.contains(&format!("at most {VALUE_BYTES_MAX} are allowed")), "{detail}");
    assert!(!client.is_closing());
    assert_eq!(client.tell("GET", K, "", "").body.len(), VALUE_BYTES_MAX, "nothing was changed");
}

/// A too long body is refused before it is read, as for a plain write.
#[test]
fn a_body_has_a_bound() {
    for query in ["append", "ttl=1s"] {
        let mut client = Client::new();
        let length = VALUE_BYTES_MAX + 1;
        client.feed(format!("POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n", at(query)));
        assert_eq!(client.responses()[0].problem(), (413, "value-too-large".into()));
        let mut client = Client::new();
        client.feed(format!("POST {} HTTP/1.1\r\nHost: h\r\n\r\n", at(query)));
        assert_eq!(client.responses()[0].problem(), (411, "length-required".into()));
    }
}

#[test]
fn add_counts() {
    let mut client = Client::new();
    for (by, value) in [("1", "1"), ("41", "42"), ("-50", "-8"), ("+3", "-5"), ("0", "-5")] {
        let answer = client.tell("POST", &at(&format!("add={by}")), "", "the body means nothing");
        assert_eq!((answer.status, answer.text()), (200, value), "{by}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        let revision = client.node.revision();
        assert_eq!(answer.header("etag"), Some(format!("\"{revision}\"").as_str()));
    }
    assert_eq!(client.tell("GET", K, "", "").text(), "-5");
    // Without a body and without its length, as `curl -X POST` sends it.
    let answer = client.ask(format!("POST {} HTTP/1.1\r\nHost: h\r\n\r\n", at("add=1")));
    assert_eq!((answer.status, answer.text()), (200, "-4"));
    client.tell("PUT", K, "", "7\n");
    assert_eq!(client.tell("POST", &at("add=1"), "", "").text(), "8", "what echo wrote is a number");
    let failed = client.tell("POST", &at("add=1&if_absent"), "", "");
    assert_eq!(failed.member("detail"), "key \"k\" exists, at revision 8");
}

#[test]
fn what_is_no_number_and_what_overflows_is_a_conflict() {
    let mut client = Client::new();
    for value in ["hello", "", "1.5", "1e3", "9223372036854775808", "0x1"] {
        client.tell("PUT", K, "", value);
        let answer = client.tell("POST", &at("add=1"), "", "");
        assert_eq!(answer.problem(), (409, "not-a-number".into()), "{value}");
        assert!(answer.member("detail").contains("key \"k\""), "{value}");
        assert_eq!(client.tell("GET", K, "", "").text(), value, "nothing was changed");
    }
    for (value, by) in [(i64::MAX, "1"), (i64::MIN, "-1"), (1, "9223372036854775807")] {
        client.tell("PUT", K, "", &value.to_string());
        let answer = client.tell("POST", &at(&format!("add={by}")), "", "");
        assert_eq!(answer.problem(), (409, "overflow".into()), "{value} {by}");
        assert_eq!(answer.member("applied"), "no");
    }
}

#[test]
fn wrong_parameters_of_writes() {
    let rows: &[(&str, &str, &str)] = &[
        ("POST", "add", "add must be a whole number"),
        ("POST", "add=", "add must be a whole number"),
        ("POST", "add=1.5", "add must be a whole number"),
        ("POST", "add=9223372036854775808", "not \"9223372036854775808\""),
        ("POST", "add=one", "not \"one\""),
        ("POST", "append=1", "append takes no value"),
        ("POST", "append&add=1", "exclude one another"),
        ("POST", "append&delete", "exclude one another"),
        ("POST", "add=1&delete", "exclude one another"),
        ("POST", "add=1&add=2", "more than once"),
        ("POST", "delete&ttl=5s", "leave ttl out"),
        ("PUT", "append", "unknown query parameter"),
        ("PUT", "add=1", "unknown query parameter"),
        ("DELETE", "ttl=5s", "unknown query parameter"),
        ("GET", "ttl=5s", "unknown query parameter"),
        ("PUT", "ttl", "like 500ms, 30s, 5m, 12h or 7d"),
        ("PUT", "ttl=0s", "from 1ms to 3650d"),
        ("PUT", "ttl=-1s", "not \"-1s\""),
        ("PUT", "ttl=30", "leave it out for a key that is to stay"),
        ("POST", "ttl=3651d", "from 1ms to 3650d"),
        ("POST", "append&ttl=99999999999999999999d", "from 1ms to 3650d"),
        ("POST", "add=1&ttl=18446744073709551615ms", "from 1ms to 3650d"),
        ("PUT", "ttl=1s&ttl=2s", "more than once"),
    ];
    for (method, query, part) in rows {
        let mut client = Client::new();
        let answer = client.tell(method, &at(query), "", "1");
        assert_eq!(answer.status, 400, "{method} {query}");
        assert!(answer.member("detail").contains(part), "{query}: {}", answer.member("detail"));
        assert!(client.calls.is_empty() && !client.is_closing(), "{method} {query}");
    }
}

/// Every write that gives a value takes a life; in every unit.
#[test]
fn lives_are_handed_on() {
    let ttl = |method: &str, query: &str| match write(method, &at(query), "", "1").command {
        Command::Put { ttl_ms, .. } | Command::Append { ttl_ms, .. } | Command::Add { ttl_ms, .. } => ttl_ms,
        other => panic!("{other:?}"),
    };
    assert_eq!(ttl("PUT", "ttl=1ms"), Some(1));
    assert_eq!(ttl("POST", "ttl=30s"), Some(30_000));
    assert_eq!(ttl("POST", "append&ttl=5m"), Some(300_000));
    assert_eq!(ttl("POST", "add=1&ttl=12h"), Some(43_200_000));
    assert_eq!(ttl("PUT", "ttl=3650d"), Some(TTL_MS_MAX));
    assert_eq!(ttl("PUT", "timeout=5s"), None);
}

/// J3: `Keva-TTL` is what is left, in whole seconds, and never 0 before the time.
#[test]
fn what_is_left_of_a_life_is_told() {
    let mut client = Client::new();
    client.node.time = LogicalTime(1_000_000);
    client.tell("PUT", &at("ttl=30s"), "", "v");
    for (passed, left) in
        [(0, "30"), (1, "30"), (999, "30"), (1_000, "29"), (29_001, "1"), (30_000, "0"), (99_000, "0")]
    {
        client.node.time = LogicalTime(1_000_000 + passed);
        for method in ["GET", "HEAD"] {
            let answer = client.tell(method, K, "", "");
            assert_eq!((answer.status, answer.header("keva-ttl")), (200, Some(left)), "after {passed} ms");
        }
        let unchanged = client.tell("GET", K, "If-None-Match: \"1\"\r\n", "");
        assert_eq!((unchanged.status, unchanged.header("keva-ttl")), (304, Some(left)));
    }
    client.tell("PUT", K, "", "w");
    assert_eq!(client.tell("GET", K, "", "").header("keva-ttl"), None, "a write without a life clears it");
    assert_eq!(client.tell("GET", "/v1/storage/key/missing", "", "").header("keva-ttl"), None);
    // A node whose clock is behind the entry that it has just applied: no underflow, no wrong sign.
    let item = Item {
        value: b"v"[..].into(),
        content_type: None,
        revision: Index(1),
        expires_at: Some(LogicalTime(u64::MAX)),
    };
    let how = Render::Read { missing_is_error: None, if_match: None, if_none_match: None };
    let early = NodeView { time: LogicalTime(0), ..view() };
    let response = render(how, reply(1, Outcome::Value(Some(item))), &early);
    assert_eq!(response.ttl_s, Some(u64::MAX.div_ceil(1000)));
}

#[test]
fn idempotency_keys_are_handed_on() {
    let longest = "k".repeat(64);
    for (method, target, body) in [
        ("PUT", K.to_owned(), "v"),
        ("POST", K.to_owned(), "v"),
        ("POST", at("append"), "v"),
        ("POST", at("add=1"), ""),
        ("POST", at("delete"), ""),
        ("DELETE", K.to_owned(), ""),
        ("DELETE", "/v1/storage/keys?prefix=a".to_owned(), ""),
        ("POST", "/v1/storage/txn".to_owned(), "{\"then\":[]}"),
    ] {
        for key in ["!~\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", "x", longest.as_str()] {
            let header = format!("Idempotency-Key:  {key} \r\n");
            assert_eq!(write(method, &target, &header, body).idempotency_key.as_deref(), Some(key));
        }
        assert_eq!(write(method, &target, "", body).idempotency_key, None);
        let mut client = Client::new();
        let too_long = format!("Idempotency-Key: {longest}k\r\n");
        for bad in [too_long.as_str(), "Idempotency-Key: a\tb\r\n", "Idempotency-Key:\r\n"] {
            let answer = client.tell(method, &target, bad, body);
            assert_eq!(answer.problem(), (400, "bad-idempotency-key".into()), "{method} {target} {bad}");
        }
        assert!(client.calls.is_empty());
    }
}

/// E1, E13: the same request again gives the first answer, another one with the same key none.
#[test]
fn a_repeated_write_gets_the_first_answer() {
    let mut client = Client::new();
    let key = "Idempotency-Key: k1\r\n";
    let first = client.tell("POST", &at("add=5"), key, "");
    let again = client.tell("POST", &at("add=5"), key, "");
    assert_eq!((first.text(), first.header("etag")), ("5", Some("\"1\"")));
    assert_eq!(again, first, "byte for byte");
    assert_eq!(client.tell("GET", K, "", "").text(), "5");
    let other = client.tell("POST", &at("add=6"), key, "");
    assert_eq!(other.problem(), (422, "idempotency-key-reused".into()));
    assert_eq!(other.member("applied"), "no");
    let other = client.tell("DELETE", K, key, "");
    assert_eq!(other.status, 422, "whatever the request");
    assert_eq!(client.tell("GET", K, "", "").text(), "5");

    // A failed condition is an outcome as well.
    let key = "Idempotency-Key: k2\r\n";
    let failed = client.tell("PUT", &at("if_rev=9"), key, "x");
    client.tell("PUT", K, "", "y");
    let again = client.tell("PUT", &at("if_rev=9"), key, "x");
    assert_eq!((failed.status, &again), (412, &failed));

    let busy = Outcome::NotApplied(NotApplied::InFlight);
    let response = render(Render::Write { is_put: true, wanted: None }, reply(1, busy), &view());
    assert_eq!(response.status.code(), 409);
}

/// Whatever was remembered under a key can be shown, even if it is of another kind of write.
#[test]
fn every_outcome_has_an_answer() {
    let key = || String::from("a\"b");
    let rows = [
        (Applied::Written, 200),
        (Applied::Counted(i64::MIN), 200),
        (Applied::Deleted(u64::MAX), 200),
        (Applied::ConditionFailed { current: None }, 412),
        (Applied::ConditionFailed { current: Some(Index(3)) }, 412),
        (Applied::RequirementFailed { position: u32::MAX, current: None }, 412),
        (Applied::Refused(Refusal::NotANumber { key: key() }), 409),
        (Applied::Refused(Refusal::Overflow { key: key() }), 409),
        (Applied::Refused(Refusal::ValueTooLong { bytes: 2, bytes_max: 1 }), 413),
        (Applied::Refused(Refusal::ResultTooLong), 413),
        (Applied::KeyReused, 422),
    ];
    for (outcome, status) in rows {
        for is_put in [true, false] {
            let how = Render::Write { is_put, wanted: None };
            let response = render(how, reply(7, Outcome::Applied(outcome.clone())), &view());
            assert_eq!((response.status.code(), response.revision), (status, Some(Index(7))), "{outcome:?}");
            if status != 200 {
                let json: serde_json::Value = serde_json::from_slice(response.body.as_slice()).unwrap();
                assert_eq!(json["applied"], "no", "{outcome:?}");
            }
        }
    }
}
