//! What the snapshots of this workload hold: the digest of every entry that they cover, and something to make them
//! larger. Whoever reads one sees whether every byte of it is what was written.

use keva::raft::storage::{SnapshotMeta, Storage, StorageError};
use keva::raft::types::EntryId;
use keva::util::rng::Rng;

use crate::node::Node;

/// Bytes of a number.
const WORD_BYTES: usize = 8;

/// The content of a snapshot of these entries, of `bytes` or what it takes. What fills it is drawn from `seed`.
pub(crate) fn encode(digests: &[u64], seed: u64, bytes: usize) -> Vec<u8> {
    let head = [digests.len() as u64, seed];
    let mut content: Vec<u8> = head.iter().chain(digests).flat_map(|word| word.to_le_bytes()).collect();
    let len = bytes.saturating_sub(content.len());
    content.extend(filling(seed, len));
    content
}

/// The digests in a content.
fn decode(content: &[u8]) -> Result<Vec<u64>, String> {
    let too_short = || format!("a snapshot of {} bytes is too short for what it should hold", content.len());
    let word = |number: usize| -> Result<u64, String> {
        let bytes = content.get(number * WORD_BYTES..(number + 1) * WORD_BYTES).ok_or_else(too_short)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("a word has this length")))
    };
    let (count, seed) = (word(0)? as usize, word(1)?);
    let digests = (2..2 + count).map(word).collect::<Result<Vec<_>, _>>()?;
    let rest = &content[(2 + count) * WORD_BYTES..];
    if rest != filling(seed, rest.len()) {
        return Err("the snapshot holds other bytes than were written".into());
    }
    Ok(digests)
}

/// Zeros, as a file has that was never written, or anything but zeros.
fn filling(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    if seed.is_multiple_of(4) {
        return vec![0; len];
    }
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

/// What a leader would say of a snapshot.
pub(crate) fn meta(last: EntryId, content: &[u8]) -> SnapshotMeta {
    SnapshotMeta { last, bytes: content.len() as u64, crc: crc32c::crc32c(content) }
}

/// The digests of everything that the newest snapshot covers, read piece by piece as for a peer.
pub(crate) fn read_newest(node: &Node) -> Result<Vec<u64>, StorageError> {
    let Some(meta) = node.snapshot() else { return Ok(Vec::new()) };
    let mut content = Vec::new();
    while (content.len() as u64) < meta.bytes {
        let offset = content.len() as u64;
        let len = (meta.bytes - offset).min(keva::limits::SNAPSHOT_CHUNK_BYTES as u64) as usize;
        content.extend_from_slice(node.read_snapshot(offset, len)?);
    }
    let digests = decode(&content).and_then(|digests| {
        let count = digests.len() as u64;
        if count == meta.last.index.0 {
            Ok(digests)
        } else {
            Err(format!("the snapshot up to {} holds {count} entries", meta.last))
        }
    });
    digests.map_err(StorageError::Refused)
}
