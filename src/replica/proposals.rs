//! How writes get into the log: own ones and other nodes', proposed by the leader, forwarded by everybody else.

use crate::kv::command::Command;
use crate::kv::payload::{Payload, stamp};
use crate::kv::store::Store;
use crate::raft::message::{Envelope, Message};
use crate::raft::raft::{ProposeError, Raft};
use crate::raft::storage::{Purpose, Storage, StorageError};
use crate::raft::types::{Index, NodeId};
use crate::replica::growth::grows;
use crate::replica::io::{NotApplied, Outcome};
use crate::replica::replica::Replica;
use crate::util::mutation::mutant;
use crate::util::time::{LogicalTime, Millis};

/// What became of a payload.
pub(super) enum Proposal {
    Appended(Index),
    /// This node must not append now.
    NotNow,
    DiskFull,
}

impl<S: Storage> Replica<S> {
    /// Other nodes' writes. A node that is not the leader drops them: passing them on could send them in circles, and
    /// their origin offers them again to the leader it learns of next.
    pub(super) fn on_forward(&mut self, from: NodeId, payloads: Vec<Vec<u8>>) {
        if !self.raft.is_leader() || !self.voters.contains(&from) {
            return;
        }
        for payload in payloads {
            // Checked here because an entry that cannot be decoded would stop every node that applies it.
            match Payload::decode(&payload) {
                Ok(Payload { id, .. }) if id.seq == 0 && !mutant("upkeep-taken-from-others") => {
                    log::warn!("dropping what {from} wants to be done as if it was the leader");
                }
                Ok(Payload { id, .. }) if id.origin != from => {
                    log::warn!("dropping a write that {from} sent in the name of {}", id.origin);
                }
                Ok(Payload { id, .. }) if self.store.sessions().is_newer(id) => {
                    self.leadership.accept(id, payload);
                }
                Ok(_) => {}
                Err(error) => log::warn!("dropping a write from {from}: {error}"),
            }
        }
    }

    /// Proposes what waits, own and forwarded writes by turns, as far as there is room. A new leader waits until all
    /// that it inherited is committed and applied: so what is not committed stays bounded over any number of elections,
    /// and the time that it writes down is not behind any in the log.
    pub(super) fn propose_waiting(&mut self, now: Millis) -> Result<(), StorageError> {
        let Some(time) = self.office_time(now).filter(|_| !self.raft.is_transferring()) else {
            return Ok(());
        };
        loop {
            let forwarded = self.propose_forwarded(time)?;
            let own = self.propose_own(now, time)?;
            if !forwarded && !own {
                return Ok(());
            }
        }
    }

    fn propose_forwarded(&mut self, time: LogicalTime) -> Result<bool, StorageError> {
        let Some(payload) = self.leadership.peek_held() else { return Ok(false) };
        let bytes = payload.len();
        if !self.leadership.has_room(bytes) {
            return Ok(false);
        }
        // Borrowed anew, for the rest of the leadership was looked at in between.
        let payload = self.leadership.peek_held().expect("a write is held");
        match propose(&mut self.raft, &self.store, payload, time)? {
            Proposal::Appended(index) => {
                self.leadership.pop_held();
                self.leadership.on_proposed(index, bytes);
                self.upkeep.on_proposed(time);
            }
            // Its origin hears of the full disk with the next heartbeat, and cannot be told about this one write: it
            // may have been in an earlier leader's log.
            Proposal::DiskFull => self.leadership.pop_held(),
            Proposal::NotNow => return Ok(false),
        }
        Ok(true)
    }

    fn propose_own(&mut self, now: Millis, time: LogicalTime) -> Result<bool, StorageError> {
        let Some(payload) = self.writes.peek_offer(now) else { return Ok(false) };
        if !self.leadership.has_room(payload.len()) {
            return Ok(false);
        }
        match propose(&mut self.raft, &self.store, payload, time)? {
            Proposal::Appended(index) => {
                self.leadership.on_proposed(index, payload.len());
                self.upkeep.on_proposed(time);
                self.writes.confirm_offer(now);
            }
            Proposal::DiskFull => {
                if let Some(ticket) = self.writes.refuse_offer(now) {
                    self.answer(ticket, Outcome::NotApplied(NotApplied::DiskFull));
                }
            }
            Proposal::NotNow => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn forward_waiting(&mut self, now: Millis, leader: NodeId, out: &mut Vec<Envelope>) {
        loop {
            let payloads = self.writes.take_forward(now);
            if payloads.is_empty() {
                return;
            }
            let message = Message::Forward { payloads };
            out.push(Envelope { from: self.id, to: leader, term: self.raft.term(), message });
        }
    }

    /// Whether a disk is full that this write could not do without: the leader's, which must take it, or this node's,
    /// which must take it before it can tell the outcome.
    pub(super) fn has_no_space_for(&self, command: &Command) -> bool {
        (self.raft.leader_is_full() || self.raft.storage().is_full()) && grows(&self.store, command)
    }
}

/// Appends a payload on the leader, with the time. When the disk is full: only one that makes the data no larger.
pub(super) fn propose<S: Storage>(
    raft: &mut Raft<S>,
    store: &Store,
    payload: &mut [u8],
    time: LogicalTime,
) -> Result<Proposal, StorageError> {
    stamp(payload, time);
    let mut result = raft.propose(payload, Purpose::Growth);
    if matches!(result, Err(ProposeError::DiskFull)) && purpose(store, payload) == Purpose::Upkeep {
        result = raft.propose(payload, Purpose::Upkeep);
    }
    match result {
        Ok(id) => Ok(Proposal::Appended(id.index)),
        Err(ProposeError::NotLeader | ProposeError::Transferring) => Ok(Proposal::NotNow),
        Err(ProposeError::DiskFull) => Ok(Proposal::DiskFull),
        Err(ProposeError::Storage(error)) => Err(error),
    }
}

fn purpose(store: &Store, payload: &[u8]) -> Purpose {
    match Payload::decode(payload) {
        Ok(payload) if !grows(store, &payload.write.command) => Purpose::Upkeep,
        _ => Purpose::Growth,
    }
}
