//! Peer links over loopback sockets: several nodes' tables of peers, each with a poll of its own, in one thread.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use keva::limits::{PEER_GREETINGS_MAX, PEER_READ_BYTES_PER_TURN_MAX};
use keva::net::event_loop::clock::Clock;
use keva::net::event_loop::source::Source;
use keva::net::frame::encode_frame;
use keva::net::listener::Listener;
use keva::net::peer::greeting::{Greeting, Identity};
use keva::net::peer::{PeerEvent, PeerSettings, Peers};
use keva::raft::message::{Envelope, Message, ReadContext};
use keva::raft::types::{Incarnation, Life, NodeId, Term};
use mio::{Events, Poll, Token};

/// The working directory of every node, unless a test says otherwise.
const DISK: u64 = 13;
/// The number of every process, unless a test says otherwise.
const PROCESS: u64 = 5;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The network side of one node: everything of a turn but the replica.
struct Node {
    poll: Poll,
    events: Events,
    clock: Clock,
    listener: Listener,
    peers: Peers,
    seen: Vec<PeerEvent>,
}

impl Node {
    fn start(listener: Listener, identity: Identity, ports: &[(u64, u16)]) -> Node {
        let mut listener = listener;
        let poll = Poll::new().unwrap();
        listener.register(poll.registry(), Token::from(Source::PeerListener)).unwrap();
        let settings = settings(ports, identity.node);
        let registry = poll.registry().try_clone().unwrap();
        let peers = Peers::new(identity, settings, registry, 50, 1);
        Node {
            poll,
            events: Events::with_capacity(64),
            clock: Clock::start(),
            listener,
            peers,
            seen: Vec::new(),
        }
    }

    fn turn(&mut self) {
        self.poll.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
        let now = self.clock.now();
        for event in &self.events {
            match Source::of(event.token()) {
                Source::PeerListener => self.listener.handle_event(),
                Source::PeerLink(key) => self.peers.handle_event(now, key, event),
                other => panic!("an event of {other:?}"),
            }
        }
        while let Some((stream, remote)) = self.listener.accept(now) {
            self.peers.accept(now, stream, remote);
        }
        self.peers.read(now);
        self.seen.extend(self.peers.take_events());
        self.peers.handle_deadline(now, &self.clock);
        self.peers.flush(now);
        self.peers.reap();
    }

    fn send(&mut self, to: u64, context: u64) {
        let now = self.clock.now();
        self.peers.send(now, &read_index(self.id(), to, context));
        self.peers.flush(now);
    }

    fn id(&self) -> u64 {
        self.listener.local_address().port().into()
    }

    fn is_connected_to(&self, id: u64) -> bool {
        self.peers.status().any(|peer| peer.id == NodeId(id) && peer.is_connected)
    }
}

/// Node ids are the nodes' ports here.
fn identity(node: u64, members: &[u64], incarnation: u64) -> Identity {
    Identity {
        cluster: 7,
        members_digest: 11,
        node: NodeId(node),
        members: members.iter().map(|id| NodeId(*id)).collect(),
        incarnation: Incarnation(incarnation),
        disk_id: DISK,
        process: PROCESS,
        version: "0.1.0".into(),
    }
}

fn connected(peer: u64, life: Life) -> PeerEvent {
    PeerEvent::Connected { peer: NodeId(peer), life }
}

fn settings(ports: &[(u64, u16)], own: NodeId) -> Vec<PeerSettings> {
    let others = ports.iter().filter(|(id, _)| NodeId(*id) != own);
    let settings = |(id, port): &(u64, u16)| PeerSettings {
        id: NodeId(*id),
        identity: format!("host{id}"),
        host: "127.0.0.1".into(),
        port: *port,
    };
    others.map(settings).collect()
}

fn read_index(from: u64, to: u64, context: u64) -> Envelope {
    let message = Message::ReadIndex { context: ReadContext(context) };
    Envelope { from: NodeId(from), to: NodeId(to), term: Term(1), message }
}

