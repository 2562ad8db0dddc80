//! Snapshots on disk: crashes at every step of taking and installing one, damage, full disks, and what is removed.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_SYNC_BYTES};
use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Index, Term};
use keva::storage::{LogStorage, SpareProgress, StorageOptions};
use keva::util::rng::Rng;
use support::sim_region::{Faults, SimDisk};
use support::storage_driver::Driver;
use support::storage_fixture::{
    SimStorage, append, append_synced, contents, membership, must_open, open, options, set_term,
    snapshot_contents, take_snapshot,
};

fn id(term: u64, index: u64) -> EntryId {
    EntryId::new(Term(term), Index(index))
}

fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

fn snapshot_name(last: EntryId) -> String {
    format!("snap-{:020}-{:020}.snap", last.index.0, last.term.0)
}

fn damaged(disk: &SimDisk) -> String {
    match open(disk, 9) {
        Err(StorageError::Damaged { file, detail, .. }) => format!("{file}: {detail}"),
        Err(other) => panic!("expected damage, not: {other}"),
        Ok((_, report)) => panic!("expected damage, not: {report}"),
    }
}

/// `entries` entries of 1,000 bytes, four to a segment.
fn with_entries(disk: &SimDisk, entries: u8) -> SimStorage {
    let mut storage = must_open(disk, 1);
    set_term(&mut storage, 1);
    for number in 1..=entries {
        append_synced(&mut storage, 1, &[&[number; 970]]);
    }
    storage
}

/// What is done to a storage that holds 14 entries in four segments, the last two of them not yet durable.
type Story = fn(&mut Driver) -> Result<(), StorageError>;

fn own_snapshot(driver: &mut Driver) -> Result<(), StorageError> {
    driver.take_snapshot(id(1, 12), &content(700, 1), false)
}

fn install_over_another_log(driver: &mut Driver) -> Result<(), StorageError> {
    driver.take_snapshot(id(2, 13), &content(5000, 2), true)?;
    driver.append(b"behind it")?;
    driver.storage().sync()
}

fn install_over_a_shorter_log(driver: &mut Driver) -> Result<(), StorageError> {
    driver.take_snapshot(id(2, 40), &content(300_000, 3), true)?;
    driver.append(b"behind it")?;
    driver.storage().sync()
}

fn install_into_the_same_log(driver: &mut Driver) -> Result<(), StorageError> {
    driver.take_snapshot(id(1, 13), &content(10, 4), true)
}

/// Segments and snapshots that are used again, full of what they held before.
fn files_used_again(driver: &mut Driver) -> Result<(), StorageError> {
    driver.take_snapshot(id(1, 9), &content(3000, 5), false)?;
    driver.storage().prepare_spare(5000)?;
    for number in 0..9 {
        driver.append(&[number; 970])?;
    }
    driver.storage().sync()?;
    driver.settle();
    driver.take_snapshot(id(2, 20), &content(2900, 6), false)?;
    driver.storage().prepare_spare(1)?;
    driver.append(&[99; 970])?;
    driver.take_snapshot(id(2, 24), &content(2950, 7), false)
}

fn prepare_story(driver: &mut Driver) {
    driver.set_hard_state(1).unwrap();
    for number in 0..12 {
        driver.append(&[number; 970]).unwrap();
    }
    driver.storage().sync().unwrap();
    driver.settle();
    for number in 12..14 {
        driver.append(&[number; 970]).unwrap();
    }
    driver.set_hard_state(2).unwrap();
}

/// D1, D3, D4, D5, D16, F9, F11: a crash at every disk operation of each story leaves the old state or the new one, and
/// a storage that works.
#[test]
fn a_crash_at_every_disk_operation_of_a_snapshot() {
    let stories: [(&str, Story); 5] = [
        ("own", own_snapshot),
        ("over another log", install_over_another_log),
        ("over a shorter log", install_over_a_shorter_log),
        ("into the same log", install_into_the_same_log),
        ("files used again", files_used_again),
    ];
    for (name, story) in stories {
        let mut points = 0;
        for crash_at in 0.. {
            let unfinished = (0..12).filter(|seed| !crash_in(story, crash_at, *seed)).count();
            points = crash_at;
            if unfinished == 0 {
                break;
            }
        }
        assert!(points > 6, "{name}: only {points} operations");
    }
}

