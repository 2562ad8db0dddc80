//! From a node's address in the configuration to socket addresses.
//!
//! IP addresses, and `localhost`, are understood here and cost nothing. Any other name is looked up by the operating
//! system, and that call stops the whole loop until it returns: a name server that does not answer can hold it for
//! seconds. So a name is looked up at the start, and again only while its node cannot be reached, with growing pauses
//! that are also at least a hundred times as long as the last look-up took. IP addresses, or names in `/etc/hosts`, are
//! the better choice.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::limits::{RESOLVE_PAUSE_MS_MAX, RESOLVE_PAUSE_MS_MIN};
use crate::util::time::Millis;

/// A name is looked up again after this many attempts in a row to reach its addresses.
const FAILURES_BEFORE_LOOKUP: u32 = 3;
/// A look-up may take one part in this many of the loop's time.
const LOOKUP_TIME_SHARE: u64 = 100;

/// Where a peer can be reached.
#[derive(Debug)]
pub struct PeerAddress {
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
    current: usize,
    /// Failed attempts since the last success or look-up.
    failures: u32,
    /// For names that have to be looked up: when that may happen again, and the pause after that.
    lookup: Option<Lookup>,
}

#[derive(Debug)]
struct Lookup {
    not_before: Millis,
    pause: u64,
}

impl PeerAddress {
    /// The address of a node as the configuration gives it: an IP address or a name.
    #[must_use]
    pub fn new(host: &str, port: u16) -> PeerAddress {
        let known = known_addresses(host, port);
        let lookup = Lookup { not_before: Millis(0), pause: RESOLVE_PAUSE_MS_MIN };
        PeerAddress {
            host: host.into(),
            port,
            lookup: known.is_empty().then_some(lookup),
            addresses: known,
            current: 0,
            failures: 0,
        }
    }

    /// The host as configured.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address to try next, `None` while the name is unknown.
    #[must_use]
    pub fn current(&self) -> Option<SocketAddr> {
        self.addresses.get(self.current).copied()
    }

    /// The current address did not work: the next one's turn. After the last one comes the first again.
    pub fn handle_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.current = if self.addresses.is_empty() { 0 } else { (self.current + 1) % self.addresses.len() };
    }

    /// The current address works, and is the one to try first from here on.
    pub fn handle_success(&mut self) {
        self.failures = 0;
        if let Some(lookup) = &mut self.lookup {
            lookup.pause = RESOLVE_PAUSE_MS_MIN;
        }
    }

    /// Whether the name should be looked up at `now`.
    #[must_use]
    pub fn wants_lookup(&self, now: Millis) -> bool {
        let is_needed = self.addresses.is_empty() || self.failures >= FAILURES_BEFORE_LOOKUP;
        is_needed && self.lookup.as_ref().is_some_and(|lookup| lookup.not_before <= now)
    }

    /// Asks the operating system. Blocks.
    ///
    /// # Errors
    /// When the name is unknown or no name server answers.
    pub fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        Ok((self.host.as_str(), self.port).to_socket_addrs()?.collect())
    }

    /// Takes the result of [`PeerAddress::look_up`], which ran from `started` to `finished`. Known addresses are kept
    /// when it failed.
    pub fn handle_lookup(&mut self, result: io::Result<Vec<SocketAddr>>, started: Millis, finished: Millis) {
        let lookup = self.lookup.as_mut().expect("only names are looked up");
        let took = finished - started;
        lookup.not_before = finished.after(lookup.pause.max(took.saturating_mul(LOOKUP_TIME_SHARE)));
        lookup.pause = (lookup.pause * 2).min(RESOLVE_PAUSE_MS_MAX);
        self.failures = 0;
        match result {
            Ok(found) if !found.is_empty() => {
                if found != self.addresses {
                    log::info!("{} is {}", self.host, list(&found));
                    self.addresses = found;
                    self.current = 0;
                }
            }
            Ok(_) => log::warn!("the name {} has no address", self.host),
            Err(error) => log::warn!("cannot look up the name {}: {error}", self.host),
        }
    }
}

/// Addresses that need no look-up. `localhost` is both loopback addresses, whatever the system's files say.
fn known_addresses(host: &str, port: u16) -> Vec<SocketAddr> {
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return vec![SocketAddr::new(ip, port)];
    }
    if host.eq_ignore_ascii_case("localhost") {
        return vec![
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
        ];
    }
    Vec::new()
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().expect("a socket address")
    }

    #[test]
    fn literals_and_localhost_are_never_looked_up() {
        for (host, first) in
            [("10.0.0.7", "10.0.0.7:370"), ("fd00::7", "[fd00::7]:370"), ("[::1]", "[::1]:370")]
        {
            let mut address = PeerAddress::new(host, 370);
            assert_eq!(address.current(), Some(socket(first)));
            for _ in 0..10 {
                address.handle_failure();
            }
            assert_eq!(
                (address.current(), address.wants_lookup(Millis(1 << 40))),
                (Some(socket(first)), false)
            );
        }
        let mut local = PeerAddress::new("LocalHost", 370);
        let first = local.current();
        local.handle_failure();
        let second = local.current();
        local.handle_failure();
        assert_eq!((first, second), (Some(socket("127.0.0.1:370")), Some(socket("[::1]:370"))));
        assert_eq!((local.current(), local.wants_lookup(Millis(1 << 40))), (first, false));
    }

    #[test]
    fn a_name_is_looked_up_at_once_and_then_only_while_it_fails() {
        let mut address = PeerAddress::new("host2", 370);
        assert_eq!((address.current(), address.wants_lookup(Millis(0))), (None, true));
        address.handle_lookup(Ok(vec![socket("10.0.0.2:370")]), Millis(0), Millis(0));
        assert_eq!(address.current(), Some(socket("10.0.0.2:370")));
        assert!(!address.wants_lookup(Millis(1 << 40)), "it works");
        for _ in 0..FAILURES_BEFORE_LOOKUP {
            address.handle_failure();
        }
        assert!(address.wants_lookup(Millis(1 << 40)));
        address.handle_success();
        assert!(!address.wants_lookup(Millis(1 << 40)));
    }

    #[test]
    fn look_ups_get_rarer_and_slow_ones_rarer_still() {
        let failed = || Err(io::Error::from(io::ErrorKind::NotFound));
        let mut address = PeerAddress::new("host2", 370);
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..8 {
            address.handle_lookup(failed(), Millis(now), Millis(now));
            let pause = (0..).find(|pause| address.wants_lookup(Millis(now + pause))).expect("some day");
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(pauses, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        address.handle_lookup(failed(), Millis(now), Millis(now + 5_000));
        assert!(
            !address.wants_lookup(Millis(now + 5_000 + 499_999)),
            "five seconds of silence must stay rare"
        );
        assert!(address.wants_lookup(Millis(now + 5_000 + 500_000)));
    }
}
