//! Seeded randomness. The seed comes from the operating system in production and from the test in tests.

/// A generator whose whole sequence follows from its seed. Good for time-outs and back-off, never for secrets.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// A generator with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng(fastrand::Rng::with_seed(seed))
    }

    /// A number in `low..high`, evenly distributed.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        assert!(low < high, "a random range needs at least one number, not {low}..{high}");
        self.0.u64(low..high)
    }

    /// Any 64-bit number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }
}
