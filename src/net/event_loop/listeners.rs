//! The two sockets that a node listens on.

use std::io;

use mio::{Registry, Token};

use crate::config::NodeConfig;
use crate::net::event_loop::source::Source;
use crate::net::listener::{BindError, Listener};
use crate::util::time::Millis;

/// Where peers and clients connect. Bound before anything else is started, so that a port that is taken leaves nothing
/// behind.
#[derive(Debug)]
pub struct Listeners {
    pub(super) peers: Listener,
    /// Gone once the node stops.
    pub(super) clients: Option<Listener>,
}

impl Listeners {
    /// Listens on the ports of `node`.
    ///
    /// # Errors
    /// When a port is taken or not allowed, or the host does not have the address.
    pub fn bind(node: &NodeConfig) -> Result<Listeners, BindError> {
        let peers = Listener::bind(&node.bind_addresses, node.keva_port, "keva_port")?;
        let clients = Listener::bind(&node.bind_addresses, node.user_port, "user_port")?;
        Ok(Listeners { peers, clients: Some(clients) })
    }

    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        self.peers.register(registry, Token::from(Source::PeerListener))?;
        log::info!("listening for nodes on {}", self.peers.local_address());
        if let Some(clients) = &mut self.clients {
            clients.register(registry, Token::from(Source::ClientListener))?;
            log::info!("listening for clients on http://{}", clients.local_address());
        }
        Ok(())
    }

    /// No client can connect any more.
    pub(super) fn close_clients(&mut self) {
        self.clients = None;
    }

    pub(super) fn has_work(&self) -> bool {
        self.each().any(Listener::has_work)
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.each().filter_map(Listener::next_deadline).min()
    }

    pub(super) fn handle_deadline(&mut self, now: Millis) {
        self.peers.handle_deadline(now);
        if let Some(clients) = &mut self.clients {
            clients.handle_deadline(now);
        }
    }

    fn each(&self) -> impl Iterator<Item = &Listener> {
        std::iter::once(&self.peers).chain(&self.clients)
    }
}
