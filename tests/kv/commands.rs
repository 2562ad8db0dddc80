//! Conditions, repeated writes, hashes, and payloads made of any bytes.

use keva::kv::command::{Command, CommandError, Condition, Matcher};
use keva::kv::payload::{PayloadError, decode_payload, encode_payload};
use keva::kv::session::WriteId;
use keva::kv::store::{Applied, Store};
use keva::limits::{
    CONDITION_REVISIONS_MAX, CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, VALUE_BYTES_MAX,
};
use keva::raft::types::{Incarnation, Index, NodeId};
use proptest::prelude::*;

pub(crate) fn id(origin: u64, incarnation: u64, seq: u64) -> WriteId {
    WriteId { origin: NodeId(origin), incarnation: Incarnation(incarnation), seq }
}

pub(crate) fn put(key: &str, value: &str) -> Command {
    put_if(key, value, Condition::default())
}

pub(crate) fn put_if(key: &str, value: &str, condition: Condition) -> Command {
    Command::Put { key: key.into(), value: value.into(), content_type: None, condition }
}

pub(crate) fn delete(key: &str) -> Command {
    Command::Delete { key: key.into(), condition: Condition::default() }
}

pub(crate) fn revisions(list: &[u64]) -> Option<Matcher> {
    Some(Matcher::Revisions(list.iter().copied().map(Index).collect()))
}

/// Applies commands of one origin from index 1.
pub(crate) fn applied(commands: Vec<Command>) -> Store {
    let mut store = Store::default();
    for (command, index) in commands.into_iter().zip(1..) {
        let _ = store.apply(Index(index), id(1, 1, index), command);
    }
    store
}

/// E5, E12: RFC 9110, sections 13.1.1 and 13.1.2, for an absent key and for one at revision 1, empty or not.
#[test]
fn conditions_are_judged_when_applied() {
    let any = Some(Matcher::Any);
    // (If-Match, If-None-Match, holds for an absent key, holds for a key at revision 1)
    let table = [
        (None, None, true, true),
        (any.clone(), None, false, true),
        (None, any.clone(), true, false),
        (revisions(&[1]), None, false, true),
        (revisions(&[2]), None, false, false),
        (revisions(&[7, 1]), None, false, true),
        (revisions(&[]), None, false, false),
        (None, revisions(&[1]), true, false),
        (None, revisions(&[2]), true, true),
        (None, revisions(&[]), true, true),
        (any.clone(), any.clone(), false, false),
        (any.clone(), revisions(&[2]), false, true),
        (revisions(&[1]), revisions(&[1]), false, false),
    ];
    for (if_match, if_none_match, absent, present) in table {
        let condition = Condition { if_match, if_none_match };
        for (key, current, holds) in [("absent", None, absent), ("present", Some(Index(1)), present)] {
            for deletes in [false, true] {
                let mut store = applied(vec![put("present", "")]);
                let before = store.get(key).cloned();
                let command = match deletes {
                    true => Command::Delete { key: key.into(), condition: condition.clone() },
                    false => put_if(key, "new", condition.clone()),
                };
                let outcome = store.apply(Index(2), id(1, 1, 2), command);
                if holds {
                    assert_eq!(outcome, Applied::Written, "{key} {condition:?}");
                    let revision = (!deletes).then_some(Index(2));
                    assert_eq!(store.get(key).map(|item| item.revision), revision, "{key} {condition:?}");
                } else {
                    assert_eq!(outcome, Applied::ConditionFailed { current }, "{key} {condition:?}");
                    assert_eq!(store.get(key).cloned(), before, "a failed condition changes nothing");
                }
            }
        }
    }
}

/// The revision is the index of the key's last change, and a new one after a delete.
#[test]
fn revisions_are_indexes() {
    let store = applied(vec![put("a", "1"), put("b", "1"), put("a", "2"), delete("b"), put("b", "3")]);
    assert_eq!(store.get("a").map(|item| item.revision), Some(Index(3)));
    assert_eq!(
        store.get("b").map(|item| (item.revision, item.value.to_vec())),
        Some((Index(5), b"3".to_vec()))
    );
    assert_eq!((store.key_count(), store.applied_index()), (2, Index(5)));
}

#[test]
fn deleting_an_absent_key_succeeds() {
    let mut store = Store::default();
    assert_eq!(store.apply(Index(1), id(1, 1, 1), delete("a")), Applied::Written);
    assert_eq!(store.key_count(), 0);
}

/// E1, E8: of one origin only ever newer writes run; a new incarnation starts over, and an old one never comes back.
#[test]
fn only_newer_writes_of_an_origin_run() {
    let mut store = Store::default();
    let steps = [
        (id(1, 1, 1), true),
        (id(1, 1, 1), false),
        (id(1, 1, 5), true),
        (id(1, 1, 3), false),
        (id(2, 1, 3), true),
        (id(1, 2, 1), true),
        (id(1, 1, 9), false),
        (id(1, 2, 2), true),
    ];
    for ((id, runs), index) in steps.into_iter().zip(1..) {
        let before = store.get("k").cloned();
        let outcome = store.apply(Index(index), id, put("k", &index.to_string()));
        assert_eq!(outcome == Applied::Written, runs, "{id:?}");
        assert_eq!(outcome == Applied::Skipped, !runs, "{id:?}");
        assert_eq!(store.get("k").cloned() == before, !runs, "{id:?}");
    }
}

