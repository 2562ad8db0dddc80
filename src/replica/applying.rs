//! How committed entries and installed snapshots become this node's state, and answers to those who wait for them.

use crate::kv::payload::Payload;
use crate::kv::store::{Applied, Store};
use crate::limits::APPLY_BYTES_PER_TURN_MAX;
use crate::raft::entry::EntryKind;
use crate::raft::storage::{SnapshotMeta, Storage, StorageError};
use crate::raft::types::{Incarnation, Standing};
use crate::replica::io::{Outcome, Reply};
use crate::replica::replica::Replica;
use crate::replica::restore::restore;
use crate::util::mutation::mutant;
use crate::util::time::Millis;

impl<S: Storage> Replica<S> {
    /// Applies committed entries, one after the other, up to the turn's budget. The rest follows in the next turns.
    pub(super) fn apply_committed(&mut self, now: Millis) -> Result<(), StorageError> {
        let mut bytes = 0;
        while self.store.applied_index() < self.committed && bytes < APPLY_BYTES_PER_TURN_MAX {
            let Some(applied) = self.apply_next(now)? else { break };
            bytes += applied;
        }
        Ok(())
    }

    /// Applies one entry and says how many bytes were written and read for it. `None`: it goes on in the next turn.
    fn apply_next(&mut self, now: Millis) -> Result<Option<usize>, StorageError> {
        let index = self.store.applied_index().next();
        let entry = self.raft.storage().entry(index)?;
        let bytes = entry.bytes().len();
        if entry.kind() == EntryKind::NoOp {
            self.store.pass(index);
            self.snapshots.on_applied(bytes);
            return Ok(Some(bytes));
        }
        let payload = Payload::decode(entry.payload()).map_err(|error| {
            StorageError::Refused(format!(
                "entry {} is committed, but this version of Keva cannot carry it out: {error}. Leaving it out \
                 would make this node's data differ from the other nodes'. Upgrade this node to the version that the \
                 other nodes run, and start it again on the same working directory",
                entry.id()
            ))
        })?;
        let id = payload.id;
        let Some(applied) = self.store.apply_some(index, payload, self.keys_per_turn) else {
            return Ok(None);
        };
        self.snapshots.on_applied(bytes);
        let work = bytes.max(self.store.changes_bytes()) + applied.read_bytes();
        let (revision, outcome) = match applied {
            Applied::Skipped => (index, None),
            Applied::Repeated { revision, first } => (revision, Some(Outcome::Applied(*first))),
            applied => (index, Some(Outcome::Applied(applied))),
        };
        self.clock.on_applied(entry.term(), self.store.logical_time(), now);
        match self.store.take_changes() {
            Some(changes) => self.history.push(changes),
            None => self.history.clear(index),
        }
        if let Some(seq) = self.writes.own_seq(id) {
            let replies = &mut self.replies;
            self.writes.on_applied(seq, entry.payload(), outcome, |ticket, outcome| {
                replies.push(Reply { ticket, revision, outcome });
            });
        }
        Ok(Some(work))
    }

    /// The leader's snapshot was installed: this node's state is what it holds. Waiting reads go on, since a later state
    /// is as good for them; a snapshot of its own that was in the making is gone.
    pub(super) fn on_installed(&mut self, now: Millis, snapshot: SnapshotMeta) -> Result<(), StorageError> {
        let before = self.store.applied_index();
        // Freed first: the memory need not hold both.
        self.store = Store::default();
        let store = restore(self.raft.storage(), snapshot)?;
        let after = store.applied_index();
        assert!(before < after, "an installed snapshot leads from {before} to {after}, and never back");
        self.store = store;
        self.store.set_changes_max(self.history_bytes);
        self.clock.on_installed(snapshot.last.term, self.store.logical_time(), now);
        if !mutant("history-outlives-snapshot") {
            self.history.clear(after);
        }
        self.snapshots.on_restored();
        self.committed = self.committed.max(after);
        log::info!("took over the leader's snapshot of everything up to {}", snapshot.last);
        if let Some(newest) = self.store.sessions().newest(self.id) {
            let replies = &mut self.replies;
            self.writes.on_restored(newest, |ticket, outcome| {
                replies.push(Reply { ticket, revision: after, outcome });
            });
        }
        Ok(())
    }

    /// A node that lost its disk, or got an older copy of it, counts its starts from a number that it has used before.
    /// Once it has applied what its other life wrote, it goes on above that.
    pub(super) fn maybe_raise_incarnation(&mut self) -> Result<(), StorageError> {
        if self.raft.standing() != Standing::Voter || self.store.applied_index() < self.committed {
            return Ok(());
        }
        let newest = self.store.sessions().newest(self.id);
        let Some(newest) = newest.filter(|newest| self.writes.is_outnumbered_by(*newest)) else {
            return Ok(());
        };
        if mutant("incarnation-not-raised") {
            return Ok(());
        }
        let incarnation = Incarnation(newest.0.0 + 1);
        log::warn!(
            "this node has written before with start number {}, on a disk that it does not have any more; it goes on \
             with number {incarnation}",
            newest.0
        );
        self.raft.storage_mut().raise_incarnation(incarnation)?;
        let (replies, revision) = (&mut self.replies, self.store.applied_index());
        self.writes.start_over(incarnation, |ticket, outcome| {
            replies.push(Reply { ticket, revision, outcome });
        });
        Ok(())
    }
}
