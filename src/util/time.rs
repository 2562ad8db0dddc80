//! Time as the core sees it: a number of milliseconds that the caller passes in.

use std::fmt;
use std::ops::Sub;

/// A point in time: milliseconds since an arbitrary start, from a clock that never goes back. The event loop reads
/// its clock before and after a turn's input and hands the result down; nothing below it reads a clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Later than every deadline that will ever be set.
    pub const NEVER: Millis = Millis(u64::MAX);

    /// This point plus `millis`, or [`Millis::NEVER`] past the end of time.
    #[must_use]
    pub fn after(self, millis: u64) -> Millis {
        Millis(self.0.saturating_add(millis))
    }
}

impl Sub for Millis {
    type Output = u64;

    /// The milliseconds from `earlier` to `self`, 0 when `earlier` is not earlier.
    fn sub(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// The time that the whole cluster agrees on, in milliseconds: it starts with the cluster, goes on while a majority runs,
/// and is written into the log by the leader. It never goes back, and never runs faster than real time. 0: not known.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct LogicalTime(pub u64);

impl LogicalTime {
    /// This point plus `millis`.
    #[must_use]
    pub fn after(self, millis: u64) -> LogicalTime {
        LogicalTime(self.0.saturating_add(millis))
    }
}

impl Sub for LogicalTime {
    type Output = u64;

    /// The milliseconds from `earlier` to `self`, 0 when `earlier` is not earlier.
    fn sub(self, earlier: LogicalTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
