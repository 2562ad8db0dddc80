//! The keys and their values: what all nodes compute alike from the same log.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kv::capture::Capture;
use crate::kv::command::Command;
use crate::kv::history::Change;
pub use crate::kv::outcome::Applied;
use crate::kv::payload::Payload;
use crate::kv::range::KeyRange;
use crate::kv::restore::{Restore, RestoreError};
use crate::kv::session::Sessions;
use crate::kv::snapshot::{Header, frame_bytes, hash_frame, hash_item, item_bytes};
use crate::raft::types::Index;
use crate::util::mutation::mutant;
use crate::util::time::LogicalTime;

/// A key's value with what is known about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The bytes as written.
    pub value: Arc<[u8]>,
    /// What the writer called them.
    pub content_type: Option<Arc<str>>,
    /// The index of the write: the key's revision.
    pub revision: Index,
    /// When its life is over, if it has an end.
    pub expires_at: Option<LogicalTime>,
}

/// A part of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// In order. Without their values, items have them all the same: they are shared with the store.
    pub keys: Vec<(Box<str>, Item)>,
    /// Whether keys of the range follow behind the last one.
    pub has_more: bool,
}

/// The state machine. Everything in it follows from the log up to [`Store::applied_index`], and from nothing else; but
/// for a snapshot that is being taken, which is no part of the state and does not count when two are compared.
#[derive(Clone, Default, Debug)]
pub struct Store {
    applied_index: Index,
    items: BTreeMap<Box<str>, Item>,
    /// Bytes of `items` in a snapshot.
    item_bytes: u64,
    sessions: Sessions,
    capture: Option<Box<Capture>>,
}

impl PartialEq for Store {
    fn eq(&self, other: &Store) -> bool {
        self.applied_index == other.applied_index
            && self.items == other.items
            && self.sessions == other.sessions
    }
}

impl Eq for Store {}

impl Store {
    /// What a snapshot held.
    pub(crate) fn restored(
        applied_index: Index,
        items: BTreeMap<Box<str>, Item>,
        item_bytes: u64,
        sessions: Sessions,
    ) -> Store {
        Store { applied_index, items, item_bytes, sessions, capture: None }
    }

    /// Carries out the command of the entry at `index`. Its conditions are judged against the state that all entries
    /// before it have left, which is the only state that is the same on every node.
    ///
    /// # Panics
    /// When an entry is left out or repeated.
    pub fn apply(&mut self, index: Index, payload: Payload) -> Applied {
        self.pass(index);
        let Payload { id, time: _, write } = payload;
        if !self.sessions.advance(id) && !mutant("no-dedupe") {
            return Applied::Skipped;
        }
        let command = write.command;
        let current = command.key().and_then(|key| self.items.get(key)).map(|item| item.revision);
        let holds = command.condition().is_none_or(|condition| condition.holds(current));
        if !holds && !mutant("conditions-ignored") {
            return Applied::ConditionFailed { current };
        }
        match command {
            Command::Put { key, value, content_type, .. } => {
                let content_type = content_type.map(Arc::from);
                self.put(key, Item { value: value.into(), content_type, revision: index, expires_at: None });
            }
            Command::Delete { key, .. } => self.remove(key),
            _ => todo!(),
        }
        Applied::Written
    }

    /// What the last entry changed, in the order of the keys; given once.
    pub fn take_changes(&mut self) -> Vec<Change> {
        todo!()
    }

    /// The time of the newest entry that has one. It never goes back.
    #[must_use]
    pub fn logical_time(&self) -> LogicalTime {
        todo!()
    }

    /// When the next key's life is over.
    #[must_use]
    pub fn next_expiry(&self) -> Option<LogicalTime> {
        todo!()
    }

    /// Keys whose life is over at `now`, with their revisions, earliest first, at most `max`.
    #[must_use]
    pub fn expired(&self, _now: LogicalTime, _max: usize) -> Vec<(String, Index)> {
        todo!()
    }

    /// The keys of a range with what is known about them, in order.
    pub fn range(&self, range: &KeyRange) -> impl Iterator<Item = (&str, &Item)> {
        let bounds = (range.first(), std::ops::Bound::Unbounded);
        let items = self.items.range::<str, _>(bounds).map(|(key, item)| (key.as_ref(), item));
        items.take_while(|(key, _)| range.contains(key))
    }

