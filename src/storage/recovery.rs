//! Reading the log back after a stop or a crash. The decisions are the tables in [`cases`](crate::storage::cases).

use std::fmt;

use crate::raft::storage::StorageError;
use crate::raft::types::{EntryId, Index, Term};
use crate::storage::cases::{LOG_CASES, LogDecision, TAIL_CASES, TailDecision, find_case};
use crate::storage::directory::{Directory, io_error};
use crate::storage::hard_state::DurableMark;
use crate::storage::record::Probe;
use crate::storage::region::Region;
use crate::storage::segment::{Segment, SegmentHeader, segment_name};
use crate::storage::set_aside::SetAside;
use crate::storage::snapshot::snapshot_name;
use crate::storage::stamp::Owner;
use crate::storage::term_runs::TermRuns;
use crate::util::mutation::mutant;

/// What was found when the working directory was opened, for the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// The working directory was empty, or its first start had been cut short.
    pub first_start: bool,
    /// The last stop was in good order.
    pub clean: bool,
    /// Entries in the log.
    pub entries: u64,
    /// Segment files that hold them.
    pub segments: usize,
    /// What was damaged and is out of the way.
    pub set_aside: Option<SetAside>,
    /// The last entry that the newest snapshot covers.
    pub snapshot: Option<EntryId>,
    /// Why that snapshot is used, when it is not simply the newest.
    pub snapshot_case: Option<&'static str>,
    /// Why the log was given up and begins behind the snapshot, if it does.
    pub started_over: Option<&'static str>,
    /// Which copy of the hard state was used, when it was not the usual one.
    pub hard_state: Option<&'static str>,
    /// Bytes at the end of a file that a crash had left half written; they were cleared.
    pub torn: Option<TornTail>,
    /// Bytes at the end of the log that were written once more, because it was not certain that the disk has them.
    pub rewritten_bytes: usize,
    /// Files that nothing needs any more; they were removed.
    pub removed: Vec<String>,
}

/// What was cut from the end of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// The file's path.
    pub file: String,
    /// Where the cut is, in bytes.
    pub offset: usize,
    /// Bytes behind it, up to the last one that a write which was cut short is known to have left.
    pub bytes: usize,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first_start {
            return f.write_str("made a new working directory");
        }
        if let Some(SetAside { damage, prefix, files }) = &self.set_aside {
            let files = if *files == 1 { "1 file".to_owned() } else { format!("{files} files") };
            return write!(
                f,
                "{damage}. Term and vote are intact; log and snapshots are set aside ({files}, {prefix}*). The node \
                 gets everything again from the other nodes; it does not vote before it has, and removes those files then"
            );
        }
        write!(f, "recovered {} entries in {} segments", self.entries, self.segments)?;
        if let Some(last) = self.snapshot {
            write!(f, " and a snapshot up to entry {}", last.index)?;
        }
        f.write_str(if self.clean { " after a clean stop" } else { " after a crash" })?;
        if let Some(torn) = &self.torn {
            write!(f, "; cut {} bytes of a torn tail at byte {} of {}", torn.bytes, torn.offset, torn.file)?;
        }
        if self.rewritten_bytes > 0 {
            write!(
                f,
                "; wrote the last {} bytes again to be sure that the disk has them",
                self.rewritten_bytes
            )?;
        }
        if let Some(case) = self.snapshot_case {
            write!(f, "; snapshot: {case}, so the one before it and the log are used")?;
        }
        if let Some(case) = self.started_over {
            write!(f, "; the log begins behind the snapshot: {case}, cut short")?;
        }
        if let Some(case) = self.hard_state {
            write!(f, "; hard state: {case}")?;
        }
        if !self.removed.is_empty() {
            write!(f, "; removed {}", self.removed.join(", "))?;
        }
        Ok(())
    }
}

/// A segment file before its content is believed. All but the newest are sealed.
pub(crate) struct FoundSegment<R> {
    /// The number in its name.
    pub(crate) seq: u64,
    pub(crate) region: R,
}

/// What the log must contain, as other files say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected {
    /// The last entry of the newest snapshot: the log must begin at the latest behind it.
    pub(crate) snapshot: Option<EntryId>,
    /// From the hard state. It speaks of one segment: in older ones a successor says more, and entries of a segment
    /// that was cut short by a successor may be gone rightly.
    pub(crate) durable: DurableMark,
}

