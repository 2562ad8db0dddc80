//! Keys with a life: they end on every node alike, never early, and hardly late, whoever leads.

use std::sync::atomic::Ordering;

use keva::kv::command::{Command, Condition, Matcher};
use keva::kv::payload::Payload;
use keva::kv::session::WriteId;
use keva::limits::{EXPIRIES_IN_FLIGHT_MAX, EXPIRIES_MAX, TIME_CHECKPOINT_MS};
use keva::raft::message::{Envelope, Message};
use keva::raft::storage::Storage;
use keva::raft::types::{Index, NodeId};
use keva::replica::io::{Request, Ticket};
use keva::util::time::{LogicalTime, Millis};

use crate::cluster::{
    Cluster, ELECTION_TIMEOUT_MS, PATIENCE_MS, WRITTEN, condition_failed, put_with_life, write_of,
};
use crate::support::memory_storage::{MemoryStorage, Space};

/// From the moment a life is over until every node has heard: two messages each way, and rounding.
const LATE_MS: u64 = 10;

/// A key with a life, and when the client asked for it.
fn write_with_life(cluster: &mut Cluster, id: NodeId, key: &str, ttl_ms: u64) -> Millis {
    let asked_at = cluster.now;
    let write = cluster.submit(id, write_of(put_with_life(key, "v", Some(ttl_ms))), PATIENCE_MS);
    assert_eq!(cluster.await_reply(write).outcome, WRITTEN);
    asked_at
}

fn exists(cluster: &Cluster, id: NodeId, key: &str) -> bool {
    cluster.replica(id).store().get(key).is_some()
}

/// Waits until no node that is up has the key, and says how long that took since `asked_at`.
#[track_caller]
fn life_of(cluster: &mut Cluster, key: &str, asked_at: Millis) -> u64 {
    for _ in 0..400_000 {
        if cluster.up().into_iter().all(|id| !exists(cluster, id, key)) {
            return cluster.now - asked_at;
        }
        cluster.run(1);
    }
    panic!("{key} does not end");
}

/// Replaces the key's value if nobody else has; the new one has no end.
fn renewal(key: &str, revision: Index) -> Request {
    let condition = Condition { if_match: Some(Matcher::Revisions(vec![revision])), if_none_match: None };
    let value = b"renewed".to_vec();
    write_of(Command::Put { key: key.into(), value, content_type: None, condition, ttl_ms: None })
}

fn expiries(cluster: &Cluster, id: NodeId) -> Vec<Vec<(String, Index)>> {
    let keys = |(_, _, command)| match command {
        Command::Expire { keys } => Some(keys),
        _ => None,
    };
    cluster.commands(id).into_iter().filter_map(keys).collect()
}

fn ticks(cluster: &Cluster, id: NodeId) -> Vec<LogicalTime> {
    let is_tick = |(_, time, command)| matches!(command, Command::Tick).then_some(time);
    cluster.commands(id).into_iter().filter_map(is_tick).collect()
}

fn logical_now(cluster: &Cluster, id: NodeId) -> LogicalTime {
    cluster.replica(id).logical_now(cluster.clock(id))
}

fn is_heartbeat(envelope: &Envelope) -> bool {
    matches!(envelope.message, Message::Heartbeat { .. })
}

fn asks_for_votes(envelope: &Envelope) -> bool {
    matches!(envelope.message, Message::PreVote { .. } | Message::RequestVote { .. })
}

fn acknowledges(envelope: &Envelope) -> bool {
    matches!(envelope.message, Message::AppendEntriesResponse { .. })
}

