//! What must be true of a whole cluster at any time (Raft paper, figure 3), checked after every step of a test.

use std::collections::BTreeMap;

use keva::raft::entry::Entry;
use keva::raft::message::{AppendOutcome, Envelope, Message, ReadContext, SnapshotOutcome};
use keva::raft::raft::Raft;
use keva::raft::storage::Storage;
use keva::raft::types::{EntryId, Index, NodeId, Standing, Term};

use super::memory_storage::{MemoryStorage, snapshot_content};

/// Remembers what a cluster has done, over crashes and restarts.
#[derive(Default)]
pub struct Checks {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Every entry that any node knew to be committed: its bytes, and that node's term when this was first seen.
    committed: BTreeMap<Index, (Vec<u8>, Term)>,
    /// What was committed anywhere when a read was asked for.
    reads: BTreeMap<ReadContext, Index>,
}

impl Checks {
    /// Election Safety, Log Matching, Leader Completeness and State Machine Safety.
    pub fn check(&mut self, nodes: &[&Raft<MemoryStorage>]) {
        for raft in nodes {
            self.check_leader(raft);
            self.check_committed(raft);
            self.check_snapshot(raft);
        }
        for (position, left) in nodes.iter().enumerate() {
            nodes[position + 1..].iter().for_each(|right| check_log_matching(left, right));
        }
    }

    fn check_leader(&mut self, raft: &Raft<MemoryStorage>) {
        if !raft.is_leader() {
            return;
        }
        let first = *self.leaders.entry(raft.term()).or_insert(raft.id());
        assert_eq!(first, raft.id(), "two leaders in term {}", raft.term());
        // A leader that does not know yet that it was deposed may lack what later leaders have committed.
        for (index, (bytes, _)) in self.committed.iter().filter(|(_, (_, term))| *term < raft.term()) {
            assert!(*index <= raft.last_index(), "leader {} lacks the committed entry {index}", raft.id());
            if *index <= raft.storage().log_start().index {
                continue;
            }
            let entry = raft.storage().entry(*index).expect("memory does not fail");
            assert_eq!(entry.bytes(), bytes, "leader {} has another entry at {index}", raft.id());
        }
    }

    fn check_committed(&mut self, raft: &Raft<MemoryStorage>) {
        let mut index = raft.storage().log_start().index.next();
        while index <= raft.commit_index() {
            let bytes = raft.storage().entry(index).expect("memory does not fail").bytes();
            let (first, _) = self.committed.entry(index).or_insert_with(|| (bytes.to_vec(), raft.term()));
            assert_eq!(first, bytes, "{} committed another entry at {index}", raft.id());
            index = index.next();
        }
    }

    /// A snapshot covers only what is committed, and holds what it says. Every log goes on where one ends.
    fn check_snapshot(&self, raft: &Raft<MemoryStorage>) {
        let (id, disk) = (raft.id(), raft.storage());
        let Some(snapshot) = disk.snapshot() else {
            assert_eq!(disk.log_start(), EntryId::default(), "{id} lacks the beginning of its log");
            return;
        };
        let last = snapshot.last;
        assert!(
            last.index <= raft.commit_index(),
            "{id} has a snapshot up to {last}, which is not committed"
        );
        assert!(disk.log_start().index <= last.index, "{id}: a gap between snapshot and log");
        assert!(disk.term(last.index) == Some(last.term), "{id} keeps a log that contradicts its snapshot");
        if let Some((bytes, _)) = self.committed.get(&last.index) {
            let committed = Entry::decode(bytes).expect("memory does not rot").id();
            assert_eq!(last, committed, "{id} has a snapshot of another history");
        }
        let content = snapshot_content(last, Some(snapshot.bytes as usize));
        assert!(
            disk.snapshot_bytes() == Some(&content),
            "{id}: the snapshot up to {last} has another content"
        );
    }

    /// A promise leaves: what it promises must be durable.
    pub fn check_promise(&mut self, disk: &MemoryStorage, envelope: &Envelope) {
        let Envelope { from, to, term, message } = envelope;
        let durable = disk.durable_hard_state();
        match message {
            Message::RequestVote { .. } => self.check_vote(*from, *term, *from, durable.vote),
            Message::RequestVoteResponse { granted: true } => {
                self.check_vote(*from, *term, *to, durable.vote);
            }
            Message::AppendEntriesResponse { outcome: AppendOutcome::Accepted { match_index } } => {
                assert!(*match_index <= disk.durable_last_index(), "{from} acknowledged what it may lose");
            }
            Message::InstallSnapshotResponse {
                outcome: SnapshotOutcome::Installed { match_index }, ..
            } => {
                assert!(*match_index <= disk.durable_last_index(), "{from} acknowledged what it may lose");
            }
            _ => {}
        }
        if let Message::RequestVote { .. } | Message::RequestVoteResponse { granted: true } = message {
            assert_eq!(disk.durable_standing(), Standing::Voter, "{from} may have voted otherwise before");
        }
        assert!(
            !message.requires_sync() || durable.term >= *term,
            "{from} speaks in a term that it may forget"
        );
    }

    fn check_vote(&mut self, voter: NodeId, term: Term, candidate: NodeId, durable: Option<NodeId>) {
        assert_eq!(durable, Some(candidate), "{voter} gave a vote that it may forget");
        let first = *self.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(first, candidate, "{voter} voted twice in term {term}");
    }

    /// A read is asked for: its answer must include everything committed so far.
    pub fn on_read(&mut self, context: ReadContext) {
        let latest = self.committed.last_key_value().map_or(Index(0), |(index, _)| *index);
        self.reads.insert(context, latest);
    }

    /// A read may be answered at `index`.
    pub fn check_read(&mut self, context: ReadContext, index: Index) {
        let needed = self.reads.remove(&context).expect("a read is confirmed once");
        assert!(index >= needed, "stale read: at {index}, but {needed} was committed before it began");
    }
}

fn id_at(raft: &Raft<MemoryStorage>, index: Index) -> Option<EntryId> {
    raft.storage().term(index).map(|term| EntryId::new(term, index))
}

/// If two logs have an entry with the same id, they are the same up to it.
fn check_log_matching(left: &Raft<MemoryStorage>, right: &Raft<MemoryStorage>) {
    let first = left.storage().log_start().index.max(right.storage().log_start().index).next();
    let mut index = left.last_index().min(right.last_index());
    let mut is_common = false;
    while index >= first {
        is_common |= id_at(left, index) == id_at(right, index);
        if is_common {
            let bytes = |raft: &Raft<MemoryStorage>| {
                raft.storage().entry(index).expect("memory does not fail").bytes().to_vec()
            };
            assert_eq!(bytes(left), bytes(right), "{} and {} differ at {index}", left.id(), right.id());
        }
        index = index.prev();
    }
}
