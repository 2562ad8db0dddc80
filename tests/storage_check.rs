//! `keva check` and the reading of everything now and then: damage is found and named, and nothing sound is blamed.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keva::limits::{SCRUB_PAUSE_CALLS, SNAPSHOT_CHUNK_BYTES};
use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Index, NodeId, Term};
use keva::storage::{CheckReport, DataDir, LogStorage, Region, check, check_files, watch_for_bus_errors};
use support::sim_disk::{Faults, SimDisk};
use support::storage_fixture::{append, append_synced, must_open, open, options, set_term, take_snapshot};

const SNAPSHOT: &str = "snap-00000000000000000030-00000000000000000001.snap";
/// Bytes in front of a snapshot's content.
const SNAPSHOT_HEADER_BYTES: u64 = 4096;

fn open_at(path: &Path, seed: u64) -> Result<LogStorage<DataDir>, StorageError> {
    LogStorage::open(DataDir::open(path)?, options(seed)).map(|(storage, _)| storage)
}

/// Entries of a hundred bytes and more in several segments, and a snapshot of several chunks, all durable.
fn fill<D: keva::storage::Directory>(storage: &mut LogStorage<D>) {
    set_term(storage, 1);
    for number in 0..60 {
        append_synced(storage, 1, &[&[number; 100], &[number; 150]]);
    }
    let content: Vec<u8> = (0..600_000_u32).map(|number| (number * 7 / 3) as u8).collect();
    take_snapshot(storage, EntryId::new(Term(1), Index(30)), &content, false).unwrap();
    storage
        .set_hard_state(HardState { term: Term(4), vote: Some(NodeId(3)), commit_index: Index(80) })
        .unwrap();
    while storage.is_dirty() {
        storage.sync().unwrap();
    }
}

/// Flips a bit of a file of a running node: what rots in memory, or on a disk whose bytes are read anew.
fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

/// The files of the log, oldest first.
fn segment_paths(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut paths: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    paths.sort();
    paths
}

/// The names of the segments of a simulated disk, oldest first.
fn segment_names(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("seg-")).collect()
}

/// Housekeeping for more than one pass.
fn pass<D: keva::storage::Directory>(storage: &mut LogStorage<D>) -> Result<(), StorageError> {
    for _ in 0..2 * SCRUB_PAUSE_CALLS {
        storage.keep_house(SNAPSHOT_CHUNK_BYTES)?;
    }
    Ok(())
}

/// F26: a bit that flips under a running node is found by the next pass, wherever it is, and named with file, place and
/// entries. Space behind the records is nobody's.
#[test]
fn a_pass_finds_a_flipped_bit() {
    let scratch = tempfile::tempdir().unwrap();
    let mut storage = open_at(scratch.path(), 1).unwrap();
    fill(&mut storage);
    pass(&mut storage).unwrap();
    let segments = segment_paths(scratch.path());
    assert!(segments.len() > 3, "{segments:?}");
    for path in &segments {
        for offset in [10, 90, 4096 + 2, 4096 + 12, 4096 + 60, 4096 + 148 + 20] {
            flip(path, offset);
            let error = pass(&mut storage).unwrap_err();
            let StorageError::Damaged { file, offset: place, detail } = &error else { panic!("{error}") };
            assert_eq!(Path::new(file), path);
            assert!(*place <= offset && offset < *place + 4096, "byte {offset}: {error}");
            let expected = if offset < 4096 { "header" } else { "the entries " };
            assert!(detail.contains(expected), "byte {offset}: {error}");
            drop(storage);
            flip(path, offset);
            storage = open_at(scratch.path(), 2).unwrap();
        }
    }
    // Each chunk of the snapshot.
    let snapshot = scratch.path().join(SNAPSHOT);
    for offset in [0, SNAPSHOT_CHUNK_BYTES as u64 - 1, SNAPSHOT_CHUNK_BYTES as u64, 599_999] {
        flip(&snapshot, SNAPSHOT_HEADER_BYTES + offset);
        let error = pass(&mut storage).unwrap_err();
        let chunk = offset / SNAPSHOT_CHUNK_BYTES as u64 * SNAPSHOT_CHUNK_BYTES as u64;
        let StorageError::Damaged { file, offset: place, detail } = &error else { panic!("{error}") };
        assert_eq!((Path::new(file), *place), (snapshot.as_path(), SNAPSHOT_HEADER_BYTES + chunk));
        assert!(detail.contains("up to entry 30"), "{error}");
        drop(storage);
        flip(&snapshot, SNAPSHOT_HEADER_BYTES + offset);
        storage = open_at(scratch.path(), 2).unwrap();
    }
    // Either copy of the hard state.
    for offset in [72, 4096 + 72, 4096 + 112] {
        flip(&scratch.path().join("hard-state"), offset);
        let error = pass(&mut storage).unwrap_err();
        assert!(error.to_string().contains("one of the two copies"), "{error}");
        drop(storage);
        storage = open_at(scratch.path(), 3).unwrap();
        assert_eq!(storage.hard_state().vote, Some(NodeId(3)), "the start mends it");
        pass(&mut storage).unwrap();
    }
    // Nobody's bytes.
    let size = fs::metadata(&segments[0]).unwrap().len();
    flip(&segments[0], size - 1);
    pass(&mut storage).unwrap();
}

