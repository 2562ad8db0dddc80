//! The logical clock of one node: what time it is for the keys of the whole cluster.
//!
//! Logical time is made by leaders. A leader writes it into every entry that it proposes, and says it in its heartbeats;
//! a key whose entry has the time `t` and whose life is `d` is removed by a later entry with a time of at least `t + d`.
//! So a life is never too short if, from one entry to any later one, logical time never advances by more than real time.
//! A node's clock is a point on some leader's time line, and goes on by the node's own clock from there.
//!
//! # Why no life is too short
//!
//! How far a clock is ahead of real time is its *lead*; it changes only when the clock is set. Call the lead that a
//! leader has when it takes office the lead of its term. If the terms whose entries are in the log have leads that never
//! rise from one to the next, then of two entries the later one's time is later by at most the real time between them.
//!
//! - A clock belongs to a term, and its lead is never above that term's: it was set by a heartbeat of that term's leader,
//!   or by an entry that the leader has timed, and both take real time to arrive. Clocks do not run at exactly the same
//!   rate, so every heartbeat sets the clock, also back: what a fast clock is ahead by never adds up over a long term.
//! - A later term *replaces* an earlier one, also when that sets the clock back. Its leader may have known less, so that
//!   its time line is behind; whoever kept to the line before would be ahead of it, and as the next leader make the lives
//!   of its keys too short.
//! - A leader takes office when it has applied the entry that opened its term. By then it has applied every entry that
//!   any earlier leader has timed and that will ever be committed, so its clock belongs to the newest of these terms or a
//!   later one. Before that its time is no leader's, so its heartbeats say none, and it proposes nothing.
//! - Entries without a time (those which open a term), and the time in a snapshot, belong to no term that could be named:
//!   that leader may not have taken office yet. The former do not set the clock. A snapshot sets it as a start does: to a
//!   time that has certainly passed, for whatever term comes.
//! - Another node's time counts from when this node next looks at its own clock, not from when it last did: its process
//!   may have stood still in between. And one millisecond less, because both clocks round down.
//!
//! # How much too long a life can be
//!
//! Every clock follows the leader's at the distance of a message, and goes on when the leader is gone, so a change of
//! leaders costs that much: as long as the last message was on its way, or waited for a process that stood still. A node that was restarted knows only the time in its log and the leader's next heartbeat; when
//! all nodes stop, time stands still, and what passed since the newest entry is lost. See
//! [`TIME_CHECKPOINT_MS`](crate::limits::TIME_CHECKPOINT_MS).

use crate::raft::types::Term;
use crate::util::mutation::mutant;
use crate::util::time::{LogicalTime, Millis};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Whose time line it is: that of this term's leader. 0: of none that is known.
    term: Term,
    /// It was this time ...
    base: LogicalTime,
    /// ... when this node's own clock showed this.
    at: Millis,
    /// Said by the leader of that term since the clock was last set.
    heard: Option<(Term, LogicalTime)>,
}

impl Clock {
    /// Begins at the time that the state knows.
    pub(crate) fn starting_at(time: LogicalTime, now: Millis) -> Clock {
        Clock { term: Term(0), base: time, at: now, heard: None }
    }

    /// The term whose leader's time line this is.
    pub(crate) fn term(&self) -> Term {
        self.term
    }

    /// What time it is.
    pub(crate) fn read(&self, now: Millis) -> LogicalTime {
        self.base.after(now - self.at)
    }

    /// When, by this node's own clock, it will be `time`. Perhaps in the past.
    pub(crate) fn when(&self, time: LogicalTime) -> Millis {
        self.at.after(time - self.base)
    }

    /// The leader of `term`, the current one, says what time it is. Counts when [`Clock::set`] is called.
    pub(crate) fn hear(&mut self, term: Term, time: LogicalTime) {
        self.heard = self.heard.max(Some((term, time)));
    }

    /// Goes by what was heard. `now` was read from this node's clock after that.
    pub(crate) fn set(&mut self, now: Millis) {
        let Some((term, time)) = self.heard.take() else { return };
        let replaces = if mutant("clock-never-set-back") { term > self.term } else { term >= self.term };
        self.adopt(term, time, now, replaces);
    }

    /// An entry of `term` was applied, and the state's time is `time` by it. `now` was read from this node's clock after
    /// the entry came.
    pub(crate) fn on_applied(&mut self, term: Term, time: LogicalTime, now: Millis) {
        // Entries come later than the heartbeats of their leader.
        self.adopt(term, time, now, term > self.term);
    }

    /// A snapshot was installed that ends in `last_term`, with this time.
    pub(crate) fn on_installed(&mut self, last_term: Term, time: LogicalTime, now: Millis) {
        // Of a later leader more is known already.
        if self.term < last_term || mutant("clock-reset-by-snapshot") {
            let heard = self.heard;
            *self = Clock { heard, ..Clock::starting_at(time, now) };
        }
    }

