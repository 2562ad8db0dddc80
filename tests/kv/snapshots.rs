//! Snapshots: written piece by piece while the state goes on changing, and read back, sound or damaged.

use keva::kv::command::{Condition, Matcher};
use keva::kv::outcome::Refusal;
use keva::kv::restore::RestoreError;
use keva::kv::store::{Applied, Store};
use keva::limits::{
    CONTENT_TYPE_BYTES_MAX, COUNTER_MAX, IDEMPOTENCY_MS_MIN, KEY_BYTES_MAX, TTL_MS_MAX, VALUE_BYTES_MAX,
};
use keva::raft::types::Index;
use keva::util::time::LogicalTime;

use crate::writes::{
    State, add, append, applied, delete, delete_prefix, id, op_delete, op_get, op_put, payload, put, put_for,
    put_if, revisions, typed, when,
};

pub(crate) const HEADER_BYTES: usize = 56;
pub(crate) const SESSION_BYTES: usize = 24;
pub(crate) const RECORD_HEADER_BYTES: usize = 29;
pub(crate) const ITEM_HEADER_BYTES: usize = 24;

/// Writes the snapshot that was begun to its end, in slices of this budget.
pub(crate) fn written(store: &mut Store, budget: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !store.write_snapshot(&mut bytes, budget) {}
    bytes
}

pub(crate) fn snapshot(store: &mut Store) -> Vec<u8> {
    let expected = store.begin_snapshot();
    let bytes = written(store, usize::MAX);
    assert_eq!(bytes.len() as u64, expected);
    bytes
}

/// Some of everything: several origins, an overtaken incarnation, keys with and without type, empty values and types,
/// lives, idempotency keys and a time.
fn varied() -> Store {
    let mut store = Store::default();
    let commands = [
        (id(7, 1, 1), put("gone", "x")),
        (id(3, 2, 9), typed("a", b"", Some(""))),
        (id(7, 1, 2), delete("gone")),
        (id(3, 1, 20), put("never", "an old incarnation")),
        (id(7, 3, 1), typed("\u{e9}", &[0, 255], Some("text/plain"))),
        (id(1, 1, 4), typed("b", b"", None)),
        (id(3, 2, 10), put(&"k".repeat(KEY_BYTES_MAX), "v")),
        (id(1, 1, 5), typed("c", b"0123456789", Some(&"t".repeat(CONTENT_TYPE_BYTES_MAX)))),
    ];
    for ((id, command), index) in commands.into_iter().zip(1..) {
        let _ = store.apply(Index(index), payload(id, command));
    }
    let mut state = State { store };
    let _ = state.run_at(70, put_for("l", "1", 9));
    let _ = state.run_once(71, "name", put("m", "1"));
    let _ = state.run_once(
        72,
        "\u{e9}",
        put_if("m", "1", Condition { if_match: revisions(&[1]), if_none_match: None }),
    );
    let _ = state.run_once(73, "read", when(vec![], vec![op_get("b"), op_get("none"), op_delete("m")]));
    let _ = state.run_once(73, "add", add("a", 1));
    state.store
}

