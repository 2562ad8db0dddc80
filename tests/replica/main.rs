//! Replicas in small deterministic clusters: what clients are told, over leader changes, lost messages and crashes.

mod cluster;
mod faults;
mod limits;
mod reads;
mod shutdown;
mod snapshots;
mod space;
mod standing;
#[path = "../support/mod.rs"]
mod support;
mod writes;
