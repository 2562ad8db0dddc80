//! Linearizable reads without writing to the log (thesis, section 6.4), by counting.
//!
//! A read may be answered from the state at the leader's commit index, provided that the leader was still the leader
//! after the read arrived. It makes sure with one round of heartbeats: a read takes the number of the next round, and
//! is confirmed when a majority has answered that round or a later one. So an answer confirms only reads that were
//! registered before its heartbeat was sent, and a late answer confirms nothing newer.
//!
//! Until the leader has committed an entry of its own term it does not know how far the log is committed (paper,
//! section 8), and reads wait.

use crate::limits::READ_CONTEXTS_MAX;
use crate::raft::message::{Message, ReadContext, ReadRound};
use crate::raft::quorum::reached_by_majority;
use crate::raft::raft::Raft;
use crate::raft::role::Role;
use crate::raft::storage::Storage;
use crate::raft::types::{Index, NodeId};
use crate::util::mutation::mutant;

impl<S: Storage> Raft<S> {
    /// Asks up to which index the state must be applied before the reads named by `context` may be answered. The
    /// answer comes in [`Synced::reads`](crate::raft::raft::Synced), or never when the role, the term or the leader
    /// changes or the link to the leader breaks; ask again then, under a new context.
    ///
    /// Returns `false`, having done nothing, when no leader is known or too many contexts wait.
    pub fn read_index(&mut self, context: ReadContext) -> bool {
        match (&self.role, self.leader()) {
            (Role::Leader(_), _) => self.register_read(self.config.id, context),
            (_, Some(_)) if mutant("read-locally") => {
                self.confirmed_reads.push((context, self.commit_index));
                true
            }
            (_, Some(leader)) => {
                self.send(leader, Message::ReadIndex { context });
                true
            }
            (_, None) => false,
        }
    }

    pub(super) fn handle_read_index(&mut self, from: NodeId, context: ReadContext) {
        // Askers bound their contexts below the limit; one that does not loses the surplus.
        let _ = self.register_read(from, context);
    }

    pub(super) fn handle_read_index_response(&mut self, from: NodeId, context: ReadContext, index: Index) {
        if self.leader() == Some(from) {
            self.confirmed_reads.push((context, index));
        }
    }

    fn register_read(&mut self, from: NodeId, context: ReadContext) -> bool {
        let ready = self.has_committed_in_term();
        let commit_index = self.commit_index;
        let Role::Leader(leader) = &mut self.role else { return false };
        if leader.reads.waiting_from(from) >= READ_CONTEXTS_MAX {
            return false;
        }
        if ready || mutant("read-before-own-commit") {
            leader.reads.register(from, context, commit_index);
        } else {
            leader.reads.hold(from, context);
        }
        true
    }

    /// The commit index has moved: reads that waited for the first commit of the term can take their index.
    pub(super) fn release_unready_reads(&mut self) {
        if !self.has_committed_in_term() {
            return;
        }
        let commit_index = self.commit_index;
        if let Role::Leader(leader) = &mut self.role {
            leader.reads.register_held(commit_index);
        }
    }

    /// Hands out every read whose round a majority has answered.
    pub(super) fn confirm_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let mut rounds: Vec<ReadRound> =
            leader.progress.values().map(|progress| progress.round_acked).collect();
        rounds.push(leader.reads.round);
        let mut confirmed = reached_by_majority(&mut rounds);
        if mutant("read-without-quorum") {
            confirmed = leader.reads.round;
        }
        for read in leader.reads.take_confirmed(confirmed) {
            if read.from == self.config.id {
                self.confirmed_reads.push((read.context, read.index));
            } else {
                self.send(read.from, Message::ReadIndexResponse { context: read.context, index: read.index });
            }
        }
    }

    /// Sends a new round for the reads that came since the last one.
    pub(super) fn maybe_start_read_round(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.reads.needs_round() {
            leader.reads.round.0 += 1;
            self.broadcast_heartbeat();
            // A node that is alone has its majority at once.
            self.confirm_reads();
        }
    }
}
