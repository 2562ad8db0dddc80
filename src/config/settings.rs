//! The optional settings of keva.toml, with their defaults.

use crate::limits::{
    CLIENT_CONNECTIONS_DEFAULT, HEAD_TIMEOUT_MS_DEFAULT, HISTORY_BYTES_DEFAULT, IDLE_TIMEOUT_MS_DEFAULT,
    REQUEST_TIMEOUT_MS_DEFAULT, SEGMENT_BYTES, SNAPSHOT_LOG_BYTES_DEFAULT, STALL_TIMEOUT_MS_DEFAULT,
    VALUE_BYTES_DEFAULT,
};

/// The `[limits]` table: what one client may take of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitSettings {
    /// `max_value_size`: the longest value that this node accepts from a client, in bytes.
    pub value_bytes_max: usize,
    /// `client_connections`: clients connected at the same time.
    pub client_connections_max: usize,
    /// `request_timeout`: the time for a request that names none, in milliseconds.
    pub request_timeout_ms: u64,
    /// `idle_timeout`: the time until a connection without a request is closed, in milliseconds.
    pub idle_timeout_ms: u64,
    /// `head_timeout`: the time for the whole head of a request, in milliseconds.
    pub head_timeout_ms: u64,
    /// `stall_timeout`: the longest pause within a body, or within the response being read, in
    /// milliseconds.
    pub stall_timeout_ms: u64,
    /// `history_size`: past changes that are kept for clients who watch keys, in bytes.
    pub history_bytes: usize,
}

/// The `[storage]` table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StorageSettings {
    /// `segment_size`: the size of one file of the log, in bytes; a multiple of `SEGMENT_BYTES_UNIT`.
    pub segment_bytes: usize,
    /// `snapshot_log_size`: a snapshot is taken when the entries behind the newest one have at least this many bytes.
    pub snapshot_log_bytes: u64,
}

impl Default for LimitSettings {
    fn default() -> LimitSettings {
        LimitSettings {
            value_bytes_max: VALUE_BYTES_DEFAULT,
            client_connections_max: CLIENT_CONNECTIONS_DEFAULT,
            request_timeout_ms: REQUEST_TIMEOUT_MS_DEFAULT,
            idle_timeout_ms: IDLE_TIMEOUT_MS_DEFAULT,
            head_timeout_ms: HEAD_TIMEOUT_MS_DEFAULT,
            stall_timeout_ms: STALL_TIMEOUT_MS_DEFAULT,
            history_bytes: HISTORY_BYTES_DEFAULT,
        }
    }
}

impl Default for StorageSettings {
    fn default() -> StorageSettings {
        StorageSettings { segment_bytes: SEGMENT_BYTES, snapshot_log_bytes: SNAPSHOT_LOG_BYTES_DEFAULT }
    }
}
