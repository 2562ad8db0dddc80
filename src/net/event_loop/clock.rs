//! The only clock that the running node reads.

use std::time::{Duration, Instant};

use crate::util::time::Millis;

/// Milliseconds since the node was started, from a clock that never goes back. Wall clock changes do not show in it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins at 0.
    #[must_use]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Millis {
        Clock::millis(self.elapsed())
    }

    /// The time now, as exactly as the system tells it.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The point in time at which this much had passed.
    #[must_use]
    pub fn millis(elapsed: Duration) -> Millis {
        Millis(u64::try_from(elapsed.as_millis()).expect("a node does not run for half a billion years"))
    }
}