/// J1, J3: a key ends by one entry of the log, after its life and soon after, whichever node it was written on. A write
/// without a life keeps it from ending.
#[test]
fn keys_end_when_their_life_is_over() {
    let (mut cluster, leader) = Cluster::with_leader(3, 1);
    cluster.run(777);
    for id in cluster.ids() {
        let asked_at = write_with_life(&mut cluster, id, "k", 300);
        write_with_life(&mut cluster, id, "kept", 300);
        cluster.write(id, "kept", "for ever");
        let life = life_of(&mut cluster, "k", asked_at);
        assert!(
            (301..300 + LATE_MS).contains(&life),
            "{life} ms on {id}: longer than asked for, as clocks round"
        );
        assert_eq!(cluster.read(id, "k"), None);
        cluster.run(300);
        assert_eq!(cluster.read(id, "kept").as_deref(), Some("for ever"));
    }
    cluster.settle();
    assert_eq!(expiries(&cluster, leader).len(), 3, "each is ended once");
    assert_eq!(expiries(&cluster, leader).concat().len(), 3);
}

/// I6: many keys that end together go in several entries, of a bounded size, one behind the other.
#[test]
fn many_keys_end_in_portions() {
    let (mut cluster, leader) = Cluster::with_leader(3, 2);
    let keys: Vec<String> = (0..2 * EXPIRIES_MAX + 10).map(|n| format!("k{n}")).collect();
    let writes: Vec<_> = keys
        .iter()
        .map(|key| cluster.submit(leader, write_of(put_with_life(key, "v", Some(200))), PATIENCE_MS))
        .collect();
    for write in writes {
        assert_eq!(cluster.await_reply(write).outcome, WRITTEN);
    }
    cluster.run(200 + 3 * LATE_MS);
    cluster.settle();
    let sizes: Vec<usize> = expiries(&cluster, leader).iter().map(Vec::len).collect();
    assert_eq!(sizes, [EXPIRIES_MAX, EXPIRIES_MAX, 10], "nothing is ended twice");
    assert_eq!(cluster.replica(leader).store().key_count(), 0);
}

/// J4: however long a commit takes, keys do not come due faster than they are ended.
#[test]
fn many_keys_end_in_few_rounds() {
    let (mut cluster, leader) = Cluster::with_leader(3, 21);
    let count = EXPIRIES_MAX * EXPIRIES_IN_FLIGHT_MAX + 1;
    let writes: Vec<_> = (0..count)
        .map(|n| {
            cluster.submit(leader, write_of(put_with_life(&format!("k{n}"), "v", Some(400))), PATIENCE_MS)
        })
        .collect();
    for write in writes {
        assert_eq!(cluster.await_reply(write).outcome, WRITTEN);
    }
    cluster.run_until("the first are ended", |cluster| {
        cluster.replica(leader).store().key_count() < count as u64
    });
    // One way to the others and back, each time.
    cluster.run(2 * 4);
    let sizes: Vec<usize> = expiries(&cluster, leader).iter().map(Vec::len).collect();
    let full = [EXPIRIES_MAX; EXPIRIES_IN_FLIGHT_MAX];
    assert_eq!(sizes, [&full[..], &[1]].concat(), "nothing is ended twice");
    assert_eq!(cluster.replica(leader).store().key_count(), 0);
}

/// J3: every node knows how much of a life is left, a message's way behind the leader and never ahead.
#[test]
fn every_node_knows_the_time() {
    let (mut cluster, leader) = Cluster::with_leader(3, 3);
    cluster.run(50);
    for _ in 0..300 {
        cluster.run(1);
        let time = logical_now(&cluster, leader);
        for id in cluster.others(leader) {
            let behind = time.0 - logical_now(&cluster, id).0;
            assert!((1..=3).contains(&behind), "{id} is {behind} ms behind");
        }
    }
}

/// J5: a renewal that the log has before the end is in time, also when both wait for a majority.
#[test]
fn a_renewal_before_the_end_counts() {
    let (mut cluster, leader) = Cluster::with_leader(3, 4);
    let asked_at = write_with_life(&mut cluster, leader, "k", 200);
    let revision = cluster.replica(leader).store().get("k").expect("just written").revision;
    cluster.run(180 - (cluster.now - asked_at));
    cluster.lose(acknowledges);
    let renewal = cluster.submit(leader, renewal("k", revision), PATIENCE_MS);
    cluster.run(40);
    assert_eq!(expiries(&cluster, leader), [[("k".to_owned(), revision)]], "it looked as if it were over");
    cluster.heal();
    assert_eq!(cluster.await_reply(renewal).outcome, WRITTEN);
    cluster.run(500);
    assert_eq!(cluster.read(leader, "k").as_deref(), Some("renewed"));
    assert_eq!(expiries(&cluster, leader).len(), 1);
}

