//! The keys and their values: what all nodes compute alike from the same log.

use crate::kv::capture::Capture;
use crate::kv::changes::Changes;
use crate::kv::count::Count;
use crate::kv::execute::Removal;
use crate::kv::history::Change;
use crate::kv::idempotency::Idempotency;
pub use crate::kv::items::Item;
use crate::kv::items::Items;
pub use crate::kv::outcome::Applied;
pub use crate::kv::page::Page;
use crate::kv::page::listed_bytes;
use crate::kv::payload::Payload;
use crate::kv::range::KeyRange;
use crate::kv::restore::{Restore, RestoreError};
use crate::kv::session::Sessions;
use crate::kv::snapshot::{Header, frame_bytes, hash_frame, hash_item, hash_record};
use crate::limits::PAGE_BYTES_MAX;
use crate::raft::types::Index;
use crate::util::mutation::mutant;
use crate::util::time::LogicalTime;

/// The state machine. Everything in it follows from the log up to [`Store::applied_index`], and from nothing else; but
/// for a snapshot that is being taken, the changes of the last entry and a count that goes on, which are no part of the
/// state and do not matter when two are compared.
///
/// An entry may be carried out in several parts. In between, the keys are as they are after no entry: see
/// [`Store::is_settled`].
#[derive(Clone, Default, Debug)]
pub struct Store {
    applied_index: Index,
    pub(super) logical_time: LogicalTime,
    pub(super) items: Items,
    sessions: Sessions,
    pub(super) idempotency: Idempotency,
    /// What the last entry changed, until somebody takes it.
    pub(super) changes: Changes,
    /// The next entry has been begun, and removes keys.
    pub(super) removal: Option<Removal>,
    pub(super) capture: Option<Box<Capture>>,
    pub(super) count: Option<Count>,
}

impl PartialEq for Store {
    fn eq(&self, other: &Store) -> bool {
        self.applied_index == other.applied_index
            && self.logical_time == other.logical_time
            && self.items == other.items
            && self.sessions == other.sessions
            && self.idempotency == other.idempotency
    }
}

impl Eq for Store {}

impl Store {
    /// What a snapshot held.
    pub(super) fn restored(
        applied_index: Index,
        logical_time: LogicalTime,
        sessions: Sessions,
        idempotency: Idempotency,
        items: Items,
    ) -> Store {
        Store { applied_index, logical_time, items, sessions, idempotency, ..Store::default() }
    }

    /// Carries out the command of the entry at `index`. Its conditions are judged against the state that all entries
    /// before it have left, which is the only state that is the same on every node.
    ///
    /// # Panics
    /// When an entry is left out or repeated.
    pub fn apply(&mut self, index: Index, payload: Payload) -> Applied {
        self.apply_some(index, payload, usize::MAX).expect("without a bound an entry has one part")
    }

    /// Like [`Store::apply`], but removes at most `removals_max` keys of those that a prefix names. `None`: that was not
    /// all; the same call goes on with it.
    ///
    /// # Panics
    /// When an entry is left out or repeated.
    pub fn apply_some(&mut self, index: Index, payload: Payload, removals_max: usize) -> Option<Applied> {
        assert_eq!(index, self.applied_index.next(), "entries are applied in order, each once");
        let outcome = match self.removal.take() {
            Some(removal) => self.go_on(index, removal, removals_max)?,
            None => self.begin(index, payload, removals_max)?,
        };
        self.changes.mark_last();
        self.applied_index = index;
        Some(outcome)
    }

