//! What was asked of the disk.

use std::time::Duration;

use crate::net::metrics::histogram::Histogram;

/// What the node has written, and how long the disk took to make it durable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StorageUse {
    /// Bytes of the entries that were appended to the log, without what the files add to them.
    pub log_bytes: u64,
    /// Bytes of snapshots' content that were written.
    pub snapshot_bytes: u64,
    /// How long the turns' syncs took. Slices of a snapshot are synced apart from them.
    pub syncs: Histogram,
}

impl StorageUse {
    /// A turn's sync took this long.
    pub fn on_sync(&mut self, took: Duration) {
        self.syncs.observe(took);
    }
}
