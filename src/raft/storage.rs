//! What the protocol needs from a disk.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::raft::entry::Entry;
use crate::raft::types::{EntryId, HardState, Incarnation, Index, Standing, Term};

/// Names a snapshot, and says how to check it. Equal on all nodes that took it at the same entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry that it covers.
    pub last: EntryId,
    /// The length of its content in bytes. Never 0.
    pub bytes: u64,
    /// CRC-32C of its content.
    pub crc: u32,
}

/// A snapshot that is being written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotDraft {
    /// The last entry that it will cover.
    pub last: EntryId,
    /// How long its content will be.
    pub bytes: u64,
    /// How much of it is there.
    pub written: u64,
}

/// How far [`Storage::finish_snapshot`] got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotProgress {
    /// More calls are needed.
    More,
    /// The snapshot is durable, read back and found right, and the newest one.
    Done(SnapshotMeta),
    /// What was read back is not what was written, or not what the caller expected. The draft is gone; everything else
    /// is as before.
    Damaged,
}

/// What the storage's housekeeping still has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Housekeeping {
    /// Nothing. Ask again when something was written.
    Done,
    /// Another slice, as soon as there is time.
    More,
    /// Something that cannot be done at the moment, or need not be done so soon.
    Later,
}

/// What entries are appended for, when space is short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// They make the data grow. The reserve stays untouched.
    Growth,
    /// They make it smaller, or the protocol cannot do without them. They may use the reserve.
    Upkeep,
}

/// The log, the newest snapshot and the hard state of one node.
///
/// ```text
///   snapshot covers 1 ..= snapshot.last        log holds log_start + 1 ..= last_index
///   |--------------------------------|
///                          |------------------------------------------------|
///                       log_start                                       last_index
/// ```
///
/// The log always reaches back to the snapshot: `log_start.index <= snapshot.last.index <= last_index`.
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

    /// What this node may promise, as last written.
    fn standing(&self) -> Standing;

    /// Writes the standing, like a hard state: durable after the next sync.
    ///
    /// # Errors
    /// When the disk fails.
    fn set_standing(&mut self, standing: Standing) -> Result<(), StorageError>;

    /// Counts the start of the process in its hard state: from 1, or as high as [`Storage::raise_incarnation`] said.
    fn incarnation(&self) -> Incarnation;

    /// Raises the incarnation to at least this, durably before it returns. A node that lost its disk must not use names
    /// of writes that it gave in its earlier life.
    ///
    /// # Errors
    /// When the disk fails.
    fn raise_incarnation(&mut self, incarnation: Incarnation) -> Result<(), StorageError>;

    /// The entry before the first one in the log: `0@0` in a log from the beginning.
    fn log_start(&self) -> EntryId;

    /// The last entry's index, or that of [`Storage::log_start`] when the log is empty.
    fn last_index(&self) -> Index;

    /// The term of the entry at `index`; known from [`Storage::log_start`] to the last index.
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

    /// Makes sure that entries of `bytes` in all can be appended. `false`: the disk is full, and nothing was changed.
    /// Space that comes back is seen by later calls.
    ///
    /// # Errors
    /// When the disk fails.
    fn reserve(&mut self, bytes: usize, purpose: Purpose) -> Result<bool, StorageError>;

    /// Whether entries for growth are refused for want of space, as far as is known.
    fn is_full(&self) -> bool;

    /// Bytes of the log's entries that the newest snapshot does not cover.
    fn log_bytes(&self) -> u64;

    /// The newest whole snapshot.
    fn snapshot(&self) -> Option<SnapshotMeta>;

    /// A part of the newest snapshot's content, checked. At most
    /// [`SNAPSHOT_CHUNK_BYTES`](crate::limits::SNAPSHOT_CHUNK_BYTES), from a multiple of it on.
    ///
    /// # Errors
    /// When the disk gives back something else than was written.
    ///
    /// # Panics
    /// When there is no such part.
    fn read_snapshot(&self, offset: u64, len: usize) -> Result<&[u8], StorageError>;

    /// Does a short step of what [`Storage::begin_snapshot`] with so many bytes would else do at once, and says whether
    /// nothing is left. A storage for which beginning is never long has none.
    ///
    /// # Errors
    /// When the disk fails.
    fn prepare_snapshot(&mut self, bytes: u64) -> Result<bool, StorageError> {
        let _ = bytes;
        Ok(true)
    }

    /// Begins to write a snapshot of `bytes` that covers everything up to `last`. An unfinished one is dropped. `false`:
    /// the disk has no space for it; growth is refused then until a later try succeeds.
    ///
    /// # Errors
    /// When the disk fails.
    fn begin_snapshot(&mut self, last: EntryId, bytes: u64) -> Result<bool, StorageError>;

    /// The snapshot that is being written.
    fn snapshot_draft(&self) -> Option<SnapshotDraft>;

    /// Writes the next part of the draft. Made durable by and by, so that no sync is long.
    ///
    /// # Errors
    /// When the disk fails.
    ///
    /// # Panics
    /// Without a draft, or behind its end.
    fn append_snapshot(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Reads the whole draft back, about `budget` bytes per call, and makes it the newest snapshot, durably (paper,
    /// section 7). `expected` is what the sender said of it; `None` for the node's own.
    ///
    /// When the log has the last entry that the snapshot covers, its entries behind that one stay, and older ones are
    /// removed, but for a margin for peers that are a little behind. When not, the log is emptied and begins behind the
    /// snapshot (figure 13, rules 6 and 7).
    ///
    /// # Errors
    /// When the disk fails.
    ///
    /// # Panics
    /// Without a draft that is whole.
    fn finish_snapshot(
        &mut self,
        expected: Option<SnapshotMeta>,
        budget: usize,
    ) -> Result<SnapshotProgress, StorageError>;

    /// Forgets the draft.
    ///
    /// # Errors
    /// When the disk fails.
    fn drop_snapshot_draft(&mut self) -> Result<(), StorageError>;

    /// Does about `budget` bytes of what can be done ahead of time or now and then: the next segment's file, reading
    /// everything to see whether it is still right.
    ///
    /// # Errors
    /// When the disk fails. Damage that is found is [`StorageError::Damaged`].
    fn keep_house(&mut self, budget: usize) -> Result<Housekeeping, StorageError>;

    /// Bytes of [`Storage::keep_house`] that are owed because the log grew, however little time there is: what must be
    /// there when the log needs it, and takes long to make on the spot. 0: nothing is urgent, as in a storage that
    /// makes nothing ahead of time.
    fn house_debt(&self) -> usize {
        0
    }

    /// Whether something is written and not yet durable, copies that guard against later damage included: right after a
    /// sync this may be true again, for another sync that nobody waits for.
    fn is_dirty(&self) -> bool;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// When the disk fails. Trying again is useless: the kernel may have dropped what it could not write.
    fn sync(&mut self) -> Result<(), StorageError>;
}

/// The last entry that the newest snapshot covers, `0@0` without a snapshot.
pub fn snapshot_id(storage: &impl Storage) -> EntryId {
    storage.snapshot().map_or(EntryId::default(), |snapshot| snapshot.last)
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
