//! The core: one node's protocol state, what goes in and what comes out. Its parts are in the files beside this one:
//! elections in `election`, replication in `append`, snapshots in `snapshot`, reads in `read_index`, handing over in
//! `transfer`, nodes that may not vote yet in `admission`, what is known of peers' processes and disks in `peers`, what
//! everybody may see in `view`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::limits::LEADER_LOST_PAUSE_MS;
use crate::raft::admission::Admission;
use crate::raft::entry::{ENTRY_HEADER_BYTES, Entry, EntryKind, encode_entry};
use crate::raft::invariants::Watermarks;
use crate::raft::message::{Envelope, Message, ReadContext, ReadRound};
use crate::raft::role::{Follower, Role};
use crate::raft::storage::{Purpose, SnapshotMeta, Storage, StorageError, snapshot_id};
use crate::raft::types::{EntryId, HardState, Index, NodeId, Term};
use crate::util::mutation::mutant;
use crate::util::rng::Rng;
use crate::util::time::Millis;

/// What a node must be told to take part.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// All voters, this node included, in any order.
    pub voters: Vec<NodeId>,
    /// T in milliseconds: a follower campaigns when it has heard nothing for a random time in [T, 2T).
    pub election_timeout_ms: u64,
    /// Milliseconds between heartbeats, well below every node's T.
    pub heartbeat_interval_ms: u64,
    /// Seed of the random time-outs.
    pub seed: u64,
}

/// Why a payload was not proposed. In every case nothing was appended.
#[derive(Debug)]
pub enum ProposeError {
    /// This node is not the leader.
    NotLeader,
    /// This node is handing its leadership over. Ask again when that has ended, either way.
    Transferring,
    /// The disk is too full for it.
    DiskFull,
    /// The log could not be written.
    Storage(StorageError),
}

/// What may leave the node only because a sync has completed.
#[must_use]
#[derive(Default, Debug)]
pub struct Synced {
    /// Promises: votes, requests for votes, acknowledged entries. All of the current term.
    pub messages: Vec<Envelope>,
    /// Entries up to here are committed, and durable on this node. Never goes back.
    pub committed: Index,
    /// Confirmed reads: answer the reads of the context once the index is applied.
    pub reads: Vec<(ReadContext, Index)>,
    /// A snapshot of the leader was installed: the state must be read from it again. It is the storage's newest, and
    /// `committed` is at least its last entry.
    pub restore: Option<SnapshotMeta>,
}

/// One node's side of the protocol. It owns its storage and does nothing by itself:
///
/// - in: [`step`](Raft::step), [`propose`](Raft::propose), [`read_index`](Raft::read_index),
///   [`handle_deadline`](Raft::handle_deadline) and the hints about peers;
/// - when to call again: [`next_deadline`](Raft::next_deadline);
/// - out, before the sync: [`drain_immediate`](Raft::drain_immediate);
/// - the sync and what it sets free: [`sync`](Raft::sync).
///
/// One turn takes any number of inputs, then drains, syncs once, and drains again.
#[derive(Clone, Debug)]
pub struct Raft<S: Storage> {
    pub(super) config: Config,
    /// The voters without this node.
    pub(super) peers: Arc<[NodeId]>,
    pub(super) storage: S,
    pub(super) role: Role,
    /// As written; durable up to `synced_term`.
    pub(super) hard_state: HardState,
    pub(super) commit_index: Index,
    /// This process has compared its log with that of the current term's leader up to here.
    pub(super) verified_index: Index,
    /// The log is durable here up to this entry.
    pub(super) synced_index: Index,
    pub(super) synced_term: Term,
    /// When a node that is not the leader campaigns.
    pub(super) election_deadline: Millis,
    /// When this node last heard from the leader that it follows.
    pub(super) leader_contact: Millis,
    /// Elections are held after short pauses, doubled each time, because the leader is known to be gone. The number
    /// of tries so far.
    pub(super) hurry: Option<u32>,
    /// The snapshot of a leader that the storage's draft holds the beginning of.
    pub(super) installing: Option<SnapshotMeta>,
    /// Installed, and not yet told.
    pub(super) restored: Option<SnapshotMeta>,
    /// Peers whose disks went back in time, and who have not answered that they know.
    pub(super) suspects: BTreeSet<NodeId>,
    pub(super) admission: Admission,
    /// The leader's entries are ignored for want of space.
    pub(super) is_short_of_space: bool,
    pub(super) rng: Rng,
    pub(super) outbox: Vec<Envelope>,
    pub(super) outbox_after_sync: Vec<Envelope>,
    pub(super) confirmed_reads: Vec<(ReadContext, Index)>,
    pub(super) watermarks: Watermarks,
}

