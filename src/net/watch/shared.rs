//! Encoded events that several watchers get.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::WATCH_SHARED_BYTES_MAX;
use crate::net::watch::event::{Format, Resume};
use crate::replica::io::Change;

/// The latest events, by the number of their change: after a burst many watchers that are behind read the same. A very
/// long one is kept alone: it above all must not be in memory once for each of them.
#[derive(Default, Debug)]
pub(super) struct SharedEvents {
    events: HashMap<(u64, Format, Resume), Arc<[u8]>>,
    bytes: usize,
}

impl SharedEvents {
    /// A change's event, encoded now or before.
    pub(super) fn get(&mut self, number: u64, change: &Change, format: Format, resume: Resume) -> Arc<[u8]> {
        if let Some(event) = self.events.get(&(number, format, resume)) {
            return Arc::clone(event);
        }
        let event = format.change(change, resume);
        if self.bytes + event.len() > WATCH_SHARED_BYTES_MAX {
            self.clear();
        }
        self.bytes += event.len();
        self.events.insert((number, format, resume), Arc::clone(&event));
        event
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.events = HashMap::new();
        self.bytes = 0;
    }
}
