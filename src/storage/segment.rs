//! A segment: one file of the log, made whole before its first use and only ever appended to.
//!
//! ```text
//!  0                      48    56            64           72          80           88     96          100
//!  | stamp (KEVASEG) | seq | incarnation | base index | base term | valid from | salt | chain crc | size |
//!  104
//!  | stale end | zeros |
//!  4096
//!  | record | record | ... | anything up to the stale end, then zeros |
//! ```
//!
//! `seq` orders the segments and is never used twice. `base index` is the index of the first record, `base term` the
//! term of the entry before it, and `chain crc` the crc of that entry's record. `valid from` is how entries are
//! removed: everything at or above it in older segments is void. It equals the base index, or is 0 when the log starts
//! over behind a snapshot. A segment that has a successor was wholly durable before the successor was made.
//!
//! A file that was a segment before is used again as it is: writing zeros over it would cost as much as the log itself.
//! Up to `stale end` it holds what that life left. Nothing of it passes for a record, because no two segments have the
//! same salt. So behind the last record only what carries this segment's salt says anything; in a file that was made of
//! zeros, where the stale end is 0, every other byte does.

use std::io;

use crate::limits::COUNTER_MAX;
use crate::raft::entry::{ENTRY_HEADER_BYTES, Entry};
use crate::raft::types::{Incarnation, Index, Term};
use crate::storage::record::{
    Probe, RECORD_ALIGN_BYTES, RECORD_PREFIX_BYTES, Record, Salt, begun_record_bytes, encode_record,
    probe_record, record_bytes,
};
use crate::storage::region::{CHUNK_BYTES, Region};
use crate::storage::stamp::{Owner, StampError, check_stamp, put, stamp, u32_at, u64_at};

/// Bytes in front of the first record.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 4096;
const SMALLEST_RECORD_BYTES: usize = RECORD_PREFIX_BYTES + ENTRY_HEADER_BYTES;
const MAGIC: [u8; 8] = *b"KEVASEG\n";
const NAME_PREFIX: &str = "seg-";
const NAME_SUFFIX: &str = ".log";

/// What a segment says about itself, besides its owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    /// The segment's number; also in its name.
    pub(crate) seq: u64,
    /// The start of the node that made it.
    pub(crate) incarnation: Incarnation,
    /// The first record's index.
    pub(crate) base_index: Index,
    /// The term of the entry before it, 0 at the start of the log.
    pub(crate) base_term: Term,
    /// Entries at or above this in older segments are void.
    pub(crate) valid_from: Index,
    /// What the checksums of its records start from.
    pub(crate) salt: Salt,
    /// The crc of the record before the first one, 0 at the start of the log.
    pub(crate) chain_crc: u32,
    /// The file's size in bytes.
    pub(crate) size: u32,
    /// Up to here the file may hold bytes of an earlier life of it; behind, it was all zeros.
    pub(crate) stale_end: u32,
}

/// What lies behind the last record and belongs to this life of the segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Leftover {
    /// Bytes from the end of the records to the end of all that is known to be of this life.
    pub(crate) bytes: usize,
    /// The largest `synced upto` of the undamaged records among them.
    pub(crate) synced_upto: Index,
}

/// An open segment with the places of its records.
#[derive(Debug)]
pub(crate) struct Segment<R> {
    header: SegmentHeader,
    region: R,
    /// Where each record begins, in units of [`RECORD_ALIGN_BYTES`].
    places: Vec<u32>,
    /// Where the next record goes.
    end: usize,
    last_crc: u32,
    /// The newest records, up to `end`, that are not yet handed to the kernel.
    unwritten: Vec<u8>,
}

/// The file name of segment `seq`.
pub(crate) fn segment_name(seq: u64) -> String {
    format!("{NAME_PREFIX}{seq:010}{NAME_SUFFIX}")
}

/// The number in a segment's file name: `None` for other files, an error for a name that only resembles one.
pub(crate) fn parse_segment_name(name: &str) -> Option<Result<u64, ()>> {
    let digits = name.strip_prefix(NAME_PREFIX)?.strip_suffix(NAME_SUFFIX)?;
    let seq = digits.parse().map_err(|_| ());
    Some(seq.and_then(|seq| if segment_name(seq) == name { Ok(seq) } else { Err(()) }))
}

