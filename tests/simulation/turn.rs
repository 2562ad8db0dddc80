//! One turn of a node, step by step, in the order of `keva::net::event_loop`. Between any two steps the process may
//! stand still, or die.

use keva::limits::SHUTDOWN_MS_MAX;
use keva::net::api::{Action, Render};
use keva::net::peer::PeerEvent;
use keva::raft::message::{AppendOutcome, Envelope, Message, SnapshotOutcome};
use keva::raft::raft::Raft;
use keva::raft::storage::Storage;
use keva::raft::types::Standing;
use keva::replica::io::{Applied, NotApplied, Outcome, Reply};

use crate::env::Env;
use crate::marks::Mark;
use crate::node::{Halt, Node, Process};
use crate::plan::exponential;
use crate::support::sim_disk::SimDisk;
use crate::support::storage_fixture::SimStorage;

/// A step of a turn, named as in the production loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Read,
    Inputs,
    Deadlines,
    Send,
    Sync,
    Answer,
    Write,
    Reap,
}

impl Node {
    /// Goes on with the turn until it is over or the process stands still.
    pub(crate) fn turn(&mut self, env: &mut Env, disks: &[SimDisk]) -> Result<(), Halt> {
        loop {
            let step = self.process.as_ref().expect("only living processes have turns").step;
            let next = self.do_step(env, disks, step)?;
            self.process.as_mut().expect("as above").step = next;
            if self.is_paused(env) {
                return Ok(());
            }
            if step == Step::Reap {
                return self.sleep(env);
            }
        }
    }

    /// The order of a turn. Returns the next step.
    fn do_step(&mut self, env: &mut Env, disks: &[SimDisk], step: Step) -> Result<Step, Halt> {
        Ok(match step {
            Step::Read => {
                self.read(env)?;
                Step::Inputs
            }
            Step::Inputs => {
                self.step(env)?;
                Step::Deadlines
            }
            Step::Deadlines => {
                self.handle_deadlines(env)?;
                Step::Send
            }
            Step::Send => {
                // The process may have stood still since it looked at the clock.
                let now = self.clock.read(env.now);
                self.parts().now = now;
                self.send(env, disks)?;
                Step::Sync
            }
            Step::Sync => {
                self.sync(env, disks)?;
                Step::Answer
            }
            Step::Answer => {
                self.answer(env);
                self.follow(env);
                Step::Write
            }
            Step::Write => {
                self.write(env, disks)?;
                Step::Reap
            }
            Step::Reap => {
                self.reap(env, disks);
                Step::Read
            }
        })
    }

    fn is_paused(&mut self, env: &mut Env) -> bool {
        if let Some((steps, duration)) = self.pause {
            self.pause = steps.checked_sub(1).map(|steps| (steps, duration));
            if self.pause.is_none() {
                let process = self.process.as_ref().expect("as above");
                if process.step != Step::Read {
                    env.mark(Mark::PauseInTurn);
                }
                if process.replica.raft().is_leader() && duration > env.plan.unit() {
                    env.mark(Mark::LongPauseOfLeader);
                }
                let (index, step) = (self.index, process.step);
                env.trace(|| format!("node{} stands still before {step:?} for {duration} us", index + 1));
                self.busy_until = env.now + duration;
            }
        }
        if self.busy_until > env.now {
            self.wake(env, self.busy_until);
            return true;
        }
        false
    }

    fn parts(&mut self) -> &mut Process {
        self.process.as_mut().expect("only living processes have turns")
    }

    /// 1
    fn read(&mut self, env: &mut Env) -> Result<(), Halt> {
        let (index, clock) = (self.index, self.clock);
        let process = self.parts();
        process.now = clock.read(env.now);
        let now = process.now;
        let ready = env.network.take_ready(index);
        for (socket, dialled_by) in env.network.take_accepted(index) {
            if dialled_by < env.plan.nodes {
                process.links.accept(now, socket);
            } else if process.stop_by.is_some() {
                env.network.close(socket);
            } else {
                process.sessions.accept(now, socket);
            }
        }
        let mut peers = 0;
        for socket in ready {
            if process.links.owns(socket) {
                peers += 1;
                process.links.read(env, now, socket);
            } else {
                process.sessions.handle_event(env, now, socket);
            }
        }
        if peers > 2 {
            env.mark(Mark::Busy);
        }
        process.sessions.read(env, now);
        Ok(())
    }

