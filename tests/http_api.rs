//! The API: what requests ask for, and what the answers look like, byte by byte where it matters.

#[path = "support/http.rs"]
mod http;

use http::{Answer, Client, reply, request, view};
use keva::kv::command::{Command, Condition, Matcher, Write};
use keva::net::api::{
    Action, ClusterView, Health, MemberView, NodeView, Render, StatusPage, render, render_status,
};
use keva::raft::types::{EntryId, Index, NodeId, Term};
use keva::replica::io::{
    Consistency, NotApplied, Outcome, PeerStatus, ReplicaStatus, Request, RoleName, SnapshotMeta, Standing,
};
use keva::util::time::Millis;

const K: &str = "/v1/storage/key/k";

fn ask(client: &mut Client, method: &str, target: &str, headers: &str, body: &str) -> Answer {
    client.ask(request(method, target, headers, body))
}

/// The action of a request that must be understood.
fn action(method: &str, target: &str, headers: &str, body: &str) -> Action {
    let mut client = Client::new();
    client.connection.receive(client.now, request(method, target, headers, body).as_bytes());
    client.next_call().unwrap_or_else(|| panic!("{method} {target} is no call")).action
}

fn submit(method: &str, target: &str, headers: &str, body: &str) -> (Request, Option<u64>, Render) {
    match action(method, target, headers, body) {
        Action::Submit { request, timeout_ms, render } => (request, timeout_ms, render),
        other => panic!("{method} {target} asks for {other:?}"),
    }
}

fn revisions(list: &[u64]) -> Option<Matcher> {
    Some(Matcher::Revisions(list.iter().copied().map(Index).collect()))
}

/// The three requests of the original Keva, byte for byte. E12: a missing key and an empty value differ.
#[test]
fn answers_of_the_original() {
    let mut client = Client::new();
    client.feed(request("POST", K, "Content-Type: application/x-www-form-urlencoded\r\n", "hello"));
    let written = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 15\r\n\
                   ETag: \"1\"\r\nKeva-Revision: 1\r\nKeva-Node: host1\r\nKeva-Leader: host2\r\n\r\n{\"done\":\"true\"}";
    assert_eq!(String::from_utf8_lossy(&client.sent), written);

    client.sent.clear();
    client.feed(http::get("k"));
    let value = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\
                 X-Content-Type-Options: nosniff\r\nContent-Security-Policy: sandbox\r\n\
                 ETag: \"1\"\r\nKeva-Revision: 1\r\nKeva-Node: host1\r\nKeva-Leader: host2\r\n\
                 Cache-Control: no-cache\r\n\r\nhello";
    assert_eq!(String::from_utf8_lossy(&client.sent), value);

    for _ in 0..2 {
        let answer = ask(&mut client, "DELETE", K, "", "");
        assert_eq!((answer.status, answer.text()), (200, "{\"done\":\"true\"}"), "absent or not");
        assert_eq!(answer.header("etag"), None, "a deleted key has no revision of its own");
    }
    client.feed(http::get("k"));
    let missing = "HTTP/1.1 204 No Content\r\nKeva-Revision: 3\r\nKeva-Node: host1\r\nKeva-Leader: host2\r\n\
                   Cache-Control: no-cache\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&client.sent), missing);

    let mut client = Client::new();
    assert_eq!(ask(&mut client, "PUT", K, "", "").status, 200);
    let empty = ask(&mut client, "GET", K, "", "");
    assert_eq!(
        (empty.status, empty.header("content-length"), empty.header("etag")),
        (200, Some("0"), Some("\"1\""))
    );
}

/// E12: absent is an answer, not knowing is another.
#[test]
fn absent_and_unknown_differ() {
    let read = || Render::Read { missing_is_error: None, if_match: None, if_none_match: None };
    let absent = render(read(), reply(7, Outcome::Value(None)), &view());
    let unreachable = render(read(), reply(7, Outcome::NotApplied(NotApplied::NoLeader)), &view());
    assert_eq!((absent.status.code(), absent.retry_after_s), (204, None));
    assert_eq!((unreachable.status.code(), unreachable.retry_after_s), (503, Some(1)));

    let mut client = Client::new();
    let answer = ask(&mut client, "GET", &format!("{K}?missing=404"), "", "");
    assert_eq!((answer.status, answer.member("code").as_str()), (404, "key-not-found"));
    assert_eq!(answer.header("keva-revision"), Some("0"));
}

