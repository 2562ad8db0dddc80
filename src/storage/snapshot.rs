//! A snapshot file: what all entries up to one come to, in a form that storage does not look into.
//!
//! ```text
//!  0                  48           56          64              72            76          80
//!  | stamp (KEVASNAP) | last index | last term | content bytes | content crc | table crc | zeros |
//!  4096
//!  | content | zeros to a multiple of 8 | table: the crc of each chunk of the content | anything |
//! ```
//!
//! All numbers are little-endian, all checksums CRC-32C. The file may be longer than it needs to be, and behind the
//! table there may be bytes of an earlier life of it: nothing looks there. Within the content and the table no such
//! byte passes, because the header covers the table and the table the content. The header is written last, and the
//! file has its name only afterwards.

use crate::limits::{COUNTER_MAX, SNAPSHOT_BYTES_MAX, SNAPSHOT_CHUNK_BYTES};
use crate::raft::storage::{SnapshotMeta, StorageError};
use crate::raft::types::{EntryId, Index, Term};
use crate::storage::region::Region;
use crate::storage::stamp::{Owner, StampError, check_stamp, put, stamp, u32_at, u64_at};
use crate::util::mutation::mutant;

/// Bytes in front of the content.
pub(crate) const SNAPSHOT_HEADER_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"KEVASNAP";
const NAME_PREFIX: &str = "snap-";
const NAME_SUFFIX: &str = ".snap";
/// The table begins at a multiple of this.
const TABLE_ALIGN_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

/// What a snapshot file says about itself, besides its owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SnapshotHeader {
    pub(crate) meta: SnapshotMeta,
    /// The crc of the table of crcs.
    pub(crate) table_crc: u32,
}

/// A whole snapshot, checked once from beginning to end, and again wherever it is read.
#[derive(Debug)]
pub(crate) struct SnapshotFile<R> {
    meta: SnapshotMeta,
    region: R,
    path: String,
}

/// The file name of the snapshot up to `last`.
pub(crate) fn snapshot_name(last: EntryId) -> String {
    format!("{NAME_PREFIX}{:020}-{:020}{NAME_SUFFIX}", last.index.0, last.term.0)
}

/// The last entry in a snapshot's file name: `None` for other files, an error for a name that only resembles one.
pub(crate) fn parse_snapshot_name(name: &str) -> Option<Result<EntryId, ()>> {
    let numbers = name.strip_prefix(NAME_PREFIX)?.strip_suffix(NAME_SUFFIX)?;
    let last = numbers
        .split_once('-')
        .and_then(|(index, term)| Some(EntryId::new(Term(term.parse().ok()?), Index(index.parse().ok()?))));
    Some(last.filter(|last| snapshot_name(*last) == name).ok_or(()))
}

/// Where the table of crcs begins, behind a content of `bytes`.
fn table_offset(bytes: u64) -> usize {
    assert!(bytes <= SNAPSHOT_BYTES_MAX, "sizes are checked where they come in");
    let content = usize::try_from(bytes).expect("a file that is mapped fits in the address space");
    (SNAPSHOT_HEADER_BYTES + content).next_multiple_of(TABLE_ALIGN_BYTES)
}

/// How many chunks a content of `bytes` has.
fn chunks(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(SNAPSHOT_CHUNK_BYTES as u64)).expect("fewer than there are bytes")
}

/// Bytes of the chunk at `offset` in a content of `bytes`.
pub(crate) fn chunk_bytes(offset: u64, bytes: u64) -> usize {
    usize::try_from(bytes.saturating_sub(offset))
        .map_or(SNAPSHOT_CHUNK_BYTES, |rest| rest.min(SNAPSHOT_CHUNK_BYTES))
}

/// The size of the smallest file that a content of `bytes` fits in.
pub(crate) fn snapshot_file_bytes(bytes: u64) -> usize {
    table_offset(bytes) + chunks(bytes) * CRC_BYTES
}

/// Where a part of the content lies in its file.
pub(crate) fn content_offset(offset: u64) -> usize {
    SNAPSHOT_HEADER_BYTES + usize::try_from(offset).expect("a file that is mapped fits in the address space")
}

/// The table of these crcs, and where it goes behind a content of `bytes`.
pub(crate) fn encode_table(crcs: &[u32], bytes: u64) -> (usize, Vec<u8>) {
    (table_offset(bytes), crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect())
}

impl SnapshotHeader {
    pub(crate) fn encode(&self, owner: Owner) -> Vec<u8> {
        let mut block = vec![0; SNAPSHOT_HEADER_BYTES];
        put(&mut block, 48, &self.meta.last.index.0.to_le_bytes());
        put(&mut block, 56, &self.meta.last.term.0.to_le_bytes());
        put(&mut block, 64, &self.meta.bytes.to_le_bytes());
        put(&mut block, 72, &self.meta.crc.to_le_bytes());
        put(&mut block, 76, &self.table_crc.to_le_bytes());
        stamp(&mut block, MAGIC, owner);
        block
    }

