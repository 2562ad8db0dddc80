//! Which keys a watcher follows.

use std::rc::Rc;

use crate::replica::io::KeyRange;

/// One key, or a range of keys. Of the changes of one entry, which come in the order of their keys, those that a filter
/// lets through follow one another without a gap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filter {
    /// This key.
    Key(Rc<str>),
    /// The keys of this range.
    Range(Rc<KeyRange>),
}

impl Filter {
    /// All keys with a prefix.
    #[must_use]
    pub fn prefix(prefix: &str) -> Filter {
        Filter::Range(Rc::new(KeyRange::prefix(prefix)))
    }

    /// One key.
    #[must_use]
    pub fn key(key: &str) -> Filter {
        Filter::Key(Rc::from(key))
    }

    /// Whether a key is one of them.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Filter::Key(own) => **own == *key,
            Filter::Range(range) => range.contains(key),
        }
    }
}
