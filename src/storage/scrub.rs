//! Reading everything now and then, to find damage while the other nodes can still mend it.
//!
//! One pass goes through the segments, oldest first, up to the last record that is durable: each header, each record's
//! checksums, and the chain from one to the next. Then come the newest snapshot's chunks and both copies of the hard
//! state. Then it rests. Nothing is written.
//!
//! What the kernel holds in its cache is read from there: a pass finds what rots in memory, and what rots on the disk as
//! soon as the cache has let go of it. What the cache still has is undamaged for everyone who reads it, and is read from
//! the disk at the next start, all of it, before the node says a word.

use crate::limits::SCRUB_PAUSE_CALLS;
use crate::raft::storage::StorageError;
use crate::raft::types::{EntryId, Index};
use crate::storage::directory::Directory;
use crate::storage::hard_state::HardStateFile;
use crate::storage::log::Log;
use crate::storage::record::Probe;
use crate::storage::region::Region;
use crate::storage::segment::{SEGMENT_HEADER_BYTES, Segment, segment_name};
use crate::storage::snapshot::chunk_bytes;
use crate::storage::snapshots::Snapshots;

/// How far the pass is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scrub {
    /// Before the segment with this number, or a later one when it is gone.
    Segment { seq: u64 },
    /// Inside it: `next` is to be checked, and the record before it has this crc.
    Record { seq: u64, next: Index, last_crc: u32 },
    /// Before this byte of the content of the snapshot up to this entry.
    Snapshot { last: EntryId, offset: u64 },
    /// Before the hard state.
    HardState,
    /// After a pass, with so many calls left until the next one.
    Rest { calls: u32 },
}

impl Scrub {
    /// A pass from the beginning.
    pub(crate) fn start() -> Scrub {
        Scrub::Segment { seq: 0 }
    }

    /// Reads about `budget` bytes.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when something is not what was written.
    pub(crate) fn advance<D: Directory>(
        &mut self,
        log: &Log<D>,
        snapshots: &Snapshots<D::Region>,
        hard_state: &HardStateFile<D::Region>,
        budget: usize,
    ) -> Result<(), StorageError> {
        let mut left = budget;
        while left > 0 {
            let used = match *self {
                Scrub::Segment { seq } => self.begin_segment(log, seq)?,
                Scrub::Record { seq, next, last_crc } => self.read_record(log, seq, next, last_crc)?,
                Scrub::Snapshot { last, offset } => self.read_chunk(snapshots, last, offset)?,
                Scrub::HardState => {
                    hard_state.check_copies()?;
                    *self = Scrub::Rest { calls: SCRUB_PAUSE_CALLS };
                    return Ok(());
                }
                Scrub::Rest { calls: 0 } => {
                    *self = Scrub::start();
                    return Ok(());
                }
                Scrub::Rest { calls } => {
                    *self = Scrub::Rest { calls: calls - 1 };
                    return Ok(());
                }
            };
            left = left.saturating_sub(used);
        }
        Ok(())
    }

    /// Checks the header of the first segment from `seq` on. Returns the bytes read.
    fn begin_segment<D: Directory>(&mut self, log: &Log<D>, seq: u64) -> Result<usize, StorageError> {
        let Some(segment) = segment_from(log, seq) else {
            *self = Scrub::Snapshot { last: EntryId::default(), offset: 0 };
            return Ok(0);
        };
        let header = *segment.header();
        if !segment.is_header_sound(log.owner()) {
            return Err(damaged(log, segment, 0, "its header is not what was written there".into()));
        }
        *self = Scrub::Record { seq: header.seq, next: header.base_index, last_crc: header.chain_crc };
        Ok(SEGMENT_HEADER_BYTES)
    }

    /// Checks one record.
    fn read_record<D: Directory>(
        &mut self,
        log: &Log<D>,
        seq: u64,
        next: Index,
        last_crc: u32,
    ) -> Result<usize, StorageError> {
        let segment = segment_from(log, seq).filter(|segment| segment.header().seq == seq);
        // What is not synced yet may not even be written.
        let end = |segment: &Segment<D::Region>| segment.next_index().min(log.durable_mark().index.next());
        let Some(segment) = segment.filter(|segment| next < end(segment)) else {
            *self = Scrub::Segment { seq: seq + 1 };
            return Ok(0);
        };
        match segment.record(next) {
            Probe::Valid(record) if record.entry.index() == next && record.prev_crc == last_crc => {
                *self = Scrub::Record { seq, next: next.next(), last_crc: record.crc };
                Ok(segment.record_len(next))
            }
            _ => {
                let last = last_damaged(segment, next, end(segment));
                let what = format!("the entries {next} to {last} are not what was written there any more");
                Err(damaged(log, segment, segment.offset(next), what))
            }
        }
    }

    /// Checks one chunk of the newest snapshot; the first one of it when there is a newer one than before.
    fn read_chunk<R: Region>(
        &mut self,
        snapshots: &Snapshots<R>,
        last: EntryId,
        offset: u64,
    ) -> Result<usize, StorageError> {
        let Some(meta) = snapshots.meta() else {
            *self = Scrub::HardState;
            return Ok(0);
        };
        let offset = if meta.last == last { offset } else { 0 };
        if offset >= meta.bytes {
            *self = Scrub::HardState;
            return Ok(0);
        }
        let len = chunk_bytes(offset, meta.bytes);
        snapshots.read(offset, len)?;
        *self = Scrub::Snapshot { last: meta.last, offset: offset + len as u64 };
        Ok(len)
    }
}

/// The first segment with this number or a larger one.
fn segment_from<D: Directory>(log: &Log<D>, seq: u64) -> Option<&Segment<D::Region>> {
    let before = log.segments().partition_point(|segment| segment.header().seq < seq);
    log.segments().get(before)
}

/// The last of the damaged records from `first` on; `end` is behind the last record.
fn last_damaged<R: Region>(segment: &Segment<R>, first: Index, end: Index) -> Index {
    let rest = (first.0 + 1..end.0).map(Index);
    rest.take_while(|index| !matches!(segment.record(*index), Probe::Valid(_))).last().unwrap_or(first)
}

fn damaged<D: Directory>(
    log: &Log<D>,
    segment: &Segment<D::Region>,
    offset: usize,
    detail: String,
) -> StorageError {
    let file = log.directory().path(&segment_name(segment.header().seq));
    StorageError::Damaged { file, offset: offset as u64, detail }
}
