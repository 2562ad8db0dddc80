//! What a leader keeps about the writes that it orders: other nodes' writes on their way into the log, and how much of
//! the log is not committed yet. Empty on every other node, and emptied when a leadership begins or ends.

use std::collections::VecDeque;

use crate::kv::session::{Sessions, WriteId};
use crate::limits::{FORWARDS_HELD_BYTES_MAX, UNCOMMITTED_BYTES_MAX};
use crate::raft::types::Index;

/// The writes of one leadership.
#[derive(Default, Debug)]
pub(crate) struct Leadership {
    /// The newest write of each other node that was taken in.
    accepted: Sessions,
    /// Taken in, and not yet in the log, in the order they came.
    held: VecDeque<Vec<u8>>,
    held_bytes: usize,
    /// Entries proposed in this leadership and not yet committed, with their payload bytes.
    uncommitted: VecDeque<(Index, usize)>,
    uncommitted_bytes: usize,
}

impl Leadership {
    /// Takes in a forwarded write, unless it is known to be useless or there is no room.
    ///
    /// Nodes send their writes again when a link breaks, so most repetitions come within one leadership. A write that
    /// is not newer than one taken in before is dropped here. That loses nothing: the newer one comes first in this
    /// leader's log, so wherever the older one is applied the newer one was, and the state machine would skip it. If
    /// this leadership ends before the newer one is in the log, both are gone, and their origin offers both again.
    ///
    /// A write that finds no room is dropped without being noted. Either it comes again, or a later write of its
    /// origin gets in; then the origin learns, when it applies that one, that the dropped one never will be.
    pub(crate) fn accept(&mut self, id: WriteId, payload: Vec<u8>) {
        let bytes = self.held_bytes + payload.len();
        if bytes > FORWARDS_HELD_BYTES_MAX || !self.accepted.advance(id) {
            return;
        }
        self.held_bytes = bytes;
        self.held.push_back(payload);
    }

    /// The forwarded write to propose next.
    pub(crate) fn peek_held(&self) -> Option<&[u8]> {
        self.held.front().map(Vec::as_slice)
    }

    /// The write that [`Leadership::peek_held`] gave is in the log.
    pub(crate) fn pop_held(&mut self) {
        let payload = self.held.pop_front().expect("a write was held");
        self.held_bytes -= payload.len();
    }

    /// Whether another payload of this size may be proposed. One may always when everything is committed.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.uncommitted.is_empty() || self.uncommitted_bytes + bytes <= UNCOMMITTED_BYTES_MAX
    }

    /// An entry with this many payload bytes was appended.
    pub(crate) fn on_proposed(&mut self, index: Index, bytes: usize) {
        self.uncommitted.push_back((index, bytes));
        self.uncommitted_bytes += bytes;
    }

    /// Entries up to `index` are committed.
    pub(crate) fn on_committed(&mut self, index: Index) {
        while let Some(&(first, bytes)) = self.uncommitted.front()
            && first <= index
        {
            self.uncommitted.pop_front();
            self.uncommitted_bytes -= bytes;
        }
    }

    /// A leadership began or ended.
    pub(crate) fn clear(&mut self) {
        *self = Leadership::default();
    }

    /// Payload bytes held, and proposed but not committed.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        (self.held_bytes, self.uncommitted_bytes)
    }
}
