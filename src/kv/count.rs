//! How many keys a range has, found out piece by piece while entries are applied.
//!
//! Keys up to a cursor are counted; what entries add and remove there is added and taken off at once. So when the cursor
//! is at the range's end, the number is that of the present state.

use std::ops::Bound;

use crate::kv::items::Items;
use crate::kv::range::KeyRange;
use crate::util::mutation::mutant;

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Count {
    /// Whose count this is.
    pub(super) number: u64,
    range: KeyRange,
    /// Keys of the range up to this one are counted. `None`: none are.
    cursor: Option<Box<str>>,
    count: u64,
}

impl Count {
    pub(super) fn new(number: u64, range: KeyRange) -> Count {
        Count { number, range, cursor: None, count: 0 }
    }

    /// Counts up to `left` further keys, and takes them off that. The whole number, when there are no more.
    pub(super) fn go_on(&mut self, items: &Items, left: &mut usize) -> Option<u64> {
        if self.range.is_whole() {
            return Some(items.count());
        }
        let first = self.cursor.as_deref().map_or(self.range.first(), Bound::Excluded);
        let mut keys = items.iter_from(first).map(|(key, _)| key).take_while(|key| self.range.contains(key));
        let mut last = None;
        while *left > 0 {
            let Some(key) = keys.next() else { return Some(self.count) };
            last = Some(key);
            self.count += 1;
            *left -= 1;
        }
        if let Some(last) = last {
            self.cursor = Some(last.into());
        }
        None
    }

    /// An entry has added a key.
    pub(super) fn on_added(&mut self, key: &str) {
        if self.covers(key) {
            self.count += 1;
        }
    }

    /// An entry has removed a key.
    pub(super) fn on_removed(&mut self, key: &str) {
        if self.covers(key) {
            self.count -= 1;
        }
    }

    fn covers(&self, key: &str) -> bool {
        let is_counted = self.cursor.as_deref().is_some_and(|cursor| key <= cursor);
        is_counted && self.range.contains(key) && !mutant("count-misses-changes")
    }
}
