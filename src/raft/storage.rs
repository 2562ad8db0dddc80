//! What the protocol needs from a disk.

use std::fmt;
use std::io;

use crate::raft::entry::Entry;
use crate::raft::types::{EntryId, HardState, Index, Term};

/// The log and the hard state of one node.
///
/// "Written" and "durable" are two things. Everything written is visible to the readers below at once, and is durable
/// only after [`Storage::sync`]. An error from any method is fatal: after a failed write or sync nobody knows what the
/// disk holds, so the process stops and recovers from what is really there.
pub trait Storage {
    /// The hard state as last written.
    fn hard_state(&self) -> HardState;

    /// Writes the hard state: all of it or, after a crash before the next sync, nothing of it. It becomes durable
    /// before any entry that is appended later, so that no log ever ends in a term that its hard state does not know.
    ///
    /// # Errors
    /// When the disk fails.
    fn set_hard_state(&mut self, hard_state: HardState) -> Result<(), StorageError>;

    /// The last entry that the newest snapshot covers, `0@0` without a snapshot. The log begins behind it.
    fn snapshot_id(&self) -> EntryId;

    /// The last entry's index, or the snapshot's when the log is empty.
    fn last_index(&self) -> Index;

    /// The term of the entry at `index`; known from the snapshot's index to the last index.
    fn term(&self, index: Index) -> Option<Term>;

    /// Reads an entry, checking it again.
    ///
    /// # Errors
    /// When the disk gives back something else than was written.
    ///
    /// # Panics
    /// When there is no such entry.
    fn entry(&self, index: Index) -> Result<Entry<'_>, StorageError>;

    /// Writes an entry behind the last one.
    ///
    /// # Errors
    /// When the disk fails or is full.
    ///
    /// # Panics
    /// When the entry does not follow the last one.
    fn append(&mut self, entry: Entry<'_>) -> Result<(), StorageError>;

    /// Removes every entry behind `last_kept`. After the next sync they never come back.
    ///
    /// # Errors
    /// When the disk fails.
    fn truncate_suffix(&mut self, last_kept: Index) -> Result<(), StorageError>;

    /// Whether something is written and not yet durable, copies that guard against later damage included: right after a
    /// sync this may be true again, for another sync that nobody waits for.
    fn is_dirty(&self) -> bool;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// When the disk fails. Trying again is useless: the kernel may have dropped what it could not write.
    fn sync(&mut self) -> Result<(), StorageError>;
}

/// Why storage failed. Each one stops the process; the text tells the operator what happened and what to do.
#[derive(Debug)]
pub enum StorageError {
    /// The operating system refused: which operation, on which file.
    Io {
        /// What was tried, with the file's path.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A file holds something that was never written there.
    Damaged {
        /// The file's path.
        file: String,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong, and which entries are concerned.
        detail: String,
    },
    /// The working directory is not this node's, or not one this version can use.
    Refused(String),
}

impl StorageError {
    /// Whether there was no space, or no more of it for this user: nothing is wrong with the disk itself.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, StorageError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::Io { action, source } if self.is_disk_full() => {
                write!(f, "{action}: {source}; make space on that disk, then start the node again")
            }
            StorageError::Io { action, source } => write!(f, "{action}: {source}"),
            StorageError::Damaged { file, offset, detail } => {
                write!(f, "{file} is damaged at byte {offset}: {detail}")
            }
            StorageError::Refused(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StorageError::Io { source, .. } => Some(source),
            StorageError::Damaged { .. } | StorageError::Refused(_) => None,
        }
    }
}