#[test]
fn head_is_get_without_the_body() {
    let mut client = Client::new();
    let long = "x".repeat(100_000);
    for value in ["hello", "", "{\"a\":1}", &long] {
        ask(&mut client, "PUT", K, "", value);
        for target in
            [K, "/v1/storage/key/missing", "/v1/storage/key/missing?missing=404", "/", "/livez", "/nowhere"]
        {
            let get = ask(&mut client, "GET", target, "", "");
            let head = ask(&mut client, "HEAD", target, "", "");
            assert_eq!((head.status, head.headers), (get.status, get.headers), "{target}");
        }
    }
    let head = ask(&mut client, "HEAD", K, "", "");
    assert_eq!(head.header("content-length"), Some("100000"));
}

#[test]
fn content_types() {
    let form = "application/x-www-form-urlencoded";
    let rows: &[(&str, &str, &str)] = &[
        ("", "text", "text/plain; charset=utf-8"),
        ("", "{\"a\":1}", "application/json; charset=utf-8"),
        ("", "[1]", "application/json; charset=utf-8"),
        ("", "1", "text/plain; charset=utf-8"),
        (form, "[1]", "application/json; charset=utf-8"),
        ("Application/X-WWW-Form-Urlencoded; charset=utf-8", "a=b", "text/plain; charset=utf-8"),
        ("text/html", "<b>", "text/html"),
        ("multipart/form-data; boundary=x", "--x--", "multipart/form-data; boundary=x"),
    ];
    for (given, value, expected) in rows {
        let mut client = Client::new();
        let header = if given.is_empty() { String::new() } else { format!("Content-Type:  {given} \r\n") };
        ask(&mut client, "PUT", K, &header, value);
        let answer = ask(&mut client, "GET", K, "", "");
        assert_eq!(answer.header("content-type"), Some(*expected), "{given}, {value}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("content-security-policy"), Some("sandbox"));
        assert_eq!(answer.text(), *value);
    }
    let mut client = Client::new();
    let bytes = [&request("PUT", K, "", "xx").into_bytes()[..], b""].concat();
    let bytes: Vec<u8> = bytes.iter().map(|byte| if *byte == b'x' { 0xff } else { *byte }).collect();
    client.ask(bytes);
    let answer = ask(&mut client, "GET", K, "", "");
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));

    let too_long = format!("Content-Type: a/{}\r\n", "b".repeat(255));
    for bad in [too_long.as_str(), "Content-Type: a/b\r\nContent-Type: a/b\r\n", "Content-Type: a/\u{fc}\r\n"]
    {
        assert_eq!(ask(&mut client, "PUT", K, bad, "x").status, 400, "{bad}");
    }
}

#[test]
fn requests_for_the_node() {
    let (request, timeout_ms, _) = submit("GET", "/v1/storage/key/a%2Fb/..//%C3%BC+?timeout=1500ms", "", "");
    let key = String::from("a/b/..//ü+");
    assert_eq!(request, Request::Read { key: key.clone(), consistency: Consistency::Linearizable });
    assert_eq!(timeout_ms, Some(1_500));
    let (request, timeout_ms, _) = submit("HEAD", "/v1/storage/key/a?consistency=stale", "", "");
    assert_eq!(request, Request::Read { key: "a".into(), consistency: Consistency::Stale });
    assert_eq!(timeout_ms, None);

    let put = |condition, content_type: Option<&str>| {
        let content_type = content_type.map(String::from);
        let (key, value) = ("k".into(), b"v".to_vec());
        Request::Write(Command::Put { key, value, content_type, condition, ttl_ms: None }.into())
    };
    for method in ["PUT", "POST"] {
        let (request, _, render) = submit(method, K, "Content-Type: a/b\r\n", "v");
        assert_eq!(request, put(Condition::default(), Some("a/b")));
        assert_eq!(render, Render::Write { is_put: true, wanted: None });
    }
    let delete = Command::Delete { key: "k".into(), condition: Condition::default() };
    let delete = Request::Write(Write::from(delete));
    for (method, target) in
        [("DELETE", K.to_owned()), ("POST", format!("{K}?delete")), ("POST", format!("{K}?delete="))]
    {
        let (request, _, render) = submit(method, &target, "", "");
        assert_eq!(request, delete);
        assert_eq!(render, Render::Write { is_put: false, wanted: None });
    }
    let (request, timeout_ms, render) = submit("GET", "/readyz?verbose&timeout=2s", "", "");
    assert_eq!(
        (request, timeout_ms, render),
        (Request::Barrier, Some(2_000), Render::Ready { verbose: true })
    );
    assert_eq!(action("GET", "/metrics", "", ""), Action::Metrics);
    assert_eq!(action("GET", "/v1/cluster", "", ""), Action::Status(StatusPage::Cluster));
    assert_eq!(action("GET", "/v1/cluster/leader?timeout=1s", "", ""), Action::Status(StatusPage::Leader));
}

