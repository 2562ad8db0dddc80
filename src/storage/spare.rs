//! Files of segments to come, made ahead of time: so that the turn in which a segment is full need not wait for its
//! successor, and so that a full disk is known before anything is promised.
//!
//! At least one file of the usual size lies ready at all times, if the disk has room. The last one is also the reserve: entries that make
//! the data grow are refused when a new segment for them would leave none behind, so that there is always a place for
//! the entries that make it smaller, for those of a new leader, and for the removal of a suffix.
//!
//! A file is filled with zeros although the file system has allocated its space already: the first write to merely
//! allocated blocks makes the file system note that they are in use, which doubles the time of a sync.
//!
//! It is filled page by page. A large write makes Linux keep the file in large folios, and then every small append
//! counts, and on some paths is written, as a whole folio.
//!
//! Files that were segments before come first. They are taken as they are: their blocks are in use, and what is in them
//! passes for nothing (see [`segment`](crate::storage::segment)). Filling them would double the bytes that the log
//! writes.

use std::collections::VecDeque;
use std::io;

use crate::limits::{APPEND_ENTRIES_BYTES_MAX, RESERVE_TRIES_APART};
use crate::raft::entry::ENTRY_HEADER_BYTES;
use crate::raft::storage::{Purpose, StorageError};
use crate::storage::directory::{Directory, io_error};
use crate::storage::region::Region;
use crate::storage::segment::{SEGMENT_HEADER_BYTES, segment_size_for};
use crate::util::mutation::mutant;

/// Bytes of one write while filling: a page of the page cache.
const FILL_BYTES: usize = 4096;

/// What the file is called until it becomes a segment.
pub(crate) const SPARE_NAME: &str = "spare.tmp";
/// What the second one is called, while there are two.
pub(crate) const SECOND_SPARE_NAME: &str = "spare-2.tmp";
/// What a larger-than-usual segment is called until its header is durable.
pub(crate) const LARGE_SEGMENT_TEMPORARY: &str = "segment.tmp";

const NAMES: [&str; 2] = [SPARE_NAME, SECOND_SPARE_NAME];
const USED_PREFIX: &str = "used-";
const USED_SUFFIX: &str = ".tmp";

/// What the file of segment `seq` is called when it waits to become another segment.
pub(crate) fn used_name(seq: u64) -> String {
    format!("{USED_PREFIX}{seq:010}{USED_SUFFIX}")
}

/// Whether a file waits to become a segment once more. Names that only resemble such a file's are somebody else's.
pub(crate) fn is_used_name(name: &str) -> bool {
    let digits = name.strip_prefix(USED_PREFIX).and_then(|rest| rest.strip_suffix(USED_SUFFIX));
    digits.and_then(|digits| digits.parse().ok()).is_some_and(|seq| used_name(seq) == name)
}

/// How far the spare is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpareProgress {
    /// Nothing is left to do.
    Ready,
    /// More calls are needed.
    Filling,
    /// There is no space for it. Trying again later is right.
    DiskFull,
}

/// Files of the usual size: at most two that were made for it, and some that were segments before; and one larger one that
/// was asked for.
#[derive(Debug)]
pub(crate) struct Spare<R> {
    /// Size of a usual segment in bytes.
    usual: usize,
    files: Vec<SpareFile<R>>,
    /// Names of former segments, which are durable.
    used: VecDeque<String>,
    large: Option<R>,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
struct SpareFile<R> {
    name: &'static str,
    region: R,
    /// Zeros are written and synced up to here.
    filled: usize,
    /// Behind that it reads as zeros too.
    is_blank: bool,
}

/// A file that becomes a segment.
#[derive(Debug)]
pub(crate) struct NewFile<R> {
    pub(crate) region: R,
    /// The name that it has.
    pub(crate) name: String,
    /// Up to here it may hold bytes of an earlier life; behind, it reads as zeros.
    pub(crate) stale_end: usize,
}

/// The disk had no room.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    /// For a file of this size.
    size: usize,
    /// Calls since then that were answered without trying again.
    calls: u32,
}

impl<R: Region> Spare<R> {
    /// No file yet.
    pub(crate) fn none(usual: usize) -> Spare<R> {
        Spare { usual, files: Vec::new(), used: VecDeque::new(), large: None, refusal: None }
    }

    /// Bytes in the file that the next segment is made of, 0 without one.
    pub(crate) fn size(&self) -> usize {
        if self.count() > 0 { self.usual } else { 0 }
    }

    /// Files of the usual size.
    fn count(&self) -> usize {
        self.used.len() + self.files.len()
    }

    /// Files that were segments before.
    pub(crate) fn used_count(&self) -> usize {
        self.used.len()
    }

    /// Whether the disk had no room for a usual segment when it was last asked.
    pub(crate) fn is_full(&self) -> bool {
        self.refusal.is_some_and(|refusal| refusal.size <= self.usual)
    }

