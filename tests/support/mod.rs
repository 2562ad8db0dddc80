//! What several tests share.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, reason = "shared by several binaries, so public within each")]

pub mod lone_node;
pub mod memory_storage;
pub mod raft_checks;
pub mod raft_cluster;
pub mod raft_story;
pub mod raft_text;
