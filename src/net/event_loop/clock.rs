//! The only clock that the running node reads.

use std::time::Instant;

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
        let millis = self.start.elapsed().as_millis();
        Millis(u64::try_from(millis).expect("a node does not run for half a billion years"))
    }
}
