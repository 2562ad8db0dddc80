//! A disk in memory that forgets what was not synced, is as large as a test says, and fails when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keva::raft::entry::Entry;
use keva::raft::storage::{
    Housekeeping, Purpose, SnapshotDraft, SnapshotMeta, SnapshotProgress, Storage, StorageError,
};
use keva::raft::types::{EntryId, HardState, Incarnation, Index, Standing, Term};

/// The log, snapshot and hard state of one node, once as written and once as durable.
#[derive(Clone, Default, Debug)]
pub struct MemoryStorage {
    written: Disk,
    durable: Disk,
    /// Whatever is written into it is gone after a crash.
    draft: Option<Draft>,
    dirty: bool,
    /// How often [`Storage::sync`] had something to do.
    pub syncs: u64,
    /// Bytes of entries under a snapshot that stay.
    pub margin_bytes: u64,
    /// How much fits; everything when it is `None`.
    pub space: Option<Space>,
    /// What is broken.
    pub faults: Faults,
}

/// Space in bytes of entries and snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// In all.
    pub bytes: u64,
    /// What of it only upkeep may use.
    pub reserve: u64,
}

/// How a disk fails.
#[derive(Clone, Default, Debug)]
pub struct Faults {
    /// This entry cannot be read.
    pub unreadable: Option<Index>,
    /// The next syncs fail. All copies of the disk share it, so that a test can switch it while a node has the disk.
    pub failing_sync: Arc<AtomicBool>,
    /// No space for growth, nor for another snapshot. Shared like the one above.
    pub full: Arc<AtomicBool>,
    /// What is read back of a draft is not what was written. Shared like the ones above.
    pub rotten_drafts: Arc<AtomicBool>,
}

#[derive(Clone, Default, Debug)]
struct Disk {
    hard_state: HardState,
    standing: Standing,
    incarnation: Incarnation,
    snapshot: Option<(SnapshotMeta, Arc<[u8]>)>,
    log_start: EntryId,
    entries: Vec<Arc<[u8]>>,
}

#[derive(Clone, Debug)]
struct Draft {
    last: EntryId,
    bytes: u64,
    content: Vec<u8>,
}

/// What a snapshot of this content is called.
pub fn snapshot_meta(last: EntryId, content: &[u8]) -> SnapshotMeta {
    SnapshotMeta { last, bytes: content.len() as u64, crc: crc32c::crc32c(content) }
}

/// What a snapshot holds where nothing applies the entries: a text that names the last one, repeated until it has this
/// length. Without a length it is written once.
pub fn snapshot_content(last: EntryId, bytes: Option<usize>) -> Vec<u8> {
    let text = format!("all up to {last}; ").into_bytes();
    let bytes = bytes.unwrap_or(text.len());
    text.into_iter().cycle().take(bytes).collect()
}

impl MemoryStorage {
    /// A durable disk whose log begins behind a snapshot up to `last`.
    pub fn compacted_at(last: EntryId) -> MemoryStorage {
        MemoryStorage::with_snapshot(last, &snapshot_content(last, None))
    }

    /// A durable disk with this snapshot and nothing else.
    pub fn with_snapshot(last: EntryId, content: &[u8]) -> MemoryStorage {
        let snapshot = (last.index > Index(0)).then(|| (snapshot_meta(last, content), content.into()));
        let disk = Disk { snapshot, log_start: last, ..Disk::default() };
        MemoryStorage { written: disk.clone(), durable: disk, ..MemoryStorage::default() }
    }

    /// A durable disk that was never used.
    pub fn virgin() -> MemoryStorage {
        let disk = Disk { standing: Standing::Virgin, ..Disk::default() };
        MemoryStorage { written: disk.clone(), durable: disk, ..MemoryStorage::default() }
    }

    /// Power off and on: only what was synced is left, and the start is counted.
    #[must_use]
    pub fn crash(mut self) -> MemoryStorage {
        self.durable.incarnation = Incarnation(self.durable.incarnation.0 + 1);
        MemoryStorage { written: self.durable.clone(), draft: None, dirty: false, syncs: 0, ..self }
    }

