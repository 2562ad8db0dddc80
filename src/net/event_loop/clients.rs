//! The table of clients' connections: what they ask, what they are answered, and how much they may take.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};

use crate::limits::{
    CLIENT_READ_BYTES_PER_TURN_MAX, CLIENT_WRITE_BYTES_PER_TURN_MAX, CLIENTS_MEMORY_BYTES_MAX,
    CLIENTS_READ_BYTES_PER_TURN_MAX, CLIENTS_REFUSED_MAX, READ_BYTES_MAX,
};
use crate::net::api::Render;
use crate::net::client::{Call, CallId, ClientConnection, ClientContext};
use crate::net::event_loop::client_socket::ClientSocket;
use crate::net::event_loop::deadlines::Deadlines;
use crate::net::event_loop::source::Source;
use crate::net::http::response::Response;
use crate::net::peer::Throttle;
use crate::net::slab::{Key, Slab};
use crate::replica::io::Ticket;
use crate::util::time::Millis;

/// All clients' connections.
///
/// Calling order in a turn: [`Clients::handle_event`] and [`Clients::accept`], [`Clients::read`],
/// [`Clients::take_call`] until it returns `None`, [`Clients::handle_deadline`], [`Clients::respond`] for every answer,
/// [`Clients::write`], [`Clients::reap`]. Connections are only removed by the last one.
#[derive(Debug)]
pub struct Clients {
    registry: Registry,
    context: Rc<ClientContext>,
    connections_max: usize,
    pub(super) table: Slab<ClientSocket>,
    /// Sockets that may have more to read and whose connections want it.
    readable: Vec<Key>,
    /// Connections to look after at the end of the turn.
    touched: Vec<Key>,
    closing: Vec<Key>,
    /// Connections with a request that the node may begin with.
    callers: VecDeque<Key>,
    pub(super) waiting: HashMap<Ticket, Waiting>,
    next_ticket: u64,
    /// Tickets whose clients went away.
    cancelled: Vec<Ticket>,
    /// Streams that take more than they did.
    pub(super) drained: Vec<Ticket>,
    deadlines: Deadlines,
    memory_bytes: usize,
    warnings: Throttle,
    scratch: Vec<u8>,
}

/// Who gets the answer to a ticket, and how it is to look.
#[derive(Debug)]
pub struct Waiting {
    /// The connection.
    pub client: Key,
    /// Its request.
    pub call: CallId,
    /// What becomes of the replica's reply.
    pub render: Render,
}

impl Clients {
    /// A table for up to `connections_max` connections.
    #[must_use]
    pub fn new(registry: Registry, context: Rc<ClientContext>, connections_max: usize) -> Clients {
        Clients {
            registry,
            context,
            connections_max,
            table: Slab::default(),
            readable: Vec::new(),
            touched: Vec::new(),
            closing: Vec::new(),
            callers: VecDeque::new(),
            waiting: HashMap::new(),
            next_ticket: 1,
            cancelled: Vec::new(),
            drained: Vec::new(),
            deadlines: Deadlines::default(),
            memory_bytes: 0,
            warnings: Throttle::default(),
            scratch: vec![0; READ_BYTES_MAX],
        }
    }

    /// Takes a connection to this node's port for clients. One too many gets a 503.
    pub fn accept(&mut self, now: Millis, stream: TcpStream) {
        let context = Rc::clone(&self.context);
        let is_too_many = self.table.len() >= self.connections_max;
        if is_too_many && self.warnings.permits(now) {
            log::warn!(
                "refusing clients: there are {} connections already; client_connections in keva.toml sets the limit",
                self.connections_max
            );
        }
        if self.table.len() >= self.connections_max + CLIENTS_REFUSED_MAX {
            return;
        }
        let connection = if is_too_many {
            ClientConnection::refused(now, context)
        } else {
            ClientConnection::new(now, context)
        };
        let key = self.table.insert(ClientSocket::new(stream, connection));
        let socket = self.table.get_mut(key).expect("just inserted");
        match socket.register(&self.registry, Token::from(Source::Client(key))) {
            Ok(()) => self.touch(key),
            Err(error) => {
                log::debug!("cannot use a client's connection: {error}");
                self.table.remove(key);
            }
        }
    }

