//! Full disks: what would make the data grow is refused in time, what must go on goes on as long as the reserve lasts,
//! nothing is lost, and space that comes back is used.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::raft::storage::{Housekeeping, Purpose, Storage};
use keva::raft::types::{HardState, Index, NodeId, Term};
use keva::util::rng::Rng;
use support::sim_disk::{Faults, SimDisk};
use support::storage_fixture::{
    SMALL_SEGMENT_BYTES, SimStorage, append, contents, must_open, open, set_term,
};

/// Bytes of the entry around a payload.
const ENTRY_HEADER_BYTES: usize = 32;
/// Most bytes of records in a usual segment.
const ROOM: usize = SMALL_SEGMENT_BYTES - 4096;

/// Housekeeping until nothing is left that can be done at once.
fn keep_house(storage: &mut SimStorage) -> Housekeeping {
    loop {
        match storage.keep_house(5000).unwrap() {
            Housekeeping::More => {}
            other => return other,
        }
    }
}

fn has_spare(disk: &SimDisk) -> bool {
    disk.names().iter().any(|name| name.starts_with("spare") && disk.len_of(name) == SMALL_SEGMENT_BYTES)
}

/// Appends if there is room, durably, and says whether there was.
fn append_reserved(storage: &mut SimStorage, payload: &[u8], purpose: Purpose) -> bool {
    if !storage.reserve(ENTRY_HEADER_BYTES + payload.len(), purpose).unwrap() {
        return false;
    }
    append(storage, 1, payload).unwrap();
    storage.sync().unwrap();
    true
}

/// A storage on a disk with room for this many more segments, filled until growth is refused.
fn filled(segments: usize) -> (SimDisk, SimStorage, Vec<(u64, Vec<u8>)>) {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    disk.set_faults(Faults { free_bytes: Some(segments * SMALL_SEGMENT_BYTES), ..Faults::default() });
    let mut number = 0;
    while append_reserved(&mut storage, &[number; 900], Purpose::Growth) {
        number += 1;
        assert!(number < 200, "the disk never gets full");
    }
    assert!(storage.is_full());
    let all = contents(&storage);
    (disk, storage, all)
}

/// F14: growth stops while a whole segment is left; upkeep goes on until that is used up, and then is refused as well,
/// never an error. Nothing is lost, then and over a restart, and space that comes back is noticed.
#[test]
fn a_disk_that_gets_full() {
    for segments in 1..6 {
        let (disk, mut storage, mut all) = filled(segments);
        assert!(all.len() >= 4 * (segments - 1), "{} entries in {segments} segments", all.len());
        assert!(has_spare(&disk), "the reserve is there: {:?}", disk.names());
        let mut upkeep = 0;
        while append_reserved(&mut storage, &[0xee; 300], Purpose::Upkeep) {
            all.push((1, vec![0xee; 300]));
            upkeep += 1;
            assert!(upkeep < 100, "the reserve never ends");
        }
        assert!(upkeep >= ROOM / 400, "only {upkeep} entries fitted into the reserve");
        assert!(!has_spare(&disk), "nothing is left: {:?}", disk.names());
        assert_eq!((contents(&storage), storage.is_full()), (all.clone(), true));
        // The hard state has its place.
        let hard_state = HardState { term: Term(9), vote: Some(NodeId(2)), commit_index: Index(1) };
        storage.set_hard_state(hard_state).unwrap();
        storage.sync().unwrap();
        assert_eq!(keep_house(&mut storage), Housekeeping::Later);
        drop(storage);
        // The node starts again on the full disk, and refuses what it must.
        let mut storage = must_open(&disk, 2);
        assert_eq!((contents(&storage), storage.hard_state()), (all.clone(), hard_state));
        assert!(!storage.reserve(100, Purpose::Growth).unwrap() && storage.is_full());
        // Space comes back.
        disk.set_faults(Faults::default());
        keep_house(&mut storage);
        assert!(!storage.is_full() && has_spare(&disk));
        assert!(storage.reserve(100, Purpose::Growth).unwrap());
        append(&mut storage, 9, b"there is room again").unwrap();
        storage.sync().unwrap();
        assert_eq!(storage.last_index().0, all.len() as u64 + 1);
    }
}