/// J5: a renewal that comes behind the end fails, although the key was there when the client asked.
#[test]
fn a_renewal_behind_the_end_fails() {
    let (mut cluster, leader) = Cluster::with_leader(3, 5);
    let asked_at = write_with_life(&mut cluster, leader, "k", 200);
    let revision = cluster.replica(leader).store().get("k").expect("just written").revision;
    cluster.run(190 - (cluster.now - asked_at));
    cluster.lose(acknowledges);
    cluster.run(20);
    assert!(
        exists(&cluster, leader, "k") && expiries(&cluster, leader).len() == 1,
        "it is not committed yet"
    );
    let renewal = cluster.submit(leader, renewal("k", revision), PATIENCE_MS);
    cluster.run(2);
    cluster.heal();
    assert_eq!(cluster.await_reply(renewal).outcome, condition_failed(None));
    cluster.settle();
    assert_eq!(cluster.read(leader, "k"), None);
}

/// J4: what a deposed leader wants to end does not end, and nobody offers it again.
#[test]
fn a_deposed_leader_ends_nothing() {
    let (mut cluster, old) = Cluster::with_leader(3, 16);
    let asked_at = write_with_life(&mut cluster, old, "k", 1_000);
    let revision = cluster.replica(old).store().get("k").expect("just written").revision;
    cluster.settle();
    cluster.run(920 - (cluster.now - asked_at));
    cluster.isolate_as_lost(old);
    let new = cluster.await_leader();
    let renewal = cluster.submit(new, renewal("k", revision), PATIENCE_MS);
    assert_eq!(cluster.await_reply(renewal).outcome, WRITTEN);
    assert!(cluster.now - asked_at < 1_000, "the renewal is in time");
    cluster.run(1_005 - (cluster.now - asked_at));
    assert!(cluster.replica(old).raft().is_leader(), "it does not know better yet");
    assert_eq!(expiries(&cluster, old), [[("k".to_owned(), revision)]], "and takes the life for over");
    cluster.run(2 * ELECTION_TIMEOUT_MS);
    cluster.heal();
    cluster.run(2 * ELECTION_TIMEOUT_MS);
    cluster.settle();
    for id in cluster.ids() {
        assert_eq!(cluster.read(id, "k").as_deref(), Some("renewed"));
        assert_eq!(expiries(&cluster, id).len(), 0, "{id}");
    }
}

/// J4: only the leader itself says what ends and what time it is; another node's word is dropped.
#[test]
fn nobody_else_ends_keys() {
    let (mut cluster, leader) = Cluster::with_leader(3, 7);
    write_with_life(&mut cluster, leader, "k", 60_000);
    let revision = cluster.replica(leader).store().get("k").expect("just written").revision;
    cluster.settle();
    let sender = cluster.others(leader)[0];
    let last_index = cluster.replica(leader).status().last_index;
    for (origin, command) in [
        (sender, Command::Expire { keys: vec![("k".into(), revision)] }),
        (sender, Command::Tick),
        (leader, Command::Tick),
    ] {
        let id = WriteId { origin, incarnation: cluster.incarnation(origin), seq: 0 };
        let payload = Payload { id, time: LogicalTime(1 << 40), write: command.into() }.encode();
        let message = Message::Forward { payloads: vec![payload] };
        cluster.inject(Envelope { from: sender, to: leader, term: Default::default(), message });
        cluster.run(20);
        assert_eq!(cluster.replica(leader).status().last_index, last_index);
    }
}

