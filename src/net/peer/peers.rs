//! The table of peers and their links: what comes in, what goes out.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::limits::{
    GREETING_TIMEOUT_MS, PEER_GREETINGS_MAX, PEER_READ_BYTES_PER_TURN_MAX, PEER_SEND_BYTES_MAX,
    READ_BYTES_MAX,
};
use crate::net::event_loop::source::Source;
use crate::net::metrics::Traffic;
use crate::net::peer::greeting::Identity;
use crate::net::peer::link::{Direction, Link, LinkError, ReadEnd, Stage};
use crate::net::peer::redial::Redial;
use crate::net::peer::summary::Summary;
use crate::net::peer::throttle::Throttle;
use crate::net::resolver::PeerAddress;
use crate::net::slab::{Key, Slab};
use crate::raft::message::Envelope;
use crate::raft::types::{Life, NodeId};
use crate::util::rng::Rng;
use crate::util::time::Millis;

/// Another node, as the configuration describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerSettings {
    /// Its id.
    pub id: NodeId,
    /// Its name, for the log.
    pub identity: String,
    /// Its host: an IP address or a name.
    pub host: String,
    /// Its port for nodes.
    pub port: u16,
}

/// What the links have to say to the replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerEvent {
    /// The link to the peer stands: messages to it will leave again. What was sent on an earlier link may be lost. Or a
    /// later process of the peer has greeted this node: told before the first message from that process, and no message
    /// from an earlier one follows. The link to it stands a little later, and is told then.
    Connected {
        /// The peer.
        peer: NodeId,
        /// Which process of the peer greeted.
        life: Life,
    },
    /// The peer's process has ended.
    Lost {
        /// The peer.
        peer: NodeId,
    },
    /// A message, from the member that it names as its sender and for this node.
    Message(Envelope),
}

/// What is known of a peer's links, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerLinkStatus<'a> {
    /// The peer.
    pub id: NodeId,
    /// Whether messages to it can leave.
    pub is_connected: bool,
    /// When something last came from it.
    pub last_contact: Option<Millis>,
    /// Its program's version, from its last greeting.
    pub version: Option<&'a str>,
}

/// All other nodes and the links to and from them.
///
/// Calling order in a turn: [`Peers::handle_event`] and [`Peers::accept`] for what the poll reported, [`Peers::read`],
/// [`Peers::take_events`], [`Peers::handle_deadline`]; then [`Peers::send`] and [`Peers::flush`] as often as there is
/// something to send; [`Peers::reap`] last. Links are never removed in between, so a key stays good for a turn.
#[derive(Debug)]
pub struct Peers {
    pub(super) identity: Identity,
    pub(super) registry: Registry,
    pub(super) peers: Vec<Peer>,
    pub(super) links: Slab<Link>,
    /// Links whose sockets may have more to read.
    readable: Vec<Key>,
    closing: Vec<Key>,
    pub(super) events: Vec<PeerEvent>,
    pub(super) rng: Rng,
    pub(super) stranger_warnings: Throttle,
    scratch: Vec<u8>,
    /// What all links together have read and written.
    pub(super) traffic: Rc<Traffic>,
}

/// One other node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) name: String,
    pub(super) address: PeerAddress,
    pub(super) outgoing: Outgoing,
    /// The process of it that greeted last.
    pub(super) life: Option<Life>,
    /// The link from it, once greeted.
    pub(super) incoming: Option<Key>,
    pub(super) redial: Redial,
    /// A link to it stood since it was last reported as lost.
    pub(super) was_up: bool,
    /// The last attempt to dial it was refused by its host.
    pub(super) is_refused: bool,
    /// The last link to it ended soon after it began.
    pub(super) is_unsettled: bool,
    pub(super) version: Option<String>,
    pub(super) last_contact: Option<Millis>,
    pub(super) warnings: Throttle,
}

/// The link to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outgoing {
    /// To be dialled at this time.
    Waiting(Millis),
    /// Being dialled, or up.
    Link(Key),
}

