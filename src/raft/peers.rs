//! What the network layer knows about peers and tells the protocol: connections, lost processes, other disks.

use crate::raft::message::Message;
use crate::raft::raft::Raft;
use crate::raft::role::{Follower, Role};
use crate::raft::storage::Storage;
use crate::raft::types::{NodeId, Standing};
use crate::util::mutation::mutant;
use crate::util::time::Millis;

impl<S: Storage> Raft<S> {
    /// A new connection to the peer stands. What was on its way on an earlier one may be lost.
    pub fn handle_peer_connected(&mut self, peer: NodeId) {
        if self.standing() != Standing::Voter && self.peers.contains(&peer) {
            self.send(peer, Message::Admission);
        }
        if let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&peer)
        {
            progress.on_reconnected();
            let round = leader.reads.round;
            self.send_heartbeat(peer, round);
        }
    }

    /// The peer's process has ended, as far as the network can tell. If it was the leader there is no reason to wait
    /// for the election timeout. Only a hint: being wrong costs an election, never safety.
    pub fn handle_peer_lost(&mut self, now: Millis, peer: NodeId) {
        if matches!(&self.role, Role::Follower(follower) if follower.leader == Some(peer)) {
            self.role = Role::Follower(Follower::of(None));
            self.hurry = Some(0);
            self.reset_election_deadline(now);
        }
    }

    /// The peer has another disk than before: whatever it acknowledged is gone. On the leader it starts over, and it
    /// counts again for what it takes from here on. Must be called before any message of the peer's new life is taken,
    /// and no message of the old life may be taken afterwards.
    pub fn handle_peer_replaced(&mut self, now: Millis, peer: NodeId) {
        if !self.peers.contains(&peer) {
            return;
        }
        log::error!("{peer} lost its disk: it has another one, and what it had acknowledged is gone");
        self.start_peer_over(now, peer);
    }

    /// The peer's starts were counted back on the same disk: an older copy of the disk was put in its place. It may
    /// have forgotten votes and entries without knowing. As long as this process lives, its votes do not count and it
    /// gets none; on the leader it starts over. Calls come in the order of [`Raft::handle_peer_replaced`].
    pub fn handle_peer_rolled_back(&mut self, now: Millis, peer: NodeId) {
        if !self.peers.contains(&peer) {
            return;
        }
        log::error!(
            "the disk of {peer} went back in time: its votes do not count until this process is started again"
        );
        self.suspects.insert(peer);
        if let Role::PreCandidate(election) | Role::Candidate(election) = &mut self.role {
            election.votes.remove(&peer);
        }
        self.start_peer_over(now, peer);
    }

    /// Whether the peer's votes mean nothing, because it may have forgotten others.
    pub(super) fn is_suspect(&self, peer: NodeId) -> bool {
        self.suspects.contains(&peer) && !mutant("suspect-votes-count")
    }

    fn start_peer_over(&mut self, now: Millis, peer: NodeId) {
        let next_index = self.storage.last_index().next();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&peer) else { return };
        if !mutant("old-life-counts") {
            progress.start_over(next_index, now);
        }
        if leader.transfer.as_ref().is_some_and(|transfer| transfer.to == peer) {
            leader.transfer = None;
        }
    }
}