#[test]
fn conditions_of_writes() {
    let condition = |target: &str, headers: &str| {
        let (request, _, _) = submit("PUT", target, headers, "v");
        match request {
            Request::Write(Write { command: Command::Put { condition, .. }, .. }) => condition,
            other => panic!("{other:?}"),
        }
    };
    let rev = |if_match, if_none_match| Condition { if_match, if_none_match };
    let any = Some(Matcher::Any);
    let twice = format!("If-Match: {}\r\n", "\"5\",".repeat(17));
    let rows: &[(&str, &str, Condition)] = &[
        ("", "If-Match: \"5\"\r\n", rev(revisions(&[5]), None)),
        ("", "If-Match: *\r\n", rev(any.clone(), None)),
        ("", "If-None-Match: *\r\n", rev(None, any.clone())),
        ("?if_rev=5", "", rev(revisions(&[5]), None)),
        ("?if_absent", "", rev(None, any.clone())),
        ("?if_rev=5", "If-Match: \"5\"\r\n", rev(revisions(&[5]), None)),
        ("?if_absent", "If-None-Match: *\r\n", rev(None, any)),
        ("", "If-Match: \"5\" , \"6\",,\r\nIf-Match: \"7\"\r\n", rev(revisions(&[5, 6, 7]), None)),
        ("?if_rev=5", "If-Match: \"5\", \"5\"\r\n", rev(revisions(&[5]), None)),
        ("", &twice, rev(revisions(&[5]), None)),
        // A weak tag never equals anything where a strong comparison is asked for.
        ("", "If-Match: W/\"5\", \"6\"\r\n", rev(revisions(&[6]), None)),
        ("", "If-None-Match: W/\"5\", \"6\"\r\n", rev(None, revisions(&[5, 6]))),
        // Tags that no revision has match nothing. The empty one is curl's, for an empty file.
        ("", "If-None-Match: \"\"\r\n", rev(None, revisions(&[]))),
        (
            "",
            "If-Match: \"\", \"05\", \"abc\", \"a,b\", \"18446744073709551616\", \"0\"\r\n",
            rev(revisions(&[]), None),
        ),
    ];
    for (query, headers, expected) in rows {
        assert_eq!(condition(&format!("{K}{query}"), headers), *expected, "{query} {headers}");
    }

    let many: String = (1..=17).map(|revision| format!("\"{revision}\",")).collect();
    let many = format!("If-Match: {many}\r\n");
    let bad: &[(&str, &str, &str)] = &[
        ("", "If-Match: 5\r\n", "bad-condition"),
        ("", "If-Match: \r\n", "bad-condition"),
        ("", "If-None-Match: \r\n", "bad-condition"),
        ("", "If-None-Match: , ,\r\n", "bad-condition"),
        ("", "If-Match: \"5\r\n", "bad-condition"),
        ("", "If-Match: \"5\" \"6\"\r\n", "bad-condition"),
        ("", "If-Match: \"5\", *\r\n", "bad-condition"),
        ("", "If-Match: *\r\nIf-Match: \"5\"\r\n", "bad-condition"),
        ("", "If-Match: w/\"5\"\r\n", "bad-condition"),
        ("", "If-Match: W/\r\n", "bad-condition"),
        ("", "If-Match: \"a b\"\r\n", "bad-condition"),
        ("", &many, "bad-condition"),
        ("?if_rev=6", "If-Match: \"5\"\r\n", "contradicting-conditions"),
        ("?if_rev=6", "If-Match: *\r\n", "contradicting-conditions"),
        ("?if_absent", "If-None-Match: \"5\"\r\n", "contradicting-conditions"),
        ("?if_absent&if_rev=5", "", "contradicting-conditions"),
        ("?if_absent", "If-Match: \"2\"\r\n", "contradicting-conditions"),
        ("?if_rev=5", "If-None-Match: *\r\n", "contradicting-conditions"),
        ("", "If-Match: *\r\nIf-None-Match: *\r\n", "contradicting-conditions"),
        ("?if_rev=0", "", "bad-parameter"),
        ("?if_rev=05", "", "bad-parameter"),
        ("?if_rev=", "", "bad-parameter"),
        ("?if_rev=%225%22", "", "bad-parameter"),
        ("?if_absent=true", "", "bad-parameter"),
    ];
    for (query, headers, code) in bad {
        let mut client = Client::new();
        let answer = ask(&mut client, "PUT", &format!("{K}{query}"), headers, "v");
        assert_eq!((answer.status, answer.member("code").as_str()), (400, *code), "{query} {headers}");
        assert!(client.calls.is_empty());
    }
}

