//! Every status code that a cluster gives, over real sockets, and what curl makes of it.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;

use support::cluster::{Cluster, ClusterOptions, PATIENCE, wait_for};
use support::http_client::Request;
use support::http_message::{Answer, AnswerParser};
use support::round::Round;

const K: &str = "/v1/storage/key/k";

/// Sends bytes and takes the first answer to them.
fn send(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(bytes).expect("send");
    let (mut parser, mut received, mut buffer) = (AnswerParser::new(false), Vec::new(), [0; 4096]);
    loop {
        if let Some(answer) = parser.parse(&mut received).expect("a proper answer") {
            return answer;
        }
        match stream.read(&mut buffer).expect("an answer in time") {
            0 => return parser.parse_end(&mut received).expect("an answer before the end"),
            count => received.extend_from_slice(&buffer[..count]),
        }
    }
}

fn problem(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"), "{answer:?}");
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("a problem is JSON");
    assert_eq!((&problem["status"], &problem["type"]), (&answer.status.into(), &"about:blank".into()));
    for name in ["title", "detail", "code", "error"] {
        assert!(problem[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {problem}");
    }
    problem
}

/// RFC 9110 and 9112: what is wrong with a request is told apart.
#[test]
fn malformed_requests() {
    let cluster = Cluster::start(3);
    let head = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let put = format!("PUT {K}");
    let length = "Content-Length: 1\r\n";
    let rows: [(String, u16); 32] = [
        (head("GET /v1/storage/key/", ""), 400),
        (head(&format!("GET /v1/storage/key/{}", "x".repeat(1_025)), ""), 400),
        (head("GET /v1/storage/key/%ff", ""), 400),
        (head("GET /v1/storage/key/%4", ""), 400),
        (head(&format!("GET {K}?bogus"), ""), 400),
        (head(&format!("GET {K}?timeout=0s"), ""), 400),
        (head(&format!("GET {K}?consistency=weak"), ""), 400),
        (head(&format!("GET {K}?wait=6m"), ""), 400),
        (head(&format!("GET {K}?since=1"), ""), 400),
        (head(&format!("GET {K}?watch&since=x"), ""), 400),
        (head(&format!("GET {K}"), "If-None-Match: 5\r\n"), 400),
        (head(&format!("DELETE {K}"), "Idempotency-Key: \r\n"), 400),
        (head(&format!("{put}?ttl=0s"), "Content-Length: 0\r\n"), 400),
        (head(&put, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400),
        (head(&put, "Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
        (head(&put, "Transfer-Encoding: chunked\r\n") + "zz\r\n", 400),
        (format!("GET {K} HTTP/1.1\r\n\r\n"), 400),
        (head(&put, &format!("{length}Sec-Fetch-Site: cross-site\r\n")) + "x", 403),
        (head("GET /nowhere", ""), 404),
        (head("GET /v1/storage/key/k?missing=404", ""), 404),
        (head(&format!("PATCH {K}"), ""), 405),
        (head(&put, ""), 411),
        (head(&put, "Content-Length: 1048577\r\n"), 413),
        (head("POST /v1/storage/txn", "Content-Length: 99999999\r\n"), 413),
        (head(&format!("GET {K}?{}", "x".repeat(9_000)), ""), 414),
        (head(&put, &format!("{length}Content-Encoding: gzip\r\n")) + "x", 415),
        (head(&put, &format!("{length}Expect: 200-maybe\r\n")) + "x", 417),
        (head("GET /livez", &format!("Long: {}\r\n", "x".repeat(17_000))), 431),
        (head("GET /livez", &"a: b\r\n".repeat(65)), 431),
        (head(&put, "Transfer-Encoding: gzip, chunked\r\n"), 501),
        (format!("GET {K} HTTP/2.0\r\nHost: h\r\n\r\n"), 505),
        (head("OPTIONS *", ""), 405),
    ];
    for (number, (bytes, status)) in rows.iter().enumerate() {
        let answer = send(cluster.client_address(number % 3), bytes.as_bytes());
        let start: String = bytes.chars().take(120).collect();
        assert_eq!(answer.status, *status, "{start:?}: {answer:?}");
        assert_eq!(problem(&answer)["applied"], "no", "{start:?}");
        assert_eq!(answer.header("Allow").is_some(), *status == 405, "{start:?}");
    }
    for (path, allow) in [
        (K, "GET, HEAD, POST, PUT, DELETE"),
        ("/v1/storage/keys", "GET, HEAD, DELETE"),
        ("/v1/storage/txn", "POST"),
        ("/v1/cluster", "GET, HEAD"),
        ("/v1/cluster/leader", "GET, HEAD, POST"),
        ("/livez", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/", "GET, HEAD"),
    ] {
        let answer = send(cluster.client_address(0), head(&format!("PATCH {path}"), "").as_bytes());
        assert_eq!(answer.header("Allow"), Some(allow), "{path}");
    }
    assert_eq!(Round::new(&cluster).get(K).status, 204, "none of them had an effect");
}

/// I10
#[test]
fn slow_requests_and_too_many_connections() {
    let settings = "[limits]\nhead_timeout = '300ms'\nclient_connections = 4\n";
    let cluster = Cluster::start_with(&ClusterOptions::new(3).settings(settings));
    let slow = send(cluster.client_address(1), b"GET /livez HTTP/1.1\r\n");
    assert_eq!((slow.status, &problem(&slow)["applied"]), (408, &"no".into()));
    let streams: Vec<TcpStream> = (0..4)
        .map(|_| {
            wait_for("room for a client", || {
                let mut stream = TcpStream::connect(cluster.client_address(2)).expect("connect");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                stream
                    .write_all(format!("GET {K}?watch HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())
                    .expect("send");
                let mut start = [0; 12];
                stream.read_exact(&mut start).expect("an answer");
                (&start == b"HTTP/1.1 200").then_some(stream)
            })
        })
        .collect();
    let refused = send(cluster.client_address(2), b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((refused.status, &problem(&refused)["applied"]), (503, &"no".into()));
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    for stream in streams {
        stream.shutdown(Shutdown::Both).expect("a connection");
    }
}

/// 503: surely without an effect. 504: nobody knows.
#[test]
fn without_a_majority() {
    // Nobody is elected while the leader is paused.
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("20"));
    let leader = cluster.leader();
    let [one, two] = cluster.others(leader)[..] else { panic!("three nodes") };
    cluster.client(one).request("PUT", K, &[], b"old").expect("an answer");
    cluster.node(leader).pause();
    let mut client = cluster.client(one);
    let unknown = client.request("PUT", &format!("{K}?timeout=300ms"), &[], b"new").expect("an answer");
    assert_eq!((unknown.status, &problem(&unknown)["applied"]), (504, &"unknown".into()));
    for target in [
        format!("{K}?timeout=300ms"),
        "/v1/storage/keys?timeout=300ms".into(),
        "/readyz?timeout=300ms".into(),
    ] {
        let answer = client.request("GET", &target, &[], b"").expect("an answer");
        assert_eq!(
            (answer.status, answer.header("Retry-After").is_some()),
            (503, true),
            "{target}: {answer:?}"
        );
    }
    // I: with the name of a write that is under way.
    let name = [("Idempotency-Key", "same")];
    let first = Request::new("POST", &format!("{K}?append&timeout=60s"), &name, b"+");
    let mut waiting = cluster.client(one).with_timeout(PATIENCE);
    waiting.start(&first).expect("sent");
    let conflict = wait_for("the first write to be under way", || {
        let mut second = cluster.client(one);
        let target = format!("{K}?append&timeout=100ms");
        let answer = second.request("POST", &target, &name, b"+").expect("an answer");
        (answer.status == 409).then_some(answer)
    });
    assert_eq!(problem(&conflict)["code"], "idempotency-key-in-flight");
    assert_eq!(problem(&conflict)["applied"], "unknown", "the first one is done in a moment");
    assert!(conflict.header("Retry-After").is_some(), "{conflict:?}");
    cluster.node(leader).resume();
    let done = waiting.finish(&first).expect("an answer");
    assert_eq!(done.status, 200, "{}", done.text());
    let again = cluster.client(two).request("POST", &format!("{K}?append"), &name, b"+").expect("an answer");
    assert_eq!((again.status, again.etag()), (200, done.etag()), "the first outcome, from another node");
    let value = cluster.client(two).request("GET", K, &[], b"").expect("an answer").text();
    assert!(["old+", "new+"].contains(&value.as_str()), "what has a name was done once: {value}");

    cluster.kill_at_once(&[leader, two]);
    let mut last = cluster.client(one);
    wait_for("the node to notice", || {
        let answer = last.request("GET", "/v1/cluster/leader", &[], b"").expect("an answer");
        (answer.status == 503).then_some(answer)
    });
    for (method, target) in [
        ("GET", format!("{K}?timeout=200ms")),
        ("PUT", format!("{K}?timeout=200ms")),
        ("DELETE", "/v1/storage/keys?all&timeout=200ms".into()),
        ("POST", "/v1/cluster/leader?timeout=200ms".into()),
        ("GET", "/readyz?verbose".into()),
        ("GET", format!("{K}?watch&timeout=200ms")),
        ("GET", format!("{K}?wait=1s&timeout=200ms")),
    ] {
        let answer = last.request(method, &target, &[], b"").expect("an answer");
        assert_eq!(answer.status, 503, "{method} {target}: {}", answer.text());
        assert_eq!(problem(&answer)["applied"], "no", "{method} {target}");
        assert!(answer.header("Retry-After").is_some(), "{method} {target}: {answer:?}");
    }
    let stale = last.request("GET", &format!("{K}?consistency=stale"), &[], b"").expect("an answer");
    assert_eq!((stale.status, stale.text().as_str()), (200, value.as_str()));
    for target in ["/livez", "/metrics", "/v1/cluster", "/v1/version", "/v1/openapi.json", "/"] {
        assert_eq!(last.request("GET", target, &[], b"").expect("an answer").status, 200, "{target}");
    }
}

/// What shells see: curl's exit code with --fail.
#[test]
fn exit_codes_of_curl() {
    let cluster = Cluster::start(3);
    let mut number = 0;
    let mut curl = |arguments: &[&str], target: &str| -> (Option<i32>, String) {
        number += 1;
        let url = format!("http://{}{target}", cluster.client_address(number % 3));
        let output =
            Command::new("curl").args(["-q", "-sf"]).args(arguments).arg(&url).output().expect("curl runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    const DONE: &str = "{\"done\":\"true\"}";
    const FAILED: i32 = 22;
    let lock = "/v1/storage/key/lock/a";
    let locked = format!("{lock}?if_absent&ttl=1h");
    let rows: [(&[&str], &str, i32, &str); 20] = [
        (&[], "/v1/storage/key/none", 0, ""),
        (&[], "/v1/storage/key/none?missing=404", FAILED, ""),
        (&["-X", "DELETE"], "/v1/storage/key/none", 0, DONE),
        (&["-d", "v"], K, 0, DONE),
        (&[], &format!("{K}?missing=404"), 0, "v"),
        (&["-T", "/dev/null"], K, 0, DONE),
        (&["-d", "v", "-H", "If-None-Match: *"], K, FAILED, ""),
        (&["-d", "v", "-H", "If-Match: \"1\""], K, FAILED, ""),
        (&["-X", "DELETE"], &format!("{K}?if_rev=1"), FAILED, ""),
        (&["-d", "me"], &locked, 0, DONE),
        (&["-d", "you"], &locked, FAILED, ""),
        (&[], lock, 0, "me"),
        (&["-X", "POST"], &format!("{lock}?delete"), 0, DONE),
        (&["-d", "you"], &locked, 0, DONE),
        (&["-X", "POST"], &format!("{lock}?add=1"), FAILED, ""),
        (&["-X", "POST", "-H", "Idempotency-Key: n"], "/v1/storage/key/n?add=2", 0, "2"),
        (&["-X", "POST", "-H", "Idempotency-Key: n"], "/v1/storage/key/n?add=2", 0, "2"),
        (&["-X", "POST", "-H", "Idempotency-Key: n"], "/v1/storage/key/n?add=3", FAILED, ""),
        (&["-d", "{\"if\":[{\"key\":\"n\",\"value\":\"3\"}],\"then\":[]}"], "/v1/storage/txn", FAILED, ""),
        (&["-X", "DELETE"], "/v1/storage/keys?all", 0, "{\"deleted\":3}"),
    ];
    for (arguments, target, code, printed) in rows {
        assert_eq!(curl(arguments, target), (Some(code), printed.into()), "curl {arguments:?} {target}");
    }
}