/// The segments, before their records are read.
pub(crate) struct FoundLog<R> {
    /// Those that count, in order; at least one.
    live: Vec<(SegmentHeader, R)>,
    /// Numbers of those whose every entry was removed later.
    void: Vec<u64>,
}

/// The log as it is after recovery.
pub(crate) struct RecoveredLog<R> {
    pub(crate) segments: Vec<Segment<R>>,
    pub(crate) terms: TermRuns,
    /// Numbers of segments that nothing needs: every entry was removed later, or the snapshot makes up for it.
    pub(crate) void: Vec<u64>,
    /// Whether a log behind the snapshot must take the place of this one.
    pub(crate) starts_over: bool,
}

impl<R: Region> FoundLog<R> {
    /// Reads the headers.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when one cannot be read. [`StorageError::Refused`] when a file does not belong here.
    pub(crate) fn read<D: Directory<Region = R>>(
        directory: &D,
        owner: Owner,
        found: Vec<FoundSegment<R>>,
    ) -> Result<FoundLog<R>, StorageError> {
        Ok(drop_void(read_headers(directory, owner, found)?))
    }

    /// The index of the first entry.
    pub(crate) fn begins(&self) -> Index {
        self.live[0].0.base_index
    }
}

impl<R: Region> RecoveredLog<R> {
    /// A log of one empty segment.
    pub(crate) fn empty(first: Segment<R>) -> RecoveredLog<R> {
        RecoveredLog { segments: vec![first], ..RecoveredLog::nothing(Vec::new()) }
    }

    fn nothing(void: Vec<u64>) -> RecoveredLog<R> {
        RecoveredLog { segments: Vec::new(), terms: TermRuns::default(), void, starts_over: false }
    }

    /// Gives up what was read so far.
    fn forget(&mut self) {
        self.void.extend(self.segments.drain(..).map(|segment| segment.header().seq));
        self.terms = TermRuns::default();
    }

    /// The name of the case, and whether the log must start over behind `snapshot`.
    fn decide(&self, snapshot: Option<EntryId>) -> (&'static str, bool) {
        let first = self.segments[0].header();
        let last = snapshot.unwrap_or_default();
        let end = self.segments.last().map_or(last.index, |segment| segment.next_index().prev());
        let term = self.terms.term(last.index).unwrap_or(first.base_term);
        let same_term = term == last.term || mutant("log-kept-over-conflict");
        let facts = [snapshot.is_some(), true, end >= last.index, same_term];
        let case = find_case(&LOG_CASES, facts);
        (case.name, case.decision == LogDecision::StartOver)
    }
}

/// Reads all segments, cuts a torn tail, and makes sure that the disk has what is left.
///
/// # Errors
/// [`StorageError::Damaged`] when something durable is missing: nothing is changed on disk then.
/// [`StorageError::Refused`] when a record is a newer Keva's.
pub(crate) fn recover_log<D: Directory>(
    directory: &D,
    found: FoundLog<D::Region>,
    expected: Expected,
    report: &mut RecoveryReport,
) -> Result<RecoveredLog<D::Region>, StorageError> {
    let FoundLog { live, void } = found;
    let newest = live.last().map_or(0, |(header, _)| header.seq);
    if expected.durable.segment_seq > newest {
        let missing = directory.path(&segment_name(expected.durable.segment_seq));
        return Err(StorageError::Damaged {
            file: missing,
            offset: 0,
            detail: "the file is missing, and hard-state says that the log was in it".into(),
        });
    }
    let successors: Vec<_> =
        live.iter().skip(1).map(|(header, _)| Some(header.base_index)).chain([None]).collect();
    let covered = expected.snapshot.unwrap_or_default().index;
    let mut log = RecoveredLog::nothing(void);
    for ((header, region), successor) in live.into_iter().zip(successors) {
        let path = directory.path(&segment_name(header.seq));
        match check_chain(&header, &log, &path) {
            // What is before it was about to be removed, or is damaged: the snapshot has it.
            Err(_) if header.base_index <= covered.next() => log.forget(),
            result => result?,
        }
        if log.segments.is_empty() {
            check_beginning(&header, expected.snapshot, &path)?;
        }
        let mut segment = Segment::new(header, region);
        match read_segment(&mut segment, &mut log.terms, successor, expected, &path, report) {
            Err(StorageError::Damaged { .. }) if successor.is_some_and(|next| next <= covered.next()) => {
                log.forget();
                log.void.push(header.seq);
            }
            result => {
                result?;
                log.segments.push(segment);
            }
        }
    }
    let (case, starts_over) = log.decide(expected.snapshot);
    log.starts_over = starts_over;
    report.started_over = starts_over.then_some(case);
    Ok(log)
}

