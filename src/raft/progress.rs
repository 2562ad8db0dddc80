//! What a leader knows of one peer's log, and how fast it may send.
//!
//! ```text
//!              match_index        next_index            last_index of the leader
//!   ... known to be equal |  sent, not answered  |  not sent yet  |
//!
//!   Probe      one message at a time, with at most one entry, until the logs are known to meet
//!   Replicate  message after message without waiting, within a window of messages and bytes
//! ```
//!
//! A rejection or a new connection leads back to Probe. `match_index < next_index` always, and `match_index` never
//! goes back within a leadership.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use crate::limits::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MESSAGES_MAX};
use crate::raft::message::ReadRound;
use crate::raft::types::Index;
use crate::util::mutation::mutant;
use crate::util::time::Millis;

/// A leader's view of one peer.
#[derive(Clone, Debug)]
pub struct Progress {
    match_index: Index,
    next_index: Index,
    mode: Mode,
    /// The commit index that the peer was last told.
    pub(super) commit_sent: Index,
    /// The latest heartbeat round that the peer answered.
    pub(super) round_acked: ReadRound,
    /// When the peer last answered anything; the start of the leadership before that.
    pub(super) last_contact: Millis,
    /// The peer denied having what it had acknowledged: its disk lost something. Its word does not count.
    pub(super) quarantined: bool,
    /// Something was sent to or accepted by the peer since the last periodic heartbeat.
    moved: bool,
    /// An empty message is due, to find out what became of those in flight.
    nudge: bool,
}

#[derive(Clone, Debug, Hash)]
enum Mode {
    Probe { sent: bool },
    Replicate { in_flight: InFlight },
}

/// AppendEntries without an answer, oldest first.
#[derive(Clone, Debug, Default, Hash)]
struct InFlight {
    messages: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl InFlight {
    fn is_full(&self) -> bool {
        self.messages.len() >= IN_FLIGHT_MESSAGES_MAX || self.bytes >= IN_FLIGHT_BYTES_MAX
    }

    fn add(&mut self, last: Index, bytes: usize) {
        self.messages.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// An answer for `index` answers everything before it as well: links keep the order.
    fn free_to(&mut self, index: Index) {
        while let Some((_, bytes)) = self.messages.pop_front_if(|(last, _)| *last <= index) {
            self.bytes -= bytes;
        }
    }
}

impl Progress {
    /// A peer of which nothing is known but that it exists: the logs may meet right before `next_index`.
    pub(super) fn new(next_index: Index, now: Millis) -> Progress {
        Progress {
            match_index: Index(0),
            next_index,
            mode: Mode::Probe { sent: false },
            commit_sent: Index(0),
            round_acked: ReadRound(0),
            last_contact: now,
            quarantined: false,
            moved: false,
            nudge: false,
        }
    }

    /// The peer's log is known to equal the leader's up to here, durably.
    #[must_use]
    pub fn match_index(&self) -> Index {
        self.match_index
    }

    /// When the peer was last heard from; at first, when the leadership began.
    #[must_use]
    pub fn last_contact(&self) -> Millis {
        self.last_contact
    }

    /// The next entry to send.
    #[must_use]
    pub fn next_index(&self) -> Index {
        self.next_index
    }

    /// Whether messages go out without waiting for answers.
    #[must_use]
    pub fn is_replicating(&self) -> bool {
        matches!(self.mode, Mode::Replicate { .. })
    }

    /// Whether nothing may be sent until the peer answers.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        match &self.mode {
            Mode::Probe { sent } => *sent,
            Mode::Replicate { in_flight } => in_flight.is_full(),
        }
    }

    /// Whether an empty message must go out even though nothing is due and the window may be full. Asking clears it.
    pub(super) fn take_nudge(&mut self) -> bool {
        std::mem::take(&mut self.nudge)
    }

    /// A message with the entries up to `last` (the one before `next_index` when it had none) goes out.
    pub(super) fn on_sent(&mut self, last: Index, entry_bytes: usize) {
        self.moved = true;
        match &mut self.mode {
            // The probe's entry is sent again unless the peer says that it has it.
            Mode::Probe { sent } => *sent = true,
            Mode::Replicate { in_flight } if entry_bytes > 0 => {
                in_flight.add(last, entry_bytes);
                self.next_index = last.next();
            }
            Mode::Replicate { .. } => {}
        }
    }

    /// The peer has everything up to `index`. Returns whether that is news.
    pub(super) fn on_accepted(&mut self, index: Index) -> bool {
        if index < self.match_index && !mutant("match-may-regress") {
            return false;
        }
        let news = index > self.match_index;
        self.moved = true;
        self.match_index = index;
        self.quarantined = false;
        match &mut self.mode {
            Mode::Probe { .. } => {
                self.next_index = index.next();
                self.mode = Mode::Replicate { in_flight: InFlight::default() };
            }
            Mode::Replicate { in_flight } => {
                self.next_index = self.next_index.max(index.next());
                in_flight.free_to(index);
            }
        }
        news
    }

