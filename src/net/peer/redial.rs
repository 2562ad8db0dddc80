//! How long to wait before a peer is dialled again.

use crate::limits::{PEER_REDIAL_MS_MAX, PEER_REDIAL_MS_MIN};
use crate::util::rng::Rng;

/// Counts the attempts since the last success: the first comes at once, the next ones after pauses that double, up to a
/// bound. Pauses are shortened by a random part so that nodes do not dial in step.
#[derive(Debug)]
pub struct Redial {
    attempts: u32,
    pause_max: u64,
}

impl Redial {
    /// With pauses of up to `pause_max` milliseconds, which is bounded by [`PEER_REDIAL_MS_MAX`]: a heartbeat interval
    /// is a good choice, because a peer that comes back should not be without a leader's word for longer.
    #[must_use]
    pub fn new(pause_max: u64) -> Redial {
        Redial { attempts: 0, pause_max: pause_max.clamp(PEER_REDIAL_MS_MIN, PEER_REDIAL_MS_MAX) }
    }

    /// The pause before the next attempt, in milliseconds.
    pub fn next_pause(&mut self, rng: &mut Rng) -> u64 {
        let doublings = self.attempts.checked_sub(1);
        self.attempts = self.attempts.saturating_add(1);
        let Some(doublings) = doublings else { return 0 };
        let full = (PEER_REDIAL_MS_MIN << doublings.min(16)).min(self.pause_max);
        rng.range(full / 2, full + 1)
    }

    /// The longest pause, for a peer that answered and does not want this node: only an operator can change that.
    #[must_use]
    pub fn longest_pause(&self) -> u64 {
        PEER_REDIAL_MS_MAX
    }

    /// The next attempt comes at once again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_is_at_once_and_pauses_double_to_the_bound() {
        let (mut redial, mut rng) = (Redial::new(300), Rng::new(1));
        let mut full = PEER_REDIAL_MS_MIN;
        assert_eq!(redial.next_pause(&mut rng), 0);
        for _ in 0..50 {
            let pause = redial.next_pause(&mut rng);
            assert!((full / 2..=full).contains(&pause), "{pause} of {full}");
            full = (full * 2).min(300);
        }
        assert_eq!(full, 300);
        redial.reset();
        assert_eq!(redial.next_pause(&mut rng), 0);
    }

    #[test]
    fn the_bound_is_bounded() {
        let (mut redial, mut rng) = (Redial::new(u64::MAX), Rng::new(1));
        let longest = (0..50).map(|_| redial.next_pause(&mut rng)).max().expect("fifty pauses");
        assert!(longest <= PEER_REDIAL_MS_MAX);
    }
}
