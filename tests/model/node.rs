//! One node of a model: Keva's Raft, and the parts of a turn.

use std::hash::{DefaultHasher, Hash, Hasher};

use keva::raft::message::{Envelope, Message, ReadContext};
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
        let mut node = Node { raft, clock, hash: 0 };
        node.rehash();
        node
    }

    fn rehash(&mut self) {
        let mut hasher = DefaultHasher::new();
        self.raft.hash_state(&mut hasher);
        self.raft.storage().hash(&mut hasher);
        self.hash = hasher.finish();
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// A message arrives. A voter that is asked for its vote has not heard from its leader for long: the model does
    /// not count on time.
    pub(crate) fn step(&mut self, envelope: Envelope) {
        if matches!(envelope.message, Message::RequestVote { .. } | Message::PreVote { .. })
            && !self.raft.is_leader()
        {
            self.clock = self.clock.after(ELECTION_TIMEOUT_MS);
        }
        self.raft.step(self.clock, envelope).expect("memory does not fail");
    }

    /// The election timer fires, or heartbeats are due on a leader.
    pub(crate) fn at_deadline(&mut self) {
        self.clock = self.clock.max(self.raft.next_deadline());
        self.raft.handle_deadline(self.clock).expect("memory does not fail");
    }

    /// The election timer fires, and everybody promises a vote.
    pub(crate) fn campaign(&mut self, voters: &[NodeId]) {
        self.at_deadline();
        let (to, term) = (self.raft.id(), self.raft.term());
        let message = Message::PreVoteResponse { campaign_term: term.next(), granted: true };
        for from in voters.iter().copied().filter(|voter| *voter != to) {
            let promise = Envelope { from, to, term, message: message.clone() };
            self.raft.step(self.clock, promise).expect("memory does not fail");
        }
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
