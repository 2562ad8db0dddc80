//! The storage against a plain model, under random operations, crashes at every disk operation, and every subset of
//! the blocks that a crash may leave.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{HardState, Index, NodeId, Term};
use support::sim_disk::{Faults, SimDisk};
use support::storage_driver::Driver;
use support::storage_fixture::{append, append_synced, contents, must_open, open, set_term};

/// A random run with random faults.
fn run(seed: u64) {
    let mut driver = Driver::new(seed, Faults::default());
    for _ in 0..50 {
        match driver.rng.range(0, 24) {
            0 => driver.restart(true),
            1 => driver.restart(false),
            2 => match driver.close_and_open() {
                Ok(()) => driver.compare(),
                Err(_) => driver.restart(false),
            },
            3..=5 => {
                let crash_at = Some(driver.disk.operations() + driver.rng.range(0, 15));
                let faults = Faults { crash_at, crash_after: driver.chance(2), ..Faults::default() };
                driver.disk.set_faults(faults);
            }
            6 => {
                let sync_error_at = Some(driver.disk.syncs() + driver.rng.range(0, 4));
                driver.disk.set_faults(Faults { sync_error_at, ..Faults::default() });
            }
            _ => match driver.operate() {
                Ok(()) => driver.compare(),
                // After a power cut, or after a failed sync with the cache intact: F3.
                Err(_) => {
                    driver.restart(false);
                    if driver.chance(2) {
                        driver.storage = None;
                        driver.disk.crash_losing_all();
                        driver.storage = Some(must_open(&driver.disk, seed));
                        driver.compare();
                    }
                }
            },
        }
    }
}

/// B7, F2, F3, F4, F5, F8, F9, F10, F11, F15: random operations, stops, crashes and sync errors.
#[test]
fn random_operations_and_faults() {
    let seeds = std::env::var("KEVA_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .map_or(0..6000, |seed| seed..seed + 1);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "failed; repeat it with KEVA_SEED={seed}");
    }
}

/// B7, F11, F17: one long run, from the first start on, cut at every disk operation.
#[test]
fn a_crash_at_every_disk_operation() {
    for seed in 0..4 {
        let mut points = 0;
        for crash_at in 0.. {
            let mut finished = false;
            for crash_after in [false, true] {
                let faults = Faults { crash_at: Some(crash_at), crash_after, ..Faults::default() };
                let mut driver = Driver::new(seed, faults);
                let mut operations = 0;
                while driver.storage.is_some() && operations < 60 && driver.operate().is_ok() {
                    operations += 1;
                }
                finished = operations == 60;
                driver.restart(true);
                // It works afterwards.
                for _ in 0..5 {
                    driver.operate().unwrap();
                    driver.compare();
                }
                driver.storage().sync().unwrap();
                driver.settle();
                driver.restart(true);
            }
            points = crash_at;
            if finished {
                break;
            }
        }
        assert!(points > 60, "only {points} operations");
    }
}

/// Where each record of a segment ends, found by comparing the segment before and after each append.
fn record_ends(payload_bytes: &[usize], start: usize) -> Vec<usize> {
    let mut end = start;
    payload_bytes
        .iter()
        .map(|len| {
            end += (16 + 32 + len).next_multiple_of(16);
            end
        })
        .collect()
}

/// F4, F8: for every subset of the blocks of an unsynced batch, exactly the records that are whole are recovered.
#[test]
fn every_subset_of_the_blocks_of_a_batch() {
    let batches: [&[usize]; 4] =
        [&[700, 100, 1200], &[10, 10, 10, 10, 2000], &[1536, 464, 464, 464], &[3300]];
    for (number, lens) in batches.iter().enumerate() {
        for zeros in [false, true] {
            let disk = SimDisk::default();
            let mut storage = must_open(&disk, number as u64);
            set_term(&mut storage, 1);
            append_synced(&mut storage, 1, &[b"one", b"two"]);
            let start = record_ends(&[3, 3], 4096)[1];
            let byte = if zeros { 0 } else { 0xa5 };
            for len in *lens {
                append(&mut storage, 1, &vec![byte; *len]).unwrap();
            }
            disk.set_faults(Faults { crash_at: Some(disk.operations() + 1), ..Faults::default() });
            assert!(storage.sync().is_err(), "the power goes before the sync");
            drop(storage);
            check_every_subset(&disk, "seg-0000000001.log", &record_ends(lens, start));
        }
    }
}