/// Returns whether the story came to its end.
fn crash_in(story: Story, crash_at: u64, seed: u64) -> bool {
    let mut driver = Driver::new(seed, Faults::default());
    prepare_story(&mut driver);
    driver.disk.set_faults(Faults {
        crash_at: Some(driver.disk.operations() + crash_at),
        crash_after: seed % 4 >= 2,
        ..Faults::default()
    });
    let finished = story(&mut driver).is_ok();
    if finished {
        driver.compare();
    }
    driver.restart(true);
    for _ in 0..3 {
        driver.operate().unwrap();
        driver.compare();
    }
    driver.storage().sync().unwrap();
    driver.settle();
    driver.restart(true);
    finished
}

/// D11, D15: whole segments under the snapshot go, but for the margin; one of them is the next spare.
#[test]
fn covered_segments_are_removed() {
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 22);
    assert_eq!(disk.names().len(), 2 + 6, "{:?}", disk.names());
    assert_eq!(storage.log_bytes(), 5 * 8192 + 2 * 1024);
    take_snapshot(&mut storage, id(1, 18), b"the first eighteen", false).unwrap();
    // Two entries of the segment 17-20 and those of 13-16 are the margin.
    assert_eq!(storage.log_start(), id(1, 12));
    assert_eq!((storage.term(Index(12)), storage.term(Index(11))), (Some(Term(1)), None));
    assert_eq!(storage.log_bytes(), 4 * 1024);
    let names: Vec<_> = disk.names().into_iter().filter(|name| !name.starts_with("seg-")).collect();
    assert_eq!(names, ["hard-state", "keva.id", &snapshot_name(id(1, 18)), "spare.tmp"]);
    let kept = contents(&storage);
    assert_eq!(kept.len(), 10);
    drop(storage);
    let (storage, report) = open(&disk, 2).unwrap();
    assert_eq!(contents(&storage), kept);
    assert_eq!(snapshot_contents(&storage), Some((id(1, 18), b"the first eighteen".to_vec())));
    let text = report.to_string();
    assert!(
        text.starts_with("recovered 10 entries in 3 segments and a snapshot up to entry 18 after"),
        "{text}"
    );
}

/// D15: with snapshots now and then, the directory stays as small as it was.
#[test]
fn the_directory_stays_small() {
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 1);
    for round in 1..60_u64 {
        for number in 0..7 {
            append_synced(&mut storage, 1, &[&[number; 900]]);
        }
        let last = storage.last_index();
        take_snapshot(&mut storage, id(1, last.0), &content(10_000, round), false).unwrap();
        while storage.prepare_spare(8192).unwrap() != SpareProgress::Ready {}
        let names = disk.names();
        let bytes: usize = names.iter().map(|name| disk.len_of(name)).sum();
        // Two snapshots, the spare, and segments for the margin and what is between two snapshots.
        assert!(bytes < 2 * 16_000 + 8192 + 3 * 8192 + 12_000, "{bytes} bytes in {names:?}");
    }
    assert!(disk.names().contains(&"snapshot.tmp".to_string()), "the old file waits for the next draft");
}

/// F9: records of its earlier life never come back from a segment that is used again, filled with zeros or not.
#[test]
fn a_segment_that_is_used_again() {
    for fill in [0, 5000, 8192] {
        let disk = SimDisk::default();
        let mut storage = with_entries(&disk, 14);
        take_snapshot(&mut storage, id(1, 14), b"x", false).unwrap();
        assert!(
            disk.bytes("spare.tmp")[4096..].windows(48).any(|bytes| bytes == [1; 48]),
            "old records are there"
        );
        if fill > 0 {
            storage.prepare_spare(fill).unwrap();
        }
        for number in 100..104 {
            append_synced(&mut storage, 1, &[&[number; 970]]);
        }
        let all = contents(&storage);
        let newest = disk.names().into_iter().rfind(|name| name.starts_with("seg-")).unwrap();
        storage.close().unwrap();
        let (storage, report) = open(&disk, 2).unwrap();
        assert!(report.torn.is_none(), "{report}");
        assert_eq!(contents(&storage), all);
        assert!(!disk.bytes(&newest).windows(48).any(|bytes| bytes == [1; 48]), "old records are left");
    }
}