    /// A part of the log was found damaged at the start: log and snapshot are set aside, the hard state stays.
    #[must_use]
    pub fn set_aside(self) -> MemoryStorage {
        let hard_state = HardState { commit_index: Index(0), ..self.durable.hard_state };
        let incarnation = self.durable.incarnation;
        let disk = Disk { hard_state, standing: Standing::Recovering, incarnation, ..Disk::default() };
        MemoryStorage { written: disk.clone(), durable: disk, draft: None, dirty: false, ..self }
    }

    /// The last index that would survive a crash now.
    pub fn durable_last_index(&self) -> Index {
        self.durable.last_index()
    }

    /// The hard state that would survive a crash now.
    pub fn durable_hard_state(&self) -> HardState {
        self.durable.hard_state
    }

    /// The standing that would survive a crash now.
    pub fn durable_standing(&self) -> Standing {
        self.durable.standing
    }

    /// The newest snapshot's whole content.
    pub fn snapshot_bytes(&self) -> Option<&[u8]> {
        self.written.snapshot.as_ref().map(|(_, content)| &**content)
    }

    fn used(&self) -> u64 {
        let draft = self.draft.as_ref().map_or(0, |draft| draft.bytes);
        let snapshot = self.snapshot().map_or(0, |snapshot| snapshot.bytes);
        draft + snapshot + self.written.bytes_between(self.written.log_start.index, self.written.last_index())
    }

    fn fits(&self, bytes: u64, purpose: Purpose) -> bool {
        if purpose == Purpose::Growth && self.faults.full.load(Ordering::SeqCst) {
            return false;
        }
        self.space.is_none_or(|space| {
            let kept = if purpose == Purpose::Growth { space.reserve } else { 0 };
            self.used() + bytes + kept <= space.bytes
        })
    }
}

impl Disk {
    fn last_index(&self) -> Index {
        Index(self.log_start.index.0 + self.entries.len() as u64)
    }

    fn position(&self, index: Index) -> Option<usize> {
        usize::try_from(index.0.checked_sub(self.log_start.index.0 + 1)?).ok()
    }

