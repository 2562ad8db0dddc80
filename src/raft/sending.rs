//! How far a leader is in sending its newest snapshot to one peer (paper, section 7).
//!
//! The leader first asks, with an empty part: the peer may have the snapshot, or a part of it from an earlier
//! connection, or may be gone. Only after an answer does content travel, part after part within a window. After a
//! refusal it rests for some heartbeats, each time for longer.

use crate::limits::{
    HEARTBEATS_PER_ELECTION_TIMEOUT, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_IN_FLIGHT_BYTES_MAX,
    SNAPSHOT_REFUSAL_DOUBLINGS_MAX,
};
use crate::raft::storage::SnapshotMeta;
use crate::util::time::Millis;

/// A snapshot on its way to one peer.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    snapshot: SnapshotMeta,
    stage: Stage,
    /// How often the peer has refused this snapshot.
    refusals: u32,
    /// Periodic heartbeats to wait for before the peer is asked again.
    rest: u32,
    /// Heartbeats that the peer answered in a row while it said nothing about the snapshot.
    silent: u32,
    /// When the peer last took something.
    pub(super) taken_at: Option<Millis>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Stage {
    /// How far is the peer?
    Ask { asked: bool },
    /// The peer has everything before `acked`; everything before `sent` is on its way.
    Stream { acked: u64, sent: u64 },
}

impl Sending {
    /// Nothing is known of the peer.
    pub(super) fn new(snapshot: SnapshotMeta) -> Sending {
        Sending {
            snapshot,
            stage: Stage::Ask { asked: false },
            refusals: 0,
            rest: 0,
            silent: 0,
            taken_at: None,
        }
    }

    pub(super) fn snapshot(&self) -> SnapshotMeta {
        self.snapshot
    }

    /// Offset and length of what may be sent at the moment; a length of 0 asks how far the peer is.
    pub(super) fn next_part(&self) -> Option<(u64, usize)> {
        match self.stage {
            Stage::Ask { asked } => (!asked && self.rest == 0).then_some((0, 0)),
            Stage::Stream { acked, sent } => {
                let left = self.snapshot.bytes - sent;
                let is_open = left > 0 && sent - acked < SNAPSHOT_IN_FLIGHT_BYTES_MAX;
                let len = usize::try_from(left).unwrap_or(usize::MAX).min(SNAPSHOT_CHUNK_BYTES);
                is_open.then_some((sent, len))
            }
        }
    }

    /// The part that [`Sending::next_part`] named goes out.
    pub(super) fn on_sent(&mut self, len: usize) {
        self.silent = 0;
        match &mut self.stage {
            Stage::Ask { asked } => *asked = true,
            Stage::Stream { sent, .. } => *sent += len as u64,
        }
    }

    /// The peer waits for what begins at `next_offset`. Returns whether that is news. An offset that was passed
    /// already means that the peer has lost what it had. One that no part begins at means nothing.
    pub(super) fn on_receiving(&mut self, now: Millis, next_offset: u64) -> bool {
        let is_start = next_offset.is_multiple_of(SNAPSHOT_CHUNK_BYTES as u64);
        if !is_start || next_offset >= self.snapshot.bytes {
            return false;
        }
        let (acked, sent) = match self.stage {
            Stage::Stream { acked, .. } if next_offset == acked => return false,
            Stage::Stream { acked, sent } if next_offset > acked => (next_offset, sent.max(next_offset)),
            _ => (next_offset, next_offset),
        };
        self.stage = Stage::Stream { acked, sent };
        self.silent = 0;
        if next_offset > 0 {
            self.taken_at = Some(now);
        }
        true
    }

    /// The peer cannot take it at the moment.
    pub(super) fn on_refused(&mut self) {
        self.rest = 1 << self.refusals.min(SNAPSHOT_REFUSAL_DOUBLINGS_MAX);
        self.refusals = self.refusals.saturating_add(1);
        self.stage = Stage::Ask { asked: false };
    }

    /// A periodic heartbeat goes out.
    pub(super) fn on_heartbeat_sent(&mut self) {
        self.rest = self.rest.saturating_sub(1);
    }

    /// For a whole interval the peer answered heartbeats and said nothing about the snapshot. A question may be lost, or
    /// its answer. Parts may just take their time: what is on its way would all be sent once more after another question,
    /// and a link that is slow already must not carry everything twice. So it takes an election timeout to ask again.
    pub(super) fn on_silence(&mut self) {
        self.silent += 1;
        let is_long = u64::from(self.silent) >= HEARTBEATS_PER_ELECTION_TIMEOUT;
        if is_long || matches!(self.stage, Stage::Ask { .. }) {
            self.ask_again();
        }
    }

    fn ask_again(&mut self) {
        self.silent = 0;
        self.stage = Stage::Ask { asked: false };
    }

