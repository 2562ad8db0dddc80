//! Snapshots in whole replicas: when they are taken, what a node that starts from one can do, and nodes that get the
//! leader's.

use std::collections::BTreeSet;

use keva::kv::command::{Command, Condition, Matcher};
use keva::kv::store::Store;
use keva::limits::{HISTORY_BYTES_DEFAULT, SNAPSHOT_BYTES_PER_LOG_BYTE, SNAPSHOT_SLICE_BYTES};
use keva::raft::message::{Envelope, Message};
use keva::raft::storage::Storage;
use keva::raft::types::{EntryId, HardState, Incarnation, Index, NodeId, Term};
use keva::replica::io::{Applied, Housekeeping, Outcome};
use keva::replica::replica::{Replica, ReplicaConfig};
use keva::util::rng::Rng;
use keva::util::time::Millis;

use crate::cluster::{Cluster, PATIENCE_MS, WRITTEN, condition_failed, is_forward, node, put, write_of};
use crate::support::memory_storage::MemoryStorage;

pub(crate) const LOG_BYTES: u64 = 4_000;

/// Writes keys of about 100 bytes each.
pub(crate) fn write_many(cluster: &mut Cluster, id: NodeId, numbers: std::ops::Range<u64>) {
    let value = "v".repeat(80);
    let writes: Vec<_> =
        numbers.map(|n| cluster.start_write(id, &format!("k{}", n % 40), &format!("{n} {value}"))).collect();
    for write in writes {
        assert_eq!(cluster.await_reply(write).outcome, WRITTEN);
    }
}

pub(crate) fn snapshot_index(cluster: &Cluster, id: NodeId) -> Index {
    cluster.replica(id).status().snapshot.map_or(Index(0), |snapshot| snapshot.last.index)
}

fn log_bytes(cluster: &Cluster, id: NodeId) -> u64 {
    cluster.replica(id).raft().storage().log_bytes()
}

fn is_install(envelope: &Envelope) -> bool {
    matches!(envelope.message, Message::InstallSnapshot { .. })
}

/// D15, I7: under load the log stays bounded on every node, and also when one of them is gone.
#[test]
fn the_log_stays_short() {
    let (mut cluster, leader) = Cluster::with_snapshots(3, 1, LOG_BYTES, 300);
    let gone = cluster.others(leader)[0];
    for round in 0..30 {
        if round == 15 {
            cluster.crash(gone);
        }
        write_many(&mut cluster, leader, 10 * round..10 * round + 10);
        cluster.run(10);
        for id in cluster.up() {
            let (log, data) = (log_bytes(&cluster, id), cluster.replica(id).store().snapshot_bytes());
            assert!(log < 2 * LOG_BYTES + data, "{log} bytes of log for {data} bytes of data on {id}");
        }
    }
    for id in cluster.up() {
        assert!(cluster.replica(id).status().log_start.index > Index(200), "{id} has removed what it may");
    }
}

/// D16, D12, D13: many lives on one disk, each from a snapshot and what is left of the log. The applied index never goes
/// back, and nothing is lost, whatever was going on when the process ended.
#[test]
fn restarts_lose_nothing() {
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let (mut cluster, _) = Cluster::with_snapshots(1, seed, LOG_BYTES / 4, 500);
        let mut applied = Index(0);
        for life in 0..12 {
            write_many(&mut cluster, node(1), 20 * life..20 * life + rng.range(1, 20));
            cluster.run(rng.range(0, 20));
            let before = cluster.replica(node(1)).store().clone();
            assert!(before.applied_index() > applied);
            applied = before.applied_index();
            cluster.end(node(1));
            cluster.start(node(1));
            let restored = cluster.replica(node(1)).store();
            assert_eq!(restored.applied_index(), snapshot_index(&cluster, node(1)));
            cluster.await_leader();
            cluster.settle();
            let after = cluster.replica(node(1)).store();
            assert!(after.applied_index() >= applied, "life {life}");
            for n in 0..40 {
                let key = format!("k{n}");
                assert_eq!(after.get(&key), before.get(&key), "life {life}, {key}");
            }
            assert_eq!(after.key_count(), before.key_count());
        }
        assert!(snapshot_index(&cluster, node(1)) > Index(20), "the test is about snapshots");
    }
}

