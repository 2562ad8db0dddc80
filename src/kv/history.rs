//! The latest changes of keys, in the order of the log, for those who follow them.
//!
//! Every change has a number, counted from 1 in the life of a process; numbers are a node's own, revisions are the
//! cluster's. All changes of one entry have its revision, and the last one of them says so: whoever got that one has all
//! of the entry. Changes of one entry to the same key are one change.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::kv::store::Item;
use crate::raft::types::Index;
use crate::util::mutation::mutant;

/// One key's change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The index of the entry.
    pub revision: Index,
    /// The key.
    pub key: Arc<str>,
    /// What happened.
    pub kind: ChangeKind,
    /// Whether no further change of the same entry follows.
    pub is_last: bool,
}

/// What happened to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// It has this value.
    Put(Item),
    /// It was removed.
    Delete,
    /// Its life was over.
    Expire,
}

/// See the module's text. Bounded by the bytes of keys and values that it keeps.
#[derive(Debug)]
pub struct History {
    changes: VecDeque<Change>,
    /// The number of the first of `changes`.
    first: u64,
    bytes: usize,
    bytes_max: usize,
    /// Every change above this revision is in `changes`.
    floor: Index,
}

impl History {
    /// Nothing has happened since `floor`.
    #[must_use]
    pub fn new(floor: Index, bytes_max: usize) -> History {
        History { changes: VecDeque::new(), first: 1, bytes: 0, bytes_max, floor }
    }

    /// Adds the changes of one entry, all of the same revision, in the order of their keys. The oldest changes go when
    /// there are too many, whole entries at a time; even those of this entry when they alone are too many.
    ///
    /// # Panics
    /// When the changes are not of one entry, or of one that is not behind all others.
    pub fn push(&mut self, changes: Vec<Change>) {
        let Some(revision) = changes.last().map(|change| change.revision) else { return };
        let newest = self.changes.back().map_or(self.floor, |change| change.revision);
        assert!(revision > newest, "changes come in the order of the log");
        let is_one = changes.iter().all(|change| change.revision == revision);
        assert!(is_one, "changes are pushed entry by entry");
        let bytes: usize = changes.iter().map(change_bytes).sum();
        if bytes > self.bytes_max {
            self.clear(revision);
            self.first += changes.len() as u64;
            return;
        }
        while self.bytes > self.bytes_max - bytes {
            self.drop_oldest();
        }
        self.bytes += bytes;
        let is_kept = |change: &Change| change.is_last || !mutant("change-lost");
        self.changes.extend(changes.into_iter().filter(is_kept));
    }

    /// Forgets the changes of the oldest entry that there is.
    fn drop_oldest(&mut self) {
        let oldest = self.changes.front().expect("bytes are those of changes").revision;
        while let Some(change) = self.changes.pop_front_if(|change| change.revision == oldest) {
            self.bytes -= change_bytes(&change);
            self.first += 1;
        }
        self.floor = oldest;
    }

    /// What happened up to `floor` is not known: the state was replaced by a snapshot, or an entry had more changes than are
    /// kept.
    pub fn clear(&mut self, floor: Index) {
        self.first = self.next_number();
        self.changes.clear();
        self.bytes = 0;
        self.floor = floor;
    }

    /// The number that the next change will have.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// The number of the oldest change that is kept; [`History::next_number`] when none is.
    #[must_use]
    pub fn first_number(&self) -> u64 {
        self.first
    }

    /// Every change with a higher revision is kept.
    #[must_use]
    pub fn floor(&self) -> Index {
        self.floor
    }

    /// The number of the first change with a higher revision than `revision`. `None`: some of them are not kept.
    #[must_use]
    pub fn number_after(&self, revision: Index) -> Option<u64> {
        if revision < self.floor {
            return None;
        }
        let before = self.changes.partition_point(|change| change.revision <= revision);
        Some(self.first + before as u64)
    }

    /// A change by its number, `None` when it is not kept (any more, or yet).
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Change> {
        let offset = number.checked_sub(self.first)?;
        self.changes.get(usize::try_from(offset).ok()?)
    }
}

/// What a change is reckoned as: its own size, its key, its value and its type.
pub(super) fn change_bytes(change: &Change) -> usize {
    let content = match &change.kind {
        ChangeKind::Put(item) => item.value.len() + item.content_type.as_ref().map_or(0, |name| name.len()),
        ChangeKind::Delete | ChangeKind::Expire => 0,
    };
    size_of::<Change>() + change.key.len() + content
}