impl<S: Storage> Raft<S> {
    /// Starts as a follower on what the storage holds. Nobody leads as far as this node knows, so it asks for votes
    /// after a short pause; pre-vote and the stickiness of the others keep that from disturbing a leader.
    ///
    /// # Errors
    /// When the hard state and the log contradict each other: files were lost or mixed up.
    pub fn new(config: Config, storage: S, now: Millis) -> Result<Raft<S>, StorageError> {
        assert!(config.voters.contains(&config.id), "a node is a voter of its own cluster");
        let hard_state = storage.hard_state();
        let (snapshot, last_index) = (snapshot_id(&storage), storage.last_index());
        if hard_state.commit_index > last_index {
            return Err(StorageError::Refused(format!(
                "the log ends at entry {last_index}, but entry {} is known to be committed: log files are missing",
                hard_state.commit_index
            )));
        }
        if storage.term(last_index).is_none_or(|last_term| last_term > hard_state.term) {
            return Err(StorageError::Refused(format!(
                "the log ends in a later term than the hard state's term {}: the hard state is from an older copy",
                hard_state.term
            )));
        }
        let commit_index = hard_state.commit_index.max(snapshot.index);
        let mut raft = Raft {
            rng: Rng::new(config.seed),
            peers: config.voters.iter().copied().filter(|voter| *voter != config.id).collect(),
            config,
            storage,
            role: Role::Follower(Follower::of(None)),
            hard_state,
            commit_index,
            verified_index: Index(0),
            synced_index: last_index,
            synced_term: hard_state.term,
            election_deadline: now,
            leader_contact: now,
            hurry: Some(0),
            installing: None,
            restored: None,
            suspects: BTreeSet::new(),
            admission: Admission::new(now),
            is_short_of_space: false,
            outbox: Vec::new(),
            outbox_after_sync: Vec::new(),
            confirmed_reads: Vec::new(),
            watermarks: Watermarks::default(),
        };
        raft.reset_election_deadline(now);
        raft.admit_lone_node()?;
        raft.check_invariants();
        Ok(raft)
    }

    /// Takes a message from a peer. Messages from others than voters, and those meant for others, change nothing.
    ///
    /// # Errors
    /// When storage fails.
    ///
    /// # Panics
    /// When the messages prove that the cluster's safety is broken already: two leaders of one term, or a leader
    /// that contradicts a committed entry.
    pub fn step(&mut self, now: Millis, envelope: Envelope) -> Result<(), StorageError> {
        let Envelope { from, to, term, message } = envelope;
        if to != self.config.id || from == self.config.id || !self.config.voters.contains(&from) {
            return Ok(());
        }
        match message {
            // Outside the rules about terms: they never change one by themselves (thesis, section 9.6). A node that may
            // not vote yet must learn of terms without entering them.
            Message::PreVote { campaign_term, last } => self.handle_pre_vote(now, from, campaign_term, last),
            Message::PreVoteResponse { campaign_term, granted } => {
                self.handle_pre_vote_response(now, from, term, campaign_term, granted)?;
            }
            Message::Admission => self.handle_admission(now, from),
            Message::RolledBack => self.handle_rolled_back(now, from)?,
            Message::RolledBackResponse => self.handle_rolled_back_response(from),
            Message::AdmissionResponse { standing, is_empty, commit_index } => {
                self.handle_admission_response(from, term, standing, is_empty, commit_index);
            }
            message if term < self.term() && !mutant("old-terms-accepted") => {
                self.handle_stale(from, &message);
            }
            message => {
                if term > self.term() {
                    if self.ignores_higher_term(now, &message) {
                        return Ok(());
                    }
                    self.become_follower(now, term, None)?;
                }
                self.step_current(now, from, message)?;
            }
        }
        self.check_invariants();
        Ok(())
    }