/// D12: everything that a state holds does its duty after a start from a snapshot alone.
#[test]
fn a_node_starts_from_a_snapshot_alone() {
    let (mut cluster, leader) = Cluster::with_snapshots(3, 2, u64::MAX, 1_000);
    let writer = cluster.others(leader)[0];
    let revision = cluster.write(writer, "k", "v");
    let sent = cluster.sent.iter().find(|envelope| is_forward(envelope)).cloned().expect("it was forwarded");
    cluster.write(leader, "gone", "v");
    let delete = Command::Delete { key: "gone".into(), condition: Default::default() };
    let delete = cluster.submit(leader, write_of(delete), PATIENCE_MS);
    assert_eq!(cluster.await_reply(delete).outcome, WRITTEN);
    cluster.settle();
    let state = cluster.replica(leader).store().clone();
    let disks: Vec<MemoryStorage> = cluster
        .ids()
        .into_iter()
        .map(|id| {
            let (mut state, status) = (state.clone(), cluster.replica(id).status());
            let last = EntryId::new(status.term, status.last_index);
            state.begin_snapshot();
            let mut bytes = Vec::new();
            assert!(state.write_snapshot(&mut bytes, usize::MAX));
            let hard_state = cluster.replica(id).raft().storage().hard_state();
            let mut disk = MemoryStorage::with_snapshot(last, &bytes);
            disk.set_hard_state(hard_state).expect("memory works");
            disk.sync().expect("memory works");
            disk
        })
        .collect();
    let mut cluster = Cluster::of(disks, 3);
    cluster.start_all();
    for id in cluster.ids() {
        assert_eq!(cluster.replica(id).store(), &state);
        assert_eq!(cluster.read_stale(id, "k"), Some("v".into()));
    }
    let leader = cluster.await_leader();
    // The session: the write comes again, from a link of long ago.
    let entries = cluster.replica(leader).status().last_index;
    cluster.inject(Envelope { to: leader, ..sent });
    cluster.run(20);
    assert_eq!(cluster.replica(leader).status().last_index, entries, "it was known");
    // The revision, and the key that is gone.
    for (key, list, outcome) in [
        ("k", vec![Index(1)], condition_failed(Some(revision))),
        ("k", vec![revision], WRITTEN),
        ("gone", vec![revision], condition_failed(None)),
    ] {
        let if_match = Some(Matcher::Revisions(list));
        let condition = Condition { if_match, if_none_match: None };
        let command = Command::Put {
            key: key.into(),
            value: b"next".to_vec(),
            content_type: None,
            condition,
            ttl_ms: None,
        };
        let write = cluster.submit(writer, write_of(command), PATIENCE_MS);
        assert_eq!(cluster.await_reply(write).outcome, outcome);
    }
    for id in cluster.ids() {
        assert_eq!(cluster.read(id, "k"), Some("next".into()));
        assert_eq!(cluster.read(id, "gone"), None);
    }
    cluster.settle();
}

/// E4: a node that takes over the leader's snapshot cannot learn what became of its writes that are in it, and says so
/// at once; others go on waiting, and so do reads.
#[test]
fn writes_under_an_installed_snapshot_are_unknown() {
    let (mut cluster, leader) = Cluster::with_snapshots(3, 4, LOG_BYTES, 500);
    let writer = cluster.others(leader)[0];
    cluster.settle();
    // What the writer sends arrives; what it would hear does not.
    cluster.lose(move |envelope| envelope.to == writer);
    let covered = cluster.start_write(writer, "covered", "v");
    cluster.run_until("it is committed", |cluster| cluster.replica(leader).store().get("covered").is_some());
    cluster.run_until("the writer misses its leader", |cluster| {
        cluster.replica(writer).status().leader.is_none()
    });
    let later = cluster.start_write(writer, "later", "v");
    let read = cluster.start_read(writer, "covered");
    let before = cluster.replica(writer).status().last_index;
    let mut n = 0;
    while cluster.replica(leader).status().log_start.index <= before {
        write_many(&mut cluster, leader, n..n + 10);
        n += 10;
    }
    assert_eq!(cluster.reply(covered), None);
    let asked_at = cluster.now;
    cluster.heal();
    cluster.connect(leader, writer);
    assert_eq!(cluster.await_reply(covered).outcome, Outcome::OutcomeUnknown);
    assert!(cluster.now - asked_at < PATIENCE_MS / 10, "it was said at once");
    assert!(cluster.sent.iter().any(is_install), "the test is about an installed snapshot");
    assert_eq!(cluster.await_reply(later).outcome, WRITTEN);
    assert!(matches!(cluster.await_reply(read).outcome, Outcome::Value(Some(_))));
    let revision = cluster.replica(writer).store().get("covered").map(|item| item.revision);
    assert_eq!(revision, cluster.replica(leader).store().get("covered").map(|item| item.revision));
    cluster.settle();
}

