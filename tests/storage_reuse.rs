//! Files of segments that are used again as they are: what their earlier life left passes for nothing, neither for a record
//! nor for damage; and what a snapshot takes the place of is put away bit by bit.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::raft::storage::{Housekeeping, Purpose, SnapshotProgress, Storage};
use keva::raft::types::{EntryId, Index, Term};
use keva::storage::{LogStorage, StorageOptions, check_files};
use keva::util::rng::Rng;
use support::sim_disk::{Faults, SimDisk};
use support::storage_fixture::{
    SimStorage, append, append_synced, contents, must_open, open, options, set_term, snapshot_contents,
    take_snapshot,
};

const SEGMENT_BYTES: usize = 8192;
/// Four records to a segment.
const PAYLOAD_BYTES: usize = 970;
const RECORD_BYTES: usize = 1024;

fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Term(term), Index(index))
}

fn payload(number: u8) -> Vec<u8> {
    vec![number; PAYLOAD_BYTES]
}

fn newest(disk: &SimDisk) -> String {
    disk.names().into_iter().rfind(|name| name.starts_with("seg-")).unwrap()
}

fn begins_with(disk: &SimDisk, prefix: &str) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with(prefix)).collect()
}

/// A log whose newest segment is a former one: 14 entries, those up to 14 in a snapshot, then two to fill a segment and
/// `behind` ones in the former segment, all durable.
fn in_a_former_segment(disk: &SimDisk, behind: u8) -> SimStorage {
    let mut storage = must_open(disk, 1);
    set_term(&mut storage, 1);
    for number in 1..=14 {
        append_synced(&mut storage, 1, &[&payload(number)]);
    }
    take_snapshot(&mut storage, id(1, 14), b"everything", false).unwrap();
    assert!(!begins_with(disk, "used-").is_empty(), "{:?}", disk.names());
    for number in 15..17 + behind {
        append_synced(&mut storage, 1, &[&payload(number)]);
    }
    storage
}

/// Where the records of the newest segment end, when it has `records`.
fn end(records: usize) -> usize {
    4096 + records * RECORD_BYTES
}

fn has_stale_bytes(disk: &SimDisk, records: usize) -> bool {
    disk.bytes(&newest(disk))[end(records)..].iter().any(|byte| *byte != 0)
}

/// F4, F9: what an earlier life of the file left is no torn tail: not after a stop, not after a crash; and a start leaves
/// it alone.
#[test]
fn what_an_earlier_life_left_says_nothing() {
    for behind in 1..4 {
        for clean in [true, false] {
            let disk = SimDisk::default();
            let storage = in_a_former_segment(&disk, behind);
            assert!(has_stale_bytes(&disk, behind.into()), "there is something to be taken for a record");
            let all = contents(&storage);
            if clean {
                storage.close().unwrap();
            } else {
                drop(storage);
                disk.crash_losing_all();
            }
            let report = check_files(&mut disk.directory(), false).unwrap();
            assert!(report.is_sound() && !report.to_string().contains("torn"), "{report}");
            assert!(!report.to_string().contains("that are no entry"), "{report}");
            let stale = disk.bytes(&newest(&disk))[end(behind.into())..].to_vec();
            let (storage, report) = open(&disk, 2).unwrap();
            assert!(report.torn.is_none() && report.removed.is_empty(), "{report}");
            assert_eq!(contents(&storage), all);
            assert_eq!(disk.bytes(&newest(&disk))[end(behind.into())..], stale, "nothing was written there");
        }
    }
}

/// F4, F5, F9: a power cut while records are written into a former segment, with every outcome for every block: what was
/// durable is there, what follows is what was written, and nothing comes back later.
#[test]
fn power_cuts_in_a_former_segment() {
    let mut torn = 0;
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::default();
        disk.tear_blocks();
        let mut storage = in_a_former_segment(&disk, 1);
        while storage.is_dirty() {
            storage.sync().unwrap();
        }
        let mut all = contents(&storage);
        let durable = all.len();
        let mut written = all.clone();
        for number in 0..rng.range(1, 4) as u8 {
            let payload = vec![100 + number; rng.range(1, PAYLOAD_BYTES as u64) as usize];
            append(&mut storage, 1, &payload).unwrap();
            written.push((1, payload));
        }
        // The write is done, the sync is not.
        disk.set_faults(Faults { crash_at: Some(disk.operations() + 1), ..Faults::default() });
        assert!(storage.sync().is_err());
        drop(storage);
        disk.crash(&mut |outcomes| rng.range(0, outcomes as u64) as usize);
        let report = check_files(&mut disk.directory(), false).unwrap();
        assert!(report.is_sound(), "seed {seed}: {report}");
        let (mut storage, report) = open(&disk, 2).unwrap();
        torn += usize::from(report.torn.is_some());
        all = contents(&storage);
        assert!(all.len() >= durable && written.starts_with(&all), "seed {seed}: {} entries", all.len());
        // What is written next is shorter, and old records may begin right behind it.
        append_synced(&mut storage, 1, &[&[7; 3]]);
        all.push((1, vec![7; 3]));
        drop(storage);
        disk.crash_losing_all();
        assert_eq!(contents(&must_open(&disk, 3)), all, "seed {seed}");
    }
    assert!(torn > 50, "only {torn} torn tails were noticed");
}

