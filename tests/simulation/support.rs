//! What the simulation shares with other tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

#[path = "../support/history.rs"]
pub mod history;
#[path = "../support/linearizability.rs"]
pub mod linearizability;
#[path = "../support/sim_disk.rs"]
pub mod sim_disk;
#[path = "../support/sim_region.rs"]
pub mod sim_region;
#[path = "../support/storage_fixture.rs"]
pub mod storage_fixture;
#[path = "../support/witness.rs"]
pub mod witness;
