//! The requests for keys, over real sockets of a real cluster: every one is sent to another node than the one before.

mod support;

use support::cluster::Cluster;
use support::http_message::Answer;
use support::round::Round;

const K: &str = "/v1/storage/key/k";
const DONE: &str = r#"{"done":"true"}"#;

fn at(query: &str) -> String {
    format!("{K}?{query}")
}

fn code(answer: &Answer) -> String {
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("a problem is JSON");
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    assert_eq!(problem["status"], answer.status);
    assert_eq!(problem["error"], problem["detail"], "the original's member name");
    problem["code"].as_str().expect("a problem has a code").to_owned()
}

#[test]
fn values_are_bytes_in_both_directions() {
    let cluster = Cluster::start(3);
    let mut round = Round::new(&cluster);
    for method in ["GET", "HEAD"] {
        let missing = round.ask(method, K, &[], b"");
        assert_eq!((missing.status, missing.body.len(), missing.etag()), (204, 0, None), "{method}");
        assert_eq!(round.ask(method, &at("missing=404"), &[], b"").status, 404, "{method}");
    }
    assert_eq!(code(&round.get(&at("missing=404"))), "key-not-found");
    for (method, value) in [("POST", &b"\x00\xff\r\n\r\n{"[..]), ("PUT", b""), ("POST", b"plain")] {
        let written = round.ask(method, K, &[], value);
        assert_eq!((written.status, written.text().as_str()), (200, DONE), "{method}");
        for read in round.ask_all("GET", K, &[]) {
            assert_eq!((read.status, read.body.as_slice()), (200, value));
            assert_eq!(read.etag(), written.etag());
            assert!(read.revision() >= written.revision());
        }
        let head = round.ask("HEAD", K, &[], b"");
        assert_eq!(head.header("Content-Length"), Some(value.len().to_string().as_str()));
        assert_eq!((head.status, head.etag(), head.body.len()), (200, written.etag(), 0));
        let tag = format!("\"{}\"", written.etag().expect("a revision"));
        for tags in [tag.as_str(), &format!("W/{tag}"), &format!("\"1\", {tag}"), "*"] {
            let same = round.ask("GET", K, &[("If-None-Match", tags)], b"");
            assert_eq!((same.status, same.etag(), same.body.len()), (304, written.etag(), 0), "{tags}");
        }
        // curl --etag-compare with an empty file.
        assert_eq!(round.ask("GET", K, &[("If-None-Match", "\"\"")], b"").status, 200);
        assert_eq!(round.get(&at("consistency=linearizable&timeout=10s")).status, 200);
        assert!(matches!(round.get(&at("consistency=stale")).status, 200 | 204), "it may be behind");
    }
    for (method, target) in
        [("DELETE", K.to_owned()), ("POST", at("delete")), ("DELETE", K.to_owned()), ("POST", at("delete"))]
    {
        let deleted = round.ask(method, &target, &[], b"");
        assert_eq!((deleted.status, deleted.text().as_str()), (200, DONE), "of an absent key, too");
        assert_eq!(round.get(K).status, 204);
    }
}

#[test]
fn append_and_add() {
    let cluster = Cluster::start(3);
    let mut round = Round::new(&cluster);
    for part in [&b"a\n"[..], b"", b"\xff"] {
        assert_eq!(round.ask("POST", &at("append"), &[], part).text(), DONE);
    }
    assert_eq!(round.get(K).body, b"a\n\xff");
    let refused = round.ask("POST", &at("add=1"), &[], b"");
    assert_eq!((refused.status, code(&refused).as_str()), (409, "not-a-number"));
    let counter = "/v1/storage/key/n";
    for (by, sum) in [
        ("1", "1"),
        ("-3", "-2"),
        ("9223372036854775807", "9223372036854775805"),
        ("2", "9223372036854775807"),
    ] {
        let added = round.ask("POST", &format!("{counter}?add={by}"), &[], b"");
        assert_eq!((added.status, added.text().as_str()), (200, sum));
        assert_eq!(round.get(counter).etag(), added.etag());
    }
    let refused = round.ask("POST", &format!("{counter}?add=1"), &[], b"");
    assert_eq!((refused.status, code(&refused).as_str()), (409, "overflow"));
    assert_eq!(round.get(counter).text(), i64::MAX.to_string(), "nothing was changed");
    for query in ["add=1.5", "add=", "add=9223372036854775808", "add=1&append", "append&delete"] {
        assert_eq!(round.ask("POST", &at(query), &[], b"x").status, 400, "{query}");
    }
}

