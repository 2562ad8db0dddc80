//! What a node counts about itself while it runs, for `GET /metrics`.
//!
//! Counting is one addition to a number in memory. Everything is as large at the end of a year as at the start: there is
//! no list in here that grows. Counters begin at 0 with the process. Nobody here reads a clock; the event loop does, once
//! more per turn than it would otherwise, and twice around each sync.

pub mod histogram;
pub mod responses;
pub mod storage_use;
pub mod traffic;
pub mod turns;

pub use histogram::Histogram;
pub use responses::Responses;
pub use storage_use::StorageUse;
pub use traffic::Traffic;
pub use turns::{TurnTimes, Turns};
