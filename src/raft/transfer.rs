//! Handing leadership over (thesis, section 3.10): the leader stops taking proposals, brings one follower fully up to
//! date and tells it to campaign at once. The others vote for it although they hear from a leader.

use crate::raft::message::Message;
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
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.transfer.is_some() {
            return;
        }
        let alive = leader.progress.iter().filter(|(_, progress)| now - progress.last_contact < timeout);
        // At the start of a leadership nobody has answered yet, whatever its contact time says.
        let known = alive.filter(|(_, progress)| !progress.quarantined && progress.match_index() > Index(0));
        let best = known.max_by_key(|(_, progress)| progress.match_index());
        if let Some((&to, _)) = best {
            leader.transfer = Some(Transfer { to, deadline: now.after(timeout), told: false });
        }
    }

    /// Whether leadership is being handed over.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.transfer.is_some())
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
        if matches!(&self.role, Role::Follower(Follower { leader }) if *leader == Some(from)) {
            self.hurry = Some(0);
            self.become_candidate(now, true)?;
        }
        Ok(())
    }
}
