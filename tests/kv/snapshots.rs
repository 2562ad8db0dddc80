//! Snapshots: written piece by piece while the state goes on changing, and read back, sound or damaged.

use keva::kv::command::{Command, Condition, Matcher};
use keva::kv::restore::{Restore, RestoreError};
use keva::kv::store::{Applied, Item, Store};
use keva::limits::{CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use keva::raft::types::Index;
use proptest::prelude::*;

use crate::commands::{applied, delete, id, put, put_if, revisions};

const HEADER_BYTES: usize = 40;
const SESSION_BYTES: usize = 24;

/// Writes the snapshot that was begun to its end, in slices of this budget.
fn written(store: &mut Store, budget: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !store.write_snapshot(&mut bytes, budget) {}
    bytes
}

fn snapshot(store: &mut Store) -> Vec<u8> {
    let expected = store.begin_snapshot();
    let bytes = written(store, usize::MAX);
    assert_eq!(bytes.len() as u64, expected);
    bytes
}

fn typed(key: &str, value: &[u8], content_type: Option<&str>) -> Command {
    Command::Put {
        key: key.into(),
        value: value.into(),
        content_type: content_type.map(Into::into),
        condition: Condition::default(),
    }
}

/// Some of everything: several origins, an overtaken incarnation, keys with and without type, empty values and types.
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
        let _ = store.apply(Index(index), id, command);
    }
    store
}

/// The snapshot is a disk and wire format: these bytes must stay readable.
#[test]
fn the_layout_is_fixed() {
    let mut store = Store::default();
    let _ = store.apply(Index(1), id(0x0102, 3, 4), typed("k", b"va", Some("t")));
    let _ = store.apply(Index(2), id(0x0102, 3, 5), put("l", ""));
    let hash = store.state_hash();
    let mut expected = b"KEVAKEYS\x01\0\0\0\x01\0\0\0".to_vec();
    for number in [2u64, 2, 40 + 24 + (16 + 4) + (16 + 1) + 8, 0x0102, 3, 5] {
        expected.extend(number.to_le_bytes());
    }
    expected.extend(b"\x01\0\0\0\0\0\0\0\x01\0\x01\0\x02\0\0\0ktva");
    expected.extend(b"\x02\0\0\0\0\0\0\0\x01\0\xff\xff\0\0\0\0l");
    expected.extend(hash.to_le_bytes());
    assert_eq!(snapshot(&mut store), expected);
    assert_eq!(hash, 3_532_150_604_178_896_552, "the hash is part of the format");
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
    assert_eq!(restored.applied_index(), Index(8));
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
        ("presence", id(1, 1, 6), put_if("\u{e9}", "1", if_absent.clone()), failed(5)),
        ("absence", id(1, 1, 7), put_if("gone", "1", if_absent), Applied::Written),
        ("a delete", id(1, 1, 8), delete("a"), Applied::Written),
    ];
    for ((what, id, command, outcome), index) in table.into_iter().zip(9..) {
        assert_eq!(restored.apply(Index(index), id, command.clone()), outcome, "{what}");
        assert_eq!(original.apply(Index(index), id, command), outcome, "{what}");
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
    restored.pass(Index(8));
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
        let mut seq = 10;
        let mut is_whole = store.write_snapshot(&mut bytes, budget);
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
            ];
            for command in round {
                seq += 1;
                let index = store.applied_index().next();
                assert_eq!(store.apply(index, id(1, 1, seq), command), Applied::Written);
            }
            is_whole = store.write_snapshot(&mut bytes, budget);
        }
        assert_eq!(Store::restore(&bytes).expect("just written"), frozen, "budget {budget}");
        assert!(store.get("f").is_none() && store.get("k").is_some(), "the state itself has changed");
    }
}

