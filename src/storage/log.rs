//! The log: its segments in order, and how a new one is begun.
//!
//! In memory there is one `u32` per entry and one pair per run of equal terms; the entries themselves are read from
//! the segments' maps.

use crate::limits::{LOG_BUFFER_BYTES_MAX, SPARE_BYTES_PER_LOG_BYTE};
use crate::raft::entry::Entry;
use crate::raft::storage::{Purpose, StorageError};
use crate::raft::types::{EntryId, Incarnation, Index, Term};
use crate::storage::directory::{Directory, io_error, publish};
use crate::storage::hard_state::DurableMark;
use crate::storage::record::{Salt, record_bytes};
use crate::storage::recovery::RecoveredLog;
use crate::storage::region::Region;
use crate::storage::retired::Retired;
use crate::storage::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, segment_name};
use crate::storage::spare::{NewFile, Spare, SpareProgress};
use crate::storage::stamp::{Owner, u64_at};
use crate::storage::term_runs::TermRuns;
use crate::util::mutation::mutant;
use crate::util::rng::Rng;

/// What every new segment needs to know.
#[derive(Debug)]
pub(crate) struct SegmentMaker {
    pub(crate) owner: Owner,
    pub(crate) incarnation: Incarnation,
    /// Size of a usual segment.
    pub(crate) segment_bytes: usize,
    /// Bytes of entries under the newest snapshot that stay.
    pub(crate) log_margin_bytes: u64,
    /// For the salts.
    pub(crate) rng: Rng,
}

/// Where a new segment begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentStart {
    pub(crate) seq: u64,
    pub(crate) base_index: Index,
    pub(crate) base_term: Term,
    pub(crate) chain_crc: u32,
    /// Entries from here on are void in all older segments.
    pub(crate) valid_from: Index,
}

/// The entries on disk.
///
/// Invariants: `segments` is never empty, and the last one takes the appends. Only the last may be without records.
/// Base indexes increase. Every segment but the last is durable to its last record.
#[derive(Debug)]
pub(crate) struct Log<D: Directory> {
    directory: D,
    maker: SegmentMaker,
    segments: Vec<Segment<D::Region>>,
    terms: TermRuns,
    /// Everything up to here survives a crash.
    durable_index: Index,
    spare: Spare<D::Region>,
    retired: Retired<D::Region>,
}

impl SegmentMaker {
    /// Writes the header, and gives the file its name, durably.
    pub(crate) fn make<D: Directory>(
        &mut self,
        directory: &mut D,
        file: NewFile<D::Region>,
        start: SegmentStart,
    ) -> Result<Segment<D::Region>, StorageError> {
        let NewFile { mut region, name: temporary, stale_end } = file;
        let mut salt = Salt::new(start.seq, self.rng.next_u64());
        if stale_end > 0 && mutant("recycled-keeps-salt") {
            salt = Salt(u64_at(region.read(0, SEGMENT_HEADER_BYTES), 88));
        }
        let size = |bytes: usize| u32::try_from(bytes).expect("entries are far smaller than 4 GiB");
        let header = SegmentHeader {
            seq: start.seq,
            incarnation: self.incarnation,
            base_index: start.base_index,
            base_term: start.base_term,
            valid_from: start.valid_from,
            salt,
            chain_crc: start.chain_crc,
            size: size(region.size()),
            stale_end: size(stale_end),
        };
        region
            .write_at(0, &header.encode(self.owner))
            .map_err(io_error("write", directory.path(&temporary)))?;
        publish(directory, &mut region, &temporary, &segment_name(start.seq))?;
        Ok(Segment::new(header, region))
    }

    /// The first segment of an empty log, with this number, in one of these files.
    pub(crate) fn make_first<D: Directory>(
        &mut self,
        directory: &mut D,
        spare: &mut Spare<D::Region>,
        seq: u64,
    ) -> Result<Segment<D::Region>, StorageError> {
        let start = SegmentStart {
            seq,
            base_index: Index(1),
            base_term: Term(0),
            chain_crc: 0,
            valid_from: Index(1),
        };
        let file = spare.take(directory, 0)?;
        self.make(directory, file, start)
    }
}