/// F7: what was durable and is damaged is not cut away as a torn tail, however much there is behind the records.
#[test]
fn damage_in_a_former_segment() {
    let disk = SimDisk::default();
    drop(in_a_former_segment(&disk, 3));
    let name = newest(&disk);
    for offset in (end(0)..end(2)).step_by(37) {
        let copy = disk.fork();
        copy.flip(&name, offset, 1);
        // Padding is the only part that nothing covers.
        let record = offset - end((offset - end(0)) / RECORD_BYTES);
        let outcome = open(&copy, 9);
        assert!(outcome.is_err() || record >= 48 + PAYLOAD_BYTES, "byte {offset}");
        let report = check_files(&mut copy.directory(), false).unwrap();
        assert_eq!(report.is_sound(), outcome.is_ok(), "byte {offset}: {report}");
    }
    // F6: the header of a former segment.
    for offset in (0..200).step_by(3) {
        let copy = disk.fork();
        copy.flip(&name, offset, 1);
        assert!(open(&copy, 9).is_err(), "byte {offset} of the header");
    }
}

/// F9, F10: entries that were removed again, and were durable before, say nothing about those that came in their place,
/// though they are in the same file and have the same numbers: the file has another salt.
#[test]
fn removed_entries_in_a_former_segment() {
    let disk = SimDisk::default();
    let options = StorageOptions { log_margin_bytes: 0, ..options(1) };
    let mut storage = LogStorage::open(disk.directory(), options).unwrap().0;
    set_term(&mut storage, 1);
    // One after the other, so that each one says that those before it are durable.
    for number in 1..=8 {
        append_synced(&mut storage, 1, &[&payload(number)]);
    }
    // The file of 5 to 8, without 6 to 8, is used again ...
    storage.truncate_suffix(Index(5)).unwrap();
    set_term(&mut storage, 2);
    take_snapshot(&mut storage, id(1, 5), b"five", false).unwrap();
    assert_eq!(begins_with(&disk, "used-").len(), 2, "{:?}", disk.names());
    append_synced(&mut storage, 2, &[&payload(106)]);
    storage.truncate_suffix(Index(5)).unwrap();
    append_synced(&mut storage, 2, &[&payload(107)]);
    storage.truncate_suffix(Index(5)).unwrap();
    // ... for another entry 6.
    set_term(&mut storage, 3);
    append_synced(&mut storage, 3, &[&payload(206)]);
    let bytes = disk.bytes(&newest(&disk));
    assert!(bytes.windows(48).any(|bytes| bytes == [8; 48]), "the old entry 8 is in the file");
    for crash in [false, true] {
        let copy = disk.fork();
        if crash {
            copy.crash_losing_all();
        }
        assert!(check_files(&mut copy.directory(), false).unwrap().is_sound());
        let (again, report) = open(&copy, 5).unwrap_or_else(|error| panic!("{error}"));
        assert!(report.torn.is_none(), "{report}");
        assert_eq!(contents(&again), [(3, payload(206))]);
    }
}

/// F9: a file never gets the salt that it had, and no two segments have the same, though all starts draw the same numbers.
#[test]
fn no_two_segments_have_the_same_salt() {
    let disk = SimDisk::default();
    let mut salts = std::collections::BTreeSet::new();
    let mut seen = String::new();
    let (mut files, mut reused) = (0, 0);
    for _ in 0..6 {
        let mut storage = must_open(&disk, 1);
        set_term(&mut storage, 1);
        for number in 0..12 {
            append_synced(&mut storage, 1, &[&payload(number)]);
            let name = newest(&disk);
            if name != seen {
                let bytes = disk.bytes(&name);
                assert!(salts.insert(bytes[88..96].to_vec()), "{name} has the salt of another one");
                files += 1;
                reused += usize::from(bytes[104..108] != [0; 4]);
                seen = name;
            }
        }
        let last = id(1, storage.last_index().0);
        take_snapshot(&mut storage, last, b"everything", false).unwrap();
    }
    assert!(files > 12 && reused > 6, "{reused} of {files}");
}

