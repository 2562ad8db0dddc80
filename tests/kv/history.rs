//! The latest changes, for those who follow them.

use std::collections::BTreeMap;

use keva::kv::history::{Change, ChangeKind, History};
use keva::raft::types::Index;
use proptest::prelude::*;

use crate::writes::{State, delete, delete_prefix, op_delete, op_put, put, told, typed, when};

fn revisions(history: &History) -> Vec<u64> {
    let numbers = history.first_number()..history.next_number();
    numbers.map(|number| history.get(number).expect("it is kept").revision.0).collect()
}

/// Deletes of keys with one byte: each as long as any other.
fn changes(revision: u64, count: usize) -> Vec<Change> {
    let change = |at: usize| Change {
        revision: Index(revision),
        key: char::from(b'a' + at as u8).to_string().into(),
        kind: ChangeKind::Delete,
        is_last: at + 1 == count,
    };
    (0..count).map(change).collect()
}

/// Bytes of one of those.
fn bytes() -> usize {
    size_of::<Change>() + 1
}

/// K8: changes are the last entry's, and given once.
#[test]
fn changes_are_of_the_last_entry() {
    let mut state = State::default();
    let _ = state.run(put("b", "1"));
    let _ = state.run(when(vec![], vec![op_put("c", "1"), op_put("a", "1"), op_delete("b"), op_delete("x")]));
    let changes = state.store.take_changes().expect("without a bound");
    assert_eq!(told(&changes), [("a", "put", false), ("b", "delete", false), ("c", "put", true)]);
    assert_eq!(state.store.take_changes().expect("without a bound"), []);
    let _ = state.run(delete("a"));
    let _ = state.run(delete("a"));
    assert_eq!(state.store.take_changes().expect("without a bound"), [], "there was nothing to delete");
    let _ = state.run(delete_prefix(""));
    state.store.pass(state.store.applied_index().next());
    assert_eq!(state.store.take_changes().expect("without a bound"), []);
}

/// K4: every change behind a revision, from the first one on, or the word that there are some missing.
#[test]
fn changes_are_found_by_revision() {
    let mut history = History::new(Index(10), 5 * bytes());
    let empty = |history: &History| (history.first_number(), history.next_number());
    assert_eq!((empty(&history), history.number_after(Index(10))), ((1, 1), Some(1)));
    assert_eq!((history.number_after(Index(9)), history.number_after(Index(99))), (None, Some(1)));
    history.push(vec![]);
    history.push(changes(12, 2));
    history.push(changes(15, 1));
    history.push(changes(16, 2));
    assert_eq!((history.floor(), revisions(&history)), (Index(10), vec![12, 12, 15, 16, 16]));
    let found = |history: &History, revision| history.number_after(Index(revision));
    let expected = [
        (9, None),
        (10, Some(1)),
        (11, Some(1)),
        (12, Some(3)),
        (14, Some(3)),
        (15, Some(4)),
        (16, Some(6)),
        (17, Some(6)),
    ];
    for (revision, number) in expected {
        assert_eq!(found(&history, revision), number, "{revision}");
    }
    assert_eq!(history.get(0), None);
    assert_eq!(history.get(2).map(|change| (&*change.key, change.is_last)), Some(("b", true)));
    assert_eq!(history.get(6), None);

    // K5: the oldest entry goes as a whole.
    history.push(changes(20, 1));
    assert_eq!((history.floor(), revisions(&history)), (Index(12), vec![15, 16, 16, 20]));
    assert_eq!((history.get(2), history.first_number(), history.next_number()), (None, 3, 7));
    assert_eq!((found(&history, 11), found(&history, 12), found(&history, 20)), (None, Some(3), Some(7)));
    history.push(changes(21, 5));
    assert_eq!((history.floor(), revisions(&history)), (Index(20), vec![21; 5]));

    // An entry that is too long alone: nothing is kept, and everybody who follows can see that.
    history.push(changes(22, 6));
    assert_eq!((history.floor(), revisions(&history), empty(&history)), (Index(22), vec![], (18, 18)));
    assert_eq!((found(&history, 21), found(&history, 22)), (None, Some(18)));

    // K7: a snapshot was installed.
    history.push(changes(23, 1));
    history.clear(Index(40));
    assert_eq!((history.floor(), revisions(&history), empty(&history)), (Index(40), vec![], (19, 19)));
    assert_eq!((found(&history, 23), found(&history, 40)), (None, Some(19)));
    history.push(changes(41, 5));
    assert_eq!(revisions(&history), [41; 5], "nothing else counts any more");
}

/// I4: values and types count.
#[test]
fn history_has_a_bound_in_bytes() {
    let change = |value: usize, content_type: Option<&str>| {
        let mut state = State::default();
        let _ = state.run(typed("k", &vec![0; value], content_type));
        state.store.take_changes().expect("without a bound")
    };
    for (value, content_type, is_kept) in
        [(10, None, true), (11, None, false), (8, Some("xy"), true), (9, Some("xy"), false)]
    {
        let mut history = History::new(Index(0), bytes() + 10);
        history.push(change(value, content_type));
        assert_eq!(revisions(&history).len(), usize::from(is_kept), "{value}");
    }
}

#[test]
#[should_panic(expected = "changes come in the order of the log")]
fn old_changes_are_a_mistake() {
    let mut history = History::new(Index(5), 1000);
    history.push(changes(5, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// K4, K5: against a list of everything that ever happened.
    #[test]
    fn history_is_the_end_of_what_happened(
        entries in prop::collection::vec((1..4u64, 0..9usize), 1..60),
        bound in 1..30usize,
    ) {
        let mut history = History::new(Index(0), bound * bytes());
        let mut all: Vec<(u64, u64)> = Vec::new(); // revision and number
        let mut revision = 0;
        for (step, count) in entries {
            revision += step;
            history.push(changes(revision, count));
            let next = all.len() as u64 + 1;
            all.extend((0..count as u64).map(|at| (revision, next + at)));
            prop_assert_eq!(history.next_number(), all.len() as u64 + 1);
            // As many whole entries as have room, from the newest one on.
            let mut kept = BTreeMap::<u64, usize>::new();
            for (revision, _) in &all {
                *kept.entry(*revision).or_default() += 1;
            }
            while kept.values().sum::<usize>() > bound {
                kept.pop_first();
            }
            let kept: Vec<u64> = kept.into_iter().flat_map(|(revision, count)| vec![revision; count]).collect();
            prop_assert_eq!(revisions(&history), kept);
            for asked in 0..=revision + 1 {
                let first = all.iter().find(|(revision, _)| *revision > asked).map(|(_, number)| *number);
                let number = first.unwrap_or(history.next_number());
                let is_kept = asked >= history.floor().0;
                prop_assert!(!is_kept || number >= history.first_number());
                prop_assert_eq!(history.number_after(Index(asked)), is_kept.then_some(number));
            }
        }
    }
}
