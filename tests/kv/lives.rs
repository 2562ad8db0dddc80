//! Keys that do not live for ever, and the time that decides.

use keva::kv::command::{Command, Condition, Matcher, Operation, Requirement};
use keva::kv::store::{Applied, Store};
use keva::raft::types::Index;
use keva::util::time::LogicalTime;

use crate::snapshots::snapshot;
use crate::writes::{
    State, add, append, applied, delete, delete_prefix, expire, id, op_put, payload, put, put_for, put_if,
    revisions, told, when,
};

fn times(state: &State) -> (u64, Option<u64>) {
    (state.store.logical_time().0, state.store.next_expiry().map(|end| end.0))
}

fn expired(state: &State, now: u64, max: usize) -> Vec<(String, u64)> {
    let expired = state.store.expired(LogicalTime(now), max);
    expired.into_iter().map(|(key, revision)| (key, revision.0)).collect()
}

/// J2: the time is the greatest that any entry has, of whatever kind it is, executed or not.
#[test]
fn time_never_goes_back() {
    let mut state = State::default();
    let condition = Condition { if_match: Some(Matcher::Any), if_none_match: None };
    let steps = [
        (100, put("a", "1"), 100),
        (90, put("a", "2"), 100),
        (0, put("a", "3"), 100),
        (101, Command::Tick, 101),
        (50, Command::Tick, 101),
        (102, put_if("absent", "1", condition), 102),
        (103, expire(&[("absent", 1)]), 103),
    ];
    for (time, command, expected) in steps {
        let _ = state.run_at(time, command);
        assert_eq!(times(&state).0, expected);
    }
    let mut skipped = payload(id(1, 1, 1), put("a", "again"));
    skipped.time = LogicalTime(110);
    assert_eq!(state.store.apply(Index(8), skipped), Applied::Skipped);
    assert_eq!(times(&state).0, 110);
    state.store.pass(Index(9));
    assert_eq!(times(&state).0, 110);
}

/// J1, J2: a life begins at the entry's time, or at the time before when that is later.
#[test]
fn a_life_begins_with_its_entry() {
    let mut state = State::default();
    let _ = state.run_at(1000, put_for("a", "1", 5));
    assert_eq!((state.expires_at("a"), times(&state)), (Some(1005), (1000, Some(1005))));
    let _ = state.run_at(400, put_for("b", "1", 1));
    assert_eq!((state.expires_at("b"), times(&state)), (Some(1001), (1000, Some(1001))));
    let _ = state.run_at(2000, put_for("b", "1", 100));
    assert_eq!((state.expires_at("b"), times(&state)), (Some(2100), (2000, Some(1005))));
}

/// Every write says anew how long the key lives; without a word it lives for ever.
#[test]
fn a_write_without_a_life_ends_the_limit() {
    let with_life = |command: Command, ttl: u64| match command {
        Command::Append { key, value, content_type, condition, bytes_max, .. } => {
            Command::Append { key, value, content_type, condition, bytes_max, ttl_ms: Some(ttl) }
        }
        Command::Add { key, by, condition, .. } => Command::Add { key, by, condition, ttl_ms: Some(ttl) },
        other => other,
    };
    let operation =
        |ttl_ms| Operation::Put { key: "k".into(), value: b"4".to_vec(), content_type: None, ttl_ms };
    let adding = |ttl_ms| Operation::Add { key: "k".into(), by: 1, ttl_ms };
    let pairs = [
        (put("k", "1"), put_for("k", "1", 7)),
        (append("k", b"1", 9), with_life(append("k", b"1", 9), 7)),
        (add("k", 1), with_life(add("k", 1), 7)),
        (when(vec![], vec![operation(None)]), when(vec![], vec![operation(Some(7))])),
        (when(vec![], vec![adding(None)]), when(vec![], vec![adding(Some(7))])),
    ];
    for (forever, limited) in pairs {
        let mut state = State::default();
        let _ = state.run_at(10, put_for("k", "1", 50));
        let _ = state.run_at(11, limited);
        assert_eq!((state.expires_at("k"), times(&state).1), (Some(18), Some(18)), "{forever:?}");
        let _ = state.run_at(12, forever.clone());
        assert_eq!((state.expires_at("k"), times(&state).1), (None, None), "{forever:?}");
        assert_eq!(expired(&state, u64::MAX, 9), []);
    }
}

/// A refused write leaves the life as it is.
#[test]
fn a_refused_write_leaves_the_life() {
    let mut state = State::default();
    let _ = state.run_at(10, put_for("k", "x", 50));
    let _ = state.run(add("k", 1));
    let _ = state.run(append("k", b"xx", 2));
    let _ = state.run(put_if("k", "y", Condition { if_match: revisions(&[9]), if_none_match: None }));
    let _ = state.run(when(vec![("k", Requirement::Absent)], vec![op_put("k", "y")]));
    assert_eq!((state.expires_at("k"), times(&state).1), (Some(60), Some(60)));
    let _ = state.run(delete("k"));
    assert_eq!(times(&state).1, None);
}

