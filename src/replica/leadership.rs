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
    /// is not newer than one taken in before is dropped here, because it is that write or an older one:
    ///
    /// - the newer one goes into this leader's log first, so the state machine would skip an older one behind it. The
    ///   origin learns that when it applies the newer one;
    /// - or the newer one was thrown away, because the disk was too full for it. Then neither gets into this leader's
    ///   log. A later write of the origin tells it so, or a later leader takes both, or their time is up;
    /// - or this leadership ends before the newer one is in the log. Then the origin offers both to the next leader.
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
    pub(crate) fn peek_held(&mut self) -> Option<&mut [u8]> {
        self.held.front_mut().map(Vec::as_mut_slice)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{Incarnation, NodeId};

    fn id(origin: u64, seq: u64) -> WriteId {
        WriteId { origin: NodeId(origin), incarnation: Incarnation(1), seq }
    }

    fn take_all(leadership: &mut Leadership) -> Vec<u8> {
        let mut taken = Vec::new();
        while let Some(payload) = leadership.peek_held() {
            taken.push(payload[0]);
            leadership.pop_held();
        }
        taken
    }

    /// E8: each origin's writes come in rising order, each once, before and after they were proposed.
    #[test]
    fn repeated_and_overtaken_writes_are_dropped() {
        let mut leadership = Leadership::default();
        for (origin, seq) in [(2, 1), (2, 2), (2, 1), (3, 1), (2, 5), (2, 4), (2, 5)] {
            leadership.accept(id(origin, seq), vec![(10 * origin + seq) as u8]);
        }
        assert_eq!(take_all(&mut leadership), [21, 22, 31, 25]);
        leadership.accept(id(2, 5), vec![25]);
        leadership.accept(id(2, 6), vec![26]);
        assert_eq!(take_all(&mut leadership), [26]);
        assert_eq!(leadership.in_flight(), (0, 0));
    }

    /// What finds no room leaves no trace: it is taken when it comes again.
    #[test]
    fn held_writes_are_bounded() {
        let mut leadership = Leadership::default();
        let half = FORWARDS_HELD_BYTES_MAX / 2;
        leadership.accept(id(2, 1), vec![1; half]);
        leadership.accept(id(2, 2), vec![2; half + 1]);
        leadership.accept(id(3, 1), vec![3; half]);
        leadership.accept(id(3, 2), vec![4; 1]);
        assert_eq!(leadership.in_flight(), (2 * half, 0));
        assert_eq!(take_all(&mut leadership), [1, 3]);
        leadership.accept(id(2, 2), vec![2; half + 1]);
        leadership.accept(id(3, 2), vec![4; 1]);
        assert_eq!(take_all(&mut leadership), [2, 4]);
        assert_eq!(leadership.in_flight(), (0, 0));
    }

    /// I1, I2, I3
    #[test]
    fn uncommitted_bytes_are_bounded() {
        let mut leadership = Leadership::default();
        assert!(leadership.has_room(2 * UNCOMMITTED_BYTES_MAX), "one always finds room");
        leadership.on_proposed(Index(5), UNCOMMITTED_BYTES_MAX - 10);
        assert!(leadership.has_room(10) && !leadership.has_room(11));
        leadership.on_proposed(Index(6), 10);
        assert!(leadership.has_room(0) && !leadership.has_room(1), "an empty one costs nothing");
        leadership.on_committed(Index(4));
        assert!(!leadership.has_room(1));
        leadership.on_committed(Index(5));
        assert!(leadership.has_room(11));
        leadership.on_committed(Index(9));
        assert_eq!(leadership.in_flight(), (0, 0));
    }
}
