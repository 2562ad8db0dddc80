//! Log replication: AppendEntries and heartbeats, on both sides (paper, section 5.3), and the commit rule (5.4.2).

use crate::limits::APPEND_ENTRIES_BYTES_MAX;
use crate::raft::entry::Entries;
use crate::raft::message::{AppendOutcome, Message, ReadRound};
use crate::raft::progress::{Progress, Rejection};
use crate::raft::quorum::reached_by_majority;
use crate::raft::raft::Raft;
use crate::raft::role::Role;
use crate::raft::storage::{Purpose, Storage, StorageError};
use crate::raft::types::{EntryId, Index, NodeId, Term};
use crate::util::mutation::mutant;
use crate::util::time::{LogicalTime, Millis};

impl<S: Storage> Raft<S> {
    // ---- follower -------------------------------------------------------------------------------

    /// Takes the entries if the log has the one before them, then moves the commit index, in this order: nothing may
    /// be applied that the same message removes.
    pub(super) fn handle_append_entries(
        &mut self,
        from: NodeId,
        prev: EntryId,
        entries: &Entries,
        commit_index: Index,
    ) -> Result<(), StorageError> {
        let (first, last) = (entries.first(), entries.last());
        let follows =
            || first.index.prev() == prev.index && first.term >= prev.term && last.term <= self.term();
        if !entries.is_empty() && !follows() {
            log::warn!(
                "{from} sent entries {first} to {last} behind {prev} in term {}: ignored",
                self.term()
            );
            return Ok(());
        }
        // Everything under the snapshot is committed, so it is the same as the leader's.
        if prev.index < self.storage.log_start().index {
            let outcome = AppendOutcome::Accepted { match_index: self.commit_index };
            self.send(from, Message::AppendEntriesResponse { outcome });
            return Ok(());
        }
        if self.storage.term(prev.index) != Some(prev.term) {
            assert!(
                prev.index > self.commit_index,
                "leader {from} says that entry {} is {prev}, but another one is committed here",
                prev.index
            );
            let hint = self.last_id_not_after(prev);
            let outcome = AppendOutcome::Rejected { prev_index: prev.index, hint };
            self.send(from, Message::AppendEntriesResponse { outcome });
            return Ok(());
        }
        let verified = if entries.is_empty() { prev.index } else { last.index };
        if mutant("commit-before-append") {
            self.commit_index = self.commit_index.max(commit_index.min(self.storage.last_index()));
        }
        if !self.append_missing(from, entries)? {
            return Ok(());
        }
        self.verified_index = self.verified_index.max(verified);
        self.commit_index = self.commit_index.max(commit_index.min(verified));
        // A leader that sends entries where the logs meet sends no snapshot, and the one that began may be gone.
        self.drop_installation()?;
        let outcome = AppendOutcome::Accepted { match_index: verified };
        self.send(from, Message::AppendEntriesResponse { outcome });
        Ok(())
    }

    /// Skips what is there already and cuts the log only at the first entry that really differs: a message that is
    /// late or repeated must not remove anything. `false`: the disk is too full, and the message is as good as lost.
    fn append_missing(&mut self, from: NodeId, entries: &Entries) -> Result<bool, StorageError> {
        let mut left = entries.as_bytes().len();
        let mut has_room = false;
        for entry in entries.iter() {
            let needed = left;
            left -= entry.bytes().len();
            match self.storage.term(entry.index()) {
                Some(term) if term == entry.term() && !mutant("truncate-on-match") => continue,
                Some(term) => {
                    let index = entry.index();
                    assert!(
                        index > self.commit_index,
                        "leader {from} replaces {index}@{term} by {}, but it is committed here",
                        entry.id()
                    );
                    // Cutting may need a new file, too.
                    if !self.has_room(0)? {
                        return Ok(false);
                    }
                    self.storage.truncate_suffix(index.prev())?;
                    if !mutant("synced-index-kept") {
                        self.synced_index = self.synced_index.min(index.prev());
                    }
                }
                None => {}
            }
            if !has_room && !self.has_room(needed)? {
                return Ok(false);
            }
            has_room = true;
            self.storage.append(entry)?;
        }
        Ok(true)
    }

