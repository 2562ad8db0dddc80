//! The four roles, each with the state that belongs to it, so that none of it survives a change of role.

use std::collections::BTreeMap;

use crate::raft::progress::Progress;
use crate::raft::read_queue::ReadQueue;
use crate::raft::types::{Index, NodeId, RoleName};
use crate::util::time::Millis;

/// This node's role in its current term.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Follower(Follower),
    PreCandidate(Election),
    Candidate(Election),
    Leader(Leader),
}

#[derive(Clone, Debug)]
pub(super) struct Follower {
    /// Who leads this term, once a message of the leader has come.
    pub(super) leader: Option<NodeId>,
    /// The leader's disk is full, as it said last.
    pub(super) is_full: bool,
}

impl Follower {
    /// Follows `leader`, of which nothing else is known.
    pub(super) fn of(leader: Option<NodeId>) -> Follower {
        Follower { leader, is_full: false }
    }
}

/// A pre-vote or a vote that is being held.
#[derive(Clone, Debug, Default)]
pub(super) struct Election {
    pub(super) votes: BTreeMap<NodeId, bool>,
}

#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) progress: BTreeMap<NodeId, Progress>,
    pub(super) reads: ReadQueue,
    pub(super) heartbeat_deadline: Millis,
    /// The entry that began the leadership.
    pub(super) noop_index: Index,
    pub(super) transfer: Option<Transfer>,
    /// With a full disk: not before this time does the leader look for a successor again.
    pub(super) full_deadline: Millis,
}

/// Leadership is being handed over.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    /// Given up then.
    pub(super) deadline: Millis,
    /// TimeoutNow was sent.
    pub(super) told: bool,
}

impl Role {
    pub(super) fn name(&self) -> RoleName {
        match self {
            Role::Follower(_) => RoleName::Follower,
            Role::PreCandidate(_) => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }
}
