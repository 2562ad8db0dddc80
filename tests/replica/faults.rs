//! Crashes and partitions: what was acknowledged stays, what was refused never happens, and the rest is called unknown.

use keva::raft::message::{Envelope, Message};
use keva::raft::types::{Index, NodeId};
use keva::replica::io::{NotApplied, Outcome, Request, Ticket};
use keva::util::rng::Rng;

use crate::cluster::{
    Cluster, ELECTION_TIMEOUT_MS, PATIENCE_MS, WRITTEN, not_applied, put, value_in, write_of,
};

/// F1, F30: power off for all nodes at once, many times, under load.
#[test]
fn acknowledged_writes_survive_a_crash_of_all_nodes() {
    let (mut cluster, _) = Cluster::with_leader(3, 1);
    let mut writes = Vec::new();
    for round in 0..10 {
        for n in 0..20 {
            for id in cluster.ids() {
                let key = format!("{round} {n} {id}");
                writes.push((cluster.start_write(id, &key, "v"), key));
            }
            cluster.run(1);
        }
        for id in cluster.ids() {
            cluster.end(id);
        }
        for id in cluster.ids() {
            cluster.start(id);
        }
        cluster.await_leader();
    }
    cluster.settle();
    let mut answered = 0;
    for (ticket, key) in writes {
        let Some(reply) = cluster.reply(ticket) else { continue };
        assert_eq!(reply.outcome, WRITTEN);
        answered += 1;
        for id in cluster.ids() {
            let revision = cluster.replica(id).store().get(&key).map(|item| item.revision);
            assert_eq!(revision, Some(reply.revision), "{key} on {id}");
        }
    }
    assert!(answered > 200, "only {answered} writes were answered before a crash");
}

/// E14: without a majority nothing is answered but "no" and "unknown"; stale reads go on; after healing all goes on.
#[test]
fn a_minority_promises_nothing() {
    for leads in [true, false] {
        let (mut cluster, leader) = Cluster::with_leader(5, 2);
        let revision = cluster.write(leader, "k", "old");
        cluster.settle();
        let one = if leads { leader } else { cluster.others(leader)[0] };
        let other = cluster.others(leader)[1];
        let minority = [one, other];
        for id in minority {
            for majority in cluster.ids().into_iter().filter(|id| !minority.contains(id)) {
                cluster.cut(id, majority);
            }
        }
        let mut asked = Vec::new();
        for n in 0..30 {
            for id in minority {
                asked.push(cluster.submit(id, write_of(put(&format!("{n} {id}"), "v")), 1_000));
                asked.push(cluster.start_read(id, "k"));
                asked.push(cluster.submit(id, Request::Barrier, 1_000));
            }
            cluster.run(20);
        }
        let majority: Vec<NodeId> = cluster.ids().into_iter().filter(|id| !minority.contains(id)).collect();
        cluster.write(majority[0], "k", "new");
        for id in minority {
            assert_eq!(cluster.read_stale(id, "k"), Some("old".into()));
        }
        cluster.run(PATIENCE_MS);
        for ticket in asked {
            let reply = cluster.reply(ticket).expect("every request ends at its deadline");
            assert!(
                matches!(reply.outcome, Outcome::NotApplied(NotApplied::NoLeader) | Outcome::OutcomeUnknown),
                "{reply:?}"
            );
        }
        let waiting = [cluster.start_write(one, "late", "v"), cluster.start_read(one, "k")];
        cluster.heal();
        assert_eq!(cluster.await_reply(waiting[0]).outcome, WRITTEN);
        assert_eq!(value_in(&cluster.await_reply(waiting[1])), Some("new".into()));
        assert!(cluster.replies[&waiting[1]].revision > revision);
        cluster.settle();
    }
}

/// A leader whose process came back at once, so that nobody saw it gone, is given up without an election timeout.
#[test]
fn a_leader_that_was_restarted_at_once_is_noticed() {
    let (mut cluster, leader) = Cluster::with_leader(3, 3);
    let follower = cluster.others(leader)[0];
    cluster.run(50);
    let (before, term) = (cluster.now, cluster.replica(follower).status().term);
    cluster.end(leader);
    cluster.start(leader);
    cluster.write(follower, "k", "v");
    assert!(cluster.replica(follower).status().term > term);
    assert!(cluster.now - before < ELECTION_TIMEOUT_MS, "{} ms", cluster.now - before);
}

/// A new link to a leader that did not restart is no reason for an election.
#[test]
fn a_new_link_alone_elects_nobody() {
    let (mut cluster, leader) = Cluster::with_leader(3, 4);
    let term = cluster.replica(leader).status().term;
    for _ in 0..20 {
        for follower in cluster.others(leader) {
            cluster.sent.clear();
            cluster.connect(follower, leader);
            assert_eq!(cluster.replica(follower).status().leader, Some(leader));
            cluster.run(1);
            let greets = |envelope: &Envelope| {
                (envelope.from, envelope.to) == (leader, follower)
                    && matches!(envelope.message, Message::Heartbeat { .. })
            };
            assert!(cluster.sent.iter().any(greets), "a leader speaks up on a new link");
        }
        cluster.run(20);
    }
    assert_eq!(cluster.replica(leader).status().term, term);
}

/// What one client remembers of its write.
struct Write {
    ticket: Ticket,
    key: String,
}

