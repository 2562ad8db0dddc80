//! The space that snapshots take: how much the directory holds at any moment, how it is given back, and what happens
//! when the disk is full just then.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::limits::{REMOVED_BYTES_PER_TURN, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_SLACK_BYTES};
use keva::raft::storage::{Housekeeping, Purpose, SnapshotMeta, SnapshotProgress, Storage};
use keva::raft::types::{EntryId, Index, Term};
use support::sim_disk::{Faults, SimDisk};
use support::storage_fixture::{SimStorage, append_synced, snapshot_contents, take_snapshot, with_entries};

fn id(index: u64) -> EntryId {
    EntryId::new(Term(1), Index(index))
}

fn content(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(seed | 1)).collect()
}

/// Takes a snapshot and leaves what it takes the place of.
fn take_only(storage: &mut SimStorage, last: EntryId, content: &[u8]) {
    assert!(storage.begin_snapshot(last, content.len() as u64).unwrap(), "there is space");
    storage.append_snapshot(content).unwrap();
    let progress = storage.finish_snapshot(None, usize::MAX).unwrap();
    assert!(matches!(progress, SnapshotProgress::Done(_)), "{progress:?}");
}

/// Bytes of all files for snapshots, under whatever name.
fn snapshot_files(disk: &SimDisk) -> usize {
    let is_one = |name: &&String| name.starts_with("snap") || *name == "removed.tmp";
    disk.names().iter().filter(is_one).map(|name| disk.len_of(name)).sum()
}

/// Two roomy files for contents of this length, and what a file may be larger than that.
fn two_files(len: usize) -> usize {
    2 * (len + len / 16 + SNAPSHOT_SLACK_BYTES + 5000)
}

/// D15: as the data grows and shrinks there are never more than two files for snapshots, neither larger than the data by
/// more than a sixteenth; and what is too much goes in small pieces.
#[test]
fn snapshots_take_twice_the_data() {
    const MIB: usize = 1 << 20;
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 30);
    let lens = [20 * MIB, 20 * MIB, 43 * MIB / 2, 24 * MIB, 22 * MIB, 16 * MIB, 17 * MIB, 12 * MIB, 12 * MIB];
    let (mut before, mut earlier) = (0, 0);
    for (number, len) in lens.into_iter().enumerate() {
        let all = content(len, number as u8);
        let check = |step: &str| {
            // Until the next one begins there may still be the file of the one before the last.
            let most = two_files(len.max(before).max(if step == "preparing" { earlier } else { 0 }));
            let bytes = snapshot_files(&disk);
            assert!(bytes <= most, "{bytes} bytes of {most}, {step} {number}: {:?}", disk.names());
            let freed = disk.take_freed();
            assert!(freed.iter().all(|freed| *freed <= REMOVED_BYTES_PER_TURN), "{step} {number}: {freed:?}");
        };
        let mut steps = 0;
        while !storage.prepare_snapshot(len as u64).unwrap() {
            steps += 1;
            assert!(steps < 20, "there is an end to it");
            check("preparing");
        }
        assert!(storage.begin_snapshot(id(number as u64 + 1), len as u64).unwrap());
        check("beginning");
        for part in all.chunks(MIB) {
            storage.append_snapshot(part).unwrap();
        }
        let progress = storage.finish_snapshot(None, usize::MAX).unwrap();
        assert!(matches!(progress, SnapshotProgress::Done(_)), "{progress:?}");
        check("finishing");
        // Some go on with what is left over, some do not.
        for _ in 0..[0, 1, 100][number % 3] {
            storage.clean_up().unwrap();
            check("cleaning up");
        }
        assert_eq!(snapshot_contents(&storage).map(|(last, _)| last), Some(id(number as u64 + 1)));
        (before, earlier) = (len, before);
    }
    while storage.clean_up().unwrap() {}
    assert!(snapshot_files(&disk) <= two_files(12 * MIB) && !storage.must_clean_up());
}

/// D15: a snapshot that is not prepared for keeps the bound as well.
#[test]
fn a_snapshot_at_once_keeps_the_bound() {
    const MIB: usize = 1 << 20;
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 30);
    let mut before = 0;
    for (number, len) in [8, 8, 10, 5, 6, 12, 1, 3, 9, 2].into_iter().enumerate() {
        take_only(&mut storage, id(number as u64 + 1), &content(len * MIB, 1));
        let (bytes, most) = (snapshot_files(&disk), two_files(len.max(before) * MIB));
        assert!(bytes <= most, "{bytes} bytes of {most}: {:?}", disk.names());
        before = len;
    }
}

