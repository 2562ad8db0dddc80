//! Storage on a simulated disk, ready for use, and what its tests compare it with.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(unreachable_pub, reason = "shared by several test programs")]

use keva::limits::SNAPSHOT_CHUNK_BYTES;
use keva::raft::entry::{Entry, EntryKind, encode_entry};
use keva::raft::storage::{SnapshotMeta, SnapshotProgress, Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Index, NodeId, Term};
use keva::storage::{Directory, LogStorage, Membership, RecoveryReport, StorageOptions};
use keva::util::hash::fnv1a_64;
use keva::util::rng::Rng;

use super::sim_disk::SimDisk;
use super::sim_region::SimDirectory;

/// The storage that runs on a simulated disk.
pub type SimStorage = LogStorage<SimDirectory>;

/// Small segments, so that short tests have several.
pub const SMALL_SEGMENT_BYTES: usize = 8192;
/// A small margin, so that short tests remove segments.
pub const SMALL_MARGIN_BYTES: u64 = 3000;

/// A member of the cluster `a`, `b`, `c`.
pub fn membership(identity: &str) -> Membership {
    Membership {
        node: NodeId(fnv1a_64(identity.as_bytes())),
        identity: identity.into(),
        members: vec!["a".into(), "b".into(), "c".into()],
        cluster_name: None,
    }
}

/// Switches on the planted bug that `KEVA_MUTANT` names, in a build that has them.
fn plant_bug() {
    static PLANTED: std::sync::Once = std::sync::Once::new();
    PLANTED.call_once(|| {
        if let Ok(name) = std::env::var("KEVA_MUTANT") {
            keva::util::mutation::select(&name);
        }
    });
}

/// Options of node `a` with small segments.
pub fn options(seed: u64) -> StorageOptions {
    plant_bug();
    StorageOptions {
        membership: membership("a"),
        segment_bytes: SMALL_SEGMENT_BYTES,
        log_margin_bytes: SMALL_MARGIN_BYTES,
        repair: false,
        rng: Rng::new(seed),
    }
}

/// Opens node `a`'s storage.
pub fn open(disk: &SimDisk, seed: u64) -> Result<(SimStorage, RecoveryReport), StorageError> {
    LogStorage::open(disk.directory(), options(seed))
}

/// Opens node `a`'s storage, which must succeed.
pub fn must_open(disk: &SimDisk, seed: u64) -> SimStorage {
    open(disk, seed).unwrap_or_else(|error| panic!("cannot open: {error}")).0
}

/// An entry's bytes.
pub fn entry_bytes(index: u64, term: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_entry(EntryId::new(Term(term), Index(index)), EntryKind::Command, payload, &mut bytes);
    bytes
}

/// Appends an entry behind the last one.
pub fn append<D: Directory>(
    storage: &mut LogStorage<D>,
    term: u64,
    payload: &[u8],
) -> Result<(), StorageError> {
    let bytes = entry_bytes(storage.last_index().0 + 1, term, payload);
    storage.append(Entry::decode(&bytes).unwrap())
}

/// Appends entries of one term and makes them durable.
pub fn append_synced<D: Directory>(storage: &mut LogStorage<D>, term: u64, payloads: &[&[u8]]) {
    for payload in payloads {
        append(storage, term, payload).unwrap();
    }
    storage.sync().unwrap();
}

/// Moves to a term, durably.
pub fn set_term<D: Directory>(storage: &mut LogStorage<D>, term: u64) {
    let hard_state =
        HardState { term: Term(term), vote: None, commit_index: storage.hard_state().commit_index };
    storage.set_hard_state(hard_state).unwrap();
    storage.sync().unwrap();
}

/// Every entry behind the log's start as (term, payload), read and checked.
pub fn contents<D: Directory>(storage: &LogStorage<D>) -> Vec<(u64, Vec<u8>)> {
    (storage.log_start().index.0 + 1..=storage.last_index().0)
        .map(|index| {
            let entry = storage.entry(Index(index)).unwrap_or_else(|error| panic!("entry {index}: {error}"));
            assert_eq!(storage.term(Index(index)), Some(entry.term()), "entry {index}");
            (entry.term().0, entry.payload().to_vec())
        })
        .collect()
}

/// The newest snapshot: its last entry and its content, read and checked.
pub fn snapshot_contents<D: Directory>(storage: &LogStorage<D>) -> Option<(EntryId, Vec<u8>)> {
    let meta = storage.snapshot()?;
    let mut content = Vec::new();
    while (content.len() as u64) < meta.bytes {
        let rest = usize::try_from(meta.bytes).unwrap() - content.len();
        let part = storage.read_snapshot(content.len() as u64, rest.min(SNAPSHOT_CHUNK_BYTES));
        content.extend_from_slice(part.unwrap_or_else(|error| panic!("snapshot: {error}")));
    }
    assert_eq!(crc32c::crc32c(&content), meta.crc);
    Some((meta.last, content))
}

/// Writes a whole snapshot, and puts away what it takes the place of; `received` says that it came from a leader. Returns
/// how it was finished.
pub fn take_snapshot<D: Directory>(
    storage: &mut LogStorage<D>,
    last: EntryId,
    content: &[u8],
    received: bool,
) -> Result<SnapshotProgress, StorageError> {
    let bytes = content.len() as u64;
    assert!(storage.begin_snapshot(last, bytes)?, "there is space");
    for part in content.chunks(SNAPSHOT_CHUNK_BYTES) {
        storage.append_snapshot(part)?;
    }
    let meta = SnapshotMeta { last, bytes, crc: crc32c::crc32c(content) };
    let progress = storage.finish_snapshot(received.then_some(meta), usize::MAX)?;
    while storage.clean_up()? {}
    Ok(progress)
}

/// `entries` entries of 1,000 bytes, four to a segment.
pub fn with_entries(disk: &SimDisk, entries: u8) -> SimStorage {
    let mut storage = must_open(disk, 1);
    set_term(&mut storage, 1);
    for number in 1..=entries {
        append_synced(&mut storage, 1, &[&[number; 970]]);
    }
    storage
}
