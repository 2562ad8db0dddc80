//! When this node takes a snapshot of its own state, and how: in slices, beside everything else.
//!
//! ```text
//!  nothing ──due──> writing ──all written──> reading back ──right──> nothing
//!     ^                │                          │
//!     └── the leader's snapshot took its place, ──┴── damaged ──> again, a little later
//! ```
//!
//! One is due when the log behind the newest one has grown to a share of what a snapshot would have, or when the newest
//! one is much larger than the data is by now. So the disk holds a bounded multiple of the data, and the work is a
//! bounded multiple of what was written. It all depends on sizes only, and on no clock.

use crate::kv::store::Store;
use crate::limits::{
    SNAPSHOT_BYTES_PER_LOG_BYTE, SNAPSHOT_DAMAGE_DOUBLINGS_MAX, SNAPSHOT_DATA_BYTES_PER_LOG_BYTE,
    SNAPSHOT_DEBT_BYTES_MAX, SNAPSHOT_DEBT_BYTES_MIN, SNAPSHOT_PATIENCE_EIGHTHS, SNAPSHOT_RETRY_LOG_BYTES,
    SNAPSHOT_SLICE_BYTES,
};
use crate::raft::storage::{Housekeeping, SnapshotDraft, SnapshotProgress, Storage, StorageError};
use crate::raft::types::EntryId;
use crate::util::mutation::mutant;

/// Snapshots that are on their way between this node and others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// A peer is being sent the newest one, or what follows it.
    pub(crate) is_sending: bool,
    /// A leader's is coming in.
    pub(crate) is_receiving: bool,
}

/// The snapshots of one node.
#[derive(Debug)]
pub(crate) struct Snapshots {
    /// None is due before the log has this many bytes.
    log_bytes_min: u64,
    /// Bytes of entries applied that the newest snapshot does not cover.
    applied_bytes: u64,
    making: Option<Making>,
    /// The last try failed.
    failure: Option<Failure>,
    /// How many in a row were written and read back wrong.
    damaged: u32,
    /// What the store has written of the one in the making, and how much of it is in the storage: an item may be as large
    /// as many slices.
    buffer: Vec<u8>,
    stored: usize,
}

/// Since a try failed.
#[derive(Clone, Copy, Debug)]
struct Failure {
    /// The log's bytes then.
    log_bytes: u64,
    /// Pauses so far: calls in which nothing else was left to do.
    pauses: u64,
    /// The next try comes after so many pauses, or when the log has grown so many times as much as it must at least.
    patience: u64,
}

#[derive(Debug)]
struct Making {
    /// What this node wrote, to notice when it is not there any more.
    draft: SnapshotDraft,
    /// [`Snapshots::applied_bytes`] that it covers.
    applied_bytes: u64,
    /// The log's bytes at the last slice, and what was owed then.
    log_bytes: u64,
    owed: u64,
}

impl Failure {
    /// `damaged`: so many whole snapshots were written for nothing, which wears the disk out.
    fn new(log_bytes: u64, damaged: u32) -> Failure {
        let doublings = damaged.saturating_sub(1).min(SNAPSHOT_DAMAGE_DOUBLINGS_MAX);
        Failure { log_bytes, pauses: 0, patience: 1 << doublings }
    }

    /// Whether the log has grown so much that another try is worth it.
    fn is_outgrown(&self, log_bytes: u64) -> bool {
        log_bytes >= self.log_bytes.saturating_add(SNAPSHOT_RETRY_LOG_BYTES * self.patience)
    }
}

impl Making {
    fn owed(&self, log_bytes: u64) -> u64 {
        let grown = log_bytes.saturating_sub(self.log_bytes);
        self.owed.saturating_add(grown.saturating_mul(SNAPSHOT_BYTES_PER_LOG_BYTE as u64))
    }

    fn pay(&mut self, log_bytes: u64, budget: usize) {
        self.owed = self.owed(log_bytes).saturating_sub(budget as u64);
        self.log_bytes = log_bytes;
    }
}

impl Snapshots {
    /// `log_bytes_min`: no snapshot is due before the log has this many bytes.
    pub(crate) fn new(log_bytes_min: u64) -> Snapshots {
        Snapshots {
            log_bytes_min,
            applied_bytes: 0,
            making: None,
            failure: None,
            damaged: 0,
            buffer: Vec::new(),
            stored: 0,
        }
    }

