//! Bounds: refused early, certainly and cheaply, and back to nothing afterwards.

use keva::kv::command::Write;
use keva::kv::payload::Payload;
use keva::limits::{
    APPLY_BYTES_PER_TURN_MAX, FORWARD_BYTES_MAX, HISTORY_BYTES_DEFAULT, READS_IN_FLIGHT_MAX,
    UNCOMMITTED_BYTES_MAX, WRITES_IN_FLIGHT_BYTES_MAX, WRITES_IN_FLIGHT_MAX,
};
use keva::raft::entry::{Entry, EntryKind, encode_entry};
use keva::raft::message::{Envelope, Message};
use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Incarnation, Index, Term};
use keva::replica::io::{Consistency, InFlight, NotApplied, Outcome, Request};
use keva::replica::replica::{Replica, ReplicaConfig};
use keva::util::time::{LogicalTime, Millis};

use crate::cluster::{Cluster, ELECTION_TIMEOUT_MS, WRITTEN, node, not_applied, put, read_of, write_of};
use crate::support::memory_storage::MemoryStorage;

/// A follower that has lost the leader, and the rest of the cluster.
fn cut_off(seed: u64) -> (Cluster, keva::raft::types::NodeId) {
    let (mut cluster, leader) = Cluster::with_leader(3, seed);
    let id = cluster.others(leader)[0];
    cluster.isolate(id);
    cluster.run_until("it knows no leader", |cluster| cluster.replica(id).status().leader.is_none());
    (cluster, id)
}

/// I2, I8: too many writes are refused at once; when a leader is back the others succeed and nothing is left over.
#[test]
fn too_many_writes_are_refused() {
    let (mut cluster, id) = cut_off(1);
    let taken: Vec<_> = (0..WRITES_IN_FLIGHT_MAX).map(|_| cluster.start_write(id, "k", "v")).collect();
    let refused = cluster.start_write(id, "refused", "v");
    cluster.run(1);
    assert_eq!(
        cluster.reply(refused).map(|reply| &reply.outcome),
        Some(&not_applied(NotApplied::Overloaded))
    );
    assert_eq!(cluster.replies.len(), 1);
    cluster.heal();
    for ticket in taken {
        assert_eq!(cluster.await_reply(ticket).outcome, WRITTEN);
    }
    assert_eq!(cluster.read(id, "refused"), None);
    cluster.settle();
}

/// I1, I2: the bytes count too, and come back when the writes end, however they end.
/// Covers: S44
#[test]
fn too_many_bytes_are_refused() {
    let (mut cluster, id) = cut_off(2);
    let value = "v".repeat(WRITES_IN_FLIGHT_BYTES_MAX / 4);
    let large = |patience| (write_of(put("large", &value)), patience);
    let mut taken = Vec::new();
    for patience in [5, 5, 10_000] {
        let (write, patience) = large(patience);
        taken.push(cluster.submit(id, write, patience));
    }
    let (write, _) = large(0);
    let refused = cluster.submit(id, write, 5);
    let small = cluster.submit(id, write_of(put("small", "v")), 5);
    assert_eq!(cluster.replica(id).in_flight().writes, 4);
    // The value alone would just fit.
    let rest = WRITES_IN_FLIGHT_BYTES_MAX - cluster.replica(id).in_flight().write_bytes;
    let tight = cluster.submit(id, write_of(put("tight", &value[..rest])), 5);
    cluster.run(1);
    assert_eq!(cluster.reply(tight).map(|reply| &reply.outcome), Some(&not_applied(NotApplied::Overloaded)));
    assert_eq!(
        cluster.reply(refused).map(|reply| &reply.outcome),
        Some(&not_applied(NotApplied::Overloaded))
    );
    assert_eq!(cluster.reply(small), None, "there is room for a small one");
    cluster.run(5);
    assert_eq!(cluster.replica(id).in_flight().writes, 1);
    let (write, patience) = large(10_000);
    taken.push(cluster.submit(id, write, patience));
    cluster.cancel(id, taken[2]);
    cluster.heal();
    assert_eq!(cluster.await_reply(taken[3]).outcome, WRITTEN);
    cluster.settle();
    assert_eq!(cluster.replica(id).in_flight(), InFlight::default());
}

/// I8, C14
#[test]
fn too_many_reads_are_refused() {
    let (mut cluster, id) = cut_off(3);
    let taken: Vec<_> = (0..READS_IN_FLIGHT_MAX)
        .map(|n| match n % 2 {
            0 => cluster.start_read(id, "k"),
            _ => cluster.submit(id, Request::Barrier, 5_000),
        })
        .collect();
    let refused = [cluster.start_read(id, "k"), cluster.submit(id, Request::Barrier, 5_000)];
    let stale = cluster.submit(id, read_of("k", Consistency::Stale), 0);
    cluster.run(1);
    for ticket in refused {
        assert_eq!(
            cluster.reply(ticket).map(|reply| &reply.outcome),
            Some(&not_applied(NotApplied::Overloaded))
        );
    }
    assert_eq!(cluster.reply(stale).map(|reply| &reply.outcome), Some(&Outcome::Value(None)));
    cluster.heal();
    for ticket in taken {
        assert!(matches!(cluster.await_reply(ticket).outcome, Outcome::Value(None) | Outcome::Reached));
    }
    cluster.settle();
}