/// J2, J3: whoever leads next goes on with the time. Ten changes of leaders in one life make it longer by no more than
/// the messages' ways, and never shorter; neither does a leader that nobody hears from for a while.
#[test]
fn a_life_is_as_long_under_ten_leaders() {
    for seed in 0..4 {
        let (mut cluster, leader) = Cluster::with_leader(3, seed);
        let asked_at = write_with_life(&mut cluster, leader, "k", 6_000);
        for change in 0..10 {
            cluster.run(300);
            let old = cluster.await_leader();
            match change % 3 {
                0 => cluster.crash(old),
                1 => cluster.isolate(old),
                _ => cluster.pause(old),
            }
            cluster.run_until("another one leads", |cluster| {
                let mut others = cluster.others(old).into_iter();
                others.any(|id| {
                    let replica = cluster.replica(id);
                    replica.raft().is_leader()
                        && replica.status().applied_index == replica.status().last_index
                })
            });
            if change % 3 == 0 {
                cluster.start(old);
            }
            cluster.heal();
        }
        let life = life_of(&mut cluster, "k", asked_at);
        assert!((6_001..6_000 + 10 * LATE_MS).contains(&life), "{life} ms with seed {seed}");
    }
}

/// J3: a new leader knows less than the one before it, so its time is behind. The next leader knew the one before, too,
/// and must not go by that: the key is younger than it would make it.
#[test]
fn a_time_line_that_is_behind_counts() {
    for by_heartbeat in [false, true] {
        let (mut cluster, first) = Cluster::with_leader(3, 8);
        let [behind, ahead] = cluster.others(first)[..] else { panic!("three nodes") };
        cluster.write(first, "old", "v");
        cluster.run(10_000);
        // It starts with the time of the newest entry and hears nothing of the time that has passed since.
        cluster.crash(behind);
        cluster.lose(move |envelope| envelope.to == behind && is_heartbeat(envelope));
        cluster.start(behind);
        cluster.run(20);
        cluster.crash(first);
        cluster.lose(move |envelope| {
            let hides_time = !by_heartbeat && envelope.to == ahead && is_heartbeat(envelope);
            hides_time || (envelope.from == ahead && asks_for_votes(envelope))
        });
        cluster.run_until("the one that knows less leads", |cluster| cluster.leader() == Some(behind));
        let lag = logical_now(&cluster, ahead).0 - logical_now(&cluster, behind).0;
        assert!(by_heartbeat || lag > 9_000, "it is {lag} ms behind");
        cluster.run(20);
        let asked_at = write_with_life(&mut cluster, behind, "k", 3_000);
        cluster.settle();
        cluster.crash(behind);
        cluster.heal();
        cluster.start(first);
        assert_eq!(cluster.await_leader(), ahead, "only it has the key");
        let life = life_of(&mut cluster, "k", asked_at);
        assert!((3_001..3_000 + 5 * LATE_MS).contains(&life), "{life} ms");
    }
}

/// J3: a leader that has not committed an entry of its own term says nothing about the time, however long that takes:
/// the cluster's own check sees to it.
#[test]
fn a_leader_without_a_commit_says_no_time() {
    let (mut cluster, first) = Cluster::with_leader(3, 9);
    cluster.run(500);
    cluster.crash(first);
    cluster.lose(acknowledges);
    let others = cluster.others(first);
    let leads = |cluster: &Cluster| others.iter().copied().find(|id| cluster.replica(*id).raft().is_leader());
    cluster.run_until("one of the others leads", |cluster| leads(cluster).is_some());
    cluster.sent.clear();
    cluster.run(5 * ELECTION_TIMEOUT_MS);
    let time_of = |envelope: &Envelope| match envelope.message {
        Message::Heartbeat { time, .. } => Some(time),
        _ => None,
    };
    let times: Vec<_> = cluster.sent.iter().filter_map(time_of).collect();
    assert!(times.len() > 20 && times.iter().all(|time| time.0 == 0), "{times:?}");
    cluster.heal();
    cluster.await_leader();
    cluster.sent.clear();
    cluster.run(50);
    assert!(cluster.sent.iter().filter_map(time_of).all(|time| time.0 > 0));
}

