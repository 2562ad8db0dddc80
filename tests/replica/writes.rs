//! Writes: answered where they were made, run once, and never called off when they may still happen.

use keva::kv::command::{Command, Condition, Matcher};
use keva::kv::payload::Payload;
use keva::kv::session::WriteId;
use keva::raft::message::{Envelope, Message};
use keva::raft::storage::Storage;
use keva::raft::types::{Incarnation, Index, NodeId, Standing};
use keva::replica::io::{InFlight, NotApplied, Outcome, Request};
use keva::util::time::LogicalTime;

use crate::cluster::{
    Cluster, ELECTION_TIMEOUT_MS, WRITTEN, condition_failed, is_forward, node, not_applied, put, write_of,
};

fn payload(id: WriteId, command: &Command) -> Vec<u8> {
    Payload { id, time: LogicalTime::default(), write: command.clone().into() }.encode()
}

/// A Forward as `from` would send it, if it had numbered this write so.
fn forward(from: NodeId, to: NodeId, id: WriteId, command: &Command) -> Envelope {
    let payloads = vec![payload(id, command)];
    Envelope { from, to, term: Default::default(), message: Message::Forward { payloads } }
}

#[test]
fn one_node_alone_takes_writes_and_reads() {
    let (mut cluster, leader) = Cluster::with_leader(1, 1);
    let revision = cluster.write(leader, "a", "1");
    assert_eq!(cluster.read(leader, "a"), Some("1".into()));
    assert!(cluster.write(leader, "a", "2") > revision);
    assert_eq!(cluster.read(leader, "a"), Some("2".into()));
    assert_eq!(cluster.read(leader, "b"), None);
}

/// A node answers a write when it has applied it itself, so its client's next read sees it, even a stale one.
#[test]
fn a_client_reads_its_own_write_on_every_node() {
    let (mut cluster, _) = Cluster::with_leader(3, 2);
    for id in cluster.ids() {
        for round in 0..3 {
            let value = format!("{id} {round}");
            let revision = cluster.write(id, "k", &value);
            assert_eq!(cluster.read_stale(id, "k"), Some(value.clone()));
            assert_eq!(cluster.read(id, "k"), Some(value));
            assert_eq!(cluster.replica(id).store().get("k").map(|item| item.revision), Some(revision));
        }
    }
    cluster.settle();
}

/// A forwarded write does not wait for the next heartbeat to learn that it is committed.
#[test]
fn a_write_takes_round_trips_not_heartbeats() {
    let (mut cluster, leader) = Cluster::with_leader(3, 3);
    let follower = cluster.others(leader)[0];
    for (id, limit) in [(leader, 3), (follower, 6)] {
        let before = cluster.now;
        cluster.write(id, "k", "v");
        assert!(cluster.now - before <= limit, "{} ms on {id}", cluster.now - before);
    }
}

/// E5: of two writers that both saw the same revision, one wins, on whatever nodes they are.
#[test]
fn conditions_are_judged_in_log_order() {
    let (mut cluster, _) = Cluster::with_leader(3, 4);
    let ids = cluster.ids();
    let revision = cluster.write(ids[0], "k", "0");
    let seen = Condition { if_match: Some(Matcher::Revisions(vec![revision])), if_none_match: None };
    let swap = |value: &str| {
        write_of(Command::Put {
            key: "k".into(),
            value: value.into(),
            content_type: None,
            condition: seen.clone(),
            ttl_ms: None,
        })
    };
    let tickets: Vec<_> =
        ids.into_iter().map(|id| cluster.submit(id, swap(&id.to_string()), 1_000)).collect();
    let replies: Vec<_> = tickets.into_iter().map(|ticket| cluster.await_reply(ticket)).collect();
    let winner = replies.iter().find(|reply| reply.outcome == WRITTEN).expect("one must win");
    for reply in replies.iter().filter(|reply| reply.ticket != winner.ticket) {
        let current = Some(winner.revision);
        assert_eq!(reply.outcome, condition_failed(current));
    }
}

