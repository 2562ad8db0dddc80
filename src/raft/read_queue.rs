//! The reads that wait on the leader: see `read_index` for the protocol.

use std::collections::VecDeque;

use crate::raft::message::{ReadContext, ReadRound};
use crate::raft::types::{Index, NodeId};
use crate::util::mutation::mutant;

/// A leader's reads that are not confirmed yet.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct ReadQueue {
    /// The latest round that was sent.
    pub(super) round: ReadRound,
    /// Waiting for the first commit of the term.
    unready: Vec<(NodeId, ReadContext)>,
    /// Waiting for their round, in the order of rounds.
    queue: VecDeque<Read>,
}

/// A read that waits for its round.
#[derive(Clone, Debug, Hash)]
pub(super) struct Read {
    round: ReadRound,
    /// The node that asked.
    pub(super) from: NodeId,
    /// The asker's name for it.
    pub(super) context: ReadContext,
    /// What must be applied before it is answered.
    pub(super) index: Index,
}

impl ReadQueue {
    /// How many of this node's reads wait.
    pub(super) fn waiting_from(&self, node: NodeId) -> usize {
        self.unready.iter().filter(|(from, _)| *from == node).count()
            + self.queue.iter().filter(|read| read.from == node).count()
    }

    /// Whether a new round must be sent for the newest reads.
    pub(super) fn needs_round(&self) -> bool {
        self.queue.back().is_some_and(|read| read.round > self.round)
    }

    /// Takes in a read while it is not known how far the log is committed.
    pub(super) fn hold(&mut self, from: NodeId, context: ReadContext) {
        self.unready.push((from, context));
    }

    /// Takes in a read whose index is known. It waits for the next round.
    pub(super) fn register(&mut self, from: NodeId, context: ReadContext, index: Index) {
        let round = if mutant("read-joins-sent-round") {
            self.round
        } else if mutant("read-round-is-request") {
            ReadRound(context.0)
        } else {
            ReadRound(self.round.0 + 1)
        };
        self.queue.push_back(Read { round, from, context, index });
    }

    /// Gives all held reads their index.
    pub(super) fn register_held(&mut self, index: Index) {
        for (from, context) in std::mem::take(&mut self.unready) {
            self.register(from, context, index);
        }
    }

    /// Removes the reads whose round is confirmed.
    pub(super) fn take_confirmed(&mut self, confirmed: ReadRound) -> Vec<Read> {
        std::iter::from_fn(|| self.queue.pop_front_if(|read| read.round <= confirmed)).collect()
    }
}
