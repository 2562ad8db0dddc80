//! One node without its sockets, files and clock: the protocol, the state machine and the requests that wait.
//!
//! A write takes one path on every node. It gets a number, is proposed here or forwarded to the leader, and is
//! answered when this node applies its entry, so the client's next read on this node sees it. Until then it is offered
//! again to every new leader; the state machine runs it once. So a fail-over is a pause for the client, not an error.
//!
//! A read is answered from this node's own state, as soon as that state has everything in it that was committed when
//! the read came. The leader says how far that is, once for all reads of a turn.
//!
//! What this leaves out: a node cannot take over another node's snapshot, so its log has to reach back to the first
//! entry.

pub mod io;
mod leadership;
mod reads;
#[allow(clippy::module_inception)]
pub mod replica;
mod writes;
