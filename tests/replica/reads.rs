//! Reads: never older than what was answered before they began, and never waiting for ever.

use std::cell::RefCell;
use std::rc::Rc;

use keva::limits::READ_CONTEXTS_ASKED_MAX;
use keva::raft::message::{Envelope, Message, ReadContext};
use keva::raft::types::Index;
use keva::replica::io::{Consistency, InFlight, NotApplied, Outcome, Request};

use crate::cluster::{Cluster, ELECTION_TIMEOUT_MS, not_applied, read_of, value_in};

fn is_read_question(envelope: &Envelope) -> bool {
    matches!(envelope.message, Message::ReadIndex { .. })
}

fn is_read_answer(envelope: &Envelope) -> bool {
    matches!(envelope.message, Message::ReadIndexResponse { .. })
}

/// Loses the answers to read questions and keeps a copy.
fn hold_back_answers(cluster: &mut Cluster) -> Rc<RefCell<Vec<Envelope>>> {
    let held = Rc::new(RefCell::new(Vec::new()));
    let copies = held.clone();
    cluster.lose(move |envelope| {
        let lost = is_read_answer(envelope);
        if lost {
            copies.borrow_mut().push(envelope.clone());
        }
        lost
    });
    held
}

fn contexts_sent(cluster: &Cluster) -> Vec<ReadContext> {
    let context = |envelope: &Envelope| match envelope.message {
        Message::ReadIndex { context } => Some(context),
        _ => None,
    };
    cluster.sent.iter().filter_map(context).collect()
}

/// C4, E12: a follower that lags behind waits until it has applied what the read must see.
#[test]
fn a_read_on_a_lagging_follower_waits() {
    let (mut cluster, leader) = Cluster::with_leader(3, 1);
    let [quick, slow] = cluster.others(leader)[..] else { panic!("three nodes") };
    cluster.write(quick, "k", "old");
    cluster.settle();
    // The slow one hears from the leader, but gets no entries.
    cluster.lose(move |envelope| {
        envelope.to == slow && matches!(envelope.message, Message::AppendEntries { .. })
    });
    cluster.write(quick, "k", "new");
    cluster.write(quick, "gone", "x");
    let read = cluster.start_read(slow, "k");
    let absent = cluster.start_read(slow, "absent");
    let barrier = cluster.submit(slow, Request::Barrier, 5_000);
    cluster.run(50);
    for ticket in [read, absent, barrier] {
        assert_eq!(cluster.reply(ticket), None, "answered from an old state");
    }
    assert_eq!(cluster.read_stale(slow, "k"), Some("old".into()), "what stale means");
    cluster.heal();
    assert_eq!(value_in(&cluster.await_reply(read)), Some("new".into()));
    assert_eq!(value_in(&cluster.await_reply(absent)), None);
    assert_eq!(cluster.await_reply(barrier).outcome, Outcome::Reached);
}

/// All reads of a turn share one question.
#[test]
fn reads_of_a_turn_are_asked_about_once() {
    let (mut cluster, leader) = Cluster::with_leader(3, 2);
    let reader = cluster.others(leader)[0];
    let reads: Vec<_> = (0..100).map(|n| cluster.start_read(reader, &n.to_string())).collect();
    for read in reads {
        assert_eq!(value_in(&cluster.await_reply(read)), None);
    }
    assert_eq!(contexts_sent(&cluster).len(), 1);
}

/// C10: reads that wait when the leader dies are answered by the next one, with everything answered before.
#[test]
fn reads_outlive_the_leader() {
    let (mut cluster, leader) = Cluster::with_leader(3, 3);
    let [writer, reader] = cluster.others(leader)[..] else { panic!("three nodes") };
    cluster.write(writer, "k", "v");
    cluster.lose(is_read_answer);
    let reads = [cluster.start_read(reader, "k"), cluster.start_read(leader, "k")];
    cluster.run(1);
    assert_eq!(cluster.reply(reads[0]), None);
    cluster.crash(leader);
    cluster.heal();
    let before = cluster.now;
    assert_eq!(value_in(&cluster.await_reply(reads[0])), Some("v".into()));
    // The others know that the leader's process is gone, and asked again as soon as there was a new one.
    assert!(cluster.now - before < ELECTION_TIMEOUT_MS * 9 / 10, "{} ms", cluster.now - before);
}

