//! The storage on a real directory.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use keva::limits::{PAYLOAD_BYTES_MAX, SEGMENT_BYTES};
use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{Index, Term};
use keva::storage::{DataDir, Directory, LogStorage, Region, SpareProgress, StorageOptions};
use support::storage_fixture::{append, append_synced, contents, options, set_term};

fn open(path: &std::path::Path, seed: u64) -> LogStorage<DataDir> {
    LogStorage::open(DataDir::open(path).unwrap(), options(seed)).unwrap_or_else(|error| panic!("{error}")).0
}

#[test]
fn everything_is_there_after_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("made/on/demand");
    let mut storage = open(&path, 1);
    assert_eq!(storage.incarnation().0, 1);
    set_term(&mut storage, 1);
    for number in 0..100_u32 {
        append(&mut storage, 1, &vec![number as u8; 10 * number as usize]).unwrap();
        if number % 7 == 0 {
            storage.sync().unwrap();
        }
        while storage.prepare_spare(3000).unwrap() != SpareProgress::Ready {}
    }
    storage.truncate_suffix(Index(90)).unwrap();
    set_term(&mut storage, 2);
    append_synced(&mut storage, 2, &[b"new"]);
    let all = contents(&storage);
    assert_eq!(all.len(), 91);
    // The process ends without a clean stop; then with one.
    drop(storage);
    let storage = open(&path, 2);
    assert_eq!(
        (contents(&storage), storage.incarnation().0, storage.hard_state().term),
        (all.clone(), 2, Term(2))
    );
    storage.close().unwrap();
    let (storage, report) = LogStorage::open(DataDir::open(&path).unwrap(), options(3)).unwrap();
    assert!(report.clean, "{report}");
    assert_eq!(contents(&storage), all);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(path.join("hard-state")).unwrap().permissions().mode() & 0o777, 0o600);
}

/// F12: a file that is made longer or shorter keeps what is in it, and has all its space.
#[test]
fn a_file_changes_its_size() {
    use std::os::unix::fs::MetadataExt;
    let scratch = tempfile::tempdir().unwrap();
    let mut directory = DataDir::open(scratch.path()).unwrap();
    let mut region = directory.create("snapshot.tmp", 10_000).unwrap();
    region.write_at(0, &[7; 10_000]).unwrap();
    drop(region);
    for size in [3_000_000, 3_000_000, 1_000_000, 9_000, 12_000] {
        directory.resize("snapshot.tmp", size).unwrap();
        let mut region = directory.open_unread("snapshot.tmp").unwrap();
        assert_eq!(region.size(), size);
        assert!(region.read(0, 8_000).iter().all(|byte| *byte == 7), "{size}");
        assert!(region.read(size.min(10_000), size.saturating_sub(10_000)).iter().all(|byte| *byte == 0));
        let metadata = fs::metadata(scratch.path().join("snapshot.tmp")).unwrap();
        assert!(metadata.blocks() * 512 >= size as u64, "{size} bytes in {} blocks", metadata.blocks());
        assert!(
            metadata.blocks() * 512 < size as u64 + (1 << 20),
            "{size} bytes in {} blocks",
            metadata.blocks()
        );
        region.write_at(size - 1, &[0]).unwrap();
        region.reload(0, size).unwrap();
    }
    assert!(directory.resize("missing", 1).is_err());
}

/// F12: files have all their space from the start, at the size they keep.
#[test]
fn space_is_allocated() {
    use std::os::unix::fs::MetadataExt;
    let scratch = tempfile::tempdir().unwrap();
    let storage = LogStorage::open(
        DataDir::open(scratch.path()).unwrap(),
        StorageOptions { segment_bytes: SEGMENT_BYTES, ..options(1) },
    );
    let segment = fs::metadata(scratch.path().join("seg-0000000001.log")).unwrap();
    assert_eq!(segment.len(), SEGMENT_BYTES as u64);
    assert!(segment.blocks() * 512 >= SEGMENT_BYTES as u64, "only {} blocks", segment.blocks());
    drop(storage);
}

/// The largest entry fits in a segment of its own, between usual ones.
#[test]
fn the_largest_entry() {
    let scratch = tempfile::tempdir().unwrap();
    let mut storage = open(scratch.path(), 1);
    set_term(&mut storage, 1);
    let large = vec![0xab; PAYLOAD_BYTES_MAX];
    append_synced(&mut storage, 1, &[b"before", &large, b"after"]);
    drop(storage);
    let storage = open(scratch.path(), 2);
    assert_eq!(contents(&storage), [(1, b"before".to_vec()), (1, large), (1, b"after".to_vec())]);
}

/// F25: bytes that change under a running node are found by the read that meets them.
#[test]
fn a_read_checks_what_it_reads() {
    use std::os::unix::fs::FileExt;
    let scratch = tempfile::tempdir().unwrap();
    let mut storage = open(scratch.path(), 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[b"one", b"two"]);
    let file = fs::OpenOptions::new().write(true).open(scratch.path().join("seg-0000000001.log")).unwrap();
    file.write_all_at(b"x", 4096 + 64 + 48).unwrap();
    let first = storage.entry(Index(1)).unwrap().bytes().to_vec();
    let error = storage.entry(Index(2)).unwrap_err();
    assert!(matches!(&error, StorageError::Damaged { offset: 4160, .. }), "{error}");
    assert!(
        error.to_string().contains("entry 2 cannot be read: the entry's checksum does not match"),
        "{error}"
    );
    // An undamaged entry in the wrong place is as bad.
    file.write_all_at(&first, 4096 + 64 + 16).unwrap();
    let error = storage.entry(Index(2)).unwrap_err();
    assert!(error.to_string().contains("entry 2 was expected there, not 1@1"), "{error}");
}

/// F13: a second process is refused and told who has the directory; a number left behind blocks nobody, not even 1.
#[test]
fn the_lock() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    for stale in ["1", "4194304", "not a number", "", &std::process::id().to_string()] {
        fs::write(path.join("LOCK"), stale).unwrap();
        drop(DataDir::open(path).unwrap());
    }
    let holder = DataDir::open(path).unwrap();
    assert_eq!(fs::read_to_string(path.join("LOCK")).unwrap().trim(), std::process::id().to_string());
    let Err(StorageError::Refused(reason)) = DataDir::open(path) else { panic!("two holders") };
    assert!(reason.contains(&format!("in use by process {}", std::process::id())), "{reason}");
    // Another process sees the same lock.
    let lock = path.join("LOCK");
    let taken =
        || !Command::new("flock").arg("--nonblock").arg(&lock).arg("true").status().unwrap().success();
    assert!(taken());
    drop(holder);
    assert!(!taken());
    DataDir::open(path).unwrap();
}

/// What the system refuses is said with the path.
#[test]
fn a_directory_that_cannot_be_made() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let text = DataDir::open(&file.join("below")).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("cannot make the working directory") && text.contains("file/below"), "{text}");
}

/// F17: empty files and foreign files in the directory are no obstacle; files that are not whole are.
#[test]
fn other_files_are_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("README"), "mine").unwrap();
    fs::create_dir(scratch.path().join("lost+found")).unwrap();
    fs::write(scratch.path().join("spare.tmp"), "half").unwrap();
    drop(open(scratch.path(), 1));
    assert_eq!(fs::read_to_string(scratch.path().join("README")).unwrap(), "mine");
    fs::write(scratch.path().join("keva.id"), "").unwrap();
    let opened = LogStorage::open(DataDir::open(scratch.path()).unwrap(), options(2));
    assert!(
        matches!(opened, Err(StorageError::Refused(reason)) if reason.contains("keva.id cannot be read"))
    );
}
