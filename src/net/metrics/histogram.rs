//! How often something took how long.

use std::time::Duration;

/// Where the buckets end. A duration belongs into the first one that ends at it or later, or behind all of them.
pub const BUCKETS: [Duration; 10] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
];

/// Durations, counted by size.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    counts: [u64; BUCKETS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&mut self, duration: Duration) {
        let bucket = BUCKETS.iter().position(|end| duration <= *end).unwrap_or(BUCKETS.len());
        self.counts[bucket] += 1;
        self.sum += duration;
    }

    /// How many durations were not longer than the end of each bucket, with that end; `None` is no end, and all of them.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let ends = BUCKETS.into_iter().map(Some).chain([None]);
        ends.zip(self.counts).scan(0, |total, (end, count)| {
            *total += count;
            Some((end, *total))
        })
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_every_bucket_that_ends_at_it_or_later() {
        let mut histogram = Histogram::default();
        let observed = [Duration::ZERO, BUCKETS[0], Duration::from_micros(101), Duration::from_secs(9)];
        observed.into_iter().for_each(|duration| histogram.observe(duration));
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert_eq!(histogram.cumulative().last(), Some((None, 4)));
        assert_eq!((histogram.count(), histogram.sum()), (4, Duration::from_micros(9_000_201)));
    }

    #[test]
    fn buckets_grow() {
        assert!(BUCKETS.is_sorted_by(|before, after| before < after));
    }
}
