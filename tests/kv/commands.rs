//! Conditions, repeated writes, hashes, appending and counting.

use keva::kv::command::{Command, Condition, Matcher};
use keva::kv::outcome::Refusal;
use keva::kv::store::{Applied, Store};
use keva::raft::types::Index;

use crate::writes::{
    State, add, append, applied, delete, delete_prefix, id, payload, put, put_for, put_if, revisions, told,
    typed,
};

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
                let outcome = store.apply(Index(2), payload(id(1, 1, 2), command));
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
    assert_eq!(store.apply(Index(1), payload(id(1, 1, 1), delete("a"))), Applied::Written);
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
        let outcome = store.apply(Index(index), payload(id, put("k", &index.to_string())));
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
    let failed = store.apply(Index(1), payload(id(1, 1, 1), write.clone()));
    assert_eq!(failed, Applied::ConditionFailed { current: None });
    let _ = store.apply(Index(2), payload(id(2, 1, 1), put("k", "other")));
    assert_eq!(store.apply(Index(3), payload(id(1, 1, 1), write)), Applied::Skipped);
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
    let mut states = vec![
        applied(vec![put("a", "1"), put("b", "1")]),
        applied(vec![put("b", "1"), put("a", "1")]),
        applied(vec![put("a", "1"), put("b", "2")]),
        applied(vec![put("a", "1"), put("b", "")]),
        applied(vec![put("a", "1"), put("c", "1")]),
        applied(vec![put("ab", "1"), put("b", "1")]),
        applied(vec![put("a", "1"), delete("b")]),
        applied(vec![put("b", "1"), typed("a", b"1", Some(""))]),
        applied(vec![put("b", "1"), typed("a", b"1", Some("text/plain"))]),
        applied(vec![put("a", "1"), put("b", "1"), put("b", "1")]),
        applied(vec![put("a", "1"), put_for("b", "1", 1)]),
        applied(vec![put("a", "1"), put_for("b", "1", 2)]),
    ];
    let mut origin = applied(vec![put("a", "1")]);
    let _ = origin.apply(Index(2), payload(id(2, 1, 2), put("b", "1")));
    let mut incarnation = applied(vec![put("a", "1")]);
    let _ = incarnation.apply(Index(2), payload(id(1, 2, 2), put("b", "1")));
    let mut seq = applied(vec![put("a", "1")]);
    let _ = seq.apply(Index(2), payload(id(1, 1, 3), put("b", "1")));
    let mut passed = applied(vec![put("a", "1"), put("b", "1")]);
    passed.pass(Index(3));
    states.extend([origin, incarnation, seq, passed]);
    for (time, key, value) in [(1, "k", "1"), (2, "k", "1"), (1, "l", "1"), (1, "k", "2")] {
        let mut once = State { store: applied(vec![put("a", "1")]) };
        let _ = once.run_once(time, key, put("b", value));
        let _ = once.run_at(2, put("b", "1"));
        states.push(once.store);
    }
    let mut later = State { store: applied(vec![put("a", "1")]) };
    let _ = later.run_at(1, put("b", "1"));
    states.push(later.store);
    let mut hashes: Vec<u64> = states.iter().map(Store::state_hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), states.len());
}

#[test]
fn bytes_are_appended() {
    let mut state = State::default();
    // (what is added, the most that is allowed, the whole value then)
    type Case = (&'static [u8], u64, Result<&'static [u8], u64>);
    let table: [Case; 6] = [
        (b"", 0, Ok(b"")),
        (b"ab", 2, Ok(b"ab")),
        (b"c", 2, Err(3)),
        (b"\xff\0", 4, Ok(b"ab\xff\0")),
        (b"", 3, Err(4)),
        (b"d", u64::MAX >> 40, Ok(b"ab\xff\0d")),
    ];
    let mut revision = None;
    for ((tail, bytes_max, whole), index) in table.into_iter().zip(1..) {
        let outcome = state.run(append("k", tail, bytes_max));
        match whole {
            Ok(whole) => {
                revision = Some(Index(index));
                assert_eq!((outcome, state.value("k")), (Applied::Written, Some(whole)));
            }
            Err(bytes) => {
                let refusal = Refusal::ValueTooLong { bytes, bytes_max };
                assert_eq!(outcome, Applied::Refused(refusal));
                assert_eq!(state.store.take_changes().expect("without a bound"), [], "refused as a whole");
            }
        }
        assert_eq!(state.store.get("k").map(|item| item.revision), revision);
    }
}