    /// A message of the current term.
    fn step_current(&mut self, now: Millis, from: NodeId, message: Message) -> Result<(), StorageError> {
        match message {
            Message::RequestVote { last, .. } => self.handle_request_vote(now, from, last)?,
            Message::RequestVoteResponse { granted } => {
                self.handle_request_vote_response(now, from, granted)?;
            }
            Message::AppendEntries { prev, entries, commit_index } => {
                self.follow_leader(now, from)?;
                self.handle_append_entries(from, prev, &entries, commit_index)?;
            }
            Message::AppendEntriesResponse { outcome } => {
                self.handle_append_entries_response(now, from, outcome);
            }
            Message::Heartbeat { commit_index, round, is_full, time: _ } => {
                self.follow_leader(now, from)?;
                self.handle_heartbeat(from, commit_index, round, is_full)?;
            }
            Message::HeartbeatResponse { round, is_full } => {
                self.handle_heartbeat_response(now, from, round, is_full);
            }
            Message::InstallSnapshot { snapshot, offset, chunk } => {
                self.follow_leader(now, from)?;
                self.handle_install_snapshot(from, snapshot, offset, &chunk)?;
            }
            Message::InstallSnapshotResponse { snapshot, outcome } => {
                self.handle_install_snapshot_response(now, from, snapshot, outcome);
            }
            Message::ReadIndex { context } => self.handle_read_index(from, context),
            Message::ReadIndexResponse { context, index } => {
                self.handle_read_index_response(from, context, index);
            }
            Message::TimeoutNow => self.handle_timeout_now(now, from)?,
            // Between the replicas of two nodes; not the protocol's.
            Message::Forward { .. } => {}
            // Handled by the caller.
            Message::PreVote { .. }
            | Message::PreVoteResponse { .. }
            | Message::Admission
            | Message::AdmissionResponse { .. }
            | Message::RolledBack
            | Message::RolledBackResponse => {}
        }
        Ok(())
    }

    /// A message of an earlier term changes nothing here. A leader of that term must learn that it is none any more:
    /// without an answer, a node whose term ran ahead could never be reached by it.
    fn handle_stale(&mut self, from: NodeId, message: &Message) {
        match message {
            Message::AppendEntries { .. } | Message::Heartbeat { .. } | Message::InstallSnapshot { .. } => {
                self.send(
                    from,
                    Message::HeartbeatResponse { round: ReadRound(0), is_full: self.storage.is_full() },
                );
            }
            Message::RequestVote { .. } => self.send(from, Message::RequestVoteResponse { granted: false }),
            _ => {}
        }
    }

