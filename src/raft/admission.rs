//! Nodes that may not vote yet: one that was started on an empty working directory or on an older copy of it, and one
//! that lost a part of its data (see [`Standing`]).
//!
//! Such a node follows, stores and acknowledges like any other, because what it promises from here on it keeps. It
//! neither votes nor campaigns, because it may have promised something before that it does not know any more: a vote,
//! or entries that count as committed. It asks the others until their answers show that neither can do harm:
//!
//! - founding: with those who have nothing either it is a majority, so nothing can have been committed. As a disk may
//!   have been lost among them, everybody has time to say that there is more: one election timeout;
//! - a cluster of two: the other node has everything, and nobody leads without its vote;
//! - joining: everybody has answered, so that all terms are known in which it may have voted; and its log has
//!   everything that the leader knew to be committed after it had come back.
//!
//! It never votes in a term that any answer has named. The leader must take no acknowledgement of the node's earlier
//! life for one of the new life: see [`Raft::handle_peer_replaced`].

use std::collections::BTreeMap;

use crate::limits::ADMISSION_PAUSE_MS;
use crate::raft::message::Message;
use crate::raft::quorum::majority;
use crate::raft::raft::Raft;
use crate::raft::role::Role;
use crate::raft::storage::{Storage, StorageError};
use crate::raft::types::{Index, NodeId, Standing, Term};
use crate::util::mutation::mutant;
use crate::util::time::Millis;

/// What a node that may not vote yet has heard since its process started.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    pub(super) answers: BTreeMap<NodeId, Answer>,
    /// The last word of a leader: its term, and how far it had committed.
    pub(super) leader_commit: Option<(Term, NodeId, Index)>,
    /// When the asking began.
    pub(super) since: Millis,
    /// When everybody is asked again.
    pub(super) ask_deadline: Millis,
}

/// What one peer has said.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Answer {
    /// The largest term that it named.
    term: Term,
    /// It has no entry and no snapshot, and never voted.
    is_empty: bool,
    standing: Standing,
}

impl Admission {
    /// New connections ask at once, so there is time until everybody is asked.
    pub(super) fn new(now: Millis) -> Admission {
        Admission { since: now, ask_deadline: now.after(ADMISSION_PAUSE_MS), ..Admission::default() }
    }
}