    /// How many of the first `wanted` bytes of the file that the next segment is made of are not filled. On a full disk
    /// there is nothing to be done but to ask again now and then.
    pub(crate) fn debt(&self, wanted: usize) -> usize {
        let filled = self.files.first().map_or(0, |file| file.filled);
        let is_ready = self.is_full() || !self.used.is_empty();
        if is_ready { 0 } else { wanted.min(self.usual).saturating_sub(filled) }
    }

    /// Takes former segments of the usual size. They have these names durably: a file that is overwritten must never
    /// come back as the segment that it was.
    pub(crate) fn keep_used(&mut self, names: impl IntoIterator<Item = String>) {
        self.used.extend(names);
        if self.count() >= NAMES.len() {
            // What is asked of a disk that was full is there.
            self.refusal = self.refusal.filter(|refusal| refusal.size > self.usual);
        }
    }

    /// Removes the former segment that would be used last, and says whether there was one.
    pub(crate) fn remove_used<D: Directory>(&mut self, directory: &mut D) -> Result<bool, StorageError> {
        let Some(name) = self.used.pop_back() else { return Ok(false) };
        remove(directory, &name)?;
        Ok(true)
    }

    /// Takes a file that the last run made.
    ///
    /// # Panics
    /// When there is one of that name already, or its size is not the usual one.
    pub(crate) fn keep(&mut self, name: &'static str, region: R) {
        assert!(region.size() == self.usual, "a spare has the size of a usual segment");
        assert!(self.files.iter().all(|file| file.name != name), "there is a {name} already");
        self.files.push(SpareFile { name, region, filled: 0, is_blank: false });
    }

    /// Makes sure that entries of `bytes` in all can be appended behind a segment with `room` left, or with 0 bytes that
    /// a segment can be begun. For growth, a spare must be left afterwards.
    ///
    /// # Errors
    /// When the disk fails. A full disk is no error.
    pub(crate) fn reserve<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        room: usize,
        bytes: usize,
        purpose: Purpose,
    ) -> Result<bool, StorageError> {
        let needed = if bytes == 0 { 0 } else { records_bytes_most(bytes) };
        let fits = bytes > 0 && needed <= room;
        let is_large = needed > self.usual - SEGMENT_HEADER_BYTES;
        if purpose == Purpose::Upkeep || mutant("reserve-used-by-growth") {
            return match (fits, is_large) {
                (true, _) => Ok(true),
                (false, false) => self.has_files(directory, 1),
                (false, true) => self.has_large(directory, needed),
            };
        }
        if self.is_full() && !self.has_files(directory, NAMES.len())? {
            return Ok(false);
        }
        Ok(match (fits, is_large) {
            (true, _) => self.has_files(directory, 1)?,
            (false, false) => self.has_files(directory, 2)?,
            (false, true) => self.has_files(directory, 1)? && self.has_large(directory, needed)?,
        })
    }

    /// Whether there are `count` usual files, after making those that are missing.
    fn has_files<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        count: usize,
    ) -> Result<bool, StorageError> {
        while self.count() < count {
            let name = NAMES.into_iter().find(|name| self.files.iter().all(|file| file.name != *name));
            let name = name.expect("there are as many names as files");
            let Some(region) = self.try_to_create(directory, name, self.usual)? else { return Ok(false) };
            self.files.push(SpareFile { name, region, filled: 0, is_blank: true });
        }
        Ok(true)
    }

    /// Whether there is a file for `needed` bytes of records, after making it.
    fn has_large<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        needed: usize,
    ) -> Result<bool, StorageError> {
        let size = (SEGMENT_HEADER_BYTES + needed).next_multiple_of(SEGMENT_HEADER_BYTES);
        if self.large.as_ref().is_none_or(|large| large.size() < size) {
            self.large = None;
            self.large = self.try_to_create(directory, LARGE_SEGMENT_TEMPORARY, size)?;
        }
        Ok(self.large.is_some())
    }

    /// Makes a file, `None` when the disk is full, or was a short while ago.
    fn try_to_create<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        name: &'static str,
        size: usize,
    ) -> Result<Option<R>, StorageError> {
        if let Some(refusal) = self.refusal.as_mut().filter(|refusal| size >= refusal.size) {
            refusal.calls += 1;
            if refusal.calls < RESERVE_TRIES_APART {
                return Ok(None);
            }
            refusal.calls = 0;
        }
        match directory.create(name, size) {
            Ok(region) => {
                self.refusal = self.refusal.filter(|refusal| refusal.size > size);
                Ok(Some(region))
            }
            Err(error) if is_full(&error) => {
                let size = self.refusal.map_or(size, |refusal| refusal.size.min(size));
                self.refusal = Some(Refusal { size, calls: 0 });
                Ok(None)
            }
            Err(error) => Err(io_error("create", directory.path(name))(error)),
        }
    }

    /// Has the next call that needs a file try to make it, though the disk was full a short while ago.
    pub(crate) fn try_again(&mut self) {
        if let Some(refusal) = &mut self.refusal {
            refusal.calls = RESERVE_TRIES_APART;
        }
    }

    /// Works on the files: makes the one that should be there, and another one to see whether a full disk has room
    /// again; then fills and syncs about `budget` bytes. A large one that nobody used is removed.
    ///
    /// # Errors
    /// When the disk fails. A full disk is no error.
    pub(crate) fn prepare<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        budget: usize,
    ) -> Result<SpareProgress, StorageError> {
        if self.large.take().is_some() {
            remove(directory, LARGE_SEGMENT_TEMPORARY)?;
        }
        self.refusal = self.refusal.filter(|refusal| refusal.size <= self.usual);
        self.try_again();
        // Making the missing one tells as well as making another one.
        let has_room =
            self.has_files(directory, 1)? && (!self.is_full() || self.has_files(directory, NAMES.len())?);
        if let Some(place) = self.files.iter().position(|file| file.filled < self.usual) {
            return self.fill(directory, place, budget);
        }
        Ok(if has_room { SpareProgress::Ready } else { SpareProgress::DiskFull })
    }

    fn fill<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        place: usize,
        budget: usize,
    ) -> Result<SpareProgress, StorageError> {
        let file = &mut self.files[place];
        match file.fill(budget) {
            Ok(()) => {}
            // A file system that does not reserve what it has allocated.
            Err(error) if is_full(&error) => {
                let name = self.files.remove(place).name;
                remove(directory, name)?;
                self.refusal = Some(Refusal { size: self.usual, calls: 0 });
                return Ok(SpareProgress::DiskFull);
            }
            Err(error) => return Err(io_error("write", directory.path(file.name))(error)),
        }
        file.region.sync().map_err(io_error("sync", directory.path(file.name)))?;
        let is_ready = self.files.iter().all(|file| file.filled == self.usual) && !self.is_full();
        Ok(if is_ready { SpareProgress::Ready } else { SpareProgress::Filling })
    }

    /// Gives away a file for a segment that holds a record for an entry of `entry_bytes`, with the name that it has;
    /// made on the spot if there is none. One that is not filled to its end serves as well; its syncs only take longer.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub(crate) fn take<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        entry_bytes: usize,
    ) -> Result<NewFile<R>, StorageError> {
        let size = segment_size_for(entry_bytes, self.usual);
        let is_usual = size == self.usual;
        // Made for what comes: all of it fits.
        if let Some(large) = self.large.take_if(|large| large.size() >= size) {
            return Ok(NewFile { region: large, name: LARGE_SEGMENT_TEMPORARY.to_owned(), stale_end: 0 });
        }
        if is_usual && let Some(name) = self.used.pop_front() {
            let region = directory.open_unread(&name).map_err(io_error("open", directory.path(&name)))?;
            return Ok(NewFile { region, name, stale_end: size });
        }
        if is_usual && !self.files.is_empty() {
            let SpareFile { name, region, filled, is_blank } = self.files.remove(0);
            let stale_end = if is_blank || filled == size { 0 } else { size };
            return Ok(NewFile { region, name: name.to_owned(), stale_end });
        }
        self.large = None;
        let name = if is_usual { SPARE_NAME } else { LARGE_SEGMENT_TEMPORARY };
        let region = directory.create(name, size).map_err(io_error("make", directory.path(name)))?;
        Ok(NewFile { region, name: name.to_owned(), stale_end: 0 })
    }
}

