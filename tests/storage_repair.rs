//! What a node may promise: kept over every power cut, like its vote; and a damaged log is set aside without taking
//! back a vote, without a promise that the node can no longer keep, and without throwing anything away.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::raft::storage::{Housekeeping, Purpose, Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Incarnation, Index, NodeId, Standing, Term};
use keva::storage::{LogStorage, Membership, RecoveryReport, StorageOptions};
use keva::util::rng::Rng;
use support::sim_disk::{Faults, SimDisk};
use support::storage_fixture::{
    SMALL_SEGMENT_BYTES, SimStorage, append_synced, contents, membership, must_open, open, options, set_term,
    snapshot_contents, take_snapshot,
};

const FIRST: &str = "seg-0000000001.log";
const SECOND: &str = "seg-0000000002.log";
const VOTE: HardState = HardState { term: Term(5), vote: Some(NodeId(3)), commit_index: Index(0) };

fn repair(disk: &SimDisk, seed: u64) -> Result<(SimStorage, RecoveryReport), StorageError> {
    LogStorage::open(disk.directory(), StorageOptions { repair: true, ..options(seed) })
}

fn must_repair(disk: &SimDisk, seed: u64) -> SimStorage {
    repair(disk, seed).unwrap_or_else(|error| panic!("cannot open: {error}")).0
}

/// Two segments, a vote, and a voter.
fn sample() -> SimDisk {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    storage.set_standing(Standing::Voter).unwrap();
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[&[1; 976], &[2; 976], &[3; 976], &[4; 976]]);
    storage.set_hard_state(HardState { commit_index: Index(3), ..VOTE }).unwrap();
    append_synced(&mut storage, 5, &[b"five", b"six"]);
    while storage.is_dirty() {
        storage.sync().unwrap();
    }
    drop(storage);
    disk
}

fn damaged_sample() -> SimDisk {
    let disk = sample();
    disk.flip(FIRST, 4096 + 40, 1);
    disk
}

/// Brings the disk to each state that a power cut during `action` can leave, and shows it with what `action` returned.
fn cut_everywhere<T>(
    disk: &SimDisk,
    mut action: impl FnMut(&SimDisk) -> Result<T, StorageError>,
    mut check: impl FnMut(&SimDisk, Option<T>, &str),
) {
    let mut points = 0;
    loop {
        let mut finished = false;
        for (crash_after, mode) in
            [false, true].into_iter().flat_map(|after| (0..6).map(move |mode| (after, mode)))
        {
            let disk = disk.fork();
            let crash_at = Some(disk.operations() + points);
            disk.set_faults(Faults { crash_at, crash_after, ..Faults::default() });
            let result = action(&disk);
            assert!(disk.is_dead() || result.is_ok());
            finished = !disk.is_dead();
            let mut rng = Rng::new(points << 8 | mode);
            disk.crash(&mut |outcomes| match mode {
                0 => 0,
                1 => outcomes - 1,
                _ => rng.range(0, outcomes as u64) as usize,
            });
            let what = format!("operation {points}, carried out: {crash_after}, mode {mode}");
            check(&disk, result.ok(), &what);
        }
        if finished {
            break;
        }
        points += 1;
    }
    assert!(points > 2, "only {points} operations");
}

/// F21: a new directory in a cluster is a virgin's, in a cluster of one a voter's; so is one of an older Keva.
#[test]
fn what_a_new_directory_is() {
    let disk = SimDisk::default();
    assert_eq!(must_open(&disk, 1).standing(), Standing::Virgin);
    assert_eq!(must_open(&disk, 2).standing(), Standing::Virgin, "a restart changes nothing");
    let disk = SimDisk::default();
    let alone = Membership { members: vec!["a".into()], ..membership("a") };
    let alone = StorageOptions { membership: alone, ..options(1) };
    let (storage, _) = LogStorage::open(disk.directory(), alone).unwrap();
    assert_eq!(storage.standing(), Standing::Voter);
    // What older versions left as zeros.
    let disk = sample();
    let mut slots = disk.bytes("hard-state");
    for slot in [0, 4096] {
        slots[slot + 112..slot + 128].fill(0);
        let crc = crc32c::crc32c(&slots[slot + 12..slot + 512]);
        slots[slot + 8..slot + 12].copy_from_slice(&crc.to_le_bytes());
    }
    disk.put("hard-state", &slots);
    assert_eq!(must_open(&disk, 3).standing(), Standing::Voter);
}