    /// Takes what the poll reports about a connection. Reading itself waits for [`Clients::read`].
    pub fn handle_event(&mut self, now: Millis, key: Key, event: &Event) {
        let Some(socket) = self.table.get_mut(key).filter(|socket| !socket.is_closing) else { return };
        // Both directions are closed: nobody reads an answer.
        if event.is_error() || event.is_write_closed() {
            self.close(key);
            return;
        }
        if event.is_readable() || event.is_read_closed() {
            socket.handle_readable();
            self.list_if_readable(key);
        }
        if event.is_read_closed() {
            let socket = self.table.get_mut(key).expect("looked at above");
            socket.handle_read_closed(now);
            self.touch(key);
        }
        if event.is_writable() {
            let socket = self.table.get_mut(key).expect("looked at above");
            socket.handle_writable();
            self.touch(key);
        }
    }

    /// Reads what came, up to a bound per connection and one for all.
    pub fn read(&mut self, now: Millis) {
        let mut budget = CLIENTS_READ_BYTES_PER_TURN_MAX;
        let listed = std::mem::take(&mut self.readable);
        for (position, key) in listed.iter().copied().enumerate() {
            if budget == 0 {
                // They come first in the next turn.
                self.readable.splice(0..0, listed[position..].iter().copied());
                break;
            }
            let Some(socket) = self.table.get_mut(key) else { continue };
            socket.is_listed = false;
            let result = socket.read(now, &mut self.scratch, CLIENT_READ_BYTES_PER_TURN_MAX.min(budget));
            match result {
                Ok(count) => {
                    budget = budget.saturating_sub(count);
                    self.list_if_readable(key);
                    self.list_if_calling(key);
                    self.touch(key);
                }
                Err(_broken) => self.close(key),
            }
        }
    }

    /// The next request for the node. Connections take turns.
    pub fn take_call(&mut self) -> Option<(Key, Call)> {
        while let Some(key) = self.callers.pop_front() {
            let Some(socket) = self.table.get_mut(key) else { continue };
            socket.is_calling = false;
            if let Some(call) = socket.take_call() {
                return Some((key, call));
            }
        }
        None
    }

