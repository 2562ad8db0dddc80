//! The replica: raft, the state machine and the waiting requests of one node, as one deterministic machine.
//!
//! One turn of its owner: any number of `handle_*`, `submit` and `cancel`; [`Replica::handle_deadline`];
//! [`Replica::drain_immediate`]; [`Replica::sync`]; `drain_immediate` again.

use std::collections::BTreeMap;

use crate::kv::payload::decode_payload;
use crate::kv::store::{Applied, Store};
use crate::limits::APPLY_BYTES_PER_TURN_MAX;
use crate::raft::entry::EntryKind;
use crate::raft::message::{Envelope, Message};
use crate::raft::progress::Progress;
use crate::raft::raft::{Config, ProposeError, Raft};
use crate::raft::storage::{Purpose, Storage, StorageError, snapshot_id};
use crate::raft::types::{Incarnation, Index, NodeId, Term};
use crate::replica::io::{
    Consistency, Housekeeping, InFlight, NotApplied, Outcome, PeerStatus, ReplicaStatus, Reply, Request,
    Ticket, TurnOutput,
};
use crate::replica::leadership::Leadership;
use crate::replica::reads::Reads;
use crate::replica::writes::Writes;
use crate::util::mutation::mutant;
use crate::util::time::Millis;

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
    /// Bytes of the log behind which a snapshot is taken at the earliest; with more data, half of the data's size.
    pub snapshot_log_bytes: u64,
}

/// See the module's text.
pub struct Replica<S: Storage> {
    raft: Raft<S>,
    id: NodeId,
    voters: Vec<NodeId>,
    store: Store,
    /// Entries up to here may be applied.
    committed: Index,
    writes: Writes,
    reads: Reads,
    leadership: Leadership,
    /// The term and leader that everything offered and asked was meant for.
    view: (Term, Option<NodeId>),
    /// The latest incarnation seen of each peer.
    incarnations: BTreeMap<NodeId, Incarnation>,
    /// Answers found since the last turn's end.
    replies: Vec<Reply>,
    stopping: bool,
    /// The term in which this node, while stopping, began to hand its leadership over.
    handed_over_in: Option<Term>,
}

impl<S: Storage> Replica<S> {
    /// Starts from what the storage holds. Entries known to be committed are applied from the first turns on.
    ///
    /// # Errors
    /// When the storage fails, or its log does not begin with the first entry.
    ///
    /// # Panics
    /// When the incarnation is 0.
    pub fn new(config: ReplicaConfig, storage: S, now: Millis) -> Result<Replica<S>, StorageError> {
        assert!(config.incarnation.0 > 0, "incarnations are counted from 1");
        let snapshot = snapshot_id(&storage);
        if snapshot.index > Index(0) {
            return Err(StorageError::Refused(format!(
                "the log begins behind entry {snapshot}, and this version of Keva cannot read the snapshot \
                 before it; start the version that made it"
            )));
        }
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
            store: Store::default(),
            committed: raft.commit_index(),
            writes: Writes::new(config.id, config.incarnation),
            // After an election timeout without an answer the leader would have been given up anyway.
            reads: Reads::new(config.incarnation, config.election_timeout_ms),
            leadership: Leadership::default(),
            view: (raft.term(), raft.leader()),
            incarnations: BTreeMap::new(),
            replies: Vec::new(),
            stopping: false,
            handed_over_in: None,
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
        self.raft.step(now, envelope)?;
        self.on_view();
        Ok(())
    }

