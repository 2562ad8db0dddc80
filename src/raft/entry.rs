//! A log entry as bytes: the same bytes in a proposal, in a peer's frame and inside a record on disk.
//!
//! ```text
//!  0        4        8               16              24   25   26     28       32
//!  | crc    | len    | index         | term          |kind|flag|version| zero  | payload: len bytes |
//!  ```
//!
//! All numbers are little-endian. `crc` is CRC-32C over everything after it, header and payload. It is computed once,
//! where the entry is created, and checked wherever the bytes come back from a disk or a network; so a flipped bit
//! anywhere on the way is found before the entry is stored, sent or applied.

use std::fmt;

use crate::limits::{COUNTER_MAX, PAYLOAD_BYTES_MAX};
use crate::raft::types::{EntryId, Index, Term};

/// Bytes in front of an entry's payload.
pub const ENTRY_HEADER_BYTES: usize = 32;

const VERSION: u16 = 1;

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// The empty entry that a new leader appends (paper, section 8).
    NoOp = 1,
    /// A command for the state machine.
    Command = 2,
}

/// A checked view of one entry's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    bytes: &'a [u8],
}

/// Why bytes are no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryError {
    /// Fewer bytes than the header, or than the header announces.
    Truncated,
    /// The length field is over the limit.
    TooLarge,
    /// The checksum does not match.
    Checksum,
    /// An unknown kind, version or flag, or an impossible index or term: written by a newer Keva, or no entry at all.
    Unknown,
    /// The index does not follow the entry before, or the term goes back.
    Order,
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EntryError::Truncated => "the entry ends early",
            EntryError::TooLarge => "the entry's length is over the limit",
            EntryError::Checksum => "the entry's checksum does not match",
            EntryError::Unknown => "the entry has an unknown kind, flag or version",
            EntryError::Order => "the entry does not follow the one before it",
        })
    }
}

impl std::error::Error for EntryError {}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Appends the bytes of a new entry to `out`.
///
/// # Panics
/// When the payload is over [`PAYLOAD_BYTES_MAX`]: callers refuse it earlier.
pub fn encode_entry(id: EntryId, kind: EntryKind, payload: &[u8], out: &mut Vec<u8>) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a payload of {} bytes is over the limit", payload.len());
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&id.index.0.to_le_bytes());
    out.extend_from_slice(&id.term.0.to_le_bytes());
    out.extend_from_slice(&[kind as u8, 0]);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    let crc = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

impl<'a> Entry<'a> {
    /// Checks and takes the entry at the start of `bytes`. Bytes after it are left alone: [`Entry::bytes`] tells how
    /// many belong to the entry.
    ///
    /// # Errors
    /// When the bytes are no whole, undamaged entry of a known version.
    pub fn decode(bytes: &'a [u8]) -> Result<Entry<'a>, EntryError> {
        if bytes.len() < ENTRY_HEADER_BYTES {
            return Err(EntryError::Truncated);
        }
        let len = u32_at(bytes, 4) as usize;
        if len > PAYLOAD_BYTES_MAX {
            return Err(EntryError::TooLarge);
        }
        let bytes = bytes.get(..ENTRY_HEADER_BYTES + len).ok_or(EntryError::Truncated)?;
        if crc32c::crc32c(&bytes[4..]) != u32_at(bytes, 0) {
            return Err(EntryError::Checksum);
        }
        let known_kind = matches!(bytes[24], 1 | 2);
        let known_version =
            bytes[25] == 0 && bytes[26..28] == VERSION.to_le_bytes() && u32_at(bytes, 28) == 0;
        let counts = [u64_at(bytes, 8), u64_at(bytes, 16)].iter().all(|n| (1..=COUNTER_MAX).contains(n));
        if !known_kind || !known_version || !counts {
            return Err(EntryError::Unknown);
        }
        Ok(Entry { bytes })
    }

    /// The entry's position.
    #[must_use]
    pub fn index(self) -> Index {
        Index(u64_at(self.bytes, 8))
    }

    /// The term of the leader that created the entry.
    #[must_use]
    pub fn term(self) -> Term {
        Term(u64_at(self.bytes, 16))
    }

    /// Position and term.
    #[must_use]
    pub fn id(self) -> EntryId {
        EntryId::new(self.term(), self.index())
    }

    /// What the entry is for.
    #[must_use]
    pub fn kind(self) -> EntryKind {
        if self.bytes[24] == EntryKind::NoOp as u8 { EntryKind::NoOp } else { EntryKind::Command }
    }

    /// The bytes that the proposer gave; empty for a no-op.
    #[must_use]
    pub fn payload(self) -> &'a [u8] {
        &self.bytes[ENTRY_HEADER_BYTES..]
    }