fn listen(port: u16) -> Listener {
    Listener::bind(&[LOOPBACK], port, "keva_port").unwrap()
}

/// A cluster whose nodes know one another, every link up.
fn cluster(size: usize) -> Vec<Node> {
    let listeners: Vec<Listener> = (0..size).map(|_| listen(0)).collect();
    let ports: Vec<(u64, u16)> = listeners
        .iter()
        .map(|listener| listener.local_address().port())
        .map(|port| (port.into(), port))
        .collect();
    let members: Vec<u64> = ports.iter().map(|(id, _)| *id).collect();
    let start = |listener: Listener| {
        let id = listener.local_address().port().into();
        Node::start(listener, identity(id, &members, 1), &ports)
    };
    let mut nodes: Vec<Node> = listeners.into_iter().map(start).collect();
    let all_up = |nodes: &[Node]| {
        nodes.iter().all(|node| members.iter().all(|id| *id == node.id() || node.is_connected_to(*id)))
    };
    run_until(&mut nodes, "every link to stand", all_up);
    nodes
}

fn ports_of(nodes: &[Node]) -> Vec<(u64, u16)> {
    nodes.iter().map(|node| (node.id(), node.listener.local_address().port())).collect()
}

/// Turns of all nodes until `is_done`. Returns how long that took.
fn run_until(nodes: &mut [Node], what: &str, mut is_done: impl FnMut(&[Node]) -> bool) -> Duration {
    let start = Instant::now();
    while !is_done(nodes) {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        nodes.iter_mut().for_each(Node::turn);
    }
    start.elapsed()
}

#[test]
fn messages_reach_the_node_they_are_for_in_order() {
    let mut nodes = cluster(3);
    let ids: Vec<u64> = nodes.iter().map(Node::id).collect();
    for context in 0..100 {
        nodes[0].send(ids[1], context);
        nodes[2].send(ids[1], 1000 + context);
    }
    let messages = |node: &Node, from: u64| -> Vec<Envelope> {
        let of_sender = |event: &PeerEvent| match event {
            PeerEvent::Message(envelope) if envelope.from == NodeId(from) => Some(envelope.clone()),
            _ => None,
        };
        node.seen.iter().filter_map(of_sender).collect()
    };
    let count = |node: &Node| ids.iter().map(|id| messages(node, *id).len()).sum::<usize>();
    run_until(&mut nodes, "200 messages", |nodes| count(&nodes[1]) == 200);
    let expected = |from: usize, first: u64| -> Vec<Envelope> {
        (first..first + 100).map(|context| read_index(ids[from], ids[1], context)).collect()
    };
    assert_eq!(messages(&nodes[1], ids[0]), expected(0, 0));
    assert_eq!(messages(&nodes[1], ids[2]), expected(2, 1000));
    assert_eq!(count(&nodes[0]) + count(&nodes[2]), 0);
}

#[test]
fn a_frame_larger_than_the_socket_gets_through() {
    let mut nodes = cluster(2);
    let (from, to) = (nodes[0].id(), nodes[1].id());
    let payloads = vec![vec![9; 16 << 20]];
    let message = Message::Forward { payloads };
    let envelope = Envelope { from: NodeId(from), to: NodeId(to), term: Term(1), message };
    let now = nodes[0].clock.now();
    nodes[0].peers.send(now, &envelope);
    nodes[0].peers.flush(now);
    run_until(&mut nodes, "the frame", |nodes| nodes[1].seen.contains(&PeerEvent::Message(envelope.clone())));
}