/// F14: when the leader's snapshot finds no space and another leader has the entries instead, nothing is refused for ever;
/// a snapshot of the node's own that found no space is still wanted then.
#[test]
fn a_received_snapshot_without_space_is_not_waited_for() {
    for wants_own in [false, true] {
        let disk = SimDisk::default();
        let mut storage = with_entries(&disk, 12);
        disk.set_faults(Faults { free_bytes: Some(20_000), ..Faults::default() });
        if wants_own {
            assert!(!storage.begin_snapshot(id(9), 1_000_000).unwrap());
        }
        assert!(!storage.begin_snapshot(id(40), 1_000_000).unwrap());
        assert!(storage.is_full());
        assert_eq!(storage.reserve(100, Purpose::Growth).unwrap(), !wants_own);
        disk.set_faults(Faults::default());
        append_synced(&mut storage, 1, &[b"from another leader"]);
        while storage.keep_house(10_000).unwrap() == Housekeeping::More {}
        assert_eq!(storage.is_full(), wants_own);
        assert_eq!(storage.reserve(100, Purpose::Growth).unwrap(), !wants_own);
        take_snapshot(&mut storage, id(10), b"ten", false).unwrap();
        assert!(!storage.is_full());
    }
}

/// F14: the file kept for the next snapshot stays when the data has grown and there is no space to make it longer.
#[test]
fn a_file_that_is_too_short_is_kept() {
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 12);
    for last in [3, 6] {
        take_snapshot(&mut storage, id(last), &content(100_000, 1), false).unwrap();
    }
    disk.set_faults(Faults { free_bytes: Some(20_000), ..Faults::default() });
    assert!(!storage.begin_snapshot(id(9), 200_000).unwrap());
    assert!(storage.is_full());
    take_snapshot(&mut storage, id(9), &content(120_000, 2), false).unwrap();
    assert!(!storage.begin_snapshot(id(10), 200_000).unwrap());
    take_snapshot(&mut storage, id(10), &content(90_000, 3), false).unwrap();
    assert_eq!(snapshot_contents(&storage), Some((id(10), content(90_000, 3))));
}

/// D5: what a bad part of the disk does not give back goes somewhere else the next time, also where it cannot be read at
/// all; on a full disk the space of the bad file is used again.
#[test]
fn a_bad_file_is_not_used_again() {
    let all = content(3 * SNAPSHOT_CHUNK_BYTES, 7);
    for place in [100, 4096 + 100, 4096 + 2 * SNAPSHOT_CHUNK_BYTES + 100] {
        for unreadable in [false, true] {
            let disk = SimDisk::default();
            let mut storage = with_entries(&disk, 12);
            take_snapshot(&mut storage, id(3), &all, false).unwrap();
            assert!(storage.begin_snapshot(id(6), all.len() as u64).unwrap());
            let spoil = if unreadable { SimDisk::make_unreadable } else { SimDisk::make_bad };
            spoil(&disk, "snapshot.tmp", place);
            storage.append_snapshot(&all).unwrap();
            assert_eq!(storage.finish_snapshot(None, usize::MAX).unwrap(), SnapshotProgress::Damaged);
            assert!(storage.snapshot_draft().is_none());
            // Its blocks stay taken until another file has its own.
            disk.take_freed();
            while storage.clean_up().unwrap() {}
            assert!(disk.take_freed().iter().all(|freed| *freed == 0), "byte {place}");
            let full = place == 100 && !unreadable;
            if full {
                disk.set_faults(Faults { free_bytes: Some(5000), ..Faults::default() });
            }
            take_snapshot(&mut storage, id(6), &all, false).unwrap();
            assert_eq!(snapshot_contents(&storage), Some((id(6), all.clone())));
            assert!(!storage.must_clean_up() && !disk.names().contains(&"removed.tmp".to_string()));
        }
    }
}

/// A snapshot that came over the network and is not what the leader said says nothing about the file.
#[test]
fn a_file_is_not_to_blame_for_the_network() {
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 12);
    take_snapshot(&mut storage, id(3), b"three", false).unwrap();
    assert!(storage.begin_snapshot(id(14), 5).unwrap());
    storage.append_snapshot(b"other").unwrap();
    let expected = SnapshotMeta { last: id(14), bytes: 5, crc: 1 };
    let progress = storage.finish_snapshot(Some(expected), usize::MAX).unwrap();
    assert_eq!(progress, SnapshotProgress::Damaged);
    assert!(disk.names().contains(&"snapshot.tmp".to_string()), "{:?}", disk.names());
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