    /// An entry of this size was applied.
    pub(crate) fn on_applied(&mut self, bytes: usize) {
        self.applied_bytes += bytes as u64;
    }

    /// The state was read from the newest snapshot.
    pub(crate) fn on_restored(&mut self) {
        *self = Snapshots::new(self.log_bytes_min);
    }

    /// Bytes of work that are owed because the log grew.
    pub(crate) fn debt(&self, store: &Store, storage: &impl Storage, traffic: Traffic) -> usize {
        let log_bytes = storage.log_bytes();
        match &self.making {
            Some(making) => usize::try_from(making.owed(log_bytes)).unwrap_or(usize::MAX),
            None if !self.must_wait(log_bytes) && self.is_due(store, storage, traffic) => {
                SNAPSHOT_SLICE_BYTES
            }
            None => 0,
        }
    }

    /// Does about `budget` bytes of work, then or instead the storage's own housekeeping.
    pub(crate) fn keep_house<S: Storage>(
        &mut self,
        store: &mut Store,
        storage: &mut S,
        traffic: Traffic,
        budget: usize,
    ) -> Result<Housekeeping, StorageError> {
        self.forget_lost(store, storage, traffic);
        if self.making.is_none() {
            let has_paused = self.failure.is_some_and(|failure| failure.pauses >= failure.patience);
            let may_try = has_paused || !self.must_wait(storage.log_bytes());
            if may_try && self.is_due(store, storage, traffic) {
                if !storage.prepare_snapshot(store.snapshot_bytes())? {
                    maybe_pay_storage(storage)?;
                    return Ok(Housekeeping::More);
                }
                self.begin(store, storage)?;
            }
        }
        if let Some(making) = &mut self.making {
            making.pay(storage.log_bytes(), budget);
            maybe_pay_storage(storage)?;
            self.do_slice(store, storage, budget)?;
            return Ok(Housekeeping::More);
        }
        let left = storage.keep_house(budget)?;
        if let Some(failure) = &mut self.failure
            && left != Housekeeping::More
        {
            failure.pauses += 1;
            return Ok(Housekeeping::Later);
        }
        Ok(left)
    }

    /// The leader's snapshot has taken the place of this node's draft.
    fn forget_lost(&mut self, store: &mut Store, storage: &impl Storage, traffic: Traffic) {
        let draft = storage.snapshot_draft();
        let is_lost = |making: &mut Making| traffic.is_receiving || draft != Some(making.draft);
        if self.making.take_if(is_lost).is_some() {
            store.abandon_snapshot();
        }
    }

    /// Whether the last try failed not long ago.
    fn must_wait(&self, log_bytes: u64) -> bool {
        self.failure.is_some_and(|failure| !failure.is_outgrown(log_bytes))
    }

    fn is_due(&self, store: &Store, storage: &impl Storage, traffic: Traffic) -> bool {
        let newest = storage.snapshot().unwrap_or_default();
        let is_settled = store.is_settled() || mutant("snapshot-amid-removal");
        if traffic.is_receiving || !is_settled || store.applied_index() <= newest.last.index {
            return false;
        }
        // One that found no space is wanted until it does: until then growth is refused.
        if self.failure.is_some() {
            return true;
        }
        let bytes = store.snapshot_bytes();
        let share = self.log_bytes_min.max(bytes / SNAPSHOT_DATA_BYTES_PER_LOG_BYTE);
        let wanted_at = if traffic.is_sending { self.patience(bytes) } else { share };
        // The log may also hold much that is not committed. A snapshot that covers next to nothing is no help.
        let is_long = storage.log_bytes() >= wanted_at && self.applied_bytes >= share / 4;
        let is_oversized = newest.bytes > (bytes + bytes / 2).saturating_add(self.log_bytes_min);
        // On a full disk what is deleted must make room before the deletions have used up what is left.
        let is_urgent = storage.is_full() && storage.log_bytes() >= self.log_bytes_min / 2;
        // An oversized one is not waited for: a peer that starts over gets one that is much smaller.
        is_long || is_urgent || is_oversized
    }

