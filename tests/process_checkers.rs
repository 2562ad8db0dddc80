//! The checkers of histories find what they are there for: each test plants one error into a history that is right.

mod support;

use support::history::{Action, History, Operation, Outcome, Version};
use support::{linearizability, witness};

/// A sequential history on one key, each operation 10 ns after the one before.
fn sequential(steps: &[(Action, Outcome, u64)]) -> History {
    let operations = steps.iter().zip(0..).map(|((action, outcome, revision), position)| Operation {
        client: 1,
        key: 7,
        call: 10 * position,
        end: 10 * position + 5,
        action: *action,
        outcome: *outcome,
        revision: (*revision != 0).then_some(*revision),
    });
    History { operations: operations.collect() }
}

fn version(value: u64, revision: u64) -> Version {
    Version { value, revision }
}

fn put(value: u64, revision: u64) -> (Action, Outcome, u64) {
    (Action::Put { value }, Outcome::Done, revision)
}

fn get(value: u64, written_at: u64, revision: u64) -> (Action, Outcome, u64) {
    (Action::Get, Outcome::Found(version(value, written_at)), revision)
}

fn missing(revision: u64) -> (Action, Outcome, u64) {
    (Action::Get, Outcome::Missing, revision)
}

fn compare_and_set(expected: Version, value: u64, outcome: Outcome, revision: u64) -> (Action, Outcome, u64) {
    (Action::CompareAndSet { expected, value }, outcome, revision)
}

#[track_caller]
fn assert_good(history: &History) {
    linearizability::check(history).expect("linearizable");
    witness::check(history).expect("in order");
}

#[track_caller]
fn assert_both_find(history: &History, complaint: &str) {
    linearizability::check(history).expect_err("the search must find it");
    assert_witness_finds(history, complaint);
}

#[track_caller]
fn assert_witness_finds(history: &History, complaint: &str) {
    let error = witness::check(history).expect_err("the witness check must find it");
    assert!(error.contains(complaint), "found something else: {error}");
}

fn right() -> Vec<(Action, Outcome, u64)> {
    vec![
        missing(1),
        (Action::Create { value: 10 }, Outcome::Done, 2),
        (Action::Create { value: 11 }, Outcome::ConditionFailed(Some(2)), 3),
        get(10, 2, 3),
        put(12, 4),
        compare_and_set(version(12, 4), 13, Outcome::Done, 5),
        compare_and_set(version(12, 4), 14, Outcome::ConditionFailed(Some(5)), 6),
        get(13, 5, 6),
        (Action::Delete, Outcome::Done, 7),
        compare_and_set(version(13, 5), 15, Outcome::ConditionFailed(None), 8),
        missing(9),
    ]
}

#[test]
fn right_history_passes() {
    assert_good(&sequential(&right()));
}

#[test]
fn stale_read_is_found() {
    let mut steps = right();
    // A read that forgets the write before it, with an honest revision.
    steps.insert(5, get(10, 2, 3));
    assert_both_find(&sequential(&steps), "went back in time");
    // The same read with a revision that claims to be fresh.
    steps[5] = get(10, 2, 4);
    assert_both_find(&sequential(&steps), "at index 4 the key was at");
}

#[test]
fn stale_absence_is_found() {
    assert_both_find(&sequential(&[put(10, 2), missing(1)]), "went back in time");
    assert_both_find(&sequential(&[put(10, 2), missing(2)]), "was found absent");
}

#[test]
fn lost_write_is_found() {
    assert_both_find(&sequential(&[put(10, 2), put(11, 3), get(10, 2, 4)]), "at index 4 the key was at");
    assert_both_find(&sequential(&[put(10, 2), missing(3)]), "was found absent");
}

#[test]
fn two_winners_of_one_condition_are_found() {
    let expected = version(10, 2);
    let steps = [
        put(10, 2),
        compare_and_set(expected, 11, Outcome::Done, 3),
        compare_and_set(expected, 12, Outcome::Done, 4),
    ];
    assert_both_find(&sequential(&steps), "at index 3 the key was at");
}

