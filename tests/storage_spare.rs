//! The file of the next segment: made bit by bit while the log grows, so that no turn makes it at once.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::limits::SNAPSHOT_CHUNK_BYTES;
use keva::raft::storage::{Housekeeping, Purpose, Storage};
use keva::raft::types::EntryId;
use keva::storage::{LogStorage, StorageOptions};
use support::sim_disk::{Faults, SimDisk};
use support::storage_fixture::{SimStorage, append, options, set_term, take_snapshot};

const SEGMENT_BYTES: usize = 128 << 10;
/// What a turn does not stop for.
const LITTLE_BYTES: usize = 4 << 10;
/// The most that a turn pays.
const MUCH_BYTES: usize = 16 << 10;

fn open_storage(disk: &SimDisk) -> SimStorage {
    let options = StorageOptions { segment_bytes: SEGMENT_BYTES, log_margin_bytes: 0, ..options(1) };
    let mut storage = LogStorage::open(disk.directory(), options).unwrap().0;
    set_term(&mut storage, 1);
    storage
}

/// A turn that has no time: what it appends, and what it owes at its end. Returns the bytes that were written for each.
fn busy_turn(disk: &SimDisk, storage: &mut SimStorage, payload: &[u8]) -> (u64, u64) {
    let start = disk.bytes_written();
    assert!(storage.reserve(payload.len(), Purpose::Growth).unwrap());
    append(storage, 1, payload).unwrap();
    storage.sync().unwrap();
    let appended = disk.bytes_written();
    let debt = storage.house_debt();
    if debt >= LITTLE_BYTES {
        let _ = storage.keep_house(debt.min(MUCH_BYTES)).unwrap();
    }
    (appended - start, disk.bytes_written() - appended)
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("seg-")).collect()
}

/// D17, F16: on a node that is never idle every segment is begun in a file that is prepared but for little, and no turn writes
/// more than its entries, a slice and a segment's header.
#[test]
fn no_busy_turn_makes_a_whole_file() {
    let disk = SimDisk::default();
    let mut storage = open_storage(&disk);
    let (mut prepared, mut begun, mut from_used, mut newest) = (0, 0, 0, segments(&disk).pop());
    for number in 0..600 {
        let payload = vec![7; [40, 900, 3_000, 9_000][number % 4]];
        let ready = prepared;
        let has_used = disk.names().iter().any(|name| name.starts_with("used-"));
        let (appended, paid) = busy_turn(&disk, &mut storage, &payload);
        prepared += paid;
        // The header is a block, and the hard state notes the new segment.
        let besides = appended - payload.len() as u64;
        assert!(besides <= 3 * 4096, "turn {number} wrote {besides} bytes besides its entries");
        assert!(paid <= MUCH_BYTES as u64, "turn {number} prepared {paid} bytes");
        if segments(&disk).pop() != newest {
            newest = segments(&disk).pop();
            begun += 1;
            from_used += usize::from(has_used);
            let needed = ((begun - from_used) * (SEGMENT_BYTES - LITTLE_BYTES)) as u64;
            assert!(
                ready >= needed,
                "{ready} bytes were ready for {begun} segments, {from_used} of them in former ones, not {needed}"
            );
        }
        if number % 100 == 99 {
            let index = storage.last_index();
            let last = EntryId::new(storage.term(index).unwrap(), index);
            let _ = take_snapshot(&mut storage, last, b"everything", false).unwrap();
        }
    }
    assert!(
        begun >= 14 && from_used > 0 && from_used < begun,
        "{begun} segments, {from_used} in former ones"
    );
}

/// F16: what is owed is soon paid, and then nothing is written any more; on a full disk nothing is owed.
#[test]
fn an_idle_storage_owes_nothing() {
    let disk = SimDisk::default();
    let mut storage = open_storage(&disk);
    append(&mut storage, 1, &[7; SEGMENT_BYTES / 4]).unwrap();
    storage.sync().unwrap();
    assert!(
        storage.house_debt() >= SEGMENT_BYTES / 2,
        "twice the log, which has {} bytes",
        SEGMENT_BYTES / 4
    );
    while storage.keep_house(SNAPSHOT_CHUNK_BYTES).unwrap() == Housekeeping::More {}
    assert_eq!(storage.house_debt(), 0);
    while storage.is_dirty() {
        storage.sync().unwrap();
    }
    let written = disk.bytes_written();
    for _ in 0..50 {
        assert_eq!(storage.keep_house(SNAPSHOT_CHUNK_BYTES).unwrap(), Housekeeping::Later);
    }
    assert_eq!((disk.bytes_written(), storage.house_debt()), (written, 0));

    disk.set_faults(Faults { free_bytes: Some(0), ..Faults::default() });
    append(&mut storage, 1, &[7; SEGMENT_BYTES - 8192]).unwrap();
    storage.sync().unwrap();
    assert!(storage.house_debt() > 0, "nobody has asked the disk yet");
    assert_eq!(storage.keep_house(SNAPSHOT_CHUNK_BYTES).unwrap(), Housekeeping::Later);
    assert!(storage.is_full());
    assert_eq!(storage.house_debt(), 0, "asking again and again makes no space");
}
