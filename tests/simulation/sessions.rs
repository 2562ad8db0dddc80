//! A node's HTTP connections over the simulated network: the production connection code, and a table that treats it as
//! `keva::net::event_loop::clients` does.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use keva::limits::WATCH_BUFFER_BYTES_MAX;
use keva::net::api::{Action, Render};
use keva::net::client::{Call, CallId, ClientConnection, ClientContext, ClientLimits};
use keva::net::http::response::Response;
use keva::net::watch::Outlets;
use keva::replica::io::{Request, Ticket};
use keva::util::time::Millis;

use crate::env::Env;
use crate::network::{ReadEnd, Socket, Status};

struct Session {
    connection: ClientConnection,
    calls: VecDeque<Call>,
    tickets: Vec<Ticket>,
    events: Option<Ticket>,
    is_stream_full: bool,
    is_writing: bool,
    is_readable: bool,
    is_write_shut: bool,
    is_closing: bool,
}

/// Who gets the answer to a ticket.
pub(crate) struct Waiting {
    pub(crate) socket: Socket,
    pub(crate) call: CallId,
    pub(crate) render: Render,
    pub(crate) deadline: Millis,
}

/// All client connections of one process.
pub(crate) struct Sessions {
    context: Rc<ClientContext>,
    table: BTreeMap<Socket, Session>,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: u64,
    cancelled: Vec<Ticket>,
    drained: Vec<Ticket>,
    /// Streams that were closed because their readers were too slow.
    pub(crate) broken_off: u64,
    scratch: Vec<u8>,
}

impl Sessions {
    pub(crate) fn new(value_bytes_max: usize) -> Sessions {
        let limits = ClientLimits { value_bytes_max, ..ClientLimits::default() };
        Sessions {
            context: Rc::new(ClientContext { limits, ..ClientContext::default() }),
            table: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_ticket: 1,
            cancelled: Vec::new(),
            drained: Vec::new(),
            broken_off: 0,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn accept(&mut self, now: Millis, socket: Socket) {
        let session = Session {
            connection: ClientConnection::new(now, Rc::clone(&self.context)),
            calls: VecDeque::new(),
            tickets: Vec::new(),
            events: None,
            is_stream_full: false,
            is_writing: false,
            is_readable: true,
            is_write_shut: false,
            is_closing: false,
        };
        self.table.insert(socket, session);
    }

    /// The network reports something about a connection.
    pub(crate) fn handle_event(&mut self, env: &Env, now: Millis, socket: Socket) {
        if env.network.status(socket) != Status::Open {
            self.close(socket);
        } else if let Some(session) = self.table.get_mut(&socket) {
            session.is_readable = true;
            if env.network.is_ended(socket) {
                session.connection.announce_end(now);
            }
        }
    }

    /// Reads what came.
    pub(crate) fn read(&mut self, env: &mut Env, now: Millis) {
        let mut broken = Vec::new();
        for (socket, session) in &mut self.table {
            if !session.is_readable || session.is_closing || !session.connection.wants_input() {
                continue;
            }
            session.is_readable = false;
            self.scratch.clear();
            match env.network.read(*socket, &mut self.scratch) {
                ReadEnd::Empty => session.receive(now, &self.scratch),
                ReadEnd::Ended => {
                    session.receive(now, &self.scratch);
                    session.connection.receive_end(now);
                    session.collect_calls(now);
                }
                ReadEnd::Broken | ReadEnd::Refused => broken.push(*socket),
            }
        }
        for socket in broken {
            self.close(socket);
        }
    }

    /// The next request for the node.
    pub(crate) fn take_call(&mut self) -> Option<(Socket, Call)> {
        self.table.iter_mut().find_map(|(socket, session)| Some((*socket, session.take_call()?)))
    }

    pub(crate) fn open_ticket(
        &mut self,
        socket: Socket,
        call: CallId,
        render: Render,
        deadline: Millis,
    ) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.table.get_mut(&socket).expect("its request was just taken").tickets.push(ticket);
        self.waiting.insert(ticket, Waiting { socket, call, render, deadline });
        ticket
    }

    pub(crate) fn take_waiting(&mut self, ticket: Ticket) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        let session =
            self.table.get_mut(&waiting.socket).expect("tickets of closed connections are forgotten");
        session.tickets.retain(|open| *open != ticket);
        Some(waiting)
    }

    pub(crate) fn respond(&mut self, now: Millis, socket: Socket, call: CallId, response: Response) {
        let Some(session) = self.table.get_mut(&socket).filter(|session| !session.is_closing) else { return };
        session.connection.respond(now, call, response);
        session.collect_calls(now);
    }

