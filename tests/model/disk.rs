//! A disk that forgets what was not synced, cheap to copy and to hash.

use std::sync::Arc;

use keva::raft::entry::{Entry, EntryKind, encode_entry};
use keva::raft::storage::{
    Housekeeping, Purpose, SnapshotDraft, SnapshotMeta, SnapshotProgress, Storage, StorageError,
};
use keva::raft::types::{EntryId, HardState, Incarnation, Index, Standing, Term};

/// What every snapshot holds: only what it covers matters.
const SNAPSHOT_CONTENT: &[u8] = b"s";

/// The log, snapshot and hard state of one node, as written and as durable, and a draft that a crash forgets.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Disk {
    written: Image,
    durable: Image,
    draft: Option<(EntryId, u64)>,
}

#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
struct Image {
    hard_state: HardState,
    snapshot: Option<SnapshotMeta>,
    /// What the entries follow.
    log_start: EntryId,
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
        Disk { written: image.clone(), durable: image, draft: None }
    }

    /// The same, with a snapshot of everything that is committed and nothing of the log under it.
    pub(crate) fn compacted(mut self) -> Disk {
        let commit_index = self.written.hard_state.commit_index;
        let last = EntryId::new(self.written.term(commit_index).expect("it is in the log"), commit_index);
        self.written.install(snapshot_up_to(last));
        self.durable = self.written.clone();
        self
    }

    /// Power off and on.
    pub(crate) fn crash(self) -> Disk {
        Disk { written: self.durable.clone(), durable: self.durable, draft: None }
    }

    /// The bytes of an entry as written.
    pub(crate) fn bytes(&self, index: Index) -> &Arc<[u8]> {
        let position = self.written.position(index).expect("an entry of the log, not of the snapshot");
        &self.written.entries[position].1
    }

    /// The term of a durable entry.
    pub(crate) fn durable_term(&self, index: Index) -> Option<Term> {
        self.durable.term(index).filter(|_| index > self.durable.log_start.index)
    }
}

fn snapshot_up_to(last: EntryId) -> SnapshotMeta {
    SnapshotMeta { last, bytes: SNAPSHOT_CONTENT.len() as u64, crc: 0 }
}

impl Image {
    fn position(&self, index: Index) -> Option<usize> {
        usize::try_from(index.0.checked_sub(self.log_start.index.0 + 1)?).ok()
    }

    fn term(&self, index: Index) -> Option<Term> {
        if index == self.log_start.index {
            return Some(self.log_start.term);
        }
        Some(self.entries.get(self.position(index)?)?.0)
    }

    /// Takes a whole snapshot. What stays of the log follows it.
    fn install(&mut self, snapshot: SnapshotMeta) {
        let last = snapshot.last;
        let covered = self.position(last.index.next()).filter(|_| self.term(last.index) == Some(last.term));
        self.entries.drain(..covered.unwrap_or(self.entries.len()));
        (self.snapshot, self.log_start) = (Some(snapshot), last);
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
        unreachable!("every node of a model is a voter from the start")
    }

    fn incarnation(&self) -> Incarnation {
        Incarnation(1)
    }

    fn raise_incarnation(&mut self, _incarnation: Incarnation) -> Result<(), StorageError> {
        unreachable!("the protocol does not count starts")
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
        self.written.snapshot
    }

    fn read_snapshot(&self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        assert_eq!((offset, len), (0, SNAPSHOT_CONTENT.len()), "a snapshot is one part");
        Ok(SNAPSHOT_CONTENT)
    }

    fn begin_snapshot(&mut self, last: EntryId, _bytes: u64) -> Result<bool, StorageError> {
        self.draft = Some((last, 0));
        Ok(true)
    }

    fn snapshot_draft(&self) -> Option<SnapshotDraft> {
        let (last, written) = self.draft?;
        Some(SnapshotDraft { last, bytes: SNAPSHOT_CONTENT.len() as u64, written })
    }

    fn append_snapshot(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.draft.as_mut().expect("a draft was begun").1 += bytes.len() as u64;
        Ok(())
    }

    fn finish_snapshot(
        &mut self,
        expected: Option<SnapshotMeta>,
        _budget: usize,
    ) -> Result<SnapshotProgress, StorageError> {
        let (last, _) = self.draft.take().expect("a draft was begun");
        let snapshot = snapshot_up_to(last);
        if expected.is_some_and(|expected| expected != snapshot) {
            return Ok(SnapshotProgress::Damaged);
        }
        self.written.install(snapshot);
        self.durable.install(snapshot);
        Ok(SnapshotProgress::Done(snapshot))
    }

    fn drop_snapshot_draft(&mut self) -> Result<(), StorageError> {
        self.draft = None;
        Ok(())
    }

    fn keep_house(&mut self, _budget: usize) -> Result<Housekeeping, StorageError> {
        Ok(Housekeeping::Done)
    }

    fn log_start(&self) -> EntryId {
        self.written.log_start
    }

    fn last_index(&self) -> Index {
        Index(self.written.log_start.index.0 + self.written.entries.len() as u64)
    }

    fn term(&self, index: Index) -> Option<Term> {
        self.written.term(index)
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
        let kept = last_kept.0.checked_sub(self.written.log_start.index.0);
        let kept = kept.expect("what was removed at the beginning is never truncated");
        self.written.entries.truncate(kept as usize);
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
