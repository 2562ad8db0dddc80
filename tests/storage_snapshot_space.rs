//! The space that snapshots take: how much the directory holds at any moment, how it is given back, and what happens
//! when the disk is full just then.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::limits::REMOVED_BYTES_PER_TURN;
use keva::raft::storage::{Purpose, SnapshotProgress, Storage};
use keva::raft::types::{EntryId, Index, Term};
use support::sim_disk::{Faults, SimDisk};
use support::storage_fixture::{
    SimStorage, append_synced, must_open, set_term, snapshot_contents, take_snapshot,
};

fn id(index: u64) -> EntryId {
    EntryId::new(Term(1), Index(index))
}

fn content(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(seed | 1)).collect()
}

fn with_entries(disk: &SimDisk, entries: u8) -> SimStorage {
    let mut storage = must_open(disk, 1);
    set_term(&mut storage, 1);
    for number in 1..=entries {
        append_synced(&mut storage, 1, &[&[number; 970]]);
    }
    storage
}

/// Takes a snapshot and leaves what it takes the place of.
fn take_only(storage: &mut SimStorage, last: EntryId, content: &[u8]) {
    assert!(storage.begin_snapshot(last, content.len() as u64).unwrap(), "there is space");
    storage.append_snapshot(content).unwrap();
    let progress = storage.finish_snapshot(None, usize::MAX).unwrap();
    assert!(matches!(progress, SnapshotProgress::Done(_)), "{progress:?}");
}

/// F14, D15: two large files that nothing needs are removed one after the other, in small pieces; and at once when the
/// disk is full, whatever step they are at.
#[test]
fn two_large_files_are_removed() {
    let large = 5 * REMOVED_BYTES_PER_TURN / 2;
    let small = content(100 << 10, 3);
    for steps in 0.. {
        let disk = SimDisk::default();
        let mut storage = with_entries(&disk, 12);
        for last in [3, 6] {
            take_snapshot(&mut storage, id(last), &content(large, last as u8), false).unwrap();
        }
        take_only(&mut storage, id(9), &small);
        disk.take_freed();
        (0..steps).for_each(|_| assert!(storage.clean_up().unwrap()));
        let freed = disk.take_freed();
        assert!(freed.iter().all(|freed| *freed <= REMOVED_BYTES_PER_TURN), "after {steps} steps: {freed:?}");
        if !storage.must_clean_up() {
            assert!(steps > 6, "only {steps} steps");
            break;
        }
        disk.set_faults(Faults { free_bytes: Some(0), ..Faults::default() });
        assert!(storage.reserve(100, Purpose::Growth).unwrap(), "after {steps} steps");
        let large_pieces = disk.take_freed().into_iter().filter(|freed| *freed > 1 << 20).count();
        assert!(large_pieces <= 2, "each file goes as a whole, not in {large_pieces} pieces");
        assert!(!storage.must_clean_up(), "after {steps} steps: {:?}", disk.names());
        assert_eq!(snapshot_contents(&storage), Some((id(9), small.clone())));
        assert!(!disk.names().contains(&"removed.tmp".to_string()), "{:?}", disk.names());
    }
}
