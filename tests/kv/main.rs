//! The state machine alone, without a log: what commands do, and snapshots of it.

mod commands;
mod snapshots;
