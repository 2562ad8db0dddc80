//! A node's storage in one piece: working directory, hard state and log.

mod housekeeping;

use crate::limits::SNAPSHOT_DEBT_BYTES_MIN;
use crate::raft::entry::Entry;
use crate::raft::storage::{
    Housekeeping, Purpose, SnapshotDraft, SnapshotMeta, SnapshotProgress, Storage, StorageError,
};
use crate::raft::types::{EntryId, HardState, Incarnation, Index, Standing, Term};
use crate::storage::directory::{Directory, io_error, sync_names};
use crate::storage::hard_state::{HARD_STATE_NAME, HardStateFile, Slot};
use crate::storage::identity::Membership;
use crate::storage::log::Log;
use crate::storage::recovery::check_term;
use crate::storage::scrub::Scrub;
use crate::storage::set_aside::set_aside_names;
use crate::storage::snapshot_draft::DraftCheck;
use crate::storage::snapshots::Snapshots;
use crate::storage::spare::SpareProgress;
use crate::storage::stamp::{REPLACE, START_AGAIN, START_MENDS, with_advice};
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
    /// Whether other nodes have what this one may lose. If so, a damaged log is set aside, and the node gets it back
    /// from them; if not, it refuses to start.
    pub repair: bool,
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
    snapshots: Snapshots<D::Region>,
    hard_state_file: HardStateFile<D::Region>,
    hard_state: HardState,
    standing: Standing,
    /// What is written of both is older.
    hard_state_dirty: bool,
    scrub: Scrub,
    /// Names of the files that were set aside.
    set_aside: Vec<String>,
    /// See [`StorageOptions::repair`].
    repair: bool,
    /// The last snapshot of its own that this node wanted found no space. Growth would take what is left, and then no
    /// snapshot could ever make room again.
    lacks_snapshot: bool,
    /// The leader's snapshot found no space. It is the leader that tries again, unless it has entries that do as well.
    lacks_received: bool,
    /// The last step of [`Storage::keep_house`] put files away.
    cleaned_up: bool,
    /// A write or sync failed: what the disk holds is unknown from then on.
    failed: bool,
}

impl<D: Directory> LogStorage<D> {
    /// Counts the start in the hard state, durably. With that, setting aside a damaged log is over.
    pub(crate) fn start(
        mut log: Log<D>,
        snapshots: Snapshots<D::Region>,
        opened: Option<HardStateFile<D::Region>>,
        slot: Slot,
        incarnation: Incarnation,
        repair: bool,
    ) -> Result<LogStorage<D>, StorageError> {
        let last_term = log.term(log.last_index()).expect("the last term is known");
        check_term(slot.state.term, last_term, log.directory().path(HARD_STATE_NAME))?;
        let names =
            log.directory().list().map_err(io_error("list the files in", log.directory().path("")))?;
        let slot = Slot { incarnation, durable: log.durable_mark(), clean: false, setting_aside: 0, ..slot };
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
            snapshots,
            hard_state_file,
            hard_state: slot.state,
            standing: slot.standing,
            hard_state_dirty: false,
            scrub: Scrub::start(),
            set_aside: set_aside_names(&names),
            repair,
            lacks_snapshot: false,
            lacks_received: false,
            cleaned_up: false,
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
    /// An append without space is an error that stops the process: see [`Storage::reserve`].
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.log.free_bytes()
    }

