//! The safety properties of the Raft paper (figure 3), and that nothing is promised that a crash could take back.

use std::collections::{BTreeMap, BTreeSet};

use keva::raft::message::{AppendOutcome, Envelope, Message};
use keva::raft::types::{EntryId, Index, NodeId, RoleName, Term};
use keva::replica::io::Ticket;
use keva::replica::replica::Replica;

use super::durable::DurableView;
use super::record::{Decision, Record};
use crate::marks::{Mark, Marks};
use crate::plan::Plan;
use crate::support::sim_region::SimDisk;
use crate::support::storage_fixture::SimStorage;

/// What was seen of a node when it was looked at last.
#[derive(Debug, Default)]
struct Seen {
    /// Its log: term and checksum of every entry.
    log: Vec<(Term, u32)>,
    term: Term,
    is_leader: bool,
    role: Option<RoleName>,
    commit: Index,
    applied: Index,
    matched: BTreeMap<NodeId, Index>,
}

/// Remembers what the cluster has done, over crashes and restarts.
#[derive(Debug)]
pub(crate) struct Checks {
    seen: Vec<Seen>,
    pub(crate) durable: Vec<DurableView>,
    leaders: BTreeMap<Term, usize>,
    votes: BTreeMap<(usize, Term), NodeId>,
    /// Checksum of every entry that ever was, and the term before it.
    entries: BTreeMap<(Index, Term), (u32, Term)>,
    pub(crate) record: Record,
    /// The state's hash at an applied index.
    hashes: BTreeMap<Index, u64>,
    majority: usize,
    /// The time of histories: counts what happens.
    pub(crate) tick: u64,
    pub(crate) messages: u64,
    /// The term in which a request came to a node.
    pub(crate) asked: BTreeMap<(usize, Ticket), Term>,
    /// Writes that were given to a leader.
    pub(crate) forwarded: BTreeSet<(usize, u64)>,
    /// No more faults happen.
    pub(crate) is_calm: bool,
}