/// A1, F18, F21: a change of the standing is whole or not there, never without what it came with, and there once it was
/// synced.
#[test]
fn a_standing_outlives_every_power_cut() {
    let disk = SimDisk::default();
    drop(must_open(&disk, 1));
    let mut outcomes = [0, 0];
    cut_everywhere(
        &disk,
        |disk| {
            let mut storage = open(disk, 2)?.0;
            storage.set_hard_state(VOTE)?;
            storage.set_standing(Standing::Voter)?;
            assert_eq!(storage.standing(), Standing::Voter, "what was written is seen");
            storage.sync()
        },
        |disk, done, what| {
            let storage = must_open(disk, 3);
            let changed = storage.standing() == Standing::Voter;
            outcomes[usize::from(changed)] += 1;
            assert!(changed || (storage.standing() == Standing::Virgin && done.is_none()), "{what}");
            let expected = if changed { VOTE } else { HardState::default() };
            assert_eq!(storage.hard_state(), expected, "{what}");
        },
    );
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

/// F21: a raised start counter is durable when the call returns; it never goes back, and nothing else changes.
#[test]
fn a_raised_incarnation_outlives_every_power_cut() {
    let disk = sample();
    cut_everywhere(
        &disk,
        |disk| {
            let mut storage = open(disk, 2)?.0;
            storage.raise_incarnation(Incarnation(50))?;
            Ok(storage.incarnation())
        },
        |disk, raised, what| {
            let storage = must_open(disk, 3);
            assert!(raised.is_none() || storage.incarnation() > Incarnation(50), "{what}");
            assert!(storage.incarnation() > Incarnation(1), "{what}");
            assert_eq!(storage.hard_state(), HardState { commit_index: Index(3), ..VOTE }, "{what}");
            assert_eq!(storage.standing(), Standing::Voter, "{what}");
        },
    );
    let mut storage = must_open(&disk, 4);
    storage.raise_incarnation(Incarnation(50)).unwrap();
    storage.raise_incarnation(Incarnation(7)).unwrap();
    assert_eq!(storage.incarnation(), Incarnation(50), "it is raised, not lowered");
}

/// F7, F21: a damaged log is set aside: vote and term stay, the log is empty, the node votes no more, and says why.
#[test]
fn a_damaged_log_is_set_aside() {
    let disk = damaged_sample();
    let (old_first, old_second) = (disk.bytes(FIRST), disk.bytes(SECOND));
    assert!(matches!(open(&disk, 2), Err(StorageError::Damaged { .. })), "a lone node refuses");
    let (mut storage, report) = repair(&disk, 3).unwrap();
    assert_eq!((storage.standing(), storage.hard_state()), (Standing::Recovering, VOTE));
    assert_eq!((storage.last_index(), storage.log_start().index), (Index(0), Index(0)));
    assert_eq!(disk.bytes("damaged-2-seg-0000000001.log"), old_first);
    assert_eq!(disk.bytes("damaged-2-seg-0000000002.log"), old_second);
    let text = report.to_string();
    for part in [
        "/sim/seg-0000000001.log is damaged at byte 4096: the entries 1 to 4 cannot be read any more",
        "2 files",
        "damaged-2-",
        "from the other nodes",
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    assert!(!text.contains("put the undamaged file back"), "{text}");
    // It goes on like any other.
    append_synced(&mut storage, 5, &[b"one", b"two"]);
    drop(storage);
    let (mut storage, report) = repair(&disk, 4).unwrap();
    assert_eq!((storage.standing(), contents(&storage).len()), (Standing::Recovering, 2));
    assert!(report.set_aside.is_none(), "{report}");
    // Once it is a voter, nobody needs the old files.
    storage.keep_house(1 << 20).unwrap();
    assert!(disk.names().iter().any(|name| name.starts_with("damaged")));
    storage.set_standing(Standing::Voter).unwrap();
    storage.keep_house(1 << 20).unwrap();
    assert!(disk.names().iter().any(|name| name.starts_with("damaged")), "not before that is durable");
    storage.sync().unwrap();
    while storage.keep_house(1 << 20).unwrap() == Housekeeping::More {}
    assert!(!disk.names().iter().any(|name| name.starts_with("damaged")), "{:?}", disk.names());
    assert_eq!(must_repair(&disk, 5).standing(), Standing::Voter);
}

/// The standing in each copy of the hard state.
fn standings_on_disk(disk: &SimDisk) -> Vec<u8> {
    let bytes = disk.bytes("hard-state");
    [0, 4096].into_iter().map(|slot| bytes[slot + 112]).collect()
}

/// F7, F17, F21: a power cut at any point of it. Before the standing is durable nothing is moved; afterwards each start
/// goes on, to the same end; no file of the log is lost, and no vote.
#[test]
fn setting_aside_outlives_every_power_cut() {
    let disk = damaged_sample();
    let originals = [disk.bytes(FIRST), disk.bytes(SECOND)];
    let mut moved_partly = 0;
    cut_everywhere(
        &disk,
        |disk| repair(disk, 2).map(drop),
        |disk, _, what| {
            let moved = disk.names().iter().filter(|name| name.starts_with("damaged")).count();
            let kept = originals
                .iter()
                .all(|original| disk.names().iter().any(|name| disk.bytes(name) == *original));
            assert!(kept, "{what}: a file is gone");
            assert!(moved == 0 || standings_on_disk(disk).contains(&2), "{what}: moved before the standing");
            moved_partly += u64::from(moved == 1);
            let rounds = [0, 1, 2, 5, 9];
            for crash_at in rounds {
                let disk = disk.fork();
                disk.set_faults(Faults { crash_at: Some(disk.operations() + crash_at), ..Faults::default() });
                let _ = repair(&disk, 3);
                disk.crash(&mut |outcomes| outcomes - 1);
                let mut storage = must_repair(&disk, 4);
                assert_eq!(
                    (storage.standing(), storage.hard_state()),
                    (Standing::Recovering, VOTE),
                    "{what}"
                );
                assert_eq!(storage.last_index(), Index(0), "{what}");
                let kept = originals
                    .iter()
                    .all(|original| disk.names().iter().any(|name| disk.bytes(name) == *original));
                assert!(kept, "{what}: a file is gone");
                append_synced(&mut storage, 5, &[b"one"]);
                drop(storage);
                disk.crash_losing_all();
                assert_eq!(contents(&must_repair(&disk, 5)), [(5, b"one".to_vec())], "{what}");
            }
        },
    );
    assert!(moved_partly > 0, "no cut came between two files");
}

/// The second damage replaces the first one's files; there is one set at most.
#[test]
fn one_set_of_damaged_files_at_most() {
    let disk = damaged_sample();
    let mut storage = must_repair(&disk, 2);
    append_synced(&mut storage, 5, &[b"one", b"two"]);
    storage.set_hard_state(HardState { commit_index: Index(2), ..VOTE }).unwrap();
    storage.sync().unwrap();
    drop(storage);
    let newest = disk.names().into_iter().rfind(|name| name.starts_with("seg-")).unwrap();
    assert_eq!(newest, "seg-0000000003.log", "a number is never used twice");
    disk.flip(&newest, 4096 + 40, 1);
    let (storage, report) = repair(&disk, 3).unwrap();
    assert_eq!((storage.last_index(), report.set_aside.unwrap().files), (Index(0), 1));
    let damaged: Vec<_> = disk.names().into_iter().filter(|name| name.starts_with("damaged")).collect();
    assert_eq!(damaged, ["damaged-3-seg-0000000003.log"]);
}

/// F13: a sector of the log that the disk cannot read is lost like any other.
#[test]
fn an_unreadable_sector() {
    for name in [FIRST, SECOND] {
        let disk = sample();
        disk.make_unreadable(name, 5120);
        let text = open(&disk, 2).map(drop).unwrap_err().to_string();
        assert!(text.contains(&format!("/sim/{name} is damaged at byte 5120")), "{text}");
        let storage = must_repair(&disk, 3);
        assert_eq!((storage.standing(), storage.hard_state()), (Standing::Recovering, VOTE));
        drop(storage);
        assert_eq!(must_repair(&disk, 4).last_index(), Index(0), "the unreadable file is in nobody's way");
    }
}

/// F7: files that are missing are lost too, one of them or all.
#[test]
fn missing_segments() {
    for names in [&[FIRST][..], &[SECOND], &[FIRST, SECOND]] {
        let disk = sample();
        names.iter().for_each(|name| disk.delete(name));
        assert!(open(&disk, 2).is_err(), "{names:?}");
        let (storage, report) = repair(&disk, 3).unwrap_or_else(|error| panic!("{names:?}: {error}"));
        assert_eq!((storage.standing(), storage.hard_state()), (Standing::Recovering, VOTE), "{names:?}");
        assert!(report.set_aside.is_some() && storage.last_index() == Index(0));
        assert!(!disk.names().contains(&FIRST.to_string()), "a number is never used twice");
    }
}

/// F18, F19, F20: what only an operator can mend is still refused: a lost vote, a lost identity, foreign files.
#[test]
fn what_is_not_repaired() {
    let refuses = |change: &dyn Fn(&SimDisk), expected: &str| {
        let disk = damaged_sample();
        change(&disk);
        let before = disk.names();
        let text = repair(&disk, 2).map(drop).unwrap_err().to_string();
        assert!(text.contains(expected), "{expected} is missing in: {text}");
        assert_eq!(disk.names(), before, "nothing is touched");
    };
    refuses(
        &|disk| [70, 4096 + 70].into_iter().for_each(|offset| disk.flip("hard-state", offset, 1)),
        "neither copy",
    );
    refuses(&|disk| disk.delete("hard-state"), "no hard-state");
    refuses(&|disk| disk.delete("keva.id"), "no keva.id");
    refuses(&|disk| disk.put("keva.id", b"nonsense"), "cannot be read");
    refuses(
        &|disk| {
            let foreign = SimDisk::default();
            drop(LogStorage::open(foreign.directory(), options(7)).unwrap());
            disk.put(FIRST, &foreign.bytes(FIRST));
        },
        "an earlier working directory",
    );
}

/// F21: a node that nobody has admitted yet stays one whose votes may be forgotten, whatever else it loses.
#[test]
fn a_damaged_virgin() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[b"one", b"two"]);
    storage.set_hard_state(HardState { commit_index: Index(2), ..VOTE }).unwrap();
    storage.sync().unwrap();
    drop(storage);
    disk.flip(FIRST, 4096 + 40, 1);
    let storage = must_repair(&disk, 2);
    assert_eq!((storage.standing(), storage.hard_state()), (Standing::Virgin, VOTE));
}