#[test]
fn precondition_failed_tells_the_revision() {
    let mut client = Client::new();
    let target = "/v1/storage/key/app/x";
    let absent = ask(&mut client, "PUT", &format!("{target}?if_rev=3"), "", "v");
    assert_eq!((absent.status, absent.header("etag")), (412, None));
    assert_eq!(absent.member("detail"), "key \"app/x\" does not exist, so it is not at revision 3");
    assert_eq!(
        ask(&mut client, "PUT", &format!("{target}?if_absent"), "", "v").header("etag"),
        Some("\"2\"")
    );
    let stale = ask(&mut client, "PUT", target, "If-Match: \"1\"\r\n", "w");
    assert_eq!(
        (stale.status, stale.header("etag"), stale.header("keva-revision")),
        (412, Some("\"2\""), Some("3"))
    );
    assert_eq!(stale.member("detail"), "key \"app/x\" is at revision 2, not 1");
    assert_eq!(stale.member("error"), stale.member("detail"));
    assert_eq!((stale.member("code"), stale.member("applied")), ("precondition-failed".into(), "no".into()));
    let exists = ask(&mut client, "DELETE", target, "If-None-Match: *\r\n", "");
    assert_eq!(exists.member("detail"), "key \"app/x\" exists, at revision 2");
    assert_eq!(ask(&mut client, "DELETE", target, "If-Match: \"2\"\r\n", "").status, 200);
    let gone = ask(&mut client, "PUT", target, "If-Match: *\r\n", "w");
    assert_eq!(gone.member("detail"), "key \"app/x\" does not exist");
}

#[test]
fn conditions_of_reads() {
    let mut client = Client::new();
    ask(&mut client, "PUT", "/v1/storage/key/other", "", "1");
    ask(&mut client, "PUT", K, "", "value");
    let rows: &[(&str, &str, u16)] = &[
        ("", "If-None-Match: \"2\"\r\n", 304),
        ("", "If-None-Match: W/\"2\"\r\n", 304),
        ("", "If-None-Match: \"1\", \"2\"\r\n", 304),
        ("", "If-None-Match: *\r\n", 304),
        ("", "If-None-Match: \"1\"\r\n", 200),
        ("", "If-None-Match: \"\"\r\n", 200),
        ("", "If-Match: \"2\"\r\n", 200),
        ("", "If-Match: W/\"2\"\r\n", 412),
        ("", "If-Match: \"1\"\r\nIf-None-Match: \"2\"\r\n", 412),
        ("missing", "If-None-Match: *\r\n", 204),
        ("missing", "If-None-Match: \"2\"\r\n", 204),
        ("missing", "If-Match: *\r\n", 412),
        ("", "If-None-Match: 2\r\n", 400),
    ];
    for (suffix, headers, status) in rows {
        for method in ["GET", "HEAD"] {
            let answer = ask(&mut client, method, &format!("{K}{suffix}"), headers, "");
            assert_eq!(answer.status, *status, "{method} {suffix} {headers}");
            let etag = (suffix.is_empty() && *status != 400).then_some("\"2\"");
            assert_eq!(answer.header("etag"), etag, "{method} {suffix} {headers}");
        }
    }
    let unchanged = ask(&mut client, "GET", K, "If-None-Match: \"2\"\r\n", "");
    assert_eq!((unchanged.header("content-type"), unchanged.header("keva-revision")), (None, Some("2")));
}

