//! The snapshot that the workload is writing: one of its own log, or one that a leader sends.

use keva::raft::storage::{SnapshotMeta, Storage, StorageError};
use keva::raft::types::{EntryId, Index};
use keva::util::rng::Rng;

use crate::content;
use crate::node::Node;

/// What is written, and how far it is.
pub(crate) struct Draft {
    last: EntryId,
    /// The digests of the entries that it covers.
    covered: Vec<u64>,
    content: Vec<u8>,
    written: usize,
    /// What the leader says of it; `None` for the node's own.
    expected: Option<SnapshotMeta>,
}

impl Draft {
    /// One of the log, whose digests these are: up to any entry that the newest snapshot does not cover yet. `None` when
    /// there is no such entry.
    pub(crate) fn of_log(node: &Node, log: &[u64], rng: &mut Rng) -> Option<Draft> {
        let newest = node.snapshot().map_or(0, |meta| meta.last.index.0);
        let index = rng.range(newest, node.last_index().0 + 1).max(newest + 1);
        let term = node.term(Index(index))?;
        Some(Draft::new(EntryId::new(term, Index(index)), log[..index as usize].to_vec(), None, rng))
    }

    /// One that a leader of the present term sends, because it has everything that is committed and this node does not.
    /// The node may still have the last entry that it covers, or others in the place of its entries, or none.
    pub(crate) fn of_leader(node: &Node, log: &[u64], rng: &mut Rng) -> Draft {
        let newest = node.snapshot().map_or(0, |meta| meta.last.index.0);
        let floor = node.hard_state().commit_index.0.max(newest);
        let last_index = node.last_index().0;
        let index = rng.range(floor + 1, last_index + 8);
        let own_term = node.term(Index(index));
        let term = match own_term {
            Some(term) if term == node.hard_state().term || rng.range(0, 2) == 0 => term,
            _ => node.hard_state().term,
        };
        let shared = if own_term == Some(term) { index } else { floor };
        let mut covered = log[..shared as usize].to_vec();
        covered.extend((shared..index).map(|_| rng.next_u64()));
        let mut draft = Draft::new(EntryId::new(term, Index(index)), covered, None, rng);
        draft.expected = Some(content::meta(draft.last, &draft.content));
        draft
    }

    fn new(last: EntryId, covered: Vec<u64>, expected: Option<SnapshotMeta>, rng: &mut Rng) -> Draft {
        // Less than a block; some blocks; more than is checked together; more than is synced together.
        let bytes = match rng.range(0, 20) {
            0 => rng.range(1_000_000, 2_400_000),
            1..=3 => rng.range(250_000, 600_000),
            4..=9 => rng.range(4_000, 60_000),
            _ => 0,
        };
        let content = content::encode(&covered, rng.next_u64(), bytes as usize);
        Draft { last, covered, content, written: 0, expected }
    }

    /// Has the storage begin it. `false`: there is no space.
    pub(crate) fn begin(&self, node: &mut Node) -> Result<bool, StorageError> {
        node.begin_snapshot(self.last, self.content.len() as u64)
    }

    /// The last entry that it covers.
    pub(crate) fn last(&self) -> EntryId {
        self.last
    }

    /// The digests of the entries that it covers.
    pub(crate) fn covered(&self) -> &[u64] {
        &self.covered
    }

    pub(crate) fn expected(&self) -> Option<SnapshotMeta> {
        self.expected
    }

    /// Whether it needs the last entry that it covers to stay in the log.
    pub(crate) fn is_of(&self, node: &Node) -> bool {
        node.term(self.last.index) == Some(self.last.term)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.written == self.content.len()
    }

    /// Writes up to `budget` bytes of it.
    pub(crate) fn append(&mut self, node: &mut Node, budget: usize) -> Result<(), StorageError> {
        let end = self.content.len().min(self.written + budget);
        node.append_snapshot(&self.content[self.written..end])?;
        self.written = end;
        Ok(())
    }
}
