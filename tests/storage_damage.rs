//! Disks that lose or change what they were given, files in the wrong place, and files of a newer Keva: every one is
//! reported or harmless, and nothing that was durable is ever cut away in silence.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Index, NodeId, Term};
use keva::storage::{LogStorage, StorageOptions};
use keva::util::rng::Rng;
use support::sim_disk::{Faults, SimDisk};
use support::storage_fixture::{
    append, append_synced, contents, entry_bytes, membership, must_open, open, options, set_term,
};

const FIRST: &str = "seg-0000000001.log";
const SECOND: &str = "seg-0000000002.log";
const VOTE: HardState = HardState { term: Term(5), vote: Some(NodeId(3)), commit_index: Index(0) };
const ENTRIES: usize = 11;
/// Entries that something on the disk says to be durable, when the last stop was no clean one.
const KNOWN_DURABLE: usize = 9;

/// Two segments with entries of several terms; the last two entries are one batch, behind which nothing was written.
fn sample(clean: bool) -> (SimDisk, Vec<(u64, Vec<u8>)>) {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[&[1; 976], &[0; 976], &[3; 976]]);
    set_term(&mut storage, 2);
    append_synced(&mut storage, 2, &[&[4; 976], b"five"]);
    append_synced(&mut storage, 2, &[b"", b"seven"]);
    storage.set_hard_state(VOTE).unwrap();
    append_synced(&mut storage, 5, &[b"eight", &[0; 600]]);
    append_synced(&mut storage, 5, &[b"ten", b"eleven"]);
    let all = contents(&storage);
    assert_eq!(all.len(), ENTRIES);
    if clean {
        storage.close().unwrap();
    } else {
        drop(storage);
        disk.crash(&mut |outcomes| outcomes - 1);
    }
    assert_eq!(disk.names(), ["hard-state", "keva.id", FIRST, SECOND]);
    (disk, all)
}

fn refused(disk: &SimDisk) -> String {
    match open(disk, 9) {
        Err(StorageError::Refused(reason)) => reason,
        Err(other) => panic!("expected a refusal, not: {other}"),
        Ok(_) => panic!("expected a refusal"),
    }
}

fn damaged(disk: &SimDisk) -> (String, u64, String) {
    match open(disk, 9) {
        Err(StorageError::Damaged { file, offset, detail }) => (file, offset, detail),
        Err(other) => panic!("expected damage, not: {other}"),
        Ok(_) => panic!("expected damage"),
    }
}

/// Opens a damaged copy: it is either reported, or shows the whole log, or has lost entries of which nothing says that
/// they were durable. Returns whether it was opened, and with how many entries.
/// `wiped` says that the damage is zeros, which look like an end that was never written.
fn check_damaged(
    disk: &SimDisk,
    all: &[(u64, Vec<u8>)],
    least: usize,
    wiped: bool,
    what: &str,
) -> Option<usize> {
    match open(disk, 9) {
        Ok((storage, report)) => {
            let left = contents(&storage);
            assert!(all.starts_with(&left), "{what}: entries were changed");
            assert!(left.len() >= least, "{what}: {} entries are left", left.len());
            let cut = report.torn.is_some() || wiped;
            assert!(cut || left.len() == all.len(), "{what}: every cut is reported");
            let HardState { term, vote, .. } = storage.hard_state();
            assert_eq!((term, vote), (VOTE.term, VOTE.vote), "{what}: the vote is changed");
            Some(left.len())
        }
        Err(StorageError::Io { action, source }) => panic!("{what}: {action}: {source}"),
        Err(_) => None,
    }
}

/// F6, F7, F18, F24: one flipped bit in each byte of each file.
#[test]
fn a_flipped_bit_in_every_byte() {
    for clean in [false, true] {
        let (disk, all) = sample(clean);
        let least = if clean { ENTRIES } else { KNOWN_DURABLE };
        let (mut reported, mut harmless, mut cut) = (0, 0, 0);
        for name in disk.names() {
            for offset in 0..disk.bytes(&name).len() {
                let copy = disk.fork();
                copy.flip(&name, offset, 1 << (offset % 8));
                let outcome = check_damaged(&copy, &all, least, false, &format!("{name} byte {offset}"));
                match outcome {
                    None => reported += 1,
                    Some(left) if left == all.len() => harmless += 1,
                    Some(_) => cut += 1,
                }
                assert!(name != "hard-state" || outcome == Some(ENTRIES), "one bad slot is used by no one");
            }
        }
        assert!(reported > 4000 && harmless > 8000, "{reported} reported, {harmless} harmless, {cut} cut");
        assert_eq!(cut > 0, !clean, "only the last batch of an unclean stop looks like a torn tail");
    }
}