/// A write whose condition failed was executed too: sent again, it must not get a second chance.
#[test]
fn a_failed_condition_is_final() {
    let mut store = Store::default();
    let write = put_if("k", "1", Condition { if_match: Some(Matcher::Any), if_none_match: None });
    let failed = store.apply(Index(1), id(1, 1, 1), write.clone());
    assert_eq!(failed, Applied::ConditionFailed { current: None });
    let _ = store.apply(Index(2), id(2, 1, 1), put("k", "other"));
    assert_eq!(store.apply(Index(3), id(1, 1, 1), write), Applied::Skipped);
    assert_eq!(store.get("k").map(|item| item.value.to_vec()), Some(b"other".to_vec()));
}

/// B18
#[test]
#[should_panic(expected = "entries are applied in order, each once")]
fn a_left_out_entry_is_noticed() {
    Store::default().pass(Index(2));
}

/// D13: the hash depends on what is there, not on how it came to be there.
#[test]
fn equal_states_have_equal_hashes() {
    let one =
        applied(vec![put("a", "1"), put("b", "1"), put("c", "1"), delete("c"), put("a", "2"), put("b", "2")]);
    let other =
        applied(vec![put("b", "9"), put("c", "7"), delete("c"), put("a", "8"), put("a", "2"), put("b", "2")]);
    assert_eq!((one.state_hash(), &one), (other.state_hash(), &other));
}

/// D12, D13: every part of the state shows in the hash.
#[test]
fn every_difference_changes_the_hash() {
    let typed = |content_type: &str| Command::Put {
        key: "a".into(),
        value: b"1".to_vec(),
        content_type: Some(content_type.into()),
        condition: Condition::default(),
    };
    let mut states = vec![
        applied(vec![put("a", "1"), put("b", "1")]),
        applied(vec![put("b", "1"), put("a", "1")]),
        applied(vec![put("a", "1"), put("b", "2")]),
        applied(vec![put("a", "1"), put("b", "")]),
        applied(vec![put("a", "1"), put("c", "1")]),
        applied(vec![put("ab", "1"), put("b", "1")]),
        applied(vec![put("a", "1"), delete("b")]),
        applied(vec![put("b", "1"), typed("")]),
        applied(vec![put("b", "1"), typed("text/plain")]),
        applied(vec![put("a", "1"), put("b", "1"), put("b", "1")]),
    ];
    let mut origin = applied(vec![put("a", "1")]);
    let _ = origin.apply(Index(2), id(2, 1, 2), put("b", "1"));
    let mut incarnation = applied(vec![put("a", "1")]);
    let _ = incarnation.apply(Index(2), id(1, 2, 2), put("b", "1"));
    let mut seq = applied(vec![put("a", "1")]);
    let _ = seq.apply(Index(2), id(1, 1, 3), put("b", "1"));
    let mut passed = applied(vec![put("a", "1"), put("b", "1")]);
    passed.pass(Index(3));
    states.extend([origin, incarnation, seq, passed]);
    let mut hashes: Vec<u64> = states.iter().map(Store::state_hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), states.len());
}

#[test]
fn the_largest_command_fits_in_a_payload() {
    let list = || Some(Matcher::Revisions(vec![Index(u64::MAX); CONDITION_REVISIONS_MAX]));
    let command = Command::Put {
        key: "k".repeat(KEY_BYTES_MAX),
        value: vec![7; VALUE_BYTES_MAX],
        content_type: Some("t".repeat(CONTENT_TYPE_BYTES_MAX)),
        condition: Condition { if_match: list(), if_none_match: list() },
    };
    let payload = encode_payload(id(u64::MAX, u64::MAX, u64::MAX), &command);
    assert!(payload.len() <= PAYLOAD_BYTES_MAX);
    assert_eq!(decode_payload(&payload), Ok((id(u64::MAX, u64::MAX, u64::MAX), command)));
}

/// The header is part of the disk and wire format: these bytes must stay readable.
#[test]
fn the_layout_is_fixed() {
    let payload = encode_payload(id(0x0102, 3, 4), &delete("k"));
    let mut expected = vec![2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1];
    expected.extend_from_slice(b"\x81\xa6Delete\x92\xa1k\x92\xc0\xc0");
    assert_eq!(payload, expected);
}

