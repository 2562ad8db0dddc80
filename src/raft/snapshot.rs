//! InstallSnapshot, on both sides (paper, section 7): for a peer that lacks entries which the leader's log has no more.
//!
//! The follower writes the parts into a draft beside its log and changes nothing else until the draft is whole, read
//! back and found right. Then the snapshot becomes durable in one step, and only after that the leader hears of it.

use crate::raft::message::{Message, SnapshotOutcome};
use crate::raft::raft::Raft;
use crate::raft::role::Role;
use crate::raft::storage::{SnapshotMeta, SnapshotProgress, Storage, StorageError};
use crate::raft::types::{Index, NodeId};
use crate::util::mutation::mutant;
use crate::util::time::Millis;

impl<S: Storage> Raft<S> {
    // ---- follower -------------------------------------------------------------------------------

    /// Takes a part of the leader's snapshot. Without a part it only says how far it is.
    pub(super) fn handle_install_snapshot(
        &mut self,
        from: NodeId,
        snapshot: SnapshotMeta,
        offset: u64,
        chunk: &[u8],
    ) -> Result<(), StorageError> {
        let end = offset.checked_add(chunk.len() as u64);
        let is_possible = snapshot.last.index > Index(0)
            && snapshot.last.term <= self.term()
            && snapshot.bytes > 0
            && end.is_some_and(|end| end <= snapshot.bytes);
        if !is_possible {
            log::warn!("{from} sent an impossible part of a snapshot up to {}: ignored", snapshot.last);
            return Ok(());
        }
        let outcome = match self.match_without_snapshot(snapshot) {
            Some(match_index) => SnapshotOutcome::Installed { match_index },
            None => self.take_chunk(from, snapshot, offset, chunk)?,
        };
        self.drop_overtaken_installation()?;
        self.send(from, Message::InstallSnapshotResponse { snapshot, outcome });
        Ok(())
    }

    /// How far this log is known to equal the leader's, when that makes the snapshot unnecessary: what is committed
    /// never goes back, and a log that has the snapshot's last entry has everything before it (figure 13, rule 6).
    fn match_without_snapshot(&mut self, snapshot: SnapshotMeta) -> Option<Index> {
        let last = snapshot.last;
        if last.index <= self.commit_index && !mutant("old-snapshot-installed") {
            return Some(self.commit_index);
        }
        let is_here = match self.storage.term(last.index) {
            Some(term) => term == last.term || mutant("conflicting-log-kept"),
            None => false,
        };
        if !is_here || last.index <= self.commit_index {
            return None;
        }
        // A snapshot covers only what is committed.
        self.commit_index = last.index;
        self.verified_index = self.verified_index.max(last.index);
        Some(last.index)
    }

    fn take_chunk(
        &mut self,
        from: NodeId,
        snapshot: SnapshotMeta,
        offset: u64,
        chunk: &[u8],
    ) -> Result<SnapshotOutcome, StorageError> {
        if !self.is_installing(snapshot) {
            // Only a first part begins anything: others are late, or what came before them was lost.
            if offset > 0 || chunk.is_empty() {
                return Ok(SnapshotOutcome::Receiving { next_offset: 0 });
            }
            if !self.storage.begin_snapshot(snapshot.last, snapshot.bytes)? {
                log::warn!(
                    "the disk is too full for the leader's snapshot of {} bytes; make space on it",
                    snapshot.bytes
                );
                return Ok(SnapshotOutcome::Refused);
            }
            log::info!(
                "{from} sends its snapshot up to entry {}, {} bytes",
                snapshot.last.index,
                snapshot.bytes
            );
            self.installing = Some(snapshot);
        }
        let mut written = self.draft_written();
        if offset == written && !chunk.is_empty() {
            self.storage.append_snapshot(chunk)?;
            written += chunk.len() as u64;
        }
        if written < snapshot.bytes {
            return Ok(SnapshotOutcome::Receiving { next_offset: written });
        }
        self.install(from, snapshot)
    }

    /// Whether the storage's draft is this snapshot, as the leader sends it.
    fn is_installing(&self, snapshot: SnapshotMeta) -> bool {
        let draft = self.storage.snapshot_draft();
        let is_ours = draft.is_some_and(|draft| {
            self.installing
                .is_some_and(|installing| (draft.last, draft.bytes) == (installing.last, installing.bytes))
        });
        is_ours && (self.installing == Some(snapshot) || mutant("chunk-of-another-snapshot"))
    }

    fn draft_written(&self) -> u64 {
        self.storage.snapshot_draft().expect("a draft that was begun").written
    }