/// The log's bytes are written once: no file that is used again is filled with anything.
#[test]
fn a_former_segment_is_not_filled() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    let (mut written, mut records) = (0, 0);
    for round in 0..40_u64 {
        let before = disk.bytes_written();
        for number in 0..8 {
            append_synced(&mut storage, 1, &[&payload(number)]);
            while storage.keep_house(4096).unwrap() == Housekeeping::More {}
        }
        if round >= 5 {
            written += disk.bytes_written() - before;
            records += 8 * RECORD_BYTES as u64;
        }
        let last = id(1, storage.last_index().0);
        take_snapshot(&mut storage, last, b"everything", false).unwrap();
    }
    // A header of as many bytes for every four records of such a small segment, and two copies of the hard state.
    assert!(written <= 2 * records + records / 4, "{written} bytes for {records} of records");
    assert!(disk.names().len() < 12, "{:?}", disk.names());
}

/// D17: a snapshot of a long log ends at once for the log, and its files are put away one by one, with the durable name of
/// the snapshot before everything else.
#[test]
fn files_are_put_away_one_by_one() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    for number in 0..200 {
        append_synced(&mut storage, 1, &[&payload(number)]);
    }
    let content = vec![5; 5 * SEGMENT_BYTES * 3];
    for last in [100, 190] {
        assert!(storage.begin_snapshot(id(1, last), content.len() as u64).unwrap());
        storage.append_snapshot(&content).unwrap();
        let mut steps = 0;
        loop {
            let (operations, syncs) = (disk.operations(), disk.syncs());
            let progress = storage.finish_snapshot(None, 64 << 10).unwrap();
            steps += 1;
            // The header's step and the name's step each take a write or a rename, and a sync.
            assert!(disk.operations() - operations <= 4 && disk.syncs() - syncs <= 2, "step {steps}");
            if matches!(progress, SnapshotProgress::Done(_)) {
                break;
            }
        }
        assert!(steps >= 2, "the file is whole, and then it gets its name");
        let start = storage.log_start();
        assert!(start.index > Index(last - 12), "the log begins behind {start} at once");
        let mut left = begins_with(&disk, "seg-").len();
        assert!(left > 20 && storage.house_debt() > 0);
        let mut calls = 0;
        while storage.must_clean_up() {
            let (operations, syncs) = (disk.operations(), disk.syncs());
            assert_eq!(storage.keep_house(64 << 10).unwrap(), Housekeeping::More);
            let (operations, syncs) = (disk.operations() - operations, disk.syncs() - syncs);
            // The log's next file has its turns in between.
            let is_fill = syncs == 1 && operations > 1;
            assert!(operations <= 1 || is_fill, "{operations} operations in one step");
            let now = begins_with(&disk, "seg-").len();
            assert!(left - now <= 1, "{} files in one step", left - now);
            left = now;
            calls += 1;
        }
        assert!(calls > 20, "only {calls} steps");
        // Files for as much of a log as the next snapshot waits for.
        assert!(begins_with(&disk, "used-").len() <= 6, "{:?}", disk.names());
        assert_eq!(storage.log_start(), start);
        for number in 0..100 {
            append_synced(&mut storage, 1, &[&payload(number)]);
        }
    }
}