/// F14: the reserve outlives a restart on the full disk, so that a suffix can be removed and a leader's first entry be
/// written.
#[test]
fn the_reserve_outlives_a_restart() {
    for power_cut in [false, true] {
        let (disk, mut storage, all) = filled(3);
        keep_house(&mut storage);
        drop(storage);
        if power_cut {
            disk.crash_losing_all();
        }
        disk.set_faults(Faults { free_bytes: Some(0), ..Faults::default() });
        let (mut storage, report) = open(&disk, 2).unwrap();
        assert_eq!(contents(&storage), all);
        assert!(!report.removed.iter().any(|name| name == "spare.tmp"), "{report}");
        assert!(storage.reserve(0, Purpose::Upkeep).unwrap(), "power cut: {power_cut}");
        let kept = storage.last_index().prev();
        storage.truncate_suffix(kept).unwrap();
        assert!(append_reserved(&mut storage, b"upkeep", Purpose::Upkeep));
        assert_eq!(storage.last_index(), kept.next());
        assert!(!storage.reserve(0, Purpose::Upkeep).unwrap(), "there was one segment, and it is used");
    }
}

/// F14: whatever the sizes and purposes, what was reserved can be appended; growth never takes the last segment.
#[test]
fn what_is_reserved_can_be_appended() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::default();
        let mut storage = must_open(&disk, seed);
        set_term(&mut storage, 1);
        let free = rng.range(0, 12 * SMALL_SEGMENT_BYTES as u64) as usize;
        disk.set_faults(Faults { free_bytes: Some(free), ..Faults::default() });
        let mut expected = 0;
        for step in 0..120 {
            let purpose = [Purpose::Growth, Purpose::Upkeep][rng.range(0, 2) as usize];
            let large = rng.range(0, 10) == 0;
            let count = if large { 1 } else { rng.range(1, 9) };
            let lens: Vec<usize> =
                (0..count).map(|_| rng.range(0, if large { 20_000 } else { 700 }) as usize).collect();
            let bytes = lens.iter().map(|len| ENTRY_HEADER_BYTES + len).sum();
            if storage.reserve(bytes, purpose).unwrap() {
                for len in &lens {
                    append(&mut storage, 1, &vec![7; *len]).unwrap_or_else(|error| {
                        panic!("seed {seed}, step {step}, {lens:?}, {purpose:?}: {error}")
                    });
                    expected += 1;
                }
                if purpose == Purpose::Growth && count == 1 {
                    assert!(has_spare(&disk), "seed {seed}, step {step}: {:?}", disk.names());
                }
            }
            if rng.range(0, 4) == 0 {
                storage.sync().unwrap();
            }
            if rng.range(0, 6) == 0 {
                storage.keep_house(3000).unwrap();
            }
            if rng.range(0, 9) == 0 && storage.reserve(0, Purpose::Upkeep).unwrap() {
                let kept = rng.range(0, expected + 1);
                storage.truncate_suffix(Index(kept)).unwrap();
                expected = kept;
            }
        }
        assert_eq!(contents(&storage).len() as u64, expected);
    }
}

/// A full disk is not asked again for every write that is refused.
#[test]
fn a_full_disk_is_asked_now_and_then() {
    let (disk, mut storage, _) = filled(3);
    let asked = disk.operations();
    for _ in 0..1000 {
        assert!(!storage.reserve(100, Purpose::Growth).unwrap());
    }
    let asked = disk.operations() - asked;
    assert!((9..=11).contains(&asked), "{asked} times in 1000 calls");
    disk.set_faults(Faults::default());
    let calls = (0..1000).take_while(|_| !storage.reserve(100, Purpose::Growth).unwrap()).count();
    assert!(calls <= 100, "space that is back was seen after {calls} calls");
}

/// A file that was made for a large entry which then did not come does not keep its space.
#[test]
fn an_unused_large_file_is_removed() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    assert!(storage.reserve(100_000, Purpose::Growth).unwrap());
    assert!(disk.names().contains(&"segment.tmp".to_string()));
    keep_house(&mut storage);
    assert!(!disk.names().contains(&"segment.tmp".to_string()));
}

/// A node that has nothing to do writes nothing and syncs nothing, however often it is asked.
#[test]
fn an_idle_node_writes_nothing() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    for number in 0..20 {
        append(&mut storage, 1, &[number; 900]).unwrap();
    }
    while storage.is_dirty() {
        storage.sync().unwrap();
    }
    keep_house(&mut storage);
    let (operations, bytes) = (disk.operations(), disk.bytes_written());
    for _ in 0..3000 {
        assert_ne!(storage.keep_house(1 << 20).unwrap(), Housekeeping::More);
    }
    assert_eq!((disk.operations(), disk.bytes_written(), storage.is_dirty()), (operations, bytes, false));
}
