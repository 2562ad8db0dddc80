//! Full disks: what still works, what is refused, and for certain.

use std::sync::atomic::Ordering;

use keva::kv::command::{Command, Condition};
use keva::raft::message::Message;
use keva::raft::types::NodeId;
use keva::replica::io::{NotApplied, Outcome, Request};

use crate::cluster::{Cluster, PATIENCE_MS, WRITTEN, is_forward, not_applied, put, write_of};

fn set_full(cluster: &Cluster, ids: &[NodeId], full: bool) {
    for id in ids {
        cluster.replica(*id).raft().storage().faults.full.store(full, Ordering::SeqCst);
    }
}

fn delete(key: &str) -> Request {
    write_of(Command::Delete { key: key.into(), condition: Condition::default() })
}

fn put_typed(key: &str, value: &str, content_type: &str) -> Request {
    write_of(Command::Put {
        key: key.into(),
        value: value.into(),
        content_type: Some(content_type.into()),
        condition: Condition::default(),
        ttl_ms: None,
    })
}

/// F14: with full disks every node refuses what needs more space, at once and for certain; it reads, deletes and
/// replaces values by shorter ones. When space is back, all goes on.
#[test]
fn full_disks_refuse_growth_and_nothing_else() {
    let (mut cluster, leader) = Cluster::with_leader(3, 1);
    let ids = cluster.ids();
    for id in &ids {
        cluster.write(*id, &format!("{id}"), "12345");
        cluster.write(*id, &format!("gone {id}"), "12345");
    }
    cluster.settle();
    // The leader last, so that it has nobody to hand over to.
    set_full(&cluster, &cluster.others(leader), true);
    cluster.run(30);
    set_full(&cluster, &[leader], true);
    cluster.run_until("everybody has heard of it", |cluster| {
        cluster.leader().is_some()
            && cluster.ids().iter().all(|id| cluster.replica(*id).status().leader_is_full)
    });
    for id in ids.clone() {
        assert!(cluster.replica(id).status().is_full);
        let key = format!("{id}");
        for write in [write_of(put("new", "v")), write_of(put(&key, "123456")), put_typed(&key, "12345", "t")]
        {
            let asked_at = cluster.now;
            let refused = cluster.submit(id, write, PATIENCE_MS);
            assert_eq!(cluster.await_reply(refused).outcome, not_applied(NotApplied::DiskFull));
            assert!(cluster.now - asked_at <= 1, "it is said at once");
        }
        for write in [
            write_of(put(&key, "54321")),
            put_typed(&key, "5432", "t"),
            write_of(put(&key, "")),
            delete(&format!("gone {id}")),
            delete("absent"),
        ] {
            let ticket = cluster.submit(id, write, PATIENCE_MS);
            assert_eq!(cluster.await_reply(ticket).outcome, WRITTEN);
        }
        assert_eq!(cluster.read(id, &key), Some(String::new()));
        assert_eq!(cluster.read_stale(id, &format!("gone {id}")), None);
    }
    set_full(&cluster, &ids, false);
    cluster.run(30);
    for id in ids {
        cluster.write(id, "new", "v");
    }
    cluster.settle();
}

/// A follower whose own disk is full could not tell what became of a write, so it takes none that needs space.
#[test]
fn a_full_follower_refuses_growth() {
    let (mut cluster, leader) = Cluster::with_leader(3, 2);
    let follower = cluster.others(leader)[0];
    set_full(&cluster, &[follower], true);
    let refused = cluster.start_write(follower, "k", "v");
    assert_eq!(cluster.await_reply(refused).outcome, not_applied(NotApplied::DiskFull));
    cluster.write(leader, "k", "v");
}

/// A full leader drops what it gets from others, and hands over to a node with space: nothing is lost but time.
#[test]
fn a_full_leader_is_replaced() {
    let (mut cluster, leader) = Cluster::with_leader(3, 3);
    let writer = cluster.others(leader)[0];
    set_full(&cluster, &[leader], true);
    let write = cluster.start_write(writer, "k", "v");
    assert_eq!(cluster.await_reply(write).outcome, WRITTEN);
    assert_ne!(cluster.replica(writer).status().leader, Some(leader));
}

/// Writes that wait at a leader with a full disk are refused for certain if nobody else has seen them. Those that may be
/// in some log are not: their end is awaited.
#[test]
fn waiting_writes_are_refused_only_when_that_is_certain() {
    let (mut cluster, leader) = Cluster::with_leader(3, 4);
    let [writer, other] = cluster.others(leader)[..] else { panic!("three nodes") };
    cluster.settle();
    cluster.lose(move |envelope| {
        is_forward(envelope)
            || (envelope.to == other && matches!(envelope.message, Message::PreVoteResponse { .. }))
    });
    let seen = cluster.submit(writer, write_of(put("seen", "v")), 1_000);
    cluster.run(1);
    cluster.crash(leader);
    let unseen = cluster.start_write(writer, "unseen", "v");
    set_full(&cluster, &[writer, other], true);
    assert_eq!(cluster.await_reply(unseen).outcome, not_applied(NotApplied::DiskFull));
    assert!(cluster.replica(writer).raft().is_leader());
    assert_eq!(cluster.reply(seen), None);
    assert_eq!(cluster.await_reply(seen).outcome, Outcome::OutcomeUnknown);
    set_full(&cluster, &[writer, other], false);
    cluster.write(writer, "next", "v");
    assert_eq!(cluster.read(other, "unseen"), None);
}

/// Disks of the same size fill up together: then nobody hands over to anybody, and what needs no space goes on.
#[test]
fn disks_that_fill_up_together_leave_a_leader() {
    let (mut cluster, leader) = Cluster::with_leader(3, 5);
    cluster.write(leader, "k", "v");
    set_full(&cluster, &cluster.ids(), true);
    cluster.run(500);
    let term = cluster.replica(leader).status().term;
    cluster.run(2_000);
    assert_eq!(cluster.replica(leader).status().term, term);
    for id in cluster.ids() {
        let ticket = cluster.submit(id, delete("k"), PATIENCE_MS);
        assert_eq!(cluster.await_reply(ticket).outcome, WRITTEN);
    }
}
