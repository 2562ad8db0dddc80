//! What the last entry changed, until somebody takes it.

use crate::kv::history::{Change, change_bytes};
use crate::util::mutation::mutant;

/// See the module's text. Bounded, if a bound was given: one entry may remove millions of keys.
#[derive(Clone, Default, Debug)]
pub(super) struct Changes {
    list: Vec<Change>,
    bytes: usize,
    bytes_max: Option<usize>,
}

impl Changes {
    /// More than this is not kept: what is beyond it takes all of its entry along.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = Some(bytes_max);
    }

    /// The next entry begins.
    pub(super) fn clear(&mut self) {
        (self.list, self.bytes) = (Vec::new(), 0);
    }

    pub(super) fn push(&mut self, change: Change) {
        self.bytes = self.bytes.saturating_add(change_bytes(&change));
        if self.are_too_many() {
            self.list = Vec::new();
        } else {
            self.list.push(change);
        }
    }

    /// Of keys and values, and of what is kept with them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// By the keys.
    pub(super) fn sort(&mut self) {
        self.list.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    }

    /// The entry has no further change.
    pub(super) fn mark_last(&mut self) {
        if let Some(last) = self.list.last_mut() {
            last.is_last = !mutant("is-last-wrong");
        }
    }

    /// `None`: they are more than are kept.
    pub(super) fn take(&mut self) -> Option<Vec<Change>> {
        let are_kept = !self.are_too_many();
        let list = std::mem::take(&mut self.list);
        self.bytes = 0;
        are_kept.then_some(list)
    }

    fn are_too_many(&self) -> bool {
        self.bytes_max.is_some_and(|bytes_max| self.bytes > bytes_max)
    }
}
