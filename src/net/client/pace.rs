//! How long a transfer may take: it must not stall, and it must not trickle.

use crate::limits::CLIENT_BYTES_PER_SECOND_MIN;
use crate::util::time::Millis;

/// The progress of one transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    began: Millis,
    last: Millis,
    bytes: u64,
}

impl Pace {
    /// A transfer that begins.
    pub(crate) fn new(now: Millis) -> Pace {
        Pace { began: now, last: now, bytes: 0 }
    }

    /// Some bytes went over.
    pub(crate) fn advance(&mut self, now: Millis, count: usize) {
        if count > 0 {
            self.last = now;
            self.bytes += count as u64;
        }
    }

    /// When the transfer counts as dead: after `stall_ms` without a byte, or when it fell behind the slowest speed that
    /// is allowed by as much time.
    pub(crate) fn deadline(&self, stall_ms: u64) -> Millis {
        let earned_ms = self.bytes.saturating_mul(1000) / CLIENT_BYTES_PER_SECOND_MIN;
        self.last.after(stall_ms).min(self.began.after(stall_ms).after(earned_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_stalls_nor_trickles() {
        let mut pace = Pace::new(Millis(0));
        assert_eq!(pace.deadline(30_000), Millis(30_000));
        // One byte every second pleases the first rule; the second one ends it.
        for second in 1..=31 {
            pace.advance(Millis(second * 1000), 1);
        }
        assert!(pace.deadline(30_000) < Millis(30_100), "{}", pace.deadline(30_000));
        // A fast transfer may pause only for the stall time, however much it has earned.
        pace.advance(Millis(31_000), 100 << 20);
        assert_eq!(pace.deadline(30_000), Millis(61_000));
    }
}