    fn install(&mut self, from: NodeId, snapshot: SnapshotMeta) -> Result<SnapshotOutcome, StorageError> {
        // The log will begin in a new file, and the last one may have been taken since the draft was begun. Without the
        // draft this node can take a snapshot of its own, which makes space.
        if !self.has_room(0)? {
            self.drop_installation()?;
            return Ok(SnapshotOutcome::Refused);
        }
        self.installing = None;
        // The snapshot is durable at once. The term must be so before: no log may end in a term that its hard state
        // does not know.
        if self.storage.is_dirty() {
            self.storage.sync()?;
        }
        if mutant("snapshot-acked-unfinished") {
            return Ok(SnapshotOutcome::Installed { match_index: snapshot.last.index });
        }
        let installed = loop {
            match self.storage.finish_snapshot(Some(snapshot), usize::MAX)? {
                SnapshotProgress::More => {}
                SnapshotProgress::Done(installed) => break installed,
                SnapshotProgress::Damaged => {
                    log::error!(
                        "the snapshot up to entry {} from {from} is not what was sent: it is asked for again",
                        snapshot.last.index
                    );
                    return Ok(SnapshotOutcome::Refused);
                }
            }
        };
        let index = installed.last.index;
        self.commit_index = index;
        self.verified_index = self.verified_index.max(index);
        self.synced_index = self.synced_index.min(self.storage.last_index()).max(index);
        self.restored = Some(installed);
        log::info!("the snapshot of {from} up to entry {index} is installed");
        Ok(SnapshotOutcome::Installed { match_index: index })
    }

    /// Forgets an unfinished snapshot that the log has overtaken, or that no leader will finish.
    pub(super) fn drop_installation(&mut self) -> Result<(), StorageError> {
        let Some(snapshot) = self.installing else { return Ok(()) };
        if self.is_installing(snapshot) {
            self.storage.drop_snapshot_draft()?;
        }
        self.installing = None;
        Ok(())
    }

    /// To be called when the commit index may have moved.
    pub(super) fn drop_overtaken_installation(&mut self) -> Result<(), StorageError> {
        match self.installing {
            Some(snapshot) if snapshot.last.index <= self.commit_index => self.drop_installation(),
            _ => Ok(()),
        }
    }

    /// Whether the storage's draft is a snapshot that a leader has begun to send. A snapshot of this node's own would
    /// throw it away, and has to wait. It ends when it is whole, when the log has overtaken it, or when a leader sends
    /// entries instead.
    #[must_use]
    pub fn is_receiving_snapshot(&self) -> bool {
        self.installing.is_some_and(|snapshot| self.is_installing(snapshot))
    }

    // ---- leader ---------------------------------------------------------------------------------

    /// Sends the peer the next part of the newest snapshot. Returns whether there may be more to send.
    pub(super) fn send_snapshot_part(&mut self, peer: NodeId) -> Result<bool, StorageError> {
        let newest = self.storage.snapshot().expect("a log without its beginning has a snapshot of it");
        let Role::Leader(leader) = &mut self.role else { return Ok(false) };
        let Some(progress) = leader.progress.get_mut(&peer) else { return Ok(false) };
        let Some((offset, len)) = progress.next_snapshot_part(newest) else { return Ok(false) };
        progress.on_snapshot_part_sent(len);
        let chunk = if len == 0 { Vec::new() } else { self.storage.read_snapshot(offset, len)?.to_vec() };
        self.send(peer, Message::InstallSnapshot { snapshot: newest, offset, chunk });
        Ok(len > 0)
    }

    pub(super) fn handle_install_snapshot_response(
        &mut self,
        now: Millis,
        from: NodeId,
        snapshot: SnapshotMeta,
        outcome: SnapshotOutcome,
    ) {
        let (floor, last_index) = (self.storage.log_start().index, self.storage.last_index());
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.last_contact = now;
        match outcome {
            SnapshotOutcome::Installed { match_index } if match_index > last_index => {
                log::warn!("{from} has entry {match_index}, but the log ends at {last_index}: ignored");
            }
            // Whichever snapshot that was: what reconnects the logs is welcome.
            SnapshotOutcome::Installed { match_index } => {
                if progress.on_accepted(now, match_index, floor) {
                    self.maybe_commit();
                }
            }
            SnapshotOutcome::Receiving { next_offset } => {
                progress.on_snapshot_receiving(now, snapshot, next_offset);
            }
            SnapshotOutcome::Refused => progress.on_snapshot_refused(snapshot),
        }
    }

    /// Whether some peer is being sent the newest snapshot, or entries that it still lacks behind one, and has taken some
    /// of it within two election timeouts. A newer snapshot would make it start over: the one that it is sent would be
    /// replaced, and the entries that follow it would be removed.
    #[must_use]
    pub fn is_sending_snapshot(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let recent = 2 * self.config.election_timeout_ms;
        // The next heartbeat is never far: near enough to the present time.
        let takes = |at: Millis| leader.heartbeat_deadline - at < recent;
        leader.progress.values().any(|progress| progress.snapshot_taken_at().is_some_and(takes))
    }
}
