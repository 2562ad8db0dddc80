//! A record: an entry's bytes as they lie in a segment.
//!
//! ```text
//!  0            4          8             16                                        padded to 16
//!  | record crc | prev crc | synced upto | entry: 32-byte header, then its payload | zeros |
//! ```
//!
//! All numbers are little-endian. The entry's bytes are those that travel between nodes, with a checksum of their own
//! over header and payload. `record crc` is CRC-32C over the segment's salt, the record's offset in its file, the two
//! fields behind it and the entry's header; the entry's own checksum is in that header, so the payload is covered
//! without a second pass over it. Salt and offset make sure that bytes of another file, of the file's earlier life or
//! of another place never pass for a record here, whatever a client puts into its values. `prev crc` is the record
//! crc of the record before, in this segment or the one before it: a hole or a changed order breaks this chain.
//! `synced upto` is the last index that was known to be durable when the record was written: what is damaged at or
//! below the largest one found was lost, not torn.

use crate::limits::COUNTER_MAX;
use crate::raft::entry::{ENTRY_HEADER_BYTES, Entry, EntryError};
use crate::raft::types::Index;
use crate::storage::stamp::{u32_at, u64_at};

/// Records begin at multiples of this.
pub(crate) const RECORD_ALIGN_BYTES: usize = 16;
/// Bytes in front of the entry.
pub(crate) const RECORD_PREFIX_BYTES: usize = 16;

/// What record checksums of one segment start from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Salt(pub(crate) u64);

impl Salt {
    /// The salt of segment `seq`. No other segment of the directory has it, because numbers are never used twice,
    /// however bad the random half is: so no record of a file's earlier life passes for one of its new life. The random
    /// half keeps what clients put into their values from passing for a record.
    pub(crate) fn new(seq: u64, random: u64) -> Salt {
        Salt((random << 32) | (seq & u64::from(u32::MAX)))
    }
}

/// A checked record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) crc: u32,
    pub(crate) prev_crc: u32,
    pub(crate) synced_upto: Index,
    pub(crate) entry: Entry<'a>,
}

/// What lies at a place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Probe<'a> {
    /// An undamaged record that was written to this place in this life of the segment.
    Valid(Record<'a>),
    /// The same, with an entry of a kind or version that only a newer Keva knows.
    Newer,
    /// Anything else.
    Invalid,
}

/// Bytes that a record with an entry of `entry_bytes` takes.
pub(crate) fn record_bytes(entry_bytes: usize) -> usize {
    (RECORD_PREFIX_BYTES + entry_bytes).next_multiple_of(RECORD_ALIGN_BYTES)
}

fn record_crc(salt: Salt, offset: usize, prev_crc: u32, synced_upto: u64, entry_header: &[u8]) -> u32 {
    let mut covered = [0; 28 + ENTRY_HEADER_BYTES];
    covered[..8].copy_from_slice(&salt.0.to_le_bytes());
    covered[8..16].copy_from_slice(&(offset as u64).to_le_bytes());
    covered[16..20].copy_from_slice(&prev_crc.to_le_bytes());
    covered[20..28].copy_from_slice(&synced_upto.to_le_bytes());
    covered[28..].copy_from_slice(&entry_header[..ENTRY_HEADER_BYTES]);
    crc32c::crc32c(&covered)
}

/// Appends the record for `entry` at `offset` of its segment to `out`, and returns its crc.
pub(crate) fn encode_record(
    salt: Salt,
    offset: usize,
    prev_crc: u32,
    synced_upto: Index,
    entry: Entry<'_>,
    out: &mut Vec<u8>,
) -> u32 {
    let crc = record_crc(salt, offset, prev_crc, synced_upto.0, entry.bytes());
    let end = out.len() + record_bytes(entry.bytes().len());
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&prev_crc.to_le_bytes());
    out.extend_from_slice(&synced_upto.0.to_le_bytes());
    out.extend_from_slice(entry.bytes());
    out.resize(end, 0);
    crc
}

/// Bytes of the record whose first part lies at `offset` of its segment undamaged, whatever is behind that: the write of a
/// record that was cut short leaves this.
pub(crate) fn begun_record_bytes(salt: Salt, offset: usize, bytes: &[u8]) -> Option<usize> {
    if bytes.len() < RECORD_PREFIX_BYTES + ENTRY_HEADER_BYTES {
        return None;
    }
    let (prefix, rest) = bytes.split_at(RECORD_PREFIX_BYTES);
    let crc = record_crc(salt, offset, u32_at(prefix, 4), u64_at(prefix, 8), rest);
    // The entry's length, which that checksum covers.
    (crc == u32_at(prefix, 0))
        .then(|| record_bytes(ENTRY_HEADER_BYTES.saturating_add(u32_at(rest, 4) as usize)))
}