/// What one client remembers of its read: the newest write of the key that was answered before the read began.
struct Read {
    ticket: Ticket,
    key: String,
    at_least: Index,
}

struct Story {
    cluster: Cluster,
    rng: Rng,
    writes: Vec<Write>,
    reads: Vec<Read>,
}

impl Story {
    /// A few requests on random nodes, over a few keys.
    fn ask(&mut self) {
        for id in self.cluster.up() {
            if self.rng.range(0, 3) == 0 {
                let key = format!("key {}", self.rng.range(0, 5));
                let value = format!("value {}", self.writes.len());
                let write = write_of(put(&key, &value));
                let patience = self.rng.range(1, 400);
                let ticket = self.cluster.submit(id, write, patience);
                self.writes.push(Write { ticket, key });
            }
            if self.rng.range(0, 3) == 0 {
                let key = format!("key {}", self.rng.range(0, 5));
                let answered = self.writes.iter().filter(|write| write.key == key);
                let revision = |write: &Write| {
                    self.cluster.reply(write.ticket).map(|reply| match reply.outcome {
                        WRITTEN => reply.revision,
                        _ => Index(0),
                    })
                };
                let at_least = answered.filter_map(revision).max().unwrap_or_default();
                let ticket = self.cluster.start_read(id, &key);
                self.reads.push(Read { ticket, key, at_least });
            }
        }
    }

    /// A fault, or the end of all faults.
    fn disturb(&mut self) {
        let ids = self.cluster.ids();
        let any = |rng: &mut Rng| ids[rng.range(0, ids.len() as u64) as usize];
        let (one, other) = (any(&mut self.rng), any(&mut self.rng));
        let is_up = self.cluster.up().contains(&one);
        match self.rng.range(0, 10) {
            0 if is_up => self.cluster.crash(one),
            1 if is_up => self.cluster.end(one),
            0..=3 if !is_up => self.cluster.start(one),
            2 => self.cluster.isolate(one),
            3 if one != other => self.cluster.cut_one_way(one, other),
            4 if one != other => self.cluster.connect(one, other),
            5 => {
                let mut rng = Rng::new(self.rng.next_u64());
                let percent = self.rng.range(1, 40);
                self.cluster.lose(move |_| rng.range(0, 100) < percent);
            }
            6 => self.cluster.pause(one),
            7 if is_up => self.cluster.isolate_as_lost(one),
            _ => self.cluster.heal(),
        }
    }

    fn end(&mut self, seed: u64) {
        self.cluster.heal();
        for id in self.cluster.ids() {
            if !self.cluster.up().contains(&id) {
                self.cluster.start(id);
            }
        }
        self.cluster.await_leader();
        self.cluster.run(PATIENCE_MS);
        self.cluster.settle();
        self.check_writes(seed);
        self.check_reads(seed);
    }

    /// E3, E6: a write that was answered is in the log where it was said to be; one that was refused is nowhere in
    /// effect. The values are unique, so the log tells.
    fn check_writes(&self, seed: u64) {
        let history = self.history();
        for (n, write) in self.writes.iter().enumerate() {
            let value = format!("value {n}");
            let runs: Vec<Index> =
                history.iter().filter(|(_, _, of)| *of == value).map(|(index, ..)| *index).collect();
            assert!(runs.len() <= 1, "seed {seed}: {value} ran at {runs:?}");
            match self.cluster.reply(write.ticket) {
                Some(reply) if reply.outcome == WRITTEN => {
                    assert_eq!(runs, [reply.revision], "seed {seed}: {value} was acknowledged");
                }
                Some(reply) if matches!(reply.outcome, Outcome::NotApplied(_)) => {
                    assert!(runs.is_empty(), "seed {seed}: {value} was refused, and ran: {reply:?}");
                }
                _ => {}
            }
        }
    }

    /// C5: a read sees the newest write of its key that was answered before it began, or a later one.
    fn check_reads(&self, seed: u64) {
        for read in &self.reads {
            let Some(reply) = self.cluster.reply(read.ticket) else { continue };
            match &reply.outcome {
                Outcome::Value(item) => {
                    let revision = item.as_ref().map_or(Index(0), |item| item.revision);
                    assert!(revision >= read.at_least, "seed {seed}: {} is stale: {reply:?}", read.key);
                }
                outcome => assert_eq!(*outcome, not_applied(NotApplied::NoLeader), "seed {seed}"),
            }
        }
    }

    /// Every write that took effect, from the log, by the rule that only newer writes of a node run.
    fn history(&self) -> Vec<(Index, String, String)> {
        let id = self.cluster.ids()[0];
        self.cluster.effects(id)
    }
}

/// D13 (checked after every turn), E3, E6, C5, C8: random faults, pauses among them, over three and five nodes.
#[test]
fn clients_are_never_lied_to() {
    let mut written = 0;
    for seed in 0..60 {
        let size = if seed % 3 == 0 { 5 } else { 3 };
        let (cluster, _) = Cluster::with_leader(size, 1_000 + seed);
        let mut story = Story { cluster, rng: Rng::new(seed), writes: Vec::new(), reads: Vec::new() };
        for step in 0..600 {
            story.ask();
            if step % 20 == 19 {
                story.disturb();
            }
            story.cluster.run(1);
        }
        story.end(seed);
        written += story.cluster.replies.values().filter(|reply| reply.outcome == WRITTEN).count();
    }
    assert!(written > 5_000, "only {written} writes went through: the faults are too many to show anything");
}
