//! The storage under test, and everything that it shows.

use std::path::Path;

use keva::raft::entry::{Entry, EntryKind, encode_entry};
use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Index, NodeId, Term};
use keva::storage::{DataDir, LogStorage, Membership, RecoveryReport, StorageOptions};
use keva::util::hash::fnv1a_64;
use keva::util::rng::Rng;

use crate::content;

/// Keva's storage on a real file system.
pub(crate) type Node = LogStorage<DataDir>;

/// Everything that an open storage shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) incarnation: u64,
    pub(crate) disk_id: u64,
    pub(crate) cluster_id: u128,
    /// The log begins behind it.
    pub(crate) base: u64,
    pub(crate) hard_state: HardState,
    /// The digest of each entry that the newest snapshot covers, as its content says.
    pub(crate) covered: Vec<u64>,
    /// The digest of each entry of the log.
    pub(crate) entries: Vec<u64>,
}

impl Found {
    /// Reads everything.
    pub(crate) fn read(node: &Node) -> Result<Found, StorageError> {
        let base = node.log_start().index.0;
        let digests = (base + 1..=node.last_index().0).map(|index| Ok(digest(node.entry(Index(index))?)));
        Ok(Found {
            incarnation: node.incarnation().0,
            disk_id: node.disk_id(),
            cluster_id: node.cluster_id(),
            base,
            hard_state: node.hard_state(),
            covered: content::read_newest(node)?,
            entries: digests.collect::<Result<_, StorageError>>()?,
        })
    }

    /// The last entry's index.
    pub(crate) fn last_index(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The digests of all entries from index 1 on. `None`: there is a gap between snapshot and log.
    pub(crate) fn whole_log(&self) -> Option<Vec<u64>> {
        let mut log = self.covered.get(..self.base as usize)?.to_vec();
        log.extend(&self.entries);
        Some(log)
    }

    /// The same, but for entries under the snapshot that may go at any start.
    pub(crate) fn is_like(&self, other: &Found) -> bool {
        let without_log = |found: &Found| Found { base: 0, entries: Vec::new(), ..found.clone() };
        let log = self.whole_log();
        log.is_some() && log == other.whole_log() && without_log(self) == without_log(other)
    }

    /// For people.
    pub(crate) fn summary(&self) -> String {
        let HardState { term, vote, commit_index } = self.hard_state;
        format!(
            "snapshot up to {}, entries {} to {}, term {term}, vote {:?}, commit {commit_index}, start {}",
            self.covered.len(),
            self.base + 1,
            self.last_index(),
            vote.map(|node| node.0),
            self.incarnation
        )
    }
}

/// What stands for an entry in notes and promises.
pub(crate) fn digest(entry: Entry<'_>) -> u64 {
    fnv1a_64(entry.bytes())
}

/// Opens the storage in a directory, which is made when it is missing.
pub(crate) fn open(
    directory: &Path,
    segment_bytes: usize,
    seed: u64,
) -> Result<(Node, RecoveryReport), StorageError> {
    let membership = Membership {
        node: NodeId(fnv1a_64(b"a")),
        identity: "a".into(),
        members: vec!["a".into(), "b".into(), "c".into()],
        cluster_name: None,
    };
    // Everything that a snapshot covers goes at once. What would be set aside is a failure here.
    let options =
        StorageOptions { membership, segment_bytes, log_margin_bytes: 0, repair: false, rng: Rng::new(seed) };
    LogStorage::open(DataDir::open(directory)?, options)
}

/// An entry's bytes.
pub(crate) fn entry_bytes(term: Term, index: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_entry(EntryId::new(term, Index(index)), EntryKind::Command, payload, &mut bytes);
    bytes
}