/// F26: what a pass has not reached yet is not reported; what it has behind it is found by the next one. Appends,
/// removals and syncs between its slices do not confuse it.
#[test]
fn a_pass_goes_on_beside_the_work() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    let mut rng = keva::util::rng::Rng::new(3);
    for round in 0..3000_u32 {
        match rng.range(0, 12) {
            0..=5 => append(&mut storage, 1, &vec![round as u8; rng.range(0, 900) as usize]).unwrap(),
            6 => storage.sync().unwrap(),
            7 if rng.range(0, 8) == 0 => {
                let kept = rng.range(storage.last_index().0 / 2, storage.last_index().0 + 1);
                storage.truncate_suffix(Index(kept)).unwrap();
            }
            _ => {
                let _ = storage.keep_house(rng.range(100, 20_000) as usize).unwrap();
            }
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut storage = open_at(scratch.path(), 1).unwrap();
    fill(&mut storage);
    pass(&mut storage).unwrap();
    // Restart the pass, let it get behind the first segment, then damage that.
    let oldest = segment_paths(scratch.path()).remove(0);
    for calls_before in 0..4 {
        for _ in 0..calls_before {
            let _ = storage.keep_house(9000).unwrap();
        }
        flip(&oldest, 4096 + 60);
        let error = pass(&mut storage).unwrap_err().to_string();
        assert!(error.contains(oldest.to_str().unwrap()), "{error}");
        drop(storage);
        flip(&oldest, 4096 + 60);
        storage = open_at(scratch.path(), 2).unwrap();
    }
}

fn verdict(disk: &SimDisk) -> CheckReport {
    let before: BTreeMap<_, _> =
        disk.names().into_iter().map(|name| (name.clone(), disk.bytes(&name))).collect();
    let operations = disk.operations();
    let report = check_files(&mut disk.directory(), true).unwrap();
    let after: BTreeMap<_, _> =
        disk.names().into_iter().map(|name| (name.clone(), disk.bytes(&name))).collect();
    assert!(before == after && disk.operations() == operations, "a check changes nothing");
    report
}

fn sample() -> SimDisk {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    fill(&mut storage);
    drop(storage);
    disk
}

fn assert_unsound(disk: &SimDisk, parts: &[&str]) {
    let report = verdict(disk);
    assert!(!report.is_sound(), "{report}");
    for part in parts {
        assert!(report.to_string().contains(part), "{part} is missing in:\n{report}");
    }
}

/// A sound directory, as a node leaves it in any way.
#[test]
fn sound_directories() {
    let disk = sample();
    let report = verdict(&disk);
    assert!(report.is_sound(), "{report}");
    let text = report.to_string();
    for part in [
        "node \"a\"",
        "members a, b, c",
        "term 4, vote for n3",
        ".log: entries ",
        "snap-00000000000000000030-00000000000000000001.snap: everything up to entry 30, 600000 bytes",
        " to 120, the last one of term 1",
        "60@1  command, 150 bytes",
        "SOUND: a node can be started on it",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let quiet = check_files(&mut disk.directory(), false).unwrap().to_string();
    assert!(quiet.len() < text.len() && !quiet.contains("60@1  command"), "{quiet}");
    // After a clean stop, and right after a first start.
    must_open(&disk, 2).close().unwrap();
    assert!(verdict(&disk).to_string().contains("last stop clean"));
    let disk = SimDisk::default();
    drop(must_open(&disk, 1));
    assert!(verdict(&disk).is_sound());
}

/// F4: a torn tail is no damage: nobody was promised what was in it. So after each power cut the verdict is that of a
/// start.
#[test]
fn torn_tails_are_sound() {
    let mut torn = 0;
    for crash_at in 0..40 {
        for mode in 0..4 {
            let disk = SimDisk::default();
            disk.tear_blocks();
            let mut storage = must_open(&disk, 1);
            set_term(&mut storage, 1);
            append_synced(&mut storage, 1, &[b"one"]);
            disk.set_faults(Faults { crash_at: Some(disk.operations() + crash_at), ..Faults::default() });
            let mut rng = keva::util::rng::Rng::new(crash_at * 8 + mode);
            for _ in 0..30 {
                let payload = vec![5; rng.range(0, 1500) as usize];
                if append(&mut storage, 1, &payload).and_then(|()| storage.sync()).is_err() {
                    break;
                }
            }
            drop(storage);
            disk.crash(&mut |outcomes| if mode == 0 { 0 } else { rng.range(0, outcomes as u64) as usize });
            let report = verdict(&disk);
            torn += usize::from(report.to_string().contains("torn tail"));
            assert!(report.is_sound(), "{report}");
            must_open(&disk, 2);
        }
    }
    assert!(torn > 5, "only {torn} torn tails");
}

/// F7, F18, F19: each kind of damage is found and named, and so is a second one in another file.
#[test]
fn unsound_directories() {
    let disk = sample();
    let names = segment_names(&disk);
    assert!(names.len() > 3, "{names:?}");
    let at = |name: &str| format!("problem: /sim/{name} is damaged at byte 4096: the entries ");
    disk.flip(&names[1], 4096 + 60, 1);
    assert_unsound(&disk, &[&at(&names[1]), "sets log and snapshots aside"]);
    disk.flip(&names[2], 4096 + 60, 1);
    assert_unsound(&disk, &[&at(&names[1]), &at(&names[2])]);

    let disk = sample();
    disk.flip(SNAPSHOT, 4096 + 300_000, 1);
    let chunk = "is damaged at byte 266240: the chunk from byte 262144";
    assert_unsound(&disk, &[&format!("problem: /sim/{SNAPSHOT} {chunk}")]);
    disk.flip(SNAPSHOT, 70, 1);
    assert_unsound(
        &disk,
        &[&format!("problem: /sim/{SNAPSHOT} is damaged at byte 0: the snapshot's header")],
    );

    let disk = sample();
    disk.flip("hard-state", 4096 + 72, 1);
    let report = verdict(&disk);
    let noted = report.to_string().contains("the second of the two copies is damaged");
    assert!(report.is_sound() && noted, "{report}");
    assert!(open(&disk.fork(), 2).is_ok());
    disk.flip("hard-state", 72, 1);
    assert_unsound(&disk, &["neither copy", "refuses to start"]);

    let disk = sample();
    disk.flip(&names[0], 20, 1);
    assert_unsound(&disk, &[&format!("{} is damaged at byte 0: the segment's header", names[0])]);

    let disk = sample();
    disk.delete(&names[1]);
    assert_unsound(&disk, &["cannot be read any more"]);

    let foreign = SimDisk::default();
    drop(must_open(&foreign, 77));
    let disk = sample();
    disk.put(&names[0], &foreign.bytes("seg-0000000001.log"));
    assert_unsound(&disk, &["belongs to an earlier working directory of this node", "refuses to start"]);

    let disk = sample();
    let text = String::from_utf8(disk.bytes("keva.id")).unwrap();
    disk.put("keva.id", text.replace("identity = \"a\"", "identity = \"b\"").as_bytes());
    assert_unsound(&disk, &["keva.id was changed: the node's number"]);
    disk.put("keva.id", b"nonsense");
    assert_unsound(&disk, &["keva.id cannot be read", "nobody knows whose files"]);
}

/// The verdict is that of a start, for a flipped bit in every byte.
#[test]
fn the_verdict_is_that_of_a_start() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[&[1; 976], &[2; 976], &[3; 976], b"four", b"five"]);
    storage.truncate_suffix(Index(4)).unwrap();
    append_synced(&mut storage, 1, &[b"new"]);
    drop(storage);
    disk.crash_losing_all();
    for name in disk.names() {
        for offset in (0..disk.bytes(&name).len()).step_by(7) {
            let copy = disk.fork();
            copy.flip(&name, offset, 1 << (offset % 8));
            let report = check_files(&mut copy.directory(), false).unwrap();
            let opened = open(&copy, 2);
            assert_eq!(report.is_sound(), opened.is_ok(), "{name} byte {offset}:\n{report}");
        }
    }
}