impl<D: Directory> Log<D> {
    /// The log over what recovery found, all of it durable, and over the files for segments to come.
    pub(crate) fn new(
        directory: D,
        maker: SegmentMaker,
        recovered: RecoveredLog<D::Region>,
        spare: Spare<D::Region>,
    ) -> Log<D> {
        let RecoveredLog { segments, terms, .. } = recovered;
        let retired = Retired::none(maker.segment_bytes);
        let mut log = Log { directory, maker, segments, terms, durable_index: Index(0), spare, retired };
        log.durable_index = log.last_index();
        log
    }

    pub(crate) fn owner(&self) -> Owner {
        self.maker.owner
    }

    pub(crate) fn directory(&self) -> &D {
        &self.directory
    }

    pub(crate) fn directory_mut(&mut self) -> &mut D {
        &mut self.directory
    }

    /// The entry before the first one.
    pub(crate) fn start(&self) -> EntryId {
        let first = self.segments[0].header();
        EntryId::new(first.base_term, first.base_index.prev())
    }

    pub(crate) fn last_index(&self) -> Index {
        self.active().next_index().prev()
    }

    /// Bytes of space that the entries behind `covered` take.
    pub(crate) fn bytes_behind(&self, covered: Index) -> u64 {
        let sealed = self.segments.iter().rev().skip(1);
        let sealed = sealed.take_while(|segment| segment.next_index() > covered.next());
        let sealed = sealed.map(|segment| segment.bytes_behind(covered, true) as u64);
        sealed.sum::<u64>() + self.active().bytes_behind(covered, false) as u64
    }

    /// Whether the log has this entry, or begins behind it.
    pub(crate) fn has(&self, id: EntryId) -> bool {
        self.term(id.index) == Some(id.term)
    }

    /// How far the log is durable, and in which segment.
    pub(crate) fn durable_mark(&self) -> DurableMark {
        DurableMark { segment_seq: self.active().header().seq, index: self.durable_index }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.durable_index < self.last_index()
    }

    /// Bytes of records that fit without asking the file system for space.
    pub(crate) fn free_bytes(&self) -> usize {
        self.active().room() + self.spare.size().saturating_sub(SEGMENT_HEADER_BYTES)
    }