    pub(crate) fn handle_deadline(&mut self, now: Millis) {
        for session in self.table.values_mut() {
            if session.connection.next_deadline() <= now {
                session.connection.handle_deadline(now);
                session.collect_calls(now);
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Millis {
        self.table.values().map(|session| session.connection.next_deadline()).min().unwrap_or(Millis::NEVER)
    }

    pub(crate) fn write(&mut self, env: &mut Env, now: Millis) {
        let mut finished = Vec::new();
        for (socket, session) in &mut self.table {
            if session.is_closing {
                continue;
            }
            while !session.connection.output().is_empty() {
                let count = env.network.write(*socket, session.connection.output());
                if count == 0 {
                    break;
                }
                session.connection.sent(now, count);
                session.collect_calls(now);
            }
            if session.connection.wants_shutdown_write() && !session.is_write_shut {
                session.is_write_shut = true;
                env.network.shut_write(*socket);
            }
            if session.connection.is_finished() {
                finished.push(*socket);
            }
            self.drained.extend(session.drained_stream());
        }
        for socket in finished {
            self.close(socket);
        }
    }

    fn close(&mut self, socket: Socket) {
        let Some(session) = self.table.get_mut(&socket).filter(|session| !session.is_closing) else { return };
        session.is_closing = true;
        for ticket in std::mem::take(&mut session.tickets) {
            self.waiting.remove(&ticket);
            self.cancelled.push(ticket);
        }
    }

    pub(crate) fn reap(&mut self, env: &mut Env) -> Vec<Ticket> {
        self.table.retain(|socket, session| {
            if session.is_closing {
                env.network.close(*socket);
            }
            !session.is_closing
        });
        std::mem::take(&mut self.cancelled)
    }

    pub(crate) fn has_work(&self) -> bool {
        self.table.values().any(|session| {
            session.has_call()
                || (session.is_readable && !session.is_closing && session.connection.wants_input())
        })
    }

    pub(crate) fn start_shutdown(&mut self, now: Millis) {
        for session in self.table.values_mut() {
            session.connection.start_shutdown(now);
            session.collect_calls(now);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Keeps a ticket open that was taken: the answer comes later.
    pub(crate) fn put_back(&mut self, ticket: Ticket, waiting: Waiting) {
        let session = self.table.get_mut(&waiting.socket).expect("its ticket was just taken");
        session.tickets.push(ticket);
        self.waiting.insert(ticket, waiting);
    }

    /// Answers a request with a stream. Its ticket stays open until the connection ends.
    pub(crate) fn begin_stream(&mut self, now: Millis, ticket: Ticket, waiting: Waiting, response: Response) {
        let (socket, call) = (waiting.socket, waiting.call);
        self.put_back(ticket, Waiting { deadline: Millis::NEVER, ..waiting });
        let session = self.table.get_mut(&socket).expect("its ticket was just taken");
        (session.events, session.is_stream_full) = (Some(ticket), true);
        self.respond(now, socket, call, response);
    }

    /// Streams that take more than they did.
    pub(crate) fn take_drained(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.drained)
    }

    fn streaming(&self, ticket: Ticket) -> Option<&Session> {
        self.table.get(&self.waiting.get(&ticket)?.socket).filter(|session| !session.is_closing)
    }

    fn streaming_mut(&mut self, ticket: Ticket) -> Option<&mut Session> {
        self.table.get_mut(&self.waiting.get(&ticket)?.socket).filter(|session| !session.is_closing)
    }

    /// The earliest time by which a request must be answered.
    pub(crate) fn earliest_deadline(&self) -> Millis {
        self.waiting.values().map(|waiting| waiting.deadline).min().unwrap_or(Millis::NEVER)
    }

    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }
}

impl Outlets<Ticket> for Sessions {
    fn unsent_bytes(&self, id: Ticket) -> Option<usize> {
        self.streaming(id)?.connection.stream_unsent_bytes()
    }

    fn send(&mut self, now: Millis, id: Ticket, event: &Arc<[u8]>) {
        if let Some(session) = self.streaming_mut(id) {
            session.connection.send_piece(now, event);
            session.is_stream_full = true;
        }
    }

    fn close(&mut self, id: Ticket) {
        self.broken_off += 1;
        if let Some(session) = self.streaming_mut(id) {
            session.connection.abort_stream();
        }
    }
}

impl Session {
    /// As in `keva::net::event_loop`: the stream, after it has drained.
    fn drained_stream(&mut self) -> Option<Ticket> {
        let unsent = self.connection.stream_unsent_bytes()?;
        if !self.is_stream_full || unsent > WATCH_BUFFER_BYTES_MAX / 2 {
            return None;
        }
        self.is_stream_full = unsent > 0;
        self.events
    }

    fn receive(&mut self, now: Millis, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.connection.receive(now, bytes);
        }
        self.collect_calls(now);
    }

    fn collect_calls(&mut self, now: Millis) {
        self.calls.extend(std::iter::from_fn(|| self.connection.next_call(now)));
    }

    fn has_call(&self) -> bool {
        let is_next = |call: &Call| self.tickets.is_empty() || self.is_writing == is_write(call);
        !self.is_closing && self.calls.front().is_some_and(is_next)
    }

    fn take_call(&mut self) -> Option<Call> {
        if !self.has_call() {
            return None;
        }
        let call = self.calls.pop_front()?;
        self.is_writing = is_write(&call);
        Some(call)
    }
}

fn is_write(call: &Call) -> bool {
    matches!(&call.action, Action::Submit { request: Request::Write(_), .. })
}
