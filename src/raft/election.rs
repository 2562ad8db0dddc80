//! Elections: pre-vote, vote, and when a node asks for them (paper, section 5.2; thesis, sections 4.2.3 and 9.6).

use crate::raft::entry::{ENTRY_HEADER_BYTES, EntryKind};
use crate::raft::message::Message;
use crate::raft::progress::Progress;
use crate::raft::quorum::{VoteResult, reached_by_majority, vote_result};
use crate::raft::raft::Raft;
use crate::raft::read_queue::ReadQueue;
use crate::raft::role::{Election, Follower, Leader, Role};
use crate::raft::storage::{Purpose, Storage, StorageError};
use crate::raft::types::{EntryId, Index, NodeId, Term};
use crate::util::mutation::mutant;
use crate::util::time::Millis;

impl<S: Storage> Raft<S> {
    // ---- asking ---------------------------------------------------------------------------------

    /// Whether this node may stand for election: it may vote, and has room for the entry that a leader begins with.
    pub(super) fn may_campaign(&mut self) -> Result<bool, StorageError> {
        Ok(self.is_voter() && self.storage.reserve(ENTRY_HEADER_BYTES, Purpose::Upkeep)?)
    }

    /// The election timer has fired.
    pub(super) fn handle_election_deadline(&mut self, now: Millis) -> Result<(), StorageError> {
        if self.may_campaign()? {
            return self.become_pre_candidate(now);
        }
        // Somebody else has to. The leader that is not heard any more is none to ask.
        self.reset_election_deadline(now);
        self.become_follower(now, self.term(), None)
    }

    /// Asks the others whether an election could be won, without changing the term: a node that was cut off comes
    /// back without deposing anyone.
    fn become_pre_candidate(&mut self, now: Millis) -> Result<(), StorageError> {
        assert!(!self.is_leader(), "a leader does not campaign");
        self.reset_election_deadline(now);
        let mut election = Election::default();
        election.votes.insert(self.config.id, true);
        self.role = Role::PreCandidate(election);
        let (campaign_term, last) = (self.term().next(), self.last_id());
        for peer in self.peers.clone().iter().copied() {
            self.send(peer, Message::PreVote { campaign_term, last });
        }
        self.maybe_end_election(now)
    }

    /// Begins a term of its own. The requests wait for the sync, and so does the vote for itself: both promise a
    /// durable term, vote and log.
    pub(super) fn become_candidate(&mut self, now: Millis, transfer: bool) -> Result<(), StorageError> {
        assert!(!self.is_leader(), "a leader does not campaign");
        self.set_hard_state(self.term().next(), Some(self.config.id))?;
        self.reset_election_deadline(now);
        self.role = match std::mem::replace(&mut self.role, Role::Follower(Follower::of(None))) {
            Role::PreCandidate(election) if mutant("pre-votes-count") => Role::Candidate(election),
            _ => Role::Candidate(Election::default()),
        };
        let last = self.last_id();
        for peer in self.peers.clone().iter().copied() {
            self.send(peer, Message::RequestVote { last, transfer });
        }
        Ok(())
    }

    pub(super) fn count_own_vote(&mut self, now: Millis) -> Result<(), StorageError> {
        if let Role::Candidate(election) = &mut self.role {
            election.votes.insert(self.config.id, true);
            self.maybe_end_election(now)?;
        }
        Ok(())
    }

    fn maybe_end_election(&mut self, now: Millis) -> Result<(), StorageError> {
        let (election, is_pre_vote) = match &self.role {
            Role::PreCandidate(election) => (election, true),
            Role::Candidate(election) => (election, false),
            Role::Follower(_) | Role::Leader(_) => return Ok(()),
        };
        match vote_result(&self.config.voters, &election.votes) {
            VoteResult::Pending => Ok(()),
            VoteResult::Won if is_pre_vote => self.become_candidate(now, false),
            VoteResult::Won => self.become_leader(now),
            // The timer that was set when the election began goes on.
            VoteResult::Lost => self.become_follower(now, self.term(), None),
        }
    }

    /// Takes office with an empty entry of its own term: only that can commit what earlier leaders left behind
    /// (paper, sections 5.4.2 and 8).
    fn become_leader(&mut self, now: Millis) -> Result<(), StorageError> {
        assert_eq!(
            self.synced_term,
            self.term(),
            "a leader's term must survive a crash before it acts on it"
        );
        if !self.storage.reserve(ENTRY_HEADER_BYTES, Purpose::Upkeep)? {
            log::warn!("elected, but the disk is too full to lead");
            return self.become_follower(now, self.term(), None);
        }
        self.drop_installation()?;
        let next_index = self.storage.last_index().next();
        let progress = self.peers.iter().map(|peer| (*peer, Progress::new(next_index, now))).collect();
        self.role = Role::Leader(Leader {
            progress,
            reads: ReadQueue::default(),
            heartbeat_deadline: now.after(self.config.heartbeat_interval_ms),
            noop_index: if mutant("no-noop") { Index(0) } else { next_index },
            transfer: None,
            // By then it is known which of the others have space.
            full_deadline: now.after(self.config.election_timeout_ms),
        });
        self.hurry = None;
        if mutant("no-noop") {
            return Ok(());
        }
        self.append_own(EntryKind::NoOp, &[]).map(drop)
    }

    // ---- answering ------------------------------------------------------------------------------