/// What this version does not do is refused, with a message that names what there is.
#[test]
fn nothing_is_ignored() {
    let rows: &[(&str, &str, &str, u16, &str)] = &[
        ("PUT", "/v1/storage/key/k?wait=60s", "", 400, "unknown-parameter"),
        ("DELETE", "/v1/storage/key/k?watch", "", 400, "unknown-parameter"),
        ("GET", "/v1/storage/key/k?if_rev=1", "", 400, "unknown-parameter"),
        ("PUT", "/v1/storage/key/k?if_abset", "", 400, "unknown-parameter"),
        ("PUT", "/v1/storage/key/k?delete", "", 400, "unknown-parameter"),
        ("PUT", "/v1/storage/key/k?consistency=stale", "", 400, "unknown-parameter"),
        ("POST", "/v1/storage/key/k?delete=yes", "", 400, "bad-parameter"),
        ("GET", "/v1/storage/key/k?consistency=strong", "", 400, "bad-parameter"),
        ("GET", "/v1/storage/key/k?missing=204", "", 400, "bad-parameter"),
        ("GET", "/v1/storage/key/k?timeout=5", "", 400, "bad-parameter"),
        ("GET", "/v1/storage/key/k?timeout=1s&timeout=1s", "", 400, "bad-parameter"),
        ("GET", "/v1/storage/key/k?a%zz", "", 400, "bad-percent-encoding"),
        ("GET", "/v1/storage/key/%zz", "", 400, "bad-percent-encoding"),
        ("GET", "/v1/storage/key/%ff", "", 400, "not-utf8"),
        ("GET", "/v1/storage/key/", "", 400, "bad-key"),
        ("PUT", K, "Idempotency-Key: \r\n", 400, "bad-idempotency-key"),
        ("PUT", K, "Idempotency-Key: a b\r\n", 400, "bad-idempotency-key"),
        ("DELETE", K, "Idempotency-Key: \u{fc}\r\n", 400, "bad-idempotency-key"),
        ("DELETE", K, "Idempotency-Key: a\r\nIdempotency-Key: a\r\n", 400, "malformed-request"),
        ("PUT", K, "Content-Range: bytes 0-1/2\r\n", 400, "partial-write-not-supported"),
        ("PUT", K, "Content-Encoding: gzip\r\n", 415, "content-encoding-not-supported"),
        ("GET", "/v1/snapshot", "", 404, "no-such-path"),
        ("GET", "/v1/storage/key", "", 404, "no-such-path"),
        ("GET", "/v1/storage%2Fkey/k", "", 404, "no-such-path"),
        ("GET", "/livez/", "", 404, "no-such-path"),
        ("GET", "/livez?verbose", "", 400, "unknown-parameter"),
        ("GET", "/metrics?name=keva_term", "", 400, "unknown-parameter"),
        ("POST", "/metrics", "", 405, "method-not-allowed"),
        ("PATCH", K, "", 405, "method-not-allowed"),
        ("PUT", "/v1/cluster/leader?to=host2", "", 405, "method-not-allowed"),
        ("POST", "/v1/storage/keys", "", 405, "method-not-allowed"),
        ("GET", "/v1/storage/txn", "", 405, "method-not-allowed"),
        ("POST", "/", "", 405, "method-not-allowed"),
        ("POST", "/livez", "", 405, "method-not-allowed"),
    ];
    for (method, target, headers, status, code) in rows {
        let mut client = Client::new();
        let answer = ask(&mut client, method, target, headers, "body");
        assert_eq!(
            (answer.status, answer.member("code").as_str()),
            (*status, *code),
            "{method} {target} {headers}"
        );
        assert_eq!(answer.member("applied"), "no");
        assert!(client.calls.is_empty(), "{method} {target}");
        assert!(!client.is_closing(), "{method} {target}: the connection stays");
        let allow = match (*status, *target) {
            (405, K) => Some("GET, HEAD, POST, PUT, DELETE"),
            (405, "/v1/cluster/leader?to=host2") => Some("GET, HEAD, POST"),
            (405, "/v1/storage/keys") => Some("GET, HEAD, DELETE"),
            (405, "/v1/storage/txn") => Some("POST"),
            (405, _) => Some("GET, HEAD"),
            _ => None,
        };
        assert_eq!(answer.header("allow"), allow);
    }
    let mut client = Client::new();
    let answer = ask(&mut client, "PUT", "/v1/storage/key/k?tll=30s", "", "body");
    let detail = "unknown query parameter \"tll\"; known for this request: if_absent, if_rev, timeout, ttl";
    assert_eq!(answer.member("detail"), detail);
    let identity = ask(&mut client, "PUT", K, "Content-Encoding: identity\r\n", "body");
    assert_eq!(identity.status, 200);
    let read = ask(&mut client, "GET", K, "Idempotency-Key: a\r\n", "");
    assert_eq!(read.status, 200, "a read may be repeated as often as one likes");
}

