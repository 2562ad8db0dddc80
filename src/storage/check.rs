//! `keva check`: reads everything in a working directory and says whether a node can be started on it. Nothing is
//! changed.
//!
//! First each file by itself, so that all damage is found and not just the first. Then the start is rehearsed, with the
//! very code of a start, so that the verdict is the one that a start would come to; and the log and the snapshot that it
//! finds are read once more, as a running node reads them now and then.

use std::fmt;
use std::path::Path;

use crate::limits::{LOG_MARGIN_BYTES, SEGMENT_BYTES};
use crate::raft::entry::EntryKind;
use crate::raft::storage::{SnapshotMeta, Storage, StorageError, snapshot_id};
use crate::raft::types::{EntryId, Index, Standing};
use crate::storage::data_dir::DataDir;
use crate::storage::directory::{Directory, io_error, open_error};
use crate::storage::hard_state::{HARD_STATE_NAME, Slot, SlotsFound};
use crate::storage::identity::{IDENTITY_NAME, Membership, read_identity};
use crate::storage::log_storage::{LogStorage, StorageOptions};
use crate::storage::record::Probe;
use crate::storage::recovery::RecoveryReport;
use crate::storage::region::Region;
use crate::storage::rehearsal::Rehearsal;
use crate::storage::segment::{Segment, SegmentHeader, parse_segment_name};
use crate::storage::set_aside::parse_set_aside_name;
use crate::storage::snapshot::{SnapshotFile, parse_snapshot_name};
use crate::storage::stamp::Owner;
use crate::util::rng::Rng;

/// What is in a working directory, and whether it is sound. [`fmt::Display`] is for the operator.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// One line about each thing that was looked at.
    pub facts: Vec<String>,
    /// What is wrong; empty when the directory is sound.
    pub problems: Vec<String>,
    /// What a start makes of it.
    pub outcome: String,
}

impl CheckReport {
    /// Whether a node would start, with everything that it promised to keep.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn note(&mut self, fact: String) {
        self.facts.push(fact);
    }

    /// Adds a problem, once.
    fn blame(&mut self, problem: String) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fact in &self.facts {
            writeln!(f, "{fact}")?;
        }
        if self.is_sound() {
            return write!(f, "SOUND: {}", self.outcome);
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        write!(f, "NOT SOUND: {}", self.outcome)
    }
}

/// Checks the working directory at `path`; with `verbose` the report lists every record.
///
/// # Errors
/// [`StorageError::Refused`] when a node runs there, or nothing of Keva is there; [`StorageError::Io`] when the system
/// refuses. What is wrong with the files is in the report.
pub fn check(path: &Path, verbose: bool) -> Result<CheckReport, StorageError> {
    check_files(&mut DataDir::open_to_read(path)?, verbose)
}

/// Checks the files of a directory that nobody else uses.
///
/// # Errors
/// As [`check`].
pub fn check_files<D: Directory>(directory: &mut D, verbose: bool) -> Result<CheckReport, StorageError> {
    let names = directory.list().map_err(io_error("list the files in", directory.path("")))?;
    let is_ours = |name: &String| *name == IDENTITY_NAME || *name == HARD_STATE_NAME || is_log_name(name);
    if !names.iter().any(is_ours) {
        return Err(StorageError::Refused(format!(
            "{} holds no files of a node: give the working directory of one",
            directory.path("")
        )));
    }
    let mut report = CheckReport::default();
    let (owner, membership) = match read_identity(directory) {
        Ok(identity) => identity,
        Err(error) => {
            report.blame(error.to_string());
            report.outcome =
                "without keva.id nobody knows whose files these are, so they were not read".into();
            return Ok(report);
        }
    };
    describe_identity(&mut report, owner, &membership);
    if let Some(contradiction) = membership.contradiction(owner) {
        report.blame(format!("{} was changed: {contradiction}", directory.path(IDENTITY_NAME)));
    }
    if names.iter().any(|name| name == HARD_STATE_NAME) {
        check_hard_state(directory, owner, &mut report);
    }
    for name in &names {
        if let Some(Ok(last)) = parse_snapshot_name(name) {
            check_snapshot(directory, owner, name, last, &mut report);
        }
    }
    let segments = check_headers(directory, owner, &names, &mut report);
    check_segments(directory, &segments, verbose, &mut report);
    for name in names.iter().filter(|name| parse_set_aside_name(name).is_some()) {
        report.note(format!("{name}: set aside because of damage; removed once the node votes again"));
    }
    rehearse(directory, membership, &mut report)?;
    Ok(report)
}