impl Peers {
    /// Links between the node of `identity` and `peers`. Dialling begins with the first [`Peers::handle_deadline`].
    ///
    /// `redial_pause_max` is the longest pause between attempts to reach a peer, in milliseconds; see [`Redial::new`].
    #[must_use]
    pub fn new(
        identity: Identity,
        peers: Vec<PeerSettings>,
        registry: Registry,
        redial_pause_max: u64,
        seed: u64,
    ) -> Peers {
        let peers = peers.into_iter().map(|settings| Peer::new(settings, redial_pause_max)).collect();
        Peers {
            identity,
            registry,
            peers,
            links: Slab::default(),
            readable: Vec::new(),
            closing: Vec::new(),
            events: Vec::new(),
            rng: Rng::new(seed),
            stranger_warnings: Throttle::default(),
            scratch: vec![0; READ_BYTES_MAX],
            traffic: Rc::default(),
        }
    }

    /// Takes a connection to this node's port for peers.
    pub fn accept(&mut self, now: Millis, stream: TcpStream, remote: SocketAddr) {
        self.limit_greetings(now);
        let greet_by = now.after(GREETING_TIMEOUT_MS);
        let link = Link::new(stream, remote, Direction::Incoming, greet_by, Rc::clone(&self.traffic));
        if let Err(error) = self.insert(link) {
            log::warn!("cannot use the connection of a node at {remote}: {error}");
        }
    }

    /// Whoever connects and says nothing must not keep members out: the oldest such link makes room.
    fn limit_greetings(&mut self, now: Millis) {
        let is_silent = |link: &Link| {
            link.direction == Direction::Incoming && link.stage == Stage::Greeting && !link.is_closing
        };
        let silent = self.links.iter().filter(|(_, link)| is_silent(link));
        let (count, oldest) = silent.fold((0, None::<(Millis, Key)>), |(count, oldest), (key, link)| {
            let this = (link.greet_by, key);
            (count + 1, Some(oldest.map_or(this, |oldest| oldest.min(this))))
        });
        if count >= PEER_GREETINGS_MAX
            && let Some((_, key)) = oldest
        {
            self.fail(now, key, LinkError::Timeout);
        }
    }

    pub(super) fn insert(&mut self, link: Link) -> io::Result<Key> {
        link.set_socket_options()?;
        let key = self.links.insert(link);
        let stream = self.links.get_mut(key).expect("just inserted").stream_mut();
        // Both at once, for the whole life of the link: with edge-triggered events that costs nothing while idle.
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.registry.register(stream, Token::from(Source::PeerLink(key)), interest) {
            self.links.remove(key);
            return Err(error);
        }
        Ok(key)
    }

    /// Takes what the poll reports about a link. Reading itself waits for [`Peers::read`].
    pub fn handle_event(&mut self, now: Millis, key: Key, event: &Event) {
        let Some(link) = self.links.get_mut(key).filter(|link| !link.is_closing) else { return };
        let may_write = event.is_writable() || event.is_error() || event.is_write_closed();
        if may_write && let Err(error) = link.handle_writable().and_then(|()| link.flush()) {
            // What the peer said before it closed counts: it may be the reason.
            self.read_link(now, key);
            self.fail(now, key, error);
            return;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.mark_readable(key);
        }
    }

    /// Makes [`Peers::read`] look at a link.
    pub(super) fn mark_readable(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if !link.is_readable && link.stage != Stage::Connecting {
            link.is_readable = true;
            self.readable.push(key);
        }
    }

    /// Reads what came, up to a bound per link.
    pub fn read(&mut self, now: Millis) {
        for key in std::mem::take(&mut self.readable) {
            self.read_link(now, key);
        }
    }

    fn read_link(&mut self, now: Millis, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.is_closing || link.stage == Stage::Connecting {
            return;
        }
        let end = link.read(&mut self.scratch, PEER_READ_BYTES_PER_TURN_MAX);
        self.process(now, key);
        match end {
            ReadEnd::Empty => {}
            ReadEnd::Budget => self.readable.push(key),
            ReadEnd::Over(error) => self.fail(now, key, error),
        }
    }

    /// Takes everything out of what a link has received.
    fn process(&mut self, now: Millis, key: Key) {
        while let Some(link) = self.links.get_mut(key).filter(|link| !link.is_closing) {
            let result = match link.stage {
                Stage::Connecting => return,
                Stage::Greeting => match link.take_greeting() {
                    Ok(None) => return,
                    Ok(Some(greeting)) => self.handle_greeting(now, key, greeting),
                    Err(error) => Err(error),
                },
                Stage::Up(peer, _) if link.direction == Direction::Incoming => match link.take_envelope() {
                    Ok(None) => return,
                    Ok(Some(envelope)) => self.handle_envelope(now, peer, envelope),
                    Err(error) => Err(error),
                },
                Stage::Up(..) if !link.has_leftover() => return,
                Stage::Up(..) => Err(LinkError::Unwanted("it sends on a link that is not its own".into())),
            };
            if let Err(error) = result {
                self.fail(now, key, error);
            }
        }
    }