/// F14: the file of the snapshot before is the space for the next one; without it a full disk is said at once, and a
/// received snapshot is refused while there is no space for the log behind it.
#[test]
fn a_full_disk() {
    let full = Faults { free_bytes: Some(0), ..Faults::default() };
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 14);
    disk.set_faults(full.clone());
    assert!(!storage.begin_snapshot(id(1, 5), 3000).unwrap());
    assert!(storage.snapshot_draft().is_none());
    disk.set_faults(Faults::default());
    take_snapshot(&mut storage, id(1, 5), &content(3000, 1), false).unwrap();
    take_snapshot(&mut storage, id(1, 6), &content(3000, 2), false).unwrap();
    disk.set_faults(full.clone());
    take_snapshot(&mut storage, id(1, 7), &content(3100, 3), false).unwrap();
    assert!(!storage.begin_snapshot(id(1, 8), 2 << 20).unwrap(), "too large for the old file");
    assert_eq!(snapshot_contents(&storage), Some((id(1, 7), content(3100, 3))));
    // The reserve outlives a restart.
    disk.set_faults(Faults::default());
    take_snapshot(&mut storage, id(1, 8), &content(3000, 4), false).unwrap();
    take_snapshot(&mut storage, id(1, 9), &content(3000, 5), false).unwrap();
    drop(storage);
    let mut storage = must_open(&disk, 2);
    disk.set_faults(full.clone());
    take_snapshot(&mut storage, id(1, 10), &content(3000, 6), false).unwrap();

    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 3);
    disk.set_faults(Faults { free_bytes: Some(8000), ..Faults::default() });
    assert!(!storage.begin_snapshot(id(1, 50), 100).unwrap(), "no space for the segment behind it");
    assert!(storage.begin_snapshot(id(1, 3), 100).unwrap());
}

/// D6: a snapshot of any length is read back part by part as it was written, however it was written.
#[test]
fn many_chunks() {
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 2);
    let all = content(SNAPSHOT_SYNC_BYTES + 3 * SNAPSHOT_CHUNK_BYTES + 77, 8);
    assert!(storage.begin_snapshot(id(1, 2), all.len() as u64).unwrap());
    let syncs = disk.syncs();
    for part in all.chunks(100_003) {
        storage.append_snapshot(part).unwrap();
    }
    assert_eq!(disk.syncs() - syncs, 1, "one sync per mebibyte");
    let mut slices = 0;
    loop {
        slices += 1;
        match storage.finish_snapshot(None, 1).unwrap() {
            keva::raft::storage::SnapshotProgress::More => assert!(storage.snapshot().is_none()),
            keva::raft::storage::SnapshotProgress::Done(meta) => {
                assert_eq!((meta.last, meta.bytes), (id(1, 2), all.len() as u64));
                break;
            }
            keva::raft::storage::SnapshotProgress::Damaged => panic!("nothing is damaged"),
        }
    }
    assert!(slices >= 4, "the read-back comes in slices");
    assert_eq!(snapshot_contents(&storage), Some((id(1, 2), all.clone())));
    drop(storage);
    disk.crash_losing_all();
    assert_eq!(snapshot_contents(&must_open(&disk, 2)), Some((id(1, 2), all)));
}

/// D5: what the disk got wrong is found before anything relies on it, and nothing but the draft is lost.
#[test]
fn a_draft_is_read_back() {
    let all = content(5 * SNAPSHOT_CHUNK_BYTES, 9);
    for place in [4096 + 10, 4096 + 4 * SNAPSHOT_CHUNK_BYTES + 10] {
        let disk = SimDisk::default();
        let mut storage = with_entries(&disk, 14);
        take_snapshot(&mut storage, id(1, 3), b"before", false).unwrap();
        let names = disk.names();
        assert!(storage.begin_snapshot(id(1, 12), all.len() as u64).unwrap());
        storage.append_snapshot(&all[..SNAPSHOT_CHUNK_BYTES]).unwrap();
        if place < SNAPSHOT_CHUNK_BYTES {
            disk.flip("snapshot.tmp", place, 1);
        }
        storage.append_snapshot(&all[SNAPSHOT_CHUNK_BYTES..]).unwrap();
        if place > SNAPSHOT_CHUNK_BYTES {
            disk.flip("snapshot.tmp", place, 1);
        }
        let progress = storage.finish_snapshot(None, usize::MAX).unwrap();
        assert_eq!(progress, keva::raft::storage::SnapshotProgress::Damaged, "byte {place}");
        assert!(storage.snapshot_draft().is_none());
        assert_eq!(snapshot_contents(&storage), Some((id(1, 3), b"before".to_vec())));
        assert_eq!((disk.names(), contents(&storage).len()), (names, 14));
        take_snapshot(&mut storage, id(1, 12), &all, false).unwrap();
    }
}

/// A disk with a snapshot up to entry 18 and the log from 13 to 22.
fn sample() -> (SimDisk, Vec<u8>) {
    let disk = SimDisk::default();
    let all = content(SNAPSHOT_CHUNK_BYTES + 100, 10);
    let mut storage = with_entries(&disk, 22);
    take_snapshot(&mut storage, id(1, 18), &all, false).unwrap();
    storage.sync().unwrap();
    drop(storage);
    (disk, all)
}

