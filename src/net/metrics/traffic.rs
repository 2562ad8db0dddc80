//! Bytes that went over sockets.

use std::cell::Cell;

/// What sockets of one kind have carried, in both directions. Shared by all of them.
#[derive(Debug, Default)]
pub struct Traffic {
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Traffic {
    /// So many bytes were read.
    pub fn add_received(&self, bytes: usize) {
        self.received.update(|total| total + bytes as u64);
    }

    /// So many bytes were written.
    pub fn add_sent(&self, bytes: usize) {
        self.sent.update(|total| total + bytes as u64);
    }

    /// All bytes that were read.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// All bytes that were written.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }
}
