//! Which writes were applied: per origin node, the newest one. It is what makes sending a write again safe.
//!
//! A node numbers the writes of its clients 1, 2, 3, ... within one life of its process, and offers them to every
//! leader in that order. So the log may hold a write twice (sent again after a leader change), or out of order (the
//! first copy was lost, a later write was not), but the state machine executes a write only if it is newer than every
//! write of the same node that it has seen. Hence nothing runs twice; and a write that was overtaken never runs at
//! all, which its origin can tell its client for certain.

use std::collections::BTreeMap;

use crate::raft::types::{Incarnation, NodeId};
use crate::util::mutation::mutant;

/// A write's name, unique over all nodes and restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteId {
    /// The node whose client wrote.
    pub origin: NodeId,
    /// That node's start counter.
    pub incarnation: Incarnation,
    /// Counts up from 1 within the incarnation.
    pub seq: u64,
}

/// The newest write seen of each origin. One line per node that ever was a member.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sessions {
    newest: BTreeMap<NodeId, (Incarnation, u64)>,
}

impl Sessions {
    /// Whether this write is newer than every write of its origin noted so far.
    #[must_use]
    pub fn is_newer(&self, id: WriteId) -> bool {
        if mutant("dedupe-ignores-incarnation") {
            return self.newest.get(&id.origin).is_none_or(|newest| id.seq > newest.1);
        }
        self.newest.get(&id.origin).is_none_or(|newest| (id.incarnation, id.seq) > *newest)
    }

    /// Notes the write if it is newer; says whether it was.
    pub fn advance(&mut self, id: WriteId) -> bool {
        let newer = self.is_newer(id);
        if newer {
            self.newest.insert(id.origin, (id.incarnation, id.seq));
        }
        newer
    }

    /// Every origin with its newest write, in the order of the origins.
    pub fn iter(&self) -> impl Iterator<Item = WriteId> {
        self.newest.iter().map(|(origin, (incarnation, seq))| WriteId {
            origin: *origin,
            incarnation: *incarnation,
            seq: *seq,
        })
    }

    /// The newest write of an origin.
    #[must_use]
    pub fn newest(&self, origin: NodeId) -> Option<(Incarnation, u64)> {
        self.newest.get(&origin).copied()
    }

    /// The origin that comes last in [`Sessions::iter`].
    #[must_use]
    pub fn last_origin(&self) -> Option<NodeId> {
        self.newest.last_key_value().map(|(origin, _)| *origin)
    }

    /// How many origins there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.newest.len()
    }
}