/// D5, F24: no flipped bit in header, content or table passes; behind the table nothing matters.
#[test]
fn a_flipped_bit_is_found() {
    let (disk, all) = sample();
    let name = snapshot_name(id(1, 18));
    let table = (4096 + all.len()).next_multiple_of(8);
    let places = (0..4096).chain((4096..4096 + all.len()).step_by(4099)).chain(table..table + 8);
    for place in places {
        let copy = disk.fork();
        copy.flip(&name, place, 1 << (place % 8));
        let text = damaged(&copy);
        assert!(text.contains(&name), "{text}");
    }
    assert!(disk.len_of(&name) > table + 8);
    disk.flip(&name, table + 8, 1);
    assert_eq!(snapshot_contents(&must_open(&disk, 2)), Some((id(1, 18), all)));
}

/// F25: bytes that rot under a running node are found by the read that meets them.
#[test]
fn a_read_checks_what_it_reads() {
    let scratch = tempfile::tempdir().unwrap();
    let open =
        || LogStorage::open(keva::storage::DataDir::open(scratch.path()).unwrap(), options(1)).unwrap().0;
    let mut storage = open();
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[b"one"]);
    let all = content(2 * SNAPSHOT_CHUNK_BYTES, 11);
    take_snapshot(&mut storage, id(1, 1), &all, false).unwrap();
    assert_eq!(snapshot_contents(&storage).unwrap().1, all);
    let path = scratch.path().join(snapshot_name(id(1, 1)));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let place = 4096 + SNAPSHOT_CHUNK_BYTES + 5;
    std::os::unix::fs::FileExt::write_all_at(&file, &[!all[SNAPSHOT_CHUNK_BYTES + 5]], place as u64).unwrap();
    assert!(storage.read_snapshot(0, 10).is_ok());
    let error = storage.read_snapshot(SNAPSHOT_CHUNK_BYTES as u64, 10).unwrap_err();
    assert!(error.to_string().contains("the chunk from byte 262144 on"), "{error}");
}

/// D5: while the log still reaches back to the snapshot before, a damaged newest is no loss.
#[test]
fn the_snapshot_before_helps() {
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 14);
    take_snapshot(&mut storage, id(1, 2), b"two", false).unwrap();
    let (older, name) = (disk.bytes(&snapshot_name(id(1, 2))), snapshot_name(id(1, 4)));
    take_snapshot(&mut storage, id(1, 4), b"four", false).unwrap();
    assert_eq!(storage.log_start(), id(0, 0), "the margin keeps the whole log");
    let all = contents(&storage);
    drop(storage);
    disk.put(&snapshot_name(id(1, 2)), &older);
    // Both are there: the newest holds, and the other one goes.
    let both = disk.fork();
    let (storage, report) = open(&both, 2).unwrap();
    assert_eq!(snapshot_contents(&storage), Some((id(1, 4), b"four".to_vec())));
    assert_eq!(report.removed, [snapshot_name(id(1, 2))]);
    // The newest is damaged.
    disk.flip(&name, 4096, 1);
    let (storage, report) = open(&disk, 2).unwrap();
    assert_eq!(snapshot_contents(&storage), Some((id(1, 2), b"two".to_vec())));
    assert_eq!(contents(&storage), all);
    let text = report.to_string();
    assert!(text.contains("newest damaged") && report.removed == [name.clone()], "{text}");
    // Without the one before, the log from the first entry on does it.
    let alone = both.fork();
    alone.flip(&name, 4096, 1);
    let storage = must_open(&alone, 2);
    assert_eq!((storage.snapshot(), contents(&storage)), (None, all));

    // A log that begins behind the one before does not.
    let (disk, _) = sample();
    disk.put(&snapshot_name(id(1, 2)), &older);
    disk.flip(&snapshot_name(id(1, 18)), 4096, 1);
    let text = damaged(&disk);
    assert!(text.contains(&snapshot_name(id(1, 18))) && text.contains("up to entry 18"), "{text}");
}

/// D4: a gap between snapshot and log is never stepped over.
#[test]
fn a_gap() {
    let (disk, _) = sample();
    let without = |names: &[&str]| {
        let copy = disk.fork();
        names.iter().for_each(|name| copy.delete(name));
        copy
    };
    let snapshot = snapshot_name(id(1, 18));
    let text = damaged(&without(&[&snapshot]));
    assert!(text.contains("begins with entry 13, but entry 1 is needed"), "{text}");
    // What the snapshot covers is not missed; what is behind it is.
    let storage = must_open(&without(&["seg-0000000004.log"]), 2);
    assert_eq!((storage.log_start(), storage.last_index()), (id(1, 16), Index(22)));
    let text = damaged(&without(&["seg-0000000004.log", "seg-0000000005.log"]));
    assert!(text.contains("begins with entry 21 behind 20@1") && text.contains(&snapshot), "{text}");
    let text = damaged(&without(&["seg-0000000006.log"]));
    assert!(text.contains("the file is missing"), "{text}");
}

