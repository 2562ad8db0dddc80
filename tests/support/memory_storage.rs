//! A disk in memory that forgets what was not synced.

use keva::raft::entry::Entry;
use keva::raft::storage::{
    Housekeeping, Purpose, SnapshotDraft, SnapshotMeta, SnapshotProgress, Storage, StorageError,
};
use keva::raft::types::{EntryId, HardState, Incarnation, Index, Standing, Term};

/// The log and hard state of one node, once as written and once as durable.
#[derive(Clone, Default, Debug)]
pub struct MemoryStorage {
    written: Disk,
    durable: Disk,
    dirty: bool,
    /// How often [`Storage::sync`] had something to do.
    pub syncs: u64,
}

#[derive(Clone, Default, Debug)]
struct Disk {
    hard_state: HardState,
    snapshot: EntryId,
    entries: Vec<Vec<u8>>,
}

impl MemoryStorage {
    /// A durable disk whose log begins behind `snapshot`.
    pub fn compacted_at(snapshot: EntryId) -> MemoryStorage {
        let disk = Disk { snapshot, ..Disk::default() };
        MemoryStorage { written: disk.clone(), durable: disk, ..MemoryStorage::default() }
    }

    /// Power off and on: only what was synced is left.
    #[must_use]
    pub fn crash(self) -> MemoryStorage {
        MemoryStorage { written: self.durable.clone(), durable: self.durable, dirty: false, syncs: 0 }
    }

    /// The last index that would survive a crash now.
    pub fn durable_last_index(&self) -> Index {
        Index(self.durable.snapshot.index.0 + self.durable.entries.len() as u64)
    }

    /// The hard state that would survive a crash now.
    pub fn durable_hard_state(&self) -> HardState {
        self.durable.hard_state
    }
}

impl Disk {
    fn position(&self, index: Index) -> Option<usize> {
        usize::try_from(index.0.checked_sub(self.snapshot.index.0 + 1)?).ok()
    }
}

impl Storage for MemoryStorage {
    fn hard_state(&self) -> HardState {
        self.written.hard_state
    }

    fn set_hard_state(&mut self, hard_state: HardState) -> Result<(), StorageError> {
        self.written.hard_state = hard_state;
        self.dirty = true;
        Ok(())
    }

    fn standing(&self) -> Standing {
        Standing::Voter
    }

    fn set_standing(&mut self, _standing: Standing) -> Result<(), StorageError> {
        todo!()
    }

    fn incarnation(&self) -> Incarnation {
        Incarnation(1)
    }

    fn raise_incarnation(&mut self, _incarnation: Incarnation) -> Result<(), StorageError> {
        todo!()
    }

    fn reserve(&mut self, _bytes: usize, _purpose: Purpose) -> Result<bool, StorageError> {
        Ok(true)
    }

    fn is_full(&self) -> bool {
        false
    }

    fn log_bytes(&self) -> u64 {
        0
    }

    fn snapshot(&self) -> Option<SnapshotMeta> {
        (self.written.snapshot.index > Index(0)).then_some(SnapshotMeta {
            last: self.written.snapshot,
            bytes: 1,
            crc: 0,
        })
    }

    fn read_snapshot(&self, _offset: u64, _len: usize) -> Result<&[u8], StorageError> {
        todo!()
    }

    fn begin_snapshot(&mut self, _last: EntryId, _bytes: u64) -> Result<bool, StorageError> {
        todo!()
    }

    fn snapshot_draft(&self) -> Option<SnapshotDraft> {
        None
    }

    fn append_snapshot(&mut self, _bytes: &[u8]) -> Result<(), StorageError> {
        todo!()
    }

    fn finish_snapshot(
        &mut self,
        _expected: Option<SnapshotMeta>,
        _budget: usize,
    ) -> Result<SnapshotProgress, StorageError> {
        todo!()
    }

    fn drop_snapshot_draft(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn keep_house(&mut self, _budget: usize) -> Result<Housekeeping, StorageError> {
        Ok(Housekeeping::Done)
    }

    fn log_start(&self) -> EntryId {
        self.written.snapshot
    }

    fn last_index(&self) -> Index {
        Index(self.written.snapshot.index.0 + self.written.entries.len() as u64)
    }

    fn term(&self, index: Index) -> Option<Term> {
        if index == self.written.snapshot.index {
            return Some(self.written.snapshot.term);
        }
        let bytes = self.written.entries.get(self.written.position(index)?)?;
        Some(Entry::decode(bytes).expect("memory does not rot").term())
    }

    fn entry(&self, index: Index) -> Result<Entry<'_>, StorageError> {
        let position = self.written.position(index).expect("a read of the log, not of the snapshot");
        Ok(Entry::decode(&self.written.entries[position]).expect("memory does not rot"))
    }

    fn append(&mut self, entry: Entry<'_>) -> Result<(), StorageError> {
        assert_eq!(entry.index(), self.last_index().next(), "appends leave no gap");
        self.written.entries.push(entry.bytes().to_vec());
        self.dirty = true;
        Ok(())
    }

    fn truncate_suffix(&mut self, last_kept: Index) -> Result<(), StorageError> {
        let kept =
            last_kept.0.checked_sub(self.written.snapshot.index.0).expect("snapshots are never truncated");
        self.written.entries.truncate(usize::try_from(kept).expect("fits in memory"));
        self.dirty = true;
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.durable = self.written.clone();
        self.syncs += u64::from(self.dirty);
        self.dirty = false;
        Ok(())
    }
}