/// Whether a file has the name of a part of log or snapshots.
fn is_log_name(name: &str) -> bool {
    parse_segment_name(name).is_some() || parse_snapshot_name(name).is_some()
}

fn describe_identity(report: &mut CheckReport, owner: Owner, membership: &Membership) {
    let cluster = membership.cluster_name.as_ref().map_or(String::new(), |name| format!(" \"{name}\""));
    report.note(format!(
        "{IDENTITY_NAME}: node \"{}\" ({}), cluster{cluster} {:032x}, members {}",
        membership.identity,
        owner.node,
        owner.cluster_id,
        membership.members.join(", ")
    ));
}

/// Both copies of the hard state. One bad copy is no problem: a power cut in the middle of a write leaves that.
fn check_hard_state<D: Directory>(directory: &mut D, owner: Owner, report: &mut CheckReport) {
    let path = directory.path(HARD_STATE_NAME);
    let found = directory
        .open(HARD_STATE_NAME)
        .map_err(io_error("read", path.clone()))
        .and_then(|region| SlotsFound::read(&region, owner, &path));
    match found.and_then(|found| Ok((found, found.choose(&path)?.0))) {
        Ok((found, slot)) => {
            report.note(format!("{HARD_STATE_NAME}: {}", describe_slot(&slot)));
            if let Some(bad) = found.slots.iter().position(Option::is_none) {
                report.note(format!(
                    "{HARD_STATE_NAME}: the {} of the two copies is damaged: its writing was cut short, or it rotted since; \
                     the other one is used, and a start repairs both",
                    ["first", "second"][bad]
                ));
            }
        }
        Err(error) => report.blame(error.to_string()),
    }
}

fn describe_slot(slot: &Slot) -> String {
    let vote = slot.state.vote.map_or("no vote".into(), |node| format!("vote for {node}"));
    let standing = match slot.standing {
        Standing::Voter => "voter",
        Standing::Virgin => "new, not admitted to votes yet",
        Standing::Recovering => "gets a lost log from the other nodes, does not vote until then",
    };
    let stop = if slot.clean { "last stop clean" } else { "no clean stop" };
    format!(
        "term {}, {vote}, {standing}; log durable up to entry {} and committed up to {} when this was written; \
         started {} times, {stop}",
        slot.state.term, slot.durable.index, slot.state.commit_index, slot.incarnation
    )
}

/// A snapshot, all of it. A damaged one is a problem even when an older one and the log make up for it.
fn check_snapshot<D: Directory>(
    directory: &mut D,
    owner: Owner,
    name: &str,
    last: EntryId,
    report: &mut CheckReport,
) {
    let path = directory.path(name);
    let region = directory.open(name).map_err(open_error(path.clone()));
    match region.and_then(|region| SnapshotFile::open(region, last, owner, path, &[])) {
        Ok(file) => {
            let SnapshotMeta { last, bytes, .. } = file.meta();
            report.note(format!("{name}: everything up to entry {}, {bytes} bytes", last.index));
        }
        Err(error) => report.blame(error.to_string()),
    }
}

/// A segment with a sound header.
struct CheckedHeader {
    name: String,
    header: SegmentHeader,
}

/// The headers of all segments, oldest first.
fn check_headers<D: Directory>(
    directory: &mut D,
    owner: Owner,
    names: &[String],
    report: &mut CheckReport,
) -> Vec<CheckedHeader> {
    let mut segments = Vec::new();
    for name in names {
        let Some(Ok(seq)) = parse_segment_name(name) else { continue };
        let path = directory.path(name);
        let region = match directory.open(name) {
            Ok(region) => region,
            Err(error) => {
                report.blame(open_error(path)(error).to_string());
                continue;
            }
        };
        match SegmentHeader::decode(&region, owner) {
            Ok(header) if header.seq == seq => segments.push(CheckedHeader { name: name.clone(), header }),
            Ok(header) => report.blame(format!("{path} is segment {}, under a wrong name", header.seq)),
            Err(error) => {
                let error = error.explain(path, 0, "the segment's header or size", owner);
                report.blame(error.to_string());
            }
        }
    }
    segments.sort_by_key(|segment| segment.header.seq);
    segments
}