/// F6, F7: runs of garbage and of zeros, everywhere.
#[test]
fn runs_of_garbage() {
    let (disk, all) = sample(false);
    let whole = disk.bytes(SECOND);
    assert_eq!(whole[4992 + 48..][..3], *b"ten");
    let mut rng = Rng::new(5);
    for round in 0..4000 {
        let copy = disk.fork();
        let name = [FIRST, SECOND][rng.range(0, 2) as usize];
        let mut bytes = copy.bytes(name);
        let start = rng.range(0, 6000) as usize;
        let len = rng.range(1, 600) as usize;
        let kind = rng.range(0, 3);
        for byte in &mut bytes[start..start + len] {
            *byte = if kind == 0 { 0 } else { rng.next_u64() as u8 };
        }
        copy.put(name, &bytes);
        // The last two records are the only ones that know of the entries 8 and 9; the hard state knows of 7.
        let known = [4992..5056, 5056..5118].into_iter().any(|record| bytes[record.clone()] == whole[record]);
        let least = if name == FIRST || known { KNOWN_DURABLE } else { 7 };
        let what = format!("round {round}: {len} bytes at {start} of {name}");
        check_damaged(&copy, &all, least, kind == 0, &what);
    }
}

/// F6, F7: files that are shorter or longer than they were.
#[test]
fn files_of_another_size() {
    let (disk, _) = sample(false);
    for name in disk.names() {
        let whole = disk.bytes(&name);
        for len in (0..whole.len()).step_by(97).chain([whole.len() + 512]) {
            let copy = disk.fork();
            let mut bytes = whole.clone();
            bytes.resize(len, 0);
            copy.put(&name, &bytes);
            let opened = open(&copy, 9);
            assert!(len == whole.len() || opened.is_err(), "{name} with {len} of {} bytes", whole.len());
        }
    }
}

/// F7: what the message says: file, place, entries.
#[test]
fn damage_is_described() {
    let (disk, all) = sample(false);
    let second = disk.bytes(SECOND);
    let place = second.windows(5).position(|bytes| bytes == b"seven").unwrap();
    disk.flip(SECOND, place, 1);
    let before = disk.bytes(SECOND);
    let (file, offset, detail) = damaged(&disk);
    assert_eq!((file.as_str(), offset), ("/sim/seg-0000000002.log", place as u64 - 48));
    assert!(detail.contains("the entries 7 to 9 cannot be read"), "{detail}");
    assert_eq!(disk.bytes(SECOND), before, "nothing is changed on the disk");
    assert_eq!(all[6].1, b"seven");
    // In a segment that has a successor, the successor says what is missing.
    let (disk, _) = sample(false);
    disk.flip(FIRST, 4096 + 40, 1);
    let (file, offset, detail) = damaged(&disk);
    assert_eq!((file.as_str(), offset), ("/sim/seg-0000000001.log", 4096));
    assert!(detail.starts_with("the entries 1 to 4 cannot be read"), "{detail}");
}

/// F7: what the hard state knows to be durable is no torn tail, though no later record says so.
#[test]
fn the_hard_state_is_a_durable_mark() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[b"one", b"two"]);
    storage.set_hard_state(HardState { term: Term(1), vote: None, commit_index: Index(2) }).unwrap();
    storage.sync().unwrap();
    drop(storage);
    disk.flip(FIRST, 4096 + 64 + 48, 1);
    assert!(damaged(&disk).2.contains("the entries 2 to 2"));
}

/// F18: both slots bad: no start, instead of term 0 and no vote.
#[test]
fn both_slots_bad() {
    let (disk, _) = sample(false);
    disk.flip("hard-state", 70, 1);
    disk.flip("hard-state", 4096 + 70, 1);
    assert!(damaged(&disk).2.contains("neither copy"));
}