impl Checks {
    pub(crate) fn new(plan: &Plan) -> Checks {
        Checks {
            seen: (0..plan.nodes).map(|_| Seen::default()).collect(),
            durable: (0..plan.nodes).map(|_| DurableView::default()).collect(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            entries: BTreeMap::new(),
            record: Record::default(),
            hashes: BTreeMap::new(),
            majority: plan.nodes / 2 + 1,
            tick: 0,
            messages: 0,
            asked: BTreeMap::new(),
            forwarded: BTreeSet::new(),
            is_calm: false,
        }
    }

    pub(crate) fn next_tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    pub(crate) fn on_received(&mut self) {
        self.messages += 1;
    }

    /// Looks at everything that a turn may have changed.
    pub(crate) fn observe(
        &mut self,
        marks: &mut Marks,
        node: usize,
        replica: &Replica<SimStorage>,
        disks: &[SimDisk],
    ) {
        self.observe_log(marks, node, replica);
        self.observe_commit(marks, node, replica, disks);
        self.observe_role(marks, node, replica);
        self.observe_applied(node, replica);
    }

    fn observe_log(&mut self, marks: &mut Marks, node: usize, replica: &Replica<SimStorage>) {
        use keva::raft::storage::Storage;
        let raft = replica.raft();
        let storage = raft.storage();
        let seen = &mut self.seen[node];
        let last = usize::try_from(storage.last_index().0).expect("short logs");
        let mut common = seen.log.len().min(last);
        while common > 0 && storage.term(Index(common as u64)) != Some(seen.log[common - 1].0) {
            common -= 1;
        }
        if common < seen.log.len() {
            let kept = Index(common as u64);
            assert!(
                kept >= seen.commit,
                "node {node} removed entries behind {kept}, committed up to {}",
                seen.commit
            );
            let leads_on = seen.is_leader && raft.is_leader() && seen.term == raft.term();
            assert!(!leads_on, "the leader {node} removed entries behind {kept} from its own log");
            marks.hit(Mark::SuffixTruncated);
            if seen.log.len() - common > 2 {
                marks.hit(Mark::SuffixTruncatedDeep);
            }
            seen.log.truncate(common);
        }
        for position in common + 1..=last {
            let index = Index(position as u64);
            let entry = storage.entry(index).expect("the disk is sound");
            let before = seen.log.last().map_or(Term(0), |(term, _)| *term);
            let this = (entry.crc(), before);
            let first = *self.entries.entry((index, entry.term())).or_insert(this);
            assert_eq!(first, this, "node {node} has another entry {} than others", entry.id());
            seen.log.push((entry.term(), entry.crc()));
        }
    }

    fn observe_commit(
        &mut self,
        marks: &mut Marks,
        node: usize,
        replica: &Replica<SimStorage>,
        disks: &[SimDisk],
    ) {
        use keva::raft::storage::Storage;
        let raft = replica.raft();
        let commit = raft.commit_index();
        let from = self.seen[node].commit;
        assert!(commit >= from, "node {node} took back its commit index {from}: {commit}");
        if commit == from {
            return;
        }
        assert!(commit <= raft.last_index(), "node {node} knows of more commits than entries");
        // Counting is only good for entries of the leader's own term (paper, section 5.4.2).
        let counted = raft.is_leader() && self.seen[node].is_leader && self.seen[node].term == raft.term();
        let is_own = raft.storage().term(commit) == Some(raft.term());
        assert!(!counted || is_own, "the leader {node} counted the entry {commit} of an old term");
        for index in from.0 + 1..=commit.0 {
            let (term, crc) = self.seen[node].log[usize::try_from(index - 1).expect("short logs")];
            if index <= self.record.len() {
                let known = self.record.get(index);
                assert_eq!(
                    (known.term, known.crc),
                    (term, crc),
                    "node {node} committed another entry at {index}"
                );
                continue;
            }
            let tick = self.next_tick();
            let entry = raft.storage().entry(Index(index)).expect("the disk is sound");
            if self.record.push(entry, raft.term(), tick) == Decision::Skipped {
                marks.hit(Mark::WriteSkipped);
            }
            if term < raft.term() {
                marks.hit(Mark::OldTermCommitted);
            }
            if index == commit.0 {
                self.check_quorum(EntryId::new(term, Index(index)), disks);
            }
        }
        self.seen[node].commit = commit;
    }

    /// What is committed is durable on a majority.
    fn check_quorum(&mut self, id: EntryId, disks: &[SimDisk]) {
        let mut count = 0;
        for (node, disk) in disks.iter().enumerate() {
            self.durable[node].refresh(disk);
            count += usize::from(self.durable[node].entry(id.index).is_some_and(|(term, _)| term == id.term));
        }
        assert!(count >= self.majority, "entry {id} was committed, and is durable on {count} nodes only");
    }

    fn observe_role(&mut self, marks: &mut Marks, node: usize, replica: &Replica<SimStorage>) {
        let raft = replica.raft();
        let seen = &mut self.seen[node];
        let (term, is_leader) = (raft.term(), raft.is_leader());
        assert!(term >= seen.term, "node {node} went back from term {} to {term}", seen.term);
        if seen.role == Some(RoleName::Candidate) && raft.role() == RoleName::PreCandidate {
            marks.hit(Mark::ElectionRepeated);
        }
        seen.role = Some(raft.role());
        if seen.is_leader && !is_leader {
            marks.hit(Mark::LeaderLostOffice);
        }
        let is_new = is_leader && !(seen.is_leader && seen.term == term);
        (seen.term, seen.is_leader) = (term, is_leader);
        if is_new {
            marks.hit(Mark::LeaderElected);
            seen.matched.clear();
            self.check_new_leader(node, term);
            if self.seen.iter().any(|other| other.is_leader && other.term < term) {
                marks.hit(Mark::SecondLeaderInOldTerm);
            }
        }
        if is_leader {
            for (peer, progress) in raft.peers() {
                let (matched, next) = (progress.match_index(), progress.next_index());
                assert!(matched < next, "{peer}: match {matched}, next {next}");
                let before = self.seen[node].matched.insert(peer, matched).unwrap_or_default();
                assert!(matched >= before, "{peer}: match went back from {before} to {matched}");
            }
        }
    }

    fn check_new_leader(&mut self, node: usize, term: Term) {
        let first = *self.leaders.entry(term).or_insert(node);
        assert_eq!(first, node, "two leaders in term {term}");
        let log = &self.seen[node].log;
        for (position, committed) in self.record.log.iter().enumerate() {
            let has = log.get(position).copied() == Some((committed.term, committed.crc));
            assert!(
                committed.seen_in >= term || has,
                "node {node} leads term {term} without the committed entry {}",
                position + 1
            );
        }
    }

    fn observe_applied(&mut self, node: usize, replica: &Replica<SimStorage>) {
        let applied = replica.store().applied_index();
        let seen = &mut self.seen[node];
        assert!(applied >= seen.applied, "node {node} un-applied entries");
        assert!(applied <= replica.raft().commit_index(), "node {node} applied what is not committed");
        if applied > seen.applied {
            seen.applied = applied;
            let hash = replica.store().state_hash();
            let first = *self.hashes.entry(applied).or_insert(hash);
            assert_eq!(first, hash, "node {node} has another state at {applied} than others");
        }
    }

    /// A process ended.
    pub(crate) fn on_end(&mut self, node: usize) {
        self.seen[node].is_leader = false;
        self.asked.retain(|(asked, _), _| *asked != node);
    }

    /// A process began on what its disk holds.
    pub(crate) fn on_start(
        &mut self,
        marks: &mut Marks,
        node: usize,
        replica: &Replica<SimStorage>,
        disk: &SimDisk,
    ) {
        use keva::raft::storage::Storage;
        let before = &mut self.seen[node];
        (before.is_leader, before.role, before.applied) = (false, None, Index(0));
        // A term that was not synced is no promise; see below for those that were.
        (before.commit, before.term) = (Index(0), replica.raft().term());
        // What was not synced may be gone.
        before.log.truncate(usize::try_from(replica.raft().last_index().0).expect("short logs"));
        let view = &mut self.durable[node];
        let (term, last, newest) = (view.term, view.last_index(), view.newest_segment());
        view.refresh(disk);
        let raft = replica.raft();
        assert!(raft.term() >= term, "node {node} forgot term {term}");
        // Entries end with a crash only when a newer segment says that they were removed.
        let is_kept = raft.last_index() >= last || view.newest_segment() > newest;
        assert!(is_kept, "node {node} forgot durable entries from {} on", raft.last_index().next());
        for (index, term, _) in view.entries() {
            assert_eq!(
                raft.storage().term(index),
                Some(term),
                "node {node} forgot the durable entry {index}"
            );
        }
        self.observe_log(marks, node, replica);
    }

    /// A message is handed to the network.
    pub(crate) fn on_send(&mut self, node: usize, envelope: &Envelope, disk: &SimDisk) {
        let Envelope { from, to, term, message } = envelope;
        let is_promise = match message {
            Message::RequestVote { .. }
            | Message::RequestVoteResponse { .. }
            | Message::AppendEntriesResponse { .. } => true,
            Message::PreVote { .. }
            | Message::PreVoteResponse { .. }
            | Message::AppendEntries { .. }
            | Message::Heartbeat { .. }
            | Message::HeartbeatResponse { .. }
            | Message::ReadIndex { .. }
            | Message::ReadIndexResponse { .. }
            | Message::TimeoutNow
            | Message::Forward { .. } => false,
        };
        if !is_promise {
            return;
        }
        let view = &mut self.durable[node];
        view.refresh(disk);
        assert!(view.term >= *term, "{from} speaks in term {term} and may forget it");
        match message {
            Message::RequestVote { last, .. } => {
                let has = last.index == Index(0)
                    || view.entry(last.index).is_some_and(|(term, _)| term == last.term);
                assert!(has, "{from} campaigns with {last} and may forget it");
                self.check_vote(node, *term, *from);
            }
            Message::RequestVoteResponse { granted: true } => self.check_vote(node, *term, *to),
            Message::AppendEntriesResponse { outcome: AppendOutcome::Accepted { match_index } } => {
                self.check_acknowledgement(node, *term, *match_index);
            }
            _ => {}
        }
    }

    fn check_vote(&mut self, node: usize, term: Term, candidate: NodeId) {
        let view = &self.durable[node];
        let is_kept = view.term == term && view.vote == Some(candidate);
        assert!(is_kept, "node {node} votes for {candidate} in term {term} and may forget it");
        let first = *self.votes.entry((node, term)).or_insert(candidate);
        assert_eq!(first, candidate, "node {node} voted twice in term {term}");
    }

    fn check_acknowledgement(&self, node: usize, term: Term, index: Index) {
        if index == Index(0) {
            return;
        }
        let mine = self.durable[node].entry(index);
        assert!(
            mine.is_some() && self.durable[node].last_index() >= index,
            "node {node} acknowledges entry {index} and may lose it"
        );
        let leader = self.leaders.get(&term).map(|leader| &self.seen[*leader]);
        if let Some(leader) = leader.filter(|leader| leader.is_leader && leader.term == term) {
            let theirs = leader.log.get(usize::try_from(index.0 - 1).expect("short logs")).copied();
            assert_eq!(
                mine, theirs,
                "node {node} acknowledges entry {index}, but has another one than the leader"
            );
        }
    }
}
