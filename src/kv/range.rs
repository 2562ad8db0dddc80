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
            && self.end.as_deref().is_none_or(|end| key < end)
            && self.after.as_deref().is_none_or(|after| key > after)
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