#[test]
fn doubled_compare_and_set_is_found() {
    // Executed twice: the first execution took effect, the second one's refusal is what the client was told.
    let expected = version(10, 2);
    let steps =
        [put(10, 2), compare_and_set(expected, 11, Outcome::ConditionFailed(Some(3)), 4), get(11, 3, 4)];
    assert_both_find(&sequential(&steps), "a write was seen that had no effect");
}

#[test]
fn doubled_write_is_found_by_its_revision() {
    // The value is right, so only the witness can tell.
    assert_witness_finds(&sequential(&[put(10, 2), get(10, 3, 3)]), "at another revision");
}

#[test]
fn refused_write_that_takes_effect_is_found() {
    let refused = (Action::Put { value: 11 }, Outcome::NotApplied, 0);
    assert_both_find(&sequential(&[put(10, 2), refused, get(11, 3, 3)]), "had no effect");
}

#[test]
fn wrongly_refused_condition_is_found() {
    let refused = compare_and_set(version(10, 2), 11, Outcome::ConditionFailed(Some(2)), 3);
    assert_both_find(&sequential(&[put(10, 2), refused]), "the condition held");
    let create = (Action::Create { value: 11 }, Outcome::ConditionFailed(None), 3);
    assert_both_find(&sequential(&[create]), "absent, and yet not created");
}

#[test]
fn two_writes_in_one_place_are_found() {
    let mut history = sequential(&[put(10, 2), put(11, 2)]);
    history.operations[1].call = 3;
    assert_witness_finds(&history, "two writes at revision 2");
}

#[test]
fn value_from_nowhere_is_found() {
    assert_both_find(&sequential(&[get(99, 1, 1)]), "nobody wrote this value");
}

#[test]
fn answer_without_revision_is_found() {
    assert_witness_finds(&sequential(&[put(10, 0)]), "without Keva-Revision");
}

#[test]
fn unknown_write_may_take_effect_late() {
    let unknown = (Action::Put { value: 11 }, Outcome::Unknown, 0);
    assert_good(&sequential(&[put(10, 2), unknown, get(10, 2, 2), get(11, 3, 3)]));
    assert_good(&sequential(&[put(10, 2), unknown, get(10, 2, 2)]));
}

#[test]
fn unknown_write_that_was_seen_may_not_vanish() {
    let unknown = (Action::Put { value: 11 }, Outcome::Unknown, 0);
    let steps = [put(10, 2), unknown, get(11, 3, 3), get(10, 2, 3)];
    assert_both_find(&sequential(&steps), "at index 3 the key was at");
}

#[test]
fn unknown_write_may_not_be_seen_before_it_was_sent() {
    let unknown = (Action::Put { value: 11 }, Outcome::Unknown, 0);
    assert_both_find(&sequential(&[get(11, 3, 3), unknown]), "before it was sent");
}

#[test]
fn unknown_condition_is_tried_both_ways() {
    let expected = version(10, 2);
    let unknown = compare_and_set(expected, 11, Outcome::Unknown, 0);
    let lost = compare_and_set(expected, 12, Outcome::ConditionFailed(Some(3)), 4);
    assert_good(&sequential(&[put(10, 2), unknown, lost]));
    assert_good(&sequential(&[put(10, 2), unknown, compare_and_set(expected, 12, Outcome::Done, 3)]));
    assert_both_find(&sequential(&[put(10, 2), lost]), "refused because of revision 3");
}

#[test]
fn unknown_delete_explains_an_absence() {
    let unknown = (Action::Delete, Outcome::Unknown, 0);
    assert_good(&sequential(&[put(10, 2), unknown, missing(3)]));
    assert_both_find(&sequential(&[put(10, 2), missing(3), unknown]), "was found absent");
}
