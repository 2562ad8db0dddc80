//! The connection itself: reading, answering, and how it ends.

use std::rc::Rc;
use std::sync::Arc;

use crate::limits::{LINGER_BYTES_MAX, LINGER_MS, SHUTDOWN_LAST_CALL_MS};
use crate::net::api::Action;
use crate::net::client::context::ClientContext;
use crate::net::client::inbox::{Event, Inbox};
use crate::net::client::outbox::{CallId, Outbox};
use crate::net::http::problem::Problem;
use crate::net::http::response::{Persistence, Response};
use crate::net::http::status::Status;
use crate::util::time::Millis;

/// A complete request that the node must carry out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// To be handed back with the response.
    pub id: CallId,
    /// What to do.
    pub action: Action,
}

/// One client's connection as a state machine over bytes.
///
/// Calling order:
/// 1. `receive`, `receive_end`, `respond`, `sent`, `handle_deadline`, `start_shutdown`, as things happen;
/// 2. after any of them, `next_call` until it returns `None`;
/// 3. write `output` to the socket and report with `sent`, until it is empty or the socket is full;
/// 4. look at `is_finished`, `wants_shutdown_write`, `wants_input` and `next_deadline`.
///
/// It ends in stages, as RFC 9112, section 9.6 asks: the last response says `Connection: close`; when it was sent the
/// writing half of the socket is shut down; until the client closes its side, or for a bounded time, input is thrown
/// away, as closing a socket with unread input would reset it and could destroy the response on its way.
#[derive(Debug)]
pub struct ClientConnection {
    context: Rc<ClientContext>,
    inbox: Inbox,
    outbox: Outbox,
    /// When bytes last went in either direction.
    last_activity: Millis,
    /// The client sends nothing more.
    input_ended: bool,
    /// What the client has sent is all that it sends, received or not.
    end_announced: bool,
    is_shutting_down: bool,
    /// The node stops and no request is here: until then one may come.
    last_call_by: Option<Millis>,
    linger: Option<Linger>,
    is_finished: bool,
}

/// The last stage: everything was sent, input is thrown away.
#[derive(Debug)]
struct Linger {
    until: Millis,
    bytes_left: usize,
}

