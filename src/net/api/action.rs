//! What a request asks of the node, and what must be remembered to answer it.

use std::rc::Rc;

use crate::kv::command::{Command, Condition, Matcher, Operation, Requirement, Write};
use crate::net::api::follow::{Follow, Goal, Wait};
use crate::net::api::health::Health;
use crate::replica::io::Request;
use crate::util::time::LogicalTime;

/// What a complete request asks of the node. Whatever needs nothing of the node is answered by the connection itself.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::large_enum_variant, reason = "almost every action is the large one, and none is kept")]
pub enum Action {
    /// Give the request to the replica; [`super::render()`] makes the response out of its reply.
    Submit {
        /// For `Replica::submit`.
        request: Request,
        /// The request's deadline is this many milliseconds from now; without it, the node's usual time.
        timeout_ms: Option<u64>,
        /// For [`super::render()`].
        render: Render,
    },
    /// Describe the cluster with [`super::render_status`]. Answered at once.
    Status(StatusPage),
    /// Say what the node counts with [`super::render_metrics`]. Answered at once.
    Metrics,
    /// Give leadership to another node. Answered with [`super::render_hand_over`] when it leads, or when that came to
    /// nothing.
    HandOver {
        /// Its identity; `None`: whoever is fit.
        to: Option<String>,
        /// See [`Action::Submit`].
        timeout_ms: Option<u64>,
    },
}

impl Action {
    /// Bytes of the keys and values that the request brings.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        match self {
            Action::Submit { request: Request::Write(write), .. } => write.command.value_len(),
            Action::Submit { .. } | Action::Status(_) | Action::Metrics | Action::HandOver { .. } => 0,
        }
    }

    /// Whether many keys may be read: the answer may be long, and take long to make.
    #[must_use]
    pub fn reads_many(&self) -> bool {
        match self {
            Action::Submit { request: Request::List { .. }, .. } => true,
            Action::Submit {
                request: Request::Write(Write { command: Command::Transaction(transaction), .. }),
                ..
            } => {
                let mut operations = transaction.then.iter().chain(transaction.otherwise.iter().flatten());
                operations.any(|operation| matches!(operation, Operation::Get { .. }))
            }
            Action::Submit { render: Render::Follow(follow), .. } => {
                matches!(**follow, Follow::Wait(Wait { goal: Goal::List { .. }, .. }))
            }
            Action::Submit { .. } | Action::Status(_) | Action::Metrics | Action::HandOver { .. } => false,
        }
    }

    /// Whether the answer may come much later, when something changes.
    #[must_use]
    pub fn waits(&self) -> bool {
        match self {
            Action::Submit { render: Render::Follow(follow), .. } => matches!(**follow, Follow::Wait(_)),
            Action::Submit { .. } | Action::Status(_) | Action::Metrics | Action::HandOver { .. } => false,
        }
    }

    /// Whether the response is a stream: nothing can follow it on its connection.
    #[must_use]
    pub fn is_endless(&self) -> bool {
        match self {
            Action::Submit { render: Render::Follow(follow), .. } => matches!(**follow, Follow::Watch(_)),
            Action::Submit { .. } | Action::Status(_) | Action::Metrics | Action::HandOver { .. } => false,
        }
    }
}

/// How a reply of the replica becomes a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Render {
    /// Something was changed.
    Write {
        /// Whether it gives one key a value: that one's new revision is then the response's `ETag`.
        is_put: bool,
        /// For the message when it did not hold. `None` for a write that has an effect in any case.
        wanted: Option<Box<Wanted>>,
    },
    /// A key was read.
    Read {
        /// The key, when its absence is to be reported as an error (404) and not as 204.
        missing_is_error: Option<String>,
        /// `If-Match`: 412 when it does not match.
        if_match: Option<Matcher>,
        /// `If-None-Match`: 304 when it matches.
        if_none_match: Option<Matcher>,
    },
    /// Keys were listed or counted.
    Listing {
        /// In which form.
        form: ListingForm,
        /// `If-Match`: 412 when it does not match the revision.
        if_match: Option<Matcher>,
        /// `If-None-Match`: 304 when it matches the revision.
        if_none_match: Option<Matcher>,
    },
    /// Is the node ready?
    Ready {
        /// Say why not.
        verbose: bool,
    },
    /// What the replica says is only the beginning: a stream of changes, or an answer as soon as something changes.
    Follow(Box<Follow>),
    /// The response is a stream, and was begun.
    Stream,
}

/// What must hold for a write to take effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// This, of this key.
    Condition(String, Condition),
    /// All of these, of these keys. Without the values that were asked for: they may be long.
    Requirements(Vec<(String, Requirement)>),
}

/// What a listing looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListingForm {
    /// A key per line, percent-encoded.
    Text,
    /// An object.
    Json,
}

/// Which description of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatusPage {
    /// Everything, as JSON.
    Cluster,
    /// The leader's identity, as text.
    Leader,
    /// For people with a browser.
    Html,
}

/// What answers say about the node that gives them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeView {
    /// This node's identity. In the head of every answer.
    pub node: Rc<str>,
    /// The identity of the leader, as far as this node knows. In the head of every answer.
    pub leader: Option<Rc<str>>,
    /// How the node is, for `/readyz?verbose`.
    pub health: Health,
    /// The cluster's time as this node knows it, to say how long a key has left.
    pub time: LogicalTime,
}