impl SegmentHeader {
    pub(crate) fn encode(&self, owner: Owner) -> Vec<u8> {
        let mut block = vec![0; SEGMENT_HEADER_BYTES];
        put(&mut block, 48, &self.seq.to_le_bytes());
        put(&mut block, 56, &self.incarnation.0.to_le_bytes());
        put(&mut block, 64, &self.base_index.0.to_le_bytes());
        put(&mut block, 72, &self.base_term.0.to_le_bytes());
        put(&mut block, 80, &self.valid_from.0.to_le_bytes());
        put(&mut block, 88, &self.salt.0.to_le_bytes());
        put(&mut block, 96, &self.chain_crc.to_le_bytes());
        put(&mut block, 100, &self.size.to_le_bytes());
        put(&mut block, 104, &self.stale_end.to_le_bytes());
        stamp(&mut block, MAGIC, owner);
        block
    }

    /// Reads the header of a whole segment file.
    pub(crate) fn decode(region: &impl Region, owner: Owner) -> Result<SegmentHeader, StampError> {
        if region.size() < SEGMENT_HEADER_BYTES {
            return Err(StampError::Damaged);
        }
        let block = region.read(0, SEGMENT_HEADER_BYTES);
        check_stamp(block, MAGIC, owner)?;
        let header = SegmentHeader {
            seq: u64_at(block, 48),
            incarnation: Incarnation(u64_at(block, 56)),
            base_index: Index(u64_at(block, 64)),
            base_term: Term(u64_at(block, 72)),
            valid_from: Index(u64_at(block, 80)),
            salt: Salt(u64_at(block, 88)),
            chain_crc: u32_at(block, 96),
            size: u32_at(block, 100),
            stale_end: u32_at(block, 104),
        };
        let counts = [header.seq, header.incarnation.0, header.base_index.0, header.base_term.0];
        let sound = header.base_index.0 > 0
            && counts.into_iter().all(|number| number <= COUNTER_MAX)
            && (header.valid_from == header.base_index || header.valid_from == Index(0))
            && header.size as usize == region.size()
            && header.stale_end <= header.size;
        if sound { Ok(header) } else { Err(StampError::Damaged) }
    }
}

impl<R: Region> Segment<R> {
    /// A segment without records, over a region whose header is written already.
    pub(crate) fn new(header: SegmentHeader, region: R) -> Segment<R> {
        let last_crc = header.chain_crc;
        Segment {
            header,
            region,
            places: Vec::new(),
            end: SEGMENT_HEADER_BYTES,
            last_crc,
            unwritten: Vec::new(),
        }
    }

    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The crc of the record pushed or accepted last, or of the one before the first.
    pub(crate) fn last_crc(&self) -> u32 {
        self.last_crc
    }

    /// The index of the next record.
    pub(crate) fn next_index(&self) -> Index {
        Index(self.header.base_index.0 + self.places.len() as u64)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of records that still fit.
    pub(crate) fn room(&self) -> usize {
        self.region.size() - self.end
    }

    /// Where the next record goes.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Bytes of records not yet handed to the kernel.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.unwritten.len()
    }

    /// Adds an entry behind the last one, in memory. The caller knows that there is room.
    pub(crate) fn push(&mut self, entry: Entry<'_>, synced_upto: Index) {
        assert!(record_bytes(entry.bytes().len()) <= self.room(), "a record never leaves its segment");
        assert_eq!(entry.index(), self.next_index(), "records of a segment leave no gap");
        self.last_crc =
            encode_record(self.header.salt, self.end, self.last_crc, synced_upto, entry, &mut self.unwritten);
        self.note_place(entry.bytes().len());
    }

