//! What everybody may see of a node: its storage, its part in the cluster, how far its log is.

use crate::raft::progress::Progress;
use crate::raft::raft::Raft;
use crate::raft::role::Role;
use crate::raft::storage::Storage;
use crate::raft::types::{Index, NodeId, RoleName, Term};

impl<S: Storage> Raft<S> {
    /// The storage, to read entries from.
    #[must_use]
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The storage, for its housekeeping between turns. The protocol's own data must not be changed.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Gives the storage back.
    #[must_use]
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// This node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// This node's role.
    #[must_use]
    pub fn role(&self) -> RoleName {
        self.role.name()
    }

    /// Whether this node leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The latest term that this node has seen.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Who got this node's vote in the current term.
    #[must_use]
    pub fn vote(&self) -> Option<NodeId> {
        self.hard_state.vote
    }

    /// The known leader of the current term, which may be this node.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::Leader(_) => Some(self.config.id),
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// Whether the known leader's disk is too full for new writes; on the leader, whether its own is.
    #[must_use]
    pub fn leader_is_full(&self) -> bool {
        match &self.role {
            Role::Leader(_) => self.storage.is_full(),
            Role::Follower(follower) => follower.is_full,
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// Known to be committed.
    #[must_use]
    pub fn commit_index(&self) -> Index {
        self.commit_index
    }

    /// The last entry of the log.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.storage.last_index()
    }

    /// The last entry that is durable here.
    #[must_use]
    pub fn synced_index(&self) -> Index {
        self.synced_index
    }

    /// On the leader, what it knows of each peer, by node. Nothing elsewhere.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, &Progress)> {
        let progress = match &self.role {
            Role::Leader(leader) => Some(&leader.progress),
            _ => None,
        };
        progress.into_iter().flatten().map(|(node, progress)| (*node, progress))
    }
}
