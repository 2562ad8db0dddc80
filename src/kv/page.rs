//! A part of a listing.

use std::sync::Arc;

use crate::kv::items::Item;
use crate::limits::LISTED_OVERHEAD_BYTES;
use crate::raft::types::Index;
use crate::util::time::LogicalTime;

/// What a listing says of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed<'a> {
    /// The key.
    pub key: &'a str,
    /// The key's revision.
    pub revision: Index,
    /// Length of its value in bytes.
    pub size: u64,
    /// When its life is over, if it has an end.
    pub expires_at: Option<LogicalTime>,
    /// The value itself, if it was asked for.
    pub value: Option<&'a [u8]>,
}

/// Keys in their order, with what is known about them. Holds no part of the store but values that were asked for: making
/// one looks at nothing else, and allocates nothing per key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// All keys, one behind the other.
    names: String,
    entries: Vec<Entry>,
    /// What [`listed_bytes`] says of all of them.
    bytes: usize,
    /// Whether keys of the range follow behind the last one.
    pub has_more: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    /// Where the key ends in `names`. It begins where the one before ends.
    end: usize,
    revision: Index,
    size: u64,
    expires_at: Option<LogicalTime>,
    value: Option<Arc<[u8]>>,
}

impl Page {
    /// Adds a key behind all others.
    pub(super) fn push(&mut self, key: &str, item: &Item, with_value: bool) {
        self.bytes += listed_bytes(key, item, with_value);
        self.names.push_str(key);
        self.entries.push(Entry {
            end: self.names.len(),
            revision: item.revision,
            size: item.value.len() as u64,
            expires_at: item.expires_at,
            value: with_value.then(|| item.value.clone()),
        });
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Length of all keys together in bytes.
    #[must_use]
    pub fn key_bytes(&self) -> usize {
        self.names.len()
    }

    /// What the whole is reckoned as, in bytes: its keys, the values that were asked for, and `LISTED_OVERHEAD_BYTES` each.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys, in order.
    pub fn iter(&self) -> impl Iterator<Item = Listed<'_>> {
        let starts = std::iter::once(0).chain(self.entries.iter().map(|entry| entry.end));
        starts.zip(&self.entries).map(|(start, entry)| self.listed(start, entry))
    }

    /// The last key, `None` when there is none.
    #[must_use]
    pub fn last_key(&self) -> Option<&str> {
        let start = self.entries.iter().rev().nth(1).map_or(0, |entry| entry.end);
        (!self.is_empty()).then(|| &self.names[start..])
    }

    fn listed<'a>(&'a self, start: usize, entry: &'a Entry) -> Listed<'a> {
        Listed {
            key: &self.names[start..entry.end],
            revision: entry.revision,
            size: entry.size,
            expires_at: entry.expires_at,
            value: entry.value.as_deref(),
        }
    }
}

/// What a key on a page is reckoned as.
pub(super) fn listed_bytes(key: &str, item: &Item, with_value: bool) -> usize {
    LISTED_OVERHEAD_BYTES + key.len() + if with_value { item.value.len() } else { 0 }
}
