//! What a leader knows of one peer's log, and how fast it may send.
//!
//! ```text
//!              match_index        next_index            last_index of the leader
//!   ... known to be equal |  sent, not answered  |  not sent yet  |
//!
//!   Probe      one message at a time, with at most one entry, until the logs are known to meet
//!   Replicate  message after message without waiting, within a window of messages and bytes
//!   Snapshot   the leader's log does not reach back to where the logs meet: no entries, but its snapshot in parts
//! ```
//!
//! A rejection or a new connection leads back to Probe. A rejection that leads behind the beginning of the leader's log
//! leads to Snapshot, and what the peer accepts from there on to Replicate. `match_index < next_index` always.
//! `match_index` goes back only when the peer turns out to have lost what it acknowledged; then it starts over.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use crate::limits::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MESSAGES_MAX};
use crate::raft::message::ReadRound;
use crate::raft::sending::Sending;
use crate::raft::storage::SnapshotMeta;
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
    /// The peer's disk is full, as it said last.
    pub(super) is_full: bool,
    /// Something was sent to or accepted by the peer since the last periodic heartbeat.
    moved: bool,
    /// An empty message is due, to find out what became of those in flight.
    nudge: bool,
    /// The peer said on this connection that it has lost something, and has started over since.
    has_started_over: bool,
    /// There is a new connection, and the peer has not said since that it has what it acknowledged.
    is_unsure: bool,
    /// The peer took a snapshot and has not been sent yet all that follows it: when it last took some of that.
    following_up: Option<Millis>,
}

#[derive(Clone, Debug, Hash)]
enum Mode {
    Probe { sent: bool },
    Replicate { in_flight: InFlight },
    Snapshot(Sending),
}