    /// Whether the state is that after [`Store::applied_index`], and not on the way to the next one. Nobody may be told
    /// of any key before it is, and no snapshot may begin.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.removal.is_none()
    }

    fn begin(&mut self, index: Index, payload: Payload, removals_max: usize) -> Option<Applied> {
        self.changes.clear();
        let Payload { id, time, write } = payload;
        if time > self.logical_time || mutant("logical-time-goes-back") {
            self.logical_time = time;
        }
        self.evict_records();
        // A leader's own commands have no number: doing one twice is harmless, because it depends on the time alone.
        let is_new = id.seq == 0 || self.sessions.advance(id);
        if !is_new && !mutant("no-dedupe") {
            return Some(Applied::Skipped);
        }
        self.execute(index, write, removals_max)
    }

    /// Changes of one entry that are more than this, in bytes, are not kept until they are taken.
    pub fn set_changes_max(&mut self, bytes: usize) {
        self.changes.set_bytes_max(bytes);
    }

    /// About how many bytes the last entry has written, until its changes are taken.
    #[must_use]
    pub fn changes_bytes(&self) -> usize {
        self.changes.bytes()
    }

    /// What the last entry changed, in the order of the keys; given once, and only until the next entry. `None`: too much
    /// to be kept.
    pub fn take_changes(&mut self) -> Option<Vec<Change>> {
        self.changes.take()
    }

    /// The time of the newest entry that has one. It never goes back.
    #[must_use]
    pub fn logical_time(&self) -> LogicalTime {
        self.logical_time
    }

    /// When the next key's life is over.
    #[must_use]
    pub fn next_expiry(&self) -> Option<LogicalTime> {
        self.items.next_expiry()
    }

    /// Keys whose life is over at `now`, with their revisions, earliest first, at most `max`.
    #[must_use]
    pub fn expired(&self, now: LogicalTime, max: usize) -> Vec<(String, Index)> {
        let expired = self.items.expired(now).take(max);
        expired.map(|(key, item)| (key.to_owned(), item.revision)).collect()
    }

    /// The keys of a range with what is known about them, in order.
    pub fn range(&self, range: &KeyRange) -> impl Iterator<Item = (&str, &Item)> {
        self.items.iter_from(range.first()).take_while(|(key, _)| range.contains(key))
    }

    /// One page of a range: at most `limit` keys, and at most `PAGE_BYTES_MAX` bytes of keys, of what is known about them and, `with_values`, of values;
    /// at least one key if there is one.
    #[must_use]
    pub fn page(&self, range: &KeyRange, limit: usize, with_values: bool) -> Page {
        let mut page = Page::default();
        for (key, item) in self.range(range) {
            let bytes = page.bytes() + listed_bytes(key, item, with_values);
            let is_full = page.len() >= limit || bytes > PAGE_BYTES_MAX;
            if is_full && !page.is_empty() {
                page.has_more = true;
                break;
            }
            page.push(key, item, with_values);
        }
        page
    }

    /// Goes on to find out how many keys a range has, or begins to if the last call was for another `number`. Counts at
    /// most `left` keys, and takes them off that. `None`: that was not all. Otherwise it is the number in the present
    /// state.
    pub fn go_on_counting(&mut self, number: u64, range: &KeyRange, left: &mut usize) -> Option<u64> {
        let present = self.count.take().filter(|count| count.number == number);
        let mut count = present.unwrap_or_else(|| Count::new(number, range.clone()));
        let found = count.go_on(&self.items, left);
        if found.is_none() {
            self.count = Some(count);
        }
        found
    }

    /// Nobody wants to know any more how many keys there are.
    pub fn stop_counting(&mut self) {
        self.count = None;
    }

    /// Notes that the entry at `index` is done: one without a command changes nothing.
    ///
    /// # Panics
    /// When an entry is left out or repeated.
    pub fn pass(&mut self, index: Index) {
        assert_eq!(index, self.applied_index.next(), "entries are applied in order, each once");
        assert!(self.is_settled(), "an entry is carried out to its end");
        self.applied_index = index;
        self.changes.clear();
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
        self.items.count()
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
        let mut hash = hash_frame(&self.header(), &self.sessions);
        for record in self.idempotency.iter_after(Index(0)) {
            hash_record(&mut hash, record);
        }
        for (key, item) in self.items.iter() {
            hash_item(&mut hash, key, item);
        }
        hash.get()
    }

    /// Exactly how long a snapshot of the present state would be.
    #[must_use]
    pub fn snapshot_bytes(&self) -> u64 {
        frame_bytes(&self.sessions) + self.idempotency.bytes() + self.items.bytes()
    }

    fn header(&self) -> Header {
        Header {
            applied_index: self.applied_index,
            logical_time: self.logical_time,
            sessions: u32::try_from(self.sessions.count()).expect("origins are nodes, and few"),
            records: self.idempotency.count(),
            items: self.key_count(),
            bytes: self.snapshot_bytes(),
        }
    }

    /// Begins a snapshot of the present state; says how long it will be. What is applied from here on does not show in
    /// it. It costs nothing before it is written, and a key per item that changes meanwhile.
    ///
    /// # Panics
    /// When one is being taken already, or the state is not settled.
    pub fn begin_snapshot(&mut self) -> u64 {
        assert!(
            self.is_settled() || mutant("snapshot-amid-removal"),
            "a snapshot is of what an entry has left"
        );
        assert!(self.capture.is_none(), "one snapshot at a time");
        let header = self.header();
        self.capture = Some(Box::new(Capture::new(header, self.sessions.clone())));
        header.bytes
    }

    /// Appends the next part of the snapshot to `out`: about `budget` bytes, at most that and one item or
    /// record. Says whether
    /// this was the last one.
    ///
    /// # Panics
    /// When none is being taken.
    pub fn write_snapshot(&mut self, out: &mut Vec<u8>, budget: usize) -> bool {
        let capture = self.capture.as_mut().expect("a snapshot was begun");
        let is_whole = capture.write(&self.idempotency, &self.items, out, budget);
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
