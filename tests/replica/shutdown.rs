//! A clean stop: the office is handed over, and nobody's request fails for it.

use keva::raft::message::Message;
use keva::raft::storage::Storage;
use keva::replica::io::{NotApplied, Outcome};

use crate::cluster::{Cluster, ELECTION_TIMEOUT_MS, WRITTEN, not_applied};

/// Every request that was taken before the stop is answered well, on all nodes, and so is every later one elsewhere.
#[test]
fn a_leader_stops_without_failing_a_request() {
    for seed in 0..10 {
        let (mut cluster, leader) = Cluster::with_leader(3, 100 + seed);
        let mut writes = Vec::new();
        let mut reads = Vec::new();
        for n in 0..100 {
            if n == 20 {
                let now = cluster.clock(leader);
                cluster.replica_mut(leader).start_shutdown(now);
            }
            for id in cluster.ids() {
                if n < 20 || id != leader {
                    writes.push(cluster.start_write(id, &format!("{n} {id}"), "v"));
                    reads.push(cluster.start_read(id, "k"));
                }
            }
            cluster.run(1);
        }
        cluster.run_until("the old leader is done", |cluster| cluster.replica(leader).is_shut_down());
        assert!(!cluster.replica(leader).raft().is_leader(), "seed {seed}");
        cluster.replica_mut(leader).close().expect("memory works");
        let status = cluster.replica(leader).status();
        assert_eq!(cluster.replica(leader).raft().storage().hard_state().commit_index, status.commit_index);
        cluster.crash(leader);
        for write in writes {
            assert_eq!(cluster.await_reply(write).outcome, WRITTEN, "seed {seed}");
        }
        for read in reads {
            assert_eq!(cluster.await_reply(read).outcome, Outcome::Value(None), "seed {seed}");
        }
    }
}

#[test]
fn a_stopping_node_takes_no_more_requests() {
    let (mut cluster, leader) = Cluster::with_leader(3, 1);
    let follower = cluster.others(leader)[0];
    let early = cluster.start_write(follower, "early", "v");
    let now = cluster.clock(follower);
    cluster.replica_mut(follower).start_shutdown(now);
    assert!(!cluster.replica(follower).is_shut_down(), "a client waits");
    let late = [cluster.start_write(follower, "late", "v"), cluster.start_read(follower, "early")];
    for ticket in late {
        assert_eq!(cluster.await_reply(ticket).outcome, not_applied(NotApplied::Stopping));
    }
    assert_eq!(cluster.await_reply(early).outcome, WRITTEN);
    cluster.run(1);
    assert!(cluster.replica(follower).is_shut_down());
    assert_eq!(cluster.read(leader, "late"), None);
}

/// A leader that cannot hand over does not hang, and meanwhile holds other nodes' writes back instead of losing them.
#[test]
fn a_failed_hand_over_ends() {
    let (mut cluster, leader) = Cluster::with_leader(3, 2);
    let follower = cluster.others(leader)[0];
    cluster.lose(|envelope| matches!(envelope.message, Message::TimeoutNow));
    let now = cluster.clock(leader);
    cluster.replica_mut(leader).start_shutdown(now);
    cluster.run(2);
    assert!(!cluster.replica(leader).is_shut_down(), "the hand-over is on its way");
    let write = cluster.start_write(follower, "k", "v");
    cluster.run(10);
    assert_eq!(cluster.reply(write), None);
    assert!(cluster.replica(leader).in_flight().held_bytes > 0, "held back by the leader");
    cluster.run(ELECTION_TIMEOUT_MS);
    assert!(cluster.replica(leader).raft().is_leader());
    assert_eq!(cluster.reply(write).map(|reply| &reply.outcome), Some(&WRITTEN));
    assert!(cluster.replica(leader).is_shut_down(), "it was tried; there is nothing more to wait for");
}

#[test]
fn one_node_alone_stops_at_once() {
    let (mut cluster, leader) = Cluster::with_leader(1, 3);
    cluster.write(leader, "k", "v");
    let now = cluster.clock(leader);
    assert!(!cluster.replica(leader).is_shut_down());
    cluster.replica_mut(leader).start_shutdown(now);
    assert!(cluster.replica(leader).is_shut_down());
    cluster.replica_mut(leader).close().expect("memory works");
    cluster.crash(leader);
    cluster.start(leader);
    // What is known to be committed is there before any election.
    cluster.run(1);
    assert_eq!(cluster.read_stale(leader, "k"), Some("v".into()));
}

/// A node that becomes leader while it stops hands over again.
#[test]
fn a_stopping_node_does_not_keep_an_office_it_wins() {
    let (mut cluster, leader) = Cluster::with_leader(3, 4);
    let [stopping, other] = cluster.others(leader)[..] else { panic!("three nodes") };
    let now = cluster.clock(stopping);
    cluster.replica_mut(stopping).start_shutdown(now);
    // The other one cannot win by itself.
    cluster.lose(move |envelope| {
        envelope.to == other && matches!(envelope.message, Message::PreVoteResponse { .. })
    });
    cluster.crash(leader);
    cluster.run_until("another one leads", |cluster| cluster.replica(stopping).raft().is_leader());
    assert!(!cluster.replica(stopping).is_shut_down());
    cluster.run_until("the stopping node is done", |cluster| cluster.replica(stopping).is_shut_down());
    cluster.run(ELECTION_TIMEOUT_MS);
    assert_eq!(cluster.leader(), Some(other));
}
