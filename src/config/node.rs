//! One node as the configuration describes it.

use std::net::IpAddr;

use super::address::is_loopback;
use crate::raft::types::NodeId;

/// A member of the cluster: a checked `[[node]]` table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    /// Its name: unique, 1 to `IDENTITY_BYTES_MAX` letters, digits, dots, dashes and underscores.
    pub identity: String,
    /// Its number, made from the identity. Unique, never 0.
    pub id: NodeId,
    /// Where the others and its clients reach it: an IP address or a host name, never a wildcard. `localhost` is
    /// `127.0.0.1` here.
    pub address: String,
    /// Where it listens, to be tried in this order until one works. The second is for hosts without IPv6.
    pub bind_addresses: Vec<IpAddr>,
    /// The port for the other nodes.
    pub keva_port: u16,
    /// The port for HTTP clients.
    pub user_port: u16,
    /// The base of its election timeout, in milliseconds, between `ELECTION_TIMEOUT_MS_MIN` and
    /// `ELECTION_TIMEOUT_MS_MAX`.
    pub wait_time_ms: u64,
}

impl NodeConfig {
    /// Whether only processes on its own host can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.address)
    }

    /// Address and port for the other nodes, as `getaddrinfo` and people write them.
    #[must_use]
    pub fn peer_address(&self) -> String {
        join(&self.address, self.keva_port)
    }

    /// Address and port for HTTP clients.
    #[must_use]
    pub fn client_address(&self) -> String {
        join(&self.address, self.user_port)
    }
}

/// IPv6 addresses need brackets before a port (RFC 3986 section 3.2.2).
fn join(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