    /// Whether the leader's entries, `bytes` of them, can be stored. Says so in the log when that changes.
    pub(super) fn has_room(&mut self, bytes: usize) -> Result<bool, StorageError> {
        let has_room = self.storage.reserve(bytes, Purpose::Upkeep)?;
        if has_room == self.is_short_of_space {
            self.is_short_of_space = !has_room;
            if has_room {
                log::info!("there is space on the disk again: the leader's entries are taken");
            } else {
                log::warn!(
                    "the disk is full: the leader's entries cannot be taken until there is space on it"
                );
            }
        }
        Ok(has_room)
    }

    /// The last entry that can be common with a log that has `limit`: not behind it, and of no later term. All
    /// entries of a term that the other log cannot have are skipped in one step.
    fn last_id_not_after(&self, limit: EntryId) -> EntryId {
        let floor = self.storage.log_start();
        let mut index = limit.index.min(self.storage.last_index());
        while index > floor.index {
            match self.storage.term(index) {
                Some(term) if term > limit.term => index = index.prev(),
                Some(term) => return EntryId::new(term, index),
                None => break,
            }
        }
        floor
    }

    pub(super) fn handle_heartbeat(
        &mut self,
        from: NodeId,
        commit_index: Index,
        round: ReadRound,
        is_full: bool,
    ) -> Result<(), StorageError> {
        if let Role::Follower(follower) = &mut self.role {
            follower.is_full = is_full;
        }
        // The leader names only what this node has acknowledged in this term. If the disk went back in time since,
        // what stands there may be other entries, so only what this process has compared counts.
        self.commit_index = self.commit_index.max(commit_index.min(self.verified_index));
        if mutant("heartbeat-commits-anything") {
            self.commit_index = self.commit_index.max(commit_index.min(self.storage.last_index()));
        }
        self.drop_overtaken_installation()?;
        self.send(from, Message::HeartbeatResponse { round, is_full: self.storage.is_full() });
        Ok(())
    }

    // ---- leader ---------------------------------------------------------------------------------

    pub(super) fn handle_append_entries_response(
        &mut self,
        now: Millis,
        from: NodeId,
        outcome: AppendOutcome,
    ) {
        let last_index = self.storage.last_index();
        let (floor, snapshot) = (self.storage.log_start().index, self.storage.snapshot());
        let candidate = match outcome {
            // The peer ends before this log begins.
            AppendOutcome::Rejected { hint, .. } if hint.index < floor => hint.index,
            AppendOutcome::Rejected { hint, .. } => self.last_id_not_after(hint).index,
            AppendOutcome::Accepted { .. } => Index(0),
        };
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.last_contact = now;
        match outcome {
            AppendOutcome::Accepted { match_index } if match_index > last_index => {
                log::warn!(
                    "{from} acknowledges entry {match_index}, but the log ends at {last_index}: ignored"
                );
            }
            AppendOutcome::Accepted { match_index } => {
                if progress.on_accepted(now, match_index, floor) {
                    self.maybe_commit();
                }
            }
            AppendOutcome::Rejected { prev_index, .. } => {
                let matched = progress.match_index();
                let rejection = progress.on_rejected(prev_index, candidate);
                if rejection != Rejection::Late
                    && progress.next_index().prev() < floor
                    && let Some(snapshot) = snapshot
                {
                    progress.start_snapshot(snapshot);
                }
                if rejection == Rejection::Lost && !mutant("loss-not-told") {
                    self.handle_peer_forgot(from, matched);
                }
            }
        }
    }

    pub(super) fn handle_heartbeat_response(
        &mut self,
        now: Millis,
        from: NodeId,
        round: ReadRound,
        is_full: bool,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let sent = leader.reads.round;
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.last_contact = now;
        progress.is_full = is_full;
        progress.on_heartbeat_answered();
        let round = if mutant("any-answer-confirms-reads") { sent } else { round };
        progress.round_acked = progress.round_acked.max(round.min(sent));
        self.confirm_reads();
    }

    pub(super) fn broadcast_heartbeat(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let round = leader.reads.round;
        for peer in self.peers.clone().iter().copied() {
            self.send_heartbeat(peer, round);
        }
    }