/// E1, E4: the leader dies with a write that is in its log and in one other's. The writer sends it again to the next
/// leader, which has it already: it is in the log twice and runs once, and a write in between is not undone.
#[test]
fn a_write_sent_again_runs_once() {
    let (mut cluster, leader) = Cluster::with_leader(3, 5);
    let [holder, writer] = cluster.others(leader)[..] else { panic!("three nodes") };
    // The holder gets the entry, but the leader does not learn of it, and the writer does not see it.
    cluster.cut_one_way(holder, leader);
    cluster.cut_one_way(leader, writer);
    let write = cluster.start_write(writer, "k", "first");
    cluster.run(10);
    assert_eq!(cluster.copies_in_log(holder, "k"), 1);
    assert_eq!(cluster.reply(write), None);
    cluster.crash(leader);
    let reply = cluster.await_reply(write);
    assert_eq!(reply.outcome, WRITTEN);
    // Only the holder could win, so the first copy is the one that was answered; the second follows.
    cluster.write(holder, "other", "x");
    assert_eq!(cluster.copies_in_log(holder, "k"), 2, "the test is about a write that is there twice");
    cluster.heal();
    cluster.start(leader);
    cluster.settle();
    for id in cluster.ids() {
        let item = cluster.replica(id).store().get("k").expect("written");
        assert_eq!(item.revision, reply.revision, "only the first copy ran");
    }
}

/// The same with many writes on all nodes while leaders come and go: all are answered, each ran once.
#[test]
fn fail_over_is_a_pause_and_not_an_error() {
    let (mut cluster, _) = Cluster::with_leader(5, 6);
    let mut writes = Vec::new();
    for round in 0..4 {
        for n in 0..20 {
            for id in cluster.up() {
                let key = format!("{round} {n} {id}");
                // Only the first copy finds the key absent.
                let condition = Condition { if_match: None, if_none_match: Some(Matcher::Any) };
                let write = Command::Put { key, value: vec![], content_type: None, condition, ttl_ms: None };
                writes.push((id, cluster.submit(id, write_of(write), 5_000)));
            }
            cluster.run(1);
        }
        let leader = cluster.leader().expect("a leader for every round");
        // The clients of the node that crashes go down with it; this test is about the others'.
        writes.retain(|(id, ticket)| *id != leader || cluster.reply(*ticket).is_some());
        cluster.crash(leader);
        cluster.await_leader();
        cluster.start(leader);
        cluster.await_leader();
    }
    for (_, ticket) in writes {
        assert_eq!(cluster.await_reply(ticket).outcome, WRITTEN);
    }
    cluster.settle();
}

/// A link that breaks and comes back loses what was on it. The write is sent again, without a change of leader.
#[test]
fn a_new_link_to_the_leader_gets_the_waiting_writes() {
    let (mut cluster, leader) = Cluster::with_leader(3, 7);
    let writer = cluster.others(leader)[0];
    let term = cluster.replica(leader).status().term;
    cluster.lose(is_forward);
    let write = cluster.start_write(writer, "k", "v");
    cluster.run(5);
    assert_eq!(cluster.reply(write), None);
    cluster.heal();
    cluster.connect(writer, leader);
    let before = cluster.now;
    assert_eq!(cluster.await_reply(write).outcome, WRITTEN);
    assert!(cluster.now - before < ELECTION_TIMEOUT_MS);
    assert_eq!(cluster.replica(leader).status().term, term);
}

/// A leader that has a write in its log does not append it again when the writer's link is reset.
#[test]
fn a_leader_filters_what_it_has_proposed() {
    let (mut cluster, leader) = Cluster::with_leader(3, 8);
    let writer = cluster.others(leader)[0];
    // Nothing can be committed, so the writes keep waiting.
    cluster.lose(|envelope| matches!(envelope.message, Message::AppendEntriesResponse { .. }));
    let writes: Vec<_> = (0..3).map(|n| cluster.start_write(writer, &format!("k{n}"), "v")).collect();
    for _ in 0..5 {
        cluster.run(3);
        cluster.connect(writer, leader);
    }
    cluster.run(3);
    let forwards = cluster.sent.iter().filter(|envelope| is_forward(envelope)).count();
    assert!(forwards >= 5, "sent again after each reset, not {forwards} times");
    for n in 0..3 {
        assert_eq!(cluster.copies_in_log(leader, &format!("k{n}")), 1);
    }
    cluster.heal();
    cluster.connect(leader, writer);
    for write in writes {
        assert_eq!(cluster.await_reply(write).outcome, WRITTEN);
    }
}

