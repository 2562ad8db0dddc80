//! Transactions: what their JSON means, what is wrong with it, and what the answers look like.
#![allow(clippy::unwrap_used, reason = "a test may end that way")]

#[path = "support/http.rs"]
mod http;

use http::{Answer, Client, VALUE_BYTES_MAX};
use keva::kv::command::{Command, Operation, Requirement, Transaction};
use keva::limits::{KEY_BYTES_MAX, TRANSACTION_BODY_BYTES_MIN, TRANSACTION_OPERATIONS_MAX, TTL_MS_MAX};
use keva::net::api::Action;
use keva::net::api::transaction_json::parse_transaction;
use keva::net::http::status::Status;
use keva::raft::types::Index;
use keva::replica::io::Request;
use keva::util::time::LogicalTime;
use proptest::prelude::*;

const TXN: &str = "/v1/storage/txn";

fn tell(client: &mut Client, body: &str) -> Answer {
    client.tell("POST", TXN, "", body)
}

fn parse(body: &str) -> Transaction {
    parse_transaction(body.as_bytes(), VALUE_BYTES_MAX)
        .unwrap_or_else(|problem| panic!("{body}: {problem:?}"))
}

/// The message of a 400.
fn refusal(body: impl AsRef<[u8]>) -> String {
    let problem = parse_transaction(body.as_ref(), VALUE_BYTES_MAX).expect_err("it is no transaction");
    assert_eq!((problem.status, problem.code), (Status::BadRequest, "bad-transaction"));
    problem.detail.into_owned()
}

#[test]
fn all_that_there_is() {
    let transaction = parse(
        r#" {"if":[{"key":"a","rev":12},{"key":"b","absent":true},{"value":"x","key":"c"},{"key":"d","exists":true},
            {"key":"e","value_base64":"//4="}],
            "then":[{"put":"a","value":"x","ttl":"30s","content_type":"a/b"},{"add":"n","by":-1,"ttl":"3650d"},
            {"delete":"b"},{"get":"c"},{"put":"\u0000/\ud83d\ude00","value_base64":""}],
            "else":[{"get":"a"}]} "#,
    );
    let requirement = |key: &str, requirement| (key.to_owned(), requirement);
    let conditions = vec![
        requirement("a", Requirement::Revision(Index(12))),
        requirement("b", Requirement::Absent),
        requirement("c", Requirement::Value(b"x".to_vec())),
        requirement("d", Requirement::Exists),
        requirement("e", Requirement::Value(b"\xff\xfe".to_vec())),
    ];
    let then = vec![
        Operation::Put {
            key: "a".into(),
            value: b"x".to_vec(),
            content_type: Some("a/b".into()),
            ttl_ms: Some(30_000),
        },
        Operation::Add { key: "n".into(), by: -1, ttl_ms: Some(TTL_MS_MAX) },
        Operation::Delete { key: "b".into() },
        Operation::Get { key: "c".into() },
        Operation::Put { key: "\0/\u{1f600}".into(), value: vec![], content_type: None, ttl_ms: None },
    ];
    let otherwise = Some(vec![Operation::Get { key: "a".into() }]);
    assert_eq!(transaction, Transaction { conditions, then, otherwise });
    assert_eq!(parse("{\"then\":[]}"), Transaction::default());
    assert_eq!(parse("{\"then\":[],\"else\":[],\"if\":[]}").otherwise, Some(vec![]));
}

