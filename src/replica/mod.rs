//! One node without its sockets, files and clock: the protocol, the state machine and the requests that wait.
//!
//! A write takes one path on every node. It gets a number, is proposed here or forwarded to the leader, and is
//! answered when this node applies its entry, so the client's next read on this node sees it. Until then it is offered
//! again to every new leader; the state machine runs it once. So a fail-over is a pause for the client, not an error.
//!
//! A read is answered from this node's own state, as soon as that state has everything in it that was committed when
//! the read came. The leader says how far that is, once for all reads of a turn.
//!
//! Every node takes snapshots of its own state, so that its log stays short, in slices beside everything else. A node
//! that lacks entries which no log has any more takes over the leader's snapshot.
//!
//! The leader also ends the keys whose life is over. What time it is for them, every node knows from the leader, so that the
//! next one goes on where it stopped.
//!
//! What this leaves out: the state is in memory as a whole, and a snapshot is written as a whole.

mod answering;
mod applying;
mod clock;
mod expiry;
mod growth;
pub mod hand_over;
pub mod io;
mod leadership;
mod lives;
mod proposals;
mod reads;
#[allow(clippy::module_inception)]
pub mod replica;
mod restore;
mod snapshots;
mod status;
mod writes;