/// Looks for a record at `offset` of its segment; `bytes` is the rest of the segment from there. No length is
/// believed before it is known to stay inside `bytes`.
pub(crate) fn probe_record(salt: Salt, offset: usize, bytes: &[u8]) -> Probe<'_> {
    if bytes.len() < RECORD_PREFIX_BYTES + ENTRY_HEADER_BYTES {
        return Probe::Invalid;
    }
    let (prefix, rest) = bytes.split_at(RECORD_PREFIX_BYTES);
    let (crc, prev_crc, synced_upto) = (u32_at(prefix, 0), u32_at(prefix, 4), u64_at(prefix, 8));
    if record_crc(salt, offset, prev_crc, synced_upto, rest) != crc || synced_upto > COUNTER_MAX {
        return Probe::Invalid;
    }
    match Entry::decode(rest) {
        Ok(entry) => Probe::Valid(Record { crc, prev_crc, synced_upto: Index(synced_upto), entry }),
        Err(EntryError::Unknown) => Probe::Newer,
        Err(_) => Probe::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::entry::{EntryKind, encode_entry};
    use crate::raft::types::{EntryId, Term};

    fn sample(payload: &[u8]) -> Vec<u8> {
        let mut entry = Vec::new();
        encode_entry(EntryId::new(Term(3), Index(7)), EntryKind::Command, payload, &mut entry);
        let mut out = Vec::new();
        encode_record(Salt(99), 4096, 5, Index(6), Entry::decode(&entry).unwrap(), &mut out);
        out
    }

    #[test]
    fn what_is_encoded_is_found() {
        let bytes = sample(b"hello");
        assert_eq!((bytes.len(), record_bytes(32 + 5)), (64, 64));
        let Probe::Valid(record) = probe_record(Salt(99), 4096, &bytes) else { panic!("no record") };
        assert_eq!(
            (record.prev_crc, record.synced_upto, record.entry.payload()),
            (5, Index(6), b"hello".as_slice())
        );
    }

    /// F9, F24: only at its own place, under its own salt, is a record a record; zeros never are.
    #[test]
    fn a_record_is_bound_to_its_place() {
        let bytes = sample(b"hello");
        assert!(
            matches!(probe_record(Salt(98), 4096, &bytes), Probe::Invalid),
            "another life of the segment"
        );
        assert!(matches!(probe_record(Salt(99), 4112, &bytes), Probe::Invalid), "another place");
        assert!(matches!(probe_record(Salt(0), 0, &[0; 128]), Probe::Invalid), "zeros");
    }

    /// F9: two segments of a directory never have the same salt, though a machine that is started from an image may draw
    /// the same numbers again; and two of the same number hardly ever.
    #[test]
    fn salts_are_never_used_twice() {
        let salts = [(7, 1), (8, 1), (9, 1), (7, 2)].map(|(seq, random)| Salt::new(seq, random).0);
        for (position, salt) in salts.iter().enumerate() {
            assert!(!salts[..position].contains(salt), "{salts:?}");
        }
        let sample = sample(b"hello");
        let crcs = salts.map(|salt| record_crc(Salt(salt), 4096, 5, 6, &sample[RECORD_PREFIX_BYTES..]));
        assert!(crcs[0] != crcs[1] && crcs[1] != crcs[2] && crcs[0] != crcs[2], "{crcs:?}");
    }

    /// F4: of a write that was cut short, the beginning tells how long it was.
    #[test]
    fn a_begun_record_is_noticed() {
        let mut bytes = sample(b"hello, world, and much more");
        let whole = bytes.len();
        assert_eq!(begun_record_bytes(Salt(99), 4096, &bytes), Some(whole));
        bytes[RECORD_PREFIX_BYTES + ENTRY_HEADER_BYTES..].fill(9);
        assert_eq!(begun_record_bytes(Salt(99), 4096, &bytes), Some(whole));
        assert_eq!(begun_record_bytes(Salt(98), 4096, &bytes), None);
        assert_eq!(begun_record_bytes(Salt(99), 4096, &bytes[..40]), None);
        bytes[RECORD_PREFIX_BYTES] ^= 1;
        assert_eq!(begun_record_bytes(Salt(99), 4096, &bytes), None);
    }

    /// F6, F24: no flipped bit and no cut passes, and none reads outside the bytes.
    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = sample(b"hello, world");
        let used = RECORD_PREFIX_BYTES + ENTRY_HEADER_BYTES + 12;
        for bit in 0..used * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(probe_record(Salt(99), 4096, &damaged), Probe::Invalid), "bit {bit}");
        }
        for cut in 0..used {
            assert!(matches!(probe_record(Salt(99), 4096, &bytes[..cut]), Probe::Invalid), "cut at {cut}");
        }
    }
}
