//! The state machine's snapshot, from the disk or from another node.

use keva::kv::command::{Command, Condition};
use keva::kv::session::WriteId;
use keva::kv::store::Store;
use keva::raft::types::{Incarnation, Index, NodeId};
use keva::util::rng::Rng;

use crate::bytes::{below, input, noise, one_in};
use crate::driver::{bounded, drive};

/// A valid snapshot.
fn valid(rng: &mut Rng) -> Vec<u8> {
    let mut store = Store::default();
    for index in 1..=rng.range(0, 20) {
        let id = WriteId { origin: NodeId(1 + rng.range(0, 3)), incarnation: Incarnation(1), seq: index };
        let command = Command::Put {
            key: format!("k{}", rng.range(0, 10)),
            value: noise(rng, 300),
            content_type: one_in(rng, 2).then(|| "text/plain".repeat(below(rng, 5))),
            condition: Condition::default(),
        };
        let _ = store.apply(Index(index), id, command);
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
    let words: &[&[u8]] = &[b"KEVAKEYS", b"\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0\0\0\0\x01"];
    let mut bytes = input(rng, corpus, words);
    if one_in(rng, 2) && bytes.len() >= 40 {
        // The beginning of a sound one with the right length, so that the rest is reached.
        let length = (bytes.len() as u64).to_le_bytes();
        bytes[..32].copy_from_slice(&corpus[below(rng, corpus.len())][..32]);
        bytes[32..40].copy_from_slice(&length);
    }
    // An item of 17 bytes becomes a key, a value and 56 bytes in a list that doubles.
    match bounded(bytes.len(), 24, 4096, || Store::restore(&bytes)) {
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