/// F18, F22: an older copy of the hard state is not believed when the log knows a newer term.
#[test]
fn an_older_hard_state_put_back() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[b"one"]);
    let old = disk.bytes("hard-state");
    set_term(&mut storage, 2);
    append_synced(&mut storage, 2, &[b"two"]);
    drop(storage);
    disk.put("hard-state", &old);
    assert!(damaged(&disk).2.contains("it knows term 1, but the log has an entry of term 2"));
}

/// F19, F20: segments of another node, of another cluster, of an earlier life of this node, or in each other's place.
#[test]
fn segments_in_the_wrong_place() {
    let other_node = StorageOptions { membership: membership("b"), ..options(2) };
    let mut renamed = membership("a");
    renamed.cluster_name = Some("other".into());
    let other_cluster = StorageOptions { membership: renamed, ..options(3) };
    for (options, expected) in
        [(other_node, "node"), (other_cluster, "cluster"), (options(4), "an earlier working")]
    {
        let foreign = SimDisk::default();
        drop(LogStorage::open(foreign.directory(), options).unwrap());
        for name in [FIRST, "hard-state"] {
            let (disk, _) = sample(false);
            disk.put(name, &foreign.bytes(name));
            let reason = refused(&disk);
            assert!(reason.contains(&format!("{name} belongs to {expected}")), "{reason}");
        }
    }
    let (disk, _) = sample(false);
    let (first, second) = (disk.bytes(FIRST), disk.bytes(SECOND));
    disk.put(FIRST, &second);
    disk.put(SECOND, &first);
    assert!(refused(&disk).contains("under a wrong name"));
    // F11: a block that the disk has put in the wrong place is damage, which other nodes can make good.
    let (disk, _) = sample(false);
    let mut misdirected = first.clone();
    misdirected[..4096].copy_from_slice(&second[..4096]);
    disk.put(FIRST, &misdirected);
    let Err(error) = LogStorage::open(disk.directory(), options(3)) else { panic!("it is damaged") };
    assert!(error.to_string().contains("the header of segment 2"), "{error}");
    assert!(matches!(error, StorageError::Damaged { .. }));
    let (disk, _) = sample(false);
    disk.put("seg-0000000002 (copy).log", &second);
    assert!(refused(&disk).contains("not a name that Keva gives"));
}

/// F7, F17, D4: each file that can be missing, is missed.
#[test]
fn missing_files() {
    let without = |name: &str| {
        let (disk, _) = sample(false);
        drop(must_open(&disk, 2));
        disk.delete(name);
        disk
    };
    assert!(refused(&without("keva.id")).contains("no keva.id"));
    assert!(refused(&without("hard-state")).contains("no hard-state"));
    assert!(damaged(&without(FIRST)).2.contains("the log begins with entry 5"));
    let (file, _, detail) = damaged(&without(SECOND));
    assert!(file.ends_with(SECOND) && detail.contains("the file is missing"), "{file}: {detail}");
    let disk = without(SECOND);
    disk.delete(FIRST);
    assert!(damaged(&disk).2.contains("no segment of the log"));
    disk.delete("hard-state");
    disk.delete("keva.id");
    assert!(open(&disk, 3).unwrap().1.first_start, "nothing is left, so this is a first start");
}

/// F7: the newest segment is missed too, however long ago the term changed.
#[test]
fn the_newest_segment_is_missed() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    for number in 0..6 {
        append_synced(&mut storage, 1, &[&[number; 3000]]);
    }
    drop(storage);
    let newest = disk.names().pop().expect("there are files");
    assert_eq!(newest, "seg-0000000006.log");
    disk.delete(&newest);
    let (file, _, detail) = damaged(&disk);
    assert!(file.ends_with(&newest) && detail.contains("the file is missing"), "{file}: {detail}");
}

/// A middle segment that is gone leaves a gap.
#[test]
fn a_gap_in_the_log() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    for _ in 0..4 {
        append_synced(&mut storage, 1, &[&[1; 3000]]);
    }
    drop(storage);
    disk.delete(SECOND);
    assert!(damaged(&disk).2.contains("the entries 2 to 2 cannot be read"));
}