/// The earliest come first, at most as many as are asked for.
#[test]
fn the_earliest_end_comes_first() {
    let mut state = State::default();
    for (key, ttl) in [("d", 5), ("a", 9), ("c", 5), ("b", 7)] {
        let _ = state.run(put_for(key, "1", ttl));
    }
    let all = [("c", 3), ("d", 1), ("b", 4), ("a", 2)].map(|(key, revision)| (key.to_owned(), revision));
    for (now, max, count) in
        [(4, 9, 0), (5, 9, 2), (6, 9, 2), (7, 9, 3), (9, 9, 4), (9, 3, 3), (9, 1, 1), (9, 0, 0)]
    {
        assert_eq!(expired(&state, now, max), all[..count], "{now} {max}");
    }
}

/// J1, J4, J5: an entry removes only the keys that it names, that nobody wrote since, and whose time has come.
#[test]
fn only_what_is_over_and_unchanged_expires() {
    let mut state = State::default();
    for key in ["a", "b", "c", "d", "e"] {
        let _ = state.run_at(10, put_for(key, "1", 10));
    }
    let _ = state.run_at(11, put_for("b", "2", 9)); // renewed; over as well
    let _ = state.run_at(11, put("c", "2")); // for ever
    let _ = state.run_at(11, put_for("d", "2", 90));
    // Too early by one.
    assert_eq!(state.run_at(19, expire(&[("a", 1)])), Applied::Written);
    assert_eq!((state.store.key_count(), state.store.take_changes().expect("without a bound")), (5, vec![]));
    let named =
        [("e", 5), ("d", 4), ("d", 8), ("c", 3), ("c", 7), ("b", 2), ("a", 1), ("absent", 1), ("a", 1)];
    assert_eq!(state.run_at(20, expire(&named)), Applied::Written);
    let changes = state.store.take_changes().expect("without a bound");
    assert_eq!(told(&changes), [("a", "expire", false), ("e", "expire", true)]);
    assert!(changes.iter().all(|change| change.revision == Index(10)));
    assert_eq!(["b", "c", "d"].map(|key| state.value(key)), [Some(&b"2"[..]); 3]);
    assert_eq!(times(&state), (20, Some(20)));
    assert_eq!(expired(&state, 20, 9), [("b".to_owned(), 6)]);
}

/// J4: what the entry's own time says is not enough when it is behind: the time of the log decides.
#[test]
fn the_time_of_the_log_decides() {
    let mut state = State::default();
    let _ = state.run_at(10, put_for("a", "1", 10));
    let _ = state.run_at(20, Command::Tick);
    let _ = state.run_at(5, expire(&[("a", 1)]));
    assert_eq!(state.value("a"), None);
}

/// J7: a key is there until its entry comes: its time alone does not remove it, on no node.
#[test]
fn a_key_is_there_until_it_is_removed() {
    let mut state = State::default();
    let _ = state.run_at(10, put_for("a", "1", 10));
    let _ = state.run_at(500, Command::Tick);
    assert_eq!(state.value("a"), Some(&b"1"[..]));
    let if_absent = Condition { if_match: None, if_none_match: Some(Matcher::Any) };
    let current = Some(Index(1));
    assert_eq!(state.run_at(501, put_if("a", "2", if_absent)), Applied::ConditionFailed { current });
}

/// Internal commands are no writes of clients: their origin's numbers go on as if there were none.
#[test]
fn internal_commands_are_no_writes() {
    let mut state = State { store: applied(vec![put("a", "1")]) };
    let newest = state.store.sessions().clone();
    let _ = state.run_at(1, Command::Tick);
    let _ = state.run_at(2, Command::Tick);
    assert_eq!((state.store.sessions(), times(&state).0), (&newest, 2));
    assert_eq!(state.store.take_changes().expect("without a bound"), []);
}

/// D12, J6: a snapshot holds the time and the end of each life.
#[test]
fn lives_go_on_behind_a_snapshot() {
    let mut state = State::default();
    let _ = state.run_at(10, put_for("a", "1", 10));
    let _ = state.run_at(12, put_for("b", "1", 5));
    let _ = state.run_at(15, put("c", "1"));
    let mut restored = State { store: Store::restore(&snapshot(&mut state.store)).expect("just written") };
    for state in [&mut state, &mut restored] {
        assert_eq!(times(state), (15, Some(17)));
        assert_eq!(["a", "b", "c"].map(|key| state.expires_at(key)), [Some(20), Some(17), None]);
        assert_eq!(expired(state, 20, 9), [("b".to_owned(), 2), ("a".to_owned(), 1)]);
        let _ = state.run_at(0, put_for("d", "1", 1));
        assert_eq!(state.expires_at("d"), Some(16), "the time goes on");
        let _ = state.run_at(17, expire(&[("a", 1), ("b", 2)]));
        assert_eq!((state.value("a").is_some(), state.value("b").is_some()), (true, false));
    }
    assert_eq!(state.store, restored.store);
}

/// Keys that are deleted together take their lives with them, be they few or many.
#[test]
fn deleting_by_prefix_ends_lives() {
    for count in [0, 1, 2, 3, 4, 5, 19, 20] {
        let mut state = State::default();
        for n in 0..20 {
            let part = if n < count { "gone" } else { "kept" };
            let _ = state.run(put_for(&format!("{part}/{n}"), "1", 1 + n));
        }
        assert_eq!(state.run(delete_prefix("gone/")), Applied::Deleted(count));
        let kept = (count..20).map(|n| (format!("kept/{n}"), n + 1));
        assert_eq!(expired(&state, 99, 99), kept.collect::<Vec<_>>());
        assert_eq!(times(&state).1, (count < 20).then_some(count + 1));
    }
}
