//! One client's socket and the connection behind it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::limits::WATCH_BUFFER_BYTES_MAX;
use crate::net::api::Action;
use crate::net::client::{Call, ClientConnection};
use crate::replica::io::{Request, Ticket};
use crate::util::time::Millis;

/// The socket is of no more use: reset, or closed in both directions.
#[derive(Debug)]
pub(super) struct Broken;

/// A socket, what is spoken over it, and what is known of both.
#[derive(Debug)]
pub(super) struct ClientSocket {
    stream: TcpStream,
    pub(super) connection: ClientConnection,
    /// Complete requests that the node has not begun with.
    calls: VecDeque<Call>,
    /// Requests that the replica has not answered. All of them write, or none.
    pub(super) tickets: Vec<Ticket>,
    /// The last response is a stream of events, and this the ticket of its request.
    events: Option<Ticket>,
    /// The stream took less than was there for it, or nothing was there yet.
    is_stream_full: bool,
    is_writing: bool,
    /// The socket may have more to read: edge-triggered events are told only once.
    is_readable: bool,
    /// The socket may take more.
    is_writable: bool,
    /// The poll tells when the socket takes more.
    is_subscribed_to_writable: bool,
    is_write_shut: bool,
    /// In the table's list of connections with requests.
    pub(super) is_calling: bool,
    /// In the table's list of sockets to read.
    pub(super) is_listed: bool,
    /// In the table's list of connections to look after at the end of the turn.
    pub(super) is_touched: bool,
    /// Given up: the socket is closed at the end of the turn.
    pub(super) is_closing: bool,
    /// What the connection held when it was last looked at, in bytes.
    pub(super) memory_bytes: usize,
}

impl ClientSocket {
    pub(super) fn new(stream: TcpStream, connection: ClientConnection) -> ClientSocket {
        ClientSocket {
            stream,
            connection,
            calls: VecDeque::new(),
            tickets: Vec::new(),
            events: None,
            is_stream_full: false,
            is_writing: false,
            is_readable: false,
            is_writable: true,
            is_subscribed_to_writable: false,
            is_write_shut: false,
            is_calling: false,
            is_listed: false,
            is_touched: false,
            is_closing: false,
            memory_bytes: 0,
        }
    }

