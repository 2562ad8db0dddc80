//! What the storage does when there is time, and what it removes when the disk is full.

use super::LogStorage;
use crate::limits::SCRUB_BYTES_PER_SECOND;
use crate::raft::storage::{Housekeeping, StorageError};
use crate::raft::types::Standing;
use crate::storage::directory::{Directory, io_error, sync_names};
use crate::storage::spare::SpareProgress;
use crate::util::mutation::mutant;

impl<D: Directory> LogStorage<D> {
    /// Removes one of the files that were set aside, and says whether there was one.
    fn remove_set_aside(&mut self) -> Result<bool, StorageError> {
        let Some(name) = self.set_aside.pop() else { return Ok(false) };
        let directory = self.log.directory_mut();
        directory.remove(&name).map_err(io_error("remove", directory.path(&name)))?;
        Ok(true)
    }

    /// Removes the files that were set aside, when a full disk keeps the node from getting back what was in them, and
    /// says whether there were any. Only a leader gives it anything: so the cluster works, and has all that counts.
    pub(super) fn give_space_back(&mut self) -> Result<bool, StorageError> {
        if self.standing == Standing::Voter || self.set_aside.is_empty() {
            return Ok(false);
        }
        while self.remove_set_aside()? {}
        self.log.ask_for_space_again();
        Ok(true)
    }

    /// Does one step of putting away what a snapshot has taken the place of, each as short as the system allows, and says
    /// whether there was one. A part of [`Storage::keep_house`](crate::raft::storage::Storage::keep_house).
    ///
    /// # Errors
    /// When the disk fails.
    pub fn clean_up(&mut self) -> Result<bool, StorageError> {
        self.attempt(LogStorage::clean_up_once)
    }

    /// Whether there is a step to do.
    #[must_use]
    pub fn must_clean_up(&self) -> bool {
        self.snapshots.must_clean_up() || self.log.must_clean_up()
    }

    fn clean_up_once(&mut self) -> Result<bool, StorageError> {
        if self.snapshots.clean_up(self.log.directory_mut())? || self.log.clean_up()? {
            return Ok(true);
        }
        if self.snapshots.has_new_names() || self.log.has_new_names() {
            // What is used again must not come back under its old name with its new content.
            if !mutant("reused-before-renamed") {
                sync_names(self.log.directory_mut())?;
            }
            self.snapshots.on_names_synced(self.log.directory_mut())?;
            self.log.on_names_synced();
            return Ok(true);
        }
        Ok(self.snapshots.trim(self.log.directory_mut())? || self.log.trim()?)
    }

    /// Does a step of what [`Snapshots::begin`](crate::storage::snapshots::Snapshots::begin) would else do at once, and says
    /// whether nothing is left.
    pub(super) fn prepare_snapshot_once(&mut self, bytes: u64) -> Result<bool, StorageError> {
        if self.snapshots.is_retiring() {
            self.clean_up_once()?;
            return Ok(false);
        }
        Ok(!self.snapshots.prepare(self.log.directory_mut(), bytes)?)
    }

    /// Puts everything away at once, because the disk is full, and says whether there was anything.
    pub(super) fn finish_cleaning_up(&mut self) -> Result<bool, StorageError> {
        let mut had_work = false;
        // A file that goes bit by bit goes as a whole: each of two, one after the other.
        while self.snapshots.finish_trimming(self.log.directory_mut())? || self.clean_up_once()? {
            had_work = true;
        }
        if had_work {
            self.log.ask_for_space_again();
        }
        Ok(had_work)
    }

    /// Removes the files that wait to be used again, for a snapshot that finds no space, and says whether there were any.
    pub(super) fn remove_used(&mut self) -> Result<bool, StorageError> {
        let mut had_used = false;
        while self.log.remove_used()? {
            had_used = true;
        }
        Ok(had_used)
    }

    /// The work of [`Storage::keep_house`](crate::raft::storage::Storage::keep_house).
    pub(super) fn keep_house_once(&mut self, budget: usize) -> Result<Housekeeping, StorageError> {
        // The log's next file and what is put away take turns: neither may wait for the other to come to an end.
        let may_clean_up = !self.cleaned_up || self.log.spare_debt() == 0;
        self.cleaned_up = may_clean_up && self.clean_up_once()?;
        if self.cleaned_up {
            return Ok(Housekeeping::More);
        }
        if self.log.prepare_spare(budget)? == SpareProgress::Filling || self.must_clean_up() {
            return Ok(Housekeeping::More);
        }
        // The cluster has given back all that it had of the node.
        if self.hard_state_file.slot().standing == Standing::Voter && self.remove_set_aside()? {
            return Ok(Housekeeping::More);
        }
        let budget = budget.min(SCRUB_BYTES_PER_SECOND);
        self.scrub.advance(&self.log, &self.snapshots, &self.hard_state_file, budget)?;
        Ok(Housekeeping::Later)
    }
}