/// Every message names the place and what is wrong there.
#[test]
fn what_is_wrong_is_named() {
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    let long_key = format!(r#"{{"then":[{{"get":"a"}},{{"delete":"{long}"}}]}}"#);
    let long_type = format!(r#"{{"then":[{{"put":"a","value":"","content_type":"{}"}}]}}"#, "t".repeat(257));
    let many = format!(r#"{{"then":[{}{{}}]}}"#, r#"{"get":"a"},"#.repeat(TRANSACTION_OPERATIONS_MAX));
    let half = vec![r#"{"get":"a"}"#; TRANSACTION_OPERATIONS_MAX / 2 + 1].join(",");
    let both = format!(r#"{{"then":[{half}],"else":[{half}]}}"#);
    let rows: &[(&str, &str)] = &[
        ("", "EOF while parsing"),
        ("{}", "missing field `then`"),
        ("[]", "invalid type: sequence, expected an object"),
        ("null", "invalid type: null, expected an object"),
        ("{\"then\":[]} x", "trailing characters at line 1 column 13"),
        ("{\"then\":[],}", "trailing comma"),
        ("{'then':[]}", "key must be a string"),
        ("then=x", "expected ident"),
        (r#"{"then":[],"then":[]}"#, "duplicate field `then`"),
        (r#"{"then":[],"than":[]}"#, "unknown field `than`, expected one of `if`, `then`, `else`"),
        (r#"{"then":{}}"#, "expected an array for \"then\""),
        (r#"{"then":null}"#, "expected an array for \"then\""),
        (r#"{"then":[],"else":null}"#, "expected an array for \"else\""),
        (r#"{"then":[],"if":null}"#, "expected an array for \"if\""),
        (r#"{"then":[],"if":{"key":"a"}}"#, "expected an array for \"if\""),
        (r#"{"then":[["get","a"]]}"#, "then[0]: invalid type: sequence, expected an object"),
        (r#"{"then":["get"]}"#, "then[0]: invalid type: string"),
        (r#"{"then":[{"get":"a"},{}]}"#, "then[1]: an operation has exactly one of"),
        (r#"{"then":[{"get":"a","put":"b"}]}"#, "then[0]: an operation has exactly one of"),
        (r#"{"then":[{"get":"a","get":"b"}]}"#, "then[0]: duplicate field `get`"),
        (r#"{"then":[{"get":null}]}"#, "then[0]: invalid type: null, expected a string"),
        (r#"{"then":[{"get":1}]}"#, "then[0]: invalid type: integer `1`, expected a string"),
        (r#"{"then":[{"fetch":"a"}]}"#, "then[0]: unknown field `fetch`, expected one of `put`"),
        (r#"{"then":[{"get":""}]}"#, "then[0]: the key is empty"),
        (&long_key, "then[1]: the key has 1025 bytes; at most 1024 are allowed"),
        (r#"{"then":[{"put":"a"}]}"#, "then[0]: \"put\" needs a \"value\" or a \"value_base64\""),
        (r#"{"then":[{"put":"a","value":1}]}"#, "then[0]: invalid type: integer `1`, expected a string"),
        (r#"{"then":[{"put":"a","value":{"b":1}}]}"#, "then[0]: invalid type: map, expected a string"),
        (
            r#"{"then":[{"put":"a","value":"","value_base64":""}]}"#,
            "then[0]: \"value\" and \"value_base64\" exclude",
        ),
        (r#"{"then":[{"put":"a","value_base64":"=="}]}"#, "then[0]: \"value_base64\" is not standard base64"),
        (r#"{"then":[{"put":"a","value_base64":"YQ"}]}"#, "is not standard base64: Invalid padding"),
        (r#"{"then":[{"put":"a","value_base64":"_-8="}]}"#, "is not standard base64"),
        (r#"{"then":[{"put":"a","value_base64":"YR=="}]}"#, "is not standard base64"),
        (r#"{"then":[{"put":"a","value":"","ttl":"0s"}]}"#, "then[0]: \"ttl\" must be like 500ms"),
        (r#"{"then":[{"put":"a","value":"","ttl":30}]}"#, "then[0]: invalid type: integer `30`"),
        (r#"{"then":[{"put":"a","value":"","by":1}]}"#, "then[0]: \"put\" takes no \"by\""),
        (
            r#"{"then":[{"put":"a","value":"","content_type":""}]}"#,
            "then[0]: \"content_type\" must be 1 to 256",
        ),
        (r#"{"then":[{"put":"a","value":"","content_type":"a\r\nb: c"}]}"#, "\"content_type\" must be"),
        (&long_type, "then[0]: \"content_type\" must be 1 to 256"),
        (r#"{"then":[{"add":"a"}]}"#, "then[0]: \"add\" needs \"by\""),
        (r#"{"then":[{"add":"a","by":"1"}]}"#, "then[0]: invalid type: string \"1\", expected i64"),
        (r#"{"then":[{"add":"a","by":1.5}]}"#, "then[0]: invalid type: floating point `1.5`, expected i64"),
        (
            r#"{"then":[{"add":"a","by":9223372036854775808}]}"#,
            "then[0]: invalid value: integer `9223372036854775808`",
        ),
        (r#"{"then":[{"add":"a","by":1e999}]}"#, "then[0]: number out of range"),
        (r#"{"then":[{"add":"a","by":1,"value":"x"}]}"#, "then[0]: \"add\" takes no \"value\""),
        (r#"{"then":[{"add":"a","by":1,"content_type":"x"}]}"#, "then[0]: \"add\" takes no \"content_type\""),
        (r#"{"then":[{"delete":"a","ttl":"1s"}]}"#, "then[0]: \"delete\" takes no \"ttl\""),
        (r#"{"then":[{"get":"a","value_base64":"x"}]}"#, "then[0]: \"get\" takes no \"value\""),
        (r#"{"then":[],"else":[{}]}"#, "else[0]: an operation has exactly one of"),
        (r#"{"then":[],"if":[{"rev":1}]}"#, "if[0]: missing field `key`"),
        (r#"{"then":[],"if":[{"key":"a"}]}"#, "if[0]: a condition has exactly one of"),
        (r#"{"then":[],"if":[{"key":"a","rev":1,"exists":true}]}"#, "if[0]: a condition has exactly one of"),
        (r#"{"then":[],"if":[{"key":"a","rev":0}]}"#, "if[0]: rev is a revision, from 1"),
        (r#"{"then":[],"if":[{"key":"a","rev":-1}]}"#, "if[0]: invalid value: integer `-1`, expected u64"),
        (
            r#"{"then":[],"if":[{"key":"a","rev":99999999999999999999}]}"#,
            "if[0]: invalid type: floating point",
        ),
        (r#"{"then":[],"if":[{"key":"a","rev":null}]}"#, "if[0]: invalid type: null, expected u64"),
        (
            r#"{"then":[],"if":[{"key":"a","absent":false}]}"#,
            "if[0]: for a key that must exist write \"exists\":true",
        ),
        (r#"{"then":[],"if":[{"key":"a","exists":false}]}"#, "if[0]: for a key that must not exist"),
        (r#"{"then":[],"if":[{"key":"a","absent":"true"}]}"#, "if[0]: invalid type: string \"true\""),
        (r#"{"then":[{"get":"\ud800"}]}"#, "then[0]: unexpected end of hex escape"),
        (r#"{"then":[{"get":"\ud800x"}]}"#, "then[0]:"),
        (r#"{"then":[{"get":"\udc00"}]}"#, "then[0]: lone leading surrogate"),
        ("{\"then\":[{\"get\":\"a\0b\"}]}", "then[0]: control character"),
        ("{\"then\":[{\"get\":\"a\nb\"}]}", "then[0]: control character"),
        (&many, "\"then\" has more than 1000 elements"),
    ];
    for (body, part) in rows {
        let detail = refusal(body);
        assert!(detail.contains(part), "{body}\n  says {detail}\n  and not {part}");
        assert!(detail.len() < 600, "{}", detail.len());
    }
    let mut client = Client::new();
    let answer = tell(&mut client, &both);
    assert_eq!(answer.problem(), (400, "bad-transaction".into()));
    assert!(answer.member("detail").contains("at most 1000 conditions and as many operations"));
    assert!(client.calls.is_empty() && !client.is_closing(), "the connection goes on");
    assert!(refusal(b"{\"then\":[{\"get\":\"\xff\"}]}").contains("then[0]: invalid unicode code point"));
    assert!(
        refusal(b"\xef\xbb\xbf{\"then\":[]}").contains("expected value at line 1 column 1"),
        "a byte order mark"
    );
}

/// Neither depth nor length nor number of what is wrong costs more than reading it once.
#[test]
fn hostile_json() {
    let deep = "[".repeat(400_000);
    let nested = format!("{{\"then\":{deep}");
    let objects = "{\"then\":".repeat(100_000);
    let in_value = format!("{{\"then\":[{{\"put\":\"a\",\"value\":{deep}");
    let digits = format!("{{\"then\":[{{\"add\":\"a\",\"by\":{}}}]}}", "9".repeat(500_000));
    let name = format!("{{\"{}\":1}}", "n".repeat(500_000));
    let text = format!("{{\"then\":\"{}\"}}", "\u{e9}".repeat(250_000));
    let empty = format!("{{\"then\":[{}{{}}]}}", "{},".repeat(300_000));
    let spaces = " ".repeat(900_000);
    for body in [deep, nested, objects, in_value, digits, name, text, empty, spaces] {
        let detail = refusal(&body);
        assert!(detail.chars().count() < 400, "{}: {detail}", detail.len());
    }
}

/// The memory for a body that is refused is no large multiple of it.
#[test]
fn memory_is_bounded() {
    let empty = format!("{{\"then\":[{}{{}}]}}", "{},".repeat(300_000));
    let info = allocation_counter::measure(|| drop(parse_transaction(empty.as_bytes(), VALUE_BYTES_MAX)));
    assert!(info.bytes_max < 1 << 20, "{}", info.bytes_max);
    let value = "v".repeat(VALUE_BYTES_MAX);
    let long = format!("{{\"then\":[{{\"put\":\"a\",\"value\":\"{value}\"}}]}}");
    let info = allocation_counter::measure(|| drop(parse_transaction(long.as_bytes(), VALUE_BYTES_MAX)));
    assert!(info.bytes_max < 4 * long.len() as u64, "{}", info.bytes_max);
}

#[test]
fn a_value_has_the_bound_of_a_written_one() {
    let mut client = Client::new();
    let value = "v".repeat(VALUE_BYTES_MAX + 1);
    let rows = [
        format!(r#"{{"then":[{{"put":"a","value":"{value}"}}]}}"#),
        format!(r#"{{"then":[],"else":[{{"put":"a","value":"{value}"}}]}}"#),
        format!(r#"{{"then":[],"if":[{{"key":"a","value":"{value}"}}]}}"#),
    ];
    for body in rows {
        let answer = tell(&mut client, &body);
        assert_eq!(answer.problem(), (413, "value-too-large".into()));
        assert!(answer.member("detail").contains(": the value has 200001 bytes; at most 200000 are allowed"));
    }
    assert!(client.calls.is_empty() && !client.is_closing());
    // Several that are each allowed make a body that is longer than any value.
    let value = "v".repeat(VALUE_BYTES_MAX);
    let puts: Vec<String> = (0..5).map(|key| format!(r#"{{"put":"{key}","value":"{value}"}}"#)).collect();
    let body = format!(r#"{{"then":[{}]}}"#, puts.join(","));
    assert!(body.len() > VALUE_BYTES_MAX && body.len() < TRANSACTION_BODY_BYTES_MIN);
    assert_eq!(tell(&mut client, &body).status, 200);
    let mut client = Client::new();
    let length = TRANSACTION_BODY_BYTES_MIN + 1;
    client.feed(format!("POST {TXN} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"));
    assert_eq!(client.responses()[0].problem(), (413, "value-too-large".into()));
}

#[test]
fn answers() {
    let mut client = Client::new();
    client.node.time = LogicalTime(1_000);
    let body = r#"{"if":[{"key":"a","absent":true}],
        "then":[{"get":"a"},{"put":"a","value":"x\"","ttl":"30s"},{"add":"n","by":5},{"get":"a"},{"delete":"zz"},{"delete":"a"},{"put":"b","value_base64":"/w=="},{"get":"b"}]}"#;
    let answer = tell(&mut client, body);
    let expected = "{\"succeeded\":true,\"revision\":1,\"results\":[{\"get\":\"a\",\"missing\":true},\
        {\"put\":\"a\",\"revision\":1},{\"add\":\"n\",\"value\":5},{\"get\":\"a\",\"revision\":1,\"value\":\"x\\\"\"},\
        {\"delete\":\"zz\",\"existed\":false},{\"delete\":\"a\",\"existed\":true},{\"put\":\"b\",\"revision\":1},\
        {\"get\":\"b\",\"revision\":1,\"value_base64\":\"/w==\"}]}\n";
    assert_eq!((answer.status, answer.text()), (200, expected));
    assert_eq!((answer.header("keva-revision"), answer.header("etag")), (Some("1"), None));
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(client.tell("GET", "/v1/storage/key/n", "", "").text(), "5");

    let branch = r#"{"if":[{"key":"n","rev":99}],"then":[{"delete":"n"}],"else":[{"get":"n"}]}"#;
    let expected =
        "{\"succeeded\":false,\"revision\":2,\"results\":[{\"get\":\"n\",\"revision\":1,\"value\":\"5\"}]}\n";
    assert_eq!(tell(&mut client, branch).text(), expected);

    let key = "Idempotency-Key: t\r\n";
    let first = client.tell("POST", TXN, key, r#"{"then":[{"add":"n","by":1}]}"#);
    let again = client.tell("POST", TXN, key, r#"{ "then": [ {"by":1, "add":"n"} ] }"#);
    assert_eq!(
        (first.json()["results"][0]["value"].as_i64(), &again),
        (Some(6), &first),
        "spaces are no difference"
    );
    assert_eq!(client.tell("POST", TXN, key, r#"{"then":[{"add":"n","by":2}]}"#).status, 422);
}

#[test]
fn the_first_condition_that_failed_is_named() {
    let mut client = Client::new();
    client.tell("PUT", "/v1/storage/key/a", "", "x");
    for (condition, detail) in [
        (r#""key":"a","rev":7"#, "key \"a\" is at revision 1, not 7"),
        (r#""key":"b","rev":7"#, "key \"b\" does not exist, so it is not at revision 7"),
        (r#""key":"a","absent":true"#, "key \"a\" exists, at revision 1"),
        (r#""key":"b","exists":true"#, "key \"b\" does not exist"),
        (r#""key":"a","value":"y"#, "key \"a\" has another value, at revision 1"),
        (r#""key":"b","value":"x"#, "key \"b\" does not exist"),
    ] {
        let quote = if condition.contains("value") { "\"" } else { "" };
        let body = format!(
            r#"{{"if":[{{"key":"a","exists":true}},{{{condition}{quote}}},{{"key":"c","exists":true}}],"then":[{{"delete":"a"}}]}}"#
        );
        let answer = tell(&mut client, &body);
        assert_eq!(answer.problem(), (412, "precondition-failed".into()), "{condition}");
        assert_eq!(answer.member("detail"), format!("if[1] did not hold, so nothing was changed: {detail}"));
        assert_eq!((answer.member("applied").as_str(), answer.header("etag")), ("no", None));
    }
    assert_eq!(client.tell("GET", "/v1/storage/key/a", "", "").text(), "x");
}

#[test]
fn refused_operations_undo_the_rest() {
    let mut client = Client::new();
    client.tell("PUT", "/v1/storage/key/word", "", "hello");
    client.tell("PUT", "/v1/storage/key/most", "", &i64::MAX.to_string());
    for (add, code) in [("word", "not-a-number"), ("most", "overflow")] {
        let body = format!(r#"{{"then":[{{"put":"new","value":"x"}},{{"add":"{add}","by":1}}]}}"#);
        let answer = tell(&mut client, &body);
        assert_eq!(answer.problem(), (409, code.into()));
        assert!(answer.member("detail").contains(&format!("key \"{add}\"")));
        assert_eq!(client.tell("GET", "/v1/storage/key/new", "", "").status, 204, "all or nothing");
    }
}

#[test]
fn heads_of_transactions() {
    let body = "{\"then\":[]}";
    match Client::understood("POST", &format!("{TXN}?timeout=2s"), "Content-Type: text/plain\r\n", body) {
        Action::Submit { request: Request::Write(write), timeout_ms: Some(2_000), .. } => {
            assert_eq!(write.command, Command::Transaction(Transaction::default()));
        }
        other => panic!("{other:?}"),
    }
    for (target, headers, code) in [
        (TXN.to_owned(), "If-Match: \"1\"\r\n", "bad-condition"),
        (TXN.to_owned(), "If-None-Match: *\r\n", "bad-condition"),
        (TXN.to_owned(), "Content-Range: bytes 0-1/2\r\n", "partial-write-not-supported"),
        (format!("{TXN}?if_absent"), "", "unknown-parameter"),
        (format!("{TXN}?ttl=5s"), "", "unknown-parameter"),
        (format!("{TXN}?timeout=0s"), "", "bad-parameter"),
    ] {
        let mut client = Client::new();
        let answer = client.tell("POST", &target, headers, body);
        assert_eq!(answer.problem(), (400, code.into()), "{target} {headers}");
    }
    let mut client = Client::new();
    let answer = client.tell("POST", TXN, "Content-Encoding: gzip\r\n", body);
    assert_eq!(answer.problem(), (415, "content-encoding-not-supported".into()));
    client.sent.clear();
    client.feed(format!("POST {TXN} HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_eq!(client.responses()[0].problem(), (411, "length-required".into()));
}

/// Any JSON value of a few kinds, nested.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let names = prop_oneof![
        "if|then|else|key|rev|absent|exists|value|value_base64|put|add|delete|get|by|ttl|content_type",
        "\\PC{0,5}"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,8}|[\0-\x1f]{1,3}|30s|//4=".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((names.clone(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn operation_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::json;
    let key = "\\PC{1,10}|[\0-\x1f]{1,4}";
    let ttl = prop_oneof![Just("1ms"), Just("30s"), Just("7d")];
    prop_oneof![
        (key, "\\PC{0,20}", ttl.clone())
            .prop_map(|(key, value, ttl)| json!({"put": key, "value": value, "ttl": ttl})),
        (key, any::<i64>(), ttl).prop_map(|(key, by, ttl)| json!({"add": key, "by": by, "ttl": ttl})),
        key.prop_map(|key| json!({"delete": key})),
        key.prop_map(|key| json!({"get": key})),
    ]
}

/// What is accepted keeps every rule, and what is not says why.
fn check(body: &[u8]) {
    match parse_transaction(body, VALUE_BYTES_MAX) {
        Ok(transaction) => {
            let command = Command::Transaction(transaction);
            // The sum over both branches is checked behind the parser.
            let _ = command.check();
        }
        Err(problem) => {
            assert!(matches!(problem.status, Status::BadRequest | Status::ContentTooLarge));
            assert!(!problem.detail.is_empty() && problem.detail.chars().count() < 600);
        }
    }
}

proptest! {
    /// E5: what is written down as JSON arrives as it is, operation by operation.
    #[test]
    fn operations_arrive(operations in proptest::collection::vec(operation_json(), 0..20)) {
        let body = serde_json::json!({ "then": operations }).to_string();
        let transaction = parse(&body);
        prop_assert_eq!(transaction.then.len(), operations.len());
        for (operation, json) in transaction.then.iter().zip(&operations) {
            let name = ["put", "add", "delete", "get"].into_iter().find(|name| json.get(name).is_some()).unwrap();
            prop_assert_eq!(operation.key(), json[name].as_str().unwrap());
            match operation {
                Operation::Put { value, ttl_ms, .. } => {
                    prop_assert_eq!(value.as_slice(), json["value"].as_str().unwrap().as_bytes());
                    prop_assert!(ttl_ms.is_some());
                }
                Operation::Add { by, .. } => prop_assert_eq!(Some(*by), json["by"].as_i64()),
                Operation::Delete { .. } => prop_assert_eq!(name, "delete"),
                Operation::Get { .. } => prop_assert_eq!(name, "get"),
            }
        }
    }

    #[test]
    fn any_json_is_understood_or_refused(value in any_json()) {
        check(value.to_string().as_bytes());
        check(serde_json::json!({ "then": [value] }).to_string().as_bytes());
    }

    /// A good transaction with some bytes changed, cut out or doubled.
    #[test]
    fn any_bytes_are_understood_or_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6),
    ) {
        let mut body = br#"{"if":[{"key":"a","rev":12},{"key":"b","absent":true}],"then":[{"put":"a","value":"\ud83d\ude00","ttl":"30s"},{"add":"n","by":-1e0},{"put":"b","value_base64":"//4="}],"else":[{"get":"c"}]}"#.to_vec();
        for (at, byte, kind) in changes {
            let at = at.index(body.len());
            match kind {
                0 => body[at] = byte,
                1 => { body.remove(at); }
                _ => body.insert(at, body[at]),
            }
        }
        check(&body);
    }

    /// The whole way, over a connection: never anything but these.
    #[test]
    fn any_transaction_gets_an_answer(value in any_json()) {
        let mut client = Client::new();
        let body = serde_json::json!({ "then": [value] }).to_string();
        let answer = tell(&mut client, &body);
        prop_assert!([200, 400, 409, 412, 413].contains(&answer.status), "{}", answer.status);
        prop_assert!(!client.is_closing());
    }
}