    pub(super) fn send_heartbeat(&mut self, peer: NodeId, round: ReadRound) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(progress) = leader.progress.get(&peer) else { return };
        let mut commit_index = self.commit_index.min(progress.match_index());
        if mutant("heartbeat-commits-anything") {
            commit_index = self.commit_index;
        }
        let is_full = self.storage.is_full();
        self.send(peer, Message::Heartbeat { commit_index, round, is_full, time: LogicalTime::default() });
    }

    /// Sends every peer what it lacks, as far as its window allows, and the commit index when that is all there is.
    pub(super) fn replicate(&mut self) -> Result<(), StorageError> {
        for peer in self.peers.clone().iter().copied() {
            let mut sent = false;
            while self.replicate_to(peer, sent)? {
                sent = true;
            }
        }
        Ok(())
    }

    /// Sends one message to the peer. Returns whether there may be more to send.
    fn replicate_to(&mut self, peer: NodeId, sent_already: bool) -> Result<bool, StorageError> {
        let (last_index, commit_index) = (self.storage.last_index(), self.commit_index);
        let floor = self.storage.log_start().index;
        let Role::Leader(leader) = &mut self.role else { return Ok(false) };
        let Some(progress) = leader.progress.get_mut(&peer) else { return Ok(false) };
        if progress.is_sending_snapshot() {
            return self.send_snapshot_part(peer);
        }
        if progress.next_index().prev() < floor {
            progress.probe_at(floor.next());
        }
        let next = progress.next_index();
        if next > last_index {
            progress.on_all_sent();
        }
        let (probing, paused, nudged) =
            (!progress.is_replicating(), progress.is_paused(), progress.take_nudge());
        let has_entries = next <= last_index && !paused;
        let is_due = has_entries
            || nudged
            || (probing && !paused)
            || (!probing && !sent_already && progress.commit_sent < commit_index);
        if !is_due {
            return Ok(false);
        }
        // A probe looks for the place where the logs meet; more than one entry would often be sent in vain.
        let bytes_max = if probing { 0 } else { APPEND_ENTRIES_BYTES_MAX };
        let entries = if has_entries { self.read_entries(next, bytes_max)? } else { Entries::default() };
        let prev = EntryId::new(self.term_of_log(next.prev()), next.prev());
        let last = if entries.is_empty() { prev.index } else { entries.last().index };
        let bytes = entries.as_bytes().len();
        self.send(peer, Message::AppendEntries { prev, entries, commit_index });
        let Role::Leader(leader) = &mut self.role else { return Ok(false) };
        let progress = leader.progress.get_mut(&peer).expect("the peer was there above");
        progress.on_sent(last, bytes);
        progress.commit_sent = commit_index;
        Ok(bytes > 0 && !probing)
    }

    /// Entries from `from` on: as many as fit in `bytes_max`, and at least one.
    fn read_entries(&self, from: Index, bytes_max: usize) -> Result<Entries, StorageError> {
        let mut entries = Entries::default();
        let mut index = from;
        while index <= self.storage.last_index() {
            let entry = self.storage.entry(index)?;
            if !entries.is_empty() && entries.as_bytes().len() + entry.bytes().len() > bytes_max {
                break;
            }
            entries.push(entry);
            index = index.next();
        }
        Ok(entries)
    }

    fn term_of_log(&self, index: Index) -> Term {
        self.storage.term(index).expect("entries are sent only from behind the beginning of the log on")
    }

    /// Commits what a majority has made durable, provided that it includes an entry of the leader's own term: older
    /// entries alone could still be replaced (paper, section 5.4.2 and figure 8). The leader counts itself only up to
    /// its own last sync.
    pub(super) fn maybe_commit(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let mut matched: Vec<Index> = leader.progress.values().map(Progress::match_index).collect();
        let mine =
            if mutant("leader-counts-unsynced") { self.storage.last_index() } else { self.synced_index };
        matched.push(mine);
        let reached = reached_by_majority(&mut matched);
        let is_own = self.storage.term(reached) == Some(self.term()) || mutant("commit-old-term");
        if reached > self.commit_index && is_own {
            self.commit_index = reached;
            self.release_unready_reads();
        }
    }

    /// Whether this leader knows how far the log is committed.
    pub(super) fn has_committed_in_term(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if self.commit_index >= leader.noop_index)
    }
}
