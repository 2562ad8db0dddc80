//! Working directories that somebody or something has changed.

use keva::limits::COUNTER_MAX;
use keva::raft::raft::{Config, Raft};
use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{HardState, Index, NodeId, Term};
use keva::util::rng::Rng;
use keva::util::time::Millis;

use crate::bytes::{below, noise, number, one_in, pick, put_u32, u32_at};
use crate::driver::drive;
use crate::support::sim_disk::SimDisk;
use crate::support::storage_fixture::{SimStorage, append_synced, contents, must_open, open, set_term};

const SEGMENT_HEADER_BYTES: usize = 4096;
const RECORD_PREFIX_BYTES: usize = 16;
const SLOT_BYTES: usize = 512;
const SLOT_DISTANCE_BYTES: usize = 4096;

type Log = Vec<(u64, Vec<u8>)>;

/// A disk, and what was written to it: the last state, or an earlier one.
struct Sample {
    disk: SimDisk,
    /// All logs that ever were.
    logs: Vec<Log>,
    /// All terms and votes that ever were.
    votes: Vec<(Term, Option<NodeId>)>,
}

/// A life with several segments, a removed end, a vote and a restart.
fn sample(clean: bool) -> Vec<Sample> {
    let disk = SimDisk::default();
    let mut storage = must_open(&disk, 1);
    let (mut samples, mut logs, mut votes) = (Vec::new(), vec![Log::new()], vec![(Term(0), None)]);
    let mut note = |disk: &SimDisk, storage: &SimStorage| {
        logs.push(contents(storage));
        let HardState { term, vote, .. } = storage.hard_state();
        votes.push((term, vote));
        samples.push(Sample { disk: disk.fork(), logs: logs.clone(), votes: votes.clone() });
    };
    note(&disk, &storage);
    set_term(&mut storage, 1);
    append_synced(&mut storage, 1, &[&[1; 900], b"two", &[0; 976]]);
    note(&disk, &storage);
    set_term(&mut storage, 2);
    append_synced(&mut storage, 2, &[&[4; 976], b"five", b""]);
    note(&disk, &storage);
    storage.truncate_suffix(Index(4)).expect("the disk is healthy");
    append_synced(&mut storage, 2, &[b"another five"]);
    note(&disk, &storage);
    let state = HardState { term: Term(5), vote: Some(NodeId(3)), commit_index: Index(4) };
    storage.set_hard_state(state).expect("the disk is healthy");
    append_synced(&mut storage, 5, &[&[7; 1500], b"seven"]);
    note(&disk, &storage);
    if clean {
        storage.close().expect("the disk is healthy");
    } else {
        drop(storage);
        disk.crash(&mut |outcomes| outcomes - 1);
    }
    let mut storage = must_open(&disk, 2);
    append_synced(&mut storage, 5, &[b"eight", b"nine"]);
    note(&disk, &storage);
    drop(storage);
    samples
}

fn any_file(rng: &mut Rng, sample: &Sample) -> Vec<u8> {
    let names = sample.disk.names();
    sample.disk.bytes(&names[below(rng, names.len())])
}

/// What somebody or something does to a disk, without knowing how checksums are made.
fn damage(rng: &mut Rng, others: &[Sample], disk: &SimDisk) {
    let names = disk.names();
    let name = pick(rng, &names);
    let mut bytes = disk.bytes(name);
    if bytes.is_empty() {
        return;
    }
    let at = below(rng, bytes.len());
    let len = 1 + below(rng, (bytes.len() - at).min(700));
    match rng.range(0, 10) {
        0 | 1 => bytes[at] ^= 1 << rng.range(0, 8),
        2 => bytes[at..at + len].fill(*pick(rng, &[0, 0xff])),
        3 => noise(rng, len).iter().enumerate().for_each(|(offset, byte)| bytes[at + offset] = *byte),
        4 => bytes.truncate(at),
        5 => bytes.resize(bytes.len() + 512 * below(rng, 20), 0),
        6 => {
            // A misdirected write: a piece of any file, of now or of earlier, in the wrong place.
            let other = pick(rng, others);
            let source = any_file(rng, other);
            let from = below(rng, source.len()) & !15;
            let piece = &source[from..source.len().min(from + 512 * (1 + below(rng, 8)))];
            let to = at & !15;
            let len = piece.len().min(bytes.len() - to);
            bytes[to..to + len].copy_from_slice(&piece[..len]);
        }
        7 => {
            // A file under the name of another, or an earlier state of it.
            let other = pick(rng, others);
            bytes = any_file(rng, other);
        }
        8 => return disk.delete(name),
        _ => {
            let new = format!("seg-{:010}.log", rng.range(0, 6));
            return disk.put(&new, &bytes);
        }
    }
    disk.put(name, &bytes);
}

