//! Writes with a name, keys that live for a time, and the pages about the cluster, while nodes come and go.

mod support;

use std::time::{Duration, Instant};

use support::cluster::{Cluster, ClusterOptions, PATIENCE, wait_for};
use support::http_client::{HttpClient, Request};
use support::http_message::Answer;
use support::round::Round;

const K: &str = "/v1/storage/key/k";

fn ask(client: &mut HttpClient, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    client
        .request(method, target, headers, body)
        .unwrap_or_else(|failure| panic!("{method} {target} at {}: {failure}", client.address()))
}

/// What a name stands for outlives the node that was asked, and every process.
#[test]
fn a_name_means_the_same_everywhere() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let [one, two] = cluster.others(leader)[..] else { panic!("three nodes") };
    let revision = Round::new(&cluster).put("k", "v");
    let if_old = format!("/v1/storage/key/c?if_rev={revision}");
    let txn = br#"{"then":[{"add":"n","by":100},{"get":"n"}]}"#;
    let writes: [(&str, &str, &str, &[u8]); 7] = [
        ("add", "POST", "/v1/storage/key/n?add=1", b""),
        ("append", "POST", "/v1/storage/key/log?append", b"line\n"),
        ("put", "PUT", "/v1/storage/key/once?if_absent&ttl=1h", b"me"),
        ("delete", "DELETE", K, b""),
        ("failed", "PUT", &if_old, b"never"),
        ("many", "DELETE", "/v1/storage/keys?prefix=on", b""),
        ("txn", "POST", "/v1/storage/txn", txn),
    ];
    let send = |client: &mut HttpClient| -> Vec<(u16, String, Option<u64>)> {
        let answers = writes.iter().map(|(name, method, target, body)| {
            let answer = ask(client, method, target, &[("Idempotency-Key", name)], body);
            (answer.status, answer.text(), answer.etag())
        });
        answers.collect()
    };
    let first = send(&mut cluster.client(one));
    let statuses: Vec<u16> = first.iter().map(|(status, _, _)| *status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 412, 200, 200]);
    // What it would do now is not what it did.
    Round::new(&cluster).put("k", "again");
    assert_eq!(send(&mut cluster.client(leader)), first);
    cluster.node(one).kill();
    assert_eq!(send(&mut cluster.client(two)), first, "through another node, after the first one's death");
    cluster.kill_at_once(&[leader, two]);
    for position in 0..3 {
        cluster.node(position).start();
    }
    cluster.wait_all_ready();
    assert_eq!(send(&mut cluster.client(two)), first, "after the death of all of them");
    let mut round = Round::new(&cluster);
    assert_eq!(round.get("/v1/storage/key/n").text(), "101");
    assert_eq!(round.get("/v1/storage/key/log").text(), "line\n");
    assert_eq!(round.get(K).text(), "again");
    let name = [("Idempotency-Key", "add")];
    for (method, target) in
        [("POST", "/v1/storage/key/n?add=2"), ("DELETE", K), ("DELETE", "/v1/storage/keys?all")]
    {
        let reused = round.ask(method, target, &name, b"");
        assert_eq!(reused.status, 422, "{method} {target}");
        assert!(reused.text().contains("idempotency-key-reused"), "{}", reused.text());
    }
    assert_eq!(round.ask("GET", K, &name, b"").status, 200, "reads have no use for it");
    assert_eq!(round.ask("DELETE", K, &[("Idempotency-Key", &"x".repeat(65))], b"").status, 400);
}

