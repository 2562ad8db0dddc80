//! Replicas in small deterministic clusters: what clients are told, over leader changes, lost messages and crashes.

mod cluster;
mod faults;
mod limits;
mod reads;
mod shutdown;
#[allow(unreachable_pub, reason = "every test that uses it is a program of its own")]
#[path = "../support/mod.rs"]
mod support;
mod writes;
