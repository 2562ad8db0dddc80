//! What a node's future depends on, as a hash: a model checker must know whether it has been somewhere before.

use std::hash::{Hash, Hasher};

use crate::raft::admission::Admission;
use crate::raft::raft::Raft;
use crate::raft::role::{Election, Follower, Leader, Role, Transfer};
use crate::raft::storage::Storage;

impl<S: Storage> Raft<S> {
    /// Feeds the protocol state to `hasher`: everything but the storage, the settings, and what only says when
    /// something happens. Two nodes with the same hash and storage do the same with the same input, at one time or
    /// another. Safety may not depend on time, so that is the right question for it.
    pub fn hash_state(&self, hasher: &mut impl Hasher) {
        let Raft {
            config: _,
            peers: _,
            storage: _,
            role,
            hard_state,
            commit_index,
            verified_index,
            synced_index,
            synced_term,
            election_deadline: _,
            leader_contact: _,
            hurry: _,
            installing,
            restored,
            suspects,
            admission: Admission { answers, leader_commit, since: _, ask_deadline: _ },
            is_short_of_space: _,
            rng: _,
            outbox,
            outbox_after_sync,
            confirmed_reads,
            // Only what the assertions compare with.
            watermarks: _,
        } = self;
        hash_role(role, hasher);
        (hard_state, commit_index, verified_index, synced_index, synced_term).hash(hasher);
        (outbox, outbox_after_sync, confirmed_reads).hash(hasher);
        (installing, restored, suspects, answers, leader_commit).hash(hasher);
    }
}

fn hash_role(role: &Role, hasher: &mut impl Hasher) {
    role.name().as_str().hash(hasher);
    match role {
        Role::Follower(Follower { leader, is_full }) => (leader, is_full).hash(hasher),
        Role::PreCandidate(Election { votes }) | Role::Candidate(Election { votes }) => votes.hash(hasher),
        Role::Leader(leader) => {
            let Leader { progress, reads, heartbeat_deadline: _, noop_index, transfer, full_deadline: _ } =
                leader;
            for (peer, progress) in progress {
                peer.hash(hasher);
                progress.hash_state(hasher);
            }
            (reads, noop_index).hash(hasher);
            let transfer = transfer.as_ref().map(|Transfer { to, deadline: _, told }| (to, told));
            transfer.hash(hasher);
        }
    }
}
