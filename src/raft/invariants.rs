//! What must be true of a node's protocol state at any time (`check_basic`), and of two states that follow each other
//! (`check_delta`). Both are cheap and stay on in release: a node that breaks one of them must stop before it lies.

use crate::raft::raft::Raft;
use crate::raft::role::Role;
use crate::raft::storage::Storage;
use crate::raft::types::{Index, NodeId, Term};
use crate::util::mutation::mutant;

/// What never goes back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watermarks {
    term: Term,
    vote: Option<NodeId>,
    commit_index: Index,
    is_leader: bool,
    /// The latest term that this node has led.
    pub(super) led_term: Option<Term>,
}

impl<S: Storage> Raft<S> {
    pub(super) fn check_basic(&self) {
        let last_index = self.storage.last_index();
        assert!(
            self.commit_index <= last_index,
            "commit {} is behind the log's end {last_index}",
            self.commit_index
        );
        let log_start = self.storage.log_start();
        assert!(
            log_start.index <= self.commit_index,
            "the log begins at {log_start}, but only {} is committed",
            self.commit_index
        );
        assert!(self.synced_index <= last_index, "more is durable than was written");
        assert!(self.synced_term <= self.term(), "a later term is durable than was reached");
        match &self.role {
            Role::Follower(follower) => {
                assert!(follower.leader != Some(self.config.id), "a node does not follow itself");
            }
            Role::PreCandidate(_) => {}
            Role::Candidate(_) => {
                assert_eq!(self.vote(), Some(self.config.id), "a candidate votes for itself");
            }
            Role::Leader(leader) => {
                assert_eq!(self.vote(), Some(self.config.id), "a leader voted for itself");
                assert_eq!(self.synced_term, self.term(), "a leader's term is durable");
                assert!(
                    self.storage.term(last_index) == Some(self.term()) || mutant("no-noop"),
                    "a leader's log ends in its own term"
                );
                for (peer, progress) in &leader.progress {
                    let (matched, next) = (progress.match_index(), progress.next_index());
                    assert!(matched < next, "peer {peer}: match {matched} is not before next {next}");
                    assert!(
                        next <= last_index.next(),
                        "peer {peer}: next {next} is beyond the log's end {last_index}"
                    );
                }
            }
        }
    }

    pub(super) fn check_delta(&self, before: &Watermarks) -> Watermarks {
        let is_leader = self.is_leader();
        let led_term = if is_leader { Some(self.term()) } else { before.led_term };
        let (term, vote, commit_index) = (self.term(), self.vote(), self.commit_index);
        let after = Watermarks { term, vote, commit_index, is_leader, led_term };
        assert!(after.term >= before.term, "the term went back from {} to {}", before.term, after.term);
        assert!(after.commit_index >= before.commit_index, "a committed entry became uncommitted");
        if after.term == before.term && before.vote.is_some() {
            assert_eq!(after.vote, before.vote, "a second vote in term {}", after.term);
        }
        if is_leader && !before.is_leader {
            assert_ne!(before.led_term, Some(term), "a second leadership of term {term}");
        }
        after
    }
}