/// 503 and 507: surely not applied. 504: unknown. A client's retries hang on this.
#[test]
fn failures_of_the_node() {
    let write = || Render::Write { is_put: true, wanted: None };
    let rows = [
        (Outcome::NotApplied(NotApplied::Overloaded), 503, "overloaded", "no"),
        (Outcome::NotApplied(NotApplied::NoLeader), 503, "no-leader", "no"),
        (Outcome::NotApplied(NotApplied::Superseded), 503, "superseded", "no"),
        (Outcome::NotApplied(NotApplied::Stopping), 503, "stopping", "no"),
        (Outcome::NotApplied(NotApplied::NotReady), 503, "not-ready", "no"),
        (Outcome::NotApplied(NotApplied::DiskFull), 507, "disk-full", "no"),
        (Outcome::NotApplied(NotApplied::InFlight), 409, "idempotency-key-in-flight", "unknown"),
        (Outcome::OutcomeUnknown, 504, "outcome-unknown", "unknown"),
    ];
    for (outcome, status, code, applied) in rows {
        let leaderless = NodeView { leader: None, ..view() };
        let response = render(write(), reply(9, outcome), &leaderless);
        let json: serde_json::Value = serde_json::from_slice(response.body.as_slice()).unwrap();
        assert_eq!(response.status.code(), status);
        assert_eq!((json["code"].as_str(), json["applied"].as_str()), (Some(code), Some(applied)));
        assert_eq!(response.retry_after_s.is_some(), matches!(status, 503 | 409));
        assert_eq!((response.node.as_deref(), response.leader.as_deref()), (Some("host1"), None));
        assert_eq!(response.revision, None, "nothing is reflected by a failure");
    }
}

/// F14: what is wrong, and what to do about it.
#[test]
fn a_full_disk_and_a_node_in_repair_say_what_to_do() {
    let detail = |reason| {
        let response = render(
            Render::Write { is_put: true, wanted: None },
            reply(9, Outcome::NotApplied(reason)),
            &view(),
        );
        let json: serde_json::Value = serde_json::from_slice(response.body.as_slice()).unwrap();
        json["detail"].as_str().unwrap().to_owned()
    };
    let full = detail(NotApplied::DiskFull);
    for part in ["is full", "nothing was written", "make space", "delete keys"] {
        assert!(full.contains(part), "{full}");
    }
    let repair = detail(NotApplied::NotReady);
    for part in ["being restored", "another node", "/readyz?verbose"] {
        assert!(repair.contains(part), "{repair}");
    }
}

/// What an operator sees of standing, disk and snapshot.
#[test]
fn health_is_told() {
    let healthy = Health {
        snapshot: Some((Index(90), 4_096)),
        log_first: Index(81),
        log_last: Index(99),
        ..Health::default()
    };
    assert_eq!(
        healthy.to_text(),
        "votes: yes\ndisk: has room\nsnapshot: up to entry 90, 4096 bytes\nlog: entries 81 to 99\n"
    );
    let ill = Health {
        standing: Standing::Recovering,
        is_full: true,
        draft: Some((10, 20)),
        log_first: Index(91),
        log_last: Index(90),
        ..healthy
    };
    for part in [
        "votes: not yet, a part of its data was damaged",
        "disk: full; make space",
        "next snapshot: 10 of 20 bytes",
        "log: empty, goes on with entry 91",
    ] {
        assert!(ill.to_text().contains(part), "{}", ill.to_text());
    }
    let behind_a_full_leader = Health { leader_is_full: true, ..healthy };
    assert!(behind_a_full_leader.to_text().contains("refused with 507"), "{behind_a_full_leader:?}");
    let new = Health { standing: Standing::Virgin, ..Health::default() };
    assert!(new.to_text().contains("its working directory is new"), "{}", new.to_text());

    let view = NodeView { leader: None, health: ill, ..view() };
    let refused = || reply(0, Outcome::NotApplied(NotApplied::NotReady));
    let response = render(Render::Ready { verbose: true }, refused(), &view);
    let json: serde_json::Value = serde_json::from_slice(response.body.as_slice()).unwrap();
    let detail = json["detail"].as_str().unwrap();
    assert_eq!((response.status.code(), response.retry_after_s), (503, Some(1)));
    for part in ["no leader is known", "this node is being restored", "votes: not yet", "disk: full"] {
        assert!(detail.contains(part), "{detail}");
    }
    assert!(!detail.contains('\n'), "{detail}");
    // Whoever asks whether the node is ready never gets a 507.
    let full =
        render(Render::Ready { verbose: false }, reply(0, Outcome::NotApplied(NotApplied::DiskFull)), &view);
    assert_eq!(full.status.code(), 503);
}

