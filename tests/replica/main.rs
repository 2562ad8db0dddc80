//! Replicas in small deterministic clusters: what clients are told, over leader changes, lost messages and crashes.

mod cluster;
mod expiry;
mod faults;
mod hand_over;
mod idempotency;
mod limits;
mod listing;
mod lives;
mod reads;
mod shutdown;
mod snapshot_failures;
mod snapshots;
mod space;
mod standing;
#[path = "../support/mod.rs"]
mod support;
mod turns;
mod writes;