impl<S: Storage> Raft<S> {
    /// What this node may promise.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.storage.standing()
    }

    /// Whether this node votes and campaigns.
    pub(super) fn is_voter(&self) -> bool {
        self.standing() == Standing::Voter || mutant("virgin-votes")
    }

    /// A node that is alone has nobody who could know of an earlier life.
    pub(super) fn admit_lone_node(&mut self) -> Result<(), StorageError> {
        if self.peers.is_empty() && self.standing() != Standing::Voter {
            self.storage.set_standing(Standing::Voter)?;
        }
        Ok(())
    }

    /// Whether this node has never had anything, as far as it knows. Of a term it only knows when a majority was admitted
    /// before, which may have led to entries.
    fn is_empty(&self) -> bool {
        let has_nothing = self.storage.last_index() == Index(0) && self.term() == Term(0);
        has_nothing && self.standing() != Standing::Recovering
    }

    // ---- asking ---------------------------------------------------------------------------------

    /// All that was heard before is void: asks everybody, at once.
    pub(super) fn start_asking_for_admission(&mut self, now: Millis) {
        self.admission = Admission { since: now, ask_deadline: now, ..Admission::default() };
        self.maybe_ask_for_admission(now);
    }

    pub(super) fn maybe_ask_for_admission(&mut self, now: Millis) {
        if self.standing() == Standing::Voter || now < self.admission.ask_deadline {
            return;
        }
        self.admission.ask_deadline = now.after(ADMISSION_PAUSE_MS);
        for peer in self.peers.clone().iter().copied() {
            self.send(peer, Message::Admission);
        }
    }

    pub(super) fn handle_admission_response(
        &mut self,
        from: NodeId,
        term: Term,
        standing: Standing,
        is_empty: bool,
        commit_index: Option<Index>,
    ) {
        if self.standing() == Standing::Voter {
            return;
        }
        let answer = self.admission.answers.entry(from).or_insert(Answer { term, is_empty, standing });
        *answer = Answer { term: answer.term.max(term), is_empty, standing };
        if let Some(index) = commit_index {
            self.admission.leader_commit = Some((term, from, index));
        }
    }

    /// After a sync: becomes a voter, durably, if what was heard, and what is durable, allows it.
    pub(super) fn maybe_admit(&mut self, now: Millis) -> Result<(), StorageError> {
        let standing = self.standing();
        let is_admitted = match standing {
            Standing::Voter => return Ok(()),
            Standing::Virgin => {
                let may_join = self.has_heard_everybody() && self.has_caught_up();
                self.may_found(now) || self.others_have_everything() || may_join
            }
            Standing::Recovering => self.others_have_everything() || self.has_caught_up(),
        };
        if !is_admitted {
            return Ok(());
        }
        if standing == Standing::Virgin {
            self.renounce_named_terms(now)?;
        }
        self.storage.set_standing(Standing::Voter)?;
        if !mutant("voter-before-sync") {
            // A pre-vote waits for no sync. If this node were none of the voters again after a crash, those whom it
            // encouraged would have voted, and in a new cluster there would be too few left that may.
            self.storage.sync()?;
        }
        self.admission = Admission::default();
        log::info!("this node votes from here on");
        if self.leader().is_none() {
            self.hurry = Some(0);
            self.reset_election_deadline(now);
        }
        Ok(())
    }

    fn may_found(&self, now: Millis) -> bool {
        let is_time = now >= self.admission.since.after(self.config.election_timeout_ms);
        let answers = &self.admission.answers;
        let nobody_has_anything = self.is_empty() && answers.values().all(|answer| answer.is_empty);
        let is_majority = 1 + answers.len() >= majority(self.config.voters.len());
        nobody_has_anything && is_majority && (is_time || self.has_heard_everybody())
    }

    /// Whether every voter must agree to everything, as in a cluster of two, and all others are sound: then they have all
    /// that is committed, and this node can do nothing without their votes.
    fn others_have_everything(&self) -> bool {
        let voters = self.config.voters.len();
        let are_sound = self.admission.answers.values().all(|answer| answer.standing == Standing::Voter);
        majority(voters) == voters && self.has_heard_everybody() && are_sound
    }

    fn has_heard_everybody(&self) -> bool {
        self.peers.iter().all(|peer| self.admission.answers.contains_key(peer))
    }

    /// Whether everything that the leader of the current term had committed when it answered is durable here.
    fn has_caught_up(&self) -> bool {
        let Some((term, leader, commit_index)) = self.admission.leader_commit else { return false };
        let mine = self.verified_index.min(self.synced_index);
        let is_current = term == self.term() && self.leader() == Some(leader);
        is_current && (mine >= commit_index || mutant("admitted-early"))
    }

    /// In an earlier life this node may have voted in any term that somebody has named. It uses these votes up.
    fn renounce_named_terms(&mut self, now: Millis) -> Result<(), StorageError> {
        let named = self.admission.answers.values().map(|answer| answer.term).max().unwrap_or_default();
        if named > self.term() {
            self.become_follower(now, named, None)?;
        }
        if named > Term(0) && named == self.term() && self.vote().is_none() {
            self.set_hard_state(named, Some(self.config.id))?;
        }
        Ok(())
    }

    // ---- answering ------------------------------------------------------------------------------

    /// Answers a node that has lost something. It will be a voter again as soon as it has what was committed by now; so
    /// what is committed later must not rest on what it acknowledged before it lost that.
    pub(super) fn handle_admission(&mut self, now: Millis, from: NodeId) {
        let next_index = self.storage.last_index().next();
        if let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&from)
            && !mutant("lost-entries-count")
        {
            progress.start_over_once(next_index, now);
            // It could not take over.
            leader.transfer.take_if(|transfer| transfer.to == from);
        }
        if self.suspects.contains(&from) {
            // It may ask for another reason, or its answer was lost. It must not vote again before it is trusted.
            self.send(from, Message::RolledBack);
            return;
        }
        let commit_index = self.has_committed_in_term().then_some(self.commit_index);
        let (standing, is_empty) = (self.standing(), self.is_empty());
        self.send(from, Message::AdmissionResponse { standing, is_empty, commit_index });
    }
}
