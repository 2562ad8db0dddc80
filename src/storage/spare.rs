//! The next segment's file, made ahead of time so that the turn in which a segment is full need not wait for it.
//!
//! The file is filled with zeros although the file system has allocated its space already: the first write to merely
//! allocated blocks makes the file system note that they are in use, which doubles the time of a sync.
//!
//! It is filled page by page. A large write makes Linux keep the file in large folios, and then every small append
//! counts, and on some paths is written, as a whole folio.

use std::io;

use crate::raft::storage::StorageError;
use crate::storage::directory::{Directory, io_error};
use crate::storage::region::Region;

/// Bytes of one write while filling: a page of the page cache.
const FILL_BYTES: usize = 4096;

/// What the file is called until it becomes a segment.
pub(crate) const SPARE_NAME: &str = "spare.tmp";

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

/// At most one spare file.
#[derive(Debug)]
pub(crate) struct Spare<R> {
    file: Option<SpareFile<R>>,
}

#[derive(Debug)]
struct SpareFile<R> {
    region: R,
    filled: usize,
    /// It was a segment before: where it is not filled yet, old records lie.
    recycled: bool,
}

impl<R: Region> Spare<R> {
    pub(crate) fn none() -> Spare<R> {
        Spare { file: None }
    }

    /// The spare's size in bytes, 0 without one.
    pub(crate) fn size(&self) -> usize {
        self.file.as_ref().map_or(0, |file| file.region.size())
    }

    /// Takes a file that was a segment, durably under its new name, as the spare. It is filled like a new one.
    ///
    /// # Panics
    /// When there is a spare already.
    pub(crate) fn recycle(&mut self, region: R) {
        assert!(self.file.is_none(), "there is one spare at most");
        self.file = Some(SpareFile { region, filled: 0, recycled: true });
    }

    /// Works on the spare: makes it if there is none, then fills and syncs about `budget` bytes of it.
    ///
    /// # Errors
    /// When the disk fails. A full disk is no error.
    pub(crate) fn prepare<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        size: usize,
        budget: usize,
    ) -> Result<SpareProgress, StorageError> {
        let path = directory.path(SPARE_NAME);
        if self.file.is_none() {
            match directory.create(SPARE_NAME, size) {
                Ok(region) => self.file = Some(SpareFile { region, filled: 0, recycled: false }),
                Err(error) if is_full(&error) => return Ok(SpareProgress::DiskFull),
                Err(error) => return Err(io_error("create", path)(error)),
            }
        }
        let file = self.file.as_mut().expect("made above");
        match file.fill(budget) {
            Ok(0) => return Ok(SpareProgress::Ready),
            Ok(_) => {}
            Err(error) if is_full(&error) => {
                self.file = None;
                directory.remove(SPARE_NAME).map_err(io_error("remove", path))?;
                return Ok(SpareProgress::DiskFull);
            }
            Err(error) => return Err(io_error("write", path)(error)),
        }
        file.region.sync().map_err(io_error("sync", path))?;
        Ok(if file.filled == size { SpareProgress::Ready } else { SpareProgress::Filling })
    }

    /// Gives the spare away, made on the spot if there is none. A new one that is not filled to its end serves as well;
    /// its syncs only take longer. A recycled one is filled: the old records would pass for the remains of a crash.
    pub(crate) fn take<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        size: usize,
    ) -> Result<R, StorageError> {
        match self.file.take() {
            Some(mut file) => {
                if file.recycled {
                    file.fill(usize::MAX).map_err(io_error("write", directory.path(SPARE_NAME)))?;
                }
                Ok(file.region)
            }
            None => directory.create(SPARE_NAME, size).map_err(io_error("make", directory.path(SPARE_NAME))),
        }
    }
}

impl<R: Region> SpareFile<R> {
    /// Writes up to `budget` zeros, and returns how many.
    fn fill(&mut self, budget: usize) -> io::Result<usize> {
        let end = self.region.size().min(self.filled.saturating_add(budget));
        let start = self.filled;
        let zeros = [0; FILL_BYTES];
        while self.filled < end {
            let len = zeros.len().min(end - self.filled);
            self.region.write_at(self.filled, &zeros[..len])?;
            self.filled += len;
        }
        Ok(end - start)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
