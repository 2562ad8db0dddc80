//! Reading the log back after a stop or a crash. The decisions are the tables in [`cases`](crate::storage::cases).

use std::fmt;

use crate::raft::storage::StorageError;
use crate::raft::types::{EntryId, Index, Term};
use crate::storage::cases::{TAIL_CASES, TailDecision, find_case};
use crate::storage::directory::{Directory, io_error};
use crate::storage::hard_state::DurableMark;
use crate::storage::record::Probe;
use crate::storage::region::Region;
use crate::storage::segment::{Segment, SegmentHeader, segment_name};
use crate::storage::set_aside::SetAside;
use crate::storage::stamp::{Owner, REPLACE};
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
    /// Bytes behind it, up to the last one that was not 0.
    pub bytes: usize,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first_start {
            return f.write_str("made a new working directory");
        }
        if let Some(SetAside { damage, prefix, files }) = &self.set_aside {
            return write!(
                f,
                "{damage}. Term and vote are intact; log and snapshots are set aside ({files} files, {prefix}*). The node \
                 gets everything again from the other nodes; it does not vote before it has, and removes those files then"
            );
        }
        write!(f, "recovered {} entries in {} segments", self.entries, self.segments)?;
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
    /// The newest snapshot: the log must begin at the latest behind it.
    pub(crate) snapshot: EntryId,
    /// From the hard state. It speaks of one segment: in older ones a successor says more, and entries of a segment
    /// that was cut short by a successor may be gone rightly.
    pub(crate) durable: DurableMark,
}

/// The log as it is after recovery.
pub(crate) struct RecoveredLog<R> {
    pub(crate) segments: Vec<Segment<R>>,
    pub(crate) terms: TermRuns,
    /// Numbers of segments whose every entry was removed later.
    pub(crate) void: Vec<u64>,
}

/// Reads all segments, cuts a torn tail, and makes sure that the disk has what is left.
///
/// # Errors
/// [`StorageError::Damaged`] when something durable is missing: nothing is changed on disk then.
/// [`StorageError::Refused`] when a file does not belong here.
pub(crate) fn recover_log<D: Directory>(
    directory: &D,
    owner: Owner,
    found: Vec<FoundSegment<D::Region>>,
    expected: Expected,
    report: &mut RecoveryReport,
) -> Result<RecoveredLog<D::Region>, StorageError> {
    let (live, void) = drop_void(read_headers(directory, owner, found)?);
    let newest = live.last().map_or(0, |(header, _)| header.seq);
    if expected.durable.segment_seq > newest {
        let missing = directory.path(&segment_name(expected.durable.segment_seq));
        return Err(StorageError::Damaged {
            file: missing,
            offset: 0,
            detail: format!("the file is missing, and hard-state says that the log was in it. {REPLACE}"),
        });
    }
    let successors: Vec<_> =
        live.iter().skip(1).map(|(header, _)| Some(header.base_index)).chain([None]).collect();
    let mut terms = TermRuns::default();
    let mut segments: Vec<Segment<D::Region>> = Vec::new();
    for ((header, region), successor) in live.into_iter().zip(successors) {
        let path = directory.path(&segment_name(header.seq));
        check_start(&header, segments.last(), &terms, expected.snapshot, &path)?;
        let mut segment = Segment::new(header, region);
        let scan = read_records(&mut segment, &mut terms, successor, &path)?;
        settle_tail(&mut segment, scan, successor, expected, &path, report)?;
        if successor.is_some() {
            segment.seal();
        }
        segments.push(segment);
    }
    Ok(RecoveredLog { segments, terms, void })
}

/// The headers, by number.
fn read_headers<D: Directory>(
    directory: &D,
    owner: Owner,
    found: Vec<FoundSegment<D::Region>>,
) -> Result<Vec<(SegmentHeader, D::Region)>, StorageError> {
    let mut segments = Vec::new();
    for FoundSegment { seq, region } in found {
        let path = directory.path(&segment_name(seq));
        let header = SegmentHeader::decode(&region, owner)
            .map_err(|error| error.explain(path.clone(), 0, "the segment's header or size", owner))?;
        if header.seq != seq {
            return Err(StorageError::Refused(format!(
                "{path} is the segment {}, under a wrong name: give each seg-*.log its own name back",
                header.seq
            )));
        }
        segments.push((header, region));
    }
    segments.sort_by_key(|(header, _)| header.seq);
    Ok(segments)
}

/// Parts the segments that still count from those whose every entry is void.
fn drop_void<R>(segments: Vec<(SegmentHeader, R)>) -> (Vec<(SegmentHeader, R)>, Vec<u64>) {
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
    (live, void)
}

/// Checks that a segment begins where the one before it ends.
fn check_start<R: Region>(
    header: &SegmentHeader,
    before: Option<&Segment<R>>,
    terms: &TermRuns,
    snapshot: EntryId,
    path: &str,
) -> Result<(), StorageError> {
    let base = header.base_index;
    let problem = match before {
        None if base > snapshot.index.next() => {
            format!(
                "the log begins with entry {base}, but entry {} is needed: older segments are missing",
                snapshot.index.next()
            )
        }
        None => return Ok(()),
        Some(before) => {
            let base_term = terms.term(base.prev()).unwrap_or(before.header().base_term);
            if header.chain_crc == before.last_crc() && header.base_term == base_term {
                return Ok(());
            }
            format!("it does not continue {}", segment_name(before.header().seq))
        }
    };
    Err(StorageError::Damaged { file: path.to_string(), offset: 0, detail: format!("{problem}. {REPLACE}") })
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
        used = segment.used_bytes_behind_end();
        if used > 0 {
            durable = durable.max(segment.synced_upto_behind_end(used).unwrap_or_default());
        }
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
                detail: format!("the entries {next} to {last} cannot be read any more. {REPLACE}"),
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
        detail: format!("it knows term {term}, but the log has an entry of term {last_term}. {REPLACE}"),
    })
}
