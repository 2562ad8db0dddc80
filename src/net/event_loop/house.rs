//! When the node does the work that has time.

use crate::limits::{
    HOUSEKEEPING_PAUSE_MS, SNAPSHOT_DEBT_BYTES_MAX, SNAPSHOT_DEBT_BYTES_MIN, SNAPSHOT_SLICE_BYTES,
};
use crate::replica::io::{Housekeeping, Storage, StorageError};
use crate::replica::replica::Replica;
use crate::util::time::Millis;

/// The appointments for housekeeping.
///
/// It is done in turns that would otherwise sleep, and paid off in busy ones. A node that is never idle still does a
/// slice per [`HOUSEKEEPING_PAUSE_MS`].
#[derive(Default, Debug)]
pub(super) struct House {
    /// What could not be done, or need not be done so soon, is looked at again then. `None`: at the next chance.
    after: Option<Millis>,
    /// When a slice was last done.
    last: Millis,
}

impl House {
    /// A slice, in a turn with nothing else to do. [`Housekeeping::More`]: do not sleep.
    ///
    /// # Errors
    /// When the storage fails.
    pub(super) fn keep<S: Storage>(
        &mut self,
        now: Millis,
        replica: &mut Replica<S>,
    ) -> Result<Housekeeping, StorageError> {
        if self.after.is_some_and(|after| now < after) {
            return Ok(Housekeeping::Later);
        }
        self.work(now, replica, SNAPSHOT_SLICE_BYTES)
    }

    /// What a busy turn owes, at its end: the more the log grows, the more of the snapshot is written.
    ///
    /// # Errors
    /// When the storage fails.
    pub(super) fn pay<S: Storage>(
        &mut self,
        now: Millis,
        replica: &mut Replica<S>,
    ) -> Result<(), StorageError> {
        let debt = replica.snapshot_debt();
        if debt >= SNAPSHOT_DEBT_BYTES_MIN {
            self.work(now, replica, debt.min(SNAPSHOT_DEBT_BYTES_MAX))?;
        } else if now >= self.last.after(HOUSEKEEPING_PAUSE_MS) {
            self.keep(now, replica)?;
        }
        Ok(())
    }

    /// When [`House::keep`] wants to be called although nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.after
    }

    fn work<S: Storage>(
        &mut self,
        now: Millis,
        replica: &mut Replica<S>,
        budget: usize,
    ) -> Result<Housekeeping, StorageError> {
        let left = replica.keep_house(budget)?;
        self.last = now;
        self.after = (left == Housekeeping::Later).then(|| now.after(HOUSEKEEPING_PAUSE_MS));
        Ok(left)
    }
}
