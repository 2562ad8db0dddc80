//! Writes with an idempotency key: whoever repeats one gets what became of the first.

use keva::kv::command::{Command, Condition, Matcher, Write};
use keva::limits::IDEMPOTENCY_MS_MIN;
use keva::raft::message::{Envelope, Message};
use keva::raft::types::NodeId;
use keva::replica::io::{Applied, NotApplied, Outcome, Reply, Request, Ticket};

use crate::cluster::{Cluster, PATIENCE_MS, condition_failed, is_forward, not_applied, put};

fn with_key(key: &str, command: Command) -> Request {
    Request::Write(Write { command, idempotency_key: Some(key.into()) })
}

fn add(by: i64) -> Command {
    Command::Add { key: "n".into(), by, condition: Condition::default(), ttl_ms: None }
}

fn counted(sum: i64) -> Outcome {
    Outcome::Applied(Applied::Counted(sum))
}

#[track_caller]
fn ask(cluster: &mut Cluster, id: NodeId, key: &str, command: Command) -> Reply {
    let ticket = cluster.submit(id, with_key(key, command), PATIENCE_MS);
    cluster.await_reply(ticket)
}

/// The revision and outcome, without the ticket.
fn told(reply: Reply) -> (u64, Outcome) {
    (reply.revision.0, reply.outcome)
}

/// E1, E13: a repeat, on whichever node, gets the first outcome with the first revision, and nothing happens again; also
/// when the first one failed.
#[test]
fn a_repeat_gets_the_first_outcome() {
    let (mut cluster, _) = Cluster::with_leader(3, 1);
    let ids = cluster.ids();
    let create = Command::Put {
        key: "k".into(),
        value: b"v".to_vec(),
        content_type: None,
        condition: Condition { if_match: None, if_none_match: Some(Matcher::Any) },
        ttl_ms: None,
    };
    let revision = cluster.write(ids[0], "k", "v");
    let added = told(ask(&mut cluster, ids[0], "a", add(5)));
    let failed = told(ask(&mut cluster, ids[1], "b", create.clone()));
    assert_eq!((&added.1, &failed.1), (&counted(5), &condition_failed(Some(revision))));
    cluster.write(ids[0], "k", "w");
    for id in ids {
        assert_eq!(told(ask(&mut cluster, id, "a", add(5))), added, "{id}");
        assert_eq!(told(ask(&mut cluster, id, "b", create.clone())), failed, "{id}");
        let reused = ask(&mut cluster, id, "a", add(6));
        assert_eq!(reused.outcome, Outcome::Applied(Applied::KeyReused));
        assert_eq!(cluster.read(id, "n").as_deref(), Some("5"));
    }
}

/// While a client waits for the answer to a write, a second one with its key is refused at once on the same node; on
/// another one it waits, and both get the same answer.
#[test]
fn a_repeat_while_the_first_waits() {
    let (mut cluster, leader) = Cluster::with_leader(3, 2);
    let [here, there] = cluster.others(leader)[..] else { panic!("three nodes") };
    cluster.lose(is_forward);
    let first = cluster.submit(here, with_key("a", add(5)), PATIENCE_MS);
    for command in [add(5), put("k", "v")] {
        let second = cluster.submit(here, with_key("a", command), PATIENCE_MS);
        cluster.run(1);
        assert_eq!(cluster.reply(second).expect("at once").outcome, not_applied(NotApplied::InFlight));
    }
    let other_key = cluster.submit(here, with_key("b", add(1)), PATIENCE_MS);
    let elsewhere = cluster.submit(there, with_key("a", add(5)), PATIENCE_MS);
    cluster.run(20);
    cluster.heal();
    cluster.connect(here, leader);
    cluster.connect(there, leader);
    let (first, elsewhere) = (cluster.await_reply(first), cluster.await_reply(elsewhere));
    assert_eq!(told(first), told(elsewhere));
    assert!(matches!(cluster.await_reply(other_key).outcome, Outcome::Applied(Applied::Counted(_))));
    cluster.settle();
    assert_eq!(cluster.read(leader, "n").as_deref(), Some("6"));
    assert_eq!(ask(&mut cluster, here, "a", add(5)).outcome, counted(5), "the key is free again");
}

/// E9: a client that goes away, or waits no longer, frees its key; its write goes on, and who repeats it gets its outcome.
#[test]
fn a_repeat_after_the_first_client_left() {
    let (mut cluster, leader) = Cluster::with_leader(3, 3);
    let id = cluster.others(leader)[0];
    let answers = |envelope: &Envelope| matches!(envelope.message, Message::AppendEntriesResponse { .. });
    for (key, is_cancelled) in [("a", true), ("b", false)] {
        cluster.lose(answers);
        let first = cluster.submit(id, with_key(key, add(5)), 30);
        cluster.run(10);
        if is_cancelled {
            cluster.cancel(id, first);
        } else {
            assert_eq!(cluster.await_reply(first).outcome, Outcome::OutcomeUnknown);
        }
        let second = cluster.submit(id, with_key(key, add(5)), PATIENCE_MS);
        cluster.run(5);
        assert_eq!(cluster.reply(second), None, "it waits");
        cluster.heal();
        assert!(matches!(cluster.await_reply(second).outcome, Outcome::Applied(Applied::Counted(_))));
    }
    cluster.settle();
    assert_eq!(cluster.read(id, "n").as_deref(), Some("10"), "each was done once");
}

