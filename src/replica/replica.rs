//! The replica: raft, the state machine and the waiting requests of one node, as one deterministic machine.
//!
//! One turn of its owner: any number of `handle_*`, `submit` and `cancel`; [`Replica::handle_deadline`];
//! [`Replica::drain_immediate`]; [`Replica::sync`]; `drain_immediate` again.

use crate::kv::command::Command;
use crate::kv::history::History;
use crate::kv::store::Store;
use crate::limits::WRITE_SEQ_START_BITS;
use crate::raft::message::{Envelope, Message};
use crate::raft::raft::{Config, Raft};
use crate::raft::storage::{Storage, StorageError};
use crate::raft::types::{Incarnation, Index, Life, NodeId, Standing, Term};
use crate::replica::clock::Clock;
use crate::replica::expiry::Upkeep;
use crate::replica::io::{
    Consistency, Housekeeping, NotApplied, Outcome, Reply, Request, Ticket, TurnOutput,
};
use crate::replica::leadership::Leadership;
use crate::replica::lives::{Lives, Sequel};
use crate::replica::reads::{Asked, Reads, before_first_context};
use crate::replica::restore::restore;
use crate::replica::snapshots::{Snapshots, Traffic};
use crate::replica::writes::Writes;
use crate::util::mutation::mutant;
use crate::util::time::{LogicalTime, Millis};

/// What a replica needs to know from the start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaConfig {
    /// This node.
    pub id: NodeId,
    /// How often this node's process was started on its working directory, this start included; durable.
    pub incarnation: Incarnation,
    /// All voters, this node included.
    pub voters: Vec<NodeId>,
    /// The base of the election timeout, in milliseconds.
    pub election_timeout_ms: u64,
    /// Between two heartbeats of a leader, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// For election timeouts.
    pub seed: u64,
    /// Bytes of the log behind which a snapshot is taken at the earliest; with more data, a third of
    /// the data's size.
    pub snapshot_log_bytes: u64,
    /// Bytes of past changes that are kept for those who follow them.
    pub history_bytes: usize,
    /// Keys that one turn removes for an entry that removes all keys with a prefix, and counts for requests that ask
    /// how many there are.
    pub keys_per_turn: usize,
}

/// See the module's text.
pub struct Replica<S: Storage> {
    pub(super) raft: Raft<S>,
    pub(super) id: NodeId,
    pub(super) voters: Vec<NodeId>,
    pub(super) store: Store,
    /// Entries up to here may be applied.
    pub(super) committed: Index,
    pub(super) writes: Writes,
    pub(super) reads: Reads,
    pub(super) leadership: Leadership,
    pub(super) clock: Clock,
    pub(super) upkeep: Upkeep,
    pub(super) history: History,
    pub(super) history_bytes: usize,
    pub(super) keys_per_turn: usize,
    /// The term and leader that everything offered and asked was meant for.
    view: (Term, Option<NodeId>),
    pub(super) snapshots: Snapshots,
    lives: Lives,
    /// Answers found since the last turn's end.
    pub(super) replies: Vec<Reply>,
    stopping: bool,
    /// The term in which this node, while stopping, began to hand its leadership over.
    handed_over_in: Option<Term>,
}

impl<S: Storage> Replica<S> {
    /// Starts from what the storage holds: the newest snapshot is read, and entries known to be committed are applied
    /// from the first turns on.
    ///
    /// # Errors
    /// When the storage fails, or this version of Keva cannot read the snapshot.
    ///
    /// # Panics
    /// When the incarnation is 0.
    pub fn new(config: ReplicaConfig, storage: S, now: Millis) -> Result<Replica<S>, StorageError> {
        assert!(config.incarnation.0 > 0, "incarnations are counted from 1");
        let mut store = match storage.snapshot() {
            Some(snapshot) => restore(&storage, snapshot)?,
            None => Store::default(),
        };
        store.set_changes_max(config.history_bytes);
        let before_first = before_first_context(storage.standing(), config.incarnation, config.seed);
        let raft_config = Config {
            id: config.id,
            voters: config.voters.clone(),
            election_timeout_ms: config.election_timeout_ms,
            heartbeat_interval_ms: config.heartbeat_interval_ms,
            seed: config.seed,
        };
        let raft = Raft::new(raft_config, storage, now)?;
        Ok(Replica {
            id: config.id,
            voters: config.voters,
            committed: raft.commit_index(),
            // Numbered from anywhere on: after a disk was set back, the same incarnation may have been used before, and the
            // same numbers must not be.
            writes: Writes::new(
                config.id,
                config.incarnation,
                config.seed >> (u64::BITS - WRITE_SEQ_START_BITS),
            ),
            // After an election timeout without an answer the leader would have been given up anyway.
            reads: Reads::new(before_first, config.election_timeout_ms),
            leadership: Leadership::default(),
            clock: Clock::starting_at(store.logical_time(), now),
            upkeep: Upkeep::default(),
            history: History::new(store.applied_index(), config.history_bytes),
            history_bytes: config.history_bytes,
            keys_per_turn: config.keys_per_turn,
            view: (raft.term(), raft.leader()),
            snapshots: Snapshots::new(config.snapshot_log_bytes),
            lives: Lives::default(),
            replies: Vec::new(),
            stopping: false,
            handed_over_in: None,
            store,
            raft,
        })
    }