    /// This node leads `term` and has applied the entry that opened it; by all that is applied it is at least `time`.
    ///
    /// # Panics
    /// When the clock belongs to a later term, or to this one: one leader takes office in a term, and once.
    pub(crate) fn take_office(&mut self, term: Term, time: LogicalTime, now: Millis) {
        assert!(self.term < term, "nobody's time line is that of term {term} before its leader takes office");
        let known = if mutant("time-stops-between-leaders") { time } else { self.read(now) };
        *self = Clock { term, base: known.max(time).max(LogicalTime(1)), at: now, heard: None };
    }

    /// `replaces`: also when the clock is ahead.
    fn adopt(&mut self, term: Term, time: LogicalTime, now: Millis, replaces: bool) {
        let time = LogicalTime(time.0.saturating_sub(1));
        let replaces = replaces && !(term > self.term && mutant("clock-keeps-to-earlier-leader"));
        if replaces || (term >= self.term && time > self.read(now)) {
            (self.term, self.base, self.at) = (term, time, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, time: u64, now: u64) -> Clock {
        Clock { term: Term(term), base: LogicalTime(time), at: Millis(now), heard: None }
    }

    fn read(clock: &Clock, now: u64) -> u64 {
        clock.read(Millis(now)).0
    }

    #[test]
    fn it_goes_by_the_node_s_own_clock() {
        let clock = Clock::starting_at(LogicalTime(700), Millis(50));
        assert_eq!((clock.term(), read(&clock, 50), read(&clock, 80)), (Term(0), 700, 730));
        assert_eq!(clock.when(LogicalTime(730)), Millis(80));
        assert_eq!(clock.when(LogicalTime(650)), Millis(50), "it is over");
        assert_eq!(clock.when(LogicalTime(u64::MAX)), Millis(u64::MAX - 650));
    }

    /// J3: a heartbeat of the present leader or of a later one sets the clock on or back, one of an earlier leader does
    /// nothing.
    #[test]
    fn heartbeats_set_it() {
        for (term, time, read_at_100) in
            [(4, 5_000, 600), (5, 501, 500), (5, 602, 601), (5, 9_000, 8_999), (6, 3, 2), (6, 9_000, 8_999)]
        {
            let mut clock = at(5, 500, 0);
            clock.hear(Term(term), LogicalTime(time));
            assert_eq!(read(&clock, 100), 600, "not before this node looks at its own clock");
            clock.set(Millis(100));
            assert_eq!(read(&clock, 100), read_at_100, "{term} {time}");
            assert_eq!(clock.term(), Term(term.max(5)));
            let before = read(&clock, 200);
            clock.set(Millis(200));
            assert_eq!(read(&clock, 200), before, "each counts once");
        }
    }

    /// H2: the process may stand still between the message and the look at the clock. That makes it late, never early.
    #[test]
    fn what_was_heard_counts_from_the_next_look_on() {
        let mut clock = at(5, 0, 0);
        clock.hear(Term(5), LogicalTime(1_000));
        clock.hear(Term(6), LogicalTime(300));
        clock.hear(Term(6), LogicalTime(310));
        clock.set(Millis(90));
        assert_eq!((clock.term(), read(&clock, 90)), (Term(6), 309));
    }

    /// J2, J3
    #[test]
    fn applied_entries_set_it() {
        let mut clock = at(0, 100, 0);
        clock.on_applied(Term(2), LogicalTime(61), Millis(10));
        assert_eq!((clock.term(), read(&clock, 10)), (Term(2), 60), "whoever led that term knew no more");
        clock.on_applied(Term(2), LogicalTime(62), Millis(20));
        assert_eq!(read(&clock, 20), 70, "the entry was on its way for a while");
        clock.on_applied(Term(2), LogicalTime(91), Millis(20));
        assert_eq!(read(&clock, 20), 90);
        clock.on_applied(Term(1), LogicalTime(500), Millis(20));
        assert_eq!((clock.term(), read(&clock, 20)), (Term(2), 90));
    }

    /// J6: the time in a snapshot is a start for a node that knows nothing newer.
    #[test]
    fn snapshots_set_it() {
        let mut clock = at(5, 900, 0);
        clock.hear(Term(8), LogicalTime(801));
        clock.on_installed(Term(6), LogicalTime(700), Millis(10));
        assert_eq!((clock.term(), read(&clock, 10)), (Term(0), 700));
        clock.set(Millis(10));
        assert_eq!((clock.term(), read(&clock, 10)), (Term(8), 800));
        clock.on_installed(Term(8), LogicalTime(799), Millis(20));
        assert_eq!((clock.term(), read(&clock, 20)), (Term(8), 810), "its leader has said more");
    }

    /// J2: time goes on where this node's clock, or the state, is.
    #[test]
    fn a_leader_goes_on_from_what_it_knows() {
        for (time, expected) in [(550, 600), (600, 600), (601, 601)] {
            let mut clock = at(5, 500, 0);
            clock.hear(Term(5), LogicalTime(9_000));
            clock.take_office(Term(6), LogicalTime(time), Millis(100));
            clock.set(Millis(100));
            assert_eq!((clock.term(), read(&clock, 100)), (Term(6), expected));
        }
    }

    #[test]
    #[should_panic(expected = "before its leader takes office")]
    fn nobody_takes_office_twice() {
        at(5, 500, 0).take_office(Term(5), LogicalTime(0), Millis(1));
    }
}
