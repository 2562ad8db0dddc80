//! Entries that are carried out in parts, and counts that go on while entries are applied.

use keva::kv::command::Write;
use keva::kv::payload::Payload;
use keva::kv::range::KeyRange;
use keva::kv::store::{Applied, Store};
use keva::util::time::LogicalTime;
use proptest::prelude::*;

use crate::snapshots::snapshot;
use crate::writes::{State, applied, delete, delete_prefix, id, put, put_for};

/// Keys of which every other one has a life.
fn filled<'a>(keys: impl Iterator<Item = &'a String>) -> Store {
    let command = |(n, key): (usize, &String)| match n % 2 {
        0 => put(key, "1"),
        _ => put_for(key, "1", 1000 + n as u64),
    };
    applied(keys.enumerate().map(command).collect())
}

fn removal(store: &Store, prefix: &str, name: Option<&str>) -> Payload {
    let write = Write { command: delete_prefix(prefix), idempotency_key: name.map(str::to_owned) };
    let seq = store.applied_index().0 + 1;
    Payload { id: id(1, 1, seq), time: LogicalTime(7), write }
}

/// Changes that are too many are not gathered, and said to be missing.
#[test]
fn too_many_changes_are_not_kept() {
    let keys = ["a", "b", "c", "d"];
    let mut whole = State { store: applied(keys.map(|key| put(key, "1")).into()) };
    let mut bounded = State { store: whole.store.clone() };
    let _ = whole.run(delete_prefix(""));
    let bytes = whole.store.changes_bytes();
    bounded.store.set_changes_max(bytes);
    let mut too_small = State { store: bounded.store.clone() };
    too_small.store.set_changes_max(bytes - 1);
    let _ = (bounded.run(delete_prefix("")), too_small.run(delete_prefix("")));
    assert_eq!(bounded.store.take_changes(), whole.store.take_changes());
    assert_eq!(too_small.store.take_changes(), None);
    assert_eq!(too_small.store, whole.store);
    let _ = too_small.run(put("a", "1"));
    assert_eq!(too_small.store.take_changes().map(|changes| changes.len()), Some(1), "the next entry's are");
}

/// One that nobody waits for any more is forgotten; another one's number begins anew.
#[test]
fn counts_are_told_apart() {
    let mut state = State { store: applied(["a", "b", "c"].map(|key| put(key, "1")).into()) };
    let all = KeyRange { start: Some("a".into()), ..KeyRange::default() };
    assert_eq!(state.store.go_on_counting(1, &all, &mut 2), None);
    let mut left = 9;
    assert_eq!(state.store.go_on_counting(2, &all, &mut left), Some(3));
    assert_eq!(left, 6, "what is counted is taken off");
    assert_eq!(state.store.go_on_counting(3, &all, &mut 2), None);
    state.store.stop_counting();
    let _ = state.run(delete("a"));
    assert_eq!(state.store.go_on_counting(3, &all, &mut 9), Some(2));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// D3, D13: a removal in parts comes to the same as one at once, and a snapshot from before does not see it.
    #[test]
    fn a_removal_in_parts_is_the_same_as_at_once(
        keys in prop::collection::btree_set("[abc]{1,3}", 0..30),
        prefix in "[abc]{0,2}",
        removals_max in 1..5usize,
        budget in 1..200usize,
        is_named in any::<bool>(),
    ) {
        let mut whole = filled(keys.iter());
        let mut parts = whole.clone();
        let name = is_named.then_some("name");
        let (index, payload) = (whole.applied_index().next(), removal(&whole, &prefix, name));
        let before = snapshot(&mut whole.clone());
        let expected = whole.apply(index, payload.clone());

        parts.begin_snapshot();
        let mut taken = Vec::new();
        let mut turns = 1;
        let outcome = loop {
            if let Some(outcome) = parts.apply_some(index, payload.clone(), removals_max) {
                break outcome;
            }
            prop_assert!(!parts.is_settled());
            prop_assert_eq!(parts.applied_index().next(), index);
            turns += 1;
            if parts.snapshot_index().is_some() {
                parts.write_snapshot(&mut taken, budget);
            }
        };
        prop_assert!(parts.is_settled());
        while parts.snapshot_index().is_some() {
            parts.write_snapshot(&mut taken, budget);
        }
        prop_assert_eq!(taken, before);
        let gone = keys.iter().filter(|key| key.starts_with(&prefix)).count();
        prop_assert_eq!(&outcome, &Applied::Deleted(gone as u64));
        prop_assert_eq!(turns, gone / removals_max + 1);
        prop_assert_eq!(outcome, expected);
        prop_assert_eq!(parts.take_changes(), whole.take_changes());
        prop_assert_eq!(parts.next_expiry(), whole.next_expiry());
        prop_assert_eq!(parts.state_hash(), whole.state_hash());
        prop_assert_eq!(parts, whole);
    }

    /// C12: a count that took a while is that of the state at its end.
    #[test]
    fn a_count_is_of_the_present_state(
        keys in prop::collection::btree_set("[abc]{1,3}", 0..30),
        prefix in "[abc]{0,1}",
        changes in prop::collection::vec(("[abc]{1,3}", 0..3usize), 0..30),
        left in 1..4usize,
    ) {
        let mut state = State { store: filled(keys.iter()) };
        let range = KeyRange { end: Some("cb".into()), ..KeyRange::prefix(&prefix) };
        let mut changes = changes.into_iter();
        let count = loop {
            if let Some(count) = state.store.go_on_counting(1, &range, &mut left.clone()) {
                break count;
            }
            if let Some((key, what)) = changes.next() {
                let _ = state.run([put(&key, "2"), delete(&key), delete_prefix(&key)][what].clone());
            }
        };
        prop_assert_eq!(count, state.store.range(&range).count() as u64);
    }
}
