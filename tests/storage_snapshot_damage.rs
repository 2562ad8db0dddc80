//! Snapshots that are damaged, missing, or in the wrong place: found, told, and made up for where the log can.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::limits::SNAPSHOT_CHUNK_BYTES;
use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{EntryId, Index, Term};
use keva::storage::{LogStorage, StorageOptions};
use keva::util::rng::Rng;
use support::sim_disk::SimDisk;
use support::storage_fixture::{
    append, append_synced, contents, membership, must_open, open, options, set_term, snapshot_contents,
    take_snapshot, with_entries,
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
    let moved = SimDisk::default();
    for file in disk.names() {
        let as_named = if file == name { snapshot_name(id(1, 21)) } else { file.clone() };
        moved.put(&as_named, &disk.bytes(&file));
    }
    assert!(refused(&moved).contains("under a wrong name"));
    // F11: the disk has put a block in the wrong place: the other snapshot is good.
    copy.put(&snapshot_name(id(1, 21)), &disk.bytes(&name));
    assert!(open(&copy, 9).is_ok());
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