    /// 2
    fn step(&mut self, env: &mut Env) -> Result<(), Halt> {
        let index = self.index;
        let process = self.parts();
        let now = process.now;
        let term_at_start = process.replica.raft().term();
        let mut has_promised = false;
        for event in process.links.take_events() {
            match event {
                PeerEvent::Message(envelope) => {
                    env.trace(|| format!("node{} takes {}", index + 1, describe(&envelope)));
                    note_message(env, &envelope, process.replica.raft());
                    if envelope.message == Message::Admission {
                        env.checks.atlas.on_asked(index, envelope.from);
                    }
                    if envelope.message == Message::RolledBackResponse {
                        env.checks.atlas.on_renounced(index, envelope.from);
                    }
                    let promises = matches!(
                        envelope.message,
                        Message::RequestVote { .. } | Message::AppendEntries { .. }
                    ) && envelope.term >= process.replica.raft().term();
                    let term = process.replica.raft().term();
                    process.replica.handle_envelope(now, envelope)?;
                    if has_promised && process.replica.raft().term() > term {
                        env.mark(Mark::PromiseWithdrawn);
                    }
                    has_promised |= promises;
                }
                PeerEvent::Connected { peer, life } => {
                    env.trace(|| {
                        let (start, disk) = (life.incarnation, life.disk_id);
                        format!("node{} is connected to {peer}, start {start} on {disk:x}", index + 1)
                    });
                    if env.checks.atlas.on_met(index, peer, life) {
                        env.mark(Mark::RolledBackNoticed);
                    }
                    process.replica.handle_peer_connected(now, peer, life);
                }
                PeerEvent::Lost { peer } => {
                    env.trace(|| format!("node{} has lost {peer}", index + 1));
                    process.replica.handle_peer_lost(now, peer);
                }
            }
        }
        if process.replica.raft().term() != term_at_start {
            let term = process.replica.raft().term();
            env.trace(|| format!("node{} is in term {term}", index + 1));
        }
        while let Some((socket, call)) = process.sessions.take_call() {
            let Action::Submit { request, timeout_ms, mut render } = call.action else {
                panic!("users read and write only: {call:?}")
            };
            let mut is_begun = false;
            if let Render::Follow(follow) = &mut render {
                follow.begin(now);
                let serves =
                    process.replica.raft().standing() == Standing::Voter && process.stop_by.is_none();
                is_begun = serves && follow.begins_at_once(process.replica.store().applied_index());
            }
            let deadline = now.after(timeout_ms.unwrap_or(env.plan.timeout_ms));
            let ticket = process.sessions.open_ticket(socket, call.id, render, deadline);
            env.trace(|| format!("node{} is asked on {socket}, until {deadline}: {ticket:?}", index + 1));
            if is_begun {
                let revision = process.replica.store().applied_index();
                let reply = Reply { ticket, revision, outcome: Outcome::Reached };
                process.respond(env, reply);
                continue;
            }
            env.checks.asked.insert((index, ticket), process.replica.raft().term());
            process.replica.submit(now, ticket, request, deadline);
        }
        Ok(())
    }

    /// 3
    fn handle_deadlines(&mut self, env: &mut Env) -> Result<(), Halt> {
        let process = self.parts();
        let now = process.now;
        process.replica.handle_deadline(now)?;
        process.links.handle_deadline(env, now);
        process.sessions.handle_deadline(now);
        Ok(())
    }

    /// 4
    fn send(&mut self, env: &mut Env, disks: &[SimDisk]) -> Result<(), Halt> {
        let process = self.parts();
        let now = process.now;
        let mut messages = std::mem::take(&mut process.messages);
        process.replica.drain_immediate(now, &mut messages)?;
        self.observe(env, disks);
        self.post(env, disks, &messages)?;
        messages.clear();
        let process = self.parts();
        process.messages = messages;
        process.links.flush(env);
        Ok(())
    }