    /// How long the log may get, in bytes, while a peer is sent the newest snapshot and the entries that follow it, with
    /// `bytes` of data: as long as the disk's bound allows, because a newer snapshot would make the peer start over.
    ///
    /// With two files for snapshots, each up to a sixteenth larger than its content, and a quarter of the data that the
    /// log grows by while the next one is made, that is three times the data at most.
    ///
    /// A peer that takes up on average V bytes a second while the log grows by W bytes a second gets there before that
    /// if V > W * (1 + data / patience): with much data a link that is 2.6 times as fast as the log grows, with 8 MiB of
    /// data and the default settings 1.7 times, with little data any link that keeps up with the writes at all. On nodes
    /// so busy that a snapshot takes as long as it may, so much of the log is there already when one is sent first that
    /// it is 4.4 times with much data. On a slower link the peer is sent newer and newer snapshots until there is less to
    /// write. Such a peer costs nothing but the longer log.
    fn patience(&self, bytes: u64) -> u64 {
        let least = self.log_bytes_min.saturating_add(self.log_bytes_min / 2);
        least.max(bytes / 8 * SNAPSHOT_PATIENCE_EIGHTHS)
    }

    fn begin<S: Storage>(&mut self, store: &mut Store, storage: &mut S) -> Result<(), StorageError> {
        let mut index = store.applied_index();
        if mutant("snapshot-beyond-applied") {
            index = storage.last_index();
        }
        let term = storage.term(index).expect("what is applied last is in the log, or right before it");
        let (last, bytes) = (EntryId::new(term, index), store.snapshot_bytes());
        if !storage.begin_snapshot(last, bytes)? {
            if self.failure.is_none() {
                log::warn!(
                    "the disk has no space for a snapshot of {bytes} bytes: what makes the data grow is refused"
                );
            }
            self.failure = Some(Failure::new(storage.log_bytes(), 0));
            return Ok(());
        }
        store.begin_snapshot();
        (self.stored, self.buffer) = (0, Vec::new());
        log::debug!("taking a snapshot of everything up to {last}, {bytes} bytes");
        self.failure = None;
        self.making = Some(Making {
            draft: SnapshotDraft { last, bytes, written: 0 },
            applied_bytes: self.applied_bytes,
            log_bytes: storage.log_bytes(),
            owed: 0,
        });
        Ok(())
    }

    fn write_slice<S: Storage>(
        &mut self,
        store: &mut Store,
        storage: &mut S,
        budget: usize,
    ) -> Result<(), StorageError> {
        if self.stored == self.buffer.len() {
            // One large item must not hold its memory for good.
            self.buffer.clear();
            self.buffer.shrink_to(2 * SNAPSHOT_SLICE_BYTES);
            self.stored = 0;
            // Perhaps nothing: what is skipped takes time as well.
            store.write_snapshot(&mut self.buffer, budget);
        }
        let rest = &self.buffer[self.stored..];
        let part = &rest[..rest.len().min(budget.max(SNAPSHOT_SLICE_BYTES))];
        storage.append_snapshot(part)?;
        self.making.as_mut().expect("one is in the making").draft.written += part.len() as u64;
        self.stored += part.len();
        Ok(())
    }

    fn do_slice<S: Storage>(
        &mut self,
        store: &mut Store,
        storage: &mut S,
        budget: usize,
    ) -> Result<(), StorageError> {
        if self.stored < self.buffer.len() || store.snapshot_index().is_some() {
            return self.write_slice(store, storage, budget);
        }
        let making = self.making.as_ref().expect("one is in the making");
        match storage.finish_snapshot(None, budget)? {
            SnapshotProgress::More => return Ok(()),
            SnapshotProgress::Done(meta) => {
                self.applied_bytes -= making.applied_bytes;
                self.damaged = 0;
                log::info!(
                    "took a snapshot of everything up to {}, {} bytes; the log begins behind {}",
                    meta.last,
                    meta.bytes,
                    storage.log_start()
                );
            }
            SnapshotProgress::Damaged => {
                log::error!(
                    "the snapshot of everything up to {} was written, and reading it back gave something else: the \
                     disk is not to be trusted. The snapshot before it and the log stay; another try follows",
                    making.draft.last
                );
                self.damaged = self.damaged.saturating_add(1);
                self.failure = Some(Failure::new(storage.log_bytes(), self.damaged));
            }
        }
        self.making = None;
        Ok(())
    }
}

/// While the snapshot takes all the time there is, the log's next file must not be forgotten.
fn maybe_pay_storage<S: Storage>(storage: &mut S) -> Result<(), StorageError> {
    let owed = storage.house_debt();
    if owed >= SNAPSHOT_DEBT_BYTES_MIN {
        storage.keep_house(owed.min(SNAPSHOT_DEBT_BYTES_MAX))?;
    }
    Ok(())
}