    /// A name for a request that the replica will answer.
    ///
    /// # Panics
    /// When the client is not there: its request was just taken.
    pub fn open_ticket(&mut self, client: Key, call: CallId, render: Render) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.table.get_mut(client).expect("its request was just taken").tickets.push(ticket);
        self.waiting.insert(ticket, Waiting { client, call, render });
        self.list_if_calling(client);
        ticket
    }

    /// Who waits for the answer to a ticket. `None` when the client went away.
    pub fn take_waiting(&mut self, ticket: Ticket) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        let socket = self.table.get_mut(waiting.client).expect("tickets of closed connections are forgotten");
        socket.tickets.retain(|open| *open != ticket);
        Some(waiting)
    }

    /// Answers a request. It is sent by [`Clients::write`].
    pub fn respond(&mut self, now: Millis, client: Key, call: CallId, response: Response) {
        let Some(socket) = self.table.get_mut(client).filter(|socket| !socket.is_closing) else { return };
        socket.connection.respond(now, call, response);
        self.collect_calls(now, client);
    }

    /// Does what is due.
    pub fn handle_deadline(&mut self, now: Millis) {
        while let Some(key) = self.deadlines.pop_due(now) {
            let Some(socket) = self.table.get_mut(key) else { continue };
            // Whatever came of it, the next deadline is filed at the end of the turn.
            socket.connection.handle_deadline(now);
            self.collect_calls(now, key);
        }
    }

    /// When [`Clients::handle_deadline`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.next()
    }

    /// Gives the sockets what they take, and looks after every connection that something happened to.
    pub fn write(&mut self, now: Millis) {
        for key in std::mem::take(&mut self.touched) {
            if let Some(socket) = self.table.get_mut(key) {
                socket.is_touched = false;
                self.look_after(now, key);
            }
        }
        if self.memory_bytes > CLIENTS_MEMORY_BYTES_MAX {
            self.close_largest(now);
        }
    }

    fn look_after(&mut self, now: Millis, key: Key) {
        let Some(socket) = self.table.get_mut(key).filter(|socket| !socket.is_closing) else { return };
        let result = socket.write(now, CLIENT_WRITE_BYTES_PER_TURN_MAX);
        let subscribed = socket.maybe_subscribe_to_writable(&self.registry, Token::from(Source::Client(key)));
        let (Ok(has_more), Ok(())) = (result, subscribed) else { return self.close(key) };
        if socket.connection.is_finished() {
            return self.close(key);
        }
        let held = socket.connection.memory_bytes();
        self.memory_bytes = self.memory_bytes + held - std::mem::replace(&mut socket.memory_bytes, held);
        let deadline = socket.connection.next_deadline();
        if deadline < Millis::NEVER {
            self.deadlines.set(key, deadline);
        }
        if let Some(ticket) = socket.drained_stream() {
            self.drained.push(ticket);
        }
        if has_more {
            self.touch(key);
        }
        self.list_if_readable(key);
        self.list_if_calling(key);
    }

    /// Too much memory is held by connections. Clients that do not read their answers are the likely ones.
    fn close_largest(&mut self, now: Millis) {
        let living = self.table.iter().filter(|(_, socket)| !socket.is_closing);
        let mut largest: Vec<(usize, Key)> = living.map(|(key, socket)| (socket.memory_bytes, key)).collect();
        largest.sort_unstable_by(|one, other| other.cmp(one));
        let held = self.memory_bytes;
        for (bytes, key) in largest {
            if self.memory_bytes <= CLIENTS_MEMORY_BYTES_MAX {
                break;
            }
            if self.warnings.permits(now) {
                log::warn!(
                    "closed a client's connection that held {bytes} bytes: all connections together held {held}"
                );
            }
            self.close(key);
        }
    }

    /// Gives a connection up. Its socket is closed by [`Clients::reap`].
    pub(super) fn close(&mut self, key: Key) {
        let Some(socket) = self.table.get_mut(key).filter(|socket| !socket.is_closing) else { return };
        socket.is_closing = true;
        self.memory_bytes -= std::mem::take(&mut socket.memory_bytes);
        for ticket in std::mem::take(&mut socket.tickets) {
            self.waiting.remove(&ticket);
            self.cancelled.push(ticket);
        }
        self.deadlines.remove(key);
        self.closing.push(key);
    }

    /// Closes the sockets of connections that were given up, and tells whose answers nobody waits for any more. The
    /// last step of a turn.
    pub fn reap(&mut self) -> Vec<Ticket> {
        for key in self.closing.drain(..) {
            self.table.remove(key);
        }
        std::mem::take(&mut self.cancelled)
    }

    /// Whether there is work that no event will announce.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.readable.is_empty() || !self.touched.is_empty() || !self.callers.is_empty()
    }

    /// Every connection answers what it has received, then closes.
    pub fn start_shutdown(&mut self, now: Millis) {
        for key in self.table.keys() {
            let socket = self.table.get_mut(key).expect("its key was just listed");
            socket.connection.start_shutdown(now);
            self.collect_calls(now, key);
        }
    }

    /// Whether this connection is there, and not given up.
    #[must_use]
    pub fn has(&self, key: Key) -> bool {
        self.table.get(key).is_some_and(|socket| !socket.is_closing)
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Something happened to a connection: requests may have become complete, output may be there.
    fn collect_calls(&mut self, now: Millis, key: Key) {
        self.table.get_mut(key).expect("the caller has just used it").collect_calls(now);
        self.list_if_calling(key);
        self.touch(key);
    }

    fn list_if_calling(&mut self, key: Key) {
        let Some(socket) = self.table.get_mut(key) else { return };
        if socket.has_call() && !socket.is_calling {
            socket.is_calling = true;
            self.callers.push_back(key);
        }
    }

    pub(super) fn touch(&mut self, key: Key) {
        let Some(socket) = self.table.get_mut(key) else { return };
        if !socket.is_touched {
            socket.is_touched = true;
            self.touched.push(key);
        }
    }

    fn list_if_readable(&mut self, key: Key) {
        let Some(socket) = self.table.get_mut(key) else { return };
        if socket.wants_read() && !socket.is_listed {
            socket.is_listed = true;
            self.readable.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Shutdown};

    use mio::{Events, Poll};

    use super::*;
    use crate::net::api::Action;
    use crate::net::http::response::{Body, TEXT};
    use crate::net::http::status::Status;

    const NOW: Millis = Millis(1_000);

    /// The table, and the other ends of its connections.
    struct World {
        poll: Poll,
        clients: Clients,
        listener: std::net::TcpListener,
    }

    impl World {
        fn new() -> World {
            let poll = Poll::new().unwrap();
            let registry = poll.registry().try_clone().unwrap();
            let clients = Clients::new(registry, Rc::default(), 100);
            World { poll, clients, listener: std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap() }
        }

        fn connect(&mut self) -> std::net::TcpStream {
            let client = std::net::TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (stream, _) = self.listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            self.clients.accept(NOW, TcpStream::from_std(stream));
            client
        }

        /// A turn without the node: what came is read, what is there is sent.
        fn turn(&mut self) -> (Vec<(Key, Call)>, Vec<Ticket>) {
            let mut events = Events::with_capacity(64);
            self.poll.poll(&mut events, Some(std::time::Duration::from_millis(1))).unwrap();
            for event in &events {
                if let Source::Client(key) = Source::of(event.token()) {
                    self.clients.handle_event(NOW, key, event);
                }
            }
            self.clients.read(NOW);
            let calls = std::iter::from_fn(|| self.clients.take_call()).collect();
            self.clients.write(NOW);
            (calls, self.clients.reap())
        }

        fn call(&mut self) -> (Key, Call) {
            std::iter::repeat_with(|| self.turn().0).take(1_000).flatten().next().expect("a request")
        }
    }

    /// I10: the memory of all connections is bounded by [`CLIENTS_MEMORY_BYTES_MAX`], in every turn, and those that hold
    /// most give it back.
    #[test]
    fn the_largest_connections_are_closed() {
        const LARGE: usize = 16 << 20;
        let mut world = World::new();
        let mut sockets: Vec<_> =
            (0..2 * CLIENTS_MEMORY_BYTES_MAX / LARGE).map(|_| world.connect()).collect();
        sockets.push(world.connect());
        let mut asked = Vec::new();
        for socket in &mut sockets {
            socket.write_all(b"GET /v1/storage/key/k HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            asked.push(world.call());
        }
        let count = asked.len();
        for (position, (key, call)) in asked.into_iter().enumerate() {
            let bytes = if position + 1 == count { 100_000 } else { LARGE };
            world.clients.respond(
                NOW,
                key,
                call.id,
                Response::new(Status::Ok, TEXT, Body::Owned(vec![0; bytes])),
            );
        }
        world.turn();
        assert!(world.clients.memory_bytes <= CLIENTS_MEMORY_BYTES_MAX, "{}", world.clients.memory_bytes);
        let left = world.clients.len();
        assert!((count / 2 - 1..count / 2 + 2).contains(&left), "{left} of {count}");
        let held = world.clients.table.iter().map(|(_, socket)| socket.memory_bytes).sum::<usize>();
        assert_eq!(world.clients.memory_bytes, held);
        let mut small = sockets.pop().unwrap();
        assert!(small.read(&mut [0; 100]).unwrap() > 0, "who holds little is left alone");
    }

    /// A client that closes its side while it waits for a change is gone: its place is free at once, also when its request
    /// was the last one, or so many wait that nothing more is read.
    #[test]
    fn who_waits_and_hangs_up_is_gone() {
        let wait = "GET /v1/storage/key/k?wait=5m HTTP/1.1\r\nHost: h\r\n";
        let list = "GET /v1/storage/keys?wait=5m HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"1\"\r\n";
        for request in [
            format!("{wait}\r\n"),
            format!("{wait}Connection: close\r\n\r\n"),
            format!("{list}\r\n"),
            format!("{wait}\r\n{}", "GET /v1/storage/key/k HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100)),
        ] {
            let mut world = World::new();
            let mut socket = world.connect();
            socket.write_all(request.as_bytes()).unwrap();
            let (key, Call { id, action }) = world.call();
            let Action::Submit { render, .. } = action else { panic!("{action:?}") };
            let ticket = world.clients.open_ticket(key, id, render);
            assert_eq!((world.turn().1, world.clients.len()), (vec![], 1));
            socket.shutdown(Shutdown::Write).unwrap();
            let cancelled = std::iter::repeat_with(|| world.turn().1).take(1_000).flatten().next();
            assert_eq!(cancelled, Some(ticket), "{request}");
            assert!(world.clients.is_empty() && world.clients.waiting.is_empty());
        }
    }
}
