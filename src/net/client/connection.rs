//! The connection itself.

use std::rc::Rc;

use crate::net::api::Action;
use crate::net::client::context::ClientContext;
use crate::net::http::response::Response;
use crate::util::time::Millis;

/// A connection's name for one of its requests. Counts up; unique within the connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct CallId(pub u64);

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
/// Calling order: after `receive`, `receive_end`, `respond`, `sent` and `handle_deadline`, call `next_call` until it
/// returns `None`; then write `output` to the socket and report with `sent`; then look at `wants_input`,
/// `wants_shutdown_write`, `is_finished` and `next_deadline`.
#[derive(Debug)]
pub struct ClientConnection {
    context: Rc<ClientContext>,
}

impl ClientConnection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(now: Millis, context: Rc<ClientContext>) -> ClientConnection {
        let _ = now;
        ClientConnection { context }
    }

    /// A connection that gets one answer, 503, and is closed: there are too many.
    #[must_use]
    pub fn refused(now: Millis, context: Rc<ClientContext>) -> ClientConnection {
        let _ = now;
        ClientConnection { context }
    }

    /// Takes bytes that were read from the socket.
    pub fn receive(&mut self, now: Millis, bytes: &[u8]) {
        let _ = (now, bytes);
    }

    /// The client will send nothing more (FIN). It may still read.
    pub fn receive_end(&mut self, now: Millis) {
        let _ = now;
    }

    /// The next complete request that needs the node.
    pub fn next_call(&mut self, now: Millis) -> Option<Call> {
        let _ = (now, &self.context);
        None
    }

    /// Takes the response to a call. Calls may be answered in any order; responses leave in the order of requests.
    pub fn respond(&mut self, now: Millis, id: CallId, response: Response) {
        let _ = (now, id, response);
    }

    /// Bytes for the socket. There may be more after these were sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &[]
    }

    /// The socket took `count` bytes of `output`.
    pub fn sent(&mut self, now: Millis, count: usize) {
        let _ = (now, count);
    }

    /// Whether to read from the socket. False: too much waits already; look again after `respond` or `sent`.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        true
    }

    /// Everything was sent: shut down the writing half of the socket, once. Input is thrown away for a while, so that
    /// the client sees the last response and not a reset (RFC 9112, section 9.6).
    #[must_use]
    pub fn wants_shutdown_write(&self) -> bool {
        false
    }

    /// Close the socket and drop the connection.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        false
    }

    /// When `handle_deadline` wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Millis {
        Millis::NEVER
    }

    /// Time has passed. Does nothing before `next_deadline`.
    pub fn handle_deadline(&mut self, now: Millis) {
        let _ = now;
    }

    /// Answers what was received, then closes.
    pub fn start_shutdown(&mut self, now: Millis) {
        let _ = now;
    }

    /// Memory this connection holds in buffers and unsent responses, in bytes. Values shared with the store count.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        0
    }
}
