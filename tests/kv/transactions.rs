//! Several operations as one.

use keva::kv::command::{Command, Operation, Requirement, Transaction};
use keva::kv::history::ChangeKind;
use keva::kv::outcome::{OperationResult, Refusal, TransactionResult};
use keva::kv::store::Applied;
use keva::limits::{IDEMPOTENT_OUTCOME_BYTES_MAX, TRANSACTION_READ_BYTES_MAX};
use keva::raft::types::Index;

use crate::writes::{State, applied, op_add, op_delete, op_get, op_put, put, put_for, told, typed, when};

fn results(applied: Applied) -> Vec<OperationResult> {
    match applied {
        Applied::Transaction(result) => result.results,
        other => panic!("{other:?}"),
    }
}

fn got(key: &str, found: Option<(u64, &[u8])>) -> OperationResult {
    let found = found.map(|(revision, value)| (Index(revision), value.to_vec().into()));
    OperationResult::Got { key: key.into(), found }
}

/// Each requirement, for an absent key and for the key at revision 1 with the value "x".
#[test]
fn requirements_are_judged_when_applied() {
    let value = |value: &str| Requirement::Value(value.into());
    let table = [
        (Requirement::Absent, true, false),
        (Requirement::Exists, false, true),
        (Requirement::Revision(Index(1)), false, true),
        (Requirement::Revision(Index(2)), false, false),
        (Requirement::Revision(Index(0)), false, false),
        (value("x"), false, true),
        (value("xy"), false, false),
        (value(""), false, false),
    ];
    for (requirement, absent, present) in table {
        for (key, current, holds) in [("absent", None, absent), ("k", Some(Index(1)), present)] {
            let mut state = State { store: applied(vec![put("k", "x")]) };
            let conditions = vec![("k", Requirement::Exists), (key, requirement.clone())];
            let outcome = state.run(when(conditions, vec![op_put("new", "1")]));
            let expected = if holds {
                let results = vec![OperationResult::Put { key: "new".into() }];
                Applied::Transaction(TransactionResult { succeeded: true, results })
            } else {
                Applied::RequirementFailed { position: 1, current }
            };
            assert_eq!(outcome, expected, "{requirement:?} of {key}");
            assert_eq!(state.value("new").is_some(), holds);
            assert_eq!(state.store.take_changes().expect("without a bound").len(), usize::from(holds));
        }
    }
}

/// The first failed requirement is named; all are judged before anything is done.
#[test]
fn otherwise_is_done_when_a_requirement_fails() {
    let mut state = State { store: applied(vec![put("k", "x")]) };
    let transaction = |otherwise| {
        Command::Transaction(Transaction {
            conditions: vec![("k".into(), Requirement::Absent), ("l".into(), Requirement::Exists)],
            then: vec![op_put("k", "then")],
            otherwise,
        })
    };
    assert_eq!(
        state.run(transaction(None)),
        Applied::RequirementFailed { position: 0, current: Some(Index(1)) }
    );
    let result = |results| Applied::Transaction(TransactionResult { succeeded: false, results });
    assert_eq!(state.run(transaction(Some(vec![]))), result(vec![]));
    let otherwise = vec![op_get("k"), op_delete("k")];
    let expected =
        vec![got("k", Some((1, b"x"))), OperationResult::Deleted { key: "k".into(), existed: true }];
    assert_eq!(state.run(transaction(Some(otherwise))), result(expected));
    assert_eq!(state.value("k"), None);
}

/// A later operation sees what an earlier one did, and everything has the same revision.
#[test]
fn operations_see_one_another() {
    let mut state =
        State { store: applied(vec![put("n", "5"), put("gone", "1"), typed("t", b"1", Some("x/y"))]) };
    let operations = vec![
        op_get("n"),
        op_add("n", 2),
        op_get("n"),
        op_add("n", -10),
        op_delete("gone"),
        op_delete("gone"),
        op_get("gone"),
        op_add("gone", 1),
        op_put("new", "v"),
        op_delete("new"),
        op_get("new"),
        op_delete("never"),
        op_add("t", 1),
    ];
    let added = |key: &str, value| OperationResult::Added { key: key.into(), value };
    let deleted = |key: &str, existed| OperationResult::Deleted { key: key.into(), existed };
    let expected = [
        got("n", Some((1, b"5"))),
        added("n", 7),
        got("n", Some((4, b"7"))),
        added("n", -3),
        deleted("gone", true),
        deleted("gone", false),
        got("gone", None),
        added("gone", 1),
        OperationResult::Put { key: "new".into() },
        deleted("new", true),
        got("new", None),
        deleted("never", false),
        added("t", 2),
    ];
    assert_eq!(results(state.run(when(vec![], operations))), expected);
    let changes = state.store.take_changes().expect("without a bound");
    let put = |key| (key, "put", false);
    assert_eq!(
        told(&changes),
        [put("gone"), put("n"), ("t", "put", true)],
        "one per key, by key, with its effect"
    );
    for change in &changes {
        assert_eq!(change.revision, Index(4));
        let ChangeKind::Put(item) = &change.kind else { panic!("{change:?}") };
        assert_eq!(state.store.get(&change.key), Some(item));
        assert_eq!(item.revision, Index(4));
    }
    assert_eq!(state.store.get("t").and_then(|item| item.content_type.as_deref()), Some("x/y"));
    assert_eq!((state.value("n"), state.value("new")), (Some(&b"-3"[..]), None));
}