/// E3, E8: a write that a later one of the same node overtook will never run, and its client is told so for certain.
#[test]
fn an_overtaken_write_is_surely_not_applied() {
    let (mut cluster, leader) = Cluster::with_leader(3, 9);
    let writer = cluster.others(leader)[0];
    cluster.lose(is_forward);
    let lost = cluster.start_write(writer, "lost", "v");
    cluster.run(5);
    // The link is the same one, as far as the writer can see.
    cluster.lose(|_| false);
    let later = cluster.start_write(writer, "later", "v");
    assert_eq!(cluster.await_reply(later).outcome, WRITTEN);
    assert_eq!(cluster.await_reply(lost).outcome, not_applied(NotApplied::Superseded));
    // Even if the lost message turns up now.
    let id = WriteId { origin: writer, incarnation: cluster.incarnation(writer), seq: 1 };
    cluster.inject(forward(writer, leader, id, &put("lost", "v")));
    cluster.run(50);
    assert_eq!(cluster.read(writer, "lost"), None);
}

/// E1: a forward from before the writer's restart that arrives after a newer write changes nothing, at a leader that
/// has proposed the newer one and at one that has only applied it.
#[test]
fn a_late_forward_of_an_earlier_incarnation_is_dropped() {
    let (mut cluster, leader) = Cluster::with_leader(3, 10);
    let writer = cluster.others(leader)[0];
    cluster.write(writer, "k", "old");
    cluster.crash(writer);
    cluster.run(5);
    cluster.start(writer);
    cluster.await_leader();
    cluster.write(writer, "k", "new");
    let late = WriteId { origin: writer, incarnation: Incarnation(1), seq: 7 };
    for round in 0..2 {
        let leader = cluster.leader().expect("a leader");
        let last_index = cluster.replica(leader).status().last_index;
        cluster.inject(forward(writer, leader, late, &put("k", "late")));
        cluster.run(20);
        assert_eq!(cluster.replica(leader).status().last_index, last_index, "not even appended");
        assert_eq!(cluster.read(writer, "k"), Some("new".into()));
        if round == 0 {
            cluster.crash(leader);
            cluster.run(1);
            cluster.await_leader();
        }
    }
}

/// A leader appends only what it can decode and what its sender has numbered.
#[test]
fn a_leader_checks_forwarded_writes() {
    let (mut cluster, leader) = Cluster::with_leader(3, 11);
    let [sender, other] = cluster.others(leader)[..] else { panic!("three nodes") };
    let last_index = cluster.replica(leader).status().last_index;
    let id = |origin| WriteId { origin, incarnation: Incarnation(1), seq: 1 };
    cluster.inject(forward(sender, leader, id(other), &put("k", "v")));
    cluster.inject(forward(sender, leader, id(leader), &put("k", "v")));
    let garbage = vec![vec![], vec![7; 100], payload(id(sender), &put("k", "v"))[..30].to_vec()];
    let message = Message::Forward { payloads: garbage };
    cluster.inject(Envelope { from: sender, to: leader, term: Default::default(), message });
    let stranger = node(77);
    let message = forward(stranger, leader, id(stranger), &put("k", "v"));
    let now = cluster.clock(leader);
    cluster.replica_mut(leader).handle_envelope(now, message).expect("memory works");
    cluster.run(20);
    assert_eq!(cluster.replica(leader).status().last_index, last_index);
    assert_eq!(cluster.read(sender, "k"), None);
}

/// E2: a node that is not the leader does not pass a forwarded write on.
#[test]
fn a_follower_drops_forwards() {
    let (mut cluster, leader) = Cluster::with_leader(3, 12);
    let [sender, follower] = cluster.others(leader)[..] else { panic!("three nodes") };
    let id = WriteId { origin: sender, incarnation: Incarnation(1), seq: 1 };
    cluster.inject(forward(sender, follower, id, &put("k", "v")));
    cluster.run(30);
    assert!(!cluster.sent.iter().any(is_forward));
    assert_eq!(cluster.replica(follower).in_flight(), InFlight::default());
    assert_eq!(cluster.read(sender, "k"), None);
}

