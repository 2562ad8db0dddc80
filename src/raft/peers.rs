//! What the network layer knows about peers and tells the protocol: connections, lost processes, other disks.
//!
//! # Disks that went back in time
//!
//! A node whose disk was replaced by an older copy of it does not know that. It may vote a second time in a term, and it
//! may vote for somebody who lacks what it had acknowledged. Others know in one of two ways. The start of the process that
//! they met before is not the past of the one that they meet then. Or, when the copy was made during the last start, a
//! leader finds that the node denies an entry that it acknowledged to this leader. They suspect it: whoever suspects a node
//! neither counts its votes nor gives it any, and takes none of its old acknowledgements for new ones.
//!
//! They also tell it. It then does what a node does that was started on an empty directory, see `admission`: it votes no
//! more until all others have said which terms they know, it uses up its vote in all of these, and it has everything
//! that the leader had committed. That is durable before it answers. From the answer on it is not suspected any more,
//! because no vote that it gave without knowing comes later than the answer. Whoever suspects it does not answer its
//! questions for admission before that, so nobody suspects a node that has been admitted. And the first vote that it
//! gives then is given with everything that it had forgotten:
//!
//! - a vote. Whoever got it was in that term then and names a term at least as late, so it is not given twice;
//! - an acknowledgement that made an entry committed. The leader whose answer admits the node has that entry and counts
//!   it as committed, because leaders have all committed entries and have one of their own term among them when they
//!   answer. So the node has it again, and votes for nobody who lacks it. What is committed later rests on what the node
//!   acknowledged after the leader made its progress start over.
//!
//! It makes no difference who noticed, and whether that one is started again meanwhile: the node itself knows. It takes as
//! much as with an empty disk: as long as one of the others is gone for good, the node stores what the leader sends and
//! counts for commits, but does not vote.
//!
//! What nobody can help with is what happens before anybody notices, and a roll-back that nobody notices:
//!
//! - to a copy from before the last start, when all others were started again since they met the process that was rolled
//!   back;
//! - to a copy from during the last start, when the leader to which the lost entries were acknowledged leads no more, or
//!   when it is only a vote that was lost.

use crate::raft::message::Message;
use crate::raft::raft::Raft;
use crate::raft::role::{Follower, Role};
use crate::raft::storage::{Storage, StorageError};
use crate::raft::types::{Index, NodeId, Standing};
use crate::util::mutation::mutant;
use crate::util::time::Millis;

impl<S: Storage> Raft<S> {
    /// A new connection to the peer stands. What was on its way on an earlier one may be lost.
    pub fn handle_peer_connected(&mut self, peer: NodeId) {
        if self.suspects.contains(&peer) {
            self.send(peer, Message::RolledBack);
        }
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

    /// An older copy of the peer's disk was put in its place. It may have forgotten votes and entries without knowing, and
    /// is told so as soon as it is connected. Until it knows, its votes do not count and it gets none; on the leader it
    /// starts over. Calls come in the order of [`Raft::handle_peer_replaced`].
    pub fn handle_peer_rolled_back(&mut self, now: Millis, peer: NodeId) {
        if !self.peers.contains(&peer) {
            return;
        }
        log::error!(
            "the disk of {peer} went back in time: an older copy was put in its place. Its votes do not count until it \
             knows, and has got back what it had"
        );
        self.suspects.insert(peer);
        if let Role::PreCandidate(election) | Role::Candidate(election) = &mut self.role {
            election.votes.remove(&peer);
        }
        self.start_peer_over(now, peer);
    }

    /// On the leader: the peer denies an entry up to `matched`, which it had acknowledged. It is told at once, because until
    /// it knows it might help to elect somebody who lacks what was committed with its word.
    ///
    /// A sound peer is never accused:
    ///
    /// - The denial and the acknowledgement are of this leader's present term: messages of other terms go by, and every
    ///   process of a leader has its own terms.
    /// - In one term a peer's log changes only by what its leader sends, and that leader's log only grows. So what the peer
    ///   has once acknowledged it has until the term ends, and the denial was sent after the acknowledgement.
    /// - It was not sent before it and overtaken by it, by two copies of it, or by a new connection. A peer sends over one
    ///   link at a time, both are promises that wait for the sync in one queue, and a link keeps the order. When a newer link
    ///   from the peer is greeted, the older one ends with all that it has brought and nobody has looked at.
    /// - Only a denial that comes on a new connection, before the peer has confirmed there what it had, is taken for a loss:
    ///   without one it is the same process, which has what it had.
    /// - A peer that knows that it has lost something says so with the first message of every link, before it denies
    ///   anything, and then nothing is left for it to deny (see [`Raft::handle_admission`]). One with another disk was
    ///   announced by [`Raft::handle_peer_replaced`].
    pub(super) fn handle_peer_forgot(&mut self, peer: NodeId, matched: Index) {
        log::error!(
            "{peer} lost entries that it had acknowledged, up to {matched}: its disk went back in time. Its votes do not \
             count until it knows, and has got back what it had"
        );
        self.suspects.insert(peer);
        if let Role::Leader(leader) = &mut self.role {
            // It could not take over.
            leader.transfer.take_if(|transfer| transfer.to == peer);
        }
        self.send(peer, Message::RolledBack);
    }

    /// This node's disk is an older copy, as a peer knows. The answer waits for the sync, and it is the last promise of
    /// the life that did not know.
    pub(super) fn handle_rolled_back(&mut self, now: Millis, from: NodeId) -> Result<(), StorageError> {
        if self.standing() != Standing::Virgin {
            log::error!(
                "{from} knows more of this node than its disk does: an older copy of the working directory was put in its \
                 place. This node may have forgotten what it promised; it votes and serves again when all \
                 other nodes have answered and it has everything from the leader"
            );
            // What this turn says about elections is said without knowing.
            self.outbox.retain(|envelope| !envelope.message.is_about_elections());
            self.outbox_after_sync.retain(|envelope| !envelope.message.is_about_elections());
            if !matches!(self.role, Role::Follower(_)) {
                self.become_follower(now, self.term(), None)?;
            }
            self.storage.set_standing(Standing::Virgin)?;
            self.start_asking_for_admission(now);
        }
        self.send(from, Message::RolledBackResponse);
        Ok(())
    }

    /// The peer knows that it may have forgotten something.
    pub(super) fn handle_rolled_back_response(&mut self, from: NodeId) {
        if self.suspects.remove(&from) {
            log::info!("{from} knows that its disk went back in time, and votes no more until it may again");
        }
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
