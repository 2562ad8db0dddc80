//! Writes that clients may send again.

use keva::kv::command::{Command, Condition, Matcher, Write};
use keva::kv::outcome::Refusal;
use keva::kv::payload::Payload;
use keva::kv::store::{Applied, Store};
use keva::limits::{IDEMPOTENCY_BYTES_MAX, IDEMPOTENCY_MS_MIN, IDEMPOTENCY_RECORDS_MAX};
use keva::raft::types::Index;
use keva::util::time::LogicalTime;

use crate::snapshots::{snapshot, written};
use crate::writes::{State, add, append, delete, delete_prefix, id, op_get, put, put_if, typed, when};

fn repeated(revision: u64, first: Applied) -> Applied {
    Applied::Repeated { revision: Index(revision), first: Box::new(first) }
}

fn absent() -> Condition {
    Condition { if_match: None, if_none_match: Some(Matcher::Any) }
}

/// E1, E6, E13: the first outcome is the answer to each repetition, whatever has happened since; a failure, too.
#[test]
fn a_repetition_gets_the_first_outcome() {
    let mut state = State::default();
    let _ = state.run(put("text", "x"));
    let number = Refusal::NotANumber { key: "text".into() };
    let commands = [
        (put_if("k", "1", absent()), Applied::Written),
        (put_if("k", "2", absent()), Applied::ConditionFailed { current: Some(Index(2)) }),
        (add("n", 5), Applied::Counted(5)),
        (add("text", 5), Applied::Refused(number)),
        (append("log", b"a", 9), Applied::Written),
        (delete_prefix("no"), Applied::Deleted(0)),
        (delete("k"), Applied::Written),
    ];
    for ((command, outcome), at) in commands.iter().zip(2..) {
        assert_eq!(state.run_once(5, &format!("{at}"), command.clone()), *outcome);
    }
    let _ = state.run(put("no", "1"));
    let before = state.store.clone();
    for ((command, outcome), at) in commands.into_iter().zip(2..) {
        assert_eq!(state.run_once(6, &format!("{at}"), command), repeated(at, outcome));
        assert_eq!(state.store.take_changes().expect("without a bound"), []);
    }
    for key in ["k", "n", "text", "log", "no"] {
        assert_eq!(state.store.get(key), before.get(key), "{key}");
    }
}

/// Another write under the same name is no repetition. Neither is done, and the first one stays.
#[test]
fn a_name_is_for_one_write() {
    let mut state = State::default();
    let _ = state.run_once(0, "name", put("k", "1"));
    let others = [
        put("k", "2"),
        put("l", "1"),
        put_if("k", "1", absent()),
        typed("k", b"1", Some("")),
        delete("k"),
        when(vec![], vec![op_get("k")]),
    ];
    for other in others {
        assert_eq!(state.run_once(0, "name", other.clone()), Applied::KeyReused, "{other:?}");
        assert_eq!(state.store.take_changes().expect("without a bound"), []);
        assert_eq!(state.value("k"), Some(&b"1"[..]));
    }
    assert_eq!(state.run_once(0, "name", put("k", "1")), repeated(1, Applied::Written));
    assert_eq!(state.run_once(0, "Name", put("k", "1")), Applied::Written);
}

/// How long a value may be is the setting of a node: the client may ask another one the second time.
#[test]
fn settings_do_not_make_another_write() {
    let mut state = State::default();
    let _ = state.run_once(0, "name", append("k", b"1", 100));
    assert_eq!(state.run_once(0, "name", append("k", b"1", 200)), repeated(1, Applied::Written));
    assert_eq!(state.run_once(0, "name", append("k", b"2", 100)), Applied::KeyReused);
}

/// E1: an entry that is in the log twice is skipped first: its waiter gets no second answer.
#[test]
fn an_entry_that_is_in_the_log_twice_is_skipped() {
    let mut store = Store::default();
    let write = || Write { command: put("k", "1"), idempotency_key: Some("name".into()) };
    let payload = |seq| Payload { id: id(1, 1, seq), time: LogicalTime(0), write: write() };
    assert_eq!(store.apply(Index(1), payload(1)), Applied::Written);
    assert_eq!(store.apply(Index(2), payload(1)), Applied::Skipped);
    assert_eq!(store.apply(Index(3), payload(2)), repeated(1, Applied::Written));
}

/// E7: the log's time decides how long; a repetition does not prolong it.
#[test]
fn names_are_kept_long_enough() {
    let mut state = State::default();
    let _ = state.run_once(100, "name", add("n", 1));
    let last = 100 + IDEMPOTENCY_MS_MIN;
    assert_eq!(state.run_once(last, "name", add("n", 1)), repeated(1, Applied::Counted(1)));
    let _ = state.run_at(last + 1, Command::Tick);
    assert_eq!(state.run_once(0, "name", add("n", 1)), Applied::Counted(2));
    assert_eq!(state.run_once(0, "name", add("n", 1)), repeated(4, Applied::Counted(2)));
    // Whatever kind of entry brings the time; even one that is skipped.
    let mut late = Payload { id: id(1, 1, 1), time: LogicalTime(2 * last + 2), write: put("k", "1").into() };
    late.time = LogicalTime(2 * last + 2);
    assert_eq!(state.store.apply(Index(6), late), Applied::Skipped);
    assert_eq!(state.run_once(0, "name", add("n", 1)), Applied::Counted(3));
}

