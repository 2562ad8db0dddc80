//! Links to and from the other nodes.
//!
//! Every node dials every other node's `keva_port` and sends its messages over the link it dialled; over a link that it
//! accepted it only receives. So between two nodes stand two links, and each node knows of each direction whether it
//! works. A link begins with a greeting in both directions ([`greeting`]) that keeps strangers out, and goes on with
//! frames ([`crate::net::frame`]).
//!
//! A message to a peer without a standing link is dropped: the protocol sends again whatever matters, and
//! [`PeerEvent::Connected`] tells it when that makes sense.
//!
//! When a process ends, its system closes its sockets. A peer is therefore *lost* - surely gone, not just slow - when
//! the link to it broke, dialling it again is refused, and no link from it stands any more. That takes
//! milliseconds, and lets followers replace a dead leader without waiting for their election timeout.
//!
//! What this leaves out: encryption and authentication. Whoever can reach a node's `keva_port` and knows the cluster's
//! configuration can speak as a member, so that port belongs on a trusted network.

mod dialling;
pub mod greeting;
mod handshake;
mod link;
mod peers;
mod redial;
mod summary;
mod throttle;

pub use peers::{PeerEvent, PeerLinkStatus, PeerSettings, Peers};
pub use redial::Redial;
pub use throttle::Throttle;
