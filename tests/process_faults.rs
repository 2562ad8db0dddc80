//! Real processes that are killed, asked to stop and paused under load: no acknowledged write is lost, none takes
//! effect twice, and clients of the other nodes notice nothing but a short pause.
//!
//! The limits asserted here are generous, because tests share their machine with other tests. `scripts/bench.sh`
//! measures the same pauses on a quiet machine.

mod support;

use std::time::Duration;

use support::cluster::{Cluster, ClusterOptions, report, wait_for};
use support::failover::{FailoverRound, Farewell, describe, run_round, wait_acknowledged};
use support::http_client::{HttpClient, Request};
use support::workload::{Acknowledged, Mishap, Writer, WriterReport};
use support::workload::{assert_all_there, assert_none_there, write_once};

/// Kills of the leader under load.
const LEADER_KILLS: usize = 50;
/// Leaders asked to stop under load.
const LEADER_TERMINATIONS: usize = 12;
/// Kills of the whole cluster under load.
const CLUSTER_KILLS: usize = 20;
/// Pauses of the leader.
const LEADER_PAUSES: usize = 8;

/// Longest pause for clients when the leader is killed. Shorter than the default election timeout of 3 seconds: a
/// cluster that waits for it, although the leader's process is gone, fails the test.
const KILL_GAP_MAX: Duration = Duration::from_millis(2_500);
/// Longest pause for clients when the leader hands over.
const TERMINATION_GAP_MAX: Duration = Duration::from_millis(1_500);

/// Everything that was promised so far, to be looked at again in the end.
#[derive(Default)]
struct Promises {
    acknowledged: Vec<Acknowledged>,
    refused: Vec<Mishap>,
}

impl Promises {
    fn take(&mut self, client: &mut HttpClient, report: &WriterReport) {
        assert_all_there(client, &report.acknowledged);
        assert_none_there(client, &report.mishaps);
        self.acknowledged.extend_from_slice(&report.acknowledged);
        self.refused.extend_from_slice(&report.mishaps);
    }

    /// Restarts the whole cluster and looks through every node.
    fn check_again(&self, cluster: &mut Cluster) {
        let all: Vec<usize> = (0..cluster.len()).collect();
        cluster.kill_at_once(&all);
        for position in &all {
            cluster.node(*position).start();
        }
        cluster.wait_all_ready();
        for (position, part) in self.acknowledged.chunks(self.acknowledged.len().div_ceil(3)).enumerate() {
            assert_all_there(&mut cluster.client(position), part);
        }
        assert_none_there(&mut cluster.client(0), &self.refused);
    }
}

fn assert_no_wrong_answer(reports: &[WriterReport]) {
    for mishap in reports.iter().flat_map(|report| &report.mishaps) {
        assert!(mishap.kind != support::workload::MishapKind::Wrong, "{mishap}");
    }
}

/// Rounds of leaders that go. Clients of the other nodes must not see a single error.
fn change_leaders(farewell: Farewell, rounds: usize, gap_max: Duration) {
    // Default settings: an election timeout of 3 seconds.
    let mut cluster = Cluster::start(3);
    let mut promises = Promises::default();
    let mut gaps = Vec::new();
    for number in 0..rounds {
        let round: FailoverRound = run_round(&mut cluster, farewell, &format!("round-{number}"));
        let mishaps: Vec<String> = round.bystander_mishaps().map(ToString::to_string).collect();
        assert!(mishaps.is_empty(), "round {number}: clients of the other nodes saw errors: {mishaps:#?}");
        assert_no_wrong_answer(std::slice::from_ref(&round.bereaved));
        let gap = round.longest_gap();
        assert!(gap < gap_max, "round {number}: no write was acknowledged for {gap:?}");
        gaps.push(gap);
        let mut client = cluster.client(number % 3);
        for one in round.bystanders.iter().chain([&round.bereaved]) {
            promises.take(&mut client, one);
        }
    }
    promises.check_again(&mut cluster);
    report(&format!(
        "leader gone by {farewell:?}, {rounds} times, longest pause of a client: {}; {} writes kept",
        describe(gaps),
        promises.acknowledged.len()
    ));
}

// E2, E3, F1, F30
#[test]
fn killed_leader_costs_a_pause_and_no_error() {
    change_leaders(Farewell::Kill, LEADER_KILLS, KILL_GAP_MAX);
}