    /// Looks for the record that continues the log at the end. For recovery.
    pub(crate) fn probe_next(&self) -> Probe<'_> {
        match self.probe(self.end) {
            Probe::Valid(record) if !self.continues(&record) => Probe::Invalid,
            other => other,
        }
    }

    fn continues(&self, record: &Record<'_>) -> bool {
        record.prev_crc == self.last_crc && record.entry.index() == self.next_index()
    }

    /// Takes in the record that [`Segment::probe_next`] found.
    pub(crate) fn accept(&mut self, crc: u32, entry_bytes: usize) {
        self.last_crc = crc;
        self.note_place(entry_bytes);
    }

    fn note_place(&mut self, entry_bytes: usize) {
        self.places
            .push(u32::try_from(self.end / RECORD_ALIGN_BYTES).expect("the size of a segment is a u32"));
        self.end += record_bytes(entry_bytes);
    }

    fn probe(&self, offset: usize) -> Probe<'_> {
        probe_record(self.header.salt, offset, self.region.read(offset, self.region.size() - offset))
    }

    /// What is behind the end. Each place where a record can begin is looked at, because lengths behind damage are worth
    /// nothing.
    pub(crate) fn leftover(&self) -> Leftover {
        let size = self.region.size();
        let stale_end = self.end.max(self.header.stale_end as usize);
        let blank = self.region.read(stale_end, size - stale_end);
        let used = blank.iter().rposition(|byte| *byte != 0).map(|last| stale_end + last + 1);
        let mut leftover = Leftover { bytes: used.unwrap_or(self.end) - self.end, ..Leftover::default() };
        let rest = self.region.read(self.end, size - self.end);
        if let Some(bytes) = begun_record_bytes(self.header.salt, self.end, rest) {
            leftover.bytes = leftover.bytes.max(bytes.min(rest.len()));
        }
        for offset in (self.end..used.unwrap_or(stale_end)).step_by(RECORD_ALIGN_BYTES) {
            let behind = offset - self.end;
            match self.probe(offset) {
                // The records before it, which are damaged, have smaller numbers.
                Probe::Valid(record) if record.entry.index() >= self.next_index() => {
                    leftover.synced_upto = leftover.synced_upto.max(record.synced_upto);
                    leftover.bytes = leftover.bytes.max(behind + record_bytes(record.entry.bytes().len()));
                }
                Probe::Newer => leftover.bytes = leftover.bytes.max(behind + SMALLEST_RECORD_BYTES),
                Probe::Valid(_) | Probe::Invalid => {}
            }
        }
        leftover.bytes = leftover.bytes.min(rest.len());
        leftover
    }

    /// Writes zeros from the end over the next `bytes`, so that nothing there is taken for a record once more.
    pub(crate) fn clear_behind_end(&mut self, bytes: usize) -> io::Result<()> {
        let zeros = vec![0; CHUNK_BYTES.min(bytes)];
        let mut done = 0;
        while done < bytes {
            let len = zeros.len().min(bytes - done);
            self.region.write_at(self.end + done, &zeros[..len])?;
            done += len;
        }
        Ok(())
    }

    /// Writes the records from `index` to the end once more, and returns how many bytes that is. What is read may come
    /// from the cache of a kernel that failed to write it to the disk; only writing it again makes a sync reach it.
    pub(crate) fn rewrite_from(&mut self, index: Index) -> io::Result<usize> {
        let position = index.0.saturating_sub(self.header.base_index.0);
        let Some(place) = usize::try_from(position).ok().and_then(|position| self.places.get(position))
        else {
            return Ok(0);
        };
        let start = *place as usize * RECORD_ALIGN_BYTES;
        let mut offset = start;
        while offset < self.end {
            let len = CHUNK_BYTES.min(self.end - offset);
            let chunk = self.region.read(offset, len).to_vec();
            self.region.write_at(offset, &chunk)?;
            offset += len;
        }
        Ok(self.end - start)
    }

    /// Where the record of `index` begins. The caller knows that it is here.
    pub(crate) fn offset(&self, index: Index) -> usize {
        let position = usize::try_from(index.0 - self.header.base_index.0).expect("places fit in memory");
        self.places[position] as usize * RECORD_ALIGN_BYTES
    }

    /// The bytes from the entry of `index` to the end of its record. Not checked.
    pub(crate) fn entry_bytes(&self, index: Index) -> &[u8] {
        let offset = self.offset(index);
        let next = index.next();
        let end = if next < self.next_index() { self.offset(next) } else { self.end };
        let (start, written) = (offset + RECORD_PREFIX_BYTES, self.end - self.unwritten.len());
        if offset < written {
            self.region.read(start, end - start)
        } else {
            &self.unwritten[start - written..end - written]
        }
    }

    /// Bytes of the records of entries up to `last`.
    pub(crate) fn bytes_up_to(&self, last: Index) -> usize {
        let end = if last.next() >= self.next_index() {
            self.end
        } else if last < self.header.base_index {
            SEGMENT_HEADER_BYTES
        } else {
            self.offset(last.next())
        };
        end - SEGMENT_HEADER_BYTES
    }

    /// Bytes of space that the records of entries behind `covered` take: those of a sealed segment without any other
    /// entry count as the whole file.
    pub(crate) fn bytes_behind(&self, covered: Index, is_sealed: bool) -> usize {
        if is_sealed && self.header.base_index > covered {
            return self.region.size();
        }
        self.end - SEGMENT_HEADER_BYTES - self.bytes_up_to(covered)
    }

    /// The file's size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.region.size()
    }

    /// The crc of the written record of `index`, `None` when it is damaged.
    pub(crate) fn checked_crc(&self, index: Index) -> Option<u32> {
        match self.probe(self.offset(index)) {
            Probe::Valid(record) if record.entry.index() == index => Some(record.crc),
            _ => None,
        }
    }

    /// Whether the header is still what was written.
    pub(crate) fn is_header_sound(&self, owner: Owner) -> bool {
        SegmentHeader::decode(&self.region, owner) == Ok(self.header)
    }

    /// What lies at the place of the written record of `index`.
    pub(crate) fn record(&self, index: Index) -> Probe<'_> {
        self.probe(self.offset(index))
    }

    /// Bytes of the record of `index`.
    pub(crate) fn record_len(&self, index: Index) -> usize {
        let next = index.next();
        let end = if next < self.next_index() { self.offset(next) } else { self.end };
        end - self.offset(index)
    }

    /// Forgets the entries behind `last_kept`. Nothing is changed on disk, and no record follows in this segment.
    pub(crate) fn forget_behind(&mut self, last_kept: Index) {
        assert!(self.unwritten.is_empty(), "entries are removed from synced segments only");
        let kept = (last_kept.0 + 1).saturating_sub(self.header.base_index.0);
        let kept = usize::try_from(kept).expect("places fit in memory");
        if kept < self.places.len() {
            self.end = self.places[kept] as usize * RECORD_ALIGN_BYTES;
            self.places.truncate(kept);
        }
    }

    /// Hands the newest records to the kernel.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        let written = self.end - self.unwritten.len();
        self.region.write_at(written, &self.unwritten)?;
        self.unwritten.clear();
        // One large record must not keep its memory for ever.
        self.unwritten.shrink_to(2 * crate::limits::LOG_BUFFER_BYTES_MAX);
        Ok(())
    }

    /// Makes everything handed to the kernel durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.region.sync()
    }

    /// Says that no record follows; everything is synced.
    pub(crate) fn seal(&mut self) {
        assert!(self.unwritten.is_empty(), "a sealed segment is wholly durable");
        self.unwritten = Vec::new();
        self.places.shrink_to_fit();
        self.region.seal();
    }
}