    /// Appends a command to the leader's log. It is readable at once, durable after the next sync, and certain when
    /// it is committed.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub fn propose(&mut self, payload: &[u8], purpose: Purpose) -> Result<EntryId, ProposeError> {
        match &self.role {
            Role::Leader(leader) if leader.transfer.is_some() => return Err(ProposeError::Transferring),
            Role::Leader(_) => {}
            _ => return Err(ProposeError::NotLeader),
        }
        let bytes = ENTRY_HEADER_BYTES + payload.len();
        if !self.storage.reserve(bytes, purpose).map_err(ProposeError::Storage)? {
            return Err(ProposeError::DiskFull);
        }
        self.append_own(EntryKind::Command, payload).map_err(ProposeError::Storage)
    }

    /// Does what is due at `now`: campaigns, sends heartbeats, gives up a leadership that nobody confirms.
    ///
    /// # Errors
    /// When storage fails.
    pub fn handle_deadline(&mut self, now: Millis) -> Result<(), StorageError> {
        match &self.role {
            Role::Leader(_) => self.handle_leader_deadline(now)?,
            _ if now >= self.election_deadline => self.handle_election_deadline(now)?,
            _ => {}
        }
        self.maybe_ask_for_admission(now);
        self.check_invariants();
        Ok(())
    }

    /// When [`handle_deadline`](Raft::handle_deadline) is due. The start of time when a sync has left work behind.
    #[must_use]
    pub fn next_deadline(&self) -> Millis {
        let is_waiting =
            !self.outbox.is_empty() || !self.outbox_after_sync.is_empty() || !self.confirmed_reads.is_empty();
        if is_waiting || self.restored.is_some() || self.storage.is_dirty() {
            return Millis(0);
        }
        match &self.role {
            Role::Leader(leader) => leader
                .transfer
                .as_ref()
                .map_or(leader.heartbeat_deadline, |t| t.deadline.min(leader.heartbeat_deadline)),
            _ if self.is_voter() => self.election_deadline,
            _ => self.election_deadline.min(self.admission.ask_deadline),
        }
    }

    /// Gives out the messages that need not wait for the sync. On a leader that is one batch of entries per peer:
    /// they travel while the leader's own disk works.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn drain_immediate(&mut self, now: Millis, out: &mut Vec<Envelope>) -> Result<(), StorageError> {
        self.maybe_start_read_round();
        self.replicate()?;
        self.maybe_finish_transfer(now);
        out.append(&mut self.outbox);
        Ok(())
    }

    /// Makes everything written durable (nothing is done when nothing was written), then lets go what waited for it.
    /// An election that is won here leaves a new entry to sync: see [`next_deadline`](Raft::next_deadline).
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&mut self, now: Millis) -> Result<Synced, StorageError> {
        if self.storage.is_dirty() {
            self.storage.sync()?;
        }
        self.synced_term = self.term();
        self.synced_index = self.storage.last_index();
        // A term that ended in this turn takes its promises with it: they may speak of entries that a later message
        // of the turn has removed.
        let mut messages = std::mem::take(&mut self.outbox_after_sync);
        messages.retain(|envelope| {
            let is_of_term = envelope.term == self.synced_term || mutant("promises-kept-over-terms");
            is_of_term || envelope.message == Message::RolledBackResponse
        });
        // So does a candidacy: a leader of the same term may have replaced the log that its requests advertise.
        if !matches!(self.role, Role::Candidate(_)) && !mutant("campaign-outlives-candidacy") {
            messages.retain(|envelope| !matches!(envelope.message, Message::RequestVote { .. }));
        }
        self.count_own_vote(now)?;
        self.maybe_commit();
        self.maybe_admit(now)?;
        self.check_invariants();
        let committed = self.commit_index.min(self.synced_index);
        let reads = std::mem::take(&mut self.confirmed_reads);
        let restore = self.restored.take().filter(|_| !mutant("restore-not-told"));
        Ok(Synced { messages, committed, reads, restore })
    }

    /// Makes the commit index durable, so that the next start need not ask the others how far the log is certain.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn checkpoint(&mut self) -> Result<(), StorageError> {
        self.set_hard_state(self.term(), self.hard_state.vote)?;
        self.storage.sync()
    }

    // ---- shared by the parts --------------------------------------------------------------------

    /// The one door out: files a message by whether it must wait for the sync (paper, section 5.1).
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        let queue = if message.requires_sync() { &mut self.outbox_after_sync } else { &mut self.outbox };
        queue.push(Envelope { from: self.config.id, to, term: self.hard_state.term, message });
    }

    pub(super) fn last_id(&self) -> EntryId {
        let index = self.storage.last_index();
        EntryId::new(self.storage.term(index).expect("the term of the last entry is always known"), index)
    }

    pub(super) fn append_own(&mut self, kind: EntryKind, payload: &[u8]) -> Result<EntryId, StorageError> {
        let id = EntryId::new(self.term(), self.storage.last_index().next());
        let mut bytes = Vec::with_capacity(payload.len() + ENTRY_HEADER_BYTES);
        encode_entry(id, kind, payload, &mut bytes);
        self.storage.append(Entry::decode(&bytes).expect("just encoded"))?;
        Ok(id)
    }

    /// Term and vote are one record. The commit index goes along as far as it is durable here.
    pub(super) fn set_hard_state(&mut self, term: Term, vote: Option<NodeId>) -> Result<(), StorageError> {
        if term > self.term() {
            self.verified_index = Index(0);
        }
        self.hard_state = HardState { term, vote, commit_index: self.commit_index.min(self.synced_index) };
        if mutant("hard-state-not-written") {
            return Ok(());
        }
        self.storage.set_hard_state(self.hard_state)
    }

    /// Follows `leader`, or nobody yet, in `term`. The election timer keeps running: a message of a later term is by
    /// itself no reason to wait longer. Only a leader has none, and starts one.
    pub(super) fn become_follower(
        &mut self,
        now: Millis,
        term: Term,
        leader: Option<NodeId>,
    ) -> Result<(), StorageError> {
        assert!(term >= self.term(), "terms never go back");
        if term > self.term() {
            self.set_hard_state(term, None)?;
        }
        let was_leader = self.is_leader();
        self.role = Role::Follower(Follower::of(leader));
        if was_leader {
            self.reset_election_deadline(now);
        }
        Ok(())
    }

    /// Waits for a random time in [T, 2T); when the leader is known to be gone, for a short time that doubles with
    /// each try until it reaches T.
    pub(super) fn reset_election_deadline(&mut self, now: Millis) {
        let timeout = self.config.election_timeout_ms;
        let mut wait = timeout;
        if let Some(tries) = self.hurry {
            let pause = LEADER_LOST_PAUSE_MS.checked_shl(tries).unwrap_or(timeout);
            self.hurry = (pause < timeout).then_some(tries + 1);
            wait = pause.min(timeout);
        }
        self.election_deadline = now.after(self.rng.range(wait, 2 * wait));
    }

    fn check_invariants(&mut self) {
        self.check_basic();
        self.watermarks = self.check_delta(&self.watermarks);
    }
}