/// The snapshot is a disk and wire format: these bytes must stay readable.
#[test]
fn the_layout_is_fixed() {
    let mut store = Store::default();
    let _ = store.apply(Index(1), payload(id(0x0102, 3, 4), typed("k", b"va", Some("t"))));
    let mut once = payload(id(0x0102, 3, 5), put_for("l", "", 9));
    once.time = LogicalTime(0x0304);
    once.write.idempotency_key = Some("i".into());
    let _ = store.apply(Index(2), once);
    let hash = store.state_hash();
    let bytes = snapshot(&mut store);
    let mut expected = b"KEVAKEYS\x01\0\0\0\x01\0\0\0".to_vec();
    let length = 56 + 24 + (29 + 1 + 8) + (24 + 4) + (24 + 1) + 8;
    for number in [2u64, 2, length, 0x0304, 1, 0x0102, 3, 5, 2, 0x0304, 10_722_490_412_518_854_800] {
        expected.extend(number.to_le_bytes());
    }
    expected.extend(b"\x01\x08\0\0\0i\xa7Written");
    expected.extend(b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x01\0\x02\0\0\0ktva");
    expected.extend(b"\x02\0\0\0\0\0\0\0\x0d\x03\0\0\0\0\0\0\x01\0\xff\xff\0\0\0\0l");
    expected.extend(hash.to_le_bytes());
    assert_eq!(bytes, expected);
    assert_eq!(hash, 15_724_973_874_087_892_088, "the hash is part of the format");
}

#[test]
fn what_is_written_is_read_back() {
    for mut store in [Store::default(), varied()] {
        let bytes = snapshot(&mut store);
        let restored = Store::restore(&bytes).expect("just written");
        assert_eq!(restored, store);
        assert_eq!(restored.state_hash(), store.state_hash());
        assert_eq!(bytes[bytes.len() - 8..], store.state_hash().to_le_bytes());
        assert_eq!(restored.snapshot_bytes(), store.snapshot_bytes());
    }
}

/// D12: a state that comes from a snapshot alone goes on like the one that it was taken of.
#[test]
fn a_restored_state_is_used_like_the_original() {
    let mut original = varied();
    let mut restored = Store::restore(&snapshot(&mut original)).expect("just written");
    assert_eq!(restored.applied_index(), Index(13));
    assert_eq!(restored.get("a").map(|item| item.content_type.as_deref()), Some(Some("")));
    assert_eq!(restored.get("b").map(|item| item.content_type.as_deref()), Some(None));
    assert_eq!(restored.get("b").map(|item| (item.value.len(), item.revision)), Some((0, Index(6))));
    assert!(restored.get("gone").is_none() && restored.get("never").is_none());
    let if_match = |list: &[u64]| Condition { if_match: revisions(list), if_none_match: None };
    let if_absent = Condition { if_match: None, if_none_match: Some(Matcher::Any) };
    let failed = |current: u64| Applied::ConditionFailed { current: Some(Index(current)) };
    // What is asked of both, and what both must answer.
    let table = [
        ("a session: sent again", id(3, 2, 10), put("a", "again"), Applied::Skipped),
        ("a session: overtaken", id(7, 2, 99), put("a", "again"), Applied::Skipped),
        ("a revision", id(3, 2, 11), put_if("c", "1", if_match(&[7])), failed(8)),
        ("a revision", id(3, 2, 12), put_if("c", "1", if_match(&[8])), Applied::Written),
        ("presence", id(1, 1, 16), put_if("\u{e9}", "1", if_absent.clone()), failed(5)),
        ("absence", id(1, 1, 17), put_if("gone", "1", if_absent), Applied::Written),
        ("a delete", id(1, 1, 18), delete("a"), Applied::Written),
    ];
    for ((what, id, command, outcome), index) in table.into_iter().zip(14..) {
        let payload = payload(id, command);
        assert_eq!(restored.apply(Index(index), payload.clone()), outcome, "{what}");
        assert_eq!(original.apply(Index(index), payload), outcome, "{what}");
        assert_eq!(restored.state_hash(), original.state_hash(), "{what}");
        assert_eq!(restored.snapshot_bytes(), original.snapshot_bytes(), "{what}");
    }
    assert_eq!(snapshot(&mut restored), snapshot(&mut original));
}

/// D12, F23: the index is part of the state: no entry is applied twice or left out behind a snapshot.
#[test]
#[should_panic(expected = "entries are applied in order, each once")]
fn a_restored_state_knows_how_far_it_is() {
    let mut restored = Store::restore(&snapshot(&mut varied())).expect("just written");
    restored.pass(Index(13));
}

/// Every kind of change, before and behind the place that the writing has reached, and more than once.
#[test]
fn changes_meanwhile_do_not_show() {
    let keys = ["b", "d", "f", "h", "j"];
    for budget in [1, 40, 60, 100] {
        let mut store = applied(keys.map(|key| put(key, key)).into());
        let frozen = store.clone();
        store.begin_snapshot();
        let mut bytes = Vec::new();
        let mut state = State { store };
        let mut is_whole = state.store.write_snapshot(&mut bytes, budget);
        while !is_whole {
            let round = [
                put("b", "2"),
                put("j", "2"),
                put("j", "3"),
                delete("h"),
                put("a", "new"),
                put("i", "new"),
                delete("i"),
                put("k", "new"),
                delete("d"),
                put("d", "back"),
                put("h", "back"),
                delete("f"),
                append("b", b"3", 99),
                add("n", 1),
                when(vec![], vec![op_put("j", "4"), op_delete("h")]),
                delete_prefix("d"),
                put_for("d", "1", 1),
            ];
            for command in round {
                let _ = state.run(command);
            }
            is_whole = state.store.write_snapshot(&mut bytes, budget);
        }
        assert_eq!(Store::restore(&bytes).expect("just written"), frozen, "budget {budget}");
        assert!(state.value("f").is_none() && state.value("k").is_some(), "the state itself has changed");
    }
}

#[test]
fn a_snapshot_can_be_abandoned() {
    let mut store = varied();
    store.abandon_snapshot();
    let before = store.clone();
    store.begin_snapshot();
    assert_eq!(store.snapshot_index(), Some(Index(13)));
    let _ = store.write_snapshot(&mut Vec::new(), 1);
    assert_eq!((&store, store.state_hash()), (&before, before.state_hash()), "it is no part of the state");
    store.abandon_snapshot();
    assert_eq!(store.snapshot_index(), None);
    assert_eq!(Store::restore(&snapshot(&mut store)).as_ref(), Ok(&before));
}

#[test]
#[should_panic(expected = "one snapshot at a time")]
fn two_snapshots_at_a_time_are_a_mistake() {
    let mut store = varied();
    store.begin_snapshot();
    store.begin_snapshot();
}

// ---- what is no snapshot ------------------------------------------------------------------------

/// Puts the right length into the header.
fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    bytes[32..40].copy_from_slice(&length);
    bytes
}