fn check_every_subset(disk: &SimDisk, segment: &str, ends: &[usize]) {
    let whole = disk.bytes(segment);
    let start = record_ends(&[3, 3], 4096)[1];
    let mut digits: Vec<(usize, usize)> = Vec::new();
    let mut recovered = vec![0; ends.len() + 1];
    loop {
        let disk = disk.fork();
        let mut position = 0;
        disk.crash(&mut |outcomes| {
            if position == digits.len() {
                digits.push((0, outcomes));
            }
            position += 1;
            digits[position - 1].0
        });
        let left = disk.bytes(segment);
        let mut expected = 0;
        let mut from = start;
        while expected < ends.len() && left[from..ends[expected]] == whole[from..ends[expected]] {
            from = ends[expected];
            expected += 1;
        }
        let mut storage = must_open(&disk, 7);
        assert_eq!(storage.last_index().0, 2 + expected as u64, "blocks {digits:?}");
        recovered[expected] += 1;
        // F5: nothing is left behind the end, and what is written there next is all there is.
        let end = if expected == 0 { start } else { ends[expected - 1] };
        assert!(disk.bytes(segment)[end..].iter().all(|byte| *byte == 0), "blocks {digits:?}");
        append_synced(&mut storage, 1, &[b"next"]);
        drop(storage);
        disk.crash_losing_all();
        assert_eq!(must_open(&disk, 8).last_index().0, 3 + expected as u64);
        let Some(next) = digits.iter().rposition(|(digit, outcomes)| digit + 1 < *outcomes) else { break };
        digits.truncate(next + 1);
        digits[next].0 += 1;
    }
    assert!(
        recovered[0] > 0 && recovered[ends.len()] > 0,
        "none and all are recovered at least once: {recovered:?}"
    );
}

/// F3: what a failed sync left only in the cache is on the disk after the next start.
#[test]
fn recovery_does_not_trust_the_cache() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[b"one"]);
    append(&mut storage, 1, b"two").unwrap();
    disk.set_faults(Faults { sync_error_at: Some(disk.syncs()), ..Faults::default() });
    assert!(matches!(storage.sync(), Err(StorageError::Io { .. })));
    drop(storage);
    let (storage, report) = open(&disk, 2).unwrap();
    assert_eq!((storage.last_index(), report.rewritten_bytes > 0), (Index(2), true), "the cache has it");
    drop(storage);
    disk.crash_losing_all();
    assert_eq!(contents(&must_open(&disk, 3)).len(), 2, "the disk must have it as well");
}

/// F2: after a failed sync nothing is written any more.
#[test]
#[should_panic(expected = "nothing else is written")]
fn a_failed_sync_is_final() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append(&mut storage, 1, b"one").unwrap();
    disk.set_faults(Faults { sync_error_at: Some(disk.syncs()), ..Faults::default() });
    assert!(storage.sync().is_err());
    let _ = append(&mut storage, 1, b"two");
}

/// A1, F18: a vote is in both slots as soon as the storage says that nothing is dirty any more: then no power cut and no
/// rot of one slot takes it back.
#[test]
fn a_vote_outlives_either_slot() {
    for slot in [0, 4096] {
        let disk = SimDisk::default();
        let mut storage = must_open(&disk, 1);
        let vote = HardState { term: Term(7), vote: Some(NodeId(2)), commit_index: Index(0) };
        storage.set_hard_state(vote).unwrap();
        storage.sync().unwrap();
        assert!(storage.is_dirty(), "the second slot is left for a sync that nobody waits for");
        storage.sync().unwrap();
        assert!(!storage.is_dirty());
        drop(storage);
        disk.crash_losing_all();
        disk.flip("hard-state", slot + 72, 1);
        assert_eq!(must_open(&disk, 2).hard_state(), vote, "slot at {slot}");
    }
}

/// F16: a plain append costs one sync and about its own bytes; a clean storage costs none.
#[test]
fn what_an_append_costs() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    while storage.is_dirty() {
        storage.sync().unwrap();
    }
    let (syncs, operations, bytes) = (disk.syncs(), disk.operations(), disk.bytes_written());
    for _ in 0..10 {
        append(&mut storage, 1, b"a value").unwrap();
    }
    assert!(storage.is_dirty());
    storage.sync().unwrap();
    assert_eq!((disk.syncs() - syncs, disk.operations() - operations), (1, 2), "one write and one sync");
    assert_eq!(disk.bytes_written() - bytes, 640);
    storage.sync().unwrap();
    assert_eq!(disk.operations() - operations, 2, "nothing was dirty");
}

