//! Keva: a replicated, linearizable key-value store that people drive with curl.

pub mod config;
pub mod kv;
pub mod limits;
pub mod logging;
pub mod net;
pub mod raft;
pub mod replica;
pub mod storage;
pub mod util;
