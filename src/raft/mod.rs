//! The Raft protocol.

pub mod entry;
pub mod message;
#[allow(clippy::module_inception)]
pub mod raft;
pub mod storage;
pub mod types;
