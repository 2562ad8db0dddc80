//! What the table of peers does with greetings.

use crate::net::peer::greeting::{Greeting, GreetingError, Hello};
use crate::net::peer::link::{Direction, LinkError, Stage};
use crate::net::peer::peers::{Outgoing, PeerEvent, Peers};
use crate::net::slab::Key;
use crate::raft::types::{Incarnation, NodeId};
use crate::util::time::Millis;

impl Peers {
    /// A greeting came on a link that waits for one. An error ends the link.
    pub(super) fn handle_greeting(
        &mut self,
        now: Millis,
        key: Key,
        greeting: Greeting,
    ) -> Result<(), LinkError> {
        let direction = self.links.get(key).expect("its bytes were just read").direction;
        match (direction, greeting) {
            (Direction::Incoming, Greeting::Hello(hello)) => self.handle_hello(now, key, &hello),
            (Direction::Outgoing(peer), Greeting::Welcome(hello)) => {
                self.handle_welcome(now, key, peer, hello)
            }
            (_, Greeting::Refusal(reason)) => Err(LinkError::Refused(reason)),
            _ => Err(LinkError::Greeting(GreetingError::Malformed)),
        }
    }

    /// Somebody dialled this node.
    fn handle_hello(&mut self, now: Millis, key: Key, hello: &Hello) -> Result<(), LinkError> {
        self.identity.check(hello).map_err(LinkError::Unwanted)?;
        let older = self.peer_mut(hello.from).incoming;
        if let Some(older) = older {
            if self.incarnation_of(older) > Some(hello.incarnation) {
                return Err(LinkError::Unwanted(
                    "a later process of the same node is connected already".into(),
                ));
            }
            // The newer link takes its place first: that the older one ends says nothing about the peer.
            self.peer_mut(hello.from).incoming = Some(key);
            self.fail(now, older, LinkError::Replaced);
        }
        let welcome = Greeting::Welcome(self.identity.hello(hello.from));
        let link = self.links.get_mut(key).expect("its bytes were just read");
        link.send_greeting(&welcome);
        link.handle_greeted(now, hello.from, hello.incarnation);
        self.flush_link(now, key);
        let peer = self.peer_mut(hello.from);
        peer.incoming = Some(key);
        peer.version = Some(hello.version.clone());
        peer.last_contact = Some(now);
        log::debug!("{} is connected to this node (start {})", peer.name, hello.incarnation);
        self.reconsider_outgoing(now, hello.from, hello.incarnation);
        Ok(())
    }

    /// A peer that dials is there: no reason to wait any longer before dialling it, nor to trust a link to an earlier
    /// process of it.
    fn reconsider_outgoing(&mut self, now: Millis, id: NodeId, incarnation: Incarnation) {
        let peer = self.peer_mut(id);
        match peer.outgoing {
            Outgoing::Waiting(_) => {
                peer.redial.reset();
                peer.outgoing = Outgoing::Waiting(now);
            }
            Outgoing::Link(key) => {
                if self.incarnation_of(key).is_some_and(|known| known < incarnation) {
                    self.fail(now, key, LinkError::Closed);
                }
            }
        }
    }

    /// The peer that this node dialled answers.
    fn handle_welcome(
        &mut self,
        now: Millis,
        key: Key,
        dialled: NodeId,
        hello: Hello,
    ) -> Result<(), LinkError> {
        self.identity.check(&hello).map_err(LinkError::Unwanted)?;
        if hello.from != dialled {
            return Err(LinkError::Unwanted(format!("{} answers in its place", hello.from)));
        }
        let link = self.links.get_mut(key).expect("its bytes were just read");
        link.handle_greeted(now, hello.from, hello.incarnation);
        let remote = link.remote;
        let peer = self.peer_mut(dialled);
        // A link that comes and goes is told of once, when it goes.
        let level = if peer.is_unsettled { log::Level::Debug } else { log::Level::Info };
        log::log!(
            level,
            "{} is up: {remote}, Keva {}, start {}",
            peer.name,
            hello.version,
            hello.incarnation
        );
        peer.address.handle_success();
        peer.was_up = true;
        peer.is_refused = false;
        peer.version = Some(hello.version);
        peer.last_contact = Some(now);
        self.events.push(PeerEvent::Connected { peer: dialled, incarnation: hello.incarnation });
        Ok(())
    }

    /// Tells the other side why its greeting is not accepted, as far as the socket takes it.
    pub(super) fn send_refusal(&mut self, key: Key, reason: String) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.send_greeting(&Greeting::Refusal(reason));
        if let Err(error) = link.flush() {
            log::debug!("cannot tell {} why it is refused: {error}", link.remote);
        }
    }

    fn incarnation_of(&self, key: Key) -> Option<Incarnation> {
        match self.links.get(key)?.stage {
            Stage::Up(_, incarnation) => Some(incarnation),
            Stage::Connecting | Stage::Greeting => None,
        }
    }
}