/// F10: removed entries stay removed, also when a file that held only removed ones comes back.
#[test]
fn a_void_segment_that_comes_back() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[&[1; 3000], &[2; 3000], &[3; 3000]]);
    let void = disk.bytes(SECOND);
    storage.truncate_suffix(Index(1)).unwrap();
    set_term(&mut storage, 2);
    append_synced(&mut storage, 2, &[b"new"]);
    drop(storage);
    assert_eq!(disk.names().len(), 4, "what held only removed entries is gone: {:?}", disk.names());
    disk.put(SECOND, &void);
    let (storage, report) = open(&disk, 2).unwrap();
    assert_eq!(contents(&storage), [(1, vec![1; 3000]), (2, b"new".to_vec())]);
    assert_eq!(report.removed, [SECOND]);
    assert!(!disk.names().contains(&SECOND.to_string()));
}

/// F4, F10: when the disk lost the write that cleared a torn tail, the old records there still do not come back: the
/// chain tells them from the new ones, in the same segment and from one to the next.
#[test]
fn old_records_that_a_lost_write_brings_back() {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[&[1; 1000]]);
    for payload in [[2; 1000], [3; 1000]] {
        append(&mut storage, 1, &payload).unwrap();
    }
    disk.set_faults(Faults { crash_at: Some(disk.operations() + 1), ..Faults::default() });
    assert!(storage.sync().is_err());
    drop(storage);
    // The torn batch: entry 2 is damaged, entry 3 is whole.
    disk.crash(&mut |outcomes| outcomes - 1);
    let old = disk.bytes(FIRST);
    disk.flip(FIRST, 4096 + 1056 + 100, 1);
    let mut storage = must_open(&disk, 2);
    assert_eq!(storage.last_index(), Index(1));
    append_synced(&mut storage, 1, &[&[9; 1000]]);
    let mut bytes = disk.bytes(FIRST);
    let third = 4096 + 2 * 1056;
    bytes[third..].copy_from_slice(&old[third..]);
    let lost = disk.fork();
    lost.put(FIRST, &bytes);
    assert_eq!(contents(&must_open(&lost, 3)), [(1, vec![1; 1000]), (1, vec![9; 1000])]);
    // The next segment is chained to the new records; the old file in place of the new one does not fit.
    append_synced(&mut storage, 1, &[&[4; 1000], &[5; 1000]]);
    assert!(disk.names().contains(&SECOND.to_string()));
    drop(storage);
    let mut bytes = disk.bytes(FIRST);
    bytes[4096 + 1056..third + 1056].copy_from_slice(&old[4096 + 1056..third + 1056]);
    disk.put(FIRST, &bytes);
    assert!(damaged(&disk).2.contains("it does not continue seg-0000000001.log"));
}

