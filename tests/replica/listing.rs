//! Listings, and the changes that a node keeps for those who follow them.

use keva::kv::command::Command;
use keva::raft::message::Message;
use keva::raft::types::{Index, NodeId};
use keva::replica::io::{
    ChangeKind, Consistency, KeyRange, Listing, NotApplied, Outcome, Page, Reply, Request,
};

use crate::cluster::{Cluster, PATIENCE_MS, WRITTEN, node, not_applied, write_of};

fn list_of(range: KeyRange, limit: usize, consistency: Consistency) -> Request {
    Request::List { range, listing: Listing::Page { limit, with_values: false }, consistency }
}

fn count_of(range: KeyRange, consistency: Consistency) -> Request {
    Request::List { range, listing: Listing::Count, consistency }
}

#[track_caller]
fn ask(cluster: &mut Cluster, id: NodeId, request: Request) -> Reply {
    let ticket = cluster.submit(id, request, PATIENCE_MS);
    cluster.await_reply(ticket)
}

#[track_caller]
fn page_in(reply: &Reply) -> &Page {
    match &reply.outcome {
        Outcome::Page(page) => page,
        other => panic!("no page but {other:?}"),
    }
}

fn keys_in(reply: &Reply) -> Vec<&str> {
    page_in(reply).iter().map(|listed| listed.key).collect()
}

/// The changes that a node has kept, as (revision, key, kind): P, D, or E.
fn changes(cluster: &Cluster, id: NodeId) -> Vec<(u64, String, char)> {
    let history = cluster.replica(id).history();
    let numbers = history.first_number()..history.next_number();
    let changes = numbers.map(|number| history.get(number).expect("it is kept"));
    let kind = |kind: &ChangeKind| match kind {
        ChangeKind::Put(_) => 'P',
        ChangeKind::Delete => 'D',
        ChangeKind::Expire => 'E',
    };
    changes.map(|change| (change.revision.0, change.key.to_string(), kind(&change.kind))).collect()
}

/// C12: a listing shows every write that was answered before it was asked for, on every node, as of one revision.
#[test]
fn listings_are_linearizable() {
    let (mut cluster, _) = Cluster::with_leader(3, 1);
    let ids = cluster.ids();
    for (n, key) in ["a/1", "a/2", "a/3", "b/1"].into_iter().enumerate() {
        let revision = cluster.write(ids[n % 3], key, "v");
        for id in &ids {
            let all = ask(&mut cluster, *id, list_of(KeyRange::default(), 100, Consistency::Linearizable));
            assert_eq!(keys_in(&all).len(), n + 1, "{id}");
            assert!(keys_in(&all).contains(&key) && all.revision >= revision);
            let count = ask(&mut cluster, *id, count_of(KeyRange::prefix("a/"), Consistency::Linearizable));
            assert_eq!(count.outcome, Outcome::Count((n as u64 + 1).min(3)));
        }
    }
    let first = ask(&mut cluster, ids[0], list_of(KeyRange::prefix("a/"), 2, Consistency::Linearizable));
    assert_eq!(keys_in(&first), ["a/1", "a/2"]);
    assert!(page_in(&first).has_more);
    let after = KeyRange { after: Some("a/2".into()), ..KeyRange::prefix("a/") };
    let second = ask(&mut cluster, ids[1], list_of(after, 2, Consistency::Linearizable));
    assert_eq!((keys_in(&second), page_in(&second).has_more), (vec!["a/3"], false));
}

/// C6, C10: without a majority there is no listing, but the stale one that was asked for, also without any time left.
#[test]
fn a_node_alone_lists_only_what_it_has() {
    let (mut cluster, leader) = Cluster::with_leader(3, 2);
    cluster.write(leader, "k", "v");
    cluster.settle();
    let alone = cluster.others(leader)[0];
    cluster.isolate(alone);
    cluster.write(leader, "later", "v");
    for request in [
        list_of(KeyRange::default(), 10, Consistency::Linearizable),
        count_of(KeyRange::default(), Consistency::Linearizable),
    ] {
        let asked = cluster.submit(alone, request, 300);
        cluster.run(299);
        assert_eq!(cluster.reply(asked), None);
        cluster.run(1);
        assert_eq!(cluster.reply(asked).expect("its time is up").outcome, not_applied(NotApplied::NoLeader));
    }
    let stale = cluster.submit(alone, list_of(KeyRange::default(), 10, Consistency::Stale), 0);
    let count = cluster.submit(alone, count_of(KeyRange::default(), Consistency::Stale), 0);
    cluster.run(1);
    assert_eq!(keys_in(cluster.reply(stale).expect("at once")), ["k"]);
    assert_eq!(cluster.reply(count).expect("at once").outcome, Outcome::Count(1));
}