    /// Hands messages to the links. The process may die between any two of them.
    fn post(&mut self, env: &mut Env, disks: &[SimDisk], messages: &[Envelope]) -> Result<(), Halt> {
        for envelope in messages {
            let (index, now) = (self.index, self.parts().now);
            let process = self.process.as_ref().expect("as above");
            let raft = process.replica.raft();
            env.checks.on_send(index, envelope, raft.standing(), &disks[index]);
            if envelope.message == Message::RolledBack && env.checks.atlas.on_accused(index, envelope.to) {
                env.mark(Mark::SetBackNoticed);
            }
            note_sent(env, index, envelope, raft, process.stop_by.is_some());
            let is_sent = self.parts().links.send(env, now, envelope);
            if is_sent {
                env.trace(|| format!("node{} sends {}", index + 1, describe(envelope)));
            }
            if let Some(left) = self.die_at_send {
                self.die_at_send = left.checked_sub(1);
                if self.die_at_send.is_none() {
                    self.parts().links.flush(env);
                    env.mark(Mark::CrashAtSend);
                    return Err(Halt::Killed);
                }
            }
        }
        Ok(())
    }

    /// 5 and the first half of 6
    fn sync(&mut self, env: &mut Env, disks: &[SimDisk]) -> Result<(), Halt> {
        let before = disks[self.index].syncs();
        let process = self.parts();
        let now = process.now;
        process.output = process.replica.sync(now)?;
        let leader = process.replica.raft().leader();
        let name = |id| process.names.iter().find(|(node, _)| *node == id).map(|(_, name)| name.clone());
        process.view.leader = leader.and_then(name);
        process.view.time = process.replica.logical_now(now);
        self.observe(env, disks);
        let syncs = disks[self.index].syncs() - before;
        if syncs > 0 {
            let mut latency = exponential(&mut self.rng, env.plan.sync_mean * syncs);
            if env.plan.sync_mean > env.plan.unit() / 200 && self.rng.u32(..400) == 0 && !env.checks.is_calm {
                latency += env.plan.unit() * 5;
            }
            self.busy_until = self.busy_until.max(env.now + latency);
        }
        Ok(())
    }

    fn observe(&mut self, env: &mut Env, disks: &[SimDisk]) {
        let process = self.process.as_ref().expect("as above");
        env.checks.observe(&mut env.marks, self.index, &process.replica, disks);
    }

    /// 6
    fn answer(&mut self, env: &mut Env) {
        let index = self.index;
        let process = self.parts();
        let now = process.now;
        for reply in std::mem::take(&mut process.output.replies) {
            env.trace(|| format!("node{} answers {:?}: {:?}", index + 1, reply.ticket, reply.outcome));
            let asked_in = env.checks.asked.remove(&(index, reply.ticket));
            note_reply(env, &reply.outcome, asked_in < Some(process.replica.raft().term()), process);
            let is_write_done = matches!(reply.outcome, Outcome::Applied(_));
            let serves = process.replica.raft().standing() == Standing::Voter || !is_write_done;
            assert!(serves, "node{} carries out a write and does not vote yet: {reply:?}", index + 1);
            process.respond(env, reply);
        }
        let late = process.sessions.earliest_deadline();
        assert!(
            late > now,
            "node{}: a request that had to be answered by {late} is not, at {now}",
            index + 1
        );
    }

    /// 7
    fn write(&mut self, env: &mut Env, disks: &[SimDisk]) -> Result<(), Halt> {
        let promises = std::mem::take(&mut self.parts().output.messages);
        self.post(env, disks, &promises)?;
        self.send(env, disks)?;
        let process = self.parts();
        process.sessions.write(env, process.now);
        for ticket in process.sessions.take_drained() {
            process.hub.drained(ticket);
        }
        process.pay(process.now)?;
        self.observe(env, disks);
        Ok(())
    }

    /// 8
    fn reap(&mut self, env: &mut Env, disks: &[SimDisk]) {
        let index = self.index;
        let process = self.parts();
        process.links.reap(env);
        for ticket in process.sessions.reap(env) {
            env.checks.asked.remove(&(index, ticket));
            env.mark(Mark::HungUp);
            process.replica.cancel(ticket);
            process.hub.remove(ticket);
        }
        let waiting = process.replica.in_flight();
        let open = process.sessions.waiting_count();
        assert!(waiting.reads <= open, "more reads wait than were asked");
        assert!(waiting.writes <= 1_000 && waiting.write_bytes <= 8 << 20, "writes pile up: {waiting:?}");
        let raft = process.replica.raft();
        env.note(raft.term().0 << 32 ^ raft.last_index().0 << 8 ^ raft.commit_index().0);
        env.note(disks[index].operations());
    }