/// J3: a key goes away on every node, never early, whoever leads; whoever waits or watches hears of it.
#[test]
fn lives_end_on_every_node() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("1"));
    let leader = cluster.leader();
    let [one, two] = cluster.others(leader)[..] else { panic!("three nodes") };
    let mut round = Round::new(&cluster);
    let began = Instant::now();
    assert_eq!(round.ask("PUT", "/v1/storage/key/short?ttl=3s", &[], b"v").status, 200);
    assert_eq!(round.ask("PUT", "/v1/storage/key/kept?ttl=3s", &[], b"v").status, 200);
    assert_eq!(round.ask("POST", "/v1/storage/key/count?add=1&ttl=1h", &[], b"").status, 200);
    for read in round.ask_all("GET", "/v1/storage/key/short", &[]) {
        // Rounded up, so that it is never 0 while the key is there.
        let left = read.header("Keva-TTL").and_then(|left| left.parse().ok());
        assert!(read.status == 200 && left.is_some_and(|left: u64| (1..=3).contains(&left)), "{read:?}");
    }
    let left = round.get("/v1/storage/key/count").header("Keva-TTL").and_then(|left| left.parse().ok());
    assert!(left.is_some_and(|left: u64| (3_590..=3_600).contains(&left)), "{left:?}");
    // A write without a life clears it.
    round.put("kept", "for ever");
    assert!(
        round
            .ask_all("GET", "/v1/storage/key/kept", &[])
            .iter()
            .all(|read| read.header("Keva-TTL").is_none())
    );

    let wait = Request::new("GET", "/v1/storage/key/short?wait=1m", &[("If-None-Match", "*")], b"");
    let mut waiting = cluster.client(one).with_timeout(PATIENCE);
    waiting.start(&wait).expect("sent");
    cluster.node(leader).kill();
    let gone = waiting.finish(&wait).expect("an answer");
    let lived = began.elapsed();
    assert_eq!(gone.status, 204);
    assert!(lived >= Duration::from_secs(3), "it went away early: {lived:?}");
    assert!(lived < Duration::from_secs(15), "it went away late: {lived:?}");
    for position in [one, two] {
        assert_eq!(ask(&mut cluster.client(position), "GET", "/v1/storage/key/short", &[], b"").status, 204);
        assert_eq!(
            ask(&mut cluster.client(position), "GET", "/v1/storage/key/kept", &[], b"").text(),
            "for ever"
        );
    }
    // The node that was away hears of it, too.
    cluster.start_node(leader);
    assert_eq!(ask(&mut cluster.client(leader), "GET", "/v1/storage/keys", &[], b"").text(), "count\nkept\n");
    let since = format!("/v1/storage/keys?watch&since={}", gone.revision().expect("a revision") - 1);
    let output = std::process::Command::new("curl")
        .args(["-q", "-sN", "--max-time", "2", "-H", "Accept: application/x-ndjson"])
        .arg(format!("http://{}{since}", cluster.client_address(two)))
        .output()
        .expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("{\"event\":\"expire\",\"key\":\"short\","), "{text}");
}

/// Every node tells about the cluster, and the leader can be told to go.
#[test]
fn pages_about_the_cluster() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let [next, other] = cluster.others(leader)[..] else { panic!("three nodes") };
    let name = |position: usize| format!("host{}", position + 1);
    let mut round = Round::new(&cluster);
    round.put("k", "v");
    for answer in round.ask_all("GET", "/v1/cluster", &[]) {
        let page: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((answer.status, &page["leader"]), (200, &name(leader).into()));
        assert_eq!(
            (&page["failures_tolerated"], page["members"].as_array().map(Vec::len)),
            (&1.into(), Some(3))
        );
        let is_leader = page["role"] == "leader";
        assert_eq!(is_leader, page["node"] == name(leader));
        for member in page["members"].as_array().expect("a list") {
            assert!(
                ["identity", "address", "version"].iter().all(|part| member[part].is_string()),
                "{member}"
            );
            assert!(member["connected"].is_boolean() && member["user_port"].is_u64(), "{member}");
            assert!(!is_leader || member["match"].is_u64() && member["role"].is_string(), "{member}");
        }
    }
    let rows = [
        ("/v1/cluster/leader", "text/plain; charset=utf-8", format!("{}\n", name(leader))),
        ("/livez", "text/plain; charset=utf-8", "ok\n".into()),
        ("/readyz", "text/plain; charset=utf-8", "ok\n".into()),
        ("/readyz?verbose", "text/plain; charset=utf-8", "ok\n".into()),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "# HELP keva_".into()),
        (
            "/v1/version",
            "application/json; charset=utf-8",
            format!("{{\"version\":\"{}\"", env!("CARGO_PKG_VERSION")),
        ),
        ("/v1/openapi.json", "application/json; charset=utf-8", "{\n  \"openapi\": \"3.1.0\"".into()),
        ("/", "text/plain; charset=utf-8", "Keva ".into()),
    ];
    for (target, content_type, start) in rows {
        for answer in round.ask_all("GET", target, &[]) {
            assert_eq!((answer.status, answer.header("Content-Type")), (200, Some(content_type)), "{target}");
            assert!(answer.text().starts_with(&start), "{target}: {}", answer.text());
        }
        for answer in round.ask_all("HEAD", target, &[]) {
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{target}");
        }
    }
    for page in round.ask_all("GET", "/", &[("Accept", "text/html,*/*;q=0.8")]) {
        assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
        assert!(
            page.text().starts_with("<!DOCTYPE html>") && !page.text().contains("<script"),
            "{}",
            page.text()
        );
    }

    let target = format!("/v1/cluster/leader?to={}", name(next));
    let refused = ask(&mut cluster.client(other), "POST", &target, &[], b"");
    assert_eq!((refused.status, refused.text().contains(&name(leader))), (409, true), "{}", refused.text());
    let nobody = ask(&mut cluster.client(leader), "POST", "/v1/cluster/leader?to=host9", &[], b"");
    assert_eq!(nobody.status, 400);
    let handed = ask(&mut cluster.client(leader), "POST", &target, &[], b"");
    assert_eq!((handed.status, handed.text()), (200, format!("{}\n", name(next))));
    assert_eq!(cluster.leader(), next);
    let anyone = ask(&mut cluster.client(next), "POST", "/v1/cluster/leader", &[], b"");
    assert_eq!(anyone.status, 200, "{}", anyone.text());
    wait_for("all nodes to follow", || (cluster.leader() != next).then_some(()));
}
