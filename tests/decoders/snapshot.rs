//! The state machine's snapshot, from the disk or from another node.

use keva::kv::command::{Command, Write};
use keva::kv::payload::Payload;
use keva::kv::session::WriteId;
use keva::kv::store::Store;
use keva::raft::types::{Incarnation, Index, NodeId};
use keva::util::rng::Rng;
use keva::util::time::LogicalTime;

use crate::bytes::{below, input, one_in};
use crate::driver::{bounded, drive};
use crate::payload::command;

/// What a length within an outcome that is not backed by bytes may cost, once in an input.
const RESERVED_BYTES_MAX: usize = 1 << 20;
const HEADER_BYTES: usize = 56;

/// A valid snapshot.
fn valid(rng: &mut Rng) -> Vec<u8> {
    let mut store = Store::default();
    for index in 1..=rng.range(0, 20) {
        let mut command = command(rng);
        if let Command::Put { condition, .. } = &mut command {
            *condition = Default::default();
        }
        let id = WriteId {
            origin: NodeId(1 + rng.range(0, 3)),
            incarnation: Incarnation(1),
            seq: if command.is_internal() { 0 } else { index },
        };
        let named = !command.is_internal() && one_in(rng, 2);
        let idempotency_key = named.then(|| format!("name {}", rng.range(0, 20)));
        let write = Write { command, idempotency_key };
        let time = LogicalTime(rng.range(0, 100));
        let _ = store.apply(Index(index), Payload { id, time, write });
    }
    snapshot(&mut store)
}

fn snapshot(store: &mut Store) -> Vec<u8> {
    store.begin_snapshot();
    let mut bytes = Vec::new();
    loop {
        let budget = 1 + bytes.len();
        if store.write_snapshot(&mut bytes, budget) {
            return bytes;
        }
    }
}

fn one(rng: &mut Rng, corpus: &[Vec<u8>]) -> bool {
    let words: &[&[u8]] = &[
        b"KEVAKEYS",
        b"\xff\xff",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0\0\0\0\x01",
        b"Written",
        b"\xdd\xff\xff\xff\xff",
    ];
    let mut bytes = input(rng, corpus, words);
    if one_in(rng, 2) && bytes.len() >= HEADER_BYTES {
        // The beginning of a sound one with the right length, so that the rest is reached.
        let length = (bytes.len() as u64).to_le_bytes();
        let sound = &corpus[below(rng, corpus.len())];
        bytes[..HEADER_BYTES].copy_from_slice(&sound[..HEADER_BYTES]);
        bytes[32..40].copy_from_slice(&length);
    }
    // An item of 25 bytes becomes a key, a value and 72 bytes in a list that doubles.
    match bounded(bytes.len(), 24, RESERVED_BYTES_MAX + 4096, || Store::restore(&bytes)) {
        Ok(mut store) => {
            assert_eq!(snapshot(&mut store), bytes);
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// D12, F24, I4: a snapshot is read as what was written, or not at all, and a length costs nothing without its bytes.
#[test]
fn state() {
    let mut rng = Rng::new(7);
    let corpus: Vec<_> = (0..64).map(|_| valid(&mut rng)).collect();
    drive("state", 10, |rng| one(rng, &corpus));
}
