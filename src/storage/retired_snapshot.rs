//! A snapshot that another one has taken the place of, on its way out: step by step, because giving back the memory and the
//! space of a large file takes long.
//!
//! ```text
//!  newest ──> mapped ──its memory is free──> renamed ──names are durable──┬─> the file of the next draft
//!                                                                         └─> shorter and shorter ──> removed
//! ```

use crate::limits::{RELEASED_BYTES_PER_TURN, REMOVED_BYTES_PER_TURN};
use crate::raft::storage::StorageError;
use crate::storage::directory::{Directory, io_error};
use crate::storage::region::Region;
use crate::storage::snapshot::{SnapshotFile, snapshot_name};
use crate::storage::snapshot_draft::SNAPSHOT_TEMPORARY;

/// What a file is called that is about to be removed.
pub(crate) const REMOVED_NAME: &str = "removed.tmp";

/// The snapshot that was the newest one before.
#[derive(Debug)]
pub(crate) enum RetiredSnapshot<R> {
    /// Its memory is given back up to this byte.
    Mapped { file: SnapshotFile<R>, released: usize },
    /// It has its new name, not durably: that of a draft, or [`REMOVED_NAME`]. And its size.
    Renamed { is_reserve: bool, size: usize },
}

/// A file that is being removed: so many of its bytes are left.
#[derive(Debug)]
pub(crate) struct Removal {
    left: usize,
    /// Not yet: its blocks are bad, and must not be those of the file that is made next.
    waits: bool,
}

impl<R: Region> RetiredSnapshot<R> {
    pub(crate) fn new(file: SnapshotFile<R>) -> RetiredSnapshot<R> {
        RetiredSnapshot::Mapped { file, released: 0 }
    }

    pub(crate) fn size(&self) -> usize {
        match self {
            RetiredSnapshot::Mapped { file, .. } => file.size(),
            RetiredSnapshot::Renamed { size, .. } => *size,
        }
    }

    /// Whether all its memory is given back, and its file gets a new name next.
    pub(crate) fn is_released(&self) -> bool {
        matches!(self, RetiredSnapshot::Mapped { file, released } if *released >= file.size())
    }

    /// Does the next step but the last, which is to sync the names; says whether there was one.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn advance<D: Directory>(
        &mut self,
        directory: &mut D,
        is_reserve: bool,
    ) -> Result<bool, StorageError> {
        let RetiredSnapshot::Mapped { file, released } = self else { return Ok(false) };
        if *released < file.size() {
            let len = RELEASED_BYTES_PER_TURN.min(file.size() - *released);
            file.release(*released, len);
            *released += len;
            return Ok(true);
        }
        let (name, size) = (snapshot_name(file.meta().last), file.size());
        let new_name = if is_reserve { SNAPSHOT_TEMPORARY } else { REMOVED_NAME };
        directory.rename(&name, new_name).map_err(io_error("rename", directory.path(&name)))?;
        *self = RetiredSnapshot::Renamed { is_reserve, size };
        Ok(true)
    }
}

impl Removal {
    /// Begins to remove the file [`REMOVED_NAME`], of this size.
    pub(crate) fn new(size: usize) -> Removal {
        Removal { left: size, waits: false }
    }

    /// Has it wait for [`Removal::go_on`].
    pub(crate) fn wait(self) -> Removal {
        Removal { waits: true, ..self }
    }

    pub(crate) fn go_on(&mut self) {
        self.waits = false;
    }

    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Does a part, and says whether the file is gone.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn advance<D: Directory>(&mut self, directory: &mut D) -> Result<bool, StorageError> {
        let path = directory.path(REMOVED_NAME);
        if self.left > REMOVED_BYTES_PER_TURN {
            self.left -= REMOVED_BYTES_PER_TURN;
            directory.resize(REMOVED_NAME, self.left).map_err(io_error("shorten", path))?;
            return Ok(false);
        }
        directory.remove(REMOVED_NAME).map_err(io_error("remove", path))?;
        Ok(true)
    }
}