/// D5, F7: a damaged snapshot that the log does not make up for goes with the log, and comes back from a leader.
#[test]
fn a_damaged_snapshot_is_set_aside() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    storage.set_standing(Standing::Voter).unwrap();
    set_term(&mut storage, 1);
    for number in 0..20 {
        append_synced(&mut storage, 1, &[&[number; 976]]);
    }
    let last = EntryId::new(Term(1), Index(18));
    take_snapshot(&mut storage, last, &[7; 3000], false).unwrap();
    storage.set_hard_state(VOTE).unwrap();
    storage.sync().unwrap();
    assert!(storage.log_start().index > Index(5), "the log does not reach back to the beginning");
    drop(storage);
    let name = "snap-00000000000000000018-00000000000000000001.snap";
    disk.flip(name, 4096 + 100, 1);
    let damaged = disk.bytes(name);
    assert!(matches!(open(&disk, 2), Err(StorageError::Damaged { .. })), "a lone node refuses");
    let (mut storage, report) = repair(&disk, 3).unwrap();
    assert_eq!((storage.standing(), storage.hard_state()), (Standing::Recovering, VOTE));
    assert_eq!((storage.snapshot(), storage.last_index()), (None, Index(0)));
    assert!(
        report.to_string().contains(&format!("/sim/{name} is damaged at byte 4096: the chunk")),
        "{report}"
    );
    assert_eq!(disk.bytes(&format!("damaged-2-{name}")), damaged);
    // A leader sends the very same snapshot.
    take_snapshot(&mut storage, last, &[7; 3000], true).unwrap();
    drop(storage);
    let storage = must_repair(&disk, 4);
    assert_eq!(snapshot_contents(&storage), Some((last, vec![7; 3000])));
    assert_eq!(storage.standing(), Standing::Recovering, "only the other nodes can say that this is all");
}

