//! The term of every entry, kept as runs: terms change rarely, so a log of millions of entries needs a few of them.

use crate::raft::types::{EntryId, Index, Term};

/// The first entry of each run of entries with one term; indexes and terms increase.
#[derive(Clone, Default, Debug)]
pub(crate) struct TermRuns {
    firsts: Vec<EntryId>,
}

impl TermRuns {
    /// Notes the entry behind the last one.
    pub(crate) fn push(&mut self, id: EntryId) {
        if self.firsts.last().is_none_or(|first| first.term != id.term) {
            self.firsts.push(id);
        }
    }

    /// Forgets every entry behind `last_kept`.
    pub(crate) fn truncate(&mut self, last_kept: Index) {
        let kept = self.firsts.partition_point(|first| first.index <= last_kept);
        self.firsts.truncate(kept);
    }

    /// Forgets the entries before `first`, as far as that saves memory.
    pub(crate) fn forget_before(&mut self, first: Index) {
        let after = self.firsts.partition_point(|run| run.index <= first);
        self.firsts.drain(..after.saturating_sub(1));
    }

    /// The term at `index`; the caller knows that `index` is not behind the last entry.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        let after = self.firsts.partition_point(|first| first.index <= index);
        Some(self.firsts[after.checked_sub(1)?].term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_found_by_its_run() {
        let mut runs = TermRuns::default();
        for (index, term) in [(5, 1), (6, 1), (7, 3), (8, 3), (9, 4)] {
            runs.push(EntryId::new(Term(term), Index(index)));
        }
        let terms = |runs: &TermRuns| {
            (4..=9).map(|index| runs.term(Index(index)).map(|term| term.0)).collect::<Vec<_>>()
        };
        assert_eq!(terms(&runs), [None, Some(1), Some(1), Some(3), Some(3), Some(4)]);
        let mut later = runs.clone();
        later.forget_before(Index(8));
        assert_eq!(terms(&later), [None, None, None, Some(3), Some(3), Some(4)]);
        assert_eq!(later.firsts.len(), 2, "one run is forgotten");
        later.forget_before(Index(3));
        assert_eq!(later.firsts.len(), 2);
        runs.truncate(Index(7));
        runs.push(EntryId::new(Term(9), Index(8)));
        assert_eq!(terms(&runs), [None, Some(1), Some(1), Some(3), Some(9), Some(9)]);
        runs.truncate(Index(4));
        assert_eq!(terms(&runs), [None; 6]);
    }
}