/// A process that ends is noticed by all others within milliseconds, and only once.
#[test]
fn the_end_of_a_process_is_noticed_at_once() {
    let mut nodes = cluster(3);
    let dead = nodes.remove(0);
    let dead_id = dead.id();
    drop(dead);
    let lost = PeerEvent::Lost { peer: NodeId(dead_id) };
    let is_lost = |node: &Node| node.seen.contains(&lost);
    let took = run_until(&mut nodes, "the loss to be noticed", |nodes| nodes.iter().all(is_lost));
    assert!(took < Duration::from_millis(100), "{took:?}");
    let end = Instant::now() + Duration::from_millis(100);
    run_until(&mut nodes, "a while to pass", |_| Instant::now() >= end);
    for node in &nodes {
        assert_eq!(node.seen.iter().filter(|event| **event == lost).count(), 1);
        assert_eq!(node.seen.iter().filter(|event| matches!(event, PeerEvent::Lost { .. })).count(), 1);
    }
}

#[test]
fn a_restarted_process_is_greeted_with_its_new_incarnation() {
    let mut nodes = cluster(2);
    let (ports, old) = (ports_of(&nodes), nodes.remove(0));
    let (id, members) = (old.id(), [ports[0].0, ports[1].0]);
    drop(old);
    let listener = listen(ports[0].1);
    nodes.push(Node::start(listener, identity(id, &members, 2), &ports));
    let back = connected(id, Life { disk_id: DISK, incarnation: Incarnation(2), process: PROCESS });
    // It is told as soon as it greets; messages to it leave when the link to it stands.
    let is_up = |nodes: &[Node]| nodes[0].seen.contains(&back) && nodes[0].is_connected_to(id);
    run_until(&mut nodes, "the new process", is_up);
    let (first, second) = nodes.split_at_mut(1);
    first[0].send(second[0].id(), 5);
    let expected = PeerEvent::Message(read_index(ports[1].0, id, 5));
    run_until(&mut nodes, "a message on the new link", |nodes| nodes[1].seen.contains(&expected));
}

/// F22: a process whose starts are counted back, or one with a start number of another process, is told of before its
/// first message.
#[test]
fn an_older_copy_of_a_disk_is_told_of() {
    let mut nodes = cluster(2);
    let (ports, id) = (ports_of(&nodes), nodes[1].id());
    let members = [ports[0].0, ports[1].0];
    for (incarnation, process) in [(9, 1), (4, 2), (4, 3)] {
        nodes.truncate(1);
        nodes[0].seen.clear();
        let identity = Identity { process, ..identity(id, &members, incarnation) };
        let back = connected(id, identity.life());
        nodes.push(Node::start(listen(ports[1].1), identity, &ports));
        let is_up = |nodes: &[Node]| nodes[0].seen.contains(&back) && nodes[1].is_connected_to(members[0]);
        run_until(&mut nodes, "the links to stand", is_up);
        nodes[1].send(members[0], 7);
        let message = PeerEvent::Message(read_index(id, members[0], 7));
        run_until(&mut nodes, "a message", |nodes| nodes[0].seen.contains(&message));
        let seen = &nodes[0].seen;
        let at = |wanted: &PeerEvent| seen.iter().position(|event| event == wanted);
        assert!(at(&back) < at(&message), "{seen:?}");
    }
}

/// A peer whose process is played by the test.
struct Puppet {
    stream: TcpStream,
}