/// Takes in the records of one segment.
fn read_segment<R: Region>(
    segment: &mut Segment<R>,
    terms: &mut TermRuns,
    successor: Option<Index>,
    expected: Expected,
    path: &str,
    report: &mut RecoveryReport,
) -> Result<(), StorageError> {
    let scan = read_records(segment, terms, successor, path)?;
    settle_tail(segment, scan, successor, expected, path, report)?;
    if successor.is_some() {
        segment.seal();
    }
    Ok(())
}

/// The headers, by number.
fn read_headers<D: Directory>(
    directory: &D,
    owner: Owner,
    found: Vec<FoundSegment<D::Region>>,
) -> Result<Vec<(SegmentHeader, D::Region)>, StorageError> {
    let (mut segments, mut misplaced) = (Vec::new(), Vec::new());
    for FoundSegment { seq, region } in found {
        let path = directory.path(&segment_name(seq));
        let header = SegmentHeader::decode(&region, owner)
            .map_err(|error| error.explain(path.clone(), 0, "the segment's header or size", owner))?;
        if header.seq == seq {
            segments.push((header, region));
        } else {
            misplaced.push((header.seq, path));
        }
    }
    segments.sort_by_key(|(header, _)| header.seq);
    match misplaced.pop() {
        Some((seq, path)) => Err(explain_misplaced(seq, path, &segments)),
        None => Ok(segments),
    }
}

/// A file begins with the header of segment `seq`, which is not the one of its name.
fn explain_misplaced<R>(seq: u64, path: String, well_named: &[(SegmentHeader, R)]) -> StorageError {
    if well_named.iter().any(|(header, _)| header.seq == seq) {
        // That segment is where it belongs, so nobody has mixed up names: the disk has put a block in the wrong place.
        let detail = format!("here is the header of segment {seq}, which is not what was written there");
        return StorageError::Damaged { file: path, offset: 0, detail };
    }
    StorageError::Refused(format!(
        "{path} is the segment {seq}, under a wrong name: give each seg-*.log its own name back"
    ))
}

/// Parts the segments that still count from those whose every entry is void.
fn drop_void<R>(segments: Vec<(SegmentHeader, R)>) -> FoundLog<R> {
    let (mut live, mut void) = (Vec::new(), Vec::new());
    let mut void_from = Index(u64::MAX);
    for (header, region) in segments.into_iter().rev() {
        if header.base_index >= void_from && !mutant("void-segments-count") {
            void.push(header.seq);
        } else {
            void_from = void_from.min(header.valid_from);
            live.push((header, region));
        }
    }
    live.reverse();
    FoundLog { live, void }
}

/// Checks that the log begins at the latest behind the snapshot.
fn check_beginning(
    header: &SegmentHeader,
    snapshot: Option<EntryId>,
    path: &str,
) -> Result<(), StorageError> {
    let start = EntryId::new(header.base_term, header.base_index.prev());
    let last = snapshot.unwrap_or_default();
    let mut reaches_back = start.index < last.index || start == last;
    if mutant("gap-behind-snapshot-accepted") {
        reaches_back |= snapshot.is_some();
    }
    // The other facts do not matter then.
    if find_case(&LOG_CASES, [snapshot.is_some(), reaches_back, true, true]).decision != LogDecision::Damaged
    {
        return Ok(());
    }
    let base = header.base_index;
    let detail = match snapshot {
        Some(last) => format!(
            "the log begins with entry {base} behind {start}, and the newest snapshot, {}, ends with {last}: \
             a newer snapshot or older segments are missing",
            snapshot_name(last)
        ),
        None => format!(
            "the log begins with entry {base}, but entry 1 is needed: older segments or a snapshot are missing"
        ),
    };
    Err(StorageError::Damaged { file: path.to_string(), offset: 0, detail })
}

