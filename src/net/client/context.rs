//! What all client connections share.

use crate::limits;
use crate::net::http::date::HttpDate;

/// Shared by all client connections of a node, behind an `Rc`.
#[derive(Debug, Default)]
pub struct ClientContext {
    /// The bounds.
    pub limits: ClientLimits,
    /// For the `Date` header: call [`HttpDate::set`] with the wall-clock second at the start of every turn.
    pub date: HttpDate,
}

/// Bounds of a client connection that an operator may want to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientLimits {
    /// Longest value, in bytes. At most `limits::VALUE_BYTES_MAX`.
    pub value_bytes_max: usize,
    /// A request's head must be complete this many milliseconds after its first byte.
    pub head_ms: u64,
    /// No pause between two bytes of a body, or between two writes of a response, may be longer, in milliseconds.
    pub stall_ms: u64,
    /// A connection without a request is closed after this many milliseconds.
    pub idle_ms: u64,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            value_bytes_max: limits::VALUE_BYTES_DEFAULT,
            head_ms: 10_000,
            stall_ms: 30_000,
            idle_ms: 120_000,
        }
    }
}
