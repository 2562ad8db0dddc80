//! STUB for helpers: the public interface of the protocol core; the real file replaces it.
#![allow(missing_docs, clippy::todo, unused_variables)]
use crate::raft::message::{Envelope, ReadContext};
use crate::raft::storage::{Storage, StorageError};
use crate::raft::types::{EntryId, Index, NodeId, Term};
use crate::util::time::Millis;

pub struct Config {
    pub id: NodeId,
    /// All voters, this node included.
    pub voters: Vec<NodeId>,
    pub election_timeout_ms: u64,
    pub heartbeat_interval_ms: u64,
    /// For time-outs.
    pub seed: u64,
}

pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

#[derive(Debug)]
pub enum ProposeError {
    /// Not the leader (any more). Nothing was appended.
    NotLeader,
    /// The leader, but busy handing leadership over: try again when that ended either way (role/term change, or
    /// `is_transferring()` turns false). Nothing was appended.
    Transferring,
    Storage(StorageError),
}

#[must_use]
#[derive(Default, Debug)]
pub struct Synced {
    /// Promises (current term only).
    pub messages: Vec<Envelope>,
    /// Entries up to here are committed and durable here: they may be applied (in order). Never goes back.
    pub committed: Index,
    /// Contexts given to `read_index` that are confirmed: once `index` is applied, answer.
    pub reads: Vec<(ReadContext, Index)>,
}

pub struct Raft<S: Storage> {
    storage: S,
}

impl<S: Storage> Raft<S> {
    pub fn new(config: Config, storage: S, now: Millis) -> Result<Raft<S>, StorageError> {
        todo!()
    }
    /// All messages but Forward (the replica handles that one itself). An envelope from a non-voter is ignored.
    pub fn step(&mut self, now: Millis, envelope: Envelope) -> Result<(), StorageError> {
        todo!()
    }
    /// Leader only. The entry is in the log (not durable) on return.
    pub fn propose(&mut self, payload: &[u8]) -> Result<EntryId, ProposeError> {
        todo!()
    }
    /// Leader: registers a read round. Follower with a known leader: sends ReadIndex to it. Returns false when no
    /// leader is known or too many contexts wait: try again after the next leader change / confirmation.
    /// Contexts in flight are silently dropped when the role, term or leader changes, and may be lost when the link
    /// to the leader is re-established: the caller then asks again with a new context.
    pub fn read_index(&mut self, context: ReadContext) -> bool {
        todo!()
    }
    pub fn handle_deadline(&mut self, now: Millis) -> Result<(), StorageError> {
        todo!()
    }
    pub fn next_deadline(&self) -> Millis {
        todo!()
    }
    /// A new connection to the peer stands; what was in flight on the old one may be lost.
    pub fn handle_peer_connected(&mut self, now: Millis, peer: NodeId) {
        todo!()
    }
    /// The peer's process is known to have ended (a hint; safety never depends on it).
    pub fn handle_peer_lost(&mut self, now: Millis, peer: NodeId) {
        todo!()
    }
    /// Leader: hand over to the best follower. No-op elsewhere or alone. Ends by a role change or after one election timeout.
    pub fn transfer_leadership(&mut self, now: Millis) {
        todo!()
    }
    pub fn is_transferring(&self) -> bool {
        todo!()
    }
    /// Messages that may leave before this turn's sync; builds one batched AppendEntries per peer, heartbeats, ReadIndex...
    pub fn drain_immediate(&mut self, now: Millis, out: &mut Vec<Envelope>) -> Result<(), StorageError> {
        todo!()
    }
    pub fn sync(&mut self, now: Millis) -> Result<Synced, StorageError> {
        todo!()
    }
    /// Writes the commit index into the hard state, durably: for a clean stop.
    pub fn checkpoint(&mut self) -> Result<(), StorageError> {
        todo!()
    }
    pub fn storage(&self) -> &S {
        &self.storage
    }
    pub fn into_storage(self) -> S {
        self.storage
    }
    pub fn id(&self) -> NodeId {
        todo!()
    }
    pub fn role(&self) -> Role {
        todo!()
    }
    pub fn is_leader(&self) -> bool {
        todo!()
    }
    pub fn term(&self) -> Term {
        todo!()
    }
    /// The known leader of the current term (this node itself when leader).
    pub fn leader(&self) -> Option<NodeId> {
        todo!()
    }
    pub fn commit_index(&self) -> Index {
        todo!()
    }
    pub fn last_index(&self) -> Index {
        todo!()
    }
    /// On the leader: (peer, match_index, last contact) of each peer.
    pub fn peers(&self) -> Vec<(NodeId, Index, Option<Millis>)> {
        todo!()
    }
}