/// Checks that a segment begins where the one before it ends.
fn check_chain<R: Region>(
    header: &SegmentHeader,
    log: &RecoveredLog<R>,
    path: &str,
) -> Result<(), StorageError> {
    let Some(before) = log.segments.last() else { return Ok(()) };
    let base_term = log.terms.term(header.base_index.prev()).unwrap_or(before.header().base_term);
    if header.chain_crc == before.last_crc() && header.base_term == base_term {
        return Ok(());
    }
    let detail = format!("it does not continue {}", segment_name(before.header().seq));
    Err(StorageError::Damaged { file: path.to_string(), offset: 0, detail })
}

/// What reading the records of a segment found out.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    /// The largest `synced upto` of its records.
    synced_upto: Index,
}

/// Takes in the records up to the successor's first index, or to the first one that does not continue the chain.
fn read_records<R: Region>(
    segment: &mut Segment<R>,
    terms: &mut TermRuns,
    successor: Option<Index>,
    path: &str,
) -> Result<Scan, StorageError> {
    let mut scan = Scan::default();
    let mut last_term = segment.header().base_term;
    while successor.is_none_or(|successor| segment.next_index() < successor) {
        let record = match segment.probe_next() {
            Probe::Valid(record) if record.entry.term() >= last_term => record,
            Probe::Valid(_) | Probe::Invalid => break,
            Probe::Newer => {
                return Err(StorageError::Refused(format!(
                    "{path} holds an entry at byte {} that only a newer Keva can read: start a newer Keva",
                    segment.end()
                )));
            }
        };
        last_term = record.entry.term();
        terms.push(record.entry.id());
        scan.synced_upto = scan.synced_upto.max(record.synced_upto);
        let (crc, entry_bytes) = (record.crc, record.entry.bytes().len());
        segment.accept(crc, entry_bytes);
    }
    Ok(scan)
}

/// Decides what the end of the records means, and repairs it.
fn settle_tail<R: Region>(
    segment: &mut Segment<R>,
    scan: Scan,
    successor: Option<Index>,
    expected: Expected,
    path: &str,
    report: &mut RecoveryReport,
) -> Result<(), StorageError> {
    let next = segment.next_index();
    let mut durable = scan.synced_upto;
    if expected.durable.segment_seq == segment.header().seq {
        durable = durable.max(expected.durable.index);
    }
    let mut used = 0;
    if successor.is_none() {
        let leftover = segment.leftover();
        used = leftover.bytes;
        durable = durable.max(leftover.synced_upto);
    }
    let facts = [successor.is_some(), successor == Some(next), durable >= next, used == 0];
    let decision = find_case(&TAIL_CASES, facts).decision;
    let is_mutant = mutant("damage-taken-for-tail") && decision == TailDecision::Damaged;
    match if is_mutant { TailDecision::Cut } else { decision } {
        TailDecision::Accept => {}
        TailDecision::Cut => {
            segment.clear_behind_end(used).map_err(io_error("write", path.to_string()))?;
            report.torn = Some(TornTail { file: path.to_string(), offset: segment.end(), bytes: used });
        }
        TailDecision::Damaged => {
            let last = successor.map_or(durable, Index::prev);
            return Err(StorageError::Damaged {
                file: path.to_string(),
                offset: segment.end() as u64,
                detail: format!("the entries {next} to {last} cannot be read any more"),
            });
        }
    }
    if successor.is_none() && !mutant("tail-not-rewritten") {
        report.rewritten_bytes =
            segment.rewrite_from(durable.next()).map_err(io_error("write", path.to_string()))?;
        if used > 0 || report.rewritten_bytes > 0 {
            segment.sync().map_err(io_error("sync", path.to_string()))?;
        }
    }
    Ok(())
}

/// Checks that the hard state is not older than the log.
///
/// # Errors
/// [`StorageError::Damaged`] when it is: it was made durable before any entry of its term was written, so an older
/// copy of it has been put back, and a vote may be lost with it.
pub(crate) fn check_term(term: Term, last_term: Term, path: String) -> Result<(), StorageError> {
    if last_term <= term {
        return Ok(());
    }
    Err(StorageError::Damaged {
        file: path,
        offset: 0,
        detail: format!("it knows term {term}, but the log has an entry of term {last_term}"),
    })
}