/// F14: what was set aside gives its space to what the other nodes send, when the disk has no other.
#[test]
fn a_repair_on_a_full_disk() {
    let full = |disk: &SimDisk| {
        disk.set_faults(Faults { free_bytes: Some(SMALL_SEGMENT_BYTES), ..Faults::default() });
        let storage = must_repair(disk, 2);
        let kept = disk.names().iter().filter(|name| name.starts_with("damaged")).count();
        assert_eq!(kept, 2, "the new log's first segment took all the space");
        storage
    };
    let disk = damaged_sample();
    let mut storage = full(&disk);
    for number in 0..5_u8 {
        assert!(storage.reserve(1500, Purpose::Upkeep).unwrap(), "entry {number}");
        append_synced(&mut storage, 5, &[&vec![number; 1400]]);
    }
    assert_eq!(storage.standing(), Standing::Recovering);
    assert!(!disk.names().iter().any(|name| name.starts_with("damaged")), "{:?}", disk.names());
    let disk = damaged_sample();
    let mut storage = full(&disk);
    let last = EntryId::new(Term(5), Index(40));
    take_snapshot(&mut storage, last, &[7; 3000], true).unwrap();
    assert_eq!(snapshot_contents(&storage), Some((last, vec![7; 3000])));
}

/// F14: a full disk is no obstacle when the node holds files of former segments: the new log begins in one of them.
#[test]
fn a_repair_on_a_full_disk_uses_a_former_segment() {
    let disk = SimDisk::default();
    let mut storage = must_repair(&disk, 1);
    storage.set_standing(Standing::Voter).unwrap();
    set_term(&mut storage, 1);
    for number in 1..=14 {
        append_synced(&mut storage, 1, &[&[number; 970]]);
    }
    take_snapshot(&mut storage, EntryId::new(Term(1), Index(13)), b"thirteen", false).unwrap();
    drop(storage);
    let names = disk.names();
    let newest = names.iter().rfind(|name| name.starts_with("seg-")).unwrap();
    assert!(names.iter().any(|name| name.starts_with("used-")) && !names.contains(&"spare.tmp".into()));
    disk.flip(newest, 4096 + 40, 1);
    cut_everywhere(
        &disk,
        |disk| {
            disk.update_faults(|faults| faults.free_bytes = Some(0));
            repair(disk, 2)
        },
        |disk, started, what| {
            if let Some((storage, report)) = &started {
                assert!(report.set_aside.is_some() && contents(storage).is_empty(), "{what}: {report}");
                assert!(disk.names().iter().any(|name| name.starts_with("damaged")));
            }
            drop(started);
            disk.set_faults(Faults { free_bytes: Some(0), ..Faults::default() });
            let mut storage = must_repair(disk, 3);
            assert_eq!(storage.standing(), Standing::Recovering, "{what}");
            assert!(contents(&storage).is_empty(), "{what}");
            append_synced(&mut storage, 1, &[b"given back"]);
            drop(storage);
            disk.crash_losing_all();
            assert_eq!(contents(&must_repair(disk, 4)), [(1, b"given back".to_vec())], "{what}");
        },
    );
}