/// D8, I11: a node that was away gets the snapshot and the rest while writes go on; what it made itself gives way.
#[test]
fn a_lagging_node_catches_up_under_load() {
    for seed in 0..10 {
        let (mut cluster, leader) = Cluster::with_snapshots(3, 100 + seed, LOG_BYTES, 200);
        let late = cluster.others(leader)[0];
        write_many(&mut cluster, leader, 0..50);
        cluster.run_until("it takes a snapshot of its own", |cluster| {
            cluster.replica(late).status().snapshot_draft.is_some()
        });
        let own = snapshot_index(&cluster, late);
        cluster.isolate(late);
        let before = cluster.replica(late).status().last_index;
        // Its own snapshot does not get anywhere meanwhile.
        cluster.pause(late);
        let mut n = 50;
        while cluster.replica(leader).status().log_start.index <= before {
            write_many(&mut cluster, leader, n..n + 10);
            n += 10;
        }
        cluster.heal();
        assert_eq!(snapshot_index(&cluster, late), own);
        for _ in 0..20 {
            cluster.start_write(leader, "load", &n.to_string());
            n += 1;
            cluster.run(1);
        }
        cluster.settle();
        assert!(cluster.sent.iter().any(is_install), "the test is about an installed snapshot");
        assert!(snapshot_index(&cluster, late) > before);
        // It goes on taking its own: equal ones, as the cluster checks.
        let installed = snapshot_index(&cluster, late);
        write_many(&mut cluster, leader, 0..80);
        cluster.run(200);
        assert!(snapshot_index(&cluster, late) > installed);
        cluster.crash(late);
        cluster.start(late);
        cluster.await_leader();
        assert_eq!(cluster.read(late, "load"), Some((n - 1).to_string()));
        cluster.settle();
    }
}

/// D7, D15: a node that needs a snapshot gets there over a link that is not much faster than the writes come in: the leader
/// takes no newer snapshot as long as it is on its way, and until what follows it is sent, too. A slower link does not keep
/// the leader from taking snapshots for long.
#[test]
fn a_slow_link_is_fast_enough() {
    const RATE: u64 = 20_000;
    for (writes_per_ms, gets_there) in [(RATE * 4 / 7, true), (RATE, false)] {
        let (mut cluster, leader) = Cluster::with_snapshots(3, 11, 200_000, 1 << 20);
        let late = cluster.others(leader)[0];
        cluster.isolate(late);
        let value = "v".repeat(100_000);
        let (mut written, mut number, mut log_max, mut newest) = (0, 0, 0, BTreeSet::new());
        let mut load = |cluster: &mut Cluster, millis: u64, log_max: &mut u64| {
            for _ in 0..millis {
                written += writes_per_ms;
                while written >= 100_000 {
                    written -= 100_000;
                    number += 1;
                    let key = format!("k{}", number % 40);
                    cluster.start_write(leader, &key, &value);
                }
                cluster.run(1);
                *log_max = log_bytes(cluster, leader).max(*log_max);
            }
        };
        let before = cluster.replica(late).status().last_index;
        let is_full_size = |cluster: &Cluster| {
            let status = cluster.replica(leader).status();
            status.log_start.index > before && status.snapshot.is_some_and(|it| it.bytes > 4_000_000)
        };
        while !is_full_size(&cluster) {
            load(&mut cluster, 1, &mut 0);
        }
        cluster.heal();
        cluster.narrow(leader, late, RATE);
        let mut is_up_to_date = false;
        for _ in 0..100 {
            load(&mut cluster, 10, &mut log_max);
            newest.insert(snapshot_index(&cluster, late));
            let applied = |id| cluster.replica(id).store().applied_index().0;
            is_up_to_date = applied(late) + 3 >= applied(leader);
            if is_up_to_date {
                break;
            }
        }
        let data = cluster.replica(leader).store().snapshot_bytes();
        assert_eq!(is_up_to_date, gets_there, "{writes_per_ms} a millisecond, got {newest:?}");
        assert!(log_max <= data / 8 * 7, "{log_max} bytes of log for {data} bytes of data");
        assert_eq!(cluster.await_leader(), leader, "the test is about one leadership");
    }
}

