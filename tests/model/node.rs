//! One node of a model: Keva's Raft, and the parts of a turn.

use std::hash::{DefaultHasher, Hash, Hasher};

use keva::raft::message::{Envelope, ReadContext};
use keva::raft::raft::{Config, Raft};
use keva::raft::types::{Index, NodeId};
use keva::util::time::Millis;

use crate::disk::Disk;

/// So long that heartbeats never add up to it: time passes only when the model says so.
const ELECTION_TIMEOUT_MS: u64 = 1 << 32;
const HEARTBEAT_INTERVAL_MS: u64 = 1;

/// A running node. Its clock only moves by the model's actions and says nothing about its future.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) raft: Raft<Disk>,
    clock: Millis,
    /// The leader that it follows was last heard from more than an election timeout ago.
    pub(crate) expired: bool,
    /// Hash of everything that decides what it will do.
    hash: u64,
}

/// What a turn gave out.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) sent: Vec<Envelope>,
    pub(crate) reads: Vec<(ReadContext, Index)>,
}

/// How a turn goes on after its input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// Drain, sync, drain.
    Whole,
    /// What need not wait for the sync leaves; then the power goes and comes back.
    CrashBeforeSync,
}

impl Node {
    pub(crate) fn start(id: NodeId, voters: &[NodeId], disk: Disk, clock: Millis) -> Node {
        let config = Config {
            id,
            voters: voters.to_vec(),
            election_timeout_ms: ELECTION_TIMEOUT_MS,
            heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
            seed: id.0,
        };
        let raft = Raft::new(config, disk, clock).expect("the disk is sound");
        let mut node = Node { raft, clock, expired: false, hash: 0 };
        node.rehash();
        node
    }

    fn rehash(&mut self) {
        let mut hasher = DefaultHasher::new();
        self.raft.hash_state(&mut hasher);
        self.raft.storage().hash(&mut hasher);
        self.expired.hash(&mut hasher);
        self.hash = hasher.finish();
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// A message arrives.
    pub(crate) fn step(&mut self, envelope: Envelope) {
        let is_of_leader = is_of_leader(&envelope);
        let term = envelope.term;
        self.raft.step(self.clock, envelope).expect("memory does not fail");
        self.expired &= !(is_of_leader && term == self.raft.term()) && self.raft.leader().is_some();
    }

    /// The election timer fires, or heartbeats are due on a leader.
    pub(crate) fn at_deadline(&mut self) {
        self.clock = self.clock.max(self.raft.next_deadline());
        self.raft.handle_deadline(self.clock).expect("memory does not fail");
        self.expired &= self.raft.leader().is_some();
    }

    /// The leader that it follows has been silent for an election timeout; its own timer takes longer.
    pub(crate) fn expire(&mut self) {
        self.clock = self.clock.after(ELECTION_TIMEOUT_MS);
        self.expired = true;
    }

    /// The rest of a turn, with every further one for which there is work left.
    pub(crate) fn finish(&mut self, ending: Ending, voters: &[NodeId]) -> Turn {
        let mut turn = Turn::default();
        loop {
            self.raft.drain_immediate(self.clock, &mut turn.sent).expect("memory does not fail");
            if ending == Ending::CrashBeforeSync {
                self.restart(voters);
                return turn;
            }
            let synced = self.raft.sync(self.clock).expect("memory does not fail");
            turn.sent.extend(synced.messages);
            turn.reads.extend(synced.reads);
            self.raft.drain_immediate(self.clock, &mut turn.sent).expect("memory does not fail");
            if self.raft.next_deadline() != Millis(0) {
                break;
            }
        }
        self.rehash();
        turn
    }

    /// Power off and on.
    pub(crate) fn restart(&mut self, voters: &[NodeId]) {
        let disk = self.raft.storage().clone().crash();
        *self = Node::start(self.raft.id(), voters, disk, self.clock);
    }
}

fn is_of_leader(envelope: &Envelope) -> bool {
    use keva::raft::message::Message;
    matches!(envelope.message, Message::AppendEntries { .. } | Message::Heartbeat { .. })
}