    fn handle_envelope(&mut self, now: Millis, peer: NodeId, envelope: Envelope) -> Result<(), LinkError> {
        if envelope.from != peer || envelope.to != self.identity.node {
            return Err(LinkError::Unwanted(format!(
                "{peer} sent a message from {} to {} on its own link to {}",
                envelope.from, envelope.to, self.identity.node
            )));
        }
        log::debug!("received {}", Summary(&envelope));
        self.peer_mut(peer).last_contact = Some(now);
        self.events.push(PeerEvent::Message(envelope));
        Ok(())
    }

    /// What happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<PeerEvent> {
        std::mem::take(&mut self.events)
    }

    /// Whether there is work that no event will announce.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.readable.is_empty() || !self.events.is_empty()
    }

    /// Queues a message for its receiver. Dropped when no link to it stands.
    ///
    /// # Panics
    /// When the receiver is no other member.
    pub fn send(&mut self, now: Millis, envelope: &Envelope) {
        let Outgoing::Link(key) = self.peer_mut(envelope.to).outgoing else { return };
        let link = self.links.get_mut(key).expect("a peer's link lives as long as the peer points to it");
        if !matches!(link.stage, Stage::Up(..)) {
            return;
        }
        log::debug!("sending {}", Summary(envelope));
        link.send_frame(envelope);
        if link.output_bytes() > PEER_SEND_BYTES_MAX {
            self.fail(now, key, LinkError::Overflow);
        }
    }

    /// Gives the sockets what they take.
    pub fn flush(&mut self, now: Millis) {
        for index in 0..self.peers.len() {
            if let Outgoing::Link(key) = self.peers[index].outgoing {
                self.flush_link(now, key);
            }
        }
    }

    pub(super) fn flush_link(&mut self, now: Millis, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if let Err(error) = link.flush() {
            self.fail(now, key, error);
        }
    }

    /// Gives a link up. Its socket is closed by [`Peers::reap`].
    pub(super) fn fail(&mut self, now: Millis, key: Key, error: LinkError) {
        let Some(link) = self.links.get_mut(key).filter(|link| !link.is_closing) else { return };
        link.is_closing = true;
        self.closing.push(key);
        let (stage, remote) = (link.stage, link.remote);
        match link.direction {
            Direction::Outgoing(peer) if matches!(stage, Stage::Up(..)) => {
                let is_settled = link.is_settled(now);
                self.handle_standing_over(now, peer, is_settled, error);
            }
            Direction::Outgoing(peer) => self.handle_outgoing_failed(now, peer, remote, error),
            Direction::Incoming => self.handle_incoming_over(now, key, stage, remote, error),
        }
    }

    /// Closes the sockets of links that were given up. The last step of a turn.
    pub fn reap(&mut self) {
        for key in self.closing.drain(..) {
            self.links.remove(key);
        }
    }

    /// What is known of each peer's links, in the order of the configuration.
    pub fn status(&self) -> impl Iterator<Item = PeerLinkStatus<'_>> {
        self.peers.iter().map(|peer| PeerLinkStatus {
            id: peer.id,
            is_connected: self.is_up(peer),
            last_contact: peer.last_contact,
            version: peer.version.as_deref(),
        })
    }

    /// What all links together have read and written, since the start.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn is_up(&self, peer: &Peer) -> bool {
        let Outgoing::Link(key) = peer.outgoing else { return false };
        self.links.get(key).is_some_and(|link| matches!(link.stage, Stage::Up(..)))
    }

    pub(super) fn peer_mut(&mut self, id: NodeId) -> &mut Peer {
        self.peers
            .iter_mut()
            .find(|peer| peer.id == id)
            .expect("only members are dialled, greeted and sent to")
    }
}

impl Peer {
    fn new(settings: PeerSettings, redial_pause_max: u64) -> Peer {
        Peer {
            id: settings.id,
            name: settings.identity,
            address: PeerAddress::new(&settings.host, settings.port),
            outgoing: Outgoing::Waiting(Millis(0)),
            life: None,
            incoming: None,
            redial: Redial::new(redial_pause_max),
            was_up: false,
            is_refused: false,
            is_unsettled: false,
            version: None,
            last_contact: None,
            warnings: Throttle::default(),
        }
    }
}
