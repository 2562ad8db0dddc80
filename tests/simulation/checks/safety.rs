//! The safety properties of the Raft paper (figure 3), and that nothing is promised that a crash could take back.

use std::collections::{BTreeMap, BTreeSet};

use keva::raft::entry::Entry;
use keva::raft::message::{AppendOutcome, Envelope, Message, SnapshotOutcome};
use keva::raft::storage::{Storage, snapshot_id};
use keva::raft::types::{EntryId, Index, Life, NodeId, RoleName, Standing, Term};
use keva::replica::io::Ticket;
use keva::replica::replica::Replica;

use super::atlas::{Atlas, Harm, place};
use super::durable::DurableView;
use super::notes::note;
use super::record::Record;
use super::snapshots::Snapshots;
use crate::marks::{Mark, Marks};
use crate::plan::Plan;
use crate::support::sim_disk::SimDisk;
use crate::support::storage_fixture::SimStorage;

/// What was seen of a node when it was looked at last.
#[derive(Debug, Default)]
struct Seen {
    /// Its log: term and checksum of every entry, those included that only its snapshot covers.
    log: Vec<(Term, u32)>,
    log_start: EntryId,
    term: Term,
    is_leader: bool,
    role: Option<RoleName>,
    commit: Index,
    applied: Index,
    /// Of a leader's peers, with what changes when there is a reason to start over.
    matched: BTreeMap<NodeId, ((u64, u64), Index)>,
}

