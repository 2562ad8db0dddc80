//! What the table of peers does with greetings.

use crate::net::peer::greeting::{Greeting, GreetingError, Hello};
use crate::net::peer::link::{Direction, LinkError, Stage};
use crate::net::peer::peers::{Outgoing, PeerEvent, Peers};
use crate::net::slab::Key;
use crate::raft::types::{Life, NodeId};
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
        let life = hello.life();
        self.refuse_earlier(now, hello.from, life)?;
        if let Some(older) = self.peer_mut(hello.from).incoming {
            // The newer link takes its place first: that the older one ends says nothing about the peer. What the older
            // one has brought and nobody has looked at is dropped with it. It may be the promise of a process whose disk
            // is gone, and must not be counted once a later process says what it has.
            self.peer_mut(hello.from).incoming = Some(key);
            self.fail(now, older, LinkError::Replaced);
        }
        let welcome = Greeting::Welcome(self.identity.hello(hello.from));
        let link = self.links.get_mut(key).expect("its bytes were just read");
        link.send_greeting(&welcome);
        link.handle_greeted(now, hello.from, life);
        self.flush_link(now, key);
        let peer = self.peer_mut(hello.from);
        peer.incoming = Some(key);
        peer.version = Some(hello.version.clone());
        peer.last_contact = Some(now);
        log::debug!("{} is connected to this node (start {})", peer.name, hello.incarnation);
        self.meet(now, hello.from, life);
        Ok(())
    }

    /// When a peer's starts are counted back, or one comes a second time, either its greeting comes late, from a process that has ended, or an older
    /// copy of its disk was put in place. Dialling it tells: only a process that lives answers. Until then it is not
    /// heard, so that what it says never comes before the news of what became of its disk.
    fn refuse_earlier(&mut self, now: Millis, id: NodeId, life: Life) -> Result<(), LinkError> {
        let peer = self.peer_mut(id);
        if peer.life.is_none_or(|known| known == life || life.is_later_than(known)) {
            return Ok(());
        }
        if let Outgoing::Waiting(_) = peer.outgoing {
            peer.outgoing = Outgoing::Waiting(now);
        }
        Err(LinkError::Unwanted(
            "a later process of the same node was seen already; this node calls back".into(),
        ))
    }

    /// A peer that dials is there: no reason to wait any longer before dialling it, nor to trust a link to an earlier
    /// process of it.
    fn meet(&mut self, now: Millis, id: NodeId, life: Life) {
        let peer = self.peer_mut(id);
        let is_later = peer.life.is_some_and(|known| life.is_later_than(known));
        let outgoing = peer.outgoing;
        if is_later {
            self.events.push(connected(id, life));
        }
        let peer = self.peer_mut(id);
        peer.life = Some(life);
        if let Outgoing::Link(key) = outgoing {
            // A link that is still to be greeted may have been dialled before that process was there.
            let is_to_it = self.life_of(key).map_or(!is_later, |known| !life.is_later_than(known));
            if is_to_it {
                return;
            }
            self.fail(now, key, LinkError::Replaced);
        }
        let peer = self.peer_mut(id);
        peer.redial.reset();
        peer.outgoing = Outgoing::Waiting(now);
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
        let life = hello.life();
        self.drop_earlier_incoming(now, dialled, life)?;
        let link = self.links.get_mut(key).expect("its bytes were just read");
        link.handle_greeted(now, hello.from, life);
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
        peer.life = Some(life);
        self.events.push(connected(dialled, life));
        Ok(())
    }

    /// A link from an earlier process of a peer ends when a later one answers, with all that it has brought.
    fn drop_earlier_incoming(&mut self, now: Millis, id: NodeId, life: Life) -> Result<(), LinkError> {
        let Some(incoming) = self.peer_mut(id).incoming else { return Ok(()) };
        match self.life_of(incoming) {
            Some(known) if known == life => Ok(()),
            Some(known) if !life.is_later_than(known) => Err(LinkError::Replaced),
            _ => {
                self.peer_mut(id).incoming = None;
                self.fail(now, incoming, LinkError::Replaced);
                Ok(())
            }
        }
    }

    /// Tells the other side why its greeting is not accepted, as far as the socket takes it.
    pub(super) fn send_refusal(&mut self, key: Key, reason: String) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.send_greeting(&Greeting::Refusal(reason));
        if let Err(error) = link.flush() {
            log::debug!("cannot tell {} why it is refused: {error}", link.remote);
        }
    }

    /// Which process is at the other end of a link, once that is known.
    fn life_of(&self, key: Key) -> Option<Life> {
        match self.links.get(key)?.stage {
            Stage::Up(_, life) => Some(life),
            Stage::Connecting | Stage::Greeting => None,
        }
    }
}

fn connected(peer: NodeId, life: Life) -> PeerEvent {
    PeerEvent::Connected { peer, life }
}
