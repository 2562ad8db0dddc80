//! A snapshot in the making: written from front to back, made durable piece by piece, and read back from the disk behind
//! that, so that neither a part nor the end of it takes long. No step takes more than one sync.

use std::io;

use crate::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_SYNC_BYTES};
use crate::raft::storage::{SnapshotDraft, SnapshotMeta};
use crate::raft::types::EntryId;
use crate::storage::region::{Region, Unreadable};
use crate::storage::snapshot::{
    SNAPSHOT_HEADER_BYTES, SnapshotHeader, chunk_bytes, content_offset, encode_table,
};
use crate::storage::stamp::Owner;
use crate::util::mutation::mutant;

/// What the file is called while it is written, and while it waits for the next draft.
pub(crate) const SNAPSHOT_TEMPORARY: &str = "snapshot.tmp";

/// A draft and its file.
#[derive(Debug)]
pub(crate) struct Draft<R> {
    region: R,
    last: EntryId,
    bytes: u64,
    written: u64,
    /// Everything up to here is durable.
    synced: u64,
    /// Everything up to here was read back: whole chunks.
    verified: u64,
    /// Of everything written.
    crc: u32,
    /// Of each chunk written, the last one perhaps in part.
    chunk_crcs: Vec<u32>,
    table_written: bool,
    /// What was read back was something else, or nothing.
    damaged: bool,
    /// Header and all are durable and read back: only the name is missing.
    sound: bool,
}

/// How far the check of a whole draft is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DraftCheck {
    More,
    Sound,
    Damaged,
}

impl<R: Region> Draft<R> {
    /// An empty draft of `bytes` in a file that is large enough, whatever it holds.
    pub(crate) fn new(region: R, last: EntryId, bytes: u64) -> Draft<R> {
        Draft {
            region,
            last,
            bytes,
            written: 0,
            synced: 0,
            verified: 0,
            crc: 0,
            chunk_crcs: Vec::new(),
            table_written: false,
            damaged: false,
            sound: false,
        }
    }

    pub(crate) fn state(&self) -> SnapshotDraft {
        SnapshotDraft { last: self.last, bytes: self.bytes, written: self.written }
    }

    /// What the snapshot will be; only of a draft that is whole.
    pub(crate) fn meta(&self) -> SnapshotMeta {
        assert_eq!(self.written, self.bytes, "only a whole draft is finished");
        SnapshotMeta { last: self.last, bytes: self.bytes, crc: self.crc }
    }

    /// Whether [`Draft::check`] said so.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound
    }

    /// Whether the disk gave back something else than was written.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Gives the file away.
    pub(crate) fn into_region(self) -> R {
        self.region
    }

    /// Writes the next part, and reads about as much of what is durable back.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = self.bytes - self.written;
        assert!(bytes.len() as u64 <= room, "{} bytes for a draft with room for {room}", bytes.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let unsynced = usize::try_from(self.written - self.synced).expect("at most what one sync takes");
            let (part, behind) = rest.split_at(rest.len().min(SNAPSHOT_SYNC_BYTES - unsynced));
            self.region.write_at(content_offset(self.written), part)?;
            self.note_crcs(part);
            self.written += part.len() as u64;
            rest = behind;
            if self.written - self.synced == SNAPSHOT_SYNC_BYTES as u64 {
                self.sync()?;
            }
        }
        self.verify(bytes.len())
    }

    fn note_crcs(&mut self, mut part: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, part);
        let mut offset = self.written;
        while !part.is_empty() {
            let filled = usize::try_from(offset % SNAPSHOT_CHUNK_BYTES as u64).expect("less than a chunk");
            let (now, rest) = part.split_at(part.len().min(SNAPSHOT_CHUNK_BYTES - filled));
            if filled == 0 {
                self.chunk_crcs.push(0);
            }
            let crc = self.chunk_crcs.last_mut().expect("every chunk that was begun has a crc");
            *crc = crc32c::crc32c_append(*crc, now);
            offset += now.len() as u64;
            part = rest;
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if !mutant("snapshot-not-synced") {
            self.region.sync()?;
        }
        self.synced = self.written;
        Ok(())
    }

    /// Has what is read next come from the disk, and says whether it can be read. This alone may write what is dirty, so a
    /// missing sync shows only without.
    fn reload(&mut self, offset: usize, len: usize) -> io::Result<bool> {
        if mutant("snapshot-not-synced") || mutant("snapshot-named-before-header") {
            return Ok(true);
        }
        match self.region.reload(offset, len) {
            Ok(()) => Ok(true),
            Err(error) if Unreadable::find(&error).is_some_and(Unreadable::is_damage) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads durable chunks back, of `budget` bytes or a little more.
    fn verify(&mut self, budget: usize) -> io::Result<()> {
        let mut read = 0;
        while read < budget && self.verified < self.bytes && !self.damaged {
            let len = chunk_bytes(self.verified, self.bytes);
            if self.verified + len as u64 > self.synced {
                break;
            }
            let place = content_offset(self.verified);
            let expected = self.chunk_crcs[(place - SNAPSHOT_HEADER_BYTES) / SNAPSHOT_CHUNK_BYTES];
            let is_there = self.reload(place, len)?;
            self.damaged = !is_there || crc32c::crc32c(self.region.read(place, len)) != expected;
            self.region.release(place, len);
            self.verified += len as u64;
            read += len;
        }
        Ok(())
    }

    /// Makes the whole draft durable and reads it back, about `budget` bytes. When it says that the draft is sound,
    /// all that is missing is the name.
    pub(crate) fn check(&mut self, owner: Owner, budget: usize) -> io::Result<DraftCheck> {
        let meta = self.meta();
        if self.sound {
            return Ok(DraftCheck::Sound);
        }
        if !self.table_written {
            let (place, table) = encode_table(&self.chunk_crcs, self.bytes);
            self.region.write_at(place, &table)?;
            self.sync()?;
            self.table_written = true;
            if budget < usize::MAX {
                return Ok(DraftCheck::More);
            }
        }
        self.verify(budget)?;
        if self.damaged {
            return Ok(DraftCheck::Damaged);
        }
        if self.verified < self.bytes {
            return Ok(DraftCheck::More);
        }
        let (place, table) = encode_table(&self.chunk_crcs, self.bytes);
        let header = SnapshotHeader { meta, table_crc: crc32c::crc32c(&table) };
        self.region.write_at(0, &header.encode(owner))?;
        if !mutant("snapshot-named-before-header") {
            self.sync()?;
        }
        self.sound = self.reload(0, SNAPSHOT_HEADER_BYTES)?
            && self.reload(place, table.len())?
            && SnapshotHeader::decode(&self.region, owner) == Ok(header)
            && self.region.read(place, table.len()) == table;
        self.damaged = !self.sound;
        Ok(if self.sound { DraftCheck::Sound } else { DraftCheck::Damaged })
    }
}
