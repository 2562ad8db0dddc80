//! HTTP/1.1 message framing and messages (RFC 9112, RFC 9110), without sockets and clocks.
//!
//! Requests are read strictly: whatever two implementations might understand in two ways is refused and ends the
//! connection, because that is what request smuggling is made of.
//!
//! What this leaves out: HTTP/2, TLS, content codings, ranges, trailers (checked and dropped), upgrades.

pub mod body;
pub mod date;
pub mod framing;
pub mod head;
pub mod problem;
pub mod response;
pub mod status;