/// D13: random writes, crashes and slices on all nodes; the cluster compares states and snapshots at every step.
#[test]
fn snapshots_are_equal_whatever_the_slices() {
    for seed in 0..15 {
        let mut rng = Rng::new(seed);
        let (mut cluster, _) = Cluster::with_snapshots(3, 200 + seed, LOG_BYTES / 4, 100);
        for _ in 0..120 {
            cluster.house = Some(rng.range(1, 400) as usize);
            let ids = cluster.up();
            let id = ids[rng.range(0, ids.len() as u64) as usize];
            let key = format!("k{}", rng.range(0, 30));
            if rng.range(0, 4) == 0 {
                let command = Command::Delete { key, condition: Default::default() };
                cluster.submit(id, write_of(command), PATIENCE_MS);
            } else {
                let value = "v".repeat(rng.range(0, 150) as usize);
                cluster.submit(id, write_of(put(&key, &value)), PATIENCE_MS);
            }
            cluster.run(rng.range(0, 4));
            if rng.range(0, 40) == 0 {
                cluster.crash(id);
                cluster.run(rng.range(0, 200));
                cluster.start(id);
            }
        }
        cluster.await_leader();
        cluster.settle();
        for id in cluster.ids() {
            assert!(snapshot_index(&cluster, id) > Index(0), "the test is about snapshots");
        }
    }
}

// ---- slices and debts ---------------------------------------------------------------------------

/// D17: a slice writes what it may and one item at most.
#[test]
fn a_slice_is_bounded() {
    let (mut cluster, _) = Cluster::with_snapshots(1, 5, 3_000, 1);
    cluster.house = None;
    write_many(&mut cluster, node(1), 0..40);
    let item = 16 + 3 + 83;
    let mut written = 0;
    loop {
        assert_eq!(cluster.replica_mut(node(1)).keep_house(500).expect("memory works"), Housekeeping::More);
        let status = cluster.replica(node(1)).status();
        let Some(draft) = status.snapshot_draft else { break };
        assert!(draft.written <= written + 500 + item + 8, "{} behind {written}", draft.written);
        assert!(draft.written > written || draft.written == draft.bytes);
        written = draft.written;
    }
    assert!(written > 4_000);
    assert_eq!(cluster.replica_mut(node(1)).keep_house(500).expect("memory works"), Housekeeping::Done);
}

/// D17: an item that is larger than a slice is written in several.
#[test]
fn a_large_item_is_written_in_slices() {
    let (mut cluster, _) = Cluster::with_snapshots(1, 5, 3_000, 1);
    cluster.house = None;
    let value = "v".repeat(5 * SNAPSHOT_SLICE_BYTES);
    let write = cluster.start_write(node(1), "large", &value);
    assert_eq!(cluster.await_reply(write).outcome, Outcome::Applied(Applied::Written));
    let mut written = Vec::new();
    loop {
        let left = cluster.replica_mut(node(1)).keep_house(SNAPSHOT_SLICE_BYTES).expect("memory works");
        assert_eq!(left, Housekeeping::More);
        let Some(draft) = cluster.replica(node(1)).status().snapshot_draft else { break };
        written.push(draft.written);
    }
    let longest = written.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(written[0] <= SNAPSHOT_SLICE_BYTES as u64 && written.len() >= 5, "{written:?}");
    assert!(longest <= Some(SNAPSHOT_SLICE_BYTES as u64), "{written:?}");
    assert_eq!(
        cluster.replica(node(1)).status().snapshot.map(|snapshot| snapshot.last.index),
        Some(Index(2))
    );
}