    /// The whole entry, header and payload.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The checksum that the entry carries.
    #[must_use]
    pub fn crc(self) -> u32 {
        u32_at(self.bytes, 0)
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} ({} bytes)", self.id(), self.kind(), self.payload().len())
    }
}

/// Zero or more entries, one after the other: indexes without a gap, terms that never go back, every checksum right.
/// Code that holds an `Entries` need not check any of that again.
#[derive(Clone, PartialEq, Eq, Default, Hash)]
pub struct Entries {
    bytes: Vec<u8>,
    first: EntryId,
    last: EntryId,
}

impl Entries {
    /// Checks bytes that came from a peer.
    ///
    /// # Errors
    /// At the first byte that does not belong to a valid sequence of entries.
    pub fn decode(bytes: Vec<u8>) -> Result<Entries, EntryError> {
        let (mut first, mut last) = (EntryId::default(), EntryId::default());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let entry = Entry::decode(rest)?;
            check_order(last, entry.id())?;
            if last == EntryId::default() {
                first = entry.id();
            }
            last = entry.id();
            rest = &rest[entry.bytes().len()..];
        }
        Ok(Entries { bytes, first, last })
    }

    /// Adds an entry at the end.
    ///
    /// # Panics
    /// When it does not follow the last one: the log that it was read from is broken.
    pub fn push(&mut self, entry: Entry<'_>) {
        check_order(self.last, entry.id()).expect("entries of one log follow one another");
        if self.is_empty() {
            self.first = entry.id();
        }
        self.last = entry.id();
        self.bytes.extend_from_slice(entry.bytes());
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let len = u32_at(rest, 4) as usize;
            let (bytes, after) = rest.split_at(ENTRY_HEADER_BYTES + len);
            rest = after;
            Some(Entry { bytes })
        })
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        if self.is_empty() { 0 } else { self.last.index.0 - self.first.index.0 + 1 }
    }

    /// The first entry's id, `0@0` when empty.
    #[must_use]
    pub fn first(&self) -> EntryId {
        self.first
    }

    /// The last entry's id, `0@0` when empty.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// The bytes, as they go over a link.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn check_order(before: EntryId, entry: EntryId) -> Result<(), EntryError> {
    let is_next = entry.index.0.checked_sub(1) == Some(before.index.0);
    let follows = before == EntryId::default() || (is_next && entry.term >= before.term);
    if follows { Ok(()) } else { Err(EntryError::Order) }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u64, index: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_entry(EntryId::new(Term(term), Index(index)), EntryKind::Command, payload, &mut out);
        out
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = entry(3, 7, b"hello");
        let entry = Entry::decode(&bytes).expect("just encoded");
        assert_eq!((entry.id().to_string().as_str(), entry.kind()), ("7@3", EntryKind::Command));
        assert_eq!((entry.payload(), entry.bytes()), (b"hello".as_slice(), bytes.as_slice()));
    }

    /// F24, F25: no single flipped bit and no cut goes unnoticed.
    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = entry(3, 7, b"hello");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Entry::decode(&damaged).is_err(), "bit {bit} flipped");
        }
        for cut in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Entry::decode(&[0; 64]), Err(EntryError::Checksum), "zeros are no entry");
    }

    /// B15: a gap, a repetition or a falling term is refused where the bytes come in.
    #[test]
    fn a_batch_is_contiguous() {
        let batch = |list: &[(u64, u64)]| {
            Entries::decode(list.iter().flat_map(|(term, index)| entry(*term, *index, b"x")).collect())
        };
        let good = batch(&[(1, 4), (1, 5), (3, 6)]).expect("contiguous");
        assert_eq!(
            (good.count(), good.first().to_string(), good.last().to_string()),
            (3, "4@1".into(), "6@3".into())
        );
        assert_eq!(good.iter().count(), 3);
        assert_eq!(batch(&[(1, 4), (1, 6)]), Err(EntryError::Order));
        assert_eq!(batch(&[(1, 4), (1, 4)]), Err(EntryError::Order));
        assert_eq!(batch(&[(2, 4), (1, 5)]), Err(EntryError::Order));
        assert_eq!(
            batch(&[(1, COUNTER_MAX), (1, 1)]),
            Err(EntryError::Order),
            "nothing follows the largest index"
        );
    }

    /// B15: numbers that nothing can follow are refused, not added to.
    #[test]
    fn impossible_numbers_are_no_entry() {
        let batch =
            |term, index| Entries::decode([entry(term, index, b""), entry(term, index, b"")].concat());
        assert_eq!(batch(1, u64::MAX), Err(EntryError::Unknown));
        assert_eq!(batch(u64::MAX, 1), Err(EntryError::Unknown));
        assert_eq!(batch(1, COUNTER_MAX), Err(EntryError::Order));
    }
}