/// A directory that is in use, or that is none, is said to be so; a check leaves no trace.
#[test]
fn directories_that_are_not_checked() {
    let scratch = tempfile::tempdir().unwrap();
    let text = check(scratch.path(), false).unwrap_err().to_string();
    assert!(text.contains("holds no files of a node"), "{text}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "not even a lock file");
    let text = check(&scratch.path().join("missing"), false).unwrap_err().to_string();
    assert!(text.contains("cannot open") && text.contains("missing"), "{text}");
    let storage = open_at(scratch.path(), 1).unwrap();
    let text = check(scratch.path(), false).unwrap_err().to_string();
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
    drop(storage);
    let lock = fs::read(scratch.path().join("LOCK")).unwrap();
    let report = check(scratch.path(), true).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!(fs::read(scratch.path().join("LOCK")).unwrap(), lock);
}

const BUS_ERROR_FILE: &str = "KEVA_TEST_BUS_ERROR_FILE";

/// F13: a file that shrinks under its map ends the process with a line that says so.
#[test]
fn a_bus_error_is_reported() {
    if let Some(path) = std::env::var_os(BUS_ERROR_FILE) {
        watch_for_bus_errors().unwrap();
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let shrinks = file.try_clone().unwrap();
        let region = keva::storage::MappedFile::map(file).unwrap();
        shrinks.set_len(0).unwrap();
        std::hint::black_box(region.read(5000, 1)[0]);
        unreachable!("a byte that is not there was read");
    }
    let scratch = tempfile::NamedTempFile::new().unwrap();
    scratch.as_file().set_len(1 << 16).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_bus_error_is_reported", "--nocapture"])
        .env(BUS_ERROR_FILE, scratch.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("keva: a file in the working directory could not be read (SIGBUS)"), "{text}");
    assert_eq!(output.status.signal(), Some(6), "the process aborts");
}
