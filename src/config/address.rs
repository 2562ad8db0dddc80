//! Where a node can be reached: an IP address or a host name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::{HOST_LABEL_BYTES_MAX, HOST_NAME_BYTES_MAX};

/// A checked `address`. Two that are equal surely mean the same host; two that differ may still.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Address {
    /// Any but a wildcard, broadcast or multicast address.
    Ip(IpAddr),
    /// In lower case, without a trailing dot.
    Name(String),
}

/// Why a text is no address of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressProblem {
    /// It says "every interface", which nobody can connect to.
    Wildcard,
    /// It means many hosts.
    Group,
    /// It carries a port or a scheme.
    Port,
    /// It is neither an IP address nor a host name.
    Malformed,
}

impl Address {
    /// Reads an address as an operator writes it.
    pub(super) fn parse(text: &str) -> Result<Address, AddressProblem> {
        if text == "*" {
            return Err(AddressProblem::Wildcard);
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Address::from_ip(ip.to_canonical());
        }
        if text.contains("://") || has_port(text) {
            return Err(AddressProblem::Port);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if !is_host_name(&name) {
            return Err(AddressProblem::Malformed);
        }
        // Not left to the resolver, which may answer with an address on which nobody listens.
        if name == "localhost" {
            return Ok(Address::Ip(Ipv4Addr::LOCALHOST.into()));
        }
        Ok(Address::Name(name))
    }

    fn from_ip(ip: IpAddr) -> Result<Address, AddressProblem> {
        let is_this_network = matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 0);
        if ip.is_unspecified() || is_this_network {
            return Err(AddressProblem::Wildcard);
        }
        if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(AddressProblem::Group);
        }
        Ok(Address::Ip(ip))
    }

    /// Where a node with this address listens unless it says otherwise: a loopback address on itself only, every
    /// other on all interfaces.
    pub(super) fn bind_addresses(&self) -> Vec<IpAddr> {
        match self {
            Address::Ip(ip) if ip.is_loopback() => vec![*ip],
            Address::Ip(IpAddr::V4(_)) => vec![Ipv4Addr::UNSPECIFIED.into()],
            Address::Ip(IpAddr::V6(_)) => vec![Ipv6Addr::UNSPECIFIED.into()],
            // Its name may stand for both kinds. Linux takes both on the IPv6 wildcard, where there is IPv6 at all.
            Address::Name(_) => vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(ip) => ip.fmt(f),
            Address::Name(name) => f.write_str(name),
        }
    }
}

/// Whether an address leads to its own host only.
pub(super) fn is_loopback(address: &str) -> bool {
    matches!(Address::parse(address), Ok(Address::Ip(ip)) if ip.is_loopback())
}

/// `host:80`, `10.0.0.1:80` or `[::1]:80`. Brackets alone count too: they are only needed before a port.
fn has_port(text: &str) -> bool {
    let ends_in_port = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.contains(':') && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    ends_in_port || text.starts_with('[')
}

/// Letters, digits, dashes and (common, although not in RFC 1123) underscores, in labels between dots. The last label
/// is never a number, so that a mistyped IPv4 address is not taken for a name.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=HOST_LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    name.len() <= HOST_NAME_BYTES_MAX
        && name.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}
