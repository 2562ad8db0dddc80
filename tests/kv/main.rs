//! The state machine alone, without a log: what commands do, and snapshots of it.

mod commands;
mod history;
mod idempotency;
mod large;
mod listing;
mod lives;
mod model;
mod parts;
mod payloads;
mod snapshots;
mod transactions;
mod writes;
