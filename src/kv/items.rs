//! The keys with their values, and what is derived from them: their bytes in a snapshot, and whose life ends next.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::kv::range::prefix_end;
use crate::kv::snapshot::item_bytes;
use crate::raft::types::Index;
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

/// See the module's text.
#[derive(Clone, Default, Debug)]
pub(crate) struct Items {
    map: BTreeMap<Box<str>, Item>,
    bytes: u64,
    /// The end of each life that has one.
    by_expiry: BTreeSet<(LogicalTime, Box<str>)>,
}

impl PartialEq for Items {
    fn eq(&self, other: &Items) -> bool {
        self.map == other.map
    }
}

impl FromIterator<(Box<str>, Item)> for Items {
    fn from_iter<T: IntoIterator<Item = (Box<str>, Item)>>(items: T) -> Items {
        let map = BTreeMap::from_iter(items);
        let lives = map.iter().filter_map(|(key, item)| Some((item.expires_at?, key.clone())));
        let by_expiry = lives.collect();
        let bytes = map.iter().map(|(key, item)| item_bytes(key, item)).sum();
        Items { map, bytes, by_expiry }
    }
}

impl Items {
    pub(crate) fn get(&self, key: &str) -> Option<&Item> {
        self.map.get(key)
    }

    pub(crate) fn count(&self) -> u64 {
        self.map.len() as u64
    }

    /// Their bytes in a snapshot.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// In the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Item)> {
        self.map.iter().map(|(key, item)| (key.as_ref(), item))
    }

    /// From a key on, in the order of the keys.
    pub(crate) fn iter_from<'a>(
        &'a self,
        first: Bound<&str>,
    ) -> impl Iterator<Item = (&'a str, &'a Item)> + use<'a> {
        let range = self.map.range::<str, _>((first, Bound::Unbounded));
        range.map(|(key, item)| (key.as_ref(), item))
    }

    /// Gives a key an item; returns what was there before, and the key.
    pub(crate) fn put(&mut self, key: String, item: Item) -> Option<(String, Item)> {
        self.bytes += item_bytes(&key, &item);
        if let Some(end) = item.expires_at {
            self.by_expiry.insert((end, key.as_str().into()));
        }
        let Some(present) = self.map.get_mut(key.as_str()) else {
            self.map.insert(key.into_boxed_str(), item);
            return None;
        };
        let end = item.expires_at;
        let old = std::mem::replace(present, item);
        if old.expires_at != end {
            forget_expiry(&mut self.by_expiry, &key, &old);
        }
        self.bytes -= item_bytes(&key, &old);
        Some((key, old))
    }

    /// Removes a key; returns what was there.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Item> {
        let old = self.map.remove(key)?;
        forget_expiry(&mut self.by_expiry, key, &old);
        self.bytes -= item_bytes(key, &old);
        Some(old)
    }

    /// Removes the first `max` of the keys that begin with `prefix`, hands them out in their order, and says how many they
    /// were. Costs as much as there are of them, however many others there are.
    pub(crate) fn remove_prefix(
        &mut self,
        prefix: &str,
        max: usize,
        mut on_removed: impl FnMut(Box<str>, Item),
    ) -> usize {
        let end = prefix_end(prefix).map_or(Bound::Unbounded, |end| Bound::Excluded(end.into_boxed_str()));
        let range = (Bound::Included(Box::from(prefix)), end);
        let mut count = 0;
        for (key, old) in self.map.extract_if(range, |_, _| true).take(max) {
            forget_expiry(&mut self.by_expiry, &key, &old);
            self.bytes -= item_bytes(&key, &old);
            on_removed(key, old);
            count += 1;
        }
        count
    }

    /// When the next life is over.
    pub(crate) fn next_expiry(&self) -> Option<LogicalTime> {
        self.by_expiry.first().map(|(end, _)| *end)
    }

    /// Whose life is over at `now`, earliest first.
    pub(crate) fn expired(&self, now: LogicalTime) -> impl Iterator<Item = (&str, &Item)> {
        let over = self.by_expiry.iter().take_while(move |(end, _)| *end <= now);
        over.map(|(_, key)| (key.as_ref(), self.map.get(key).expect("only keys that exist have an end")))
    }
}

fn forget_expiry(by_expiry: &mut BTreeSet<(LogicalTime, Box<str>)>, key: &str, old: &Item) {
    if let Some(end) = old.expires_at {
        by_expiry.remove(&(end, Box::from(key)));
    }
}
