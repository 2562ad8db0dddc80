//! What several tests share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod cluster;
pub mod disks;
pub mod failover;
pub mod history;
pub mod history_client;
pub mod http_client;
pub mod http_message;
pub mod linearizability;
pub mod lone_node;
pub mod loopback;
pub mod memory_storage;
pub mod metrics;
pub mod node_process;
pub mod original;
pub mod raft_checks;
pub mod raft_cluster;
pub mod raft_story;
pub mod raft_text;
pub mod relay;
pub mod round;
pub mod sim_disk;
pub mod sim_region;
pub mod storage_driver;
pub mod storage_fixture;
pub mod watch_event;
pub mod witness;
pub mod workload;