/// I7: while a snapshot is in the making, the log's growth is owed several times over, and paid by slices.
#[test]
fn the_growth_of_the_log_is_owed() {
    let (mut cluster, _) = Cluster::with_snapshots(1, 6, 3_000, 1);
    cluster.house = None;
    write_many(&mut cluster, node(1), 0..10);
    assert_eq!(cluster.replica(node(1)).snapshot_debt(), 0, "none is due");
    write_many(&mut cluster, node(1), 10..30);
    assert!(cluster.replica(node(1)).snapshot_debt() > 0, "one is due, also when there is never time");
    cluster.replica_mut(node(1)).keep_house(100).expect("memory works");
    assert!(cluster.replica(node(1)).status().snapshot_draft.is_some());
    assert_eq!(cluster.replica(node(1)).snapshot_debt(), 0);
    let before = log_bytes(&cluster, node(1));
    write_many(&mut cluster, node(1), 30..40);
    let grown = (log_bytes(&cluster, node(1)) - before) as usize;
    let debt = cluster.replica(node(1)).snapshot_debt();
    assert_eq!(debt, SNAPSHOT_BYTES_PER_LOG_BYTE * grown);
    cluster.replica_mut(node(1)).keep_house(1_000).expect("memory works");
    assert_eq!(cluster.replica(node(1)).snapshot_debt(), debt - 1_000);
    cluster.replica_mut(node(1)).keep_house(1 << 20).expect("memory works");
    assert_eq!(cluster.replica(node(1)).snapshot_debt(), 0);
}

/// The disk must not keep what a snapshot of much more data took.
#[test]
fn a_shrunk_state_gets_a_new_snapshot() {
    let (mut cluster, _) = Cluster::with_snapshots(1, 7, 1_000, 1_000);
    let large = "v".repeat(20_000);
    for n in 0..3 {
        cluster.write(node(1), &format!("large{n}"), &large);
    }
    cluster.run(300);
    assert!(cluster.replica(node(1)).status().snapshot.is_some_and(|snapshot| snapshot.bytes > 60_000));
    for n in 0..3 {
        cluster.write(node(1), &format!("large{n}"), "");
    }
    cluster.run(300);
    assert!(cluster.replica(node(1)).status().snapshot.is_some_and(|snapshot| snapshot.bytes < 1_000));
}

/// A snapshot that is no state of this program stops the node with a word on what to do.
#[test]
fn a_snapshot_that_cannot_be_read_is_refused() {
    let last = EntryId::new(Term(1), Index(5));
    let refused = |content: &[u8]| {
        let mut storage = MemoryStorage::with_snapshot(last, content);
        let hard_state = HardState { term: Term(1), vote: None, commit_index: Index(5) };
        storage.set_hard_state(hard_state).expect("memory works");
        let config = ReplicaConfig {
            id: node(1),
            incarnation: Incarnation(1),
            voters: vec![node(1)],
            election_timeout_ms: 100,
            heartbeat_interval_ms: 10,
            seed: 1,
            snapshot_log_bytes: 1,
            history_bytes: HISTORY_BYTES_DEFAULT,
            keys_per_turn: 1,
        };
        let now = Millis(0);
        Replica::new(config, storage, now).err().expect("refused").to_string()
    };
    let garbage = refused(b"what is this");
    assert!(garbage.contains("5@1") && garbage.contains("empty working directory"), "{garbage}");
    let mut store = Store::default();
    store.pass(Index(1));
    store.begin_snapshot();
    let mut bytes = Vec::new();
    assert!(store.write_snapshot(&mut bytes, usize::MAX));
    let other_index = refused(&bytes);
    assert!(other_index.contains("contradict"), "{other_index}");
    bytes[8] = 2;
    let newer = refused(&bytes);
    assert!(newer.contains("version 2") && newer.contains("Upgrade this node"), "{newer}");
}
