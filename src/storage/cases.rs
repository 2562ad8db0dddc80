//! What recovery does, as tables: each state in which a stop, a crash or a fault can leave the disk has a name and a
//! decision. For every combination of facts exactly one row holds (a test walks through all of them), so there is no
//! state that nobody thought of. `-` means that the fact does not matter.
//!
//! The working directory:
//!
//! | case | `keva.id` | hard state | segments | records | decision |
//! |---|---|---|---|---|---|
//! | first start            | no  | no  | no  | -   | start |
//! | id lost                | no  | no  | yes | -   | refuse |
//! | id lost                | no  | yes | -   | -   | refuse |
//! | first start cut short  | yes | no  | -   | no  | start, keeping what is there |
//! | hard state lost        | yes | no  | -   | yes | refuse: a vote may be lost |
//! | log lost               | yes | yes | no  | -   | damaged: promised entries are lost |
//! | in use                 | yes | yes | yes | -   | recover |
//!
//! Files appear in the order `keva.id`, first segment, hard state, each durable before the next; so a first start that
//! was cut short has no hard state and no records.
//!
//! The two slots of the hard state:
//!
//! | case | first is whole | second is whole | second is newer | decision |
//! |---|---|---|---|---|
//! | both slots         | yes | yes | no  | first |
//! | first is stale     | yes | yes | yes | second |
//! | first slot only    | yes | no  | -   | first |
//! | second slot only   | no  | yes | -   | second |
//! | no slot            | no  | no  | -   | refuse |
//!
//! The place where a segment's chain of records ends:
//!
//! | case | has a successor | reaches it | next is durable | rest is zero | decision |
//! |---|---|---|---|---|---|
//! | continued     | yes | yes | -   | -   | accept |
//! | broken        | yes | no  | -   | -   | damaged |
//! | end           | no  | -   | no  | yes | accept |
//! | torn tail     | no  | -   | no  | no  | cut |
//! | lost tail     | no  | -   | yes | -   | damaged |
//!
//! "Next is durable" compares the index behind the last good record with the largest durable index that anything on
//! disk speaks of: the hard state, and every undamaged record in the segment, also behind the damage. A crash can only
//! tear what was not durable; so damage above that mark is a torn tail and never held a promise, and damage at or below
//! it is a disk that lost data. Whether some sector is all zero says nothing: values may be.

/// A row: which facts must hold, must not hold, or do not matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<const N: usize, T> {
    pub(crate) name: &'static str,
    pub(crate) facts: [Option<bool>; N],
    pub(crate) decision: T,
}

/// What to do with a working directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DirectoryDecision {
    /// Make what is missing.
    Start,
    /// Read what is there.
    Recover,
    /// All of the log is lost; the text completes "the working directory ...".
    Damaged(&'static str),
    /// Do not start; the text completes "the working directory ...".
    Refuse(&'static str),
}

/// Which copy of the hard state holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SlotChoice {
    First,
    Second,
    Refuse,
}

/// What to do where a segment's records end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TailDecision {
    /// The records end here, and nothing is missing.
    Accept,
    /// Clear what is behind: it was never durable.
    Cut,
    /// Something durable is gone.
    Damaged,
}

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);
const ANY: Option<bool> = None;

const fn row<const N: usize, T>(name: &'static str, facts: [Option<bool>; N], decision: T) -> Case<N, T> {
    Case { name, facts, decision }
}

const ID_LOST: DirectoryDecision = DirectoryDecision::Refuse(
    "holds a log but no keva.id, so it is unknown whose it is: put keva.id back, or use an empty working directory",
);
const HARD_STATE_LOST: DirectoryDecision = DirectoryDecision::Refuse(
    "holds a log but no hard-state, so it is unknown how this node voted: put hard-state back, \
     or replace the node by one with another identity",
);
const LOG_LOST: DirectoryDecision =
    DirectoryDecision::Damaged("holds no segment of the log any more, though the node has used one");

