//! Snapshots of real processes on real disks, while clients read and write.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::cluster::{Cluster, ClusterOptions, report, wait_for};
use support::http_client::HttpClient;

const MIB: usize = 1 << 20;
const KEYS: usize = 96;
/// The nodes' election timeout.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

fn cluster_text(client: &mut HttpClient) -> String {
    let answer = client.request("GET", "/v1/cluster", &[], b"").expect("an answer");
    answer.text()
}

/// The number behind the first `name` in a text.
fn number(text: &str, name: &str) -> Option<u64> {
    let behind = &text[text.find(name)? + name.len()..];
    let digits = behind.trim_start_matches(|byte: char| !byte.is_ascii_digit());
    digits.split(|byte: char| !byte.is_ascii_digit()).next()?.parse().ok()
}

fn snapshot_index(client: &mut HttpClient) -> u64 {
    let text = cluster_text(client);
    text.find("\"snapshot\": {").and_then(|at| number(&text[at..], "\"index\"")).unwrap_or(0)
}

/// Reads that need nobody else, one after the other, until it is told to stop. Returns how long each took.
fn read_all_the_time(mut client: HttpClient, is_over: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let start = Instant::now();
        let target = "/v1/storage/key/small?consistency=stale";
        let answer = client.request("GET", target, &[], b"").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        times.push(start.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    times.sort_unstable();
    times
}

// D17, D8: snapshots of much data hold nobody up. Reads of a node that takes them are answered all the time, and no election
// timer runs out.
#[test]
fn snapshots_hold_nobody_up() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("1"));
    let leader = cluster.leader();
    let mut client = cluster.client(leader);
    let put = |client: &mut HttpClient, key: &str, value: &[u8]| {
        let answer = client.request("PUT", &format!("/v1/storage/key/{key}"), &[], value).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    put(&mut client, "small", b"v");
    let term = number(&cluster_text(&mut client), "\"term\"").expect("a term");
    for key in 0..KEYS {
        put(&mut client, &format!("k{key}"), &vec![b'a'; MIB]);
    }
    let before = snapshot_index(&mut client);

    let is_over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (client, is_over) = (cluster.client(leader), Arc::clone(&is_over));
        std::thread::spawn(move || read_all_the_time(client, &is_over))
    };
    // So much that a snapshot of everything is due, and then nothing, until it is there.
    for key in 0..KEYS / 2 {
        put(&mut client, &format!("k{key}"), &vec![b'b'; MIB]);
    }
    wait_for("a snapshot of everything", || (snapshot_index(&mut client) > before).then_some(()));
    is_over.store(true, Ordering::SeqCst);
    let times = reader.join().expect("reads are answered");

    let (longest, all_but_few) = (times[times.len() - 1], times[times.len() * 99 / 100]);
    report(&format!(
        "snapshots of {KEYS} MiB: {} reads meanwhile, 99 % within {all_but_few:?}, the longest {longest:?}",
        times.len()
    ));
    assert!(longest < ELECTION_TIMEOUT / 2, "a read took {longest:?}");
    for node in 0..cluster.len() {
        let now = number(&cluster_text(&mut cluster.client(node)), "\"term\"");
        assert_eq!(now, Some(term), "an election was held");
    }
    assert_eq!(cluster.leader(), leader);
}