fn patched(bytes: &[u8], at: usize, patch: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + patch.len()].copy_from_slice(patch);
    bytes
}

#[track_caller]
fn refused(bytes: &[u8]) -> RestoreError {
    let error = Store::restore(bytes).expect_err("it is damaged");
    assert!(!error.to_string().is_empty());
    error
}

/// F24: no damaged byte and no missing one goes unnoticed.
#[test]
fn every_damaged_or_missing_byte_is_noticed() {
    let bytes = snapshot(&mut varied());
    for at in 0..bytes.len() {
        for bit in [1, 0x80] {
            refused(&patched(&bytes, at, &[bytes[at] ^ bit]));
        }
        refused(&bytes[..at]);
        if at >= HEADER_BYTES {
            refused(&with_length(bytes[..at].to_vec()));
        }
    }
    for tail in [&b"\0"[..], &bytes] {
        refused(&[&bytes, tail].concat());
        refused(&with_length([&bytes, tail].concat()));
    }
}

/// The rules of a state are checked, too: the writer may be another program.
#[test]
fn broken_rules_are_refused() {
    let mut state = State { store: applied(vec![typed("ab", b"1", Some("t")), put("cd", "2")]) };
    let _ = state.store.apply(Index(3), payload(id(2, 1, 1), put("ef", "3")));
    let bytes = snapshot(&mut state.store);
    let first = HEADER_BYTES + 2 * SESSION_BYTES;
    let second = first + ITEM_HEADER_BYTES + 4;
    let number = |number: u64| number.to_le_bytes();

    assert_eq!(refused(b""), RestoreError::Length { expected: 0, found: 0 });
    assert_eq!(refused(b"KEVASNAP"), RestoreError::NoSnapshot);
    assert_eq!(refused(&patched(&bytes, 8, &[2])), RestoreError::Version(2));
    let length = bytes.len() as u64;
    let other_length = RestoreError::Length { expected: length - 1, found: length };
    assert_eq!(refused(&patched(&bytes, 32, &number(length - 1))), other_length);
    let header = [
        (12, u64::from(u32::MAX)),
        (24, u64::MAX),
        (24, 9),
        (16, u64::MAX),
        (40, COUNTER_MAX + 1),
        (48, u64::MAX),
        (48, 9),
    ];
    for (at, value) in header {
        let patch = number(value);
        let patch = if at == 12 { &patch[..4] } else { &patch };
        assert_eq!(refused(&patched(&bytes, at, patch)), RestoreError::Header, "{value} at {at}");
    }
    for (at, value) in [(0, 0), (8, 0), (16, 0), (8, u64::MAX), (0, 9), (24, 1)] {
        let session = if at < 24 && value != 9 { 1 } else { 2 };
        let bytes = patched(&bytes, HEADER_BYTES + at, &number(value));
        assert_eq!(refused(&bytes), RestoreError::Session(session), "{value} at {at}");
    }
    let rule = |at: usize, patch: &[u8]| match refused(&patched(&bytes, at, patch)) {
        RestoreError::Item(number, rule) => (number, rule),
        other => panic!("{other:?}"),
    };
    let revision = "has an impossible revision";
    assert_eq!(rule(first, &number(0)), (1, revision));
    assert_eq!(rule(second, &number(4)), (2, revision));
    let end = "has an impossible end of its life";
    assert_eq!(rule(first + 8, &number(TTL_MS_MAX + 1)), (1, end));
    assert_eq!(rule(second + 8, &number(u64::MAX)), (2, end));
    let length = "has an impossible length";
    assert_eq!(rule(first + 16, &[0, 0]), (1, length));
    assert_eq!(rule(first + 16, &(KEY_BYTES_MAX as u16 + 1).to_le_bytes()), (1, length));
    assert_eq!(rule(first + 18, &(CONTENT_TYPE_BYTES_MAX as u16 + 1).to_le_bytes()), (1, length));
    assert_eq!(rule(second + 20, &(VALUE_BYTES_MAX as u32 + 1).to_le_bytes()), (2, length));
    assert_eq!(rule(first + 24, &[0xff]), (1, "has a key that is no text"));
    assert_eq!(rule(first + 26, &[0xff]), (1, "has a type that is no text"));
    assert_eq!(rule(second + 24, b"ab"), (2, "is out of order"));
    assert_eq!(rule(second + 24, b"aa"), (2, "is out of order"));
    assert_eq!(refused(&patched(&bytes, second + 24, b"zz")), RestoreError::Item(3, "is out of order"));
    // A value that is said to be as long as can be, and is not there.
    let missing = patched(&bytes, second + 20, &(VALUE_BYTES_MAX as u32).to_le_bytes());
    assert!(matches!(refused(&missing), RestoreError::Length { .. }));
    assert_eq!(refused(&patched(&bytes, second + 26, b"X")), RestoreError::Hash);
}