/// E7, E8: an outcome is forgotten by the time in the log, alike on all nodes. A late copy of the write itself, which the
/// log has seen, does not run again all the same.
#[test]
fn outcomes_are_forgotten_in_logical_time() {
    let (mut cluster, leader) = Cluster::with_leader(3, 4);
    let id = cluster.others(leader)[0];
    assert_eq!(ask(&mut cluster, id, "a", add(5)).outcome, counted(5));
    let late = cluster.sent.iter().find(|envelope| is_forward(envelope)).cloned().expect("it was forwarded");
    cluster.run(2_000);
    assert_eq!(ask(&mut cluster, leader, "a", add(5)).outcome, counted(5));
    for id in cluster.ids() {
        cluster.crash(id);
    }
    // However long nobody runs, no time passes.
    cluster.now = cluster.now.after(2 * IDEMPOTENCY_MS_MIN);
    cluster.start_all();
    let leader = cluster.await_leader();
    assert_eq!(ask(&mut cluster, leader, "a", add(5)).outcome, counted(5));
    cluster.sent.clear();
    cluster.run(IDEMPOTENCY_MS_MIN + 100);
    cluster.sent.clear();
    cluster.write(leader, "k", "the log hears of the time");
    assert_eq!(ask(&mut cluster, id, "a", add(5)).outcome, counted(10), "it counts as a new one");
    cluster.inject(Envelope { to: leader, ..late });
    cluster.run(50);
    cluster.settle();
    assert_eq!(cluster.read(id, "n").as_deref(), Some("10"));
}

/// D12, E1: what is remembered is remembered by a node that starts from a snapshot, and by one that got the leader's.
#[test]
fn outcomes_are_in_snapshots() {
    let (mut cluster, leader) = Cluster::with_snapshots(3, 5, 2_000, 1_000);
    let away = cluster.others(leader)[0];
    cluster.isolate(away);
    let first = told(ask(&mut cluster, leader, "a", add(5)));
    for n in 0..60 {
        cluster.write(leader, &format!("{n}"), &"v".repeat(100));
    }
    cluster.run(200);
    assert!(cluster.replica(leader).status().log_start.index.0 > first.0, "the log has forgotten it");
    cluster.heal();
    cluster.settle();
    for id in cluster.others(away) {
        cluster.end(id);
        cluster.start(id);
    }
    cluster.await_leader();
    for id in cluster.ids() {
        assert_eq!(told(ask(&mut cluster, id, "a", add(5))), first, "{id}");
    }
}

/// E5, E6: clients that try again until they know, through any node and over many changes of leaders: each addition is
/// made once.
#[test]
fn additions_are_made_once() {
    for seed in 0..6 {
        let (mut cluster, _) = Cluster::with_leader(3, seed);
        let mut waiting: Vec<(usize, Ticket)> = Vec::new();
        let mut sums = vec![None; 40];
        let mut round = 0;
        while sums.iter().any(Option::is_none) {
            assert!(round < 2_000, "it goes on for ever");
            let id = cluster.ids()[(round + seed as usize) % 3];
            if round % 15 == 7 && round < 300 {
                let leader = cluster.ids().into_iter().find(|id| cluster.replica(*id).raft().is_leader());
                if let Some(leader) = leader {
                    cluster.crash(leader);
                    cluster.run(5);
                    waiting.clear();
                    cluster.start(leader);
                }
            }
            let todo = (0..40).filter(|n| sums[*n].is_none() && waiting.iter().all(|(other, _)| other != n));
            for n in todo.take(4).collect::<Vec<_>>() {
                waiting.push((n, cluster.submit(id, with_key(&format!("key {n}"), add(1)), 40)));
            }
            cluster.run(10);
            waiting.retain(|(n, ticket)| {
                let Some(reply) = cluster.reply(*ticket) else { return true };
                if let Outcome::Applied(Applied::Counted(sum)) = reply.outcome {
                    sums[*n] = Some(sum);
                }
                false
            });
            round += 1;
        }
        cluster.settle();
        let leader = cluster.await_leader();
        assert_eq!(cluster.read(leader, "n").as_deref(), Some("40"), "seed {seed}");
        let mut sums: Vec<i64> = sums.into_iter().flatten().collect();
        sums.sort_unstable();
        assert_eq!(sums, (1..=40).collect::<Vec<i64>>(), "everybody got a sum of their own");
    }
}
