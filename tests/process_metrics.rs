//! `GET /metrics` of real processes: the format's rules are kept, and the numbers follow what happens.

mod support;

use std::time::{Duration, Instant};

use support::cluster::{Cluster, wait_for};
use support::http_client::HttpClient;
use support::metrics::Metrics;

/// A page of this many bytes is read in a moment by anybody.
const PAGE_BYTES_MAX: usize = 16 << 10;

fn metrics(client: &mut HttpClient) -> Metrics {
    let answer = client.request("GET", "/metrics", &[], b"").expect("the node answers");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(answer.body.len() < PAGE_BYTES_MAX, "{} bytes", answer.body.len());
    let text = String::from_utf8(answer.body).expect("the page is UTF-8");
    Metrics::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// How much a sample has grown.
fn grown(before: &Metrics, after: &Metrics, name: &str) -> f64 {
    after.value(name) - before.value(name)
}

#[test]
fn numbers_follow_what_happens() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let mut client = cluster.client(leader);
    let before = wait_for("the connections of the start to be closed", || {
        Some(metrics(&mut client)).filter(|page| page.value("keva_client_connections") == 1.0)
    });
    for number in 0..20 {
        let key = format!("/v1/storage/key/k{number}");
        assert_eq!(client.request("PUT", &key, &[], &[b'v'; 1_000]).expect("an answer").status, 200);
    }
    for _ in 0..3 {
        assert_eq!(client.request("GET", "/v1/storage/key/a", &[], b"").expect("an answer").status, 204);
    }
    for target in ["/nothing", "/v1/storage/key/a?missing=404"] {
        assert_eq!(client.request("GET", target, &[], b"").expect("an answer").status, 404);
    }
    let after = metrics(&mut client);
    let grown = |name: &str| grown(&before, &after, name);
    // The page itself is counted after it was written: the first one is among these.
    assert_eq!(grown("keva_http_requests_total{class=\"2xx\"}"), 24.0);
    assert_eq!(grown("keva_http_requests_total{class=\"4xx\"}"), 2.0);
    assert_eq!(grown("keva_http_requests_total{class=\"5xx\"}"), 0.0);
    assert_eq!((grown("keva_keys"), grown("keva_term")), (20.0, 0.0));
    assert_eq!((grown("keva_commit_index"), grown("keva_applied_index")), (20.0, 20.0));
    let written = grown("keva_log_written_bytes_total");
    assert!((20_000.0..24_000.0).contains(&written), "{written} bytes of entries");
    assert!((20_000.0..24_000.0).contains(&grown("keva_log_bytes")), "one snapshot is far away");
    assert!((20_000.0..30_000.0).contains(&grown("keva_client_received_bytes_total")));
    assert!(grown("keva_client_sent_bytes_total") > 4_000.0, "a page and the heads of all answers");
    assert!((40_000.0..70_000.0).contains(&grown("keva_peer_sent_bytes_total")), "to two others");
    assert!((500.0..20_000.0).contains(&grown("keva_peer_received_bytes_total")), "acknowledgements");
    assert!((20.0..60.0).contains(&grown("keva_sync_duration_seconds_count")), "one per write");
    assert!(grown("keva_sync_duration_seconds_sum") > 0.0);
    assert!(grown("keva_turn_duration_seconds_count{snapshot=\"none\"}") >= 25.0, "one per request at least");
    assert_eq!(after.value("keva_turn_duration_seconds_count{snapshot=\"making\"}"), 0.0);
    assert_eq!((after.value("keva_waiting_writes"), after.value("keva_waiting_reads")), (0.0, 0.0));
    assert_eq!((after.value("keva_client_connections"), after.value("keva_is_leader")), (1.0, 1.0));
    // The longest turn is at least as long as the mean, and in some bucket.
    let longest = after.value("keva_turn_seconds_max{snapshot=\"none\"}");
    let turns = "keva_turn_duration_seconds";
    let (sum, count) =
        (format!("{turns}_sum{{snapshot=\"none\"}}"), format!("{turns}_count{{snapshot=\"none\"}}"));
    assert!(longest >= after.value(&sum) / after.value(&count), "{longest} s");
    let end = after
        .buckets(turns, "snapshot=\"none\"")
        .into_iter()
        .find(|(_, below)| *below == after.value(&count));
    assert!(end.is_some_and(|(end, _)| longest <= end), "{longest} s is over {end:?}");
    for (name, value) in before.growing() {
        assert!(after.value(name) >= value, "{name} went back");
    }
}