    /// One page of a range: at most `limit` keys, and at most `PAGE_BYTES_MAX` bytes of keys and, `with_values`, values;
    /// at least one key if there is one.
    #[must_use]
    pub fn page(&self, _range: &KeyRange, _limit: usize, _with_values: bool) -> Page {
        todo!()
    }

    /// How many keys a range has. Reads all of them, unless it is the whole.
    #[must_use]
    pub fn count(&self, _range: &KeyRange) -> u64 {
        todo!()
    }

    fn put(&mut self, key: String, item: Item) {
        self.item_bytes += item_bytes(&key, &item);
        if let Some(present) = self.items.get_mut(key.as_str()) {
            let old = std::mem::replace(present, item);
            self.on_gone(key, old);
        } else {
            self.items.insert(key.into_boxed_str(), item);
        }
    }

    fn remove(&mut self, key: String) {
        if mutant("deleted-key-comes-back") && self.capture.is_some() {
            return;
        }
        if let Some(old) = self.items.remove(key.as_str()) {
            self.on_gone(key, old);
        }
    }

    fn on_gone(&mut self, key: String, old: Item) {
        self.item_bytes -= item_bytes(&key, &old);
        if let Some(capture) = &mut self.capture {
            capture.keep_aside(key, old);
        }
    }

    /// Notes that the entry at `index` is done: one without a command changes nothing.
    ///
    /// # Panics
    /// When an entry is left out or repeated.
    pub fn pass(&mut self, index: Index) {
        assert_eq!(index, self.applied_index.next(), "entries are applied in order, each once");
        self.applied_index = index;
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied_index(&self) -> Index {
        self.applied_index
    }

    /// The key's value, if it has one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Item> {
        self.items.get(key)
    }

    /// How many keys there are.
    #[must_use]
    pub fn key_count(&self) -> u64 {
        self.items.len() as u64
    }

    /// The newest write applied of each origin.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A hash over everything: equal on any two nodes that have applied the same entries. Reads the whole state, so
    /// it is for tests and simulators, not for every turn.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        let mut hash = hash_frame(self.applied_index, &self.sessions, self.key_count());
        for (key, item) in &self.items {
            hash_item(&mut hash, key, item);
        }
        hash.get()
    }

    /// Exactly how long a snapshot of the present state would be.
    #[must_use]
    pub fn snapshot_bytes(&self) -> u64 {
        frame_bytes(&self.sessions) + self.item_bytes
    }

    /// Begins a snapshot of the present state; says how long it will be. What is applied from here on does not show in
    /// it. It costs nothing before it is written, and a key per item that changes meanwhile.
    ///
    /// # Panics
    /// When one is being taken already.
    pub fn begin_snapshot(&mut self) -> u64 {
        assert!(self.capture.is_none(), "one snapshot at a time");
        let header = Header {
            applied_index: self.applied_index,
            sessions: u32::try_from(self.sessions.count()).expect("origins are nodes, and few"),
            items: self.key_count(),
            bytes: self.snapshot_bytes(),
        };
        self.capture = Some(Box::new(Capture::new(header, self.sessions.clone())));
        header.bytes
    }

    /// Appends the next part of the snapshot to `out`: about `budget` bytes, at most that and one item. Says whether
    /// this was the last one.
    ///
    /// # Panics
    /// When none is being taken.
    pub fn write_snapshot(&mut self, out: &mut Vec<u8>, budget: usize) -> bool {
        let capture = self.capture.as_mut().expect("a snapshot was begun");
        let is_whole = capture.write(&self.items, out, budget);
        if is_whole {
            self.capture = None;
        }
        is_whole
    }

    /// Forgets the snapshot that is being taken, if there is one.
    pub fn abandon_snapshot(&mut self) {
        self.capture = None;
    }

    /// The last entry whose effects are in the snapshot that is being taken.
    #[must_use]
    pub fn snapshot_index(&self) -> Option<Index> {
        self.capture.as_ref().map(|capture| capture.index())
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// With what is wrong. Never panics, whatever the bytes.
    pub fn restore(bytes: &[u8]) -> Result<Store, RestoreError> {
        Restore::read(bytes)
    }
}