/// Rules are checked again when a payload is read: its writer may be another program.
#[test]
fn payloads_that_break_a_rule_are_refused() {
    let raw = |command: &Command| {
        let mut bytes = encode_payload(id(1, 1, 1), &delete("k"))[..25].to_vec();
        bytes.extend(rmp_serde::to_vec(command).expect("memory"));
        bytes
    };
    let rule = |command: &Command| decode_payload(&raw(command)).expect_err("a broken rule");
    assert_eq!(rule(&put("", "v")), PayloadError::Rule(CommandError::KeyEmpty));
    assert_eq!(rule(&delete(&"k".repeat(KEY_BYTES_MAX + 1))), PayloadError::Rule(CommandError::KeyTooLong));
    let many = vec![1; CONDITION_REVISIONS_MAX + 1];
    let condition = Condition { if_match: None, if_none_match: revisions(&many) };
    assert_eq!(rule(&put_if("k", "", condition)), PayloadError::Rule(CommandError::TooManyRevisions));
    let long = Command::Put {
        key: "k".into(),
        value: vec![0; VALUE_BYTES_MAX + 1],
        content_type: None,
        condition: Condition::default(),
    };
    assert_eq!(rule(&long), PayloadError::Rule(CommandError::ValueTooLong));
    let typed = Command::Put {
        key: "k".into(),
        value: vec![],
        content_type: Some("t".repeat(CONTENT_TYPE_BYTES_MAX + 1)),
        condition: Condition::default(),
    };
    assert_eq!(rule(&typed), PayloadError::Rule(CommandError::ContentTypeTooLong));

    let good = raw(&put("k", "v"));
    assert!(decode_payload(&good).is_ok());
    let mut newer = good.clone();
    newer[24] = 2;
    assert_eq!(decode_payload(&newer), Err(PayloadError::Version(2)));
    for at in [0, 8, 16] {
        let mut zero = good.clone();
        zero[at] = 0;
        assert_eq!(decode_payload(&zero), Err(PayloadError::Header));
    }
    assert_eq!(decode_payload(&[good.as_slice(), b"\xc0"].concat()), Err(PayloadError::TrailingBytes));
    for cut in 0..good.len() {
        assert!(decode_payload(&good[..cut]).is_err(), "cut at {cut}");
    }
    // A key that is not UTF-8.
    let mut invalid = good.clone();
    let key = invalid.iter().position(|byte| *byte == b'k').expect("the key");
    invalid[key] = 0xff;
    assert!(matches!(decode_payload(&invalid), Err(PayloadError::Command(_))));
    // A value said to be 4 GiB long.
    let bomb = [&good[..25], b"\x81\xa3Put\x94\xa1k\xc6\xff\xff\xff\xff"].concat();
    assert!(matches!(decode_payload(&bomb), Err(PayloadError::Command(_))));
}

fn matcher() -> impl Strategy<Value = Option<Matcher>> {
    let list = prop::collection::vec(any::<u64>().prop_map(Index), 0..=CONDITION_REVISIONS_MAX);
    prop_oneof![Just(None), Just(Some(Matcher::Any)), list.prop_map(|list| Some(Matcher::Revisions(list)))]
}

fn command() -> impl Strategy<Value = Command> {
    let condition =
        (matcher(), matcher()).prop_map(|(if_match, if_none_match)| Condition { if_match, if_none_match });
    let value = prop::collection::vec(any::<u8>(), 0..300);
    (".{1,40}", prop::option::of(value), prop::option::of("[a-z/]{0,40}"), condition).prop_map(
        |(key, value, content_type, condition)| match value {
            Some(value) => Command::Put { key, value, content_type, condition },
            None => Command::Delete { key, condition },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn what_is_encoded_is_decoded(origin in 1u64.., incarnation in 1u64.., seq in 1u64.., command in command()) {
        let payload = encode_payload(id(origin, incarnation, seq), &command);
        prop_assert_eq!(decode_payload(&payload), Ok((id(origin, incarnation, seq), command)));
    }

    /// No bytes make the decoder panic, and what it accepts keeps the rules.
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok((_, command)) = decode_payload(&bytes) {
            prop_assert_eq!(command.check(), Ok(()));
        }
    }

    /// The same near the truth: a valid payload with a few bytes changed, added or cut off.
    #[test]
    fn damaged_payloads_are_decoded_or_refused(
        command in command(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        tail in prop::collection::vec(any::<u8>(), 0..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut payload = encode_payload(id(1, 1, 1), &command);
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        payload.extend(tail);
        if cuts {
            payload.truncate(cut.index(payload.len()));
        }
        if let Ok((_, command)) = decode_payload(&payload) {
            prop_assert_eq!(command.check(), Ok(()));
        }
    }

    /// D13: two stores that get the same commands, one of them each command twice, answer the same in the end.
    #[test]
    fn repeated_writes_change_nothing(commands in prop::collection::vec(command(), 1..20)) {
        let (mut once, mut twice) = (Store::default(), Store::default());
        for (command, n) in commands.into_iter().zip(1u64..) {
            let first = once.apply(Index(2 * n - 1), id(1, 1, n), command.clone());
            once.pass(Index(2 * n));
            prop_assert_eq!(twice.apply(Index(2 * n - 1), id(1, 1, n), command.clone()), first);
            prop_assert_eq!(twice.apply(Index(2 * n), id(1, 1, n), command), Applied::Skipped);
        }
        prop_assert_eq!(once.state_hash(), twice.state_hash());
    }
}