    /// A signal: stop in good order.
    pub(crate) fn start_shutdown(&mut self) {
        let now = self.parts().now;
        let process = self.parts();
        if process.stop_by.is_none() {
            process.stop_by = Some(now.after(SHUTDOWN_MS_MAX));
            process.sessions.start_shutdown(now);
            process.hub.end_waits();
            process.replica.start_shutdown(now);
        }
    }

    /// The clean stop is over, or its time.
    pub(crate) fn is_done(&self, now: u64) -> bool {
        let Some(process) = &self.process else { return false };
        let Some(stop_by) = process.stop_by else { return false };
        let is_over = process.replica.is_shut_down() && process.sessions.is_empty();
        process.step == Step::Read && (is_over || stop_by <= self.clock.read(now))
    }
}

fn note_message(env: &mut Env, envelope: &Envelope, raft: &Raft<SimStorage>) {
    match &envelope.message {
        Message::AppendEntriesResponse { outcome: AppendOutcome::Rejected { .. } } => {
            env.mark(Mark::ProbeRejected);
        }
        Message::PreVoteResponse { granted: false, .. } => env.mark(Mark::PreVoteRefused),
        Message::RequestVoteResponse { granted: false } => env.mark(Mark::VoteRefused),
        Message::TimeoutNow => env.mark(Mark::HandedOver),
        Message::HeartbeatResponse { is_full: true, .. } | Message::Heartbeat { is_full: true, .. } => {
            env.mark(Mark::FullTold);
        }
        Message::HeartbeatResponse { .. } if envelope.term > raft.term() => env.mark(Mark::StaleLeaderTold),
        Message::InstallSnapshot { snapshot, chunk, .. } if chunk.is_empty() => {
            let draft = raft.storage().snapshot_draft().filter(|_| raft.is_receiving_snapshot());
            if draft.is_some_and(|draft| draft.last == snapshot.last && draft.written > 0) {
                env.mark(Mark::SnapshotResumed);
            }
        }
        _ => {}
    }
}

fn note_sent(env: &mut Env, node: usize, envelope: &Envelope, raft: &Raft<SimStorage>, is_stopping: bool) {
    match &envelope.message {
        Message::Forward { payloads } => {
            for payload in payloads {
                let number = keva::util::hash::fnv1a_64(&payload[..24]);
                if !env.checks.forwarded.insert((node, number)) {
                    env.marks.hit(Mark::WriteResent);
                }
            }
        }
        Message::InstallSnapshot { offset: 1.., .. } => env.mark(Mark::SnapshotSentInParts),
        Message::InstallSnapshotResponse { outcome: SnapshotOutcome::Refused, .. } => {
            env.mark(Mark::SnapshotRefused);
        }
        Message::TimeoutNow if raft.storage().is_full() && !is_stopping => env.mark(Mark::FullHandedOver),
        _ => {}
    }
}

fn note_reply(env: &mut Env, outcome: &Outcome, is_later_term: bool, process: &Process) {
    match outcome {
        Outcome::Value(_) => {
            if is_later_term {
                env.mark(Mark::ReadOverLeaderChange);
            }
            if !process.replica.raft().is_leader() {
                env.mark(Mark::ReadOnFollower);
            }
        }
        Outcome::Applied(Applied::ConditionFailed { .. }) => env.mark(Mark::ConditionFailed),
        Outcome::NotApplied(NotApplied::DiskFull) => env.mark(Mark::WriteRefusedFull),
        Outcome::NotApplied(NotApplied::NotReady) => env.mark(Mark::RefusedNotReady),
        Outcome::NotApplied(_) => env.mark(Mark::WriteNotApplied),
        Outcome::OutcomeUnknown => env.mark(Mark::WriteUnknown),
        Outcome::Applied(_) | Outcome::Page(_) | Outcome::Count(_) | Outcome::Reached => {}
    }
}

/// A message in a line.
pub(crate) fn describe(envelope: &Envelope) -> String {
    let Envelope { from, to, term, message } = envelope;
    let what = match message {
        Message::Forward { payloads } => format!("Forward of {}", payloads.len()),
        Message::InstallSnapshot { snapshot, offset, chunk } => {
            format!("InstallSnapshot {snapshot:?}, {} bytes at {offset}", chunk.len())
        }
        Message::AppendEntries { prev, entries, commit_index } => {
            format!(
                "AppendEntries prev {prev}, {} entries to {}, commit {commit_index}",
                entries.count(),
                entries.last()
            )
        }
        other => format!("{other:?}"),
    };
    format!("{from} to {to} in term {term}: {what}")
}
