//! The replica's storage, with a count of what it does for `GET /metrics`.

use crate::net::event_loop::clock::Clock;
use crate::net::metrics::StorageUse;
use crate::raft::entry::Entry;
use crate::raft::types::{EntryId, HardState, Incarnation, Index, Standing, Term};
use crate::replica::io::{
    Housekeeping, Purpose, SnapshotDraft, SnapshotMeta, SnapshotProgress, Storage, StorageError,
};

/// A storage that is used through this. It does what it did, and is watched.
#[derive(Debug)]
pub(super) struct MeteredStorage<S> {
    storage: S,
    clock: Clock,
    usage: StorageUse,
}

impl<S> MeteredStorage<S> {
    pub(super) fn new(storage: S, clock: Clock) -> MeteredStorage<S> {
        MeteredStorage { storage, clock, usage: StorageUse::default() }
    }

    pub(super) fn usage(&self) -> &StorageUse {
        &self.usage
    }

    pub(super) fn into_inner(self) -> S {
        self.storage
    }
}

impl<S: Storage> Storage for MeteredStorage<S> {
    fn hard_state(&self) -> HardState {
        self.storage.hard_state()
    }

    fn set_hard_state(&mut self, hard_state: HardState) -> Result<(), StorageError> {
        self.storage.set_hard_state(hard_state)
    }

    fn standing(&self) -> Standing {
        self.storage.standing()
    }

    fn set_standing(&mut self, standing: Standing) -> Result<(), StorageError> {
        self.storage.set_standing(standing)
    }

    fn incarnation(&self) -> Incarnation {
        self.storage.incarnation()
    }

    fn raise_incarnation(&mut self, incarnation: Incarnation) -> Result<(), StorageError> {
        self.storage.raise_incarnation(incarnation)
    }

    fn log_start(&self) -> EntryId {
        self.storage.log_start()
    }

    fn last_index(&self) -> Index {
        self.storage.last_index()
    }

    fn term(&self, index: Index) -> Option<Term> {
        self.storage.term(index)
    }

    fn entry(&self, index: Index) -> Result<Entry<'_>, StorageError> {
        self.storage.entry(index)
    }

    fn append(&mut self, entry: Entry<'_>) -> Result<(), StorageError> {
        self.usage.log_bytes += entry.bytes().len() as u64;
        self.storage.append(entry)
    }

    fn truncate_suffix(&mut self, last_kept: Index) -> Result<(), StorageError> {
        self.storage.truncate_suffix(last_kept)
    }

    fn reserve(&mut self, bytes: usize, purpose: Purpose) -> Result<bool, StorageError> {
        self.storage.reserve(bytes, purpose)
    }

    fn is_full(&self) -> bool {
        self.storage.is_full()
    }

    fn log_bytes(&self) -> u64 {
        self.storage.log_bytes()
    }

    fn snapshot(&self) -> Option<SnapshotMeta> {
        self.storage.snapshot()
    }

    fn read_snapshot(&self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        self.storage.read_snapshot(offset, len)
    }

    fn prepare_snapshot(&mut self, bytes: u64) -> Result<bool, StorageError> {
        self.storage.prepare_snapshot(bytes)
    }

    fn begin_snapshot(&mut self, last: EntryId, bytes: u64) -> Result<bool, StorageError> {
        self.storage.begin_snapshot(last, bytes)
    }

    fn snapshot_draft(&self) -> Option<SnapshotDraft> {
        self.storage.snapshot_draft()
    }

    fn append_snapshot(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.usage.snapshot_bytes += bytes.len() as u64;
        self.storage.append_snapshot(bytes)
    }

    fn finish_snapshot(
        &mut self,
        expected: Option<SnapshotMeta>,
        budget: usize,
    ) -> Result<SnapshotProgress, StorageError> {
        self.storage.finish_snapshot(expected, budget)
    }

    fn drop_snapshot_draft(&mut self) -> Result<(), StorageError> {
        self.storage.drop_snapshot_draft()
    }

    fn keep_house(&mut self, budget: usize) -> Result<Housekeeping, StorageError> {
        self.storage.keep_house(budget)
    }

    fn house_debt(&self) -> usize {
        self.storage.house_debt()
    }

    fn is_dirty(&self) -> bool {
        self.storage.is_dirty()
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let began = self.clock.elapsed();
        let result = self.storage.sync();
        self.usage.on_sync(self.clock.elapsed().saturating_sub(began));
        result
    }
}
