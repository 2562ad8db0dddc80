//! Snapshots on disk: crashes at every step of taking and installing one, damage, full disks, and what is removed.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_SLICE_BYTES, SNAPSHOT_SYNC_BYTES};
use keva::raft::storage::{SnapshotProgress, Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Index, Term};
use keva::storage::SpareProgress;
use keva::util::rng::Rng;
use support::sim_disk::{Faults, SimDisk};
use support::storage_driver::Driver;
use support::storage_fixture::{
    append_synced, contents, must_open, open, snapshot_contents, take_snapshot, with_entries,
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

/// D11, D15: whole segments under the snapshot go, but for the margin; their files are those of the next ones.
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
    let used = ["used-0000000001.tmp", "used-0000000002.tmp", "used-0000000003.tmp"];
    assert_eq!(names[..3], ["hard-state", "keva.id", &snapshot_name(id(1, 18))]);
    assert_eq!(names[3..], used);
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
    let all = content(2 * SNAPSHOT_SYNC_BYTES + 3 * SNAPSHOT_CHUNK_BYTES + 77, 8);
    assert!(storage.begin_snapshot(id(1, 2), all.len() as u64).unwrap());
    let syncs = disk.syncs();
    for part in all.chunks(100_003) {
        storage.append_snapshot(part).unwrap();
    }
    assert_eq!(disk.syncs() - syncs, (all.len() / SNAPSHOT_SYNC_BYTES) as u64, "no sync has more to write");
    let mut slices = 0;
    loop {
        slices += 1;
        match storage.finish_snapshot(None, 1).unwrap() {
            SnapshotProgress::More => assert!(storage.snapshot().is_none()),
            SnapshotProgress::Done(meta) => {
                assert_eq!((meta.last, meta.bytes), (id(1, 2), all.len() as u64));
                break;
            }
            SnapshotProgress::Damaged => panic!("nothing is damaged"),
        }
    }
    assert_eq!(slices, 3, "the table, the header and the name");
    assert_eq!(snapshot_contents(&storage), Some((id(1, 2), all.clone())));
    drop(storage);
    disk.crash_losing_all();
    assert_eq!(snapshot_contents(&must_open(&disk, 2)), Some((id(1, 2), all)));
}

/// D17: no step on the way of a node's own snapshot, small or large, takes more than one sync, nor does one of putting away
/// what it takes the place of.
#[test]
fn a_step_takes_one_sync() {
    let disk = SimDisk::default();
    let mut storage = with_entries(&disk, 40);
    while storage.is_dirty() {
        storage.sync().unwrap();
    }
    let mut most = 0;
    for (number, len) in
        [700_000, 100, 3 * SNAPSHOT_SLICE_BYTES, 1, 5_000_000, 300_000].into_iter().enumerate()
    {
        let (last, all) = (id(1, 5 * number as u64 + 3), content(len, number as u64));
        let before = disk.syncs();
        let mut syncs = before;
        let mut check = |what: &str| {
            assert!(disk.syncs() - syncs <= 1, "{} syncs in one step, {what} {len}", disk.syncs() - syncs);
            syncs = disk.syncs();
        };
        while !storage.prepare_snapshot(len as u64).unwrap() {
            check("preparing");
        }
        assert!(storage.begin_snapshot(last, len as u64).unwrap());
        check("beginning");
        let first = all.len().min(77_777);
        storage.append_snapshot(&all[..first]).unwrap();
        for part in all[first..].chunks(SNAPSHOT_SLICE_BYTES) {
            storage.append_snapshot(part).unwrap();
            check("writing");
        }
        while storage.finish_snapshot(None, SNAPSHOT_SLICE_BYTES).unwrap() == SnapshotProgress::More {
            check("finishing");
        }
        check("naming");
        // Some of it is left to the next one.
        while number % 2 == 0 && storage.clean_up().unwrap() {
            check("cleaning up");
        }
        assert_eq!(snapshot_contents(&storage), Some((last, all)));
        most = most.max(disk.syncs() - before);
    }
    assert!(most > 20, "the syncs of the large one are among them");
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
        // What is there in whole chunks is read back at once.
        let (first, rest) = all.split_at(place + 100);
        storage.append_snapshot(first).unwrap();
        disk.flip("snapshot.tmp", place, 1);
        storage.append_snapshot(rest).unwrap();
        let progress = storage.finish_snapshot(None, usize::MAX).unwrap();
        assert_eq!(progress, SnapshotProgress::Damaged, "byte {place}");
        assert!(storage.snapshot_draft().is_none());
        assert_eq!(snapshot_contents(&storage), Some((id(1, 3), b"before".to_vec())));
        // The file with the bad part waits for the next draft to have another one.
        let left: Vec<_> = disk.names().into_iter().filter(|name| name != "removed.tmp").collect();
        assert_eq!((left, contents(&storage).len()), (names, 14));
        take_snapshot(&mut storage, id(1, 12), &all, false).unwrap();
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