    /// The peer does not have the entry at `prev_index`; the logs may meet at `candidate`. Returns whether to try
    /// again: a rejection of something that is not the latest try is late and means nothing.
    pub(super) fn on_rejected(&mut self, prev_index: Index, candidate: Index) -> bool {
        if prev_index <= self.match_index {
            // Links keep the order, so a rejection of the matched entry itself is no late one: the peer has lost
            // entries that it had made durable.
            self.quarantined |=
                matches!(self.mode, Mode::Probe { .. }) && prev_index == self.next_index.prev();
            return false;
        }
        match &self.mode {
            Mode::Replicate { .. } => self.next_index = self.match_index.next(),
            Mode::Probe { .. } if prev_index != self.next_index.prev() => return false,
            Mode::Probe { .. } => {
                self.next_index = prev_index.min(candidate.next()).max(self.match_index.next());
            }
        }
        self.mode = Mode::Probe { sent: false };
        true
    }

    /// A periodic heartbeat goes out.
    pub(super) fn on_heartbeat_sent(&mut self) {
        self.moved = false;
    }

    /// A heartbeat was answered. A peer that answers heartbeats but, for a whole interval, no appends may have lost
    /// them: one more message goes out, even when the window is full. Its answer tells.
    pub(super) fn on_heartbeat_answered(&mut self) {
        match &mut self.mode {
            Mode::Probe { sent } => *sent = *sent && self.moved,
            Mode::Replicate { in_flight } => self.nudge = !self.moved && !in_flight.messages.is_empty(),
        }
    }

    /// Everything but the time, for [`Raft::hash_state`](crate::raft::raft::Raft::hash_state).
    pub(super) fn hash_state(&self, hasher: &mut impl Hasher) {
        let Progress {
            match_index,
            next_index,
            mode,
            commit_sent,
            round_acked,
            last_contact: _,
            quarantined,
            moved,
            nudge,
        } = self;
        (match_index, next_index, mode, commit_sent, round_acked).hash(hasher);
        (quarantined, moved, nudge).hash(hasher);
    }

    /// What was on its way to the peer may be lost.
    pub(super) fn on_reconnected(&mut self) {
        self.next_index = self.match_index.next().max(match self.mode {
            // An answerless probe keeps its position: nothing was learned about it.
            Mode::Probe { .. } => self.next_index,
            Mode::Replicate { .. } => Index(0),
        });
        self.mode = Mode::Probe { sent: false };
        self.nudge = false;
        self.commit_sent = Index(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicating(match_index: u64) -> Progress {
        let mut progress = Progress::new(Index(match_index + 1), Millis(0));
        assert!(progress.on_accepted(Index(match_index)) || match_index == 0);
        progress
    }

    /// B13, I4: the window closes at its bounds, stale answers leave it closed, an answer frees all before it.
    /// Covers: B13 S42 S43
    #[test]
    fn the_window_is_bounded_in_messages_and_bytes() {
        let mut by_count = replicating(1);
        for index in 2..2 + IN_FLIGHT_MESSAGES_MAX as u64 {
            assert!(!by_count.is_paused());
            by_count.on_sent(Index(index), 1);
        }
        assert!(by_count.is_paused());
        assert!(!by_count.on_accepted(Index(1)), "nothing new");
        assert!(by_count.is_paused(), "an old answer frees nothing");
        assert!(by_count.on_accepted(Index(5)));
        assert!(!by_count.is_paused());

        let mut by_bytes = replicating(1);
        by_bytes.on_sent(Index(2), IN_FLIGHT_BYTES_MAX);
        assert!(by_bytes.is_paused());
        assert!(by_bytes.on_accepted(Index(2)));
        assert!(!by_bytes.is_paused());
    }

    /// B11: late answers never move the peer back behind what is known.
    /// Covers: B11 S43
    #[test]
    fn late_answers_change_nothing() {
        let mut progress = replicating(10);
        assert!(!progress.on_rejected(Index(10), Index(3)));
        assert!(!progress.on_rejected(Index(4), Index(3)));
        assert!(!progress.on_accepted(Index(7)));
        assert_eq!((progress.match_index(), progress.next_index()), (Index(10), Index(11)));
        assert!(!progress.quarantined);
    }

    /// B24: a peer that denies what it acknowledged is noticed, and believed again once it accepts.
    /// Covers: B24 S43
    #[test]
    fn a_peer_that_lost_its_disk_is_quarantined() {
        let mut progress = replicating(10);
        progress.on_reconnected();
        progress.on_sent(Index(10), 0);
        assert!(!progress.on_rejected(Index(10), Index(2)));
        assert!(progress.quarantined);
        assert!(!progress.on_accepted(Index(10)));
        assert!(!progress.quarantined);
    }
}
