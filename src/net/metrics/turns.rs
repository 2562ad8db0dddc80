//! How long turns of the loop take: whatever arrives during one waits until it is over.

use std::time::Duration;

use crate::net::metrics::histogram::Histogram;

/// The turns of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Turns {
    /// All of them.
    pub durations: Histogram,
    /// The longest.
    pub longest: Duration,
}

impl Turns {
    fn observe(&mut self, duration: Duration) {
        self.durations.observe(duration);
        self.longest = self.longest.max(duration);
    }
}

/// All turns, from the return of one poll to the call of the next. The turn that is under way is not among them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TurnTimes {
    /// Turns while no snapshot was in the making.
    pub plain: Turns,
    /// Turns at whose beginning or end a snapshot was in the making, the node's own or one from the leader: the turns
    /// that begin and end one are among them.
    pub making_snapshot: Turns,
    began: Option<Duration>,
    was_making_snapshot: bool,
}

impl TurnTimes {
    /// A turn begins, at this time since the start.
    pub fn begin(&mut self, at: Duration) {
        self.began = Some(at);
    }

    /// It ends. What comes before the first [`TurnTimes::begin`] is no turn.
    pub fn end(&mut self, at: Duration, is_making_snapshot: bool) {
        let was_making_snapshot = std::mem::replace(&mut self.was_making_snapshot, is_making_snapshot);
        let Some(began) = self.began.take() else { return };
        let kind = if is_making_snapshot || was_making_snapshot {
            &mut self.making_snapshot
        } else {
            &mut self.plain
        };
        kind.observe(at.saturating_sub(began));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_counts_from_its_first_turn_to_its_last() {
        let mut times = TurnTimes::default();
        let mut turn = |micros: u64, is_making_at_end| {
            times.begin(Duration::from_secs(1));
            times.end(Duration::from_secs(1) + Duration::from_micros(micros), is_making_at_end);
        };
        turn(1, false);
        turn(20, true);
        turn(30, true);
        turn(40, false);
        turn(5, false);
        assert_eq!((times.plain.durations.count(), times.plain.longest), (2, Duration::from_micros(5)));
        assert_eq!(times.making_snapshot.durations.count(), 3);
        assert_eq!(times.making_snapshot.longest, Duration::from_micros(40));
    }

    #[test]
    fn what_comes_before_the_first_poll_is_no_turn() {
        let mut times = TurnTimes::default();
        times.end(Duration::from_secs(3), false);
        assert_eq!(times, TurnTimes::default());
    }
}
