//! Small helpers without knowledge of Keva: time as a number, seeded randomness, stable hashes.

pub mod hash;
pub mod mutation;
pub mod rng;
pub mod time;
