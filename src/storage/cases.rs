//! What recovery does, as tables: each state in which a stop, a crash or a fault can leave the disk has a name and a
//! decision. For every combination of facts exactly one row holds (a test walks through all of them), so there is no
//! state that nobody thought of. `-` means that the fact does not matter.
//!
//! The working directory:
//!
//! | case | `keva.id` | hard state | segments | content | decision |
//! |---|---|---|---|---|---|
//! | first start            | no  | no  | no  | no  | start |
//! | id lost                | no  | no  | no  | yes | refuse |
//! | id lost                | no  | no  | yes | -   | refuse |
//! | id lost                | no  | yes | -   | -   | refuse |
//! | first start cut short  | yes | no  | -   | no  | start, keeping what is there |
//! | hard state lost        | yes | no  | -   | yes | refuse: a vote may be lost |
//! | log lost               | yes | yes | no  | -   | damaged: promised entries are lost |
//! | in use                 | yes | yes | yes | -   | recover |
//!
//! "Content" is a snapshot, or more of a log than an empty first segment. Files appear in the order `keva.id`, first segment, hard state, each durable before the next; so a first start that
//! was cut short has no hard state and no content.
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
//! | case | has a successor | reaches it | next is durable | rest is blank | decision |
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
//! it is a disk that lost data. Whether some sector is all zero says nothing: values may be. Damage in a segment whose
//! every entry a sound snapshot covers is no loss: that segment and all before it are removed.
//!
//! "Blank" means that nothing behind the records is known to be of this life of the file: all of it is zero, or, where an
//! earlier life has left its bytes, no record there carries the salt of this one. A record that was cut short before its
//! beginning reached the disk cannot be told from such bytes, and need not be: it was not durable, and can never become
//! a record again.
//!
//! The snapshot files:
//!
//! | case | the newest is sound | the log reaches back to the one before | decision |
//! |---|---|---|---|
//! | sound                  | yes | -   | the newest |
//! | newest damaged         | no  | yes | the one before |
//! | snapshot lost          | no  | no  | damaged |
//!
//! "The one before" is the newest sound one of the others; without any it is the empty state before the first entry. The
//! log reaches back to a snapshot when it begins at the latest behind its last entry. A snapshot is replaced only by one
//! that was read back, and its file and the log behind it go only when the new one is durable: so a log that does not
//! reach back means that the newest was sound once.
//!
//! The log and the snapshot that was chosen:
//!
//! | case | snapshot | log reaches back | has the last covered entry | in the same term | decision |
//! |---|---|---|---|---|---|
//! | no snapshot            | no  | yes | -   | -   | keep |
//! | snapshot missing       | no  | no  | -   | -   | damaged |
//! | gap                    | yes | no  | -   | -   | damaged |
//! | continued              | yes | yes | yes | yes | keep |
//! | install, short log     | yes | yes | no  | -   | start over |
//! | install, other log     | yes | yes | yes | no  | start over |
//!
//! A node's own snapshot covers only durable entries of its log. So a log that does not have the last covered entry was
//! about to be replaced by one that begins behind a snapshot from the leader, and nothing in it is of use: none of its
//! entries behind the snapshot can be committed.

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

/// Which snapshot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SnapshotChoice {
    Newest,
    Before,
    /// None, and something durable is gone.
    Damaged,
}

/// What to do with the log behind a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogDecision {
    /// It goes on from the snapshot.
    Keep,
    /// All of it is void: a new one begins behind the snapshot.
    StartOver,
    /// Entries between snapshot and log are gone.
    Damaged,
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
    "holds a log but no hard-state, so it is unknown how this node voted: put hard-state back; or, where the other \
     nodes of a cluster work, empty the directory: the node gets everything from them, and votes again once it has",
);
const LOG_LOST: DirectoryDecision =
    DirectoryDecision::Damaged("holds no segment of the log any more, though the node has used one");

/// Facts: `keva.id` is there; the hard state is there; a segment is there; there is a snapshot, or more than an empty
/// first segment.
pub(crate) const DIRECTORY_CASES: [Case<4, DirectoryDecision>; 8] = [
    row("first start", [NO, NO, NO, NO], DirectoryDecision::Start),
    row("id lost", [NO, NO, NO, YES], ID_LOST),
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

/// Facts: a newer segment continues this one; the records reach it; the next index is known to be durable; nothing behind
/// the records is known to be of this life of the file.
pub(crate) const TAIL_CASES: [Case<4, TailDecision>; 5] = [
    row("continued", [YES, YES, ANY, ANY], TailDecision::Accept),
    row("broken", [YES, NO, ANY, ANY], TailDecision::Damaged),
    row("end", [NO, ANY, NO, YES], TailDecision::Accept),
    row("torn tail", [NO, ANY, NO, NO], TailDecision::Cut),
    row("lost tail", [NO, ANY, YES, ANY], TailDecision::Damaged),
];

/// Facts: the newest snapshot is sound; the log reaches back to the sound one before, or to the first entry.
pub(crate) const SNAPSHOT_CASES: [Case<2, SnapshotChoice>; 3] = [
    row("sound", [YES, ANY], SnapshotChoice::Newest),
    row("newest damaged", [NO, YES], SnapshotChoice::Before),
    row("snapshot lost", [NO, NO], SnapshotChoice::Damaged),
];

/// Facts: there is a snapshot; the log reaches back to it, or to the first entry; it has the last entry that the
/// snapshot covers; that one is of the same term.
pub(crate) const LOG_CASES: [Case<4, LogDecision>; 6] = [
    row("no snapshot", [NO, YES, ANY, ANY], LogDecision::Keep),
    row("snapshot missing", [NO, NO, ANY, ANY], LogDecision::Damaged),
    row("gap", [YES, NO, ANY, ANY], LogDecision::Damaged),
    row("continued", [YES, YES, YES, YES], LogDecision::Keep),
    row("install, short log", [YES, YES, NO, ANY], LogDecision::StartOver),
    row("install, other log", [YES, YES, YES, NO], LogDecision::StartOver),
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
        exactly_one_row_holds(&SNAPSHOT_CASES);
        exactly_one_row_holds(&LOG_CASES);
    }

    /// D1, D4: a log is given up only for a snapshot that it does not have the last entry of, and never when something
    /// between the two is gone.
    #[test]
    fn a_log_is_given_up_only_for_a_snapshot() {
        for bits in 0..16_u32 {
            let facts: [bool; 4] = std::array::from_fn(|fact| bits & (1 << fact) != 0);
            let [snapshot, reaches_back, has_last, same_term] = facts;
            let decision = find_case(&LOG_CASES, facts).decision;
            assert_eq!(decision == LogDecision::Damaged, !reaches_back, "{facts:?}");
            let over = decision == LogDecision::StartOver;
            assert_eq!(over, snapshot && reaches_back && !(has_last && same_term), "{facts:?}");
        }
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