// G12
#[test]
fn leader_that_is_asked_to_stop_hands_over() {
    change_leaders(Farewell::Terminate, LEADER_TERMINATIONS, TERMINATION_GAP_MAX);
}

// F1, F30
#[test]
fn whole_cluster_killed_under_load_keeps_every_acknowledged_write() {
    let mut cluster = Cluster::start(3);
    let mut promises = Promises::default();
    for number in 0..CLUSTER_KILLS {
        let writers: Vec<Writer> = (0..6)
            .map(|client| Writer::start(cluster.client_address(client % 3), format!("all-{number}/{client}")))
            .collect();
        wait_acknowledged(&writers, &[0; 6]);
        cluster.kill_at_once(&[0, 1, 2]);
        let reports: Vec<WriterReport> = writers.into_iter().map(Writer::stop).collect();
        assert_no_wrong_answer(&reports);
        for position in 0..3 {
            cluster.node(position).start();
        }
        cluster.wait_all_ready();
        let mut client = cluster.client(number % 3);
        for one in &reports {
            promises.take(&mut client, one);
        }
    }
    promises.check_again(&mut cluster);
    report(&format!(
        "whole cluster killed {CLUSTER_KILLS} times: {} writes kept",
        promises.acknowledged.len()
    ));
}

// C8, H3: a leader that slept through its own deposition must not answer from what it remembers.
#[test]
fn paused_leader_answers_no_stale_read() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("0.5"));
    let read = Request::new("GET", "/v1/storage/key/paused", &[], b"");
    let mut fresh_answers = 0;
    for number in 0..LEADER_PAUSES {
        let leader = cluster.leader();
        let others = cluster.others(leader);
        let mut writer = cluster.client(others[0]);
        let old = format!("old {number}");
        write_once(&mut writer, "paused", &old).expect("the cluster is whole");

        // Connections that the leader has accepted, and some that it finds when it wakes up.
        let mut clients: Vec<HttpClient> = (0..8).map(|_| cluster.client(leader)).collect();
        for client in &mut clients[..4] {
            assert_eq!(client.send(&read).expect("an answer").text(), old);
        }
        cluster.node(leader).pause();
        cluster.wait_leader(&others);
        let new = format!("new {number}");
        let revision =
            wait_for("a write without the old leader", || write_once(&mut writer, "paused", &new).ok());
        // Asked after the new value was acknowledged, answered by the deposed leader as soon as it wakes up.
        for client in &mut clients {
            client.start(&read).expect("the kernel takes the request for the paused process");
        }
        cluster.node(leader).resume();
        for client in &mut clients {
            let answer = client.finish(&read).expect("an answer");
            match answer.status {
                200 => {
                    assert_eq!(answer.text(), new, "round {number}: stale read, {answer:?}");
                    assert_eq!(answer.etag(), Some(revision));
                    fresh_answers += 1;
                }
                503 | 504 => {}
                _ => panic!("unexpected answer: {answer:?}"),
            }
        }
        cluster.wait_all_ready();
    }
    assert!(fresh_answers > 0, "a leader that wakes up can ask the new one; not one read was answered");
    report(&format!(
        "leader paused {LEADER_PAUSES} times: {fresh_answers} of {} reads answered",
        8 * LEADER_PAUSES
    ));
}

// A10, B26: a follower that sleeps is not missed.
#[test]
fn paused_follower_is_not_missed() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let others = cluster.others(leader);
    cluster.node(others[0]).pause();
    let writers = [leader, others[1]]
        .map(|position| Writer::start(cluster.client_address(position), format!("p{position}")));
    wait_acknowledged(&writers, &[0, 0]);
    cluster.node(others[0]).resume();
    let so_far = [writers[0].acknowledged(), writers[1].acknowledged()];
    wait_acknowledged(&writers, &so_far);
    let mut client = cluster.client(others[0]);
    for writer in writers {
        let report = writer.stop();
        assert!(report.mishaps.is_empty(), "{:?}", report.mishaps);
        assert!(report.longest_gap() < Duration::from_secs(2), "{:?}", report.longest_gap());
        // The one that slept has everything.
        assert_all_there(&mut client, &report.acknowledged);
    }
    assert_eq!(cluster.leader(), leader, "nobody had a reason to elect another leader");
}
