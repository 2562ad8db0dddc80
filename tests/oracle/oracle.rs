//! Keva's Raft beside another one, the crate `raft` 0.7 with pre-vote and check-quorum: both see the same situations,
//! and what can be compared must be the same.
//!
//! [`tables`] compares single decisions: is this vote given, is this append taken, what does a refusal say?
//! [`schedules`] compares clusters of nodes that live through the same random events.
//!
//! What is not compared: how many messages it takes, and reads. What is known to differ: the other one also moves
//! its commit index by what votes and refusals tell (so schedules are compared when all messages have been delivered),
//! and does not answer a request for votes of an earlier term.

#[path = "../support/memory_storage.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other test programs")]
mod memory_storage;
mod ours;
mod schedules;
mod side;
mod tables;
mod theirs;