/// Damage in a segment that the snapshot covers wholly is no loss: that segment goes.
#[test]
fn damage_under_the_snapshot() {
    let (disk, _) = sample();
    let covered = "seg-0000000004.log";
    disk.flip(covered, 4096 + 2000, 1);
    let (storage, report) = open(&disk, 2).unwrap();
    assert_eq!((storage.log_start(), contents(&storage).len()), (id(1, 16), 6));
    assert_eq!(report.removed.first().map(String::as_str), Some(covered));
    // In one that it covers in part it is.
    let (disk, _) = sample();
    disk.flip("seg-0000000005.log", 4096 + 100, 1);
    assert!(damaged(&disk).contains("the entries 17 to 20 cannot be read"));
}

/// F17, F19, F20: snapshots of another node or under another's name, and a snapshot without its directory.
#[test]
fn snapshots_in_the_wrong_place() {
    let refused = |disk: &SimDisk| match open(disk, 9) {
        Err(StorageError::Refused(reason)) => reason,
        Err(other) => panic!("expected a refusal, not: {other}"),
        Ok(_) => panic!("expected a refusal"),
    };
    let (disk, _) = sample();
    let name = snapshot_name(id(1, 18));
    let other = SimDisk::default();
    let other_node = StorageOptions { membership: membership("b"), ..options(2) };
    let mut foreign = LogStorage::open(other.directory(), other_node).unwrap().0;
    set_term(&mut foreign, 1);
    append(&mut foreign, 1, b"one").unwrap();
    take_snapshot(&mut foreign, id(1, 1), b"foreign", false).unwrap();
    let copy = disk.fork();
    copy.put(&name, &other.bytes(&snapshot_name(id(1, 1))));
    assert!(refused(&copy).contains("belongs to node"));
    let copy = disk.fork();
    copy.put(&snapshot_name(id(1, 21)), &disk.bytes(&name));
    assert!(refused(&copy).contains("under a wrong name"));
    let copy = disk.fork();
    copy.put("snap-18-1.snap", b"");
    assert!(refused(&copy).contains("not a name that Keva gives"));
    for gone in [&["keva.id"][..], &["hard-state"], &["keva.id", "hard-state"]] {
        let copy = disk.fork();
        gone.iter().for_each(|name| copy.delete(name));
        for segment in disk.names().iter().filter(|name| name.starts_with("seg-")) {
            copy.delete(segment);
        }
        refused(&copy);
    }
}

/// A log that starts over leaves nothing of the old one, in memory or on disk, and no trace of a term that is gone.
#[test]
fn a_log_that_starts_over() {
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 14);
    let hard_state = HardState { term: Term(5), vote: None, commit_index: Index(0) };
    storage.set_hard_state(hard_state).unwrap();
    take_snapshot(&mut storage, id(4, 9), b"from the leader", true).unwrap();
    assert_eq!((storage.log_start(), storage.last_index()), (id(4, 9), Index(9)));
    assert_eq!((storage.term(Index(9)), storage.term(Index(10))), (Some(Term(4)), None));
    assert_eq!(storage.log_bytes(), 0);
    assert!(disk.names().iter().filter(|name| name.starts_with("seg-")).count() == 1, "{:?}", disk.names());
    // The term of the snapshot is durable with it.
    drop(storage);
    disk.crash_losing_all();
    let mut storage = must_open(&disk, 2);
    assert_eq!((storage.hard_state().term, storage.log_start()), (Term(5), id(4, 9)));
    append_synced(&mut storage, 5, &[b"ten"]);
    storage.truncate_suffix(Index(9)).unwrap();
    append_synced(&mut storage, 5, &[b"another ten"]);
    drop(storage);
    disk.crash_losing_all();
    assert_eq!(contents(&must_open(&disk, 3)), [(5, b"another ten".to_vec())]);
}

/// What a snapshot covers is committed.
#[test]
#[should_panic(expected = "entry 3 is in a snapshot and must stay")]
fn covered_entries_are_not_removed() {
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 5);
    take_snapshot(&mut storage, id(1, 3), b"three", false).unwrap();
    let _ = storage.truncate_suffix(Index(2));
}