/// Makes the checksums of a segment right again, as far as its lengths lead.
fn reseal_segment(bytes: &mut [u8]) {
    if bytes.len() < SEGMENT_HEADER_BYTES {
        return;
    }
    let crc = crc32c::crc32c(&bytes[12..SEGMENT_HEADER_BYTES]);
    put_u32(bytes, 8, crc);
    let salt: [u8; 8] = bytes[88..96].try_into().expect("eight bytes");
    let mut before = u32_at(bytes, 96).expect("inside the header");
    let mut start = SEGMENT_HEADER_BYTES;
    while let Some(len) = u32_at(bytes, start + RECORD_PREFIX_BYTES + 4) {
        let end = (start + RECORD_PREFIX_BYTES + 32).saturating_add(len as usize);
        if end > bytes.len() || bytes[start..end].iter().all(|byte| *byte == 0) {
            return;
        }
        put_u32(bytes, start + 4, before);
        let entry = start + RECORD_PREFIX_BYTES;
        let crc = crc32c::crc32c(&bytes[entry + 4..end]);
        put_u32(bytes, entry, crc);
        let mut covered = salt.to_vec();
        covered.extend_from_slice(&(start as u64).to_le_bytes());
        covered.extend_from_slice(&bytes[start + 4..entry + 32]);
        before = crc32c::crc32c(&covered);
        put_u32(bytes, start, before);
        start = end.next_multiple_of(16);
    }
}

/// Writes odd numbers into fields, and makes every checksum right again.
fn forge(rng: &mut Rng, disk: &SimDisk) {
    for name in disk.names() {
        let mut bytes = disk.bytes(&name);
        let fields: &[usize] = match name.as_str() {
            "hard-state" => &[48, 56, 64, 72, 80, 88, 96, 104],
            "keva.id" => continue,
            // Of the header, and of the first records.
            _ => &[48, 56, 64, 72, 80, 88, 96, 4104, 4116, 4120, 4128, 4136],
        };
        for _ in 0..below(rng, 3) {
            let field = *pick(rng, fields);
            if field + 8 <= bytes.len() {
                let width = *pick(rng, &[1, 4, 8]);
                // A counter at its very end is believed, and the next start counts it beyond.
                let number = Some(number(rng)).filter(|number| *number != COUNTER_MAX).unwrap_or(1);
                bytes[field..field + width].copy_from_slice(&number.to_le_bytes()[..width]);
            }
        }
        if name == "hard-state" {
            if bytes.len() < SLOT_DISTANCE_BYTES + SLOT_BYTES {
                continue;
            }
            let crc = crc32c::crc32c(&bytes[12..SLOT_BYTES]);
            put_u32(&mut bytes, 8, crc);
            if one_in(rng, 2) {
                let first = bytes[..SLOT_BYTES].to_vec();
                bytes[SLOT_DISTANCE_BYTES..][..SLOT_BYTES].copy_from_slice(&first);
            }
        } else {
            reseal_segment(&mut bytes);
        }
        disk.put(&name, &bytes);
    }
}

/// What holds for everything that recovery accepts, even when somebody forged it.
fn check_sound(storage: &SimStorage) {
    let mut last = Term(0);
    for index in 1..=storage.last_index().0 {
        let term = storage.term(Index(index)).expect("an index of the log has a term");
        assert!(term >= last, "terms never go back");
        last = term;
    }
    assert!(last <= storage.hard_state().term, "the hard state knows every term of the log");
    let _ = contents(storage);
}

/// A node on such a disk starts or refuses.
fn start(storage: SimStorage) -> Result<(), StorageError> {
    let voters = vec![NodeId(1), NodeId(2), NodeId(3)];
    let config =
        Config { id: NodeId(1), voters, election_timeout_ms: 1000, heartbeat_interval_ms: 100, seed: 1 };
    let mut raft = Raft::new(config, storage, Millis(0))?;
    raft.handle_deadline(raft.next_deadline())?;
    drop(raft.sync(Millis(0))?);
    Ok(())
}

fn one(rng: &mut Rng, samples: &[Sample]) -> bool {
    let sample = pick(rng, samples);
    let disk = sample.disk.fork();
    let forged = one_in(rng, 3);
    if forged {
        forge(rng, &disk);
    }
    for _ in 0..[0, 1, 1, 2, 3][below(rng, 5)] {
        damage(rng, samples, &disk);
    }
    match open(&disk, rng.next_u64()) {
        Ok((storage, report)) => {
            assert!(!report.to_string().is_empty());
            if forged {
                check_sound(&storage);
            } else {
                let found = contents(&storage);
                let was_written = |log: &Log| log.starts_with(&found);
                assert!(samples.iter().flat_map(|sample| &sample.logs).any(was_written), "{found:?}");
                let HardState { term, vote, .. } = storage.hard_state();
                let was_held = |sample: &Sample| sample.votes.contains(&(term, vote));
                assert!(samples.iter().any(was_held), "{term} {vote:?}");
            }
            if let Err(error) = start(storage) {
                assert!(matches!(error, StorageError::Refused(_)), "{error}");
                return false;
            }
            let reopened = open(&disk, 3);
            assert!(reopened.is_ok(), "what was accepted once is accepted again: {:?}", reopened.err());
            true
        }
        Err(StorageError::Io { action, source }) => panic!("{action}: {source}"),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// F4, F6, F7, F9, F10, F18, F24: recovery takes only what was written, and no checksum makes it trust a number.
#[test]
fn storage_directory() {
    let mut samples = sample(false);
    samples.extend(sample(true));
    drive("storage_directory", 2, |rng| one(rng, &samples));
}
