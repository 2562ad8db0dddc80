//! A node's storage in one piece: working directory, hard state and log.

use crate::raft::entry::Entry;
use crate::raft::storage::{
    Housekeeping, Purpose, SnapshotDraft, SnapshotMeta, SnapshotProgress, Storage, StorageError,
};
use crate::raft::types::{EntryId, HardState, Incarnation, Index, Standing, Term};
use crate::storage::directory::Directory;
use crate::storage::hard_state::{HARD_STATE_NAME, HardStateFile, Slot};
use crate::storage::identity::Membership;
use crate::storage::log::Log;
use crate::storage::recovery::check_term;
use crate::storage::spare::SpareProgress;
use crate::util::mutation::mutant;
use crate::util::rng::Rng;

/// What [`LogStorage::open`] needs to know.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// Who this node is.
    pub membership: Membership,
    /// Size of a usual segment in bytes: [`SEGMENT_BYTES`](crate::limits::SEGMENT_BYTES), less in tests. A multiple of
    /// 4096, at least 8192.
    pub segment_bytes: usize,
    /// Bytes of entries under the newest snapshot that stay in the log, for peers that are a little behind:
    /// [`LOG_MARGIN_BYTES`](crate::limits::LOG_MARGIN_BYTES), less in tests. Whole segments go, so more may stay.
    pub log_margin_bytes: u64,
    /// For salts and ids. Seeded by the operating system in production: a salt that is drawn twice could bring removed
    /// entries back.
    pub rng: Rng,
}

/// Hard state and log of one node, on the files of a directory.
///
/// A change of the hard state is durable before any later entry is written, so the log never has an entry of a term
/// that the hard state does not know: a term without its entries is harmless, the reverse is not.
#[derive(Debug)]
pub struct LogStorage<D: Directory> {
    log: Log<D>,
    hard_state_file: HardStateFile<D::Region>,
    hard_state: HardState,
    hard_state_dirty: bool,
    /// A write or sync failed: what the disk holds is unknown from then on.
    failed: bool,
}

impl<D: Directory> LogStorage<D> {
    /// Counts the start in the hard state, durably.
    pub(crate) fn start(
        mut log: Log<D>,
        opened: Option<HardStateFile<D::Region>>,
        slot: Slot,
        incarnation: Incarnation,
    ) -> Result<LogStorage<D>, StorageError> {
        let last_term = log.term(log.last_index()).expect("the last term is known");
        check_term(slot.state.term, last_term, log.directory().path(HARD_STATE_NAME))?;
        let slot = Slot { incarnation, durable: log.durable_mark(), clean: false, ..slot };
        let hard_state_file = match opened {
            Some(mut file) => {
                file.replace(slot)?;
                file.sync_copy()?;
                file
            }
            None => {
                let owner = log.owner();
                HardStateFile::create(log.directory_mut(), owner, slot)?
            }
        };
        Ok(LogStorage {
            log,
            hard_state_file,
            hard_state: slot.state,
            hard_state_dirty: false,
            failed: false,
        })
    }