    /// A new connection: what made the peer refuse may be over.
    pub(super) fn on_reconnected(&mut self) {
        self.rest = 0;
        self.ask_again();
    }
}

impl std::hash::Hash for Sending {
    /// Everything but the time.
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        let Sending { snapshot, stage, refusals, rest, silent, taken_at: _ } = self;
        (snapshot, stage, refusals, rest, silent).hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{EntryId, Index, Term};

    const CHUNK: u64 = SNAPSHOT_CHUNK_BYTES as u64;

    fn sending(bytes: u64) -> Sending {
        let last = EntryId::new(Term(1), Index(5));
        Sending::new(SnapshotMeta { last, bytes, crc: 7 })
    }

    fn send_all(sending: &mut Sending) -> Vec<(u64, usize)> {
        let next = || {
            let part = sending.next_part()?;
            sending.on_sent(part.1);
            Some(part)
        };
        std::iter::from_fn(next).collect()
    }

    /// S39, S40, I4: nothing of the content travels before an answer; then a window of it; an answer opens the window.
    #[test]
    fn the_window_is_bounded() {
        let mut sending = sending(10 * CHUNK + 1);
        assert_eq!(send_all(&mut sending), [(0, 0)], "it asks, once");
        assert!(sending.on_receiving(Millis(1), 0));
        let whole = SNAPSHOT_CHUNK_BYTES;
        assert_eq!(
            send_all(&mut sending),
            [(0, whole), (CHUNK, whole), (2 * CHUNK, whole), (3 * CHUNK, whole)]
        );
        assert!(sending.on_receiving(Millis(2), CHUNK));
        assert_eq!(send_all(&mut sending), [(4 * CHUNK, whole)]);
        assert!(sending.on_receiving(Millis(3), 10 * CHUNK), "the peer is ahead of what was known");
        assert_eq!(send_all(&mut sending), [(10 * CHUNK, 1)], "the last part is short");
    }

    /// D6: what the peer says decides where to go on, and nonsense does not.
    #[test]
    fn the_peer_says_where_to_go_on() {
        let mut sending = sending(6 * CHUNK);
        send_all(&mut sending);
        assert!(sending.on_receiving(Millis(1), 2 * CHUNK), "it has the beginning from before");
        assert_eq!(send_all(&mut sending)[0].0, 2 * CHUNK);
        assert!(!sending.on_receiving(Millis(1), 2 * CHUNK), "nothing new: nothing is repeated");
        assert_eq!(send_all(&mut sending), []);
        for nonsense in [1, CHUNK + 1, 6 * CHUNK, u64::MAX] {
            assert!(!sending.on_receiving(Millis(1), nonsense), "{nonsense}");
        }
        assert!(sending.on_receiving(Millis(1), 0), "it lost its draft");
        assert_eq!(send_all(&mut sending)[0].0, 0);
    }

    /// D7, B25: parts that take their time are not sent twice; lost ones are, after an election timeout.
    #[test]
    fn slow_parts_are_not_sent_twice() {
        let mut sending = sending(6 * CHUNK);
        send_all(&mut sending);
        assert!(sending.on_receiving(Millis(1), 0));
        assert_eq!(send_all(&mut sending).len(), 4);
        for _ in 1..HEARTBEATS_PER_ELECTION_TIMEOUT {
            sending.on_silence();
            assert_eq!(send_all(&mut sending), []);
        }
        assert!(sending.on_receiving(Millis(2), CHUNK));
        assert_eq!(send_all(&mut sending).len(), 1);
        for _ in 1..HEARTBEATS_PER_ELECTION_TIMEOUT {
            sending.on_silence();
            assert_eq!(send_all(&mut sending), []);
        }
        sending.on_silence();
        assert_eq!(send_all(&mut sending), [(0, 0)], "now it asks");
        sending.on_silence();
        assert_eq!(send_all(&mut sending), [(0, 0)], "a question is small");
        assert!(sending.on_receiving(Millis(3), CHUNK));
        assert_eq!(send_all(&mut sending)[0].0, CHUNK);
    }

    /// D10: after refusals the pauses grow, up to a bound.
    #[test]
    fn refusals_are_no_tight_loop() {
        let mut sending = sending(1);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(send_all(&mut sending), [(0, 0)]);
            assert!(sending.on_receiving(Millis(1), 0), "it waits for the first part, and then has no space");
            sending.on_refused();
            assert_eq!(sending.taken_at, None, "it took nothing");
            let mut heartbeats = 0;
            while sending.next_part().is_none() {
                sending.on_heartbeat_sent();
                heartbeats += 1;
            }
            pauses.push(heartbeats);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16, 16, 16]);
        sending.on_refused();
        sending.on_reconnected();
        assert_eq!(sending.next_part(), Some((0, 0)), "a new connection does not wait");
    }
}