    /// Works for about `budget` bytes on the file of the next segment, so that beginning that segment costs a few
    /// syncs and not the time to make a file. A part of [`Storage::keep_house`].
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
        let result = action(self).map_err(|error| self.advise(error));
        self.failed = result.is_err();
        result
    }

    /// Adds to an error of a running node what to do about it.
    fn advise(&self, error: StorageError) -> StorageError {
        let hard_state = self.log.directory().path(HARD_STATE_NAME);
        match &error {
            StorageError::Damaged { file, .. } if *file == hard_state => with_advice(error, START_MENDS),
            _ => with_advice(error, if self.repair { START_AGAIN } else { REPLACE }),
        }
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when something is not what was written.
    pub(crate) fn read_everything(&self) -> Result<(), StorageError> {
        Scrub::start().advance(&self.log, &self.snapshots, &self.hard_state_file, usize::MAX)
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

    fn begin_draft(&mut self, last: EntryId, bytes: u64) -> Result<bool, StorageError> {
        let begun = self.try_to_begin_draft(last, bytes)?
            || self.finish_cleaning_up()? && self.try_to_begin_draft(last, bytes)?
            || self.remove_used()? && self.try_to_begin_draft(last, bytes)?
            || self.give_space_back()? && self.try_to_begin_draft(last, bytes)?;
        // The node's own covers entries of its own log.
        let is_own = self.log.has(last);
        self.lacks_snapshot = !begun && (is_own || self.lacks_snapshot);
        self.lacks_received = !begun && !is_own;
        Ok(begun)
    }

    fn try_to_begin_draft(&mut self, last: EntryId, bytes: u64) -> Result<bool, StorageError> {
        // A log that does not have the entry will begin behind it. Better no draft than one that ends for want of space.
        if !self.log.has(last) && !self.log.can_start_over()? {
            self.snapshots.drop_draft(self.log.directory_mut())?;
            return Ok(false);
        }
        self.snapshots.begin(self.log.directory_mut(), last, bytes)
    }

    fn finish_draft(
        &mut self,
        expected: Option<SnapshotMeta>,
        budget: usize,
    ) -> Result<SnapshotProgress, StorageError> {
        let owner = self.log.owner();
        let was_sound = self.snapshots.is_draft_sound();
        match self.snapshots.check(self.log.directory(), owner, expected, budget)? {
            DraftCheck::More => Ok(SnapshotProgress::More),
            // The names take a sync of their own.
            DraftCheck::Sound if !was_sound && budget < usize::MAX => Ok(SnapshotProgress::More),
            DraftCheck::Damaged => {
                self.snapshots.drop_damaged(self.log.directory_mut())?;
                Ok(SnapshotProgress::Damaged)
            }
            DraftCheck::Sound => self.install(expected.is_some()).map(SnapshotProgress::Done),
        }
    }

    /// Makes the checked draft the newest snapshot, and has the log go on from it. The files that it takes the place of are
    /// put away later, bit by bit.
    fn install(&mut self, is_received: bool) -> Result<SnapshotMeta, StorageError> {
        let meta = self.snapshots.draft_meta();
        assert!(
            meta.last.term <= self.hard_state.term,
            "a snapshot of a term that the hard state does not know"
        );
        let mut keeps_log = self.log.has(meta.last);
        assert!(keeps_log || is_received, "the node's own snapshot covers entries of its own log");
        let commit_index = self.hard_state.commit_index;
        assert!(
            keeps_log || meta.last.index > commit_index,
            "entry {commit_index} is committed and must stay"
        );
        if mutant("install-keeps-log") {
            keeps_log = self.log.last_index() >= meta.last.index;
        }
        if !mutant("snapshot-before-hard-state") {
            self.write_hard_state()?;
        }
        if mutant("log-removed-before-snapshot") && keeps_log {
            self.log.remove_covered(meta.last.index, meta.bytes);
            while self.log.clean_up()? {}
            sync_names(self.log.directory_mut())?;
        }
        if keeps_log {
            self.log.sync()?;
        }
        if mutant("log-begun-before-snapshot") && !keeps_log {
            self.log.start_over(meta.last, meta.bytes)?;
            keeps_log = true;
        }
        self.snapshots.publish(self.log.directory_mut())?;
        if keeps_log {
            self.log.remove_covered(meta.last.index, meta.bytes);
        } else {
            self.log.start_over(meta.last, meta.bytes)?;
            self.note_new_segment();
        }
        Ok(meta)
    }

    fn replace_slot(&mut self, clean: bool) -> Result<(), StorageError> {
        let durable = self.log.durable_mark();
        // The commit index on disk promises that the log reaches it.
        let commit_index = self.hard_state.commit_index.min(durable.index);
        let state = HardState { commit_index, ..self.hard_state };
        let slot = Slot { state, durable, clean, standing: self.standing, ..*self.hard_state_file.slot() };
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
        self.standing
    }

    fn set_standing(&mut self, standing: Standing) -> Result<(), StorageError> {
        assert!(!self.failed, "after a failed write or sync the process stops; nothing else is written");
        self.standing = standing;
        self.hard_state_dirty = true;
        Ok(())
    }

    fn incarnation(&self) -> Incarnation {
        self.hard_state_file.slot().incarnation
    }

    fn raise_incarnation(&mut self, incarnation: Incarnation) -> Result<(), StorageError> {
        if incarnation <= self.hard_state_file.slot().incarnation {
            return Ok(());
        }
        self.attempt(|storage| {
            // What was written in this turn comes first, as always.
            storage.write_hard_state()?;
            let slot = Slot { incarnation, ..*storage.hard_state_file.slot() };
            storage.hard_state_file.replace(slot)?;
            storage.log.set_incarnation(incarnation);
            Ok(())
        })
    }

    fn reserve(&mut self, bytes: usize, purpose: Purpose) -> Result<bool, StorageError> {
        self.attempt(|storage| {
            if storage.lacks_snapshot && purpose == Purpose::Growth {
                return Ok(false);
            }
            if storage.log.reserve(bytes, purpose)? {
                return Ok(true);
            }
            if storage.finish_cleaning_up()? && storage.log.reserve(bytes, purpose)? {
                return Ok(true);
            }
            Ok(storage.give_space_back()? && storage.log.reserve(bytes, purpose)?)
        })
    }

    fn is_full(&self) -> bool {
        self.log.is_full() || self.lacks_snapshot || self.lacks_received
    }

    fn log_bytes(&self) -> u64 {
        self.log.bytes_behind(self.snapshots.last().index)
    }

    fn snapshot(&self) -> Option<SnapshotMeta> {
        self.snapshots.meta()
    }

    fn read_snapshot(&self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        self.snapshots.read(offset, len).map_err(|error| self.advise(error))
    }

    fn prepare_snapshot(&mut self, bytes: u64) -> Result<bool, StorageError> {
        self.attempt(|storage| storage.prepare_snapshot_once(bytes))
    }

    fn begin_snapshot(&mut self, last: EntryId, bytes: u64) -> Result<bool, StorageError> {
        self.attempt(|storage| storage.begin_draft(last, bytes))
    }

    fn snapshot_draft(&self) -> Option<SnapshotDraft> {
        self.snapshots.draft()
    }

    fn append_snapshot(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.attempt(|storage| storage.snapshots.append(storage.log.directory(), bytes))
    }

    fn finish_snapshot(
        &mut self,
        expected: Option<SnapshotMeta>,
        budget: usize,
    ) -> Result<SnapshotProgress, StorageError> {
        self.attempt(|storage| storage.finish_draft(expected, budget))
    }

    fn drop_snapshot_draft(&mut self) -> Result<(), StorageError> {
        self.attempt(|storage| storage.snapshots.drop_draft(storage.log.directory_mut()))
    }

    fn keep_house(&mut self, budget: usize) -> Result<Housekeeping, StorageError> {
        self.attempt(|storage| storage.keep_house_once(budget))
    }

    fn house_debt(&self) -> usize {
        let cleaning = if self.must_clean_up() { SNAPSHOT_DEBT_BYTES_MIN } else { 0 };
        self.log.spare_debt().max(cleaning)
    }

    fn log_start(&self) -> EntryId {
        self.log.start()
    }

    fn last_index(&self) -> Index {
        self.log.last_index()
    }

    fn term(&self, index: Index) -> Option<Term> {
        self.log.term(index)
    }

    fn entry(&self, index: Index) -> Result<Entry<'_>, StorageError> {
        self.log.entry(index).map_err(|error| self.advise(error))
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
            storage.lacks_received = false;
            storage.note_new_segment();
            Ok(())
        })
    }

    fn truncate_suffix(&mut self, last_kept: Index) -> Result<(), StorageError> {
        let commit_index = self.hard_state.commit_index;
        assert!(last_kept >= commit_index, "entry {} is committed and must stay", last_kept.next());
        let covered = self.snapshots.last().index;
        assert!(last_kept >= covered, "entry {} is in a snapshot and must stay", last_kept.next());
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