#[test]
fn every_node_answers_for_itself() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let others = cluster.others(leader);
    let peer = |position: usize| format!("{{peer=\"host{}\"}}", position + 1);
    let of_leader = wait_for("both followers to have everything", || {
        let page = metrics(&mut cluster.client(leader));
        let lags = others.iter().map(|other| page.value(&format!("keva_peer_lag_entries{}", peer(*other))));
        (lags.sum::<f64>() == 0.0).then_some(page)
    });
    for other in &others {
        assert_eq!(of_leader.value(&format!("keva_peer_connected{}", peer(*other))), 1.0);
        let name = format!("keva_peer_match_index{}", peer(*other));
        assert_eq!(of_leader.value(&name), of_leader.value("keva_log_last_index"));
    }
    assert_eq!(
        of_leader.sample(&format!("keva_peer_connected{}", peer(leader))),
        None,
        "it is no peer of its own"
    );

    let follower = others[0];
    let page = metrics(&mut cluster.client(follower));
    assert_eq!((page.value("keva_is_leader"), page.value("keva_has_leader")), (0.0, 1.0));
    assert_eq!(page.sample(&format!("keva_peer_match_index{}", peer(leader))), None, "only a leader knows");
    let info =
        format!("keva_build_info{{version=\"{}\",node=\"host{}\"}}", env!("CARGO_PKG_VERSION"), follower + 1);
    assert_eq!(page.value(&info), 1.0);

    // Alone, and with nobody to lead it.
    cluster.kill_at_once(&[leader, others[1]]);
    let mut client = cluster.client(follower);
    let page = wait_for("the node to find itself alone", || {
        let page = metrics(&mut client);
        (page.value("keva_has_leader") == 0.0).then_some(page)
    });
    assert_eq!(page.value(&format!("keva_peer_connected{}", peer(leader))), 0.0);
    let head = client.request("HEAD", "/metrics", &[], b"").expect("the node answers");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(client.request("PUT", "/metrics", &[], b"x").expect("the node answers").status, 405);
}

/// Waiting is no work: an idle node spends next to no time in turns.
#[test]
fn turns_do_not_count_the_wait() {
    let mut cluster = Cluster::start(1);
    cluster.wait_all_ready();
    let mut client = cluster.client(0);
    let start = Instant::now();
    let before = metrics(&mut client);
    std::thread::sleep(Duration::from_secs(1));
    let after = metrics(&mut client);
    let spent = grown(&before, &after, "keva_turn_duration_seconds_sum{snapshot=\"none\"}");
    assert!(grown(&before, &after, "keva_turn_duration_seconds_count{snapshot=\"none\"}") >= 1.0);
    assert!(spent < start.elapsed().as_secs_f64() / 2.0, "{spent} s in turns");
}

/// Every snapshot's turns are told apart from the others.
#[test]
fn snapshots_show() {
    let mut cluster = Cluster::start_with(
        &support::cluster::ClusterOptions::new(1).settings("[storage]\nsnapshot_log_size = \"1MiB\"\n"),
    );
    cluster.wait_all_ready();
    let mut client = cluster.client(0);
    let page = wait_for("a snapshot", || {
        let put = client.request("PUT", "/v1/storage/key/large", &[], &vec![b'v'; 300_000]);
        assert_eq!(put.expect("an answer").status, 200);
        Some(metrics(&mut client)).filter(|page| page.value("keva_snapshot_index") > 0.0)
    });
    let size = page.value("keva_snapshot_bytes");
    assert!(page.value("keva_snapshot_written_bytes_total") >= size && size > 300_000.0, "{size} bytes");
    assert!(page.value("keva_turn_duration_seconds_count{snapshot=\"making\"}") > 0.0);
    assert!(page.value("keva_turn_seconds_max{snapshot=\"making\"}") > 0.0);
}

/// A reader that takes everything proves nothing.
#[test]
fn pages_that_break_the_rules_are_refused() {
    let good = "# HELP keva_a Text.\n# TYPE keva_a gauge\nkeva_a 1\n\
                # HELP keva_h Text.\n# TYPE keva_h histogram\nkeva_h_bucket{x=\"\\\"\",le=\"0.1\"} 1\n\
                keva_h_bucket{x=\"\\\"\",le=\"+Inf\"} 3\nkeva_h_sum{x=\"\\\"\"} 0.5\nkeva_h_count{x=\"\\\"\"} 3\n";
    assert!(Metrics::parse(good).is_ok(), "{:?}", Metrics::parse(good));
    let broken = [
        ("keva_a 1\n", "keva_a\n"),
        ("keva_a 1\n", "keva_a one\n"),
        ("keva_a 1\n", "keva_a 1\nkeva_a 1\n"),
        ("keva_a 1\n", "keva_b 1\n"),
        ("keva_a 1\n", "keva_a{x=\"1\n"),
        ("keva_a 1\n", "keva_a{0x=\"1\"} 1\n"),
        ("keva_a 1\n", "keva_a{x=\"\\q\"} 1\n"),
        ("# HELP keva_a Text.\n", ""),
        ("# TYPE keva_a gauge\n", ""),
        ("keva_a gauge", "keva_a counter"),
        ("# HELP keva_h", "# HELP keva_a"),
        ("keva_h_bucket{x=\"\\\"\",le=\"+Inf\"} 3\n", ""),
        ("le=\"+Inf\"} 3", "le=\"+Inf\"} 2"),
        ("le=\"0.1\"} 1", "le=\"0.1\"} 4"),
        ("keva_h_sum{x=\"\\\"\"} 0.5\n", ""),
        ("keva_h_count{x=\"\\\"\"} 3\n", ""),
        ("_count{x=\"\\\"\"} 3\n", "_count{x=\"\\\"\"} 3"),
    ];
    for (right, wrong) in broken {
        assert!(good.contains(right), "{right}");
        let page = good.replace(right, wrong);
        assert!(Metrics::parse(&page).is_err(), "this was taken:\n{page}");
    }
}
