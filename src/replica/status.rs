//! What a replica says about itself.

use crate::raft::progress::Progress;
use crate::raft::storage::Storage;
use crate::raft::types::NodeId;
use crate::replica::io::{InFlight, PeerStatus, ReplicaStatus};
use crate::replica::replica::Replica;

impl<S: Storage> Replica<S> {
    /// What this node knows of the cluster and itself.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        let peer = |(id, progress): (NodeId, &Progress)| PeerStatus {
            id,
            match_index: progress.match_index(),
            last_contact: Some(progress.last_contact()),
        };
        let storage = self.raft.storage();
        ReplicaStatus {
            id: self.id,
            role: self.raft.role(),
            term: self.raft.term(),
            leader: self.raft.leader(),
            commit_index: self.raft.commit_index(),
            applied_index: self.store.applied_index(),
            last_index: self.raft.last_index(),
            log_start: storage.log_start(),
            snapshot: storage.snapshot(),
            snapshot_draft: storage.snapshot_draft(),
            standing: self.raft.standing(),
            is_full: storage.is_full(),
            leader_is_full: self.raft.leader_is_full(),
            keys: self.store.key_count(),
            peers: self.raft.peers().map(peer).collect(),
        }
    }

    /// How much waits on this node.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        let (writes, write_bytes) = self.writes.in_flight();
        let (held_bytes, uncommitted_bytes) = self.leadership.in_flight();
        InFlight { writes, write_bytes, reads: self.reads.in_flight(), held_bytes, uncommitted_bytes }
    }
}