    /// Whether this node hears from a leader. It then helps nobody to replace it: a node that lost its own link to
    /// the leader is no reason for an election (thesis, section 4.2.3).
    fn is_loyal(&self, now: Millis) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(Follower { leader: Some(_), .. }) => {
                now - self.leader_contact < self.config.election_timeout_ms
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    pub(super) fn ignores_higher_term(&self, now: Millis, message: &Message) -> bool {
        matches!(message, Message::RequestVote { transfer: false, .. }) && self.is_loyal(now)
    }

    /// The election restriction: a vote goes only to a log that holds everything this one does (paper, section
    /// 5.4.1). Ids compare by term first.
    fn is_up_to_date(&self, last: EntryId) -> bool {
        if mutant("up-to-date-by-index") {
            return last.index >= self.last_id().index;
        }
        if mutant("up-to-date-by-term") {
            return last.term >= self.last_id().term;
        }
        last >= self.last_id()
    }

    pub(super) fn handle_pre_vote(&mut self, now: Millis, from: NodeId, campaign_term: Term, last: EntryId) {
        let vote_is_free = campaign_term > self.term()
            || (campaign_term == self.term()
                && self.leader().is_none()
                && self.vote().is_none_or(|vote| vote == from));
        let granted = vote_is_free
            && self.is_voter()
            && !self.is_suspect(from)
            && self.is_up_to_date(last)
            && !self.is_loyal(now);
        self.send(from, Message::PreVoteResponse { campaign_term, granted });
    }

    /// A refusal from a later term is how a node that missed elections learns of them.
    pub(super) fn handle_pre_vote_response(
        &mut self,
        now: Millis,
        from: NodeId,
        term: Term,
        campaign_term: Term,
        granted: bool,
    ) -> Result<(), StorageError> {
        if term > self.term() {
            return self.become_follower(now, term, None);
        }
        let awaited = campaign_term == self.term().next() && !self.is_suspect(from);
        if let Role::PreCandidate(election) = &mut self.role
            && awaited
        {
            // The latest answer counts: a peer that heard from the leader may have lost it since.
            election.votes.insert(from, granted);
            self.maybe_end_election(now)?;
        }
        Ok(())
    }

    pub(super) fn handle_request_vote(
        &mut self,
        now: Millis,
        from: NodeId,
        last: EntryId,
    ) -> Result<(), StorageError> {
        let vote_is_free = match self.vote() {
            Some(vote) => vote == from,
            None => self.leader().is_none(),
        };
        let granted = vote_is_free && self.is_voter() && !self.is_suspect(from) && self.is_up_to_date(last);
        if granted {
            if self.vote().is_none() && !mutant("vote-not-persisted") {
                self.set_hard_state(self.term(), Some(from))?;
            }
            // The candidate deserves the time to win.
            self.reset_election_deadline(now);
        }
        self.send(from, Message::RequestVoteResponse { granted });
        Ok(())
    }

    pub(super) fn handle_request_vote_response(
        &mut self,
        now: Millis,
        from: NodeId,
        granted: bool,
    ) -> Result<(), StorageError> {
        if self.is_suspect(from) {
            return Ok(());
        }
        if let Role::Candidate(election) = &mut self.role {
            election.votes.entry(from).or_insert(granted);
            self.maybe_end_election(now)?;
        }
        Ok(())
    }

    /// A message that only the leader of the current term sends has come.
    pub(super) fn follow_leader(&mut self, now: Millis, from: NodeId) -> Result<(), StorageError> {
        // Also a leader that has stepped down knows that nobody else can lead its term.
        let known = match &self.role {
            Role::Follower(Follower { leader: Some(leader), .. }) => Some(*leader),
            _ => (self.watermarks.led_term == Some(self.term())).then_some(self.config.id),
        };
        if let Some(leader) = known {
            assert!(
                leader == from,
                "{from} and {leader} both lead term {}: a vote was lost, or two nodes share an identity",
                self.term()
            );
        } else {
            self.become_follower(now, self.term(), Some(from))?;
        }
        self.leader_contact = now;
        self.hurry = None;
        self.reset_election_deadline(now);
        Ok(())
    }

    // ---- staying in office ----------------------------------------------------------------------

    /// Steps down when no majority has answered for an election timeout: somewhere else there may be a leader
    /// already, and clients must not wait for this one (thesis, section 6.2). Otherwise sends a heartbeat when due.
    /// After a long stall one heartbeat goes out, not all that were missed.
    pub(super) fn handle_leader_deadline(&mut self, now: Millis) -> Result<(), StorageError> {
        let (timeout, interval) = (self.config.election_timeout_ms, self.config.heartbeat_interval_ms);
        let Role::Leader(leader) = &mut self.role else { return Ok(()) };
        if leader.transfer.as_ref().is_some_and(|transfer| now >= transfer.deadline) {
            leader.transfer = None;
        }
        if now < leader.heartbeat_deadline {
            return Ok(());
        }
        let mut contacts: Vec<Millis> =
            leader.progress.values().map(|progress| progress.last_contact).collect();
        contacts.push(now);
        if now - reached_by_majority(&mut contacts) >= timeout {
            return self.become_follower(now, self.term(), None);
        }
        leader.heartbeat_deadline = now.after(interval);
        leader.progress.values_mut().for_each(Progress::on_heartbeat_sent);
        self.broadcast_heartbeat();
        self.maybe_leave_full_disk(now);
        Ok(())
    }
}
