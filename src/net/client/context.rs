//! What all client connections share.

use std::cell::RefCell;
use std::rc::Rc;

use crate::limits;
use crate::net::api::NodeView;
use crate::net::http::date::HttpDate;
use crate::net::http::response::Response;
use crate::net::metrics::{Responses, Traffic};

/// Shared by all client connections of a node, behind an `Rc`.
#[derive(Debug, Default)]
pub struct ClientContext {
    /// The bounds.
    pub limits: ClientLimits,
    /// For the `Date` header: call [`HttpDate::set`] with the wall-clock second at the start of every turn.
    pub date: HttpDate,
    /// For the heads of answers that a connection gives without asking the node.
    pub names: Names,
    /// Requests that were answered.
    pub responses: Responses,
    /// What all connections together have read and written.
    pub traffic: Traffic,
}

/// The names in the head of every answer. The event loop sets them, every connection reads them.
#[derive(Debug, Default)]
pub struct Names {
    node: RefCell<Option<Rc<str>>>,
    leader: RefCell<Option<Rc<str>>>,
}

impl Names {
    /// From now on these.
    pub fn set(&self, view: &NodeView) {
        self.node.replace(Some(Rc::clone(&view.node)));
        self.leader.replace(view.leader.clone());
    }

    /// Puts the names into an answer that the node knows nothing of.
    pub(super) fn sign(&self, response: &mut Response) {
        if response.node.is_none() {
            response.node.clone_from(&self.node.borrow());
            response.leader.clone_from(&self.leader.borrow());
        }
    }
}

/// Bounds of a client connection that an operator may want to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientLimits {
    /// Longest value, in bytes. At most `limits::VALUE_BYTES_MAX`.
    pub value_bytes_max: usize,
    /// A request's head must be complete this many milliseconds after its first byte.
    pub head_ms: u64,
    /// No pause between two bytes of a body, or between two writes of a response, may be longer, in milliseconds.
    pub stall_ms: u64,
    /// A connection without a request is closed after this many milliseconds.
    pub idle_ms: u64,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            value_bytes_max: limits::VALUE_BYTES_DEFAULT,
            head_ms: 10_000,
            stall_ms: 30_000,
            idle_ms: 120_000,
        }
    }
}