/// J3: when all nodes stop, time stands still, and what is lost of a life that has passed is no more than the time
/// between two marks in the log.
#[test]
fn a_full_stop_costs_at_most_a_checkpoint() {
    let ttl_ms = 3 * TIME_CHECKPOINT_MS;
    let before = 2 * TIME_CHECKPOINT_MS + 30_000;
    let (mut cluster, leader) = Cluster::with_leader(3, 10);
    write_with_life(&mut cluster, leader, "k", ttl_ms);
    cluster.run(before);
    assert_eq!(ticks(&cluster, leader).len(), 2);
    for id in cluster.ids() {
        cluster.crash(id);
    }
    cluster.now = cluster.now.after(1_000_000);
    let started_at = cluster.now;
    cluster.start_all();
    cluster.await_leader();
    let rest = life_of(&mut cluster, "k", started_at);
    assert!(before + rest > ttl_ms, "{rest} ms are too few");
    assert!(before + rest < ttl_ms + TIME_CHECKPOINT_MS + 1_000, "{rest} ms are too many");
}

/// J3: a start, and a start from a snapshot, go on with the time of the state.
#[test]
fn a_lone_node_goes_on_from_its_disk() {
    let (mut cluster, only) = Cluster::with_snapshots(1, 11, 500, 1_000);
    let asked_at = write_with_life(&mut cluster, only, "k", 5_000);
    for n in 0..40 {
        cluster.write(only, "other", &"v".repeat(n));
        cluster.run(100);
    }
    assert!(cluster.replica(only).status().snapshot.is_some());
    cluster.end(only);
    cluster.start(only);
    assert!(logical_now(&cluster, only).0 > 0, "the snapshot knows the time");
    cluster.await_leader();
    let life = life_of(&mut cluster, "k", asked_at);
    assert!(
        (5_001..5_300).contains(&life),
        "{life} ms, since the last write before the stop was 100 ms before it"
    );
}

/// B25: a cluster whose keys live for ever writes nothing of its own accord; with lives, the time now and then.
#[test]
fn an_idle_cluster_writes_nothing() {
    let (mut cluster, leader) = Cluster::with_leader(3, 12);
    cluster.write(leader, "k", "for ever");
    cluster.settle();
    let last_index = cluster.replica(leader).status().last_index;
    cluster.run(2 * TIME_CHECKPOINT_MS + 10);
    assert_eq!(cluster.replica(leader).status().last_index, last_index);
    write_with_life(&mut cluster, leader, "k", 10 * TIME_CHECKPOINT_MS);
    cluster.run(3 * TIME_CHECKPOINT_MS + 10);
    let times = ticks(&cluster, leader);
    assert_eq!(times.len(), 3);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == TIME_CHECKPOINT_MS));
    cluster.write(leader, "k", "for ever");
    cluster.run(2 * TIME_CHECKPOINT_MS);
    assert_eq!(ticks(&cluster, leader).len(), 3, "there is no life any more");
}

/// J3: a clock that runs ahead of the leader's is set back by its heartbeats: it does not add up over a long term, and the
/// lives of keys are not too short when that node leads.
#[test]
fn a_fast_clock_is_set_back() {
    let (mut cluster, leader) = Cluster::with_leader(3, 14);
    for _ in 0..20 {
        for id in cluster.others(leader) {
            cluster.leap(id, 20);
        }
        cluster.run(ELECTION_TIMEOUT_MS / 5);
    }
    assert_eq!(cluster.leader(), Some(leader), "nobody campaigned");
    for id in cluster.others(leader) {
        let ahead = logical_now(&cluster, id).0.saturating_sub(logical_now(&cluster, leader).0);
        assert!(ahead <= 20, "{id} is {ahead} ms ahead");
    }
    let asked_at = write_with_life(&mut cluster, leader, "k", 500);
    cluster.run(5);
    cluster.crash(leader);
    let lived = life_of(&mut cluster, "k", asked_at);
    assert!(lived >= 480, "k lived for {lived} ms");
}