/// D3, D5: a crash at every step of putting files away leaves the snapshot and the log behind it; whatever files are still
/// there are put away after the next start.
#[test]
fn a_crash_while_files_are_put_away() {
    let content = vec![5; 40_000];
    for received in [false, true] {
        for crash_at in 0..60 {
            for seed in 0..6 {
                let disk = SimDisk::default();
                let mut storage = must_open(&disk, 1);
                set_term(&mut storage, 3);
                for number in 0..60 {
                    append_synced(&mut storage, 1, &[&payload(number)]);
                }
                take_snapshot(&mut storage, id(1, 20), &content[..9000], false).unwrap();
                let last = if received { id(2, 55) } else { id(1, 55) };
                assert!(storage.begin_snapshot(last, content.len() as u64).unwrap());
                storage.append_snapshot(&content).unwrap();
                let meta = received.then(|| keva::raft::storage::SnapshotMeta {
                    last,
                    bytes: content.len() as u64,
                    crc: crc32c::crc32c(&content),
                });
                let _ = storage.finish_snapshot(meta, usize::MAX).unwrap();
                let entries = contents(&storage);
                let mut rng = Rng::new(seed);
                disk.set_faults(Faults {
                    crash_at: Some(disk.operations() + crash_at),
                    crash_after: seed % 2 == 0,
                    ..Faults::default()
                });
                let mut crashed = false;
                while let Ok(has_more) = storage.clean_up().inspect_err(|_| crashed = true) {
                    if !has_more {
                        break;
                    }
                }
                drop(storage);
                disk.crash(&mut |outcomes| rng.range(0, outcomes as u64) as usize);
                let (mut storage, report) =
                    open(&disk, 2).unwrap_or_else(|error| panic!("{crash_at} {seed}: {error}"));
                assert_eq!(snapshot_contents(&storage), Some((last, content.clone())), "{report}");
                let all = contents(&storage);
                assert!(all.ends_with(&entries), "step {crash_at}, seed {seed}: {report}");
                while storage.clean_up().unwrap() {}
                assert!(begins_with(&disk, "removed").is_empty(), "{:?}", disk.names());
                assert!(begins_with(&disk, "seg-").len() <= 5, "{:?}", disk.names());
                append_synced(&mut storage, 3, &[b"behind it"]);
                let all = contents(&storage);
                drop(storage);
                disk.crash_losing_all();
                assert_eq!(contents(&must_open(&disk, 3)), all);
                if !crashed {
                    assert!(crash_at > 10, "only {crash_at} steps");
                }
            }
        }
    }
}

/// F14: on a full disk what waits to be put away is space: for the log, and for a snapshot.
#[test]
fn what_is_put_away_is_space() {
    let prepare = || {
        let disk = SimDisk::default();
        let mut storage = must_open(&disk, 1);
        set_term(&mut storage, 1);
        for number in 0..80 {
            append_synced(&mut storage, 1, &[&payload(number)]);
        }
        assert!(storage.begin_snapshot(id(1, 70), 3000).unwrap());
        storage.append_snapshot(&[1; 3000]).unwrap();
        let _ = storage.finish_snapshot(None, usize::MAX).unwrap();
        assert!(storage.must_clean_up());
        disk.set_faults(Faults { free_bytes: Some(0), ..Faults::default() });
        (disk, storage)
    };
    let (disk, mut storage) = prepare();
    let mut appended = 0;
    while storage.reserve(PAYLOAD_BYTES, Purpose::Growth).unwrap() {
        append_synced(&mut storage, 1, &[&payload(9)]);
        appended += 1;
    }
    // Eighteen files less the margin's, and the one that is left for what makes the data smaller.
    assert!(appended >= 12 * 4, "only {appended} entries");
    assert!(storage.reserve(PAYLOAD_BYTES, Purpose::Upkeep).unwrap());
    assert!(storage.is_full() && !storage.must_clean_up(), "{:?}", disk.names());

    let (disk, mut storage) = prepare();
    let content = vec![3; 13 * SEGMENT_BYTES];
    take_snapshot(&mut storage, id(1, 75), &content, false).unwrap();
    assert_eq!(snapshot_contents(&storage), Some((id(1, 75), content)), "{:?}", disk.names());
}

/// F14: the disk becomes full after any number of steps with which two former snapshots are put away.
#[test]
fn two_snapshots_are_put_away_when_the_disk_is_full() {
    let mut most = 0;
    for steps in 0..40 {
        let disk = SimDisk::default();
        let mut storage = must_open(&disk, 1);
        set_term(&mut storage, 1);
        for number in 0..20 {
            append_synced(&mut storage, 1, &[&payload(number)]);
        }
        // Each file is too small for what comes later.
        for (index, bytes) in [(5, 3_000), (10, 30_000), (15, 300_000)] {
            assert!(storage.begin_snapshot(id(1, index), bytes).unwrap());
            storage.append_snapshot(&vec![1; bytes as usize]).unwrap();
            let _ = storage.finish_snapshot(None, usize::MAX).unwrap();
        }
        let done = (0..steps).take_while(|_| storage.clean_up().unwrap()).count();
        most = most.max(done);
        disk.set_faults(Faults { free_bytes: Some(0), ..Faults::default() });
        while storage.reserve(PAYLOAD_BYTES, Purpose::Growth).unwrap() {
            append_synced(&mut storage, 1, &[&payload(9)]);
        }
        assert!(begins_with(&disk, "removed").is_empty(), "{steps}: {:?}", disk.names());
        while storage.clean_up().unwrap() {}
    }
    assert!((5..40).contains(&most), "{most} steps");
}