    fn decode(&self, index: Index) -> Option<Entry<'_>> {
        let bytes = self.entries.get(self.position(index)?)?;
        Some(Entry::decode(bytes).expect("memory does not rot"))
    }

    fn term(&self, index: Index) -> Option<Term> {
        if index == self.log_start.index {
            return Some(self.log_start.term);
        }
        self.decode(index).map(Entry::term)
    }

    /// Of the entries behind `low` and up to `high`.
    fn bytes_between(&self, low: Index, high: Index) -> u64 {
        let entries = (low.0 + 1..=high.0).filter_map(|index| self.decode(Index(index)));
        entries.map(|entry| entry.bytes().len() as u64).sum()
    }

    /// Takes a whole snapshot. What stays of the log follows it without a gap.
    fn install(&mut self, snapshot: SnapshotMeta, content: &Arc<[u8]>, margin_bytes: u64) {
        let last = snapshot.last;
        self.snapshot = Some((snapshot, content.clone()));
        if self.term(last.index) != Some(last.term) {
            self.entries.clear();
            self.log_start = last;
            return;
        }
        let first = |disk: &Disk| disk.entries.first().map_or(0, |bytes| bytes.len() as u64);
        while self.log_start.index < last.index
            && self.bytes_between(self.log_start.index, last.index) - first(self) >= margin_bytes
        {
            let removed = self.entries.remove(0);
            self.log_start = Entry::decode(&removed).expect("memory does not rot").id();
        }
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
        self.written.standing
    }

    fn set_standing(&mut self, standing: Standing) -> Result<(), StorageError> {
        self.written.standing = standing;
        self.dirty = true;
        Ok(())
    }

    fn incarnation(&self) -> Incarnation {
        self.durable.incarnation.max(Incarnation(1))
    }

    fn raise_incarnation(&mut self, incarnation: Incarnation) -> Result<(), StorageError> {
        let raised = self.incarnation().max(incarnation);
        (self.written.incarnation, self.durable.incarnation) = (raised, raised);
        Ok(())
    }

    fn log_start(&self) -> EntryId {
        self.written.log_start
    }

    fn last_index(&self) -> Index {
        self.written.last_index()
    }

    fn term(&self, index: Index) -> Option<Term> {
        self.written.term(index)
    }

    fn entry(&self, index: Index) -> Result<Entry<'_>, StorageError> {
        if self.faults.unreadable == Some(index) {
            let detail = format!("entry {index} cannot be read");
            return Err(StorageError::Damaged { file: "log".into(), offset: 0, detail });
        }
        Ok(self.written.decode(index).expect("a read of the log, not of the snapshot"))
    }

    fn append(&mut self, entry: Entry<'_>) -> Result<(), StorageError> {
        assert_eq!(entry.index(), self.last_index().next(), "appends leave no gap");
        assert!(self.fits(entry.bytes().len() as u64, Purpose::Upkeep), "space is reserved before an append");
        self.written.entries.push(entry.bytes().into());
        self.dirty = true;
        Ok(())
    }

    fn truncate_suffix(&mut self, last_kept: Index) -> Result<(), StorageError> {
        let kept = last_kept.0.checked_sub(self.written.log_start.index.0);
        let kept = kept.expect("what was removed at the beginning is never truncated");
        self.written.entries.truncate(usize::try_from(kept).expect("fits in memory"));
        self.dirty = true;
        Ok(())
    }

    fn reserve(&mut self, bytes: usize, purpose: Purpose) -> Result<bool, StorageError> {
        Ok(self.fits(bytes as u64, purpose))
    }

    fn is_full(&self) -> bool {
        !self.fits(1, Purpose::Growth)
    }

    fn log_bytes(&self) -> u64 {
        let covered = self.snapshot().map_or(Index(0), |snapshot| snapshot.last.index);
        self.written.bytes_between(covered, self.last_index())
    }

    fn snapshot(&self) -> Option<SnapshotMeta> {
        self.written.snapshot.as_ref().map(|(snapshot, _)| *snapshot)
    }

    fn read_snapshot(&self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        let content = self.snapshot_bytes().expect("there is a snapshot");
        let offset = usize::try_from(offset).expect("fits in memory");
        Ok(&content[offset..offset + len])
    }

    fn begin_snapshot(&mut self, last: EntryId, bytes: u64) -> Result<bool, StorageError> {
        let earlier = self.draft.take();
        if self.faults.full.load(Ordering::SeqCst) || !self.fits(bytes, Purpose::Upkeep) {
            self.draft = earlier;
            return Ok(false);
        }
        self.draft = Some(Draft { last, bytes, content: Vec::new() });
        Ok(true)
    }

    fn snapshot_draft(&self) -> Option<SnapshotDraft> {
        let Draft { last, bytes, content } = self.draft.as_ref()?;
        Some(SnapshotDraft { last: *last, bytes: *bytes, written: content.len() as u64 })
    }

    fn append_snapshot(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let draft = self.draft.as_mut().expect("a draft was begun");
        draft.content.extend_from_slice(bytes);
        assert!(draft.content.len() as u64 <= draft.bytes, "a draft is as long as was said");
        Ok(())
    }

    fn finish_snapshot(
        &mut self,
        expected: Option<SnapshotMeta>,
        _budget: usize,
    ) -> Result<SnapshotProgress, StorageError> {
        let Draft { last, bytes, content } = self.draft.take().expect("a draft was begun");
        assert_eq!(content.len() as u64, bytes, "only a whole draft is finished");
        let snapshot = snapshot_meta(last, &content);
        let is_rotten = self.faults.rotten_drafts.load(Ordering::SeqCst);
        if is_rotten || expected.is_some_and(|expected| expected != snapshot) {
            return Ok(SnapshotProgress::Damaged);
        }
        let content: Arc<[u8]> = content.into();
        self.written.install(snapshot, &content, self.margin_bytes);
        self.durable.install(snapshot, &content, self.margin_bytes);
        Ok(SnapshotProgress::Done(snapshot))
    }

    fn drop_snapshot_draft(&mut self) -> Result<(), StorageError> {
        self.draft = None;
        Ok(())
    }

    fn keep_house(&mut self, _budget: usize) -> Result<Housekeeping, StorageError> {
        Ok(Housekeeping::Done)
    }

    fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        if self.faults.failing_sync.load(Ordering::SeqCst) {
            return Err(StorageError::Refused("the disk of this test fails".into()));
        }
        self.durable = self.written.clone();
        self.syncs += u64::from(self.dirty);
        self.dirty = false;
        Ok(())
    }
}
