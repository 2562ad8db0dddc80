//! Storage on a simulated disk, ready for use, and what its tests compare it with.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(unreachable_pub, reason = "shared by several test programs")]

use keva::raft::entry::{Entry, EntryKind, encode_entry};
use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Index, NodeId, Term};
use keva::storage::{Directory, LogStorage, Membership, RecoveryReport, StorageOptions};
use keva::util::hash::fnv1a_64;
use keva::util::rng::Rng;

use super::sim_region::{SimDirectory, SimDisk};

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

/// Options of node `a` with small segments.
pub fn options(seed: u64) -> StorageOptions {
    StorageOptions {
        membership: membership("a"),
        segment_bytes: SMALL_SEGMENT_BYTES,
        log_margin_bytes: SMALL_MARGIN_BYTES,
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

/// Every entry as (term, payload), read and checked.
pub fn contents<D: Directory>(storage: &LogStorage<D>) -> Vec<(u64, Vec<u8>)> {
    (1..=storage.last_index().0)
        .map(|index| {
            let entry = storage.entry(Index(index)).unwrap_or_else(|error| panic!("entry {index}: {error}"));
            assert_eq!(storage.term(Index(index)), Some(entry.term()), "entry {index}");
            (entry.term().0, entry.payload().to_vec())
        })
        .collect()
}