fn restamp(block: &mut [u8]) {
    let crc = crc32c::crc32c(&block[12..]);
    block[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// Rule 4.2.7: files of a newer format are refused with both versions, never cut or overwritten.
#[test]
fn files_of_a_newer_keva() {
    let (disk, _) = sample(false);
    let mut segment = disk.bytes(SECOND);
    segment[14..16].copy_from_slice(&7_u16.to_le_bytes());
    restamp(&mut segment[..4096]);
    disk.put(SECOND, &segment);
    assert!(refused(&disk).contains("has format version 7; this Keva reads up to 1"));

    let (disk, _) = sample(false);
    let mut hard_state = disk.bytes("hard-state");
    for slot in [0, 4096] {
        hard_state[slot + 14..slot + 16].copy_from_slice(&7_u16.to_le_bytes());
        restamp(&mut hard_state[slot..slot + 512]);
    }
    disk.put("hard-state", &hard_state);
    assert!(refused(&disk).contains("has format version 7"));

    let (disk, _) = sample(false);
    let text = String::from_utf8(disk.bytes("keva.id")).unwrap();
    let newer = text.replace("format_version = 1", "format_version = 2\nsomething_new = 3");
    disk.put("keva.id", newer.as_bytes());
    assert!(refused(&disk).contains("has format version 2; this Keva reads up to 1"));
}

/// An undamaged entry of an unknown kind is a newer Keva's, not a torn tail.
#[test]
fn an_entry_of_a_newer_keva() {
    let (disk, _) = sample(false);
    let mut segment = disk.bytes(SECOND);
    let place = segment.windows(6).position(|bytes| bytes == b"eleven").unwrap() - 48;
    let mut entry = entry_bytes(11, 5, b"eleven");
    entry[24] = 9;
    let crc = crc32c::crc32c(&entry[4..]);
    entry[..4].copy_from_slice(&crc.to_le_bytes());
    segment[place + 16..place + 16 + entry.len()].copy_from_slice(&entry);
    let covered = [&segment[88..96], &(place as u64).to_le_bytes(), &segment[place + 4..place + 48]].concat();
    segment[place..place + 4].copy_from_slice(&crc32c::crc32c(&covered).to_le_bytes());
    disk.put(SECOND, &segment);
    assert!(refused(&disk).contains("only a newer Keva can read"));
}

/// F19: each difference between keva.id and the configuration is refused and named; a different order is none.
#[test]
fn another_configuration() {
    let named = |name: &str| {
        let mut membership = membership("a");
        membership.cluster_name = Some(name.into());
        membership
    };
    let disk = SimDisk::default();
    let with = |membership| LogStorage::open(disk.directory(), StorageOptions { membership, ..options(1) });
    let cluster_id = with(named("home")).unwrap().0.cluster_id();
    let mut reordered = named("home");
    reordered.members.reverse();
    assert_eq!(with(reordered).unwrap().0.cluster_id(), cluster_id);
    // Without a name in the configuration the kept number stays.
    assert_eq!(with(membership("a")).unwrap().0.cluster_id(), cluster_id);
    let reason = |membership| with(membership).map(|_| ()).unwrap_err().to_string();
    let text = reason(named("away"));
    assert!(text.contains("\"home\"") && text.contains("\"away\""), "{text}");
    let text = reason(membership("b"));
    assert!(text.contains("belongs to the node \"a\"") && text.contains("\"b\""), "{text}");
    let mut more = named("home");
    more.members.push("d".into());
    let text = reason(more);
    assert!(text.contains("a, b, c") && text.contains("a, b, c, d"), "{text}");
}

/// Reads name the entry they were asked for, and refuse one that is not there.
#[test]
#[should_panic(expected = "entry 12 is not in the log")]
fn a_read_behind_the_end() {
    let (disk, _) = sample(false);
    let _ = must_open(&disk, 2).entry(Index(12));
}

/// The report says in words what recovery did.
#[test]
fn the_report() {
    let (disk, _) = sample(true);
    let (mut storage, report) = open(&disk, 2).unwrap();
    assert_eq!(report.to_string(), "recovered 11 entries in 2 segments after a clean stop");
    assert_eq!(storage.term(Index(4)), Some(Term(2)));
    assert_eq!((storage.term(Index(0)), storage.term(Index(12))), (Some(Term(0)), None));
    assert_eq!(storage.log_start(), EntryId::default());
    append(&mut storage, 5, &[7; 900]).unwrap();
    disk.set_faults(Faults { crash_at: Some(disk.operations() + 1), ..Faults::default() });
    assert!(storage.sync().is_err());
    let mut blocks = 0;
    disk.crash(&mut |outcomes| {
        blocks += 1;
        // The second copy of the hard state arrives, the batch's first block does not, its others do.
        if blocks == 2 { 0 } else { outcomes - 1 }
    });
    let text = open(&disk, 3).unwrap().1.to_string();
    assert!(text.starts_with("recovered 11 entries in 2 segments after a crash; cut "), "{text}");
    assert!(text.contains("bytes of a torn tail at byte") && text.contains(SECOND), "{text}");
}

/// A number that nothing can follow is damage, whatever its checksum says; it is never added to.
#[test]
fn impossible_numbers_are_damage() {
    let with_number = |name: &str, block: usize, size: usize, field: usize| {
        let (disk, _) = sample(false);
        let mut bytes = disk.bytes(name);
        let block = &mut bytes[block..block + size];
        block[field..field + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let crc = crc32c::crc32c(&block[12..]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
        disk.put(name, &bytes);
        disk
    };
    for field in [48, 56, 64, 72] {
        let disk = with_number(SECOND, 0, 4096, field);
        assert_eq!(damaged(&disk).1, 0, "field {field} of a segment");
    }
    for field in [48, 56, 64, 80, 88, 96, 112, 120] {
        let disk = with_number("hard-state", 0, 512, field);
        assert_eq!(must_open(&disk, 9).hard_state().term, VOTE.term, "field {field}: the other slot holds");
    }
}