impl Puppet {
    /// Dials `node` and greets it.
    fn greet(node: &Node, identity: &Identity) -> Puppet {
        let mut stream = TcpStream::connect(node.listener.local_address()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        Greeting::Hello(identity.hello(NodeId(node.id()))).encode(&mut bytes);
        stream.write_all(&bytes).unwrap();
        Puppet { stream }
    }

    /// Sends messages with these contexts until the socket takes no more. Returns how many.
    fn send(&mut self, from: u64, to: u64, contexts: std::ops::Range<u64>) -> u64 {
        let start = contexts.start;
        for context in contexts {
            let mut bytes = Vec::new();
            encode_frame(&read_index(from, to, context), &mut bytes);
            if self.stream.write_all(&bytes).is_err() {
                return context - start;
            }
        }
        panic!("the socket is bottomless");
    }

    fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 4096]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// F21: what a process has sent that is gone counts no more as soon as a later one has greeted, whether on the same
/// working directory or on another one: its disk may be gone with it.
#[test]
fn a_later_process_silences_the_earlier_one() {
    for (disk_id, incarnation) in [(DISK, 10), (DISK + 1, 1)] {
        let mut nodes = cluster(1);
        let (target, peer) = (nodes[0].id(), 1);
        // Nobody listens on that port: only the links from the peer matter here.
        let registry = nodes[0].poll.registry().try_clone().unwrap();
        let ports = [(target, 0), (peer, 1)];
        nodes[0].peers = Peers::new(
            identity(target, &[target, peer], 1),
            settings(&ports, NodeId(target)),
            registry,
            50,
            1,
        );
        let old_life = identity(peer, &[target, peer], 9);
        let mut old = Puppet::greet(&nodes[0], &old_life);
        let count =
            |node: &Node| node.seen.iter().filter(|event| matches!(event, PeerEvent::Message(_))).count();
        let mut hello = Vec::new();
        encode_frame(&read_index(peer, target, 0), &mut hello);
        run_until(&mut nodes, "the greeting", |nodes| {
            nodes[0].peers.status().any(|peer| peer.version.is_some())
        });
        // More than a link is read in a turn.
        let sent = old.send(peer, target, 1..u64::MAX);
        assert!(sent * hello.len() as u64 > PEER_READ_BYTES_PER_TURN_MAX as u64, "{sent} messages");
        let new_life = Identity { disk_id, ..identity(peer, &[target, peer], incarnation) };
        let mut new = Puppet::greet(&nodes[0], &new_life);
        run_until(&mut nodes, "the old link to end", |_| old.is_closed());
        let seen = count(&nodes[0]);
        assert!((seen as u64) < sent, "all {sent} messages were read before the new link came");
        let connected = connected(peer, new_life.life());
        let at = nodes[0].seen.iter().position(|event| *event == connected);
        let at = at.expect("the new process is told of");
        assert!(
            nodes[0].seen[at..].iter().all(|event| *event == connected),
            "something of the old link came late"
        );
        let first = u64::MAX - 1;
        let mut bytes = Vec::new();
        encode_frame(&read_index(peer, target, first), &mut bytes);
        new.stream.write_all(&bytes).unwrap();
        let expected = PeerEvent::Message(read_index(peer, target, first));
        run_until(&mut nodes, "the new process's message", |nodes| nodes[0].seen.contains(&expected));

        // A greeting of the earlier process that comes late changes nothing. Of another directory, nobody can tell.
        if disk_id == DISK {
            let mut late = Puppet::greet(&nodes[0], &old_life);
            run_until(&mut nodes, "the late greeting to be refused", |_| late.is_closed());
            assert!(!new.is_closed());
        }
    }
}

/// Broken links to a process that still listens do not make it lost.
#[test]
fn a_broken_link_alone_is_no_loss() {
    let mut nodes = cluster(2);
    let (ports, id) = (ports_of(&nodes), nodes[1].id());
    // Its table with all sockets is dropped, its listening socket stays: nobody who dials is ever refused.
    let registry = nodes[1].poll.registry().try_clone().unwrap();
    let members = [ports[0].0, ports[1].0];
    nodes[1].peers = Peers::new(identity(id, &members, 1), settings(&ports, NodeId(id)), registry, 50, 1);
    let ups =
        |node: &Node| node.seen.iter().filter(|event| matches!(event, PeerEvent::Connected { .. })).count();
    run_until(&mut nodes, "the link to come back", |nodes| ups(&nodes[0]) == 2);
    assert!(!nodes[0].seen.iter().any(|event| matches!(event, PeerEvent::Lost { .. })));
}

/// Two processes with one identity may take the link to a third node from one another. They must do so in peace: not as
/// fast as they can, for ever, with a line in the log each time.
#[test]
fn two_processes_with_one_identity_do_not_spin() {
    let mut nodes = cluster(2);
    let (ports, id) = (ports_of(&nodes), nodes[1].id());
    let copy = Identity { process: PROCESS + 1, ..identity(id, &[ports[0].0, ports[1].0], 1) };
    nodes.push(Node::start(listen(0), copy, &ports));
    let end = Instant::now() + Duration::from_secs(1);
    run_until(&mut nodes, "a while to pass", |_| Instant::now() >= end);
    let ups =
        |node: &Node| node.seen.iter().filter(|event| matches!(event, PeerEvent::Connected { .. })).count();
    for node in &nodes {
        assert!(ups(node) < 100, "{} links in a second", ups(node));
    }
    assert!(ups(&nodes[0]) > 0 && ups(&nodes[1]) + ups(&nodes[2]) > 0, "one of them is heard");
}

/// The same with working directories of their own, of which none is known to be the later one.
#[test]
fn two_processes_with_one_identity_and_two_disks_do_not_spin() {
    let mut nodes = cluster(2);
    let (ports, id) = (ports_of(&nodes), nodes[1].id());
    let other = Identity { disk_id: DISK + 1, ..identity(id, &[ports[0].0, ports[1].0], 1) };
    nodes.push(Node::start(listen(0), other, &ports));
    let end = Instant::now() + Duration::from_secs(1);
    run_until(&mut nodes, "a while to pass", |_| Instant::now() >= end);
    for node in &nodes {
        let ups = node.seen.iter().filter(|event| matches!(event, PeerEvent::Connected { .. })).count();
        assert!((1..300).contains(&ups), "{ups} links in a second");
    }
}

/// F19: a node of another cluster never gets a message in, nor out.
#[test]
fn another_cluster_is_kept_out() {
    let listeners = [listen(0), listen(0)];
    let ports: Vec<(u64, u16)> = listeners
        .iter()
        .map(|listener| listener.local_address().port())
        .map(|port| (port.into(), port))
        .collect();
    let members = [ports[0].0, ports[1].0];
    let mut nodes: Vec<Node> = listeners
        .into_iter()
        .enumerate()
        .map(|(position, listener)| {
            let mut identity = identity(members[position], &members, 1);
            identity.cluster += position as u128;
            Node::start(listener, identity, &ports)
        })
        .collect();
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        for (from, to) in [(0, 1), (1, 0)] {
            nodes[from].send(members[to], 1);
        }
        nodes.iter_mut().for_each(Node::turn);
    }
    assert!(nodes.iter().all(|node| node.seen.is_empty()), "{:?} {:?}", nodes[0].seen, nodes[1].seen);
}