    /// Takes a message from a peer; the link's greeting has made sure that the sender is who it says.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn handle_envelope(&mut self, now: Millis, envelope: Envelope) -> Result<(), StorageError> {
        if let Message::Forward { payloads } = envelope.message {
            self.on_forward(envelope.from, payloads);
            return Ok(());
        }
        let (from, to, term) = (envelope.from, envelope.to, envelope.term);
        let time = match &envelope.message {
            Message::Heartbeat { time, .. } => *time,
            _ => LogicalTime::default(),
        };
        self.raft.step(now, envelope)?;
        let view = (self.raft.term(), self.raft.leader());
        if time > LogicalTime::default() && to == self.id && view == (term, Some(from)) {
            self.clock.hear(term, time);
        }
        self.on_view();
        if self.raft.standing() != Standing::Voter && self.writes.in_flight().0 > 0 {
            // It has just been told that it has a past that it does not know. Its writes may bear names of that time.
            self.expire_writes(Millis::NEVER);
        }
        Ok(())
    }

    /// A (new) outgoing link to the peer stands, and its greeting said which life of the peer it leads to. What was in
    /// flight on an earlier link may be lost.
    ///
    /// On the same disk, a larger incarnation than before means that the process was restarted; a smaller one, or the
    /// same one of another process, that an older copy of the disk was put in its place. Another disk means that the one
    /// before was lost.
    pub fn handle_peer_connected(&mut self, now: Millis, peer: NodeId, life: Life) {
        if !self.voters.contains(&peer) || peer == self.id {
            return;
        }
        let sequel = self.lives.meet(peer, life);
        if sequel != Sequel::Same && self.raft.leader() == Some(peer) {
            // The leader's process came back so fast that nobody saw it gone. It leads no more.
            self.raft.handle_peer_lost(now, peer);
        }
        match sequel {
            Sequel::Replaced => self.raft.handle_peer_replaced(now, peer),
            Sequel::RolledBack => self.raft.handle_peer_rolled_back(now, peer),
            Sequel::Same | Sequel::Restarted => {}
        }
        self.raft.handle_peer_connected(peer);
        self.on_view();
        if self.raft.leader() == Some(peer) {
            self.writes.offer_again();
            self.reads.ask_again();
        }
    }

    /// The peer's process is known to have ended: its link broke and a new connection was refused.
    pub fn handle_peer_lost(&mut self, now: Millis, peer: NodeId) {
        self.raft.handle_peer_lost(now, peer);
        self.on_view();
    }

    /// Takes a client's request. The answer comes, with the same ticket, in some later [`TurnOutput`], perhaps this
    /// turn's, at the latest in the first turn at or after `deadline`. There is exactly one answer per ticket, unless
    /// it is cancelled.
    ///
    /// # Panics
    /// When a write breaks a rule of [`Command::check`](crate::kv::command::Command::check), or the ticket is waiting
    /// already.
    pub fn submit(&mut self, now: Millis, ticket: Ticket, request: Request, deadline: Millis) {
        let waits = self.writes.has_ticket(ticket) || self.reads.has_ticket(ticket);
        assert!(!waits, "{ticket:?} is waiting already; a ticket names one request");
        if self.stopping {
            return self.answer(ticket, Outcome::NotApplied(NotApplied::Stopping));
        }
        let is_stale = matches!(
            request,
            Request::Read { consistency: Consistency::Stale, .. }
                | Request::List { consistency: Consistency::Stale, .. }
        );
        if deadline <= now && !is_stale {
            return self.answer(ticket, Outcome::NotApplied(NotApplied::NoLeader));
        }
        if let Some(reason) = self.refusal(&request) {
            return self.answer(ticket, Outcome::NotApplied(reason));
        }
        let taken = match request {
            Request::Write(mut write) => {
                if mutant("condition-at-submit") && self.holds(&write.command) {
                    write.command.forget_condition();
                }
                self.writes.add(ticket, write, deadline)
            }
            Request::Read { key, .. } if is_stale => {
                self.reads.add_confirmed(ticket, Asked::Value(key), deadline)
            }
            Request::List { range, listing, .. } if is_stale => {
                self.reads.add_confirmed(ticket, Asked::from((range, listing)), deadline)
            }
            Request::Read { key, .. } => self.reads.add(ticket, Asked::Value(key), deadline),
            Request::List { range, listing, .. } => {
                self.reads.add(ticket, Asked::from((range, listing)), deadline)
            }
            Request::Barrier => self.reads.add(ticket, Asked::Turn, deadline),
        };
        if let Err(reason) = taken {
            self.answer(ticket, Outcome::NotApplied(reason));
        }
    }

    /// Whether a write's condition holds in the present state.
    fn holds(&self, command: &Command) -> bool {
        let current = command.key().and_then(|key| self.store.get(key)).map(|item| item.revision);
        command.condition().is_some_and(|condition| condition.holds(current))
    }

    /// Why this node does not take the request at all.
    ///
    /// One that does not vote serves nothing of its own: what it has may be as old as can be, and what it writes could
    /// bear the name of a write of its earlier life. Reads that the leader confirms are as good as anybody's.
    fn refusal(&self, request: &Request) -> Option<NotApplied> {
        let is_confirmed = matches!(
            request,
            Request::Read { consistency: Consistency::Linearizable, .. }
                | Request::List { consistency: Consistency::Linearizable, .. }
        );
        if self.raft.standing() != Standing::Voter && !is_confirmed && !mutant("serves-before-admission") {
            return Some(NotApplied::NotReady);
        }
        let Request::Write(write) = request else { return None };
        self.has_no_space_for(&write.command).then_some(NotApplied::DiskFull)
    }

    /// The client went away; no answer will come. A write that may be in some log goes on; one that surely is in none
    /// is dropped. Unknown tickets are ignored: their answer may just have been given.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.replies.retain(|reply| reply.ticket != ticket);
        let _ = self.writes.cancel(ticket) || self.reads.cancel(ticket);
    }

    /// Does what is due. Called after the turn's input, so that a message that has arrived counts before a timeout.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn handle_deadline(&mut self, now: Millis) -> Result<(), StorageError> {
        self.raft.handle_deadline(now)?;
        self.on_view();
        self.reads.maybe_ask_again(now);
        Ok(())
    }

    /// When the next turn is due without any input. [`Millis`] 0 when work is left over.
    #[must_use]
    pub fn next_deadline(&self) -> Millis {
        let left_over = self.committed > self.store.applied_index()
            || self.reads.has_ready(self.store.applied_index())
            || self.raft.storage().is_dirty()
            || !self.replies.is_empty();
        if left_over {
            return Millis(0);
        }
        let waiting = self.writes.next_deadline().min(self.reads.next_deadline());
        self.raft.next_deadline().min(waiting).min(self.upkeep_deadline())
    }

    /// Offers the waiting writes and asks for the waiting reads, then gives out the messages that may leave before the
    /// turn's sync. Called twice a turn: before the sync, and after it, when a new commit index is announced and what
    /// the sync made possible is begun.
    ///
    /// `now` was read from the clock after the turn's input was: what is ordered here gets its time, and a life must not
    /// begin before the client has asked for it. The same goes for [`Replica::sync`].
    ///
    /// # Errors
    /// When the storage fails.
    pub fn drain_immediate(&mut self, now: Millis, out: &mut Vec<Envelope>) -> Result<(), StorageError> {
        self.clock.set(now);
        let raft = &mut self.raft;
        self.reads.maybe_ask(now, |context| raft.read_index(context));
        match self.raft.leader() {
            Some(leader) if leader == self.id => {
                self.propose_waiting(now)?;
                self.propose_upkeep(now)?;
            }
            Some(leader) => self.forward_waiting(now, leader, out),
            None => {}
        }
        let first = out.len();
        self.raft.drain_immediate(now, out)?;
        self.time_heartbeats(now, &mut out[first..]);
        Ok(())
    }

    /// The turn's one durable point; applies what is committed; gives promises and answers out.
    ///
    /// # Errors
    /// When the storage fails, or when this version of Keva cannot read a committed entry.
    pub fn sync(&mut self, now: Millis) -> Result<TurnOutput, StorageError> {
        let synced = self.raft.sync(now)?;
        if let Some(snapshot) = synced.restore {
            self.on_installed(now, snapshot)?;
        }
        for (context, index) in synced.reads {
            self.reads.confirm(context, index);
        }
        self.on_view();
        self.maybe_hand_over(now);
        self.leadership.on_committed(self.raft.commit_index());
        self.committed = self.committed.max(synced.committed);
        if mutant("apply-uncommitted") {
            self.committed = self.committed.max(self.raft.synced_index());
        }
        self.apply_committed(now)?;
        self.maybe_take_office(now);
        self.maybe_raise_incarnation()?;
        self.answer_ready_reads();
        // Last, so that an answer that is there after a long turn is given instead of "too late".
        self.expire(now);
        Ok(TurnOutput { messages: synced.messages, replies: std::mem::take(&mut self.replies) })
    }

    /// Begins a clean stop: hands leadership over, refuses new requests, and lets the waiting ones end.
    pub fn start_shutdown(&mut self, now: Millis) {
        self.stopping = true;
        self.maybe_hand_over(now);
    }

    /// After [`Replica::start_shutdown`]: no client waits, and leadership is handed over or could not be.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        let waits = self.writes.has_clients() || self.reads.in_flight() > 0 || !self.replies.is_empty();
        let keeps_office = self.raft.is_leader()
            && (self.handed_over_in != Some(self.raft.term()) || self.raft.is_transferring());
        self.stopping && !waits && !keeps_office
    }

    /// The last act of a clean stop: notes durably how far the log is committed.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn close(&mut self) -> Result<(), StorageError> {
        self.raft.checkpoint()
    }

    /// Does about `budget` bytes of the work that has time: a slice of the snapshot in the making if there is one or one
    /// is due, then the storage's own housekeeping.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn keep_house(&mut self, budget: usize) -> Result<Housekeeping, StorageError> {
        let traffic = self.snapshot_traffic();
        self.snapshots.keep_house(&mut self.store, self.raft.storage_mut(), traffic, budget)
    }

    /// Bytes of work on the snapshot in the making that are owed because the log grew: to be paid by
    /// [`Replica::keep_house`] even when there is no time. One slice when a snapshot is due, 0 when none is.
    #[must_use]
    pub fn snapshot_debt(&self) -> usize {
        self.snapshots.debt(&self.store, self.raft.storage(), self.snapshot_traffic())
    }

    /// [`Replica::snapshot_debt`], and what the storage owes besides: to be paid in the same way.
    #[must_use]
    pub fn house_debt(&self) -> usize {
        self.snapshot_debt().saturating_add(self.raft.storage().house_debt())
    }

    fn snapshot_traffic(&self) -> Traffic {
        Traffic {
            is_sending: self.raft.is_sending_snapshot(),
            is_receiving: self.raft.is_receiving_snapshot(),
        }
    }

    /// The state as it is: for answers that no promise is given for, and for checks.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The latest changes of keys, in the order of the log.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The protocol core, for checks in simulators and tests.
    #[must_use]
    pub fn raft(&self) -> &Raft<S> {
        &self.raft
    }

    /// The storage, when the replica is done.
    #[must_use]
    pub fn into_storage(self) -> S {
        self.raft.into_storage()
    }

    /// After anything that may have changed the term or the leader: what was offered to or asked from an earlier
    /// leader may be lost, and a leadership's books are only good for that leadership.
    fn on_view(&mut self) {
        let view = (self.raft.term(), self.raft.leader());
        if view == self.view {
            return;
        }
        self.view = view;
        self.writes.offer_again();
        self.reads.ask_again();
        self.leadership.clear();
    }

    /// A stopping leader hands over, once in a term, also when it was elected after the stop began. It waits until it
    /// has committed in its term: only then does it know which of the others are there to take over.
    fn maybe_hand_over(&mut self, now: Millis) {
        let term = self.raft.term();
        if self.stopping && self.has_committed_in_term() && self.handed_over_in != Some(term) {
            self.handed_over_in = Some(term);
            self.raft.transfer_leadership(now);
        }
    }

    /// Whether this node leads and the entry that opened its term is committed, and with it all that its predecessors
    /// left.
    pub(super) fn has_committed_in_term(&self) -> bool {
        let commit_term = self.raft.storage().term(self.raft.commit_index());
        self.raft.is_leader() && commit_term == Some(self.raft.term())
    }

    fn expire(&mut self, now: Millis) {
        self.expire_writes(now);
        let (replies, revision) = (&mut self.replies, self.store.applied_index());
        self.reads.expire(now, |ticket, outcome| replies.push(Reply { ticket, revision, outcome }));
    }

    fn expire_writes(&mut self, now: Millis) {
        let (replies, revision) = (&mut self.replies, self.store.applied_index());
        self.writes.expire(now, |ticket, outcome| replies.push(Reply { ticket, revision, outcome }));
    }

    pub(super) fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        self.replies.push(Reply { ticket, revision: self.store.applied_index(), outcome });
    }
}
