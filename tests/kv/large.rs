//! What takes long with much data, measured: `cargo test --profile sim --test kv -- --ignored --nocapture large`.

use std::time::Instant;

use keva::kv::history::History;
use keva::kv::range::KeyRange;
use keva::kv::store::{Applied, Store};
use keva::limits::{HISTORY_BYTES_DEFAULT, IDEMPOTENCY_RECORDS_MAX};
use keva::raft::types::Index;

use crate::snapshots::written;
use crate::writes::{State, delete, delete_prefix, put, put_for};

const KEYS: u64 = 1_000_000;

fn timed<T>(what: &str, action: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = action();
    println!("{what:<60} {:>10.3} ms", begin.elapsed().as_secs_f64() * 1e3);
    result
}

fn filled(with_life: bool) -> State {
    let mut state = State::default();
    for n in 0..KEYS {
        let key = format!("some/application/{n:07}");
        let command = if with_life { put_for(&key, "a value", 1 + n % 1000) } else { put(&key, "a value") };
        let _ = state.run(command);
    }
    state
}

#[test]
#[ignore = "takes long and only measures"]
fn large_states() {
    let mut state = timed("a million puts", || filled(false));
    let all = KeyRange::default();
    let prefix = KeyRange::prefix("some/");
    assert_eq!(
        timed("count of all", || state.store.go_on_counting(1, &all, &mut usize::MAX.clone())),
        Some(KEYS)
    );
    assert_eq!(
        timed("count of a million by prefix", || state.store.go_on_counting(
            2,
            &prefix,
            &mut usize::MAX.clone()
        )),
        Some(KEYS)
    );
    assert!(timed("the longest page", || state.store.page(&prefix, 10_000, false)).has_more);
    let one = timed("delete one by prefix", || state.run(delete_prefix("some/application/0000001")));
    assert_eq!(one, Applied::Deleted(1));
    let _ = state.run(put("some/application/0000001", "a value"));

    let mut copy = State { store: state.store.clone() };
    let outcome = timed("delete a million by prefix", || copy.run(delete_prefix("some/")));
    assert_eq!(outcome, Applied::Deleted(KEYS));
    let mut history = History::new(Index(0), HISTORY_BYTES_DEFAULT);
    let changes = timed("  take its changes", || copy.store.take_changes().expect("without a bound"));
    timed("  push them into the history", || history.push(changes));
    timed("  drop the rest", || drop(copy));

    let mut copy = State { store: state.store.clone() };
    copy.store.begin_snapshot();
    timed("delete a million by prefix, a snapshot in the making", || copy.run(delete_prefix("some/")));
    timed("  drop the rest", || drop(copy));
    let mut living = filled(true);
    timed("delete a million that have a life", || living.run(delete_prefix("some/")));

    for n in 0..IDEMPOTENCY_RECORDS_MAX as u64 {
        let _ = state.run_once(0, &format!("request number {n}"), delete("k"));
    }
    timed("begin a snapshot with 64k idempotency records", || state.store.begin_snapshot());
    timed("  its first slice of 256 KiB", || state.store.write_snapshot(&mut Vec::new(), 256 << 10));
    state.store.abandon_snapshot();
    state.store.begin_snapshot();
    let bytes = timed("  the whole of it", || written(&mut state.store, usize::MAX));
    println!("  {} bytes", bytes.len());
    timed("  read it back", || Store::restore(&bytes)).expect("just written");
    timed("forget 64k idempotency records at once", || state.run_at(u64::MAX >> 1, put("k", "1")));
}