/// B19: a commit index that is ahead of the own disk is not written before the disk has the entry.
#[test]
fn the_commit_index_never_passes_the_log() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[b"one"]);
    append(&mut storage, 1, b"two").unwrap();
    let hard_state = HardState { term: Term(2), vote: None, commit_index: Index(2) };
    storage.set_hard_state(hard_state).unwrap();
    // The second copy, the first slot, its sync, and its copy: then the power goes before the log is written.
    disk.set_faults(Faults { crash_at: Some(disk.operations() + 4), ..Faults::default() });
    assert!(storage.sync().is_err());
    assert_eq!(storage.hard_state(), hard_state);
    drop(storage);
    disk.crash_losing_all();
    let storage = must_open(&disk, 2);
    assert_eq!(storage.hard_state(), HardState { commit_index: Index(1), ..hard_state });
    assert_eq!(storage.last_index(), Index(1));
}

/// B8: what is committed is never removed.
#[test]
#[should_panic(expected = "entry 2 is committed and must stay")]
fn committed_entries_are_not_removed() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[b"one", b"two", b"three"]);
    storage.set_hard_state(HardState { term: Term(1), vote: None, commit_index: Index(2) }).unwrap();
    let _ = storage.truncate_suffix(Index(1));
}

/// The start counter grows at every start, also when the one before crashed while counting.
#[test]
fn the_incarnation_never_repeats() {
    let disk = SimDisk::default();
    let mut last = must_open(&disk, 1).incarnation();
    assert_eq!(last.0, 1);
    for start in 0..12 {
        disk.set_faults(Faults { crash_at: Some(disk.operations() + start), ..Faults::default() });
        let opened = open(&disk, start).map(|(storage, _)| storage.incarnation());
        disk.crash_losing_all();
        if let Ok(incarnation) = opened {
            assert!(incarnation > last);
            last = incarnation;
        }
    }
    assert!(last.0 > 1);
}

/// F14: a full disk refuses the spare, then the append; what is there can still be started and read.
#[test]
fn a_full_disk() {
    use keva::storage::SpareProgress;
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    disk.set_faults(Faults { free_bytes: Some(0), ..Faults::default() });
    assert_eq!(storage.prepare_spare(1 << 20).unwrap(), SpareProgress::DiskFull);
    let room = storage.free_bytes();
    append_synced(&mut storage, 1, &[&vec![1; room / 2]]);
    assert!(storage.free_bytes() < room / 2);
    let error = append(&mut storage, 1, &vec![1; room / 2]).unwrap_err();
    assert!(
        matches!(&error, StorageError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
        "{error}"
    );
    drop(storage);
    let mut storage = must_open(&disk, 2);
    assert_eq!(storage.last_index(), Index(1));
    // Space comes back: the spare is made in slices, and beginning a segment uses it up.
    disk.set_faults(Faults::default());
    assert_eq!(storage.prepare_spare(5000).unwrap(), SpareProgress::Filling);
    assert_eq!(storage.prepare_spare(5000).unwrap(), SpareProgress::Ready);
    assert_eq!(storage.prepare_spare(5000).unwrap(), SpareProgress::Ready);
    disk.set_faults(Faults { free_bytes: Some(0), ..Faults::default() });
    append_synced(&mut storage, 1, &[&vec![1; room / 2]]);
    assert_eq!(contents(&storage).len(), 2);
}

/// A log of any length is opened, and kept open, with a few descriptors: most systems allow a process only 1,024.
#[test]
fn a_long_log_needs_few_descriptors() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    for number in 0..60 {
        append_synced(&mut storage, 1, &[&[number; 3000]]);
    }
    drop(storage);
    let disk = disk.fork();
    assert!(disk.names().len() > 60, "{:?}", disk.names());
    let mut storage = must_open(&disk, 2);
    append_synced(&mut storage, 1, &[&[60; 3000]]);
    assert_eq!(contents(&storage).len(), 61);
    assert!(disk.descriptors_most() <= 4, "{} files were open at a time", disk.descriptors_most());
}