impl ClientConnection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(now: Millis, context: Rc<ClientContext>) -> ClientConnection {
        ClientConnection {
            context,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            last_activity: now,
            input_ended: false,
            end_announced: false,
            is_shutting_down: false,
            last_call_by: None,
            linger: None,
            is_finished: false,
        }
    }

    /// A connection that gets one answer, 503, and is closed: there are too many.
    #[must_use]
    pub fn refused(now: Millis, context: Rc<ClientContext>) -> ClientConnection {
        let mut connection = ClientConnection::new(now, context);
        connection.fail(&Problem::new(
            Status::ServiceUnavailable,
            "too-many-connections",
            "this node has too many connections; try again in a moment, or use another node",
        ));
        connection.settle(now);
        connection
    }

    /// Takes bytes that were read from the socket.
    pub fn receive(&mut self, now: Millis, bytes: &[u8]) {
        self.last_activity = now;
        self.context.traffic.add_received(bytes.len());
        if let Some(linger) = &mut self.linger {
            linger.bytes_left = linger.bytes_left.saturating_sub(bytes.len());
            self.is_finished |= linger.bytes_left == 0;
        }
        self.inbox.receive(now, bytes);
    }

    /// The client will send nothing more (FIN). It may still read.
    pub fn receive_end(&mut self, now: Millis) {
        self.input_ended = true;
        self.announce_end(now);
    }

    /// The client will send nothing behind what it has sent (FIN), some of which may not have been received yet. It may
    /// still read.
    pub fn announce_end(&mut self, now: Millis) {
        self.end_announced = true;
        // Nobody watches any more. Who only closed one side cannot be told from who went away.
        self.is_finished |= self.outbox.is_streaming();
        self.settle(now);
    }

    /// The next complete request that needs the node.
    pub fn next_call(&mut self, now: Millis) -> Option<Call> {
        let call = self.find_call(now);
        self.settle(now);
        call
    }

    fn find_call(&mut self, now: Millis) -> Option<Call> {
        loop {
            // A body is always read on: its request was let in already.
            if self.outbox.is_full() && !self.inbox.has_body() {
                self.inbox.pause();
                return None;
            }
            let value_bytes_max = self.context.limits.value_bytes_max;
            match self.inbox.next_event(now, value_bytes_max, self.input_ended)? {
                Event::Call { action, mut persistence, is_head } => {
                    self.last_call_by = None;
                    if action.is_endless() {
                        // Nothing can follow it, and nothing behind it is read.
                        persistence = Persistence::Close;
                        self.inbox.end();
                    }
                    self.outbox.set_owes_continue(false);
                    let id = self.outbox.open(persistence, is_head, &action);
                    return Some(Call { id, action });
                }
                event => self.take_event(event),
            }
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Answer { mut response, persistence, is_head } => {
                self.context.names.sign(&mut response);
                self.context.responses.count(response.status);
                self.last_call_by = None;
                self.outbox.set_owes_continue(false);
                self.outbox.open_answered(persistence, is_head, response);
            }
            Event::ContinueWanted => self.outbox.set_owes_continue(true),
            Event::Nothing => {}
            Event::Call { .. } => unreachable!("calls are handed to the node"),
        }
    }

    /// Takes the response to a call. Calls may be answered in any order; responses leave in the order of requests.
    ///
    /// # Panics
    /// When the call was answered before, or is not one of this connection.
    pub fn respond(&mut self, now: Millis, id: CallId, response: Response) {
        if !self.is_finished {
            self.context.responses.count(response.status);
            self.outbox.answer(id, response);
            self.settle(now);
        }
    }

    /// Whether a stream is open: a response with [`Body::Stream`](crate::net::http::response::Body::Stream) was given, and
    /// all responses before it were written.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        !self.is_finished && self.outbox.is_streaming()
    }

    /// Bytes that wait to be sent in front of the stream's next piece. `None`: it takes none at this moment.
    #[must_use]
    pub fn stream_unsent_bytes(&self) -> Option<usize> {
        self.outbox.stream_unsent_bytes().filter(|_| !self.is_finished)
    }

    /// Sends a piece of the stream.
    ///
    /// # Panics
    /// When the stream takes none, or the piece is empty.
    pub fn send_piece(&mut self, now: Millis, piece: &Arc<[u8]>) {
        self.outbox.send_piece(now, piece);
    }

    /// Breaks the stream off: its end does not look like one.
    pub fn abort_stream(&mut self) {
        self.is_finished = true;
    }

    /// Bytes for the socket. There may be more after these were sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.outbox.output()
    }

    /// The socket took `count` bytes of `output`.
    ///
    /// # Panics
    /// When there were fewer.
    pub fn sent(&mut self, now: Millis, count: usize) {
        self.last_activity = now;
        self.context.traffic.add_sent(count);
        self.outbox.sent(now, count);
        self.settle(now);
    }

    /// Whether to read from the socket. False: too much waits already; look again after `respond` or `sent`.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        if self.is_finished || self.input_ended {
            false
        } else if self.linger.is_some() || self.inbox.has_body() || self.outbox.is_streaming() {
            // Behind a stream, only to see the end: what comes is thrown away.
            true
        } else {
            let takes_requests = !self.is_shutting_down || self.last_call_by.is_some();
            !self.inbox.is_ended() && takes_requests && !self.outbox.is_full()
        }
    }

    /// Everything was sent: shut down the writing half of the socket, once. Go on reading while `wants_input`.
    #[must_use]
    pub fn wants_shutdown_write(&self) -> bool {
        self.linger.is_some() && !self.is_finished
    }

    /// Close the socket and drop the connection. Calls without a response need none any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// When `handle_deadline` wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Millis {
        if self.is_finished {
            return Millis::NEVER;
        }
        if let Some(linger) = &self.linger {
            return linger.until;
        }
        let last_call = self.last_call_by.filter(|_| !self.inbox.has_body()).unwrap_or(Millis::NEVER);
        self.outbox.deadline(self.context.limits.stall_ms).min(self.input_deadline()).min(last_call)
    }

    /// While a request waits for the node, reading is paused or the client waits for `100 Continue`, it has all the
    /// time.
    fn input_deadline(&self) -> Millis {
        let limits = &self.context.limits;
        if !self.wants_input() || self.outbox.owes_continue() {
            return Millis::NEVER;
        }
        if let Some(deadline) = self.inbox.deadline(limits.head_ms, limits.stall_ms) {
            return deadline;
        }
        if !self.outbox.is_empty() {
            return Millis::NEVER;
        }
        let patience_ms =
            if self.inbox.had_head() { limits.idle_ms } else { limits.head_ms.min(limits.idle_ms) };
        self.last_activity.after(patience_ms)
    }

    /// Time has passed. Does nothing before `next_deadline`.
    pub fn handle_deadline(&mut self, now: Millis) {
        if now < self.next_deadline() {
            return;
        }
        let is_too_late = self.last_call_by.is_some_and(|until| until <= now);
        let is_reading = self.inbox.has_body() || self.inbox.has_partial_head() && !is_too_late;
        if self.linger.is_some() || self.outbox.deadline(self.context.limits.stall_ms) <= now || !is_reading {
            // The client is gone, or has nothing to say. An idle connection is closed without a word.
            self.is_finished = true;
            return;
        }
        self.fail(&Problem::new(
            Status::RequestTimeout,
            "request-timeout",
            "the request came too slowly and was dropped; send it again",
        ));
        self.settle(now);
    }

    /// Answers what was received completely, then closes. A request that is only half there is refused. Without any
    /// request, one that was on its way is waited for: a socket that is closed with unread input is reset, and the
    /// client could not tell whether its request had an effect.
    pub fn start_shutdown(&mut self, now: Millis) {
        self.is_shutting_down = true;
        self.outbox.end_stream(now);
        if self.inbox.has_body() {
            self.fail(&Problem::new(
                Status::ServiceUnavailable,
                "stopping",
                "this node is stopping; send the request to another node",
            ));
        } else if self.outbox.is_empty() && self.linger.is_none() {
            self.last_call_by = Some(now.after(SHUTDOWN_LAST_CALL_MS));
        }
        self.settle(now);
    }

    /// Memory this connection holds in buffers, requests and unsent responses, in bytes. A value counts by the share
    /// that this connection has in it, next to the store and to others that read it.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.inbox.memory_bytes() + self.outbox.memory_bytes()
    }

    fn fail(&mut self, problem: &Problem) {
        let event = self.inbox.fail(problem);
        self.take_event(event);
    }

    /// Writes the responses whose turn it is, and takes the next step of ending.
    fn settle(&mut self, now: Millis) {
        // During a shutdown the last request that was read is the last one answered.
        let is_last = self.is_shutting_down && !self.inbox.has_body() && self.last_call_by.is_none();
        let owed_continue = self.outbox.owes_continue();
        self.outbox.pump(now, &self.context.date, is_last);
        if self.outbox.is_streaming() && (self.is_shutting_down || self.end_announced) {
            self.outbox.end_stream(now);
        }
        if owed_continue && !self.outbox.owes_continue() {
            self.inbox.restart_body(now);
        }
        if is_last && self.outbox.has_no_requests() {
            self.inbox.end();
        }
        if self.inbox.is_ended() && self.outbox.is_empty() && self.linger.is_none() {
            self.linger = Some(Linger { until: now.after(LINGER_MS), bytes_left: LINGER_BYTES_MAX });
        }
        self.is_finished |= self.linger.is_some() && self.input_ended;
        // Nobody waits any more, as with a stream. Nobody is kept from closing one side behind other requests.
        self.is_finished |= self.end_announced && self.outbox.only_waits();
    }
}