#[test]
fn a_snapshot_can_be_abandoned() {
    let mut store = varied();
    store.abandon_snapshot();
    let before = store.clone();
    store.begin_snapshot();
    assert_eq!(store.snapshot_index(), Some(Index(8)));
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
    let mut store = applied(vec![typed("ab", b"1", Some("t")), put("cd", "2")]);
    let _ = store.apply(Index(3), id(2, 1, 1), put("ef", "3"));
    let bytes = snapshot(&mut store);
    let first = HEADER_BYTES + 2 * SESSION_BYTES;
    let second = first + 16 + 4;
    let number = |number: u64| number.to_le_bytes();

    assert_eq!(refused(b""), RestoreError::Length { expected: 0, found: 0 });
    assert_eq!(refused(b"KEVASNAP"), RestoreError::NoSnapshot);
    assert_eq!(refused(&patched(&bytes, 8, &[2])), RestoreError::Version(2));
    let length = bytes.len() as u64;
    let other_length = RestoreError::Length { expected: length - 1, found: length };
    assert_eq!(refused(&patched(&bytes, 32, &number(length - 1))), other_length);
    for (at, value) in [(12, u64::from(u32::MAX)), (24, u64::MAX), (24, 7), (16, u64::MAX)] {
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
    let length = "has an impossible length";
    assert_eq!(rule(first + 8, &[0, 0]), (1, length));
    assert_eq!(rule(first + 8, &(KEY_BYTES_MAX as u16 + 1).to_le_bytes()), (1, length));
    assert_eq!(rule(first + 10, &(CONTENT_TYPE_BYTES_MAX as u16 + 1).to_le_bytes()), (1, length));
    assert_eq!(rule(second + 12, &(VALUE_BYTES_MAX as u32 + 1).to_le_bytes()), (2, length));
    assert_eq!(rule(first + 16, &[0xff]), (1, "has a key that is no text"));
    assert_eq!(rule(first + 18, &[0xff]), (1, "has a type that is no text"));
    assert_eq!(rule(second + 16, b"ab"), (2, "is out of order"));
    assert_eq!(rule(second + 16, b"aa"), (2, "is out of order"));
    assert_eq!(refused(&patched(&bytes, second + 16, b"zz")), RestoreError::Item(3, "is out of order"));
    // A value that is said to be as long as can be, and is not there.
    let missing = patched(&bytes, second + 12, &(VALUE_BYTES_MAX as u32).to_le_bytes());
    assert!(matches!(refused(&missing), RestoreError::Length { .. }));
    assert_eq!(refused(&patched(&bytes, second + 18, b"X")), RestoreError::Hash);
}

// ---- any history --------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize, bool),
    Delete(u8),
    Pass,
    Begin,
    Write(usize),
    Abandon,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40u8, 0..60usize, any::<bool>()).prop_map(|(key, len, typed)| Step::Put(key, len, typed)),
        3 => (0..40u8).prop_map(Step::Delete),
        1 => Just(Step::Pass),
        2 => Just(Step::Begin),
        6 => (1..200usize).prop_map(Step::Write),
        1 => prop::bool::weighted(0.1).prop_map(|abandon| if abandon { Step::Abandon } else { Step::Pass }),
    ]
}

/// A snapshot in the making: the state when it began, the bytes so far.
type Making = Option<(Store, Vec<u8>)>;

fn check_whole(frozen: &Store, bytes: &[u8]) {
    assert_eq!(bytes.len() as u64, frozen.snapshot_bytes());
    let restored = Store::restore(bytes).expect("just written");
    assert_eq!(&restored, frozen);
    assert_eq!(restored.state_hash(), frozen.state_hash());
    // D13: another node, which took its snapshot in one go, has written the same bytes.
    assert_eq!(snapshot(&mut frozen.clone()), bytes);
    // In any pieces it is the same.
    let mut pieces = Restore::new(bytes.len() as u64);
    for piece in bytes.chunks(7) {
        pieces.push(piece).expect("just written");
    }
    assert_eq!(pieces.finish().as_ref(), Ok(frozen));
}

fn largest_item(store: &Store, keys: impl Iterator<Item = String>) -> usize {
    let bytes = |item: &Item| item.value.len() + item.content_type.as_ref().map_or(0, |name| name.len());
    keys.filter_map(|key| store.get(&key).map(|item| 16 + key.len() + bytes(item))).max().unwrap_or(0)
}

fn run(steps: Vec<Step>) {
    let mut store = Store::default();
    let mut making: Making = None;
    let name = |key: u8| format!("key {key}");
    let finish = usize::MAX;
    for (step, n) in steps.into_iter().chain([Step::Begin, Step::Write(finish)]).zip(1..) {
        let index = store.applied_index().next();
        let origin = id(1 + n % 3, 1 + n / 50, n);
        match step {
            Step::Put(key, len, typed) => {
                let command = Command::Put {
                    key: name(key),
                    value: vec![n as u8; len],
                    content_type: typed.then(|| format!("t{len}")),
                    condition: Condition::default(),
                };
                let _ = store.apply(index, origin, command);
            }
            Step::Delete(key) => {
                let _ = store.apply(index, origin, delete(&name(key)));
            }
            Step::Pass => store.pass(index),
            Step::Begin if making.is_none() => {
                making = Some((store.clone(), Vec::new()));
                assert_eq!(store.begin_snapshot(), store.snapshot_bytes());
            }
            Step::Write(budget) => {
                let Some((frozen, bytes)) = &mut making else { continue };
                let before = bytes.len();
                let is_whole = store.write_snapshot(bytes, budget);
                // D17: a slice is short. What comes in one piece is an item, the header with the sessions, the trailer.
                let piece = largest_item(frozen, (0..40).map(name)).max(HEADER_BYTES + 3 * SESSION_BYTES);
                assert!(bytes.len() - before < budget.saturating_add(piece + 8), "{budget}: {piece}");
                if is_whole {
                    check_whole(frozen, bytes);
                    making = None;
                }
            }
            Step::Abandon => {
                store.abandon_snapshot();
                making = None;
            }
            Step::Begin => {}
        }
    }
    assert!(making.is_none(), "every history ends with a whole snapshot");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// D12, D13, D17: whatever happens while it is written, a snapshot is the state at its index.
    #[test]
    fn a_snapshot_is_the_state_at_its_index(steps in prop::collection::vec(step(), 1..300)) {
        run(steps);
    }
}
