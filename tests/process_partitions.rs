//! Real processes whose links fail: whoever is cut off from the majority neither answers from memory nor promises what
//! it cannot keep.

mod support;

use std::time::{Duration, Instant};

use support::cluster::{Cluster, ClusterOptions, PATIENCE, wait_for};
use support::failover::{make_leader, wait_acknowledged};
use support::http_client::{HttpClient, Request};
use support::http_message::Answer;
use support::workload::{Writer, assert_all_there, write_once};

fn get(client: &mut HttpClient, key: &str) -> Answer {
    client.request("GET", &format!("/v1/storage/key/{key}"), &[], b"").expect("an answer")
}

fn put(client: &mut HttpClient, key: &str, value: &str) -> Answer {
    client.request("PUT", &format!("/v1/storage/key/{key}"), &[], value.as_bytes()).expect("an answer")
}

/// A cluster of three whose first node leads and takes much longer than the others to notice that it is alone.
fn cluster_with_a_slow_leader() -> Cluster {
    let options = ClusterOptions::new(3).wait_times(&["6", "0.5"]).relayed();
    let mut cluster = Cluster::start_with(&options);
    make_leader(&mut cluster, 0);
    cluster
}

// C1, C8, E14: the case that leases with wrong clocks, and reads without a round of heartbeats, get wrong.
#[test]
fn isolated_leader_answers_no_read_while_another_one_leads() {
    let mut cluster = cluster_with_a_slow_leader();
    let mut isolated = cluster.client(0);
    let mut other = cluster.client(1);
    write_once(&mut isolated, "k", "old").expect("the cluster is whole");
    assert_eq!(get(&mut isolated, "k").text(), "old");

    cluster.relays().isolate(0);
    cluster.wait_leader(&[1, 2]);
    wait_for("a write without the old leader", || write_once(&mut other, "k", "new").ok());
    assert_eq!(cluster.leader_by(0).as_deref(), Some("host1"), "it does not know yet that it was deposed");

    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_500) {
        for key in ["k", "absent"] {
            let answer = get(&mut isolated, &format!("{key}?timeout=100ms"));
            assert!(matches!(answer.status, 503 | 504), "a read without a majority: {answer:?}");
        }
    }
    assert_eq!(get(&mut isolated, "k?consistency=stale").text(), "old", "as asked for");
    // A read that waits is answered when the links are back, and then with what is true.
    let patient = Request::new("GET", "/v1/storage/key/k?timeout=20s", &[], b"");
    let mut waiting = cluster.client(0).with_timeout(PATIENCE);
    waiting.start(&patient).expect("send");
    cluster.relays().heal();
    let answer = waiting.finish(&patient).expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "new"));
}

// B1, E3, E14: what the isolated leader takes in is not acknowledged, and happens at most once.
#[test]
fn isolated_leader_acknowledges_no_write() {
    let mut cluster = cluster_with_a_slow_leader();
    let mut isolated = cluster.client(0);
    write_once(&mut isolated, "k", "old").expect("the cluster is whole");
    cluster.relays().isolate(0);
    let mut unknown = Vec::new();
    for number in 0..10 {
        let answer = put(&mut isolated, &format!("k{number}?timeout=50ms"), "from the isolated leader");
        assert!(matches!(answer.status, 503 | 504), "a write without a majority: {answer:?}");
        if answer.status == 504 {
            unknown.push(number);
        }
    }
    assert!(!unknown.is_empty(), "the leader has put writes into its log, so it cannot know");
    // This one waits until the links are back, and is done then: a pause, not an error.
    let patient = Request::new("PUT", "/v1/storage/key/patient?timeout=20s", &[], b"done");
    let mut waiting = cluster.client(0).with_timeout(PATIENCE);
    waiting.start(&patient).expect("send");
    cluster.wait_leader(&[1, 2]);
    let mut other = cluster.client(2);
    wait_for("a write without the old leader", || write_once(&mut other, "k", "new").ok());
    for number in 0..10 {
        assert_eq!(
            get(&mut other, &format!("k{number}")).status,
            204,
            "nobody but the isolated leader has it"
        );
    }
    cluster.relays().heal();
    let answer = waiting.finish(&patient).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    cluster.wait_all_ready();
    for position in 0..3 {
        let mut client = cluster.client(position);
        assert_eq!(get(&mut client, "k").text(), "new");
        let patient = get(&mut client, "patient");
        assert_eq!((patient.text().as_str(), patient.etag()), ("done", answer.etag()));
        // Unknown means: there or not, but the same everywhere and for ever.
        for number in 0..10 {
            let value = get(&mut client, &format!("k{number}"));
            let first = get(&mut isolated, &format!("k{number}"));
            assert_eq!((value.status, value.etag()), (first.status, first.etag()), "k{number}");
            assert!(
                value.status == 204 || unknown.contains(&number),
                "503 means surely not applied: k{number}"
            );
        }
    }
}

// A9, A10, G5: a node that cannot reach the leader, but everybody else, deposes nobody.
#[test]
fn broken_link_between_leader_and_one_follower_disturbs_nobody_else() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("0.5").relayed());
    let leader = cluster.leader();
    let others = cluster.others(leader);
    let (cut_off, bystander) = (others[0], others[1]);
    let term = |cluster: &Cluster| {
        let page = cluster.client(leader).request("GET", "/v1/cluster", &[], b"").expect("an answer");
        let page: serde_json::Value = serde_json::from_slice(&page.body).expect("JSON");
        page["term"].as_u64().expect("a term")
    };
    let before = term(&cluster);
    let writers = [leader, bystander]
        .map(|position| Writer::start(cluster.client_address(position), format!("w{position}")));
    wait_acknowledged(&writers, &[0, 0]);
    cluster.relays().separate(leader, cut_off);
    // Several election timeouts, in which the one that is cut off tries to be elected.
    std::thread::sleep(Duration::from_secs(3));
    let so_far = [writers[0].acknowledged(), writers[1].acknowledged()];
    wait_acknowledged(&writers, &so_far);
    assert_eq!(term(&cluster), before, "nobody was elected");
    let mut client = cluster.client(cut_off);
    let answer = get(&mut client, "w?timeout=200ms");
    assert!(matches!(answer.status, 204 | 503 | 504), "{answer:?}");

    cluster.relays().heal();
    cluster.wait_all_ready();
    assert_eq!(cluster.leader(), leader);
    for writer in writers {
        let report = writer.stop();
        assert!(report.mishaps.is_empty(), "{:?}", report.mishaps);
        assert_all_there(&mut client, &report.acknowledged);
    }
}

// B12, E2: connections that break and come back cost no error and double nothing.
#[test]
fn links_that_break_all_the_time_cost_no_error() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).relayed());
    let writers: Vec<Writer> = (0..3)
        .map(|position| Writer::start(cluster.client_address(position), format!("b{position}")))
        .collect();
    for round in 0..30 {
        std::thread::sleep(Duration::from_millis(50));
        cluster.relays().break_links(round % 3);
    }
    let so_far: Vec<usize> = writers.iter().map(Writer::acknowledged).collect();
    wait_acknowledged(&writers, &so_far);
    cluster.wait_all_ready();
    for (position, writer) in writers.into_iter().enumerate() {
        let report = writer.stop();
        assert!(report.mishaps.is_empty(), "{:?}", report.mishaps);
        assert_all_there(&mut cluster.client((position + 1) % 3), &report.acknowledged);
    }
}