/// J6, D12: a node that takes over a snapshot goes on with the time that the leader has told it, and never back.
#[test]
fn a_snapshot_does_not_set_the_time_back() {
    let (mut cluster, leader) = Cluster::with_snapshots(3, 13, 2_000, 1_000);
    let away = cluster.others(leader)[0];
    write_with_life(&mut cluster, leader, "k", 4_000);
    // It hears what time it is.
    cluster.run(50);
    cluster.isolate(away);
    for n in 0..60 {
        cluster.write(leader, &format!("{n}"), &"v".repeat(100));
    }
    cluster.run(1_000);
    assert!(
        cluster.replica(leader).status().log_start.index > Index(10),
        "what it lacks is gone from the log"
    );
    cluster.heal();
    let mut newest = LogicalTime(0);
    cluster.run_until("it has what the others have", |cluster| {
        let time = logical_now(cluster, away);
        assert!(time >= newest, "{time:?} after {newest:?}");
        newest = time;
        cluster.replica(away).store().get("59").is_some()
    });
    assert!(logical_now(&cluster, leader).0 - logical_now(&cluster, away).0 <= 20);
    assert_eq!(cluster.replica(away).store().next_expiry(), cluster.replica(leader).store().next_expiry());
}

/// F14: a full disk does not keep keys from ending: that makes room.
#[test]
fn keys_end_on_full_disks() {
    let (mut cluster, leader) = Cluster::with_leader(3, 14);
    let asked_at = write_with_life(&mut cluster, leader, "k", 300);
    for id in cluster.ids() {
        cluster.replica(id).raft().storage().faults.full.store(true, Ordering::SeqCst);
    }
    let life = life_of(&mut cluster, "k", asked_at);
    assert!((301..300 + LATE_MS).contains(&life), "{life} ms");
}

/// F14: a disk without any room keeps its keys, and the node does not try in every turn (the cluster's own check).
#[test]
fn a_disk_without_any_room_is_tried_now_and_then() {
    let run = |space: Option<Space>| {
        let mut disk = MemoryStorage::default();
        disk.space = space;
        let mut cluster = Cluster::of(vec![disk], 14);
        cluster.start_all();
        let only = cluster.await_leader();
        write_with_life(&mut cluster, only, "k", 300);
        let used = cluster.replica(only).raft().storage().log_bytes();
        cluster.run(1_000);
        (used, exists(&cluster, only, "k"))
    };
    let (bytes, exists) = run(None);
    assert!(!exists);
    assert_eq!(run(Some(Space { bytes, reserve: 0 })), (bytes, true));
}

/// H2: a process that stood still between its look at the clock and a request does not take the request for older than it
/// is: the life begins when the write is ordered.
#[test]
fn a_life_begins_after_it_was_asked_for() {
    let (mut cluster, only) = Cluster::with_leader(1, 15);
    let (before, after) = (cluster.clock(only), cluster.clock(only).after(10_000));
    let request = write_of(put_with_life("k", "v", Some(500)));
    let replica = cluster.replica_mut(only);
    replica.submit(before, Ticket(1 << 40), request, after.after(1_000));
    replica.handle_deadline(before).expect("memory works");
    replica.drain_immediate(after, &mut Vec::new()).expect("memory works");
    let output = replica.sync(after).expect("memory works");
    assert_eq!(output.replies.len(), 1);
    let expires_at = replica.store().get("k").and_then(|item| item.expires_at).expect("it has an end");
    assert_eq!(expires_at - replica.logical_now(after), 500);
    // The clock showed `after` for a whole millisecond: only one more says that the life is over.
    for (millis, is_there) in [(500, true), (501, false)] {
        let now = after.after(millis);
        assert!(replica.next_deadline() <= after.after(501));
        replica.drain_immediate(now, &mut Vec::new()).expect("memory works");
        let _ = replica.sync(now).expect("memory works");
        assert_eq!(replica.store().get("k").is_some(), is_there, "after {millis} ms");
    }
}