/// C2, C5, C8: an answer to a question that was asked again confirms nothing, least of all reads that came later.
#[test]
fn a_late_answer_confirms_nothing() {
    let (mut cluster, leader) = Cluster::with_leader(3, 4);
    let [writer, reader] = cluster.others(leader)[..] else { panic!("three nodes") };
    cluster.write(writer, "k", "old");
    cluster.settle();
    let held = hold_back_answers(&mut cluster);
    let early = cluster.start_read(reader, "k");
    cluster.run_until("the leader has answered", |_| !held.borrow().is_empty());
    // The link is reset: the reader asks again. Then the cluster moves on without the reader.
    cluster.connect(reader, leader);
    cluster.run(3);
    let copies = held.clone();
    cluster.lose(move |envelope| {
        let answer = is_read_answer(envelope);
        if answer {
            copies.borrow_mut().push(envelope.clone());
        }
        answer || (envelope.to == reader && matches!(envelope.message, Message::AppendEntries { .. }))
    });
    cluster.write(writer, "k", "new");
    let late = cluster.start_read(reader, "k");
    cluster.run(3);
    let first = held.borrow()[0].clone();
    cluster.inject(first);
    cluster.run(20);
    assert_eq!(cluster.reply(late), None, "the old answer was taken for a newer question's");
    assert_eq!(cluster.reply(early), None, "its question was given up");
    cluster.heal();
    cluster.connect(reader, leader);
    assert_eq!(value_in(&cluster.await_reply(late)), Some("new".into()));
    cluster.await_reply(early);
    let contexts = contexts_sent(&cluster);
    let mut distinct = contexts.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), contexts.len(), "contexts are used once");
}

/// C2: a restarted node asks under contexts that its earlier life has never used.
#[test]
fn contexts_differ_between_incarnations() {
    let (mut cluster, leader) = Cluster::with_leader(3, 5);
    let reader = cluster.others(leader)[0];
    for _ in 0..3 {
        cluster.read(reader, "k");
    }
    cluster.crash(reader);
    cluster.start(reader);
    cluster.await_leader();
    for _ in 0..3 {
        cluster.read(reader, "k");
    }
    let mut contexts = contexts_sent(&cluster);
    let count = contexts.len();
    contexts.sort_unstable();
    contexts.dedup();
    assert_eq!((contexts.len(), count), (6, 6));
}

/// C6: after a start nothing but a stale read is answered before the leader has confirmed an index, not even "absent".
#[test]
fn a_restarted_node_answers_no_read_by_itself() {
    let (mut cluster, leader) = Cluster::with_leader(3, 6);
    let reader = cluster.others(leader)[0];
    cluster.write(leader, "k", "v");
    cluster.crash(reader);
    cluster.lose(|envelope| is_read_answer(envelope) || is_read_question(envelope));
    cluster.start(reader);
    let reads = [cluster.start_read(reader, "k"), cluster.start_read(reader, "absent")];
    let barrier = cluster.submit(reader, Request::Barrier, 5_000);
    cluster.run(50);
    assert!(cluster.replies.len() == 1 && cluster.reply(barrier).is_none(), "only the write was answered");
    cluster.heal();
    cluster.connect(reader, leader);
    assert_eq!(value_in(&cluster.await_reply(reads[0])), Some("v".into()));
    assert_eq!(value_in(&cluster.await_reply(reads[1])), None);
}

/// An answer that is lost on the leader's link leaves no trace at the reader. It asks again after a while.
#[test]
fn a_lost_answer_does_not_hold_reads_up() {
    let (mut cluster, leader) = Cluster::with_leader(3, 7);
    let reader = cluster.others(leader)[0];
    cluster.lose(is_read_answer);
    let read = cluster.start_read(reader, "k");
    cluster.run(10);
    cluster.heal();
    let before = cluster.now;
    assert_eq!(value_in(&cluster.await_reply(read)), None);
    assert!(cluster.now - before <= ELECTION_TIMEOUT_MS + 10, "{} ms", cluster.now - before);
}