/// The same for what is remembered under idempotency keys.
#[test]
fn broken_records_are_refused() {
    let mut state = State::default();
    let _ = state.run_once(100, "ab", add("n", 1));
    let _ = state.run_once(200, "cd", delete("k"));
    let _ = state.run_once(201, "ef", add("text", i64::MAX));
    assert_eq!(
        state.run_once(202, "gh", add("text", 1)),
        Applied::Refused(Refusal::Overflow { key: "text".into() })
    );
    let bytes = snapshot(&mut state.store);
    let first = HEADER_BYTES + SESSION_BYTES;
    assert_eq!(&bytes[first + RECORD_HEADER_BYTES..][..12], b"ab\x81\xa7Counted\x01");
    let second = first + RECORD_HEADER_BYTES + 12;
    let third = second + RECORD_HEADER_BYTES + 10;
    assert_eq!(&bytes[third - 10..third], b"cd\xa7Written");
    let number = |number: u64| number.to_le_bytes();
    let rule = |at: usize, patch: &[u8]| match refused(&patched(&bytes, at, patch)) {
        RestoreError::Record(number, rule) => (number, rule),
        other => panic!("{other:?}"),
    };
    let revision = "has an impossible revision";
    assert_eq!(rule(first, &number(0)), (1, revision));
    assert_eq!(rule(second, &number(1)), (2, revision));
    assert_eq!(rule(second, &number(5)), (2, revision));
    assert_eq!(rule(first, &number(2)), (2, revision));
    let time = "has an impossible time";
    assert_eq!(rule(first + 8, &number(203)), (1, time));
    assert_eq!(rule(second + 8, &number(99)), (2, time));
    assert_eq!(rule(40, &number(100 + IDEMPOTENCY_MS_MIN + 1)), (1, time));
    assert_eq!(rule(40, &number(99)), (1, time));
    let length = "has an impossible length";
    assert_eq!(rule(first + 24, &[0]), (1, length));
    assert_eq!(rule(first + 24, &[65]), (1, length));
    assert_eq!(rule(first + 25, &((2u32 << 20) + 1).to_le_bytes()), (1, length));
    assert_eq!(rule(first + RECORD_HEADER_BYTES, &[0xff]), (1, "has a key that is no text"));
    assert_eq!(rule(second + RECORD_HEADER_BYTES, b"ab"), (2, "has the key of another one"));
    let outcome = "has no outcome that is remembered";
    let outcome_at = second + RECORD_HEADER_BYTES + 2;
    assert_eq!(rule(outcome_at, b"\xa7written"), (2, outcome));
    assert_eq!(rule(outcome_at, b"\xa7Skipped"), (2, outcome));
    assert_eq!(rule(second + 25, &[7, 0, 0, 0]), (2, outcome));
    assert_eq!(rule(second + 25, &[9, 0, 0, 0]), (2, outcome));
    assert_eq!(refused(&patched(&bytes, first + 16, &number(1))), RestoreError::Hash);
    assert_eq!(refused(&patched(&bytes, second + 8, &number(201))), RestoreError::Hash);
}

/// F24: an outcome that is nested without end is no outcome, and no reason to run out of stack.
#[test]
fn deep_outcomes_are_refused() {
    let mut state = State::default();
    let _ = state.run_once(1, "ab", delete("k"));
    let bytes = snapshot(&mut state.store);
    let first = HEADER_BYTES + SESSION_BYTES;
    let outcome = b"\x81\xa8Repeated\x92\x01".repeat(80_000);
    let mut deep = patched(&bytes, first + 25, &(outcome.len() as u32).to_le_bytes());
    deep.splice(first + RECORD_HEADER_BYTES + 2.., outcome);
    let error = refused(&with_length(deep));
    assert_eq!(error, RestoreError::Record(1, "has no outcome that is remembered"));
}
