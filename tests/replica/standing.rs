//! Nodes that may not vote yet: what they refuse, what they serve, and how they become full members.

use keva::raft::storage::Storage;
use keva::raft::types::{Incarnation, NodeId, Standing};
use keva::replica::io::{Consistency, NotApplied, Outcome, Request};

use crate::cluster::{Cluster, not_applied, put, read_of, write_of};
use crate::support::memory_storage::MemoryStorage;

fn standing(cluster: &Cluster, id: NodeId) -> Standing {
    cluster.replica(id).status().standing
}

/// F21: three new nodes found a cluster without anybody's help.
#[test]
fn new_nodes_found_a_cluster() {
    let mut cluster = Cluster::of(vec![MemoryStorage::virgin(); 3], 1);
    cluster.start_all();
    let first = cluster.ids()[0];
    let early = cluster.submit(first, read_of("k", Consistency::Stale), 0);
    assert_eq!(standing(&cluster, first), Standing::Virgin);
    let leader = cluster.await_leader();
    assert_eq!(cluster.reply(early).map(|reply| &reply.outcome), Some(&not_applied(NotApplied::NotReady)));
    for id in cluster.ids() {
        assert_eq!(standing(&cluster, id), Standing::Voter);
        cluster.write(id, &format!("{id}"), "v");
    }
    assert_eq!(cluster.read(leader, "n2"), Some("v".into()));
    cluster.settle();
}

/// F22: a node whose disk went back in time is told by those who know, ends the writes that it had taken, and votes again
/// when it has everything: then the others can lose one of them.
#[test]
fn a_rolled_back_node_comes_back() {
    for start_comes_again in [false, true] {
        let (mut cluster, leader) = Cluster::with_leader(3, 5);
        let [back, other] = cluster.others(leader)[..] else { panic!("three nodes") };
        let restart = |cluster: &mut Cluster| {
            cluster.crash(back);
            let copy = cluster.copy_disk(back);
            cluster.start(back);
            cluster.write(back, "k", "v");
            cluster.run(50);
            copy
        };
        let copies = [restart(&mut cluster), restart(&mut cluster)];
        let before = cluster.incarnation(back);
        cluster.crash(back);
        cluster.roll_back(back, &copies[usize::from(start_comes_again)]);
        cluster.start(back);
        assert_eq!(cluster.incarnation(back) == before, start_comes_again);
        assert_eq!(standing(&cluster, back), Standing::Voter, "it does not know");
        let taken = cluster.start_write(back, "taken", "v");
        let mut was_told = false;
        cluster.run_until("it knows", |cluster| {
            was_told |= standing(cluster, back) == Standing::Virgin;
            was_told
        });
        let outcome = cluster.reply(taken).map(|reply| reply.outcome.clone());
        assert!(matches!(outcome, Some(Outcome::OutcomeUnknown | Outcome::NotApplied(_))), "{outcome:?}");
        cluster.run_until("it votes again", |cluster| standing(cluster, back) == Standing::Voter);
        cluster.write(back, "k", "again");
        cluster.settle();
        // With its vote, and with that of a node which had suspected it.
        cluster.crash(leader);
        cluster.await_leader();
        assert_eq!(cluster.read(other, "k"), Some("again".into()));
    }
}

/// F21, E3: a node that lost its disk serves nothing of its own until it is admitted; reads that the leader confirms are
/// as good as anybody's. Then its writes have names that its earlier life did not use.
#[test]
fn a_node_that_lost_its_disk_comes_back() {
    for with_snapshot in [false, true] {
        let (mut cluster, leader) = match with_snapshot {
            false => Cluster::with_leader(3, 2),
            true => Cluster::with_snapshots(3, 2, 2_000, 500),
        };
        let [lost, other] = cluster.others(leader)[..] else { panic!("three nodes") };
        for n in 0..60 {
            cluster.write(lost, &format!("k{}", n % 10), &format!("{n} {}", "v".repeat(50)));
        }
        cluster.run(50);
        cluster.crash(lost);
        cluster.crash(other);
        cluster.wipe(lost);
        cluster.start(lost);
        // While one of the others is away it is not admitted.
        let refused = [
            cluster.submit(lost, write_of(put("k1", "too early")), 500),
            cluster.submit(lost, read_of("k1", Consistency::Stale), 500),
            cluster.submit(lost, Request::Barrier, 500),
        ];
        let read = cluster.start_read(lost, "k1");
        cluster.run(1);
        for ticket in refused {
            let outcome = cluster.reply(ticket).map(|reply| &reply.outcome);
            assert_eq!(outcome, Some(&not_applied(NotApplied::NotReady)));
        }
        let value = cluster.await_reply(read).outcome;
        assert!(matches!(value, Outcome::Value(Some(item)) if item.value.starts_with(b"51 ")));
        assert_eq!(standing(&cluster, lost), Standing::Virgin);
        cluster.start(other);
        cluster.run_until("it is admitted", |cluster| standing(cluster, lost) == Standing::Voter);
        cluster.settle();
        assert!(cluster.replica(lost).raft().storage().incarnation() > Incarnation(1));
        cluster.write(lost, "k1", "again");
        assert_eq!(cluster.read(other, "k1"), Some("again".into()));
        assert_eq!(cluster.read_stale(lost, "k1"), Some("again".into()));
        // Its next life is a later one, for everybody.
        cluster.crash(lost);
        cluster.start(lost);
        cluster.await_leader();
        cluster.write(lost, "k1", "and again");
        cluster.settle();
    }
}

/// A node whose log was found damaged gets everything back from the others, snapshot or log.
#[test]
fn a_damaged_node_recovers() {
    for with_snapshot in [false, true] {
        let (mut cluster, leader) = match with_snapshot {
            false => Cluster::with_leader(3, 3),
            true => Cluster::with_snapshots(3, 3, 2_000, 500),
        };
        let damaged = cluster.others(leader)[0];
        for n in 0..60 {
            cluster.write(damaged, &format!("k{}", n % 10), &format!("{n} {}", "v".repeat(50)));
        }
        cluster.run(50);
        cluster.crash(damaged);
        let disk = cluster.disk_mut(damaged);
        *disk = std::mem::take(disk).set_aside();
        cluster.start(damaged);
        let early = cluster.submit(damaged, write_of(put("k1", "too early")), 500);
        cluster.run(1);
        let outcome = &cluster.reply(early).expect("at once").outcome;
        assert_eq!(outcome, &not_applied(NotApplied::NotReady));
        cluster.run_until("it is admitted", |cluster| standing(cluster, damaged) == Standing::Voter);
        cluster.settle();
        cluster.write(damaged, "k1", "again");
        assert_eq!(cluster.read_stale(damaged, "k1"), Some("again".into()));
    }
}
