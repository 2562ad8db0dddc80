//! What lies in the working directory when it is opened, and what of it goes.

use crate::raft::storage::StorageError;
use crate::raft::types::EntryId;
use crate::storage::cases::{DIRECTORY_CASES, DirectoryDecision, find_case};
use crate::storage::directory::{Directory, io_error, open_error};
use crate::storage::hard_state::{HARD_STATE_NAME, HARD_STATE_TEMPORARY};
use crate::storage::identity::{IDENTITY_NAME, IDENTITY_TEMPORARY};
use crate::storage::recovery::{FoundSegment, RecoveryReport};
use crate::storage::region::Region;
use crate::storage::retired_snapshot::REMOVED_NAME;
use crate::storage::segment::{SEGMENT_HEADER_BYTES, parse_segment_name, segment_name};
use crate::storage::snapshot::{parse_snapshot_name, snapshot_name};
use crate::storage::snapshot_draft::SNAPSHOT_TEMPORARY;
use crate::storage::spare::{LARGE_SEGMENT_TEMPORARY, SECOND_SPARE_NAME, SPARE_NAME, Spare, is_used_name};

/// Names of files that are not whole yet. What a crash left of them is worth nothing.
const TEMPORARIES: [&str; 6] = [
    IDENTITY_TEMPORARY,
    HARD_STATE_TEMPORARY,
    SPARE_NAME,
    SECOND_SPARE_NAME,
    LARGE_SEGMENT_TEMPORARY,
    REMOVED_NAME,
];

/// What lies in the working directory.
pub(crate) struct Inventory<R> {
    pub(crate) has_identity: bool,
    pub(crate) has_hard_state: bool,
    pub(crate) segments: Vec<FoundSegment<R>>,
    /// A part of a segment cannot be read.
    pub(crate) unreadable: Option<StorageError>,
    /// The last entries of the snapshots, in no order.
    pub(crate) snapshots: Vec<EntryId>,
    /// There is the file of a draft, or one that waits for a draft.
    pub(crate) has_snapshot_temporary: bool,
    pub(crate) temporaries: Vec<String>,
}

impl<R: Region> Inventory<R> {
    pub(crate) fn take<D: Directory<Region = R>>(directory: &mut D) -> Result<Inventory<R>, StorageError> {
        let names = directory.list().map_err(io_error("list the files in", directory.path("")))?;
        let has = |name: &str| names.iter().any(|found| found == name);
        let is_temporary = |name: &&String| TEMPORARIES.contains(&name.as_str()) || is_used_name(name);
        let (segments, unreadable) = open_segments(directory, &names)?;
        Ok(Inventory {
            has_identity: has(IDENTITY_NAME),
            has_hard_state: has(HARD_STATE_NAME),
            segments,
            unreadable,
            snapshots: list_snapshots(directory, &names)?,
            has_snapshot_temporary: has(SNAPSHOT_TEMPORARY),
            temporaries: names.iter().filter(is_temporary).cloned().collect(),
        })
    }

    /// Whether there is a snapshot, or more than an empty first segment.
    fn has_content(&self) -> bool {
        match self.segments.as_slice() {
            _ if self.unreadable.is_some() || !self.snapshots.is_empty() => true,
            [] => false,
            [only] => {
                let records = only.region.size().saturating_sub(SEGMENT_HEADER_BYTES);
                only.seq != 1
                    || only.region.read(only.region.size() - records, records).iter().any(|byte| *byte != 0)
            }
            _ => true,
        }
    }

    pub(crate) fn decide<D: Directory>(&self, directory: &D) -> Result<DirectoryDecision, StorageError> {
        let has_segments = !self.segments.is_empty() || self.unreadable.is_some();
        let facts = [self.has_identity, self.has_hard_state, has_segments, self.has_content()];
        match find_case(&DIRECTORY_CASES, facts).decision {
            DirectoryDecision::Refuse(reason) => {
                Err(StorageError::Refused(format!("the working directory {} {reason}", directory.path(""))))
            }
            decision => Ok(decision),
        }
    }
}