/// Facts: `keva.id` is there; the hard state is there; a segment is there; there is more than an empty first segment.
pub(crate) const DIRECTORY_CASES: [Case<4, DirectoryDecision>; 7] = [
    row("first start", [NO, NO, NO, ANY], DirectoryDecision::Start),
    row("id lost", [NO, NO, YES, ANY], ID_LOST),
    row("id lost", [NO, YES, ANY, ANY], ID_LOST),
    row("first start cut short", [YES, NO, ANY, NO], DirectoryDecision::Start),
    row("hard state lost", [YES, NO, ANY, YES], HARD_STATE_LOST),
    row("log lost", [YES, YES, NO, ANY], LOG_LOST),
    row("in use", [YES, YES, YES, ANY], DirectoryDecision::Recover),
];

/// Facts: the first slot is whole; the second slot is whole; the second is newer.
pub(crate) const HARD_STATE_CASES: [Case<3, SlotChoice>; 5] = [
    row("both slots", [YES, YES, NO], SlotChoice::First),
    row("first is stale", [YES, YES, YES], SlotChoice::Second),
    row("first slot only", [YES, NO, ANY], SlotChoice::First),
    row("second slot only", [NO, YES, ANY], SlotChoice::Second),
    row("no slot", [NO, NO, ANY], SlotChoice::Refuse),
];

/// Facts: a newer segment continues this one; the records reach it; the next index is known to be durable; everything
/// behind the records is zero.
pub(crate) const TAIL_CASES: [Case<4, TailDecision>; 5] = [
    row("continued", [YES, YES, ANY, ANY], TailDecision::Accept),
    row("broken", [YES, NO, ANY, ANY], TailDecision::Damaged),
    row("end", [NO, ANY, NO, YES], TailDecision::Accept),
    row("torn tail", [NO, ANY, NO, NO], TailDecision::Cut),
    row("lost tail", [NO, ANY, YES, ANY], TailDecision::Damaged),
];

impl<const N: usize, T> Case<N, T> {
    fn holds(&self, facts: [bool; N]) -> bool {
        self.facts.iter().zip(facts).all(|(wanted, fact)| wanted.is_none_or(|wanted| wanted == fact))
    }
}

/// The row that holds for `facts`.
pub(crate) fn find_case<const N: usize, T: Copy>(cases: &[Case<N, T>], facts: [bool; N]) -> Case<N, T> {
    *cases.iter().find(|case| case.holds(facts)).expect("the tables cover every combination of facts")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exactly_one_row_holds<const N: usize, T>(cases: &[Case<N, T>]) {
        let mut used = vec![false; cases.len()];
        for bits in 0..1_u32 << N {
            let facts = std::array::from_fn(|fact| bits & (1 << fact) != 0);
            let rows: Vec<_> = (0..cases.len()).filter(|row| cases[*row].holds(facts)).collect();
            assert_eq!(rows.len(), 1, "{facts:?} is in {} rows", rows.len());
            used[rows[0]] = true;
        }
        assert!(used.iter().all(|used| *used), "a row that never holds is a mistake");
    }

    /// F4, F5, F7, F17, F18: every state on disk has one decision.
    #[test]
    fn every_combination_of_facts_has_exactly_one_case() {
        exactly_one_row_holds(&DIRECTORY_CASES);
        exactly_one_row_holds(&HARD_STATE_CASES);
        exactly_one_row_holds(&TAIL_CASES);
    }

    /// F7: what is known to be durable is never cut, and a segment with a successor is never cut at all.
    #[test]
    fn only_what_was_never_durable_is_cut() {
        for bits in 0..16_u32 {
            let facts: [bool; 4] = std::array::from_fn(|fact| bits & (1 << fact) != 0);
            let [successor, _, durable, _] = facts;
            let cut = find_case(&TAIL_CASES, facts).decision == TailDecision::Cut;
            assert!(!cut || (!successor && !durable), "{facts:?}");
        }
    }
}
