//! Segments that are not in the log any more, and whose files are still there.
//!
//! They leave the log all at once and the disk one by one: removing a file takes milliseconds, and a turn must not wait
//! for all of them. Those of the usual size become the files of segments to come, as many as the log is likely to need
//! until the next snapshot.
//!
//! The oldest goes first. So what a crash leaves is the end of the old log, in front of the new one: recovery finds a log
//! that begins earlier, or, where the new log has declared the old one void, files that count for nothing.

use std::collections::VecDeque;

use crate::limits::{REUSED_SEGMENTS_MIN, SNAPSHOT_DATA_BYTES_PER_LOG_BYTE};
use crate::raft::storage::StorageError;
use crate::storage::directory::{Directory, io_error};
use crate::storage::region::Region;
use crate::storage::segment::{Segment, segment_name};
use crate::storage::spare::{Spare, used_name};

/// The segments, and how many of their files are kept.
#[derive(Debug)]
pub(crate) struct Retired<R> {
    /// Size of a usual segment in bytes.
    usual: usize,
    /// Oldest first, under their old names.
    segments: VecDeque<Segment<R>>,
    /// Files with new names that are not durable yet.
    renamed: Vec<String>,
    /// How many files wait to be used again at most.
    used_max: usize,
}

impl<R: Region> Retired<R> {
    pub(crate) fn none(usual: usize) -> Retired<R> {
        Retired { usual, segments: VecDeque::new(), renamed: Vec::new(), used_max: REUSED_SEGMENTS_MIN }
    }

    /// Takes segments that a snapshot with so many bytes of content has taken the place of. The next snapshot is due when
    /// the log has grown to a share of that, and it goes on growing while that one is written; many more files are not
    /// needed until then.
    pub(crate) fn add(&mut self, old: impl IntoIterator<Item = Segment<R>>, snapshot_bytes: u64) {
        self.segments.extend(old);
        let log_bytes = snapshot_bytes / SNAPSHOT_DATA_BYTES_PER_LOG_BYTE;
        let segments = usize::try_from(log_bytes.div_ceil(self.usual as u64)).unwrap_or(usize::MAX);
        self.used_max = segments.saturating_add(1).max(REUSED_SEGMENTS_MIN);
    }

    /// Whether the names must be synced before the files can be used again.
    pub(crate) fn has_new_names(&self) -> bool {
        !self.renamed.is_empty()
    }

    /// Whether there is anything left to do.
    pub(crate) fn has_work(&self, spare: &Spare<R>) -> bool {
        !self.segments.is_empty() || self.has_new_names() || spare.used_count() > self.used_max
    }

    /// Renames or removes the oldest, and says whether there was one.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn advance<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        spare: &Spare<R>,
    ) -> Result<bool, StorageError> {
        let Some(segment) = self.segments.pop_front() else { return Ok(false) };
        let (seq, size) = (segment.header().seq, segment.size());
        drop(segment);
        let name = segment_name(seq);
        let path = directory.path(&name);
        if size == self.usual && spare.used_count() + self.renamed.len() < self.used_max {
            let new_name = used_name(seq);
            directory.rename(&name, &new_name).map_err(io_error("rename", path))?;
            self.renamed.push(new_name);
        } else {
            directory.remove(&name).map_err(io_error("remove", path))?;
        }
        Ok(true)
    }

    /// Says that all names are durable.
    pub(crate) fn on_names_synced(&mut self, spare: &mut Spare<R>) {
        spare.keep_used(self.renamed.drain(..));
    }

    /// Removes a file that there are too many of, and says whether there was one.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn trim<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        spare: &mut Spare<R>,
    ) -> Result<bool, StorageError> {
        Ok(spare.used_count() > self.used_max && spare.remove_used(directory)?)
    }
}