impl<R: Region> SpareFile<R> {
    /// Writes up to `budget` zeros.
    fn fill(&mut self, budget: usize) -> io::Result<()> {
        let end = self.region.size().min(self.filled.saturating_add(budget));
        let zeros = [0; FILL_BYTES];
        while self.filled < end {
            let len = zeros.len().min(end - self.filled);
            self.region.write_at(self.filled, &zeros[..len])?;
            self.filled += len;
        }
        Ok(())
    }
}

/// The most that records of entries of `bytes` in all can take. Small entries come in batches, and none is smaller than
/// its header; a larger sum than a batch may have is one entry.
fn records_bytes_most(bytes: usize) -> usize {
    bytes + bytes.min(APPEND_ENTRIES_BYTES_MAX) + 2 * ENTRY_HEADER_BYTES
}

fn remove<D: Directory>(directory: &mut D, name: &str) -> Result<(), StorageError> {
    directory.remove(name).map_err(io_error("remove", directory.path(name)))
}

/// Whether there was no space, or no more of it for this user.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::record::record_bytes;

    /// What is reserved holds the records, however the bytes are shared out among entries.
    #[test]
    fn what_is_reserved_is_enough() {
        for entries in [1, 2, 3, 100, 10_000] {
            for entry in (ENTRY_HEADER_BYTES..ENTRY_HEADER_BYTES + 40).chain([1000, 100_000, 20 << 20]) {
                if entries == 1 || entries * entry <= APPEND_ENTRIES_BYTES_MAX {
                    assert!(
                        entries * record_bytes(entry) <= records_bytes_most(entries * entry),
                        "{entries} of {entry}"
                    );
                }
            }
        }
        // A payload alone, without the entry's header, is enough of a measure for one entry.
        for payload in [1, 15, 16, 17, 100, 1 << 20] {
            assert!(record_bytes(ENTRY_HEADER_BYTES + payload) <= records_bytes_most(payload), "{payload}");
        }
    }
}