/// Remembers what the cluster has done, over crashes and restarts.
#[derive(Debug)]
pub(crate) struct Checks {
    seen: Vec<Seen>,
    pub(crate) durable: Vec<DurableView>,
    pub(crate) atlas: Atlas,
    pub(crate) snapshots: Snapshots,
    leaders: BTreeMap<Term, usize>,
    votes: BTreeMap<(usize, Term), NodeId>,
    /// Checksum of every entry that ever was, and the term before it.
    entries: BTreeMap<(Index, Term), (u32, Term)>,
    /// The bytes of those that are not committed yet: a disk may lose them.
    bytes: BTreeMap<(Index, Term), Vec<u8>>,
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
            atlas: Atlas::new(plan),
            snapshots: Snapshots::new(plan),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            entries: BTreeMap::new(),
            bytes: BTreeMap::new(),
            record: Record::new(plan),
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
        self.observe_role(marks, node, replica, disks);
        self.observe_applied(node, replica);
        self.snapshots.observe(marks, node, replica, &mut self.hashes);
    }

    fn observe_log(&mut self, marks: &mut Marks, node: usize, replica: &Replica<SimStorage>) {
        let raft = replica.raft();
        let storage = raft.storage();
        let seen = &mut self.seen[node];
        let last = usize::try_from(storage.last_index().0).expect("short logs");
        let (start, snapshot) = (storage.log_start(), snapshot_id(storage));
        assert!(start.index <= snapshot.index, "node {node}: a gap between {snapshot} and {start}");
        assert!(snapshot.index <= raft.commit_index(), "node {node}: {snapshot} is not committed");
        if start != seen.log_start {
            seen.log_start = start;
            assert!(start.index.0 <= self.record.len(), "node {node}: {start} is not committed");
            let covered = self.record.log[..usize::try_from(start.index.0).expect("short logs")].iter();
            let covered: Vec<(Term, u32)> = covered.map(|entry| (entry.term, entry.crc)).collect();
            if covered.last().is_some_and(|(term, _)| *term != start.term) {
                panic!("node {node} begins behind {start}, which is another entry");
            }
            let known = seen.log.len().min(covered.len());
            if seen.log[..known] != covered[..known] {
                marks.hit(Mark::InstalledOverConflict);
                seen.log.truncate(last);
            }
            seen.log.splice(..known, covered);
        }
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
            if index.0 > self.record.len() {
                self.bytes.entry((index, entry.term())).or_insert_with(|| entry.bytes().to_vec());
            }
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
            assert!(index > self.seen[node].log_start.index.0 || index <= self.record.len());
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
            let bytes = self.bytes.remove(&(Index(index), term)).expect("kept until now");
            let entry = Entry::decode(&bytes).expect("as it was");
            self.bytes.retain(|(other, _), _| other.0 > index);
            self.record.push(entry, raft.term(), tick);
            note(marks, &mut self.record);
            if term < raft.term() {
                marks.hit(Mark::OldTermCommitted);
            }
            if index == commit.0 {
                self.check_quorum(EntryId::new(term, Index(index)), disks);
            }
        }
        self.seen[node].commit = commit;
    }

    /// What is committed is durable on a majority. A disk that was harmed counts with what it had: its node may have
    /// said so before.
    fn check_quorum(&mut self, id: EntryId, disks: &[SimDisk]) {
        let mut count = 0;
        for (node, disk) in disks.iter().enumerate() {
            self.durable[node].refresh(disk);
            let had = self.atlas.lost(node).any(|lost| lost.has(id));
            count += usize::from(had || self.durable[node].has(id));
        }
        assert!(count >= self.majority, "entry {id} was committed, and is durable on {count} nodes only");
    }

    fn observe_role(
        &mut self,
        marks: &mut Marks,
        node: usize,
        replica: &Replica<SimStorage>,
        disks: &[SimDisk],
    ) {
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
            self.check_matches(node, replica, disks);
        }
    }

    /// What a leader believes that its peers have never shrinks, and they have it: unless their disks were harmed, and
    /// then only for as long as nobody has told the leader.
    fn check_matches(&mut self, node: usize, replica: &Replica<SimStorage>, disks: &[SimDisk]) {
        for (peer, progress) in replica.raft().peers() {
            let (matched, next) = (progress.match_index(), progress.next_index());
            assert!(matched < next, "{peer}: match {matched}, next {next}");
            let reasons = self.atlas.reasons(node, peer);
            let before = self.seen[node].matched.insert(peer, (reasons, matched));
            let (known, before) = before.unwrap_or_default();
            let is_told = self.atlas.is_told(node, peer);
            // A peer that was repaired shows only later that it has less.
            let may_start_over = known != reasons || reasons.0 > 0;
            assert!(
                matched >= before || may_start_over,
                "{peer}: match went back from {before} to {matched}"
            );
            // As soon as it knows of a harm, and whenever it hears something.
            let is_same = matched == before && self.atlas.is_sound(place(peer));
            if is_same || !is_told {
                continue;
            }
            let view = &mut self.durable[place(peer)];
            view.refresh(&disks[place(peer)]);
            // In a later term it may have removed what it had acknowledged.
            assert!(
                view.term > replica.raft().term() || view.last_index() >= matched,
                "node {node} believes that {peer} has entry {matched}, and its disk ends with {}",
                view.last_index()
            );
        }
    }

    fn check_new_leader(&mut self, node: usize, term: Term) {
        let first = *self.leaders.entry(term).or_insert(node);
        assert_eq!(first, node, "two leaders in term {term}");
        // Votes of disks that were rolled back are not among these.
        let votes = self
            .votes
            .iter()
            .filter(|((_, cast_in), candidate)| *cast_in == term && place(**candidate) == node);
        let is_elected = self.majority == 1 || votes.count() >= self.majority;
        assert!(is_elected, "node {node} leads term {term} without the votes of a majority");
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
        // Else it will be looked at when it is at the next entry.
        if applied > seen.applied && replica.store().is_settled() {
            seen.applied = applied;
            let hash = replica.store().state_hash();
            let first = *self.hashes.entry(applied).or_insert(hash);
            assert_eq!(first, hash, "node {node} has another state at {applied} than others");
        }
    }

    /// A process ended.
    pub(crate) fn on_end(&mut self, node: usize) {
        self.seen[node].is_leader = false;
        self.atlas.on_end(node);
        self.snapshots.on_end(node);
        self.asked.retain(|(asked, _), _| *asked != node);
    }

    /// Whether the others can do without this node's disk.
    pub(crate) fn may_harm(&mut self, node: usize, disks: &[SimDisk]) -> bool {
        for (view, disk) in self.durable.iter_mut().zip(disks) {
            view.refresh(disk);
        }
        self.record.len() > 0 && self.atlas.may_harm(node, &self.durable)
    }

    /// Whether a copy that was made during the last start may be put in the place of a disk. A leader knows of an entry
    /// that the copy lacks, up to `matched`, and no promise is lost with it: the vote is the same, and all others have
    /// everything that the node had acknowledged.
    pub(crate) fn may_set_back(
        &mut self,
        node: usize,
        copy: &SimDisk,
        matched: Index,
        disks: &[SimDisk],
    ) -> bool {
        if !self.may_harm(node, disks) || !self.atlas.is_sound(node) {
            return false;
        }
        let mut old = DurableView::default();
        old.refresh(copy);
        let view = &self.durable[node];
        let last = view.last_index();
        let is_covered = view.snapshot.index >= last;
        let term = if is_covered { Some(view.snapshot.term) } else { view.entry(last).map(|entry| entry.0) };
        let Some(last) = term.map(|term| EntryId::new(term, last)) else { return false };
        let keeps_vote = (old.term, old.vote, old.standing) == (view.term, view.vote, view.standing);
        let mut others = (0..self.durable.len()).filter(|other| *other != node);
        let have_all = others.all(|other| self.atlas.is_whole(other) && self.durable[other].has(last));
        keeps_vote && have_all && old.standing == Standing::Voter && old.last_index() < matched
    }

    /// A disk is harmed in a way that need not be noticed when its process starts.
    pub(crate) fn on_harm(&mut self, node: usize, harm: Harm, disk: &SimDisk) {
        self.durable[node].refresh(disk);
        let view = match harm {
            Harm::Rotten => self.durable[node].clone(),
            _ => self.forget(node),
        };
        self.atlas.set_harm(node, harm, view);
    }

    /// What a node had is no more.
    fn forget(&mut self, node: usize) -> DurableView {
        self.seen[node] = Seen::default();
        self.snapshots.forget(node);
        std::mem::take(&mut self.durable[node])
    }

    /// A process began on what its disk holds.
    pub(crate) fn on_start(
        &mut self,
        marks: &mut Marks,
        node: usize,
        (replica, life): (&Replica<SimStorage>, Life),
        disk: &SimDisk,
    ) {
        let raft = replica.raft();
        let storage = raft.storage();
        let standing = raft.standing();
        let was_rotten = self.atlas.harm(node) == Some(Harm::Rotten);
        if was_rotten {
            // When the newest snapshot is damaged and the log goes back far enough, nothing is lost.
            self.snapshots.forget(node);
            if standing == Standing::Voter {
                self.atlas.forgive(node);
            } else {
                let (term, vote) = (self.durable[node].term, self.durable[node].vote);
                let lost = self.forget(node);
                // Only entries and snapshots may be lost in this way.
                (self.durable[node].term, self.durable[node].vote) = (term, vote);
                self.atlas.set_harm(node, Harm::Repairing, lost);
            }
        }
        self.atlas.on_start(node, standing, life);
        let before = &mut self.seen[node];
        (before.is_leader, before.role, before.applied) = (false, None, Index(0));
        // A term that was not synced is no promise; see below for those that were.
        (before.commit, before.term) = (Index(0), raft.term());
        // What was not synced may be gone.
        before.log.truncate(usize::try_from(raft.last_index().0).expect("short logs"));
        let view = &mut self.durable[node];
        let (term, vote) = (view.term, view.vote);
        let (last, newest, snapshot) = (view.last_index(), view.newest_segment(), view.snapshot);
        view.refresh(disk);
        assert!(raft.term() >= term, "node {node} forgot term {term}");
        let keeps_vote = raft.term() > term || vote.is_none() || storage.hard_state().vote == vote;
        assert!(keeps_vote, "node {node} forgot its vote for {vote:?} in term {term}");
        let mine = snapshot_id(storage);
        let is_kept = was_rotten || mine.index >= snapshot.index;
        assert!(is_kept, "node {node} forgot its snapshot up to {snapshot}: {mine}");
        let is_newest = was_rotten || mine == view.snapshot;
        assert!(is_newest, "node {node} does not take the newest snapshot on its disk: {mine}");
        // Entries end with a crash only when a newer segment says that they were removed.
        let is_kept = raft.last_index() >= last || view.newest_segment() > newest;
        assert!(is_kept, "node {node} forgot durable entries from {} on", raft.last_index().next());
        for (index, term, _) in view.entries() {
            let is_there = storage.term(index) == Some(term) || index < storage.log_start().index;
            assert!(is_there, "node {node} forgot the durable entry {index}");
        }
        self.observe_log(marks, node, replica);
    }

    /// A message is handed to the network.
    pub(crate) fn on_send(&mut self, node: usize, envelope: &Envelope, standing: Standing, disk: &SimDisk) {
        let Envelope { from, to, term, message } = envelope;
        let wants_voter = match message {
            Message::PreVoteResponse { granted, .. } | Message::RequestVoteResponse { granted } => *granted,
            Message::PreVote { .. } | Message::RequestVote { .. } => true,
            _ => false,
        };
        let is_allowed = !wants_voter || standing == Standing::Voter;
        assert!(is_allowed, "{from} takes part in elections as {standing:?}: {message:?}");
        let is_promise = match message {
            Message::RequestVote { .. }
            | Message::RequestVoteResponse { .. }
            | Message::AppendEntriesResponse { .. }
            | Message::InstallSnapshotResponse { .. }
            | Message::RolledBackResponse => true,
            Message::PreVote { .. }
            | Message::PreVoteResponse { .. }
            | Message::AppendEntries { .. }
            | Message::Heartbeat { .. }
            | Message::HeartbeatResponse { .. }
            | Message::InstallSnapshot { .. }
            | Message::Admission
            | Message::AdmissionResponse { .. }
            | Message::RolledBack
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
                let has = last.index == Index(0) || view.has(*last);
                assert!(has, "{from} campaigns with {last} and may forget it");
                self.check_vote(node, *term, *from);
            }
            Message::RequestVoteResponse { granted: true } => self.check_vote(node, *term, *to),
            Message::AppendEntriesResponse { outcome: AppendOutcome::Accepted { match_index } } => {
                self.check_acknowledgement(node, *term, *match_index);
                self.atlas.on_acknowledged(node, &self.durable[node]);
            }
            Message::InstallSnapshotResponse {
                outcome: SnapshotOutcome::Installed { match_index }, ..
            } => {
                self.check_acknowledgement(node, *term, *match_index);
                self.atlas.on_acknowledged(node, &self.durable[node]);
            }
            _ => {}
        }
    }

    fn check_vote(&mut self, node: usize, term: Term, candidate: NodeId) {
        let view = &self.durable[node];
        let is_kept = view.term == term && view.vote == Some(candidate);
        assert!(is_kept, "node {node} votes for {candidate} in term {term} and may forget it");
        assert_eq!(view.standing, Standing::Voter, "node {node} votes in term {term} and may not");
        // Nobody counts the votes of a disk that was rolled back.
        if !matches!(self.atlas.harm(node), Some(Harm::RolledBack)) {
            let first = *self.votes.entry((node, term)).or_insert(candidate);
            assert_eq!(first, candidate, "node {node} voted twice in term {term}");
        }
    }

    fn check_acknowledgement(&self, node: usize, term: Term, index: Index) {
        if index == Index(0) {
            return;
        }
        let view = &self.durable[node];
        // What a snapshot covers is committed.
        let covered = view.snapshot.index >= index && index.0 <= self.record.len();
        let mine = view.entry(index).or_else(|| {
            let known = covered.then(|| self.record.get(index.0))?;
            Some((known.term, known.crc))
        });
        assert!(
            mine.is_some() && view.last_index() >= index,
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

    /// A turn has ended. Says which harm of the node's disk is made good with it.
    pub(crate) fn after_turn(
        &mut self,
        node: usize,
        replica: &Replica<SimStorage>,
        disk: &SimDisk,
    ) -> Option<Harm> {
        if self.atlas.is_sound(node) {
            return self.atlas.after_turn(node, replica.raft().standing(), true);
        }
        let view = &mut self.durable[node];
        view.refresh(disk);
        let ids = self.record.log.iter().enumerate();
        let ids = ids.map(|(position, entry)| EntryId::new(entry.term, Index(position as u64 + 1)));
        let had = |id: &EntryId| self.atlas.lost(node).any(|lost| lost.has(*id));
        let lost = ids.rev().find(had).unwrap_or_default();
        let has_again = lost.index == Index(0) || view.has(lost);
        let last = self.atlas.lost(node).map(DurableView::last_index).max().unwrap_or_default();
        let is_past = last.0 <= self.record.len()
            && (last.0 == 0 || view.has(EntryId::new(self.record.get(last.0).term, last)));
        let harm = self.atlas.after_turn(node, replica.raft().standing(), has_again && is_past)?;
        assert!(has_again, "node {node} votes again, and has not got back the committed entry {lost}");
        Some(harm)
    }
}
