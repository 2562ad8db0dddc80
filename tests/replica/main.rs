//! Replicas in small deterministic clusters: what clients are told, over leader changes, lost messages and crashes.

mod cluster;
mod faults;
mod limits;
mod reads;
mod shutdown;
#[path = "../support/mod.rs"]
mod support;
mod writes;
