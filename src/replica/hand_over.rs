//! Handing leadership over because somebody asks for it.

use crate::raft::storage::Storage;
use crate::raft::types::NodeId;
use crate::replica::replica::Replica;
use crate::util::time::Millis;

/// Why leadership is not handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandOverError {
    /// This node does not lead.
    NotLeader,
    /// It leads since a moment ago, and does not know yet how far the others are.
    TooEarly,
    /// It is being handed over already, to another node.
    Busy,
    /// The node that is to take over was not heard from lately, or no node was.
    NoSuccessor,
}

impl<S: Storage> Replica<S> {
    /// Begins to hand leadership over: to this node, or to the one that lacks the least. Gives who it is. Until it leads,
    /// or an election timeout is over, writes wait. Repeating it changes nothing.
    ///
    /// # Errors
    /// Nothing was begun.
    pub fn transfer_leadership_to(
        &mut self,
        now: Millis,
        to: Option<NodeId>,
    ) -> Result<NodeId, HandOverError> {
        if !self.raft.is_leader() {
            return Err(HandOverError::NotLeader);
        }
        if to == Some(self.id) {
            return Ok(self.id);
        }
        if !self.has_committed_in_term() {
            return Err(HandOverError::TooEarly);
        }
        match to {
            Some(to) => self.raft.transfer_leadership_to(now, to),
            None => self.raft.transfer_leadership(now),
        }
        match self.raft.successor() {
            Some(successor) if to.is_none_or(|to| to == successor) => Ok(successor),
            Some(_) => Err(HandOverError::Busy),
            None => Err(HandOverError::NoSuccessor),
        }
    }

    /// Whether leadership is being handed over.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.raft.is_transferring()
    }
}