/// E3: a write that never left the node is surely not applied at its deadline, also later. One that did is unknown.
#[test]
fn deadlines_tell_unsent_from_unknown() {
    let (mut cluster, leader) = Cluster::with_leader(3, 13);
    let writer = cluster.others(leader)[0];
    cluster.lose(|envelope| !is_forward(envelope));
    let sent = cluster.submit(writer, write_of(put("sent", "v")), 5);
    let on_leader = cluster.submit(leader, write_of(put("on leader", "v")), 5);
    cluster.run(4);
    assert_eq!((cluster.reply(sent), cluster.reply(on_leader)), (None, None), "not before the deadline");
    cluster.run(1);
    for ticket in [sent, on_leader] {
        assert_eq!(cluster.reply(ticket).map(|reply| &reply.outcome), Some(&Outcome::OutcomeUnknown));
    }

    cluster.isolate(writer);
    cluster
        .run_until("the writer knows no leader", |cluster| cluster.replica(writer).status().leader.is_none());
    let unsent = cluster.submit(writer, write_of(put("unsent", "v")), 5);
    cluster.run(5);
    assert_eq!(cluster.reply(unsent).map(|reply| &reply.outcome), Some(&not_applied(NotApplied::NoLeader)));
    cluster.heal();
    cluster.await_leader();
    cluster.settle();
    assert_eq!(cluster.read(writer, "unsent"), None);
    // Both were in the leader's log, and nobody else's write overtook them.
    assert_eq!(cluster.read(writer, "on leader"), Some("v".into()));
    assert_eq!(cluster.read(writer, "sent"), Some("v".into()));
}

/// E9: a client that goes away does not stop a write that may be in a log; one that surely is in none is dropped.
#[test]
fn a_cancelled_write_goes_on_only_if_it_was_sent() {
    let (mut cluster, leader) = Cluster::with_leader(3, 14);
    let writer = cluster.others(leader)[0];
    let sent = cluster.start_write(writer, "sent", "v");
    // Lost at first, so that it is the writer that has to remember it.
    cluster.lose(is_forward);
    cluster.run(1);
    cluster.cancel(writer, sent);
    cluster.heal();
    cluster.connect(writer, leader);
    cluster.run(20);
    assert_eq!(cluster.read(leader, "sent"), Some("v".into()));

    cluster.isolate(writer);
    cluster
        .run_until("the writer knows no leader", |cluster| cluster.replica(writer).status().leader.is_none());
    let unsent = cluster.start_write(writer, "unsent", "v");
    cluster.run(1);
    cluster.cancel(writer, unsent);
    assert_eq!(cluster.replica(writer).in_flight(), InFlight::default());
    cluster.heal();
    cluster.await_leader();
    cluster.settle();
    assert_eq!(cluster.read(writer, "unsent"), None);
}

/// An answer that is there already is not given to a client that has gone.
#[test]
fn a_cancelled_request_is_never_answered() {
    let (mut cluster, leader) = Cluster::with_leader(3, 15);
    let write = cluster.start_write(leader, "k", "v");
    let read = cluster.start_read(leader, "k");
    let stopped = cluster.submit(leader, Request::Barrier, 0);
    for ticket in [write, read, stopped] {
        cluster.cancel(leader, ticket);
    }
    cluster.run(100);
    assert_eq!(cluster.replies.len(), 0);
    assert_eq!(cluster.replica(leader).in_flight(), InFlight::default());
}

/// Writes of one node keep their order, also over a leader change.
#[test]
fn writes_of_one_node_keep_their_order() {
    let (mut cluster, leader) = Cluster::with_leader(3, 16);
    let writer = cluster.others(leader)[0];
    let writes: Vec<_> = (0..100)
        .map(|n| {
            if n == 50 {
                cluster.run(2);
                cluster.crash(leader);
            }
            cluster.start_write(writer, "k", &n.to_string())
        })
        .collect();
    let revisions: Vec<Index> = writes.iter().map(|write| cluster.await_reply(*write).revision).collect();
    assert!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
    assert_eq!(cluster.read(writer, "k"), Some("99".into()));
}

/// An answer that is there in the turn in which time is up is given.
#[test]
fn an_answer_at_the_deadline_is_an_answer() {
    let (mut cluster, leader) = Cluster::with_leader(3, 17);
    let follower = cluster.others(leader)[0];
    let before = cluster.now;
    cluster.write(follower, "k", "1");
    let takes = cluster.now - before;
    for (patience, outcome) in [(takes, WRITTEN), (takes - 1, Outcome::OutcomeUnknown)] {
        let write = cluster.submit(follower, write_of(put("k", "2")), patience);
        assert_eq!(cluster.await_reply(write).outcome, outcome);
        cluster.settle();
    }
}