    /// A (new) outgoing link to the peer stands, and its greeting was seen with this incarnation. What was in flight
    /// on an earlier link may be lost. An incarnation above the one known before means that the process was restarted.
    ///
    /// `disk_id` names the working directory that the peer's process runs on: another one than before means that its
    /// disk was lost or replaced.
    pub fn handle_peer_connected(
        &mut self,
        now: Millis,
        peer: NodeId,
        incarnation: Incarnation,
        disk_id: u64,
    ) {
        let _ = disk_id;
        if !self.voters.contains(&peer) || peer == self.id {
            return;
        }
        let known = self.incarnations.get(&peer).copied();
        let latest = known.unwrap_or_default().max(incarnation);
        self.incarnations.insert(peer, latest);
        if self.raft.leader() == Some(peer) && known.is_some_and(|known| incarnation > known) {
            // The leader's process came back so fast that nobody saw it gone. It leads no more.
            self.raft.handle_peer_lost(now, peer);
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
        if deadline <= now && !matches!(request, Request::Read { consistency: Consistency::Stale, .. }) {
            return self.answer(ticket, Outcome::NotApplied(NotApplied::NoLeader));
        }
        let taken = match request {
            Request::Write(mut command) => {
                if mutant("condition-at-submit")
                    && command.condition().holds(self.store.get(command.key()).map(|item| item.revision))
                {
                    command.forget_condition();
                }
                self.writes.add(ticket, &command, deadline)
            }
            Request::Read { key, consistency: Consistency::Stale } => {
                return self.answer(ticket, Outcome::Value(self.store.get(&key).cloned()));
            }
            Request::Read { key, consistency: Consistency::Linearizable } => {
                self.reads.add(ticket, Some(key), deadline)
            }
            Request::Barrier => self.reads.add(ticket, None, deadline),
        };
        if let Err(reason) = taken {
            self.answer(ticket, Outcome::NotApplied(reason));
        }
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
            || self.raft.storage().is_dirty()
            || !self.replies.is_empty();
        if left_over {
            return Millis(0);
        }
        self.raft.next_deadline().min(self.writes.next_deadline()).min(self.reads.next_deadline())
    }

    /// Offers the waiting writes and asks for the waiting reads, then gives out the messages that may leave before the
    /// turn's sync. Called twice a turn: before the sync, and after it, when a new commit index is announced and what
    /// the sync made possible is begun.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn drain_immediate(&mut self, now: Millis, out: &mut Vec<Envelope>) -> Result<(), StorageError> {
        let raft = &mut self.raft;
        self.reads.maybe_ask(now, |context| raft.read_index(context));
        match self.raft.leader() {
            Some(leader) if leader == self.id => self.propose_waiting(now)?,
            Some(leader) => self.forward_waiting(now, leader, out),
            None => {}
        }
        self.raft.drain_immediate(now, out)
    }