/// I1, I2: a leader appends only so much that is not committed, own and others' writes; the rest waits its turn.
/// Covers: S44
#[test]
fn uncommitted_bytes_are_bounded() {
    let (mut cluster, leader) = Cluster::with_leader(3, 5);
    cluster.lose(|envelope| matches!(envelope.message, Message::AppendEntriesResponse { .. }));
    let value = "v".repeat(WRITES_IN_FLIGHT_BYTES_MAX / 2 - 1_000);
    for id in cluster.ids() {
        for n in 0..2 {
            cluster.start_write(id, &format!("{n} {id}"), &value);
        }
    }
    cluster.run(10);
    let in_flight = cluster.replica(leader).in_flight();
    assert!(in_flight.uncommitted_bytes <= UNCOMMITTED_BYTES_MAX, "{in_flight:?}");
    assert!(in_flight.uncommitted_bytes + value.len() > UNCOMMITTED_BYTES_MAX, "{in_flight:?}");
    assert!(in_flight.held_bytes > 0, "{in_flight:?}");
}

/// Many or large writes are forwarded in messages of bounded size, one write at least in each.
#[test]
fn forwards_are_bounded() {
    let (mut cluster, leader) = Cluster::with_leader(3, 6);
    let writer = cluster.others(leader)[0];
    let sizes =
        [FORWARD_BYTES_MAX / 3, FORWARD_BYTES_MAX / 3, 10, FORWARD_BYTES_MAX / 2, 2 * FORWARD_BYTES_MAX, 10];
    let values = sizes.map(|size| "v".repeat(size));
    let writes: Vec<_> = values.iter().map(|value| cluster.start_write(writer, "k", value)).collect();
    for write in writes {
        assert_eq!(cluster.await_reply(write).outcome, WRITTEN);
    }
    let payloads = |envelope: &Envelope| match &envelope.message {
        Message::Forward { payloads } => Some(payloads.len()),
        _ => None,
    };
    let counts: Vec<usize> = cluster.sent.iter().filter_map(payloads).collect();
    assert_eq!(counts, [3, 1, 1, 1]);
}

/// A replica of a one-node cluster whose log holds these payloads, all known to be committed.
pub(crate) fn restarted_on(payloads: &[Vec<u8>]) -> Replica<MemoryStorage> {
    let mut storage = MemoryStorage::default();
    for (payload, index) in payloads.iter().zip(1..) {
        let mut bytes = Vec::new();
        encode_entry(EntryId::new(Term(1), Index(index)), EntryKind::Command, payload, &mut bytes);
        storage.append(Entry::decode(&bytes).expect("just encoded")).expect("memory works");
    }
    let commit_index = Index(payloads.len() as u64);
    storage.set_hard_state(HardState { term: Term(1), vote: None, commit_index }).expect("memory works");
    storage.sync().expect("memory works");
    let config = ReplicaConfig {
        id: node(1),
        incarnation: Incarnation(2),
        voters: vec![node(1), node(2)],
        election_timeout_ms: ELECTION_TIMEOUT_MS,
        heartbeat_interval_ms: 10,
        seed: 1,
        snapshot_log_bytes: u64::MAX,
        history_bytes: HISTORY_BYTES_DEFAULT,
        keys_per_turn: 1,
    };
    Replica::new(config, storage, Millis(0)).expect("a good disk")
}

pub(crate) fn payload_of(seq: u64, write: Write) -> Vec<u8> {
    let id = keva::kv::session::WriteId { origin: node(1), incarnation: Incarnation(1), seq };
    Payload { id, time: LogicalTime(seq), write }.encode()
}

fn payload(seq: u64, key: &str, value: &str) -> Vec<u8> {
    payload_of(seq, put(key, value).into())
}

/// B18: a long log is applied in portions, one a turn, with nothing left out, and without waiting for anything.
/// Covers: B18 S52
#[test]
fn a_long_log_is_applied_in_portions() {
    let value = "v".repeat(APPLY_BYTES_PER_TURN_MAX / 4 + 1);
    let payloads: Vec<_> = (1..=10).map(|seq| payload(seq, &format!("k{seq}"), &value)).collect();
    let mut replica = restarted_on(&payloads);
    let mut applied = Vec::new();
    while replica.next_deadline() == Millis(0) {
        assert!(replica.sync(Millis(0)).expect("memory works").replies.is_empty());
        applied.push(replica.status().applied_index.0);
    }
    assert_eq!(applied, [4, 8, 10]);
    assert_eq!(replica.status().keys, 10);
}

/// One entry is applied, however large.
#[test]
fn an_entry_beyond_the_portion_is_applied() {
    let large = "v".repeat(2 * APPLY_BYTES_PER_TURN_MAX);
    let mut replica = restarted_on(&[payload(1, "a", &large), payload(2, "b", &large)]);
    let _ = replica.sync(Millis(0)).expect("memory works");
    assert_eq!(replica.status().applied_index, Index(1));
    let _ = replica.sync(Millis(0)).expect("memory works");
    assert_eq!(replica.status().applied_index, Index(2));
}

/// A committed entry that this version cannot read stops the node: leaving it out would make its state another one.
#[test]
fn an_unknown_committed_command_stops_the_node() {
    let mut newer = payload(2, "k", "v");
    newer[32] = 9;
    let mut replica = restarted_on(&[payload(1, "k", "v"), newer]);
    let error = replica.sync(Millis(0)).expect_err("it cannot go on");
    assert!(matches!(error, StorageError::Refused(_)));
    let text = error.to_string();
    assert!(
        text.contains("2@1") && text.contains("version 9") && text.contains("Upgrade this node"),
        "{text}"
    );
}
