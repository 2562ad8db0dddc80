//! What came with the original Keva, and still works.
#![allow(unreachable_pub, reason = "shared by several test programs")]

/// The configuration file of its manual.
pub const ORIGINAL_CONFIGURATION: &str = "\
[[node]]
identity='host1'
address='localhost'
keva_port='370'
user_port='380'
wait_time='5'

[[node]]
identity='host2'
address='localhost'
keva_port='371'
user_port='381'
wait_time='4'

[[node]]
identity='host3'
address='localhost'
keva_port='372'
user_port='382'
wait_time='3'
";
