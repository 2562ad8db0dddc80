//! A disk that forgets what was not synced, cheap to copy and to hash.

use std::sync::Arc;

use keva::raft::entry::{Entry, EntryKind, encode_entry};
use keva::raft::storage::{Housekeeping, Purpose, SnapshotDraft, SnapshotMeta, SnapshotProgress, Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Incarnation, Index, Standing, Term};

/// The log and hard state of one node, as written and as durable.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Disk {
    written: Image,
    durable: Image,
}

#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
struct Image {
    hard_state: HardState,
    entries: Vec<(Term, Arc<[u8]>)>,
}

impl Disk {
    /// A durable disk with empty entries of these terms, and a hard state of `term`.
    pub(crate) fn with_log(terms: &[u64], term: u64, commit: u64) -> Disk {
        let mut image = Image::default();
        for (position, entry_term) in terms.iter().enumerate() {
            let id = EntryId::new(Term(*entry_term), Index(position as u64 + 1));
            let mut bytes = Vec::new();
            encode_entry(id, EntryKind::NoOp, &[], &mut bytes);
            image.entries.push((id.term, bytes.into()));
        }
        image.hard_state = HardState { term: Term(term), vote: None, commit_index: Index(commit) };
        Disk { written: image.clone(), durable: image }
    }

    /// Power off and on.
    pub(crate) fn crash(self) -> Disk {
        Disk { written: self.durable.clone(), durable: self.durable }
    }

    /// The bytes of an entry as written.
    pub(crate) fn bytes(&self, index: Index) -> &Arc<[u8]> {
        &self.written.entries[index.0 as usize - 1].1
    }

    /// The term of a durable entry.
    pub(crate) fn durable_term(&self, index: Index) -> Option<Term> {
        Some(self.durable.entries.get(index.0.checked_sub(1)? as usize)?.0)
    }
}

impl Storage for Disk {
    fn hard_state(&self) -> HardState {
        self.written.hard_state
    }

    fn set_hard_state(&mut self, hard_state: HardState) -> Result<(), StorageError> {
        self.written.hard_state = hard_state;
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
        None
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
        EntryId::default()
    }

    fn last_index(&self) -> Index {
        Index(self.written.entries.len() as u64)
    }

    fn term(&self, index: Index) -> Option<Term> {
        if index == Index(0) {
            return Some(Term(0));
        }
        Some(self.written.entries.get(index.0 as usize - 1)?.0)
    }

    fn entry(&self, index: Index) -> Result<Entry<'_>, StorageError> {
        Ok(Entry::decode(self.bytes(index)).expect("memory does not rot"))
    }

    fn append(&mut self, entry: Entry<'_>) -> Result<(), StorageError> {
        assert_eq!(entry.index(), self.last_index().next(), "appends leave no gap");
        self.written.entries.push((entry.term(), entry.bytes().into()));
        Ok(())
    }

    fn truncate_suffix(&mut self, last_kept: Index) -> Result<(), StorageError> {
        self.written.entries.truncate(last_kept.0 as usize);
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.written != self.durable
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.durable = self.written.clone();
        Ok(())
    }
}