/// Who answers is in every head, also of answers that the connection gives by itself.
#[test]
fn every_answer_names_its_node() {
    let mut client = Client::new();
    client.context.names.set(&view());
    for (method, target, status) in [
        ("GET", "/", 200),
        ("GET", "/livez", 200),
        ("GET", "/v1/version", 200),
        ("GET", "/nowhere", 404),
        ("PATCH", K, 405),
        ("GET", "/v1/storage/key/k?bogus", 400),
    ] {
        let answer = ask(&mut client, method, target, "", "");
        assert_eq!(answer.status, status, "{target}");
        let names = (answer.header("keva-node"), answer.header("keva-leader"));
        assert_eq!(names, (Some("host1"), Some("host2")), "{target}");
    }
    client.context.names.set(&NodeView { leader: None, ..view() });
    let answer = ask(&mut client, "GET", "/livez", "", "");
    assert_eq!((answer.header("keva-node"), answer.header("keva-leader")), (Some("host1"), None));
    client.feed("nonsense\r\n\r\n");
    let last = client.responses().pop().expect("an answer");
    assert_eq!((last.status, last.header("keva-node")), (400, Some("host1")));
}

#[test]
fn readiness() {
    let mut client = Client::new();
    assert_eq!(ask(&mut client, "GET", "/livez", "", "").text(), "ok\n");
    assert_eq!(ask(&mut client, "GET", "/readyz", "", "").text(), "ok\n");
    let verbose = ask(&mut client, "GET", "/readyz?verbose", "", "");
    assert!(
        verbose
            .text()
            .starts_with("ok\nleader: host2\nlinearizable read: works\nvotes: yes\ndisk: has room\n")
    );
    let leaderless = NodeView { leader: None, ..view() };
    let failed = || reply(0, Outcome::NotApplied(NotApplied::NoLeader));
    for (verbose, start) in [
        (false, "not ready; GET /readyz?verbose says why"),
        (
            true,
            "not ready: no leader is known; a linearizable read was not confirmed by a leader in time; votes: yes;",
        ),
    ] {
        let response = render(Render::Ready { verbose }, failed(), &leaderless);
        let json: serde_json::Value = serde_json::from_slice(response.body.as_slice()).unwrap();
        let detail = json["detail"].as_str().unwrap();
        assert!(response.status.code() == 503 && detail.starts_with(start), "{detail}");
    }
}