/// The last entries of all snapshots, as their names say.
fn list_snapshots<D: Directory>(directory: &D, names: &[String]) -> Result<Vec<EntryId>, StorageError> {
    let parsed = names.iter().filter_map(|name| Some((name, parse_snapshot_name(name)?)));
    parsed.map(|(name, last)| last.map_err(|()| not_ours(directory, name))).collect()
}

fn not_ours<D: Directory>(directory: &D, name: &str) -> StorageError {
    StorageError::Refused(format!(
        "{} is not a name that Keva gives: move the file out of the directory",
        directory.path(name)
    ))
}

/// The segments that can be read, and what is wrong with the first of the others.
type OpenedSegments<R> = (Vec<FoundSegment<R>>, Option<StorageError>);

/// Opens all segments that can be read, and says what is wrong with the first of the others. Only the newest can be
/// written: recovery changes nothing in the others, and a long log must not
/// need a descriptor for each of them, not even while it is opened.
fn open_segments<D: Directory>(
    directory: &mut D,
    names: &[String],
) -> Result<OpenedSegments<D::Region>, StorageError> {
    let mut numbered = Vec::new();
    for name in names {
        let Some(seq) = parse_segment_name(name) else { continue };
        let seq = seq.map_err(|()| not_ours(directory, name))?;
        numbered.push((seq, name));
    }
    let newest = numbered.iter().map(|(seq, _)| *seq).max();
    let (mut segments, mut unreadable) = (Vec::new(), None);
    for (seq, name) in numbered {
        let mut region = match directory.open(name).map_err(open_error(directory.path(name))) {
            Ok(region) => region,
            Err(damage @ StorageError::Damaged { .. }) => {
                unreadable.get_or_insert(damage);
                continue;
            }
            Err(error) => return Err(error),
        };
        if Some(seq) != newest {
            region.seal();
        }
        segments.push(FoundSegment { seq, region });
    }
    Ok((segments, unreadable))
}

/// Takes over the files for segments to come that the last run made and did not use, so that they still have their space
/// when the disk is full.
///
/// # Errors
/// When the system refuses.
pub(crate) fn open_spares<D: Directory>(
    directory: &mut D,
    inventory: &mut Inventory<D::Region>,
    segment_bytes: usize,
) -> Result<Spare<D::Region>, StorageError> {
    // Making what was missing has used up some of the temporary files.
    let present = directory.list().map_err(io_error("list the files in", directory.path("")))?;
    let (mut spare, mut kept) = (Spare::none(segment_bytes), Vec::new());
    for name in inventory.temporaries.iter().filter(|name| present.contains(name)) {
        let made = [SPARE_NAME, SECOND_SPARE_NAME].into_iter().find(|made| made == name);
        if made.is_none() && !is_used_name(name) {
            continue;
        }
        let region = directory.open_unread(name).map_err(io_error("open", directory.path(name)))?;
        if region.size() != segment_bytes {
            continue;
        }
        kept.push(name.clone());
        match made {
            Some(made) => spare.keep(made, region),
            None => spare.keep_used([name.clone()]),
        }
    }
    inventory.temporaries.retain(|name| !kept.contains(name));
    Ok(spare)
}

/// Removes what nothing needs. Only when all that is needed has been found.
pub(crate) fn remove_leftovers<D: Directory>(
    directory: &mut D,
    inventory: &Inventory<D::Region>,
    void: &[u64],
    snapshots: &[EntryId],
    report: &mut RecoveryReport,
) -> Result<(), StorageError> {
    let void = void.iter().map(|seq| segment_name(*seq));
    // Making what was missing has used up some of the temporary files.
    let present = directory.list().map_err(io_error("list the files in", directory.path("")))?;
    let temporaries = inventory.temporaries.iter().filter(|name| present.contains(name)).cloned();
    let snapshots = snapshots.iter().map(|last| snapshot_name(*last));
    for name in void.chain(snapshots).chain(temporaries) {
        directory.remove(&name).map_err(io_error("remove", directory.path(&name)))?;
        report.removed.push(name);
    }
    Ok(())
}
