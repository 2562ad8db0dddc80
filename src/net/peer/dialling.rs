//! Dialling peers, and what follows when links end.

use std::net::SocketAddr;
use std::rc::Rc;

use mio::net::TcpStream;

use crate::limits::{GREETING_TIMEOUT_MS, PEER_OUTAGE_GRACE_MS};
use crate::net::event_loop::clock::Clock;
use crate::net::peer::greeting::Greeting;
use crate::net::peer::link::{Direction, Link, LinkError, Stage};
use crate::net::peer::peers::{Outgoing, PeerEvent, Peers};
use crate::net::slab::Key;
use crate::raft::types::NodeId;
use crate::util::time::Millis;

impl Peers {
    /// When [`Peers::handle_deadline`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let dials = self.peers.iter().filter_map(|peer| match peer.outgoing {
            Outgoing::Waiting(until) => Some(until),
            Outgoing::Link(_) => None,
        });
        let greetings = self.links.iter().filter(|(_, link)| link.awaits_greeting());
        dials.chain(greetings.map(|(_, link)| link.greet_by)).min()
    }

    /// Ends links that were not greeted in time, and dials peers whose time has come. `clock` measures how long the
    /// system takes to look up a name.
    pub fn handle_deadline(&mut self, now: Millis, clock: &Clock) {
        for key in self.links.keys() {
            let is_late = |link: &Link| link.awaits_greeting() && link.greet_by <= now;
            if self.links.get(key).is_some_and(is_late) {
                self.fail(now, key, LinkError::Timeout);
            }
        }
        for index in 0..self.peers.len() {
            if matches!(self.peers[index].outgoing, Outgoing::Waiting(until) if until <= now) {
                self.dial(now, index, clock);
            }
        }
    }

    fn dial(&mut self, now: Millis, index: usize, clock: &Clock) {
        let peer = &mut self.peers[index];
        let id = peer.id;
        if peer.address.wants_lookup(now) {
            let started = clock.now();
            let result = peer.address.look_up();
            peer.address.handle_lookup(result, started, clock.now());
        }
        let Some(remote) = peer.address.current() else {
            peer.outgoing = Outgoing::Waiting(now.after(peer.redial.longest_pause()));
            return;
        };
        log::debug!("dialling {} at {remote}", peer.name);
        match self.connect(now, id, remote) {
            Ok(key) => self.peer_mut(id).outgoing = Outgoing::Link(key),
            Err(error) => self.handle_outgoing_failed(now, id, remote, LinkError::Io(error)),
        }
    }

    fn connect(&mut self, now: Millis, id: NodeId, remote: SocketAddr) -> std::io::Result<Key> {
        let stream = TcpStream::connect(remote)?;
        let greet_by = now.after(GREETING_TIMEOUT_MS);
        let traffic = Rc::clone(&self.traffic);
        let mut link = Link::new(stream, remote, Direction::Outgoing(id), greet_by, traffic);
        link.send_greeting(&Greeting::Hello(self.identity.hello(id)));
        self.insert(link)
    }

    /// The link to a peer stood and ended. `is_settled` tells a failure of the peer or the network from a link that
    /// comes and goes: when two processes run with this node's identity, each takes the other's place again and again.
    pub(super) fn handle_standing_over(
        &mut self,
        now: Millis,
        id: NodeId,
        is_settled: bool,
        error: LinkError,
    ) {
        let peer = self.peer_mut(id);
        if is_settled {
            log::info!("{} is down: {error}", peer.name);
            peer.redial.reset();
            peer.warnings.reset(now, PEER_OUTAGE_GRACE_MS);
        } else if peer.warnings.permits(now) {
            log::warn!(
                "the link to {} ended as soon as it stood: {error}; if that goes on, see whether a second process runs \
                 with this node's identity, and stop it",
                peer.name
            );
        }
        peer.is_unsettled = !is_settled;
        self.redial_later(now, id, &error);
    }

    /// The link to a peer did not come about.
    pub(super) fn handle_outgoing_failed(
        &mut self,
        now: Millis,
        id: NodeId,
        remote: SocketAddr,
        error: LinkError,
    ) {
        let peer = self.peer_mut(id);
        peer.is_refused = error.is_connection_refused();
        if matches!(error, LinkError::Replaced) {
            // This node gave it up itself.
            return self.redial_later(now, id, &error);
        }
        peer.address.handle_failure();
        if (error.is_lasting() || now.0 >= PEER_OUTAGE_GRACE_MS) && peer.warnings.permits(now) {
            log::warn!("cannot reach {} at {remote}: {error}; trying on", peer.name);
        }
        self.redial_later(now, id, &error);
    }

    fn redial_later(&mut self, now: Millis, id: NodeId, error: &LinkError) {
        let peer = self.peers.iter_mut().find(|peer| peer.id == id).expect("only members are dialled");
        let pause = if error.is_lasting() {
            peer.redial.longest_pause()
        } else {
            peer.redial.next_pause(&mut self.rng)
        };
        peer.outgoing = Outgoing::Waiting(now.after(pause));
        self.maybe_report_lost(id);
    }

    /// A link from a peer, or from somebody unknown, ended.
    pub(super) fn handle_incoming_over(
        &mut self,
        now: Millis,
        key: Key,
        stage: Stage,
        remote: SocketAddr,
        error: LinkError,
    ) {
        let Stage::Up(id, _) = stage else {
            self.refuse_stranger(now, key, remote, &error);
            return;
        };
        let peer = self.peer_mut(id);
        if matches!(error, LinkError::Frame(_) | LinkError::Unwanted(_)) {
            log::warn!("closed the link from {}: {error}", peer.name);
        } else {
            log::debug!("the link from {} ended: {error}", peer.name);
        }
        if peer.incoming != Some(key) {
            return;
        }
        peer.incoming = None;
        // The link to it has broken too if its process ended. Look now.
        match peer.outgoing {
            Outgoing::Waiting(_) => peer.outgoing = Outgoing::Waiting(now),
            Outgoing::Link(outgoing) => self.mark_readable(outgoing),
        }
        self.maybe_report_lost(id);
    }

    fn refuse_stranger(&mut self, now: Millis, key: Key, remote: SocketAddr, error: &LinkError) {
        let is_worth_a_line =
            matches!(error, LinkError::Unwanted(_) | LinkError::Greeting(_) | LinkError::Refused(_));
        if !is_worth_a_line {
            log::debug!("a connection from {remote} ended before its greeting: {error}");
            return;
        }
        if !matches!(error, LinkError::Refused(_)) {
            self.send_refusal(key, error.to_string());
        }
        if self.stranger_warnings.permits(now) {
            log::warn!("refused a connection from {remote} to keva_port: {error}");
        }
    }

    /// See the module's documentation on what makes a peer lost. Told once per link that stood.
    fn maybe_report_lost(&mut self, id: NodeId) {
        let peer = self.peer_mut(id);
        if peer.was_up && peer.is_refused && peer.incoming.is_none() {
            peer.was_up = false;
            log::info!("the process of {} has ended", peer.name);
            self.events.push(PeerEvent::Lost { peer: id });
        }
    }
}