    /// Answers leave at once, and the poll tells when something can be read.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        registry.register(&mut self.stream, token, Interest::READABLE)
    }

    pub(super) fn handle_readable(&mut self) {
        self.is_readable = true;
    }

    /// The client closed its side. What it sent before may still have to be read.
    pub(super) fn handle_read_closed(&mut self, now: Millis) {
        self.connection.announce_end(now);
    }

    pub(super) fn handle_writable(&mut self) {
        self.is_writable = true;
    }

    /// Whether reading is possible, as far as known, and wanted.
    pub(super) fn wants_read(&self) -> bool {
        self.is_readable && !self.is_closing && self.connection.wants_input()
    }

    /// Reads up to about `budget` bytes, hands them to the connection, and collects the requests that are complete.
    /// Returns how many bytes there were.
    pub(super) fn read(&mut self, now: Millis, scratch: &mut [u8], budget: usize) -> Result<usize, Broken> {
        let mut total = 0;
        while total < budget && self.wants_read() {
            match self.stream.read(scratch) {
                Ok(0) => {
                    self.is_readable = false;
                    self.connection.receive_end(now);
                }
                Ok(count) => {
                    total += count;
                    self.connection.receive(now, &scratch[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(Broken),
            }
            self.collect_calls(now);
        }
        Ok(total)
    }

    /// Collects the requests that are complete.
    pub(super) fn collect_calls(&mut self, now: Millis) {
        self.calls.extend(std::iter::from_fn(|| self.connection.next_call(now)));
    }

    /// Whether the node may begin with the next request. A request that reads waits until those before it have written,
    /// and one that writes until those before it have read: pipelined requests have the effects they would have one
    /// after the other (RFC 9112, section 9.3.2). Writes keep their order by themselves, and between reads there is none.
    pub(super) fn has_call(&self) -> bool {
        let is_next = |call: &Call| self.tickets.is_empty() || self.is_writing == is_write(call);
        !self.is_closing && self.calls.front().is_some_and(is_next)
    }

    /// The next request, for the node to begin with.
    pub(super) fn take_call(&mut self) -> Option<Call> {
        if !self.has_call() {
            return None;
        }
        let call = self.calls.pop_front()?;
        self.is_writing = is_write(&call);
        Some(call)
    }

    /// Gives the socket what it takes, up to about `budget` bytes. Sending makes room for more requests, which are
    /// collected. Returns whether there is more that the socket may take.
    pub(super) fn write(&mut self, now: Millis, budget: usize) -> Result<bool, Broken> {
        let mut total = 0;
        while self.is_writable && !self.connection.output().is_empty() {
            if total >= budget {
                return Ok(true);
            }
            match self.stream.write(self.connection.output()) {
                Ok(0) => return Err(Broken),
                Ok(count) => {
                    total += count;
                    self.connection.sent(now, count);
                    self.collect_calls(now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken),
            }
        }
        if self.connection.wants_shutdown_write() && !self.is_write_shut {
            self.is_write_shut = true;
            self.stream.shutdown(Shutdown::Write).map_err(|_| Broken)?;
        }
        Ok(false)
    }

    /// The last request is answered with a stream, which may be idle for hours: no memory is kept for requests.
    pub(super) fn begin_stream(&mut self, ticket: Ticket) {
        self.events = Some(ticket);
        self.is_stream_full = true;
        self.calls = VecDeque::new();
        self.tickets.shrink_to_fit();
    }

    /// Bytes were added to the stream, or wait for it.
    pub(super) fn handle_stream_full(&mut self) {
        self.is_stream_full = true;
    }

    /// The stream, after it has drained: less than half of what may wait is left. As long as there is something left, the
    /// next event may be too long for the room, so it is told again when there is more.
    pub(super) fn drained_stream(&mut self) -> Option<Ticket> {
        let unsent = self.connection.stream_unsent_bytes()?;
        if !self.is_stream_full || unsent > WATCH_BUFFER_BYTES_MAX / 2 {
            return None;
        }
        self.is_stream_full = unsent > 0;
        self.events
    }

    /// Asks the poll to tell when a full socket takes more. Sockets that were never full cost nothing.
    pub(super) fn maybe_subscribe_to_writable(
        &mut self,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        if self.is_writable || self.is_subscribed_to_writable {
            return Ok(());
        }
        self.is_subscribed_to_writable = true;
        registry.reregister(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }
}

fn is_write(call: &Call) -> bool {
    matches!(&call.action, Action::Submit { request: Request::Write(_), .. })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::net::api::Render;
    use crate::net::api::follow::Follow;
    use crate::net::event_loop::clients::Waiting;
    use crate::net::watch::{Filter, Format, Hub, Outlets};
    use crate::raft::types::Index;
    use crate::replica::io::{Change, ChangeKind, History, Item, Store};

    const NOW: Millis = Millis(1_000);
    const TICKET: Ticket = Ticket(7);

    impl Outlets<Ticket> for ClientSocket {
        fn unsent_bytes(&self, _id: Ticket) -> Option<usize> {
            self.connection.stream_unsent_bytes()
        }

        fn send(&mut self, now: Millis, _id: Ticket, event: &Arc<[u8]>) {
            self.connection.send_piece(now, event);
            self.handle_stream_full();
        }

        fn close(&mut self, id: Ticket) {
            panic!("{id:?} reads");
        }
    }

    /// A connection with a stream of the changes of all keys.
    fn watching() -> ClientSocket {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connection = ClientConnection::new(NOW, Rc::default());
        let mut socket = ClientSocket::new(TcpStream::from_std(stream), connection);
        socket.connection.receive(NOW, b"GET /v1/storage/keys?watch HTTP/1.1\r\nHost: h\r\n\r\n");
        let Call { id, action } = socket.connection.next_call(NOW).unwrap();
        let Action::Submit { render: Render::Follow(follow), .. } = action else { panic!("{action:?}") };
        let Follow::Watch(watch) = *follow else { panic!("{follow:?}") };
        socket.begin_stream(TICKET);
        socket.connection.respond(NOW, id, watch.response(Index(0)));
        socket
    }

    /// A node's state, and who follows it.
    struct World {
        store: Store,
        history: History,
        hub: Hub<Ticket>,
    }

    impl World {
        fn put(&mut self, bytes: usize) {
            let revision = self.store.applied_index().next();
            let value = vec![b'x'; bytes].into();
            let kind = ChangeKind::Put(Item { value, content_type: None, revision, expires_at: None });
            self.store.pass(revision);
            self.history.push(vec![Change { revision, key: "k".into(), kind, is_last: true }]);
        }

        /// What a turn does when the system takes all that is sent, or nothing.
        fn turn(&mut self, socket: &mut ClientSocket, takes_all: bool) -> usize {
            self.hub.pump(NOW, &self.history, &self.store, socket);
            let mut total = 0;
            while takes_all && !socket.connection.output().is_empty() {
                let count = socket.connection.output().len();
                socket.connection.sent(NOW, count);
                total += count;
            }
            if let Some(ticket) = socket.drained_stream() {
                self.hub.drained(ticket);
            }
            total
        }
    }

    /// An event that was too long for what was left of the buffer is sent when there is room, and not when the next
    /// comment is due.
    #[test]
    fn a_long_event_follows_at_once() {
        let (store, history) = (Store::default(), History::new(Index(0), 1 << 20));
        let hub = Hub::new(&history, &store);
        let mut world = World { store, history, hub };
        let mut socket = watching();
        let (filter, format) = (Filter::prefix(""), Format::ServerSentEvents);
        world.hub.watch(NOW, TICKET, filter, format, None, &world.history, &world.store).unwrap();
        world.turn(&mut socket, true);
        for _ in 0..2 {
            world.put(10_000);
            world.turn(&mut socket, false);
        }
        assert!(socket.connection.stream_unsent_bytes().is_some_and(|unsent| unsent > 20_000));
        world.put(60_000);
        world.turn(&mut socket, false);
        assert!(world.turn(&mut socket, true) < 30_000, "both do not fit");
        assert!(world.turn(&mut socket, true) > 60_000, "there is room");
        assert!(!world.hub.has_work(&world.history));
    }

    /// I10: with what the hub has for it and what tables add, a connection that only watches has at most 2 KiB.
    #[test]
    fn an_idle_connection_is_small() {
        let (socket, waiting) = (size_of::<ClientSocket>(), size_of::<Waiting>());
        assert!(socket + 2 * (waiting + size_of::<Ticket>()) <= 1400, "{socket} and {waiting} bytes");
    }
}