    /// The term at `index`, from the start to the last.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        let start = self.start();
        if index == start.index {
            return Some(start.term);
        }
        if index < start.index || index > self.last_index() {
            return None;
        }
        self.terms.term(index)
    }

    /// Reads an entry and checks it.
    pub(crate) fn entry(&self, index: Index) -> Result<Entry<'_>, StorageError> {
        let segment = self.segment_of(index);
        let expected = self.term(index).map(|term| EntryId::new(term, index));
        match Entry::decode(segment.entry_bytes(index)) {
            Ok(entry) if Some(entry.id()) == expected => Ok(entry),
            Ok(entry) => {
                Err(self.damaged(index, &format!("entry {index} was expected there, not {}", entry.id())))
            }
            Err(error) => Err(self.damaged(index, &format!("entry {index} cannot be read: {error}"))),
        }
    }

    fn damaged(&self, index: Index, what: &str) -> StorageError {
        let segment = self.segment_of(index);
        StorageError::Damaged {
            file: self.directory.path(&segment_name(segment.header().seq)),
            offset: segment.offset(index) as u64,
            detail: what.to_owned(),
        }
    }

    fn active(&self) -> &Segment<D::Region> {
        self.segments.last().expect("a log has at least one segment")
    }

    fn active_mut(&mut self) -> &mut Segment<D::Region> {
        self.segments.last_mut().expect("a log has at least one segment")
    }

    fn active_path(&self) -> String {
        self.directory.path(&segment_name(self.active().header().seq))
    }

    /// The segment that holds `index`.
    fn segment_of(&self, index: Index) -> &Segment<D::Region> {
        let after = self.segments.partition_point(|segment| segment.header().base_index <= index);
        let segment = after.checked_sub(1).map(|position| &self.segments[position]);
        let holds = index <= self.last_index();
        segment.filter(|_| holds).unwrap_or_else(|| panic!("entry {index} is not in the log"))
    }

    /// Adds an entry behind the last one.
    pub(crate) fn append(&mut self, entry: Entry<'_>) -> Result<(), StorageError> {
        assert_eq!(entry.index(), self.last_index().next(), "appends leave no gap");
        let last_term = self.term(self.last_index()).expect("the last term is known");
        assert!(entry.term() >= last_term, "terms never go back: {} behind term {last_term}", entry.id());
        if record_bytes(entry.bytes().len()) > self.active().room() {
            self.rotate(entry.bytes().len())?;
        }
        let synced_upto = self.durable_index;
        self.active_mut().push(entry, synced_upto);
        self.terms.push(entry.id());
        if self.active().unwritten_bytes() >= LOG_BUFFER_BYTES_MAX { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StorageError> {
        let path = self.active_path();
        self.active_mut().write().map_err(io_error("write", path))
    }

    /// Makes everything appended durable: one write, one sync.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        if self.is_dirty() {
            self.write()?;
            let path = self.active_path();
            let result = self.active_mut().sync();
            let result = if mutant("failed-sync-repeated") {
                result.or_else(|_| self.active_mut().sync())
            } else {
                result
            };
            result.map_err(io_error("sync", path))?;
            self.durable_index = self.last_index();
        }
        Ok(())
    }

    /// Begins the next segment behind the last entry, large enough for an entry of `entry_bytes`.
    fn rotate(&mut self, entry_bytes: usize) -> Result<(), StorageError> {
        let last = self.last_index();
        let base_term = self.term(last).expect("the last term is known");
        self.begin_segment(last.next(), base_term, self.active().last_crc(), entry_bytes)
    }

    /// Removes every entry behind `last_kept`, durably. Nothing is changed in place: a new segment declares them void.
    /// So at any moment of a crash either all of them are there or none, and none below them is touched.
    pub(crate) fn truncate_suffix(&mut self, last_kept: Index) -> Result<(), StorageError> {
        assert!(last_kept >= self.start().index, "what is removed was in the log");
        if last_kept >= self.last_index() {
            return Ok(());
        }
        // Damage must not be chained to: the crc is that of a record that was just checked. It must be in the file.
        self.sync()?;
        let chain_crc = self.chain_crc(last_kept)?;
        let base_term = self.term(last_kept).expect("kept entries have a term");
        if !mutant("truncate-in-memory") {
            self.begin_segment(last_kept.next(), base_term, chain_crc, 0)?;
        } else {
            self.segments.iter_mut().for_each(|segment| segment.forget_behind(last_kept));
        }
        self.terms.truncate(last_kept);
        self.durable_index = last_kept;
        Ok(())
    }

    fn chain_crc(&self, last_kept: Index) -> Result<u32, StorageError> {
        let first = self.segments[0].header();
        if last_kept < first.base_index {
            return Ok(first.chain_crc);
        }
        let position = self.segments.partition_point(|segment| segment.header().base_index <= last_kept) - 1;
        self.segments[position].checked_crc(last_kept).ok_or_else(|| {
            let segment = &self.segments[position];
            StorageError::Damaged {
                file: self.directory.path(&segment_name(segment.header().seq)),
                offset: segment.offset(last_kept) as u64,
                detail: format!("the record of entry {last_kept} cannot be read"),
            }
        })
    }

    /// Begins a segment at `base`. Everything older is durable first; entries from `base` on are forgotten after.
    fn begin_segment(
        &mut self,
        base_index: Index,
        base_term: Term,
        chain_crc: u32,
        entry_bytes: usize,
    ) -> Result<(), StorageError> {
        if !mutant("rotate-before-sync") {
            self.sync()?;
        }
        let seq = self.active().header().seq + 1;
        let start = SegmentStart { seq, base_index, base_term, chain_crc, valid_from: base_index };
        let file = self.spare.take(&mut self.directory, entry_bytes)?;
        let segment = self.maker.make(&mut self.directory, file, start)?;
        for older in &mut self.segments {
            older.forget_behind(base_index.prev());
        }
        self.active_mut().seal();
        while self.segments.last().is_some_and(Segment::is_empty) {
            let empty = self.segments.pop().expect("just looked at");
            let name = segment_name(empty.header().seq);
            // Not synced: should the file come back after a crash, it is void.
            self.directory.remove(&name).map_err(io_error("remove", self.directory.path(&name)))?;
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Removes everything, durably, and begins a log behind `last`, where a snapshot with `snapshot_bytes` of content ends.
    /// The old segments are void as soon as the new one has its name; so they need not be durable, and none of them comes
    /// back. Their files are left to [`Log::clean_up`].
    pub(crate) fn start_over(&mut self, last: EntryId, snapshot_bytes: u64) -> Result<(), StorageError> {
        let base_index = last.index.next();
        let seq = self.active().header().seq + 1;
        let start =
            SegmentStart { seq, base_index, base_term: last.term, chain_crc: 0, valid_from: Index(0) };
        let file = self.spare.take(&mut self.directory, 0)?;
        let segment = self.maker.make(&mut self.directory, file, start)?;
        let old = std::mem::replace(&mut self.segments, vec![segment]);
        if !mutant("start-over-keeps-terms") {
            self.terms = TermRuns::default();
        }
        self.durable_index = last.index;
        self.retired.add(old, snapshot_bytes);
        Ok(())
    }

    /// Removes the whole segments that hold only entries up to `covered`, but for the margin, from the log; a snapshot
    /// with `snapshot_bytes` of content covers them. Their files are left to [`Log::clean_up`].
    pub(crate) fn remove_covered(&mut self, covered: Index, snapshot_bytes: u64) {
        let mut first_kept = self.segments.len() - 1;
        let mut margin = self.active().bytes_up_to(covered) as u64;
        while let Some(before) = first_kept.checked_sub(1) {
            let segment = &self.segments[before];
            let is_covered = segment.next_index() <= covered.next();
            if is_covered && margin >= self.maker.log_margin_bytes {
                break;
            }
            // With its unused rest: where ends of the log were removed again and again, there are many files with next to
            // nothing in them.
            margin += if is_covered { segment.size() } else { segment.bytes_up_to(covered) } as u64;
            first_kept = before;
        }
        self.retired.add(self.segments.drain(..first_kept), snapshot_bytes);
        self.terms.forget_before(self.segments[0].header().base_index);
    }

    /// Renames or removes one of the files that are not in the log any more, and says whether there was one.
    pub(crate) fn clean_up(&mut self) -> Result<bool, StorageError> {
        self.retired.advance(&mut self.directory, &self.spare)
    }

    /// Whether the names must be synced, and then [`Log::on_names_synced`] be called.
    pub(crate) fn has_new_names(&self) -> bool {
        self.retired.has_new_names()
    }

    /// Says that all names are durable.
    pub(crate) fn on_names_synced(&mut self) {
        self.retired.on_names_synced(&mut self.spare);
    }

    /// Removes a file that would not be used soon, and says whether there was one.
    pub(crate) fn trim(&mut self) -> Result<bool, StorageError> {
        self.retired.trim(&mut self.directory, &mut self.spare)
    }

    /// Whether files wait for [`Log::clean_up`] or [`Log::trim`], or for durable names.
    pub(crate) fn must_clean_up(&self) -> bool {
        self.retired.has_work(&self.spare)
    }

    /// Removes a file that waits to be used again, for space that something else needs, and says whether there was one.
    pub(crate) fn remove_used(&mut self) -> Result<bool, StorageError> {
        self.spare.remove_used(&mut self.directory)
    }

    /// Whether a log that starts over would find a file for its first segment, or make one. `false`: the disk is full.
    pub(crate) fn can_start_over(&mut self) -> Result<bool, StorageError> {
        if self.spare.size() > 0 {
            return Ok(true);
        }
        Ok(self.prepare_spare(SEGMENT_HEADER_BYTES)? != SpareProgress::DiskFull)
    }

    /// Works on the spare segment for about `budget` bytes.
    pub(crate) fn prepare_spare(&mut self, budget: usize) -> Result<SpareProgress, StorageError> {
        self.spare.prepare(&mut self.directory, budget)
    }

    /// Bytes of the spare segment that are owed: it grows faster than the log, and so is ready before it is needed.
    pub(crate) fn spare_debt(&self) -> usize {
        let active = self.active();
        let used = active.size() - active.room() - SEGMENT_HEADER_BYTES;
        self.spare.debt(used.saturating_mul(SPARE_BYTES_PER_LOG_BYTE))
    }

    /// New segments say that they were made in this start.
    pub(crate) fn set_incarnation(&mut self, incarnation: Incarnation) {
        self.maker.incarnation = incarnation;
    }

    /// See [`Spare::reserve`].
    pub(crate) fn reserve(&mut self, bytes: usize, purpose: Purpose) -> Result<bool, StorageError> {
        let room = self.active().room();
        self.spare.reserve(&mut self.directory, room, bytes, purpose)
    }

    /// Whether the disk had no room for another segment when it was last asked.
    pub(crate) fn is_full(&self) -> bool {
        self.spare.is_full()
    }

    /// See [`Spare::try_again`].
    pub(crate) fn ask_for_space_again(&mut self) {
        self.spare.try_again();
    }

    /// The segments, oldest first. The last one takes the appends.
    pub(crate) fn segments(&self) -> &[Segment<D::Region>] {
        &self.segments
    }
}
