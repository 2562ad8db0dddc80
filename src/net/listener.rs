//! A listening socket.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::limits::ACCEPT_PAUSE_MS;
use crate::net::peer::Throttle;
use crate::util::time::Millis;

/// Why a node cannot listen. The text says what to change.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    /// The setting of the port.
    setting: &'static str,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BindError { address, setting, source } = self;
        write!(f, "cannot listen on {address} ({setting}): {source}; ")?;
        match source.kind() {
            ErrorKind::AddrInUse => write!(
                f,
                "another process uses this port: stop it if it is another Keva, or give this node another {setting} in \
                 keva.toml"
            ),
            ErrorKind::PermissionDenied => write!(
                f,
                "only root may use this port: give this node a {setting} of 1024 or more in keva.toml, or the program \
                 the capability CAP_NET_BIND_SERVICE"
            ),
            ErrorKind::AddrNotAvailable => f.write_str(
                "no interface of this host has that address: set this node's bind_address in keva.toml to one that it \
                 has, or to 0.0.0.0",
            ),
            _ => write!(f, "check {setting} and bind_address of this node in keva.toml"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A listening socket that remembers whether connections may be waiting: edge-triggered events are told only once.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    setting: &'static str,
    is_ready: bool,
    /// The system had no room for another connection: nothing is accepted until then.
    paused_until: Option<Millis>,
    warnings: Throttle,
}

impl Listener {
    /// Listens on the first of `addresses` that this host can use at all; the others are for hosts without IPv6.
    /// `setting` is the port's name in the configuration.
    ///
    /// # Errors
    /// When the port is taken or not allowed, or no address works.
    ///
    /// # Panics
    /// Without any address.
    pub fn bind(addresses: &[IpAddr], port: u16, setting: &'static str) -> Result<Listener, BindError> {
        let (last, others) = addresses.split_last().expect("a node listens somewhere");
        for ip in others {
            match Listener::bind_one(SocketAddr::new(*ip, port), setting) {
                Err(error) if error.is_address_unusable() => log::debug!("{error}"),
                result => return result,
            }
        }
        Listener::bind_one(SocketAddr::new(*last, port), setting)
    }

    fn bind_one(address: SocketAddr, setting: &'static str) -> Result<Listener, BindError> {
        let bound = TcpListener::bind(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (local, socket) = bound.map_err(|source| BindError { address, setting, source })?;
        Ok(Listener {
            socket,
            local,
            setting,
            is_ready: false,
            paused_until: None,
            warnings: Throttle::default(),
        })
    }

    /// Where the socket listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Begins to report connections to the poll.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// The poll reports connections.
    pub fn handle_event(&mut self) {
        self.is_ready = true;
    }

    /// The next connection. `None` when there is none, or none can be taken at the moment. An event of the poll tells
    /// of the former's end, [`Listener::handle_deadline`] of the latter's.
    pub fn accept(&mut self, now: Millis) -> Option<(TcpStream, SocketAddr)> {
        while self.has_work() {
            match self.socket.accept() {
                Ok(connection) => return Some(connection),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_ready = false,
                // The client gave up while it waited: the next one's turn.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => self.pause(now, &error),
            }
        }
        None
    }

    /// No descriptors or no memory, most likely. The event is used up and trying again at once would spin.
    fn pause(&mut self, now: Millis, error: &io::Error) {
        self.paused_until = Some(now.after(ACCEPT_PAUSE_MS));
        if self.warnings.permits(now) {
            log::warn!(
                "cannot accept connections on {} ({}): {error}; trying again every {ACCEPT_PAUSE_MS} ms; \
                 if it lasts, raise the limit of open files (ulimit -n, LimitNOFILE=)",
                self.local,
                self.setting
            );
        }
    }

    /// Whether connections may be waiting that can be accepted.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.is_ready && self.paused_until.is_none()
    }

    /// When accepting should be tried again.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.paused_until
    }

    /// Time has passed.
    pub fn handle_deadline(&mut self, now: Millis) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
    }
}

impl BindError {
    /// This host does not know such addresses; it may know others.
    fn is_address_unusable(&self) -> bool {
        let no_such_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
        self.source.kind() == ErrorKind::AddrNotAvailable
            || self.source.raw_os_error() == Some(no_such_family)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener as StdListener, TcpStream as StdStream};

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    /// Reserved for documentation (RFC 5737): no host has it.
    const NOT_HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_taken_port_is_named_with_its_setting() {
        let taken = StdListener::bind((LOOPBACK, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Listener::bind(&[LOOPBACK], port, "keva_port").unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{port} (keva_port)")), "{error}");
        assert!(error.contains("another process uses this port"), "{error}");
        let fallback = Listener::bind(&[LOOPBACK, Ipv4Addr::UNSPECIFIED.into()], port, "keva_port");
        assert!(fallback.is_err(), "a taken port is no reason to listen elsewhere");
    }

    #[test]
    fn an_address_that_the_host_does_not_have_is_passed_over() {
        let listener = Listener::bind(&[NOT_HERE, LOOPBACK], 0, "user_port").unwrap();
        assert_eq!(listener.local_address().ip(), LOOPBACK);
        let error = Listener::bind(&[NOT_HERE], 0, "user_port").unwrap_err().to_string();
        assert!(error.contains("bind_address"), "{error}");
    }

    /// I10: after an error the socket rests instead of spinning, and is tried again although no event comes.
    #[test]
    fn accepting_rests_after_an_error() {
        let mut listener = Listener::bind(&[LOOPBACK], 0, "user_port").unwrap();
        let _client = StdStream::connect(listener.local_address()).unwrap();
        assert!(listener.accept(Millis(0)).is_none(), "no event yet");
        listener.handle_event();
        listener.pause(Millis(0), &io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()));
        assert!(listener.accept(Millis(1)).is_none() && !listener.has_work());
        assert_eq!(listener.next_deadline(), Some(Millis(ACCEPT_PAUSE_MS)));
        listener.handle_deadline(Millis(ACCEPT_PAUSE_MS));
        assert!(listener.has_work() && listener.accept(Millis(ACCEPT_PAUSE_MS)).is_some());
        assert!(listener.accept(Millis(ACCEPT_PAUSE_MS)).is_none() && !listener.has_work());
    }
}
