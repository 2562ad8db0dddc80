//! What several tests share.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod memory_storage;
pub mod sim_region;
pub mod storage_fixture;
