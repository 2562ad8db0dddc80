//! A node's links to its peers over the simulated network: the same greetings, frames, redialling and signs of life as
//! `keva::net::peer`, whose tables need real sockets.

use std::collections::BTreeMap;

use keva::limits::{GREETING_TIMEOUT_MS, PEER_SEND_BYTES_MAX};
use keva::net::frame::{FrameDecoder, encode_frame};
use keva::net::peer::greeting::{Greeting, Hello, Identity};
use keva::net::peer::{PeerEvent, Redial};
use keva::raft::message::Envelope;
use keva::raft::types::{Life, NodeId};
use keva::util::rng::Rng;
use keva::util::time::Millis;

use crate::env::Env;
use crate::marks::Mark;
use crate::network::{ReadEnd, Socket, Status};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Outgoing(NodeId),
    Incoming,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Greeting,
    Up(NodeId, Life),
}

struct Link {
    direction: Direction,
    stage: Stage,
    greet_by: Millis,
    greeting: Vec<u8>,
    decoder: FrameDecoder,
    output: Vec<u8>,
    is_closing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outgoing {
    Waiting(Millis),
    Link(Socket),
}

struct Peer {
    id: NodeId,
    host: usize,
    outgoing: Outgoing,
    /// The process of it that greeted last.
    life: Option<Life>,
    incoming: Option<Socket>,
    redial: Redial,
    was_up: bool,
    is_refused: bool,
}

/// All links of one process.
pub(crate) struct Links {
    host: usize,
    identity: Identity,
    peers: Vec<Peer>,
    links: BTreeMap<Socket, Link>,
    events: Vec<PeerEvent>,
    rng: Rng,
    scratch: Vec<u8>,
}

enum Over {
    Closed,
    Refused,
    /// Trying again soon is pointless.
    Lasting,
}

impl Links {
    pub(crate) fn new(host: usize, identity: Identity, redial_pause_max: u64, seed: u64) -> Links {
        let others = identity.members.iter().enumerate().filter(|(_, id)| **id != identity.node);
        let peers = others.map(|(host, id)| Peer {
            id: *id,
            host,
            outgoing: Outgoing::Waiting(Millis(0)),
            life: None,
            incoming: None,
            redial: Redial::new(redial_pause_max),
            was_up: false,
            is_refused: false,
        });
        Links {
            host,
            peers: peers.collect(),
            identity,
            links: BTreeMap::new(),
            events: Vec::new(),
            rng: Rng::new(seed),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn accept(&mut self, now: Millis, socket: Socket) {
        self.insert(now, socket, Direction::Incoming);
    }

    fn insert(&mut self, now: Millis, socket: Socket, direction: Direction) {
        let stage = if direction == Direction::Incoming { Stage::Greeting } else { Stage::Connecting };
        self.links.insert(
            socket,
            Link {
                direction,
                stage,
                greet_by: now.after(GREETING_TIMEOUT_MS),
                greeting: Vec::new(),
                decoder: FrameDecoder::default(),
                output: Vec::new(),
                is_closing: false,
            },
        );
    }

    pub(crate) fn owns(&self, socket: Socket) -> bool {
        self.links.contains_key(&socket)
    }

    /// Something is new on a socket: it stands, has bytes, has room, or is over.
    pub(crate) fn read(&mut self, env: &mut Env, now: Millis, socket: Socket) {
        let Some(link) = self.links.get_mut(&socket).filter(|link| !link.is_closing) else { return };
        if link.stage == Stage::Connecting && env.network.status(socket) == Status::Open {
            link.stage = Stage::Greeting;
        }
        self.flush_link(env, socket);
        let mut bytes = std::mem::take(&mut self.scratch);
        let end = env.network.read(socket, &mut bytes);
        let link = self.links.get_mut(&socket).expect("looked at above");
        match link.stage {
            Stage::Up(..) => link.decoder.push(&bytes),
            Stage::Connecting | Stage::Greeting => link.greeting.extend_from_slice(&bytes),
        }
        bytes.clear();
        self.scratch = bytes;
        self.process(env, now, socket);
        match end {
            ReadEnd::Empty => {}
            ReadEnd::Refused => self.fail(env, now, socket, &Over::Refused),
            ReadEnd::Ended | ReadEnd::Broken => {
                if self.links.get(&socket).is_some_and(|link| link.decoder.is_mid_frame()) {
                    env.mark(Mark::LinkResetInFrame);
                }
                self.fail(env, now, socket, &Over::Closed);
            }
        }
    }

    fn process(&mut self, env: &mut Env, now: Millis, socket: Socket) {
        while let Some(link) = self.links.get_mut(&socket).filter(|link| !link.is_closing) {
            let result = match link.stage {
                Stage::Connecting => return,
                Stage::Greeting => match Greeting::decode(&link.greeting) {
                    Ok(None) => return,
                    Ok(Some((greeting, len))) => {
                        link.greeting.drain(..len);
                        self.handle_greeting(env, now, socket, greeting)
                    }
                    Err(error) => panic!("nodes of one version understand one another: {error}"),
                },
                Stage::Up(peer, _) if link.direction == Direction::Incoming => match link.decoder.next() {
                    Ok(None) => return,
                    Ok(Some(envelope)) => {
                        assert!(
                            envelope.from == peer && envelope.to == self.identity.node,
                            "a message on its own link"
                        );
                        env.checks.on_received();
                        self.events.push(PeerEvent::Message(envelope));
                        Ok(())
                    }
                    Err(error) => panic!("streams bring what was sent: {error}"),
                },
                Stage::Up(..) => {
                    assert!(!link.decoder.is_mid_frame(), "messages travel from the side that dialled");
                    return;
                }
            };
            if let Err(over) = result {
                self.fail(env, now, socket, &over);
            }
        }
    }

    fn handle_greeting(
        &mut self,
        env: &mut Env,
        now: Millis,
        socket: Socket,
        greeting: Greeting,
    ) -> Result<(), Over> {
        let direction = self.links[&socket].direction;
        match (direction, greeting) {
            (Direction::Incoming, Greeting::Hello(hello)) => self.handle_hello(env, now, socket, &hello),
            (Direction::Outgoing(_), Greeting::Welcome(hello)) => {
                self.handle_welcome(env, now, socket, &hello)
            }
            (_, Greeting::Refusal(_)) => Err(Over::Lasting),
            (_, other) => panic!("the wrong greeting: {other:?}"),
        }
    }

    fn handle_hello(
        &mut self,
        env: &mut Env,
        now: Millis,
        socket: Socket,
        hello: &Hello,
    ) -> Result<(), Over> {
        self.identity.check(hello).expect("only members dial");
        let life = hello.life();
        if self.is_earlier(now, hello.from, life) {
            let refusal = "a later process of the same node was seen already; this node calls back";
            let link = self.links.get_mut(&socket).expect("being read");
            Greeting::Refusal(refusal.into()).encode(&mut link.output);
            self.flush_link(env, socket);
            return Err(Over::Lasting);
        }
        if let Some(older) = self.peer(hello.from).incoming {
            self.peer(hello.from).incoming = Some(socket);
            self.fail(env, now, older, &Over::Closed);
        }
        let welcome = Greeting::Welcome(self.identity.hello(hello.from));
        let link = self.links.get_mut(&socket).expect("being read");
        welcome.encode(&mut link.output);
        link.greeted(hello);
        self.flush_link(env, socket);
        self.peer(hello.from).incoming = Some(socket);
        self.meet(env, now, hello.from, life);
        Ok(())
    }

    /// As `refuse_earlier` in production: late, or from an older copy of the disk. Dialling tells.
    fn is_earlier(&mut self, now: Millis, id: NodeId, life: Life) -> bool {
        let peer = self.peer(id);
        if peer.life.is_none_or(|known| known == life || life.is_later_than(known)) {
            return false;
        }
        if let Outgoing::Waiting(_) = peer.outgoing {
            peer.outgoing = Outgoing::Waiting(now);
        }
        true
    }

    fn meet(&mut self, env: &mut Env, now: Millis, id: NodeId, life: Life) {
        let peer = self.peer(id);
        let is_later = peer.life.is_some_and(|known| life.is_later_than(known));
        let outgoing = peer.outgoing;
        peer.life = Some(life);
        if is_later {
            self.events.push(connected(id, life));
        }
        if let Outgoing::Link(socket) = outgoing {
            let is_to_it = self.life_of(socket).map_or(!is_later, |known| !life.is_later_than(known));
            if is_to_it {
                return;
            }
            self.fail(env, now, socket, &Over::Closed);
        }
        let peer = self.peer(id);
        peer.redial.reset();
        peer.outgoing = Outgoing::Waiting(now);
    }

    fn handle_welcome(
        &mut self,
        env: &mut Env,
        now: Millis,
        socket: Socket,
        hello: &Hello,
    ) -> Result<(), Over> {
        self.identity.check(hello).expect("only members answer");
        let life = hello.life();
        self.drop_earlier_incoming(env, now, hello.from, life)?;
        self.links.get_mut(&socket).expect("being read").greeted(hello);
        let peer = self.peer(hello.from);
        peer.redial.reset();
        peer.was_up = true;
        peer.is_refused = false;
        peer.life = Some(life);
        self.events.push(connected(hello.from, life));
        Ok(())
    }

    fn drop_earlier_incoming(
        &mut self,
        env: &mut Env,
        now: Millis,
        id: NodeId,
        life: Life,
    ) -> Result<(), Over> {
        let Some(incoming) = self.peer(id).incoming else { return Ok(()) };
        match self.life_of(incoming) {
            Some(known) if known == life => Ok(()),
            Some(known) if !life.is_later_than(known) => Err(Over::Closed),
            _ => {
                self.peer(id).incoming = None;
                self.fail(env, now, incoming, &Over::Closed);
                Ok(())
            }
        }
    }

    /// What this process says of itself.
    pub(crate) fn life(&self) -> Life {
        self.identity.life()
    }

    pub(crate) fn take_events(&mut self) -> Vec<PeerEvent> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.events.is_empty()
    }

    pub(crate) fn next_deadline(&self) -> Millis {
        let dials = self.peers.iter().filter_map(|peer| match peer.outgoing {
            Outgoing::Waiting(until) => Some(until),
            Outgoing::Link(_) => None,
        });
        let waiting = self.links.values().filter(|link| link.awaits_greeting()).map(|link| link.greet_by);
        dials.chain(waiting).min().unwrap_or(Millis::NEVER)
    }

    pub(crate) fn handle_deadline(&mut self, env: &mut Env, now: Millis) {
        let is_late = |link: &Link| link.awaits_greeting() && link.greet_by <= now;
        let late: Vec<Socket> =
            self.links.iter().filter(|(_, link)| is_late(link)).map(|(socket, _)| *socket).collect();
        for socket in late {
            self.fail(env, now, socket, &Over::Closed);
        }
        for index in 0..self.peers.len() {
            let peer = &mut self.peers[index];
            if matches!(peer.outgoing, Outgoing::Waiting(until) if until <= now) {
                let id = peer.id;
                let socket = env.network.dial(self.host, peer.host);
                peer.outgoing = Outgoing::Link(socket);
                self.insert(now, socket, Direction::Outgoing(id));
                let hello = Greeting::Hello(self.identity.hello(id));
                hello.encode(&mut self.links.get_mut(&socket).expect("just inserted").output);
            }
        }
    }

    /// Queues a message. Dropped when no link stands. Says whether it was queued.
    pub(crate) fn send(&mut self, env: &mut Env, now: Millis, envelope: &Envelope) -> bool {
        let Outgoing::Link(socket) = self.peer(envelope.to).outgoing else { return false };
        let link = self.links.get_mut(&socket).expect("a peer's link lives as long as the peer points to it");
        if !matches!(link.stage, Stage::Up(..)) {
            return false;
        }
        encode_frame(envelope, &mut link.output);
        if link.output.len() > PEER_SEND_BYTES_MAX {
            self.fail(env, now, socket, &Over::Closed);
        }
        true
    }

    pub(crate) fn flush(&mut self, env: &mut Env) {
        for index in 0..self.peers.len() {
            if let Outgoing::Link(socket) = self.peers[index].outgoing {
                self.flush_link(env, socket);
            }
        }
    }

    fn flush_link(&mut self, env: &mut Env, socket: Socket) {
        let Some(link) = self.links.get_mut(&socket) else { return };
        if !link.output.is_empty() {
            let count = env.network.write(socket, &link.output);
            link.output.drain(..count);
        }
    }

    fn fail(&mut self, env: &mut Env, now: Millis, socket: Socket, over: &Over) {
        let Some(link) = self.links.get_mut(&socket).filter(|link| !link.is_closing) else { return };
        link.is_closing = true;
        let (direction, stage) = (link.direction, link.stage);
        match (direction, stage) {
            (Direction::Outgoing(id), _) => self.handle_outgoing_over(env, now, id, stage, over),
            (Direction::Incoming, Stage::Up(id, _)) => self.handle_incoming_over(env, now, id, socket),
            (Direction::Incoming, _) => {}
        }
    }

    fn handle_outgoing_over(&mut self, env: &mut Env, now: Millis, id: NodeId, stage: Stage, over: &Over) {
        let peer = self.peers.iter_mut().find(|peer| peer.id == id).expect("only members are dialled");
        if matches!(stage, Stage::Up(..)) {
            peer.redial.reset();
        } else {
            peer.is_refused = matches!(over, Over::Refused);
        }
        let pause = match over {
            Over::Lasting => peer.redial.longest_pause(),
            Over::Closed | Over::Refused => peer.redial.next_pause(&mut self.rng),
        };
        peer.outgoing = Outgoing::Waiting(now.after(pause));
        self.maybe_report_lost(env, id);
    }

    fn handle_incoming_over(&mut self, env: &mut Env, now: Millis, id: NodeId, socket: Socket) {
        let peer = self.peer(id);
        if peer.incoming != Some(socket) {
            return;
        }
        peer.incoming = None;
        match peer.outgoing {
            Outgoing::Waiting(_) => peer.outgoing = Outgoing::Waiting(now),
            Outgoing::Link(outgoing) => self.read(env, now, outgoing),
        }
        self.maybe_report_lost(env, id);
    }

    fn maybe_report_lost(&mut self, env: &mut Env, id: NodeId) {
        let peer = self.peer(id);
        if peer.was_up && peer.is_refused && peer.incoming.is_none() {
            peer.was_up = false;
            env.mark(Mark::PeerLost);
            self.events.push(PeerEvent::Lost { peer: id });
        }
    }

    pub(crate) fn reap(&mut self, env: &mut Env) {
        self.links.retain(|socket, link| {
            if link.is_closing {
                env.network.close(*socket);
            }
            !link.is_closing
        });
    }

    fn life_of(&self, socket: Socket) -> Option<Life> {
        match self.links.get(&socket)?.stage {
            Stage::Up(_, life) => Some(life),
            Stage::Connecting | Stage::Greeting => None,
        }
    }

    fn peer(&mut self, id: NodeId) -> &mut Peer {
        self.peers.iter_mut().find(|peer| peer.id == id).expect("only members are talked to")
    }
}

impl Link {
    fn awaits_greeting(&self) -> bool {
        !self.is_closing && !matches!(self.stage, Stage::Up(..))
    }

    fn greeted(&mut self, hello: &Hello) {
        self.stage = Stage::Up(hello.from, hello.life());
        self.decoder.push(&self.greeting);
        self.greeting.clear();
    }
}

fn connected(peer: NodeId, life: Life) -> PeerEvent {
    PeerEvent::Connected { peer, life }
}