    /// The turn's one durable point; applies what is committed; gives promises and answers out.
    ///
    /// # Errors
    /// When the storage fails, or when this version of Keva cannot read a committed entry.
    pub fn sync(&mut self, now: Millis) -> Result<TurnOutput, StorageError> {
        let synced = self.raft.sync(now)?;
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
        self.apply_committed()?;
        while let Some((ticket, key)) = self.reads.take_ready(self.store.applied_index()) {
            let value = |key: String| Outcome::Value(self.store.get(&key).cloned());
            let outcome = key.map_or(Outcome::Reached, value);
            self.answer(ticket, outcome);
        }
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

    /// What this node knows of the cluster and itself.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        let peer = |(id, progress): (NodeId, &Progress)| PeerStatus {
            id,
            match_index: progress.match_index(),
            last_contact: Some(progress.last_contact()),
        };
        ReplicaStatus {
            id: self.id,
            role: self.raft.role(),
            term: self.raft.term(),
            leader: self.raft.leader(),
            commit_index: self.raft.commit_index(),
            applied_index: self.store.applied_index(),
            last_index: self.raft.last_index(),
            log_start: self.raft.storage().log_start(),
            snapshot: self.raft.storage().snapshot(),
            snapshot_draft: self.raft.storage().snapshot_draft(),
            standing: self.raft.storage().standing(),
            is_full: self.raft.storage().is_full(),
            leader_is_full: false,
            keys: self.store.key_count(),
            peers: self.raft.peers().map(peer).collect(),
        }
    }

    /// How much waits on this node.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        let (writes, write_bytes) = self.writes.in_flight();
        let (held_bytes, uncommitted_bytes) = self.leadership.in_flight();
        InFlight { writes, write_bytes, reads: self.reads.in_flight(), held_bytes, uncommitted_bytes }
    }

    /// Does about `budget` bytes of the work that has time: a slice of the snapshot in the making if there is one or one
    /// is due, then the storage's own housekeeping.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn keep_house(&mut self, budget: usize) -> Result<Housekeeping, StorageError> {
        self.raft.storage_mut().keep_house(budget)
    }

    /// Bytes of work on the snapshot in the making that are owed because the log grew: to be paid by
    /// [`Replica::keep_house`] even when there is no time. 0 without one.
    #[must_use]
    pub fn snapshot_debt(&self) -> usize {
        0
    }

    /// Lets the storage do its housekeeping between turns, when there is time for it. The protocol's data must stay
    /// as it is.
    pub fn maintain<R>(&mut self, work: impl FnOnce(&mut S) -> R) -> R {
        work(self.raft.storage_mut())
    }

    /// The state machine, for checks in simulators and tests.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
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
    fn has_committed_in_term(&self) -> bool {
        let commit_term = self.raft.storage().term(self.raft.commit_index());
        self.raft.is_leader() && commit_term == Some(self.raft.term())
    }

    /// Other nodes' writes. A node that is not the leader drops them: passing them on could send them in circles, and
    /// their origin offers them again to the leader it learns of next.
    fn on_forward(&mut self, from: NodeId, payloads: Vec<Vec<u8>>) {
        if !self.raft.is_leader() || !self.voters.contains(&from) {
            return;
        }
        for payload in payloads {
            // Checked here because an entry that cannot be decoded would stop every node that applies it.
            match decode_payload(&payload) {
                Ok((id, _)) if id.origin != from => {
                    log::warn!("dropping a write that {from} sent in the name of {}", id.origin);
                }
                Ok((id, _)) if self.store.sessions().is_newer(id) => self.leadership.accept(id, payload),
                Ok(_) => {}
                Err(error) => log::warn!("dropping a write from {from}: {error}"),
            }
        }
    }

    /// Proposes what waits, own and forwarded writes by turns, as far as there is room. A new leader waits until all
    /// that it inherited is committed: so what is not committed stays bounded over any number of elections.
    fn propose_waiting(&mut self, now: Millis) -> Result<(), StorageError> {
        if !self.has_committed_in_term() || self.raft.is_transferring() {
            return Ok(());
        }
        loop {
            let forwarded = self.propose_forwarded()?;
            let own = self.propose_own(now)?;
            if !forwarded && !own {
                return Ok(());
            }
        }
    }

    fn propose_forwarded(&mut self) -> Result<bool, StorageError> {
        let Some(payload) = self.leadership.peek_held() else { return Ok(false) };
        let bytes = payload.len();
        if !self.leadership.has_room(bytes) {
            return Ok(false);
        }
        let Some(index) = propose(&mut self.raft, payload)? else { return Ok(false) };
        self.leadership.pop_held();
        self.leadership.on_proposed(index, bytes);
        Ok(true)
    }

    fn propose_own(&mut self, now: Millis) -> Result<bool, StorageError> {
        let Some(payload) = self.writes.peek_offer(now) else { return Ok(false) };
        if !self.leadership.has_room(payload.len()) {
            return Ok(false);
        }
        let Some(index) = propose(&mut self.raft, payload)? else { return Ok(false) };
        self.leadership.on_proposed(index, payload.len());
        self.writes.confirm_offer(now);
        Ok(true)
    }

    fn forward_waiting(&mut self, now: Millis, leader: NodeId, out: &mut Vec<Envelope>) {
        loop {
            let payloads = self.writes.take_forward(now);
            if payloads.is_empty() {
                return;
            }
            let message = Message::Forward { payloads };
            out.push(Envelope { from: self.id, to: leader, term: self.raft.term(), message });
        }
    }

    /// Applies committed entries, one after the other, up to the turn's budget. The rest follows in the next turns.
    fn apply_committed(&mut self) -> Result<(), StorageError> {
        let mut bytes = 0;
        while self.store.applied_index() < self.committed && bytes < APPLY_BYTES_PER_TURN_MAX {
            bytes += self.apply_next()?;
        }
        Ok(())
    }

    /// Applies one entry and says how many bytes it has.
    fn apply_next(&mut self) -> Result<usize, StorageError> {
        let index = self.store.applied_index().next();
        let entry = self.raft.storage().entry(index)?;
        let bytes = entry.bytes().len();
        if entry.kind() == EntryKind::NoOp {
            self.store.pass(index);
            return Ok(bytes);
        }
        let (id, command) = decode_payload(entry.payload()).map_err(|error| {
            StorageError::Refused(format!(
                "entry {} is committed, but this version of Keva cannot carry it out: {error}. Leaving it out \
                 would make this node's data differ from the other nodes'. Upgrade this node to the version that the \
                 other nodes run, and start it again on the same working directory",
                entry.id()
            ))
        })?;
        let outcome = match self.store.apply(index, id, command) {
            Applied::Written => Some(Outcome::Written),
            Applied::ConditionFailed { current } => Some(Outcome::ConditionFailed { current }),
            Applied::Skipped => None,
        };
        if let Some(seq) = self.writes.own_seq(id) {
            let replies = &mut self.replies;
            self.writes.on_applied(seq, entry.payload(), outcome, |ticket, outcome| {
                replies.push(Reply { ticket, revision: index, outcome });
            });
        }
        Ok(bytes)
    }

    fn expire(&mut self, now: Millis) {
        let revision = self.store.applied_index();
        let replies = &mut self.replies;
        let mut answer = |ticket, outcome| replies.push(Reply { ticket, revision, outcome });
        self.writes.expire(now, &mut answer);
        self.reads.expire(now, &mut answer);
    }

    fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        self.replies.push(Reply { ticket, revision: self.store.applied_index(), outcome });
    }
}

/// Appends a payload on the leader: its index, or `None` when this node must not append now.
fn propose<S: Storage>(raft: &mut Raft<S>, payload: &[u8]) -> Result<Option<Index>, StorageError> {
    match raft.propose(payload, Purpose::Growth) {
        Ok(id) => Ok(Some(id.index)),
        Err(ProposeError::NotLeader | ProposeError::Transferring | ProposeError::DiskFull) => Ok(None),
        Err(ProposeError::Storage(error)) => Err(error),
    }
}
