//! When the node does the work that has time.

use crate::limits::{
    HOUSEKEEPING_PAUSE_MS, SCRUB_BYTES_PER_SECOND, SNAPSHOT_DEBT_BYTES_MAX, SNAPSHOT_DEBT_BYTES_MIN,
    SNAPSHOT_SLICE_BYTES,
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
    /// Whether [`House::keep`] would do something.
    pub(super) fn is_due<S: Storage>(&self, now: Millis, replica: &Replica<S>) -> bool {
        self.slice(now, replica.house_debt()).is_some()
    }

    /// A slice, in a turn with nothing else to do. [`Housekeeping::More`]: do not sleep.
    ///
    /// # Errors
    /// When the storage fails.
    pub(super) fn keep<S: Storage>(
        &mut self,
        now: Millis,
        replica: &mut Replica<S>,
    ) -> Result<Housekeeping, StorageError> {
        match self.slice(now, replica.house_debt()) {
            Some(budget) => self.work(now, replica, budget),
            None => Ok(Housekeeping::Later),
        }
    }

    /// How much a turn with nothing else to do does, in bytes. What is owed does not wait for the next appointment: the
    /// log's growth may have come right behind the last one.
    fn slice(&self, now: Millis, debt: usize) -> Option<usize> {
        match self.after {
            None => Some(SNAPSHOT_SLICE_BYTES),
            Some(_) if debt >= SNAPSHOT_DEBT_BYTES_MIN => Some(SNAPSHOT_SLICE_BYTES),
            // After a rest there is time for a larger part of what is read to see whether it is still right.
            Some(after) => (now >= after).then_some(SCRUB_BYTES_PER_SECOND),
        }
    }

    /// What a busy turn owes, at its end: the more the log grows, the more of the snapshot is written, and of the log's
    /// next file.
    ///
    /// # Errors
    /// When the storage fails.
    pub(super) fn pay<S: Storage>(
        &mut self,
        now: Millis,
        replica: &mut Replica<S>,
    ) -> Result<(), StorageError> {
        if let Some(budget) = self.owed(now, replica.house_debt()) {
            self.work(now, replica, budget)?;
        }
        Ok(())
    }

    /// How much a busy turn does, in bytes.
    fn owed(&self, now: Millis, debt: usize) -> Option<usize> {
        let is_put_off = self.after.is_some_and(|after| now < after);
        if debt >= SNAPSHOT_DEBT_BYTES_MIN {
            Some(debt.min(SNAPSHOT_DEBT_BYTES_MAX))
        } else {
            (!is_put_off && now >= self.last.after(HOUSEKEEPING_PAUSE_MS)).then_some(SNAPSHOT_SLICE_BYTES)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// D15, D17: a busy turn pays what the log's growth asks, never much, and small sums not at all.
    #[test]
    fn busy_turns_pay_their_debts() {
        let house = House { after: None, last: Millis(5_000) };
        let now = Millis(5_001);
        assert_eq!(house.owed(now, 0), None);
        assert_eq!(house.owed(now, SNAPSHOT_DEBT_BYTES_MIN - 1), None);
        assert_eq!(house.owed(now, SNAPSHOT_DEBT_BYTES_MIN), Some(SNAPSHOT_DEBT_BYTES_MIN));
        assert_eq!(house.owed(now, 100 << 20), Some(SNAPSHOT_DEBT_BYTES_MAX));
    }

    /// What the log's growth asks for is begun at once when there is time, and little things at their time.
    #[test]
    fn an_idle_turn_does_not_put_off_what_is_owed() {
        let rests = House { after: Some(Millis(6_000)), last: Millis(5_000) };
        assert_eq!(rests.slice(Millis(5_001), SNAPSHOT_DEBT_BYTES_MIN - 1), None);
        assert_eq!(rests.slice(Millis(5_001), SNAPSHOT_DEBT_BYTES_MIN), Some(SNAPSHOT_SLICE_BYTES));
        assert_eq!(rests.slice(Millis(6_000), 0), Some(SCRUB_BYTES_PER_SECOND));
        assert_eq!(House { after: None, ..rests }.slice(Millis(5_001), 0), Some(SNAPSHOT_SLICE_BYTES));
    }

    /// A node that is never idle keeps house all the same, unless there is nothing to do yet.
    #[test]
    fn a_busy_node_does_a_slice_now_and_then() {
        let later = Millis(5_000 + HOUSEKEEPING_PAUSE_MS);
        let house = House { after: None, last: Millis(5_000) };
        assert_eq!(house.owed(later, 0), Some(SNAPSHOT_SLICE_BYTES));
        let put_off = House { after: Some(later.after(1)), ..house };
        assert_eq!(put_off.owed(later, 0), None);
        assert_eq!(put_off.owed(later, SNAPSHOT_DEBT_BYTES_MIN), Some(SNAPSHOT_DEBT_BYTES_MIN));
    }
}