#[test]
fn pages() {
    let mut client = Client::new();
    let root = ask(&mut client, "GET", "/", "", "");
    assert_eq!(root.header("content-type"), Some("text/plain; charset=utf-8"));
    for url in [
        "/v1/storage/key/KEY",
        "/v1/storage/keys",
        "/v1/storage/txn",
        "/v1/cluster",
        "/v1/cluster/leader",
        "/v1/version",
        "/v1/openapi.json",
        "/livez",
        "/readyz",
    ] {
        assert!(root.text().contains(url), "{url}");
    }
    let version: serde_json::Value =
        serde_json::from_slice(&ask(&mut client, "GET", "/v1/version", "", "").body).unwrap();
    assert_eq!(version["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn cluster_status() {
    let member = |id, identity| MemberView {
        id: NodeId(id),
        identity,
        address: "10.0.0.1",
        keva_port: 7000,
        user_port: 8000,
        connected: id == 2,
        last_contact: (id == 2).then_some(Millis(950)),
        version: Some("0.1.0"),
    };
    let members = [member(1, "a"), member(2, "b"), member(3, "c")];
    let cluster = ClusterView { now: Millis(1_000), members: &members };
    let mut status = ReplicaStatus {
        id: NodeId(1),
        role: RoleName::Leader,
        term: Term(4),
        leader: Some(NodeId(1)),
        commit_index: Index(20),
        applied_index: Index(19),
        last_index: Index(21),
        log_start: EntryId::new(Term(2), Index(9)),
        snapshot: Some(SnapshotMeta { last: EntryId::new(Term(3), Index(12)), bytes: 777, crc: 1 }),
        snapshot_draft: None,
        standing: Standing::Voter,
        is_full: false,
        leader_is_full: true,
        keys: 5,
        peers: vec![
            PeerStatus { id: NodeId(2), match_index: Index(20), last_contact: Some(Millis(990)) },
            PeerStatus { id: NodeId(3), match_index: Index(0), last_contact: None },
        ],
    };
    let names = NodeView { node: "a".into(), leader: Some("a".into()), ..view() };
    let page = |status: &ReplicaStatus, names: &NodeView| {
        let response = render_status(StatusPage::Cluster, status, &cluster, names);
        serde_json::from_slice::<serde_json::Value>(response.body.as_slice()).unwrap()
    };
    let json = page(&status, &names);
    assert_eq!(json["leader"], "a");
    assert_eq!((&json["quorum"], &json["failures_tolerated"]), (&2.into(), &1.into()));
    assert_eq!((&json["term"], &json["commit"], &json["applied"]), (&4.into(), &20.into(), &19.into()));
    assert_eq!((&json["log_first"], &json["last"]), (&10.into(), &21.into()));
    assert_eq!(json["snapshot"], serde_json::json!({ "index": 12, "bytes": 777 }));
    assert_eq!((&json["standing"], &json["disk_full"]), (&"voter".into(), &false.into()));
    assert_eq!(json["leader_disk_full"], true);
    let b = &json["members"][1];
    assert_eq!((&b["role"], &b["match"], &b["lag"]), (&"follower".into(), &20.into(), &1.into()));
    assert_eq!((&b["last_contact_ms"], &b["connected"]), (&10.into(), &true.into()));
    let c = &json["members"][2];
    assert_eq!((&c["match"], &c["lag"], c["last_contact_ms"].is_null()), (&0.into(), &21.into(), true));

    let leader = render_status(StatusPage::Leader, &status, &cluster, &names);
    assert_eq!((leader.status.code(), leader.body.as_slice()), (200, &b"a\n"[..]));

    (status.standing, status.is_full, status.snapshot) = (Standing::Recovering, true, None);
    let json = page(&status, &names);
    assert_eq!((&json["standing"], &json["disk_full"]), (&"recovering".into(), &true.into()));
    assert!(json["snapshot"].is_null());

    status.leader = None;
    status.role = RoleName::PreCandidate;
    status.peers.clear();
    let names = NodeView { leader: None, ..names };
    let json = page(&status, &names);
    assert!(
        json["leader"].is_null()
            && json["members"][1]["role"].is_null()
            && json["members"][1]["match"].is_null()
    );
    assert_eq!(json["members"][0]["role"], "pre-candidate");
    let contacts: Vec<Option<u64>> = (0..3).map(|n| json["members"][n]["last_contact_ms"].as_u64()).collect();
    assert_eq!(contacts, [Some(0), Some(50), None], "without a leader's knowledge, what the links know");
    let leader = render_status(StatusPage::Leader, &status, &cluster, &names);
    assert_eq!((leader.status.code(), leader.retry_after_s), (503, Some(1)));
}

/// An identity is shown in headers without being able to end one.
#[test]
fn identities_cannot_split_a_response() {
    let names = NodeView { node: "a\r\nX: y".into(), leader: Some("h\u{f6}st".into()), ..view() };
    let mut client = Client::new();
    client.connection.receive(client.now, http::get("k").as_bytes());
    let call = client.next_call().unwrap();
    let Action::Submit { render: how, .. } = call.action else { panic!("a read") };
    client.connection.respond(client.now, call.id, render(how, reply(1, Outcome::Value(None)), &names));
    client.drain();
    let answer = &client.responses()[0];
    assert_eq!((answer.header("keva-node"), answer.header("keva-leader")), (Some("a??X:?y"), Some("h??st")));
    assert_eq!(answer.header("x"), None);
}