/// A write whose time is up when a leader is found is not sent any more: its client is told that it never was.
#[test]
fn a_write_is_not_sent_at_its_deadline() {
    let (mut cluster, leader) = Cluster::with_leader(3, 18);
    let writer = cluster.others(leader)[0];
    cluster.isolate(writer);
    cluster
        .run_until("the writer knows no leader", |cluster| cluster.replica(writer).status().leader.is_none());
    let write = cluster.submit(writer, write_of(put("k", "v")), 3);
    cluster.run(2);
    let leads = Message::Heartbeat {
        commit_index: Index(0),
        round: Default::default(),
        is_full: false,
        time: Default::default(),
    };
    let status = cluster.replica(leader).status();
    cluster.heal();
    cluster.lose(move |envelope| envelope.to == writer);
    cluster.inject(Envelope { from: leader, to: writer, term: status.term, message: leads });
    cluster.run(1);
    assert_eq!(cluster.replica(writer).status().leader, Some(leader));
    assert_eq!(cluster.reply(write).map(|reply| &reply.outcome), Some(&not_applied(NotApplied::NoLeader)));
    assert!(!cluster.sent.iter().any(is_forward));
}

/// I1: a new leader appends nothing of its own choice before what it inherited is committed.
/// Covers: S44
#[test]
fn a_new_leader_commits_what_it_inherited_first() {
    let (mut cluster, leader) = Cluster::with_leader(3, 19);
    let next = cluster.others(leader)[0];
    cluster.crash(leader);
    let write = cluster.start_write(next, "k", "v");
    cluster.lose(|envelope| matches!(envelope.message, Message::AppendEntriesResponse { .. }));
    cluster.run_until("there is a new leader", |cluster| {
        cluster.up().iter().any(|id| cluster.replica(*id).raft().is_leader())
    });
    cluster.run(20);
    for id in cluster.up() {
        assert_eq!(cluster.copies_in_log(id, "k"), 0);
    }
    cluster.heal();
    assert_eq!(cluster.await_reply(write).outcome, WRITTEN);
}

/// F22: a node whose incarnation went back (its directory is an older copy) cannot write at first, and says so for
/// certain; when it has applied what its other life wrote, it goes on with an incarnation above that.
#[test]
fn a_node_with_an_old_incarnation_goes_on_above_the_newer_one() {
    let (mut cluster, leader) = Cluster::with_leader(3, 20);
    let [writer, other] = cluster.others(leader)[..] else { panic!("three nodes") };
    let id = WriteId { origin: writer, incarnation: Incarnation(9), seq: 1 };
    // The leader's answers are late, so that the writer still has to learn what it wrote.
    cluster.pause(writer);
    cluster.inject(forward(writer, leader, id, &put("k", "newer life")));
    cluster.run(5);
    let waiting = cluster.start_write(writer, "k", "older life");
    cluster.unpause();
    assert_eq!(cluster.await_reply(waiting).outcome, not_applied(NotApplied::Superseded));
    assert_eq!(cluster.read(other, "k"), Some("newer life".into()));
    let incarnation = cluster.replica(writer).raft().storage().incarnation();
    assert_eq!(incarnation, Incarnation(10));
    cluster.write(writer, "k", "older life");
    assert_eq!(cluster.read(other, "k"), Some("older life".into()));
    // The next start counts on from there.
    cluster.crash(writer);
    cluster.start(writer);
    assert_eq!(cluster.incarnation(writer), Incarnation(11));
    cluster.await_leader();
    cluster.write(writer, "k", "next life");
}

/// E3, E4, F21: a node whose disk was lost numbers its writes from 1 again. It takes none before it is admitted, and
/// then it has an incarnation above all that its earlier life used.
#[test]
fn a_write_of_an_earlier_life_answers_nobody() {
    let (mut cluster, leader) = Cluster::with_leader(3, 21);
    let writer = cluster.others(leader)[0];
    cluster.write(writer, "k", "earlier life");
    cluster.crash(writer);
    cluster.wipe(writer);
    cluster.start(writer);
    let refused = cluster.start_write(writer, "k", "too early");
    assert_eq!(cluster.await_reply(refused).outcome, not_applied(NotApplied::NotReady));
    cluster.run_until("it is admitted", |cluster| {
        cluster.replica(writer).status().standing == Standing::Voter
            && cluster.replica(writer).raft().storage().incarnation() > Incarnation(1)
    });
    cluster.write(writer, "k", "later life");
    assert_eq!(cluster.read(leader, "k"), Some("later life".into()));
    cluster.settle();
}
