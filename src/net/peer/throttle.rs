//! Keeps a lasting trouble from filling the log.

use crate::limits::{REPEATED_WARNING_PAUSE_MS_MAX, REPEATED_WARNING_PAUSE_MS_MIN};
use crate::util::time::Millis;

/// Lets the first message of one kind through, then one after pauses that double.
#[derive(Debug)]
pub struct Throttle {
    not_before: Millis,
    pause: u64,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle { not_before: Millis(0), pause: REPEATED_WARNING_PAUSE_MS_MIN }
    }
}

impl Throttle {
    /// Whether a message may be logged at `now`. The next one waits.
    pub fn permits(&mut self, now: Millis) -> bool {
        if now < self.not_before {
            return false;
        }
        self.not_before = now.after(self.pause);
        self.pause = (self.pause * 2).min(REPEATED_WARNING_PAUSE_MS_MAX);
        true
    }

    /// The trouble is over: the next message is let through, but not before `now` plus `grace` milliseconds, so that
    /// what passes by itself is not worth a line.
    pub fn reset(&mut self, now: Millis, grace: u64) {
        *self = Throttle { not_before: now.after(grace), ..Throttle::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_trouble_is_logged_ever_more_rarely() {
        let mut throttle = Throttle::default();
        let hour = 3_600_000;
        let times: Vec<u64> = (0..hour).step_by(100).filter(|now| throttle.permits(Millis(*now))).collect();
        assert_eq!(times[..4], [0, 10_000, 30_000, 70_000]);
        assert!(times.len() < 20, "{} lines in an hour", times.len());
        throttle.reset(Millis(hour), 2_000);
        assert!(!throttle.permits(Millis(hour + 1_999)));
        assert!(throttle.permits(Millis(hour + 2_000)));
    }
}