/// A node that does not know what it has lost lists nothing of its own; what the leader confirms is as good as anybody's.
#[test]
fn a_node_that_lost_its_disk_lists_nothing_stale() {
    let (mut cluster, leader) = Cluster::with_leader(3, 3);
    cluster.write(leader, "k", "v");
    cluster.settle();
    let lost = cluster.others(leader)[0];
    cluster.crash(lost);
    cluster.wipe(lost);
    cluster.lose(move |envelope| envelope.to == lost);
    cluster.start(lost);
    let stale = cluster.submit(lost, list_of(KeyRange::default(), 10, Consistency::Stale), 100);
    let confirmed = cluster.submit(lost, list_of(KeyRange::default(), 10, Consistency::Linearizable), 5_000);
    cluster.run(1);
    assert_eq!(cluster.reply(stale).expect("at once").outcome, not_applied(NotApplied::NotReady));
    cluster.heal();
    cluster.connect(lost, leader);
    assert_eq!(keys_in(&cluster.await_reply(confirmed)), ["k"]);
}

/// K3, K8: every node keeps every change that it applies, in the order of the log, and only those.
#[test]
fn every_change_is_kept() {
    let (mut cluster, leader) = Cluster::with_leader(3, 4);
    let put = cluster.write(leader, "k", "v").0;
    let delete = Command::Delete { key: "k".into(), condition: Default::default() };
    let deleted = ask(&mut cluster, leader, write_of(delete.clone())).revision.0;
    assert_eq!(
        ask(&mut cluster, leader, write_of(delete)).outcome,
        WRITTEN,
        "nothing is there to be deleted"
    );
    let again = cluster.write(cluster.others(leader)[0], "k", "w").0;
    cluster.settle();
    let expected = [(put, "k".into(), 'P'), (deleted, "k".into(), 'D'), (again, "k".into(), 'P')];
    for id in cluster.ids() {
        assert_eq!(changes(&cluster, id), expected, "{id}");
        let history = cluster.replica(id).history();
        assert_eq!(history.floor(), Index(0));
        assert_eq!(history.number_after(Index(put)), Some(2));
    }
    cluster.lose(|envelope| matches!(envelope.message, Message::AppendEntriesResponse { .. }));
    cluster.start_write(leader, "uncommitted", "v");
    cluster.run(20);
    assert_eq!(changes(&cluster, leader), expected, "nobody must see what may never be");
}

/// K4: a node that was restarted knows what it has applied since its snapshot, says that it does not know what was
/// before, and sees no change twice.
#[test]
fn a_start_knows_what_follows_its_snapshot() {
    let (mut cluster, only) = Cluster::with_snapshots(1, 5, 2_000, 1_000);
    for n in 0..50 {
        cluster.write(only, &format!("{n}"), &"v".repeat(60));
    }
    let before = changes(&cluster, only);
    cluster.end(only);
    cluster.start(only);
    cluster.await_leader();
    cluster.settle();
    let snapshot = cluster.replica(only).status().snapshot.expect("it has one").last.index;
    let newest = cluster.write(only, "newest", "v").0;
    let mut expected: Vec<_> = before.into_iter().filter(|(revision, ..)| *revision > snapshot.0).collect();
    expected.push((newest, "newest".into(), 'P'));
    assert_eq!(changes(&cluster, only), expected);
    let history = cluster.replica(only).history();
    assert!(history.floor() >= snapshot && history.number_after(history.floor()) == Some(1));
    assert_eq!(history.number_after(Index(1)), None, "that is forgotten");
}

/// K7: whoever follows a node that takes over the leader's snapshot is told that something is missing, never less than
/// all. The numbers go on.
#[test]
fn an_installed_snapshot_is_a_gap() {
    let (mut cluster, leader) = Cluster::with_snapshots(3, 6, 2_000, 1_000);
    let away = cluster.others(leader)[0];
    cluster.write(leader, "seen", "v");
    cluster.settle();
    let seen = cluster.replica(away).history().next_number();
    let last_seen = cluster.replica(away).status().applied_index;
    cluster.isolate(away);
    for n in 0..60 {
        cluster.write(leader, &format!("{n}"), &"v".repeat(60));
    }
    cluster.run(100);
    cluster.heal();
    cluster.settle();
    let history = cluster.replica(away).history();
    let snapshot = cluster.replica(away).status().snapshot.expect("it got one").last.index;
    assert!(snapshot > last_seen && history.floor() >= snapshot);
    assert_eq!(history.number_after(last_seen), None, "there is a gap");
    assert_eq!(
        history.get(seen - 1),
        None,
        "what was before the gap is not given as if it came before what follows"
    );
    assert!(history.first_number() >= seen);
    let newest = cluster.write(leader, "newest", "v");
    cluster.settle();
    let history = cluster.replica(away).history();
    let change = history.get(history.next_number() - 1).expect("just applied");
    assert_eq!((change.revision, change.key.as_ref(), change.is_last), (newest, "newest", true));
}

/// I12: how much is kept is configured.
#[test]
fn the_history_is_bounded() {
    let mut cluster = Cluster::of(vec![Default::default()], 7);
    cluster.history_bytes = 10_000;
    cluster.start_all();
    let only = node(1);
    cluster.await_leader();
    for n in 0..100 {
        cluster.write(only, &format!("{n}"), &"v".repeat(1_000));
    }
    let kept = changes(&cluster, only);
    assert!((5..10).contains(&kept.len()), "{} changes", kept.len());
    assert_eq!(kept.last().expect("not empty").1, "99");
    assert!(cluster.replica(only).history().floor() > Index(50));
}