/// J: conditions are judged when the write takes effect; a write that fails changes nothing.
#[test]
fn conditions() {
    let cluster = Cluster::start(3);
    let mut round = Round::new(&cluster);
    let writes =
        [("PUT", K, ""), ("POST", K, ""), ("POST", K, "append"), ("POST", K, "delete"), ("DELETE", K, "")];
    for (method, path, action) in writes {
        let target = |query: &str| format!("{path}?{action}&{query}");
        let first = round.put("k", "1");
        let old = format!("\"{first}\"");
        let revision = round.put("k", "1");
        let current = format!("\"{revision}\"");
        let refused: [(String, &[(&str, &str)]); 5] = [
            (target(""), &[("If-Match", &old)]),
            (target(&format!("if_rev={first}")), &[]),
            (target(""), &[("If-None-Match", "*")]),
            (target("if_absent"), &[]),
            (target(""), &[("If-None-Match", &current)]),
        ];
        for (target, headers) in refused {
            let answer = round.ask(method, &target, headers, b"2");
            assert_eq!(
                (answer.status, answer.etag()),
                (412, Some(revision)),
                "{method} {target} {headers:?}"
            );
            assert_eq!(code(&answer), "precondition-failed");
        }
        let contradiction = target(&format!("if_rev={revision}&if_absent"));
        assert_eq!(round.ask(method, &contradiction, &[], b"2").status, 400);
        let disagreement = target(&format!("if_rev={revision}"));
        assert_eq!(round.ask(method, &disagreement, &[("If-Match", &old)], b"2").status, 400);
        assert_eq!(round.get(K).etag(), Some(revision), "nothing was changed");
        assert_eq!(
            round.ask(method, &target(""), &[("If-Match", &current)], b"2").status,
            200,
            "{method} {action}"
        );
        let exists = round.get(K).status == 200;
        assert_eq!(
            round.ask(method, &target(""), &[("If-Match", "*")], b"2").status,
            if exists { 200 } else { 412 }
        );
        assert_eq!(round.ask("DELETE", K, &[], b"").status, 200);
        assert_eq!(round.ask(method, &target("if_absent"), &[], b"2").status, 200, "{method} {action}");
    }
    let refused = round.ask("POST", &at("add=1&if_rev=1"), &[], b"");
    assert_eq!((refused.status, refused.etag().is_none()), (412, round.get(K).status == 204));
    assert_eq!(round.ask("GET", K, &[("If-Match", "\"1\"")], b"").status, 412, "reads have conditions, too");
}

#[test]
fn response_headers() {
    let mut cluster = Cluster::start(3);
    let leader = format!("host{}", cluster.leader() + 1);
    let mut round = Round::new(&cluster);
    let form = "application/x-www-form-urlencoded";
    let rows: [(&[u8], Option<&str>, &str); 7] = [
        (b"{\"a\":1}", None, "application/json; charset=utf-8"),
        (b" [1]", Some(form), "application/json; charset=utf-8"),
        (b"1", None, "text/plain; charset=utf-8"),
        (b"", None, "text/plain; charset=utf-8"),
        ("\u{fc}".as_bytes(), Some(form), "text/plain; charset=utf-8"),
        (b"\xfc", None, "application/octet-stream"),
        (b"<p>", Some("text/html"), "text/html"),
    ];
    for (value, given, expected) in rows {
        let headers: Vec<(&str, &str)> = given.iter().map(|given| ("Content-Type", *given)).collect();
        assert_eq!(round.ask("PUT", K, &headers, value).status, 200);
        for (node, read) in round.ask_all("GET", K, &[]).iter().enumerate() {
            assert_eq!(read.header("Content-Type"), Some(expected));
            assert_eq!(read.header("X-Content-Type-Options"), Some("nosniff"));
            assert_eq!(read.header("Content-Security-Policy"), Some("sandbox"));
            assert_eq!(read.header("Keva-Leader"), Some(leader.as_str()), "node {node}");
            assert!(read.header("Keva-TTL").is_none() && read.header("Date").is_some());
        }
    }
    let mut names: Vec<String> = round
        .ask_all("GET", K, &[])
        .iter()
        .map(|read| read.header("Keva-Node").expect("a name").into())
        .collect();
    names.sort();
    assert_eq!(names, ["host1", "host2", "host3"]);
}
