//! Requests for many keys, over real sockets of a real cluster: every one is sent to another node than the one before.

mod support;

use serde_json::{Value, json};
use support::cluster::Cluster;
use support::http_message::Answer;
use support::round::Round;

const KEYS: &str = "/v1/storage/keys";
const TXN: &str = "/v1/storage/txn";
const JSON: &[(&str, &str)] = &[("Accept", "application/json")];

fn parse(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

fn list(round: &mut Round, query: &str) -> Value {
    let answer = round.ask("GET", &format!("{KEYS}?{query}"), JSON, b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("Content-Type"), Some("application/json; charset=utf-8"));
    parse(&answer)
}

fn transact(round: &mut Round, transaction: &Value) -> Answer {
    round.ask("POST", TXN, &[], transaction.to_string().as_bytes())
}

#[test]
fn listings() {
    let cluster = Cluster::start(3);
    let mut round = Round::new(&cluster);
    let empty = round.get(KEYS);
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    for key in ["a", "b/1", "b/2", "b/%C3%BC%20%0A%25", "c"] {
        round.put(key, key);
    }
    let newest = round.ask("PUT", "/v1/storage/key/b/2?ttl=1h", &[], b"\xff").etag().expect("a revision");
    let all = round.get(KEYS);
    assert_eq!(all.text(), "a\nb/1\nb/2\nb/%C3%BC%20%0A%25\nc\n");
    assert_eq!(all.header("Content-Type"), Some("text/plain; charset=utf-8"));
    assert!(all.etag() >= Some(newest) && all.etag() == all.revision() && all.header("Keva-Next").is_none());
    let same = format!("\"{}\"", all.etag().expect("a revision"));
    assert_eq!(round.ask("GET", KEYS, &[("If-None-Match", &same)], b"").status, 304);
    let head = round.ask("HEAD", KEYS, &[], b"");
    assert_eq!(
        (head.status, head.header("Content-Length")),
        (200, Some(all.body.len().to_string().as_str()))
    );

    for (query, lines) in [
        ("prefix=b/", "b/1\nb/2\nb/%C3%BC%20%0A%25\n"),
        ("start=b/2&end=c", "b/2\nb/%C3%BC%20%0A%25\n"),
        ("after=b/2", "b/%C3%BC%20%0A%25\nc\n"),
        ("prefix=b/&after=b/1&end=b/3", "b/2\n"),
        ("prefix=nothing", ""),
        ("prefix=&start=&end=&after=&consistency=linearizable&timeout=4s&limit=5", all.text().as_str()),
        ("count", "5\n"),
        ("prefix=b&count", "3\n"),
    ] {
        assert_eq!(round.get(&format!("{KEYS}?{query}")).text(), lines, "{query}");
    }
    assert_eq!(list(&mut round, "count")["count"], 5);
    // Page by page, each from another node.
    let (mut after, mut pages) = (String::new(), Vec::new());
    loop {
        let page = round.get(&format!("{KEYS}?limit=2&after={after}"));
        pages.push(page.text());
        let Some(next) = page.header("Keva-Next") else { break };
        after = next.to_owned();
    }
    assert_eq!((pages.len(), pages.concat()), (3, all.text()));
    let page = list(&mut round, "prefix=b/&limit=2&values");
    assert_eq!((&page["next"], page["keys"].as_array().map(Vec::len)), (&json!("b/2"), Some(2)));
    assert_eq!(page["keys"][0]["value"], "b/1");
    let two = &page["keys"][1];
    assert_eq!((&two["key"], &two["revision"], &two["size"]), (&json!("b/2"), &json!(newest), &json!(1)));
    assert_eq!(
        (&two["value_base64"], two["ttl"].as_u64().is_some_and(|ttl| (3_500..=3_600).contains(&ttl))),
        (&json!("/w=="), true)
    );
    let page = list(&mut round, "after=b/2");
    assert_eq!((&page["next"], &page["keys"][0]["key"]), (&Value::Null, &json!("b/\u{fc} \n%")));
    for query in [
        "limit=0",
        "limit=10001",
        "values",
        "count&limit=1",
        "bogus",
        "prefix=a&prefix=b",
        "consistency=weak",
    ] {
        assert_eq!(round.get(&format!("{KEYS}?{query}")).status, 400, "{query}");
    }
}

#[test]
fn deleting_many_keys() {
    let cluster = Cluster::start(3);
    let mut round = Round::new(&cluster);
    for key in ["a", "b/1", "b/2", "b/3", "c"] {
        round.put(key, "x");
    }
    for query in ["", "?prefix=", "?prefix=b&all", "?all=yes"] {
        assert_eq!(round.ask("DELETE", &format!("{KEYS}{query}"), &[], b"").status, 400, "{query}");
    }
    let conditional = round.ask("DELETE", &format!("{KEYS}?prefix=b/"), &[("If-Match", "\"1\"")], b"");
    assert_eq!(conditional.status, 400);
    let deleted = round.ask("DELETE", &format!("{KEYS}?prefix=b/"), &[], b"");
    assert_eq!((deleted.status, deleted.text().as_str()), (200, "{\"deleted\":3}"));
    assert_eq!(round.get(KEYS).text(), "a\nc\n");
    assert_eq!(round.ask("DELETE", &format!("{KEYS}?prefix=b/"), &[], b"").text(), "{\"deleted\":0}");
    assert_eq!(round.ask("DELETE", &format!("{KEYS}?all"), &[], b"").text(), "{\"deleted\":2}");
    assert_eq!(round.get(&format!("{KEYS}?count")).text(), "0\n");
}

#[test]
fn transactions() {
    let cluster = Cluster::start(3);
    let mut round = Round::new(&cluster);
    let revision = round.put("a", "old");
    round.put("b", "x");
    round.ask("PUT", "/v1/storage/key/raw", &[], b"\xff");
    let transaction = json!({
        "if": [
            {"key": "a", "rev": revision}, {"key": "none", "absent": true}, {"key": "b", "exists": true},
            {"key": "b", "value": "x"}, {"key": "raw", "value_base64": "/w=="}
        ],
        "then": [
            {"put": "a", "value": "new", "ttl": "30s"}, {"put": "p", "value_base64": "AP8=", "content_type": "x/y"},
            {"add": "n", "by": 5}, {"add": "n", "by": -2}, {"delete": "b"}, {"delete": "none"},
            {"get": "a"}, {"get": "b"}, {"get": "raw"}
        ],
        "else": [{"get": "a"}]
    });
    let answer = transact(&mut round, &transaction);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let index = answer.revision().expect("a revision");
    let expected = json!({"succeeded": true, "revision": index, "results": [
        {"put": "a", "revision": index}, {"put": "p", "revision": index}, {"add": "n", "value": 5},
        {"add": "n", "value": 3}, {"delete": "b", "existed": true}, {"delete": "none", "existed": false},
        {"get": "a", "revision": index, "value": "new"}, {"get": "b", "missing": true},
        {"get": "raw", "revision": index - 1, "value_base64": "/w=="}]});
    assert_eq!(parse(&answer), expected);
    for read in round.ask_all("GET", "/v1/storage/key/p", &[]) {
        assert_eq!((read.body.as_slice(), read.etag()), (&b"\x00\xff"[..], Some(index)));
        assert_eq!(read.header("Content-Type"), Some("x/y"));
    }
    let left = round.get("/v1/storage/key/a").header("Keva-TTL").and_then(|left| left.parse().ok());
    assert!(left.is_some_and(|left: u64| (20..=30).contains(&left)), "{left:?}");
    // The condition does not hold any more.
    let otherwise = transact(&mut round, &transaction);
    let result = parse(&otherwise);
    assert_eq!((otherwise.status, &result["succeeded"]), (200, &json!(false)));
    assert_eq!(result["results"], json!([{"get": "a", "revision": index, "value": "new"}]));
    let failed =
        transact(&mut round, &json!({"if": [{"key": "a", "absent": true}], "then": [{"delete": "a"}]}));
    assert_eq!((failed.status, &parse(&failed)["code"]), (412, &json!("precondition-failed")));
    // All or nothing.
    let refused = transact(&mut round, &json!({"then": [{"delete": "n"}, {"add": "a", "by": 1}]}));
    assert_eq!((refused.status, &parse(&refused)["code"]), (409, &json!("not-a-number")));
    assert_eq!(round.get("/v1/storage/key/n").text(), "3");

    let most: Vec<Value> =
        (0..1000).map(|number| json!({"put": format!("m/{number}"), "value": ""})).collect();
    assert_eq!(transact(&mut round, &json!({"then": &most})).status, 200);
    assert_eq!(round.get(&format!("{KEYS}?prefix=m/&count")).text(), "1000\n");
    let more = json!({"then": &most, "else": [{"get": "a"}]});
    assert_eq!(transact(&mut round, &more).status, 400);
    let bad: [&[u8]; 6] = [
        b"",
        b"{}",
        b"{\"then\":[{\"pot\":\"a\"}]}",
        b"{\"then\":[],\"x\":1}",
        b"[[[[",
        b"{\"then\":[{\"get\":\"\"}]}",
    ];
    for body in bad {
        let answer = round.ask("POST", TXN, &[], body);
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    let conditional = round.ask("POST", TXN, &[("If-Match", "*")], b"{\"then\":[]}");
    assert_eq!(conditional.status, 400, "a transaction has conditions of its own");
}