/// I10: connections that say nothing, or nonsense, keep no member out and do not pile up.
#[test]
fn silent_and_noisy_strangers_do_not_keep_members_out() {
    let mut nodes = cluster(2);
    let (ports, old) = (ports_of(&nodes), nodes.remove(1));
    drop(old);
    let target = nodes[0].listener.local_address();
    let mut strangers = Vec::new();
    for number in 0..3 * PEER_GREETINGS_MAX {
        let mut stranger = std::net::TcpStream::connect(target).unwrap();
        if number % 2 == 0 {
            stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        }
        strangers.push(stranger);
        nodes[0].turn();
    }
    nodes[0].turn();
    strangers.iter().for_each(|stranger| stranger.set_nonblocking(true).unwrap());
    let is_open = |stranger: &&std::net::TcpStream| {
        let mut stranger = *stranger;
        // Noisy ones are told why they are refused.
        while stranger.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
        stranger.read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    // The last noisy one may have taken a silent one's place before it was refused.
    let open = strangers.iter().filter(is_open).count();
    assert!((PEER_GREETINGS_MAX - 1..=PEER_GREETINGS_MAX).contains(&open), "{open} silent strangers");
    let members = [ports[0].0, ports[1].0];
    nodes.push(Node::start(listen(ports[1].1), identity(ports[1].0, &members, 2), &ports));
    run_until(&mut nodes, "the member", |nodes| nodes[1].is_connected_to(ports[0].0));
}