    /// How often this working directory has been started, from 1.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.hard_state_file.slot().incarnation
    }

    /// The cluster's number, fixed at the first start.
    #[must_use]
    pub fn cluster_id(&self) -> u128 {
        self.log.owner().cluster_id
    }

    /// The working directory's number, drawn at the first start. A node that lost its disk comes back with another.
    #[must_use]
    pub fn disk_id(&self) -> u64 {
        self.log.owner().disk_id
    }

    /// Bytes of records (an entry and at most 31 bytes) that can be appended without asking the file system for space.
    /// When this is less than what waits to be written and [`LogStorage::prepare_spare`] says that the disk is full,
    /// refuse writes: an append without space is an error that stops the process.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.log.free_bytes()
    }

    /// Works for about `budget` bytes on the file of the next segment, so that beginning that segment costs a few
    /// syncs and not the time to make a file. To be called in turns that have time, until it says that it is ready.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn prepare_spare(&mut self, budget: usize) -> Result<SpareProgress, StorageError> {
        self.attempt(|storage| storage.log.prepare_spare(budget))
    }

    /// Stops in good order: makes everything durable and notes that nothing is missing. The next start then knows that
    /// every entry was durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn close(mut self) -> Result<(), StorageError> {
        self.attempt(|storage| {
            storage.write_hard_state()?;
            storage.log.sync()?;
            storage.replace_slot(true)?;
            storage.hard_state_file.sync_copy()
        })
    }

    /// Runs something that writes. After its first error nothing is written any more.
    fn attempt<T>(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        assert!(!self.failed, "after a failed write or sync the process stops; nothing else is written");
        let result = action(self);
        self.failed = result.is_err();
        result
    }

    fn write_hard_state(&mut self) -> Result<(), StorageError> {
        if self.hard_state_dirty {
            self.replace_slot(false)?;
            self.hard_state_dirty = false;
        }
        Ok(())
    }

    /// Has the next sync note in the hard state that the log goes on in another file: should that file be lost, nothing
    /// else would miss it.
    fn note_new_segment(&mut self) {
        let noted = self.hard_state_file.slot().durable.segment_seq;
        self.hard_state_dirty |= self.log.durable_mark().segment_seq != noted;
    }

    fn replace_slot(&mut self, clean: bool) -> Result<(), StorageError> {
        let durable = self.log.durable_mark();
        // The commit index on disk promises that the log reaches it.
        let commit_index = self.hard_state.commit_index.min(durable.index);
        let state = HardState { commit_index, ..self.hard_state };
        let slot = Slot { state, durable, clean, ..*self.hard_state_file.slot() };
        self.hard_state_file.replace(slot)
    }
}

impl<D: Directory> Storage for LogStorage<D> {
    fn hard_state(&self) -> HardState {
        self.hard_state
    }

    fn set_hard_state(&mut self, hard_state: HardState) -> Result<(), StorageError> {
        assert!(!self.failed, "after a failed write or sync the process stops; nothing else is written");
        self.hard_state = hard_state;
        self.hard_state_dirty = true;
        Ok(())
    }

    fn standing(&self) -> Standing {
        Standing::Voter
    }

    fn set_standing(&mut self, _standing: Standing) -> Result<(), StorageError> {
        todo!()
    }

    fn incarnation(&self) -> Incarnation {
        self.hard_state_file.slot().incarnation
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
        self.log.snapshot()
    }

    fn last_index(&self) -> Index {
        self.log.last_index()
    }

    fn term(&self, index: Index) -> Option<Term> {
        self.log.term(index)
    }

    fn entry(&self, index: Index) -> Result<Entry<'_>, StorageError> {
        self.log.entry(index)
    }

    fn append(&mut self, entry: Entry<'_>) -> Result<(), StorageError> {
        assert!(
            entry.term() <= self.hard_state.term,
            "an entry of a term that the hard state does not know yet"
        );
        self.attempt(|storage| {
            if !mutant("log-before-hard-state") {
                storage.write_hard_state()?;
            }
            storage.log.append(entry)?;
            storage.note_new_segment();
            Ok(())
        })
    }

    fn truncate_suffix(&mut self, last_kept: Index) -> Result<(), StorageError> {
        let commit_index = self.hard_state.commit_index;
        assert!(last_kept >= commit_index, "entry {} is committed and must stay", last_kept.next());
        self.attempt(|storage| {
            storage.write_hard_state()?;
            storage.log.truncate_suffix(last_kept)?;
            storage.note_new_segment();
            Ok(())
        })
    }

    fn is_dirty(&self) -> bool {
        self.hard_state_dirty || self.log.is_dirty() || self.hard_state_file.is_copy_dirty()
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.attempt(|storage| {
            if mutant("log-before-hard-state") {
                storage.log.sync()?;
            }
            // What earlier turns left. A copy that is made here waits for the next turn, so that its sync does not delay
            // the promises that this one sets free.
            storage.hard_state_file.sync_copy()?;
            storage.write_hard_state()?;
            storage.log.sync()
        })
    }
}