    /// Reads the header of a whole snapshot file.
    pub(crate) fn decode(region: &impl Region, owner: Owner) -> Result<SnapshotHeader, StampError> {
        if region.size() < SNAPSHOT_HEADER_BYTES {
            return Err(StampError::Damaged);
        }
        let block = region.read(0, SNAPSHOT_HEADER_BYTES);
        check_stamp(block, MAGIC, owner)?;
        let (index, term, bytes) = (u64_at(block, 48), u64_at(block, 56), u64_at(block, 64));
        let meta =
            SnapshotMeta { last: EntryId::new(Term(term), Index(index)), bytes, crc: u32_at(block, 72) };
        let sound = (1..=COUNTER_MAX).contains(&index)
            && term <= COUNTER_MAX
            && (1..=SNAPSHOT_BYTES_MAX).contains(&bytes)
            && snapshot_file_bytes(bytes) <= region.size();
        let header = SnapshotHeader { meta, table_crc: u32_at(block, 76) };
        if sound { Ok(header) } else { Err(StampError::Damaged) }
    }
}

impl<R: Region> SnapshotFile<R> {
    /// A file that was just written and read back.
    pub(crate) fn new(meta: SnapshotMeta, region: R, path: String) -> SnapshotFile<R> {
        SnapshotFile { meta, region, path }
    }

    /// Reads the whole file. Nothing follows in it, so what is needed for writing is given back.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when it is not what was written. [`StorageError::Refused`] when it is somebody else's, a
    /// newer Keva's, or has the name of another one.
    pub(crate) fn open(
        mut region: R,
        last: EntryId,
        owner: Owner,
        path: String,
        others: &[EntryId],
    ) -> Result<SnapshotFile<R>, StorageError> {
        region.seal();
        let header = SnapshotHeader::decode(&region, owner)
            .map_err(|error| error.explain(path.clone(), 0, "the snapshot's header", owner))?;
        if header.meta.last != last && others.contains(&header.meta.last) {
            // That one is there, too, so nobody has mixed up names: the disk has put a block in the wrong place.
            let detail = format!(
                "here is the header of snapshot {}, which is not what was written there",
                header.meta.last
            );
            return Err(StorageError::Damaged { file: path, offset: 0, detail });
        }
        if header.meta.last != last {
            return Err(StorageError::Refused(format!(
                "{path} is the snapshot up to {}, under a wrong name: give each snap-*.snap its own name back",
                header.meta.last
            )));
        }
        let file = SnapshotFile { meta: header.meta, region, path };
        let (offset, table) = (table_offset(file.meta.bytes), chunks(file.meta.bytes) * CRC_BYTES);
        if crc32c::crc32c(file.region.read(offset, table)) != header.table_crc {
            return Err(file.damaged(offset, "the table of checksums"));
        }
        for chunk in 0..chunks(file.meta.bytes) {
            file.chunk((chunk * SNAPSHOT_CHUNK_BYTES) as u64)?;
        }
        Ok(file)
    }

    pub(crate) fn meta(&self) -> SnapshotMeta {
        self.meta
    }

    /// The file's size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.region.size()
    }

    /// See [`Region::release`].
    pub(crate) fn release(&self, offset: usize, len: usize) {
        self.region.release(offset, len);
    }

    /// A part of the content, from the beginning of a chunk on, checked.
    ///
    /// # Panics
    /// When there is no such part.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        let bytes = self.meta.bytes;
        let inside = offset < bytes && len <= chunk_bytes(offset, bytes);
        assert!(
            inside && offset.is_multiple_of(SNAPSHOT_CHUNK_BYTES as u64),
            "{len} bytes at {offset} are no part of a chunk of a snapshot of {bytes} bytes"
        );
        self.chunk(offset).map(|chunk| &chunk[..len])
    }

    fn chunk(&self, offset: u64) -> Result<&[u8], StorageError> {
        let place = content_offset(offset);
        let chunk = self.region.read(place, chunk_bytes(offset, self.meta.bytes));
        let number = (place - SNAPSHOT_HEADER_BYTES) / SNAPSHOT_CHUNK_BYTES;
        let crc = self.region.read(table_offset(self.meta.bytes) + number * CRC_BYTES, CRC_BYTES);
        if crc32c::crc32c(chunk) == u32_at(crc, 0) || mutant("snapshot-not-checked") {
            Ok(chunk)
        } else {
            Err(self.damaged(place, &format!("the chunk from byte {offset} on of its content")))
        }
    }

    fn damaged(&self, offset: usize, what: &str) -> StorageError {
        StorageError::Damaged {
            file: self.path.clone(),
            offset: offset as u64,
            detail: format!(
                "{what} is not what was written there, in the snapshot of everything up to entry {}",
                self.meta.last.index
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        let last = EntryId::new(Term(3), Index(1200));
        let name = "snap-00000000000000001200-00000000000000000003.snap";
        assert_eq!(snapshot_name(last), name);
        assert_eq!(parse_snapshot_name(name), Some(Ok(last)));
        assert_eq!(parse_snapshot_name("snap-1200-3.snap"), Some(Err(())));
        assert_eq!(parse_snapshot_name("snap-x.snap"), Some(Err(())));
        assert_eq!(parse_snapshot_name("seg-0000000007.log"), None);
    }

    #[test]
    fn the_last_chunk_may_be_short() {
        let chunk = SNAPSHOT_CHUNK_BYTES as u64;
        assert_eq!((chunks(1), chunks(chunk), chunks(chunk + 1)), (1, 1, 2));
        assert_eq!((chunk_bytes(0, 1), chunk_bytes(chunk, chunk + 7)), (1, 7));
        assert_eq!(snapshot_file_bytes(1), 4096 + 8 + 4);
        assert_eq!(snapshot_file_bytes(2 * chunk), 4096 + 2 * SNAPSHOT_CHUNK_BYTES + 8);
    }
}
