//! A part of the keys, in their order: byte by byte.

use std::ops::Bound;

/// Keys that have a prefix and lie between two others. Every part that is `None`, or empty, lets all keys in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyRange {
    /// Keys that begin with this.
    pub prefix: String,
    /// Keys from this one on.
    pub start: Option<String>,
    /// Keys before this one.
    pub end: Option<String>,
    /// Keys behind this one: where the last page ended.
    pub after: Option<String>,
}

impl KeyRange {
    /// All keys with a prefix.
    #[must_use]
    pub fn prefix(prefix: &str) -> KeyRange {
        KeyRange { prefix: prefix.to_owned(), ..KeyRange::default() }
    }

    /// Whether a key lies in the range.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        key.starts_with(&self.prefix)
            && self.start.as_deref().is_none_or(|start| key >= start)
            && self.end.as_deref().is_none_or(|end| end.is_empty() || key < end)
            && self.after.as_deref().is_none_or(|after| key > after)
    }

    /// Whether every key lies in it, whatever keys there are.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let mut bounds = [&self.start, &self.end, &self.after].into_iter().flatten();
        self.prefix.is_empty() && bounds.all(String::is_empty)
    }

    /// Where to begin to look. Keys from there on are in the range up to the first one that is not
    /// (see [`KeyRange::contains`]).
    #[must_use]
    pub fn first(&self) -> Bound<&str> {
        let start = self.start.as_deref().unwrap_or_default().max(self.prefix.as_str());
        match self.after.as_deref() {
            Some(after) if after >= start => Bound::Excluded(after),
            _ => Bound::Included(start),
        }
    }
}

/// The first text that is greater than every text with this prefix; `None` when there is none.
///
/// The order of UTF-8 bytes is the order of the characters, so it is the prefix with the last character that has a
/// successor replaced by that, and without what follows.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The successor, past the surrogates, which are no characters.
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}