/// The size of a file that holds one record for an entry of `entry_bytes`, if that is more than `usual`.
pub(crate) fn segment_size_for(entry_bytes: usize, usual: usize) -> usize {
    usual.max((SEGMENT_HEADER_BYTES + record_bytes(entry_bytes)).next_multiple_of(SEGMENT_HEADER_BYTES))
}

const _: () =
    assert!(ENTRY_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES), "an empty entry needs no padding");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        assert_eq!(segment_name(7), "seg-0000000007.log");
        assert_eq!(parse_segment_name("seg-0000000007.log"), Some(Ok(7)));
        assert_eq!(parse_segment_name("seg-7.log"), Some(Err(())));
        assert_eq!(parse_segment_name("seg-0000000007 (copy).log"), Some(Err(())));
        assert_eq!(parse_segment_name("hard-state"), None);
    }

    /// A record larger than a segment gets a file of whole blocks that it just fits in.
    #[test]
    fn a_large_record_gets_a_file_of_its_own_size() {
        assert_eq!(segment_size_for(100, 16 << 10), 16 << 10);
        assert_eq!(segment_size_for(12 * 1024 - 16, 16 << 10), 16 << 10);
        assert_eq!(segment_size_for(12 * 1024 - 15, 16 << 10), 20 << 10);
    }
}
