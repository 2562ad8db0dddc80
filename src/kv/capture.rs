//! A snapshot in the making: the state as it was at one entry, written piece by piece while later entries are applied.
//!
//! Nothing is copied when it begins. Items are written in the order of their keys; when an entry changes or removes one
//! that is not written yet, its old value is kept aside until it is its turn. Values are shared, so that costs a key and
//! a few words.
//!
//! ```text
//!            cursor
//!  a b c d e f | g h i j k l      items as they are: changed since the beginning are h, j and (new) k
//!              |   h'  j'         aside: as they were
//!   written    |  next: g h' i j' l
//! ```
//!
//! Records of idempotency keys come before the items, in the order of the log. They never change; the oldest ones go, and
//! those that go before they are written are kept aside, too.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::kv::idempotency::{Idempotency, Record};
use crate::kv::items::{Item, Items};
use crate::kv::session::Sessions;
use crate::kv::snapshot::{
    HEADER_BYTES, Header, SESSION_BYTES, encode_item, encode_record, encode_session, hash_frame, hash_item,
    hash_record,
};
use crate::kv::state_hash::StateHash;
use crate::raft::types::Index;
use crate::util::mutation::mutant;

/// What passing over an item that came later is reckoned as, in bytes of the budget.
const PASSED_OVER_BYTES: usize = 64;

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    header: Header,
    /// Empty when they are written.
    sessions: Sessions,
    /// Records up to this revision are written.
    record_cursor: Index,
    /// Records that were not written when they went.
    records_aside: VecDeque<Arc<Record>>,
    records_written: u64,
    /// Items up to this key are written. `None`: nothing is.
    cursor: Option<Box<str>>,
    /// Items behind the cursor as they were, if they are changed or gone by now.
    aside: BTreeMap<Box<str>, Item>,
    hash: StateHash,
    written: u64,
    items_written: u64,
}

impl Capture {
    pub(crate) fn new(header: Header, sessions: Sessions) -> Capture {
        Capture {
            hash: hash_frame(&header, &sessions),
            header,
            sessions,
            record_cursor: Index(0),
            records_aside: VecDeque::new(),
            records_written: 0,
            cursor: None,
            aside: BTreeMap::new(),
            written: 0,
            items_written: 0,
        }
    }

    /// The last entry whose effects are in it.
    pub(crate) fn index(&self) -> Index {
        self.header.applied_index
    }

    /// An entry has replaced or removed this item.
    pub(crate) fn keep_aside(&mut self, key: Box<str>, old: Item) {
        let is_newer = old.revision > self.header.applied_index;
        let is_written = self.cursor.as_deref().is_some_and(|cursor| &*key <= cursor);
        if is_newer || is_written || mutant("snapshot-keeps-nothing-aside") {
            return;
        }
        self.aside.insert(key, old);
    }

    /// The oldest record is forgotten.
    pub(crate) fn keep_record_aside(&mut self, record: Arc<Record>) {
        let is_newer = record.revision > self.header.applied_index;
        let is_written = record.revision <= self.record_cursor;
        if !is_newer && !is_written {
            self.records_aside.push_back(record);
        }
    }

    /// Goes on writing, about `budget` bytes: at most that and one item or record. `idempotency` and `items` are the state
    /// as it is. Says whether everything is written.
    pub(crate) fn write(
        &mut self,
        idempotency: &Idempotency,
        items: &Items,
        out: &mut Vec<u8>,
        budget: usize,
    ) -> bool {
        let start = out.len();
        let full = start.saturating_add(budget.max(1));
        if self.written == 0 {
            self.write_frame(out);
        }
        let is_whole = self.write_records(idempotency, out, full) && self.write_items(items, out, full);
        if is_whole {
            out.extend_from_slice(&self.hash.get().to_le_bytes());
        }
        self.written += (out.len() - start) as u64;
        if is_whole {
            let expected = (self.header.records, self.header.items, self.header.bytes);
            let found = (self.records_written, self.items_written, self.written);
            assert_eq!(found, expected, "a snapshot is as long as it said");
        }
        is_whole
    }

    /// Writes records until `out` has `full` bytes. Says whether all are written.
    fn write_records(&mut self, idempotency: &Idempotency, out: &mut Vec<u8>, full: usize) -> bool {
        while out.len() < full {
            let Some(record) = self.records_aside.pop_front() else { break };
            self.write_record(&record, out);
        }
        // Nothing is aside, or there is no room.
        for record in idempotency.iter_after(self.record_cursor) {
            if out.len() >= full || record.revision > self.header.applied_index {
                break;
            }
            self.write_record(record, out);
        }
        let is_whole = self.records_written == self.header.records;
        assert!(is_whole || out.len() >= full, "a record is written, remembered or aside");
        is_whole
    }

    fn write_record(&mut self, record: &Record, out: &mut Vec<u8>) {
        encode_record(record, out);
        hash_record(&mut self.hash, record);
        self.record_cursor = record.revision;
        self.records_written += 1;
    }

    /// Writes items until `out` has `full` bytes. Says whether all are written.
    fn write_items(&mut self, items: &Items, out: &mut Vec<u8>, full: usize) -> bool {
        let mut passed_over = 0;
        let after = self.cursor.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut items = items.iter_from(after).peekable();
        // The last keys of both kinds: the greater one is how far this got.
        let (mut last, mut last_aside) = (None, None);
        let is_whole = loop {
            if out.len().saturating_add(passed_over) >= full {
                break false;
            }
            let next = items.peek().map(|(key, _)| *key);
            let is_aside = match (next, self.aside.first_key_value()) {
                (None, None) => break true,
                (Some(next), Some((aside, _))) => &**aside <= next,
                (next, _) => next.is_none(),
            };
            if is_aside {
                let (key, old) = self.aside.pop_first().expect("just seen");
                if next == Some(&*key) {
                    items.next();
                }
                self.write_item(&key, &old, out);
                last_aside = Some(key);
                continue;
            }
            let (key, item) = items.next().expect("just seen");
            if item.revision <= self.header.applied_index {
                self.write_item(key, item, out);
            } else {
                passed_over += PASSED_OVER_BYTES;
            }
            last = Some(key);
        };
        let reached = last_aside.max(last.map(Box::from));
        if reached.is_some() {
            self.cursor = reached;
        }
        is_whole
    }

    fn write_frame(&mut self, out: &mut Vec<u8>) {
        out.reserve(HEADER_BYTES + SESSION_BYTES * self.sessions.count());
        self.header.encode(out);
        for id in self.sessions.iter() {
            encode_session(id, out);
        }
        self.sessions = Sessions::default();
    }

    fn write_item(&mut self, key: &str, item: &Item, out: &mut Vec<u8>) {
        encode_item(key, item, out);
        hash_item(&mut self.hash, key, item);
        self.items_written += 1;
    }
}