/// I4: there is a most of them; the oldest goes.
#[test]
fn the_oldest_name_goes_when_there_are_too_many() {
    let mut state = State::default();
    let most = IDEMPOTENCY_RECORDS_MAX as u64;
    for n in 0..most {
        let _ = state.run_once(
            0,
            &n.to_string(),
            Command::Delete { key: "k".into(), condition: Condition::default() },
        );
    }
    assert_eq!(state.run_once(0, "0", delete("k")), repeated(1, Applied::Written));
    assert_eq!(state.run_once(0, "one more", delete("k")), Applied::Written);
    let mut restored = State { store: Store::restore(&snapshot(&mut state.store)).expect("just written") };
    for state in [&mut state, &mut restored] {
        assert_eq!(state.run_once(0, "1", delete("k")), repeated(2, Applied::Written));
        assert_eq!(state.run_once(0, "0", delete("k")), Applied::Written, "it is forgotten");
        assert_eq!(state.run_once(0, "1", delete("k")), Applied::Written, "and now the next one");
    }
    assert_eq!(state.store, restored.store);
}

/// I4: what they are long has a bound.
#[test]
fn the_oldest_name_goes_when_they_are_too_long() {
    let mut state = State::default();
    let value = vec![7; 1 << 19];
    let _ = state.run(typed("k", &value, None));
    let most = IDEMPOTENCY_BYTES_MAX / (value.len() + 60);
    let read = || when(vec![], vec![op_get("k")]);
    for n in 0..most {
        assert!(matches!(state.run_once(0, &n.to_string(), read()), Applied::Transaction(_)));
    }
    assert!(matches!(state.run_once(0, "0", read()), Applied::Repeated { .. }));
    let _ = state.run_once(0, "one more", read());
    assert!(state.store.snapshot_bytes() < (IDEMPOTENCY_BYTES_MAX + value.len()) as u64 + 1000);
    assert!(matches!(state.run_once(0, "1", read()), Applied::Repeated { .. }));
    assert!(matches!(state.run_once(0, "0", read()), Applied::Transaction(_)));
}

/// D12: a state from a snapshot executes nothing twice.
#[test]
fn names_are_in_snapshots() {
    let mut state = State::default();
    let _ = state.run_once(1, "a", add("n", 1));
    let _ = state.run_once(2, "b", add("text", 1));
    let _ = state.run_once(3, "c", put_if("n", "1", absent()));
    let mut restored = State { store: Store::restore(&snapshot(&mut state.store)).expect("just written") };
    assert_eq!(restored.store.state_hash(), state.store.state_hash());
    for state in [&mut state, &mut restored] {
        assert_eq!(state.run_once(4, "a", add("n", 1)), repeated(1, Applied::Counted(1)));
        assert_eq!(state.run_once(4, "a", add("n", 2)), Applied::KeyReused);
        let failed = Applied::ConditionFailed { current: Some(Index(1)) };
        assert_eq!(state.run_once(4, "c", put_if("n", "1", absent())), repeated(3, failed));
        assert_eq!(state.run_once(2 + IDEMPOTENCY_MS_MIN, "a", add("n", 1)), Applied::Counted(2));
        assert_eq!(state.run_once(0, "b", add("text", 1)), repeated(2, Applied::Counted(1)));
    }
    assert_eq!(state.store, restored.store);
}

/// D17: names that are forgotten while the snapshot is being written are in it, those of later entries are not.
#[test]
fn forgotten_names_are_in_the_snapshot_that_was_begun() {
    for budget in [1, 50, 90, 200, 1000] {
        for written_first in [0, 1, 3, 9] {
            let mut state = State::default();
            for n in 0..8 {
                let _ = state.run_once(n * IDEMPOTENCY_MS_MIN / 10, &format!("name {n}"), add("n", 1));
            }
            let frozen = state.store.clone();
            let _ = state.store.begin_snapshot();
            let mut bytes = Vec::new();
            let mut is_whole = (0..written_first).any(|_| state.store.write_snapshot(&mut bytes, budget));
            for n in 10..20 {
                if is_whole {
                    break;
                }
                let _ = state.run_once(n * IDEMPOTENCY_MS_MIN / 10 + 1, &format!("name {n}"), add("n", 1));
                is_whole = state.store.write_snapshot(&mut bytes, budget);
            }
            if !is_whole {
                bytes.extend(written(&mut state.store, budget));
            }
            assert_eq!(Store::restore(&bytes), Ok(frozen), "{budget}, {written_first}");
        }
    }
}
