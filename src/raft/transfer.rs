//! Handing leadership over (thesis, section 3.10): the leader stops taking proposals, brings one follower fully up to
//! date and tells it to campaign at once. The others vote for it although they hear from a leader.

use crate::raft::message::Message;
use crate::raft::progress::Progress;
use crate::raft::raft::Raft;
use crate::raft::role::{Follower, Role, Transfer};
use crate::raft::storage::{Storage, StorageError};
use crate::raft::types::{Index, NodeId};
use crate::util::time::Millis;

impl<S: Storage> Raft<S> {
    /// Hands leadership to the follower that lacks the least, among those heard from within the election timeout.
    /// Does nothing on a node that does not lead, is handing over already, or has nobody to hand over to. Given up
    /// after one election timeout.
    pub fn transfer_leadership(&mut self, now: Millis) {
        let timeout = self.config.election_timeout_ms;
        // At the start of a leadership nobody has answered yet, whatever its contact time says.
        self.transfer_to_best(now, |_, progress| {
            now - progress.last_contact < timeout && progress.match_index() > Index(0)
        });
    }

    /// Hands leadership to this follower, if it was heard from within the election timeout; else as
    /// [`Raft::transfer_leadership`].
    pub fn transfer_leadership_to(&mut self, now: Millis, to: NodeId) {
        let timeout = self.config.election_timeout_ms;
        self.transfer_to_best(now, |id, progress| {
            id == to && now - progress.last_contact < timeout && progress.match_index() > Index(0)
        });
    }

    fn transfer_to_best(&mut self, now: Millis, is_fit: impl Fn(NodeId, &Progress) -> bool) {
        let deadline = now.after(self.config.election_timeout_ms);
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.transfer.is_some() {
            return;
        }
        let fit = leader.progress.iter().filter(|(id, progress)| is_fit(**id, progress));
        if let Some((&to, _)) = fit.max_by_key(|(_, progress)| progress.match_index()) {
            leader.transfer = Some(Transfer { to, deadline, told: false });
        }
    }

    /// A leader whose disk is full hands over to a peer that has everything, and room for more. Without one it stays,
    /// serves reads, and refuses what would make the data grow. One that does not take over is not asked again at once,
    /// because nothing can be proposed meanwhile.
    pub(super) fn maybe_leave_full_disk(&mut self, now: Millis) {
        let (timeout, last_index) = (self.config.election_timeout_ms, self.storage.last_index());
        let is_full = self.storage.is_full();
        let Role::Leader(leader) = &mut self.role else { return };
        if !is_full || leader.transfer.is_some() || now < leader.full_deadline {
            return;
        }
        leader.full_deadline = now.after(4 * timeout);
        self.transfer_to_best(now, |_, progress| {
            let is_alive = now - progress.last_contact < timeout;
            is_alive && !progress.is_full && progress.match_index() == last_index
        });
        if self.is_transferring() {
            log::warn!("the disk is full: leadership is handed over to a node with space");
        }
    }

    /// Whether leadership is being handed over.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        self.successor().is_some()
    }

    /// Who leadership is being handed over to.
    #[must_use]
    pub fn successor(&self) -> Option<NodeId> {
        let Role::Leader(leader) = &self.role else { return None };
        leader.transfer.as_ref().map(|transfer| transfer.to)
    }

    /// Tells the successor once it has the whole log.
    pub(super) fn maybe_finish_transfer(&mut self, now: Millis) {
        let last_index = self.storage.last_index();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let is_complete =
            leader.progress.get(&transfer.to).is_some_and(|peer| peer.match_index() == last_index);
        if is_complete && !transfer.told && now < transfer.deadline {
            transfer.told = true;
            let to = transfer.to;
            self.send(to, Message::TimeoutNow);
        }
    }

    pub(super) fn handle_timeout_now(&mut self, now: Millis, from: NodeId) -> Result<(), StorageError> {
        let is_asked = matches!(&self.role, Role::Follower(Follower { leader, .. }) if *leader == Some(from));
        if is_asked && self.may_campaign()? {
            self.hurry = Some(0);
            self.become_candidate(now, true)?;
        }
        Ok(())
    }
}