/// E5: one refused operation, and none takes effect.
#[test]
fn all_or_nothing() {
    let refusals = [
        (op_add("text", 1), Refusal::NotANumber { key: "text".into() }),
        (op_add("a", i64::MAX), Refusal::Overflow { key: "a".into() }),
    ];
    for (operation, refusal) in refusals {
        let mut state = State { store: applied(vec![put("text", "x"), put_for("life", "1", 9)]) };
        let before = (state.store.get("text").cloned(), state.store.get("life").cloned());
        let operations = vec![
            op_put("a", "1"),
            op_delete("text"),
            op_put("text", "y"),
            op_put("life", "2"),
            operation,
            op_put("b", "1"),
        ];
        assert_eq!(state.run(when(vec![], operations)), Applied::Refused(refusal));
        assert_eq!((state.store.get("text").cloned(), state.store.get("life").cloned()), before);
        assert_eq!(
            (state.store.key_count(), state.store.take_changes().expect("without a bound")),
            (2, vec![])
        );
    }
}

/// I4: what a transaction reads has a bound, even when it reads the same key again and again.
#[test]
fn reads_have_a_bound() {
    let bytes = TRANSACTION_READ_BYTES_MAX / 4;
    let mut state = State { store: applied(vec![typed("k", &vec![1; bytes], None)]) };
    assert_eq!(results(state.run(when(vec![], vec![op_get("k"); 4]))).len(), 4);
    let mut operations = vec![op_put("new", "1")];
    operations.extend(vec![op_get("k"); 4]);
    operations.extend([op_put("one", "1"), op_get("one")]);
    let outcome = state.run(when(vec![], operations));
    assert_eq!(outcome, Applied::Refused(Refusal::ResultTooLong));
    assert_eq!(state.store.key_count(), 1);
}

/// An outcome that is to be remembered has a smaller bound, which its keys count for as well.
#[test]
fn remembered_outcomes_have_a_bound() {
    let long = "k".repeat(1024);
    let value = vec![1; IDEMPOTENT_OUTCOME_BYTES_MAX / 2];
    let mut state = State { store: applied(vec![typed("k", &value, None)]) };
    let too_long = Applied::Refused(Refusal::ResultTooLong);
    assert_eq!(state.run_once(0, "1", when(vec![], vec![op_get("k"); 2])), too_long);
    assert_eq!(results(state.run_once(0, "2", when(vec![], vec![op_get("k")]))).len(), 1);
    assert_eq!(results(state.run(when(vec![], vec![op_get("k"); 2]))).len(), 2, "it is not remembered");
    // The longest that is accepted: the outcome is written down all the same.
    let mut count = 0;
    for operations in 950..=1000 {
        let mut reads = vec![op_get("k")];
        reads.extend(vec![op_get(&long); operations - 1]);
        let command = when(vec![], reads);
        let outcome = state.run_once(0, &format!("n{operations}"), command.clone());
        if outcome == too_long {
            break;
        }
        count = operations;
        let revision = state.store.applied_index();
        let first = Box::new(outcome);
        let again = state.run_once(0, &format!("n{operations}"), command);
        assert_eq!(again, Applied::Repeated { revision, first });
    }
    assert!((970..1000).contains(&count), "{count}");
    // The longest keys alone are not too long.
    let puts = (0..1000).map(|n| op_put(&format!("{n:01024}"), "1")).collect();
    assert_eq!(results(state.run_once(0, "puts", when(vec![], puts))).len(), 1000);
}

/// A life that a transaction gives begins with its entry.
#[test]
fn lives_in_transactions() {
    let mut state = State::default();
    let put = Operation::Put { key: "a".into(), value: vec![], content_type: None, ttl_ms: Some(5) };
    let add = Operation::Add { key: "b".into(), by: 1, ttl_ms: Some(6) };
    let _ = state.run_at(100, when(vec![], vec![put, add]));
    assert_eq!((state.expires_at("a"), state.expires_at("b")), (Some(105), Some(106)));
    let _ = state.run_at(101, when(vec![], vec![op_delete("a"), op_put("b", "1")]));
    assert_eq!(state.store.next_expiry(), None);
}
