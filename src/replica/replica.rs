//! STUB for helpers: the public interface of the replica; the real file replaces it.
#![allow(missing_docs, clippy::todo, unused_variables)]
use crate::raft::message::Envelope;
use crate::raft::storage::{Storage, StorageError};
use crate::raft::types::{Incarnation, NodeId};
use crate::replica::io::{ReplicaStatus, Request, Ticket, TurnOutput};
use crate::util::time::Millis;

pub struct ReplicaConfig {
    pub id: NodeId,
    pub incarnation: Incarnation,
    /// All voters, this node included.
    pub voters: Vec<NodeId>,
    pub election_timeout_ms: u64,
    pub heartbeat_interval_ms: u64,
    pub seed: u64,
}

pub struct Replica<S: Storage> {
    storage: S,
}

impl<S: Storage> Replica<S> {
    pub fn new(config: ReplicaConfig, storage: S, now: Millis) -> Result<Replica<S>, StorageError> {
        todo!()
    }
    /// From a peer (already authenticated by the link's greeting).
    pub fn handle_envelope(&mut self, now: Millis, envelope: Envelope) -> Result<(), StorageError> {
        todo!()
    }
    /// A (new) outgoing link to the peer stands, the peer's greeting was seen with this incarnation. What was in flight
    /// on an earlier link may be lost. An incarnation above the one known before means that the process was restarted.
    pub fn handle_peer_connected(&mut self, now: Millis, peer: NodeId, incarnation: Incarnation) {
        todo!()
    }
    /// The peer's process is known to have ended: its link broke and a new connection was refused.
    pub fn handle_peer_lost(&mut self, now: Millis, peer: NodeId) {
        todo!()
    }
    /// Takes a client's request. The answer comes, with the same ticket, in some later TurnOutput (perhaps this turn's),
    /// at the latest in the first turn after `deadline`. Exactly one answer per ticket, unless cancelled.
    pub fn submit(
        &mut self,
        now: Millis,
        ticket: Ticket,
        request: Request,
        deadline: Millis,
    ) -> Result<(), StorageError> {
        todo!()
    }
    /// The client went away. A write goes on, its answer is dropped.
    pub fn cancel(&mut self, ticket: Ticket) {
        todo!()
    }
    pub fn handle_deadline(&mut self, now: Millis) -> Result<(), StorageError> {
        todo!()
    }
    /// When handle_deadline wants to be called next. `now` or earlier when work is left over (poll with timeout 0).
    pub fn next_deadline(&self) -> Millis {
        todo!()
    }
    /// Messages that may leave before the turn's sync. Called twice a turn: before sync, and again after it (the
    /// announcement of a new commit index).
    pub fn drain_immediate(&mut self, now: Millis, out: &mut Vec<Envelope>) -> Result<(), StorageError> {
        todo!()
    }
    /// The turn's one durable point; applies what is committed; gives promises and answers out.
    pub fn sync(&mut self, now: Millis) -> Result<TurnOutput, StorageError> {
        todo!()
    }
    /// Begins a clean stop: hands leadership over, refuses new requests (NotApplied::Stopping), finishes waiting ones.
    pub fn start_shutdown(&mut self, now: Millis) {
        todo!()
    }
    /// After start_shutdown: leadership is handed over (or can't be) and nothing waits.
    pub fn is_shut_down(&self) -> bool {
        todo!()
    }
    /// Last act: makes the commit index durable.
    pub fn close(&mut self) -> Result<(), StorageError> {
        todo!()
    }
    pub fn status(&self) -> ReplicaStatus {
        todo!()
    }
}