/// The records of all segments. Those that a later segment has declared void count for nothing.
fn check_segments<D: Directory>(
    directory: &mut D,
    segments: &[CheckedHeader],
    verbose: bool,
    report: &mut CheckReport,
) {
    let mut void_from = None;
    let mut checked = Vec::new();
    for CheckedHeader { name, header } in segments.iter().rev() {
        let mut part = CheckReport::default();
        if let Ok(mut region) = directory.open(name) {
            region.seal();
            let path = directory.path(name);
            check_records(Segment::new(*header, region), name, &path, void_from, verbose, &mut part);
        }
        void_from = Some(void_from.unwrap_or(header.valid_from).min(header.valid_from));
        checked.push(part);
    }
    for part in checked.into_iter().rev() {
        report.facts.extend(part.facts);
        part.problems.into_iter().for_each(|problem| report.blame(problem));
    }
}

/// The records of one segment; `void_from` is the first index that a later one has declared void.
fn check_records<R: Region>(
    mut segment: Segment<R>,
    name: &str,
    path: &str,
    void_from: Option<Index>,
    verbose: bool,
    report: &mut CheckReport,
) {
    let mut lines = Vec::new();
    let mut durable = Index(0);
    while let Probe::Valid(record) = segment.probe_next() {
        if verbose {
            lines.push(format!(
                "  {:>9}  {}  {}, {} bytes",
                segment.end(),
                record.entry.id(),
                kind_name(record.entry.kind()),
                record.entry.payload().len()
            ));
        }
        durable = durable.max(record.synced_upto);
        let (crc, entry_bytes) = (record.crc, record.entry.bytes().len());
        segment.accept(crc, entry_bytes);
    }
    let leftover = segment.leftover();
    let next = segment.next_index();
    report.note(describe_segment(name, &segment, leftover.bytes));
    report.facts.append(&mut lines);
    let last = match void_from {
        Some(void_from) => void_from.0.saturating_sub(1),
        None => durable.max(leftover.synced_upto).0,
    };
    if next.0 <= last {
        let end = segment.end();
        report.blame(format!(
            "{path} is damaged at byte {end}: the entries {next} to {last} cannot be read any more"
        ));
    }
}

fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::NoOp => "no-op",
        EntryKind::Command => "command",
    }
}

fn describe_segment<R: Region>(name: &str, segment: &Segment<R>, used: usize) -> String {
    let entries = if segment.is_empty() {
        format!("no entries yet, the first will be {}", segment.next_index())
    } else {
        format!("entries {} to {}", segment.header().base_index, segment.next_index().prev())
    };
    let size = segment.end() + segment.room();
    let behind =
        if used == 0 { String::new() } else { format!(", {used} bytes behind them that are no entry") };
    format!("{name}: {entries}, {} of {size} bytes used{behind}", segment.end())
}

/// Starts, without a trace, and reads everything that the start found.
fn rehearse<D: Directory>(
    directory: &mut D,
    membership: Membership,
    report: &mut CheckReport,
) -> Result<(), StorageError> {
    let is_alone = membership.members.len() == 1;
    let place = directory.path("");
    let rehearsal = Rehearsal::new(directory).map_err(io_error("list the files in", place))?;
    let options = StorageOptions {
        membership,
        segment_bytes: SEGMENT_BYTES,
        log_margin_bytes: LOG_MARGIN_BYTES,
        repair: false,
        rng: Rng::new(0),
    };
    let started = LogStorage::open_files(rehearsal, options).and_then(|(storage, recovery)| {
        storage.read_everything()?;
        Ok((storage, recovery))
    });
    match started {
        Ok((storage, recovery)) => {
            describe_log(&storage, &recovery, report);
            report.outcome = if report.is_sound() {
                "a node can be started on it".into()
            } else {
                "a node can be started on it all the same: it does not need what is damaged".into()
            };
        }
        Err(error) => {
            report.outcome = match &error {
                StorageError::Damaged { file, .. } if !is_alone && !file.ends_with(HARD_STATE_NAME) => {
                    "a start sets log and snapshots aside and gets them back from the other nodes"
                }
                _ => "a node refuses to start on it",
            }
            .into();
            let problem = error.to_string();
            report.problems.retain(|known| *known != problem);
            report.problems.insert(0, problem);
        }
    }
    Ok(())
}

fn describe_log<D: Directory>(storage: &LogStorage<D>, recovery: &RecoveryReport, report: &mut CheckReport) {
    let first = storage.log_start().index.next();
    report.note(if storage.last_index() < first {
        format!("log: empty, behind {}", snapshot_id(storage))
    } else {
        let last = storage.last_index();
        let term = storage.term(last).expect("the last term is known");
        format!("log: entries {first} to {last}, the last one of term {term}")
    });
    if let Some(torn) = &recovery.torn {
        report.note(format!(
            "{}: {} bytes from byte {} on are a torn tail: a crash cut a write short that nobody relied on; a start \
             clears them",
            torn.file, torn.bytes, torn.offset
        ));
    }
}