/// C14: a silent leader is asked only so often, and the reads behind that wait for one question more.
#[test]
fn open_questions_are_bounded() {
    let (mut cluster, leader) = Cluster::with_leader(3, 8);
    let reader = cluster.others(leader)[0];
    let held = hold_back_answers(&mut cluster);
    let mut reads = Vec::new();
    for _ in 0..50 {
        reads.push(cluster.start_read(reader, "k"));
        cluster.run(1);
    }
    assert_eq!(contexts_sent(&cluster).len(), READ_CONTEXTS_ASKED_MAX);
    // One answer makes room for all the others.
    let first = held.borrow()[0].clone();
    cluster.inject(first);
    cluster.run(3);
    assert_eq!(cluster.replies.len(), 1);
    assert_eq!(contexts_sent(&cluster).len(), READ_CONTEXTS_ASKED_MAX + 1);
    cluster.heal();
    for read in reads {
        assert_eq!(value_in(&cluster.await_reply(read)), None);
    }
    cluster.settle();
}

/// C14: questions whose reads have all given up make room too, and nothing of them is left.
#[test]
fn questions_without_readers_are_forgotten() {
    let (mut cluster, leader) = Cluster::with_leader(3, 9);
    let reader = cluster.others(leader)[0];
    cluster.lose(is_read_answer);
    for _ in 0..READ_CONTEXTS_ASKED_MAX {
        let read = cluster.submit(reader, read_of("k", Consistency::Linearizable), 3);
        cluster.run(3);
        assert_eq!(cluster.reply(read).map(|reply| &reply.outcome), Some(&not_applied(NotApplied::NoLeader)));
    }
    assert_eq!(cluster.replica(reader).in_flight(), InFlight::default());
    cluster.run(5);
    cluster.lose(|_| false);
    let before = cluster.now;
    assert_eq!(cluster.read(reader, "k"), None);
    assert!(cluster.now - before < 10);
}

/// A read ends at its own deadline, whatever others are waiting.
#[test]
fn every_read_has_its_own_deadline() {
    let mut cluster = Cluster::new(3, 10);
    let id = cluster.ids()[0];
    for other in cluster.others(id) {
        cluster.end(other);
    }
    let start = cluster.now;
    let patience = [40, 10, 30, 20, 10];
    let reads = patience
        .map(|patience| (patience, cluster.submit(id, read_of("k", Consistency::Linearizable), patience)));
    for _ in 0..50 {
        cluster.run(1);
        for (patience, read) in &reads {
            let due = cluster.now - start >= *patience;
            assert_eq!(cluster.reply(*read).is_some(), due, "at {} of {patience} ms", cluster.now - start);
        }
    }
    for (_, read) in reads {
        assert_eq!(cluster.replies[&read].outcome, not_applied(NotApplied::NoLeader));
    }
}

/// Stale reads and their revisions need nobody.
#[test]
fn stale_reads_work_alone() {
    let (mut cluster, leader) = Cluster::with_leader(3, 11);
    let revision = cluster.write(leader, "k", "v");
    cluster.settle();
    for other in cluster.others(leader) {
        cluster.crash(other);
    }
    cluster.run(20 * ELECTION_TIMEOUT_MS);
    assert_eq!(cluster.read_stale(leader, "k"), Some("v".into()));
    assert_eq!(cluster.read_stale(leader, "absent"), None);
    let stale = cluster.submit(leader, read_of("k", Consistency::Stale), 0);
    let reply = cluster.await_reply(stale);
    assert!(reply.revision >= revision && reply.revision > Index(0));
}

/// A read that waits for a node alone to win its first election is answered as soon as that is done.
#[test]
fn a_read_before_the_first_election_is_answered_after_it() {
    let mut cluster = Cluster::new(1, 12);
    let id = cluster.ids()[0];
    let read = cluster.start_read(id, "k");
    cluster.await_leader();
    cluster.run(1);
    assert!(cluster.reply(read).is_some());
}