/// What a rejection means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rejection {
    /// It answers something that is not the latest try: nothing.
    Late,
    /// The next try is further back.
    Retry,
    /// The peer has lost what it had acknowledged, with the connection before this one, and starts over.
    Lost,
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
            is_full: false,
            moved: false,
            nudge: false,
            has_started_over: false,
            is_unsure: false,
            following_up: None,
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

    /// Whether the peer is brought up to date with a snapshot.
    #[must_use]
    pub fn is_sending_snapshot(&self) -> bool {
        matches!(self.mode, Mode::Snapshot(_))
    }

    /// Whether nothing may be sent until the peer answers.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        match &self.mode {
            Mode::Probe { sent } => *sent,
            Mode::Replicate { in_flight } => in_flight.is_full(),
            Mode::Snapshot(sending) => sending.next_part().is_none(),
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
            Mode::Snapshot(_) => unreachable!("no entries travel while the snapshot does"),
        }
    }

    /// The peer has everything up to `index`; the leader's log reaches back to `floor`. Returns whether that is news.
    pub(super) fn on_accepted(&mut self, now: Millis, index: Index, floor: Index) -> bool {
        if index < self.match_index && !mutant("match-may-regress") {
            return false;
        }
        let news = index > self.match_index;
        self.is_unsure = false;
        self.moved = true;
        self.match_index = index;
        if news && self.following_up.is_some() || self.is_sending_snapshot() && index >= floor {
            self.following_up = Some(now);
        }
        match &mut self.mode {
            Mode::Snapshot(_) if index < floor => self.next_index = self.next_index.max(index.next()),
            Mode::Probe { .. } | Mode::Snapshot(_) => {
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

    /// The peer does not have the entry at `prev_index`; the logs may meet at `candidate`.
    pub(super) fn on_rejected(&mut self, prev_index: Index, candidate: Index) -> Rejection {
        let is_latest_probe = matches!(self.mode, Mode::Probe { .. }) && prev_index == self.next_index.prev();
        let mut rejection = Rejection::Retry;
        match &self.mode {
            // Nothing comes before the first entry.
            _ if prev_index == Index(0) => return Rejection::Late,
            Mode::Snapshot(_) => return Rejection::Late,
            Mode::Probe { .. } if !is_latest_probe => return Rejection::Late,
            Mode::Replicate { .. } if prev_index <= self.match_index => return Rejection::Late,
            Mode::Replicate { .. } => self.next_index = self.match_index.next(),
            Mode::Probe { .. } => {
                // A peer that has the matched entry names none before it, whatever it is asked for: see
                // [`Raft::handle_peer_forgot`](crate::raft::raft::Raft::handle_peer_forgot).
                if prev_index <= self.match_index || candidate < self.match_index {
                    // Only another process can have lost anything, and it has another connection.
                    if std::mem::take(&mut self.is_unsure) {
                        rejection = Rejection::Lost;
                    }
                    (self.match_index, self.commit_sent) = (Index(0), Index(0));
                }
                self.next_index = prev_index.min(candidate.next()).max(self.match_index.next());
            }
        }
        self.mode = Mode::Probe { sent: false };
        rejection
    }

    /// The peer's disk is another one, or an older copy: nothing is known of it.
    pub(super) fn start_over(&mut self, next_index: Index, now: Millis) {
        *self = Progress::new(next_index, now);
    }

    /// The peer says that it has lost something: [`Progress::start_over`], but only once per connection. It cannot lose
    /// anything more without a new one, and it asks again and again.
    pub(super) fn start_over_once(&mut self, next_index: Index, now: Millis) {
        if !self.has_started_over {
            self.start_over(next_index, now);
            self.has_started_over = true;
        }
    }

    /// The leader's log begins later than the next entry to send. If the peer has the first one that is left, it needs
    /// no snapshot.
    pub(super) fn probe_at(&mut self, next_index: Index) {
        self.next_index = next_index;
        self.mode = Mode::Probe { sent: false };
    }

    /// A periodic heartbeat goes out.
    pub(super) fn on_heartbeat_sent(&mut self) {
        self.moved = false;
        if let Mode::Snapshot(sending) = &mut self.mode {
            sending.on_heartbeat_sent();
        }
    }

    /// A heartbeat was answered. A peer that answers heartbeats but, for a whole interval, no appends may have lost
    /// them: one more message goes out, even when the window is full. Its answer tells.
    pub(super) fn on_heartbeat_answered(&mut self) {
        match &mut self.mode {
            Mode::Probe { sent } => *sent = *sent && self.moved,
            Mode::Replicate { in_flight } => self.nudge = !self.moved && !in_flight.messages.is_empty(),
            Mode::Snapshot(sending) if !self.moved => sending.on_silence(),
            Mode::Snapshot(_) => {}
        }
    }

    // ---- snapshots ------------------------------------------------------------------------------

    /// The peer denied having what the leader's log begins behind: only a snapshot helps.
    pub(super) fn start_snapshot(&mut self, snapshot: SnapshotMeta) {
        let mut sending = Sending::new(snapshot);
        sending.taken_at = self.following_up;
        self.mode = Mode::Snapshot(sending);
    }

    /// Offset and length of the part of `newest` that may be sent at the moment. When that is another snapshot than
    /// before, it begins from the start.
    pub(super) fn next_snapshot_part(&mut self, newest: SnapshotMeta) -> Option<(u64, usize)> {
        let Mode::Snapshot(sending) = &mut self.mode else { return None };
        if sending.snapshot() != newest {
            *sending = Sending::new(newest);
        }
        sending.next_part()
    }

    pub(super) fn on_snapshot_part_sent(&mut self, len: usize) {
        self.moved = true;
        if let Mode::Snapshot(sending) = &mut self.mode {
            sending.on_sent(len);
        }
    }

    fn sending(&mut self, snapshot: SnapshotMeta) -> Option<&mut Sending> {
        match &mut self.mode {
            Mode::Snapshot(sending) if sending.snapshot() == snapshot => Some(sending),
            _ => None,
        }
    }

    pub(super) fn on_snapshot_receiving(&mut self, now: Millis, snapshot: SnapshotMeta, next_offset: u64) {
        let is_news = self.sending(snapshot).is_some_and(|sending| sending.on_receiving(now, next_offset));
        self.moved |= is_news;
    }

    pub(super) fn on_snapshot_refused(&mut self, snapshot: SnapshotMeta) {
        if let Some(sending) = self.sending(snapshot) {
            sending.on_refused();
        }
    }

    /// Everything that the peer lacks was sent, as far as the window allows.
    pub(super) fn on_all_sent(&mut self) {
        self.following_up = None;
    }

    /// When the peer last took a part of the snapshot that it is being sent, or of what follows one that it took.
    pub(super) fn snapshot_taken_at(&self) -> Option<Millis> {
        match &self.mode {
            Mode::Snapshot(sending) => sending.taken_at,
            _ => self.following_up,
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
            is_full,
            moved,
            nudge,
            has_started_over,
            is_unsure,
            following_up: _,
        } = self;
        (match_index, next_index, mode, commit_sent, round_acked).hash(hasher);
        (is_full, moved, nudge, has_started_over, is_unsure).hash(hasher);
    }

    /// What was on its way to the peer may be lost.
    pub(super) fn on_reconnected(&mut self) {
        match &mut self.mode {
            // An answerless probe keeps its position: nothing was learned about it.
            Mode::Probe { sent } => *sent = false,
            Mode::Replicate { .. } => self.probe_at(self.match_index.next()),
            Mode::Snapshot(sending) if self.match_index == Index(0) => sending.on_reconnected(),
            // It may have lost what it acknowledged. What it says of its log tells, and then the snapshot goes on.
            Mode::Snapshot(sending) => {
                self.following_up = sending.taken_at;
                self.probe_at(self.match_index.next());
            }
        }
        self.nudge = false;
        self.has_started_over = false;
        self.is_unsure = true;
        self.commit_sent = Index(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{EntryId, Term};

    fn replicating(match_index: u64) -> Progress {
        let mut progress = Progress::new(Index(match_index + 1), Millis(0));
        assert!(progress.on_accepted(Millis(0), Index(match_index), Index(0)) || match_index == 0);
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
        assert!(!by_count.on_accepted(Millis(0), Index(1), Index(0)), "nothing new");
        assert!(by_count.is_paused(), "an old answer frees nothing");
        assert!(by_count.on_accepted(Millis(0), Index(5), Index(0)));
        assert!(!by_count.is_paused());

        let mut by_bytes = replicating(1);
        by_bytes.on_sent(Index(2), IN_FLIGHT_BYTES_MAX);
        assert!(by_bytes.is_paused());
        assert!(by_bytes.on_accepted(Millis(0), Index(2), Index(0)));
        assert!(!by_bytes.is_paused());
    }

    /// B11: late answers never move the peer back behind what is known.
    /// Covers: B11 S43
    #[test]
    fn late_answers_change_nothing() {
        let mut progress = replicating(10);
        assert_eq!(progress.on_rejected(Index(10), Index(3)), Rejection::Late);
        assert_eq!(progress.on_rejected(Index(4), Index(3)), Rejection::Late);
        assert!(!progress.on_accepted(Millis(0), Index(7), Index(0)));
        assert_eq!((progress.match_index(), progress.next_index()), (Index(10), Index(11)));
    }

    /// B24: a peer that denies what it acknowledged starts over: it counts for nothing, and gets everything again.
    /// Covers: B24 S43
    #[test]
    fn a_peer_that_lost_entries_starts_over() {
        let mut progress = replicating(10);
        progress.on_reconnected();
        progress.on_sent(Index(10), 0);
        assert_eq!(progress.on_rejected(Index(10), Index(2)), Rejection::Lost);
        assert_eq!((progress.match_index(), progress.next_index()), (Index(0), Index(3)));
        progress.on_sent(Index(3), 0);
        assert_eq!(progress.on_rejected(Index(10), Index(2)), Rejection::Late);
        assert_eq!(
            progress.on_rejected(Index(0), Index(0)),
            Rejection::Late,
            "nothing comes before the first"
        );
        assert!(progress.on_accepted(Millis(0), Index(2), Index(0)));
        assert_eq!((progress.match_index(), progress.next_index()), (Index(2), Index(3)));
    }

    /// B11: a denial that comes late, where links do not keep the order, is no loss: the peer has confirmed on this connection
    /// what it had.
    /// Covers: B11
    #[test]
    fn nothing_is_lost_without_a_new_connection() {
        let mut progress = replicating(9);
        progress.on_reconnected();
        progress.on_sent(Index(10), 1);
        assert!(progress.on_accepted(Millis(0), Index(10), Index(0)));
        assert_eq!(progress.on_rejected(Index(11), Index(10)), Rejection::Retry);
        assert_eq!(progress.on_rejected(Index(10), Index(2)), Rejection::Retry);
        assert_eq!((progress.match_index(), progress.next_index()), (Index(0), Index(3)));
    }

    /// So it is when the leader's log does not reach back to what the peer acknowledged, and the probe asks for a later
    /// entry. A peer that has what it acknowledged only lacks that one.
    /// Covers: B24
    #[test]
    fn a_lost_entry_shows_behind_the_beginning_of_the_log() {
        for (candidate, rejection) in [(9, Rejection::Lost), (10, Rejection::Retry), (11, Rejection::Retry)] {
            let mut progress = replicating(10);
            progress.on_reconnected();
            progress.probe_at(Index(21));
            progress.on_sent(Index(20), 0);
            assert_eq!(progress.on_rejected(Index(20), Index(candidate)), rejection, "{candidate}");
        }
    }

    /// D9, S40, S59: no entries travel while the snapshot does; whatever the peer accepts at or behind the beginning of
    /// the leader's log ends it, be it the snapshot or an earlier append.
    #[test]
    fn a_snapshot_ends_when_the_logs_meet() {
        let snapshot = SnapshotMeta { last: EntryId::new(Term(1), Index(11)), bytes: 100, crc: 1 };
        let (floor, start) = (Index(11), |progress: &mut Progress| progress.start_snapshot(snapshot));
        for (accepted, ends) in [(9, false), (10, false), (11, true), (12, true)] {
            let mut progress = replicating(9);
            start(&mut progress);
            assert_eq!(progress.on_rejected(Index(11), Index(3)), Rejection::Late);
            progress.on_accepted(Millis(0), Index(accepted), floor);
            assert_eq!(progress.is_replicating(), ends, "accepted {accepted}");
            assert_eq!(progress.is_sending_snapshot(), !ends, "accepted {accepted}");
            assert_eq!((progress.match_index().0, progress.next_index().0), (accepted, accepted + 1));
        }
    }

    /// D7, D11: a peer that took a snapshot needs what follows it, until all of that is on its way.
    #[test]
    fn what_follows_a_snapshot_is_still_needed() {
        let snapshot = SnapshotMeta { last: EntryId::new(Term(1), Index(11)), bytes: 100, crc: 1 };
        let (floor, mut progress) = (Index(11), replicating(9));
        assert_eq!(progress.snapshot_taken_at(), None);
        progress.on_accepted(Millis(1), Index(10), floor);
        assert_eq!(progress.snapshot_taken_at(), None, "no snapshot was needed");
        progress.start_snapshot(snapshot);
        assert_eq!(progress.snapshot_taken_at(), None, "nothing was taken yet");
        progress.on_accepted(Millis(2), Index(11), floor);
        assert_eq!(progress.snapshot_taken_at(), Some(Millis(2)));
        progress.on_sent(Index(12), 1);
        progress.on_accepted(Millis(3), Index(11), floor);
        assert_eq!(progress.snapshot_taken_at(), Some(Millis(2)), "it took nothing");
        progress.on_accepted(Millis(4), Index(12), floor);
        assert_eq!(progress.snapshot_taken_at(), Some(Millis(4)));
        progress.on_reconnected();
        assert_eq!(progress.snapshot_taken_at(), Some(Millis(4)), "it still lacks some");
        progress.on_all_sent();
        progress.on_accepted(Millis(5), Index(13), floor);
        assert_eq!(progress.snapshot_taken_at(), None);
    }

    /// D7, F22: with a new connection a peer that had acknowledged something is asked for its log first. That it takes a
    /// snapshot is not forgotten meanwhile.
    #[test]
    fn a_new_connection_asks_for_the_log_first() {
        let snapshot = SnapshotMeta { last: EntryId::new(Term(1), Index(11)), bytes: 1 << 30, crc: 1 };
        for (match_index, is_probing) in [(0, false), (9, true)] {
            let mut progress = replicating(match_index);
            progress.start_snapshot(snapshot);
            let first = crate::limits::SNAPSHOT_CHUNK_BYTES as u64;
            progress.on_snapshot_receiving(Millis(1), snapshot, first);
            progress.on_reconnected();
            assert_eq!(progress.is_sending_snapshot(), !is_probing);
            assert_eq!(progress.snapshot_taken_at(), Some(Millis(1)));
            progress.start_snapshot(snapshot);
            assert_eq!(progress.snapshot_taken_at().is_some(), is_probing);
        }
    }

    /// D10: a refused snapshot is asked about again after a heartbeat, and one whose answer is lost as well.
    #[test]
    fn a_snapshot_is_tried_again() {
        let snapshot = SnapshotMeta { last: EntryId::new(Term(1), Index(11)), bytes: 100, crc: 1 };
        let mut progress = replicating(9);
        progress.start_snapshot(snapshot);
        let ask = |progress: &mut Progress| {
            let part = progress.next_snapshot_part(snapshot);
            part.inspect(|(_, len)| progress.on_snapshot_part_sent(*len))
        };
        assert_eq!(ask(&mut progress), Some((0, 0)));
        assert_eq!(ask(&mut progress), None);
        progress.on_heartbeat_answered();
        assert_eq!(ask(&mut progress), None, "the answer may still come");
        progress.on_heartbeat_sent();
        progress.on_heartbeat_answered();
        assert_eq!(ask(&mut progress), Some((0, 0)), "a whole interval without an answer");
        progress.on_snapshot_refused(snapshot);
        assert_eq!(ask(&mut progress), None);
        progress.on_heartbeat_sent();
        assert_eq!(ask(&mut progress), Some((0, 0)));
        let other = SnapshotMeta { crc: 2, ..snapshot };
        progress.on_snapshot_receiving(Millis(1), other, 0);
        assert_eq!(ask(&mut progress), None, "an answer about another snapshot");
        progress.on_snapshot_receiving(Millis(1), snapshot, 0);
        assert_eq!(ask(&mut progress), Some((0, 100)));
        assert_eq!(progress.next_snapshot_part(other), Some((0, 0)), "another one begins from the start");
    }
}