/// What a value is called stays when something is added to it, unless the writer says otherwise.
#[test]
fn the_type_of_a_value_stays_when_it_grows() {
    let mut state = State::default();
    let content_type = |state: &State| state.store.get("k").and_then(|item| item.content_type.clone());
    let _ = state.run(typed("k", b"1", Some("text/plain")));
    let _ = state.run(append("k", b"2", 9));
    assert_eq!(content_type(&state).as_deref(), Some("text/plain"));
    assert_eq!(state.run(add("k", 1)), Applied::Counted(13));
    assert_eq!(content_type(&state).as_deref(), Some("text/plain"));
    let mut other = append("k", b"4", 9);
    if let Command::Append { content_type, .. } = &mut other {
        *content_type = Some("text/csv".into());
    }
    let _ = state.run(other);
    assert_eq!((content_type(&state).as_deref(), state.value("k")), (Some("text/csv"), Some(&b"134"[..])));
    let _ = state.run(put("k", "5"));
    assert_eq!(content_type(&state), None);
}

#[test]
fn numbers_are_added() {
    let refused = |refusal| Applied::Refused(refusal);
    let key = || "k".to_owned();
    let (number, overflow) = (Refusal::NotANumber { key: key() }, Refusal::Overflow { key: key() });
    let table: [(Option<&[u8]>, i64, Applied); 22] = [
        (None, 5, Applied::Counted(5)),
        (None, -5, Applied::Counted(-5)),
        (None, 0, Applied::Counted(0)),
        (Some(b"5"), 5, Applied::Counted(10)),
        (Some(b"-7"), 7, Applied::Counted(0)),
        (Some(b"+7"), 1, Applied::Counted(8)),
        (Some(b"007"), 1, Applied::Counted(8)),
        (Some(b" \t5\r\n"), 1, Applied::Counted(6)),
        (Some(b"9223372036854775806"), 1, Applied::Counted(i64::MAX)),
        (Some(b"9223372036854775807"), 1, refused(overflow.clone())),
        (Some(b"-9223372036854775808"), -1, refused(overflow.clone())),
        (Some(b"-9223372036854775808"), i64::MIN, refused(overflow)),
        (Some(b"-9223372036854775808"), i64::MAX, Applied::Counted(-1)),
        (Some(b"9223372036854775808"), -1, refused(number.clone())),
        (Some(b""), 1, refused(number.clone())),
        (Some(b"\n"), 1, refused(number.clone())),
        (Some(b"1 2"), 1, refused(number.clone())),
        (Some(b"1.0"), 1, refused(number.clone())),
        (Some(b"0x1"), 1, refused(number.clone())),
        (Some(b"1\xc2\xa0"), 1, refused(number.clone())),
        (Some(b"\xd9\xa3"), 1, refused(number.clone())),
        (Some(b"\xff"), 1, refused(number)),
    ];
    for (before, by, outcome) in table {
        let mut state = State::default();
        if let Some(before) = before {
            let _ = state.run(typed("k", before, None));
        }
        assert_eq!(state.run(add("k", by)), outcome, "{before:?} + {by}");
        let after = match &outcome {
            Applied::Counted(number) => Some(number.to_string().into_bytes()),
            _ => before.map(<[u8]>::to_vec),
        };
        assert_eq!(state.value("k").map(<[u8]>::to_vec), after, "{before:?} + {by}");
    }
}

/// One entry removes all keys with a prefix and no other, whatever comes behind the prefix.
#[test]
fn keys_with_a_prefix_are_deleted_together() {
    let keys = [
        "a",
        "a/",
        "a/1",
        "a/\u{10ffff}",
        "a/\u{10ffff}\u{10ffff}",
        "a0",
        "b",
        "\u{d7ff}",
        "\u{d7ff}x",
        "\u{e000}",
        "\u{10ffff}",
        "\u{10ffff}\u{10ffff}",
    ];
    for prefix in ["", "a", "a/", "a/1", "a/\u{10ffff}", "c", "\u{d7ff}", "\u{10ffff}", "zzz", "a/1/2"] {
        let mut state = State { store: applied(keys.map(|key| put(key, "1")).into()) };
        let mut gone: Vec<&str> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
        gone.sort_unstable();
        assert_eq!(state.run(delete_prefix(prefix)), Applied::Deleted(gone.len() as u64), "{prefix}");
        let changes = state.store.take_changes().expect("without a bound");
        let last = gone.len().wrapping_sub(1);
        let expected: Vec<_> =
            gone.iter().enumerate().map(|(at, key)| (*key, "delete", at == last)).collect();
        assert_eq!(told(&changes), expected, "{prefix}");
        for key in keys {
            assert_eq!(state.store.get(key).is_none(), key.starts_with(prefix), "{key} without {prefix}");
        }
        assert_eq!(Store::restore(&crate::snapshots::snapshot(&mut state.store)), Ok(state.store));
    }
}

/// Only ASCII white space around a number does not count, and a vertical tab is none.
#[test]
fn a_vertical_tab_is_no_white_space() {
    let mut state = State { store: applied(vec![put("k", "1\u{b}"), put("n", " 1\r\n")]) };
    assert!(matches!(state.run(add("k", 1)), Applied::Refused(_)));
    assert_eq!(state.run(add("n", 1)), Applied::Counted(2));
}
