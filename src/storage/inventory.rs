//! What lies in the working directory when it is opened, and what of it goes.

use crate::raft::storage::StorageError;
use crate::storage::cases::{DIRECTORY_CASES, DirectoryDecision, find_case};
use crate::storage::directory::{Directory, io_error};
use crate::storage::hard_state::{HARD_STATE_NAME, HARD_STATE_TEMPORARY};
use crate::storage::identity::{IDENTITY_NAME, IDENTITY_TEMPORARY};
use crate::storage::log::LARGE_SEGMENT_TEMPORARY;
use crate::storage::recovery::{FoundSegment, RecoveredLog, RecoveryReport};
use crate::storage::region::Region;
use crate::storage::segment::{SEGMENT_HEADER_BYTES, parse_segment_name, segment_name};
use crate::storage::spare::SPARE_NAME;

/// Names of files that are not whole yet. What a crash left of them is worth nothing.
const TEMPORARIES: [&str; 4] =
    [IDENTITY_TEMPORARY, HARD_STATE_TEMPORARY, SPARE_NAME, LARGE_SEGMENT_TEMPORARY];

/// What lies in the working directory.
pub(crate) struct Inventory<R> {
    pub(crate) has_identity: bool,
    pub(crate) has_hard_state: bool,
    pub(crate) segments: Vec<FoundSegment<R>>,
    pub(crate) temporaries: Vec<&'static str>,
}

impl<R: Region> Inventory<R> {
    pub(crate) fn take<D: Directory<Region = R>>(directory: &mut D) -> Result<Inventory<R>, StorageError> {
        let names = directory.list().map_err(io_error("list the files in", directory.path("")))?;
        let has = |name: &str| names.iter().any(|found| found == name);
        Ok(Inventory {
            has_identity: has(IDENTITY_NAME),
            has_hard_state: has(HARD_STATE_NAME),
            segments: open_segments(directory, &names)?,
            temporaries: TEMPORARIES.into_iter().filter(|name| has(name)).collect(),
        })
    }

    /// Whether there is more than an empty first segment.
    fn has_records(&self) -> bool {
        match self.segments.as_slice() {
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
        let facts = [self.has_identity, self.has_hard_state, !self.segments.is_empty(), self.has_records()];
        match find_case(&DIRECTORY_CASES, facts).decision {
            DirectoryDecision::Refuse(reason) => {
                Err(StorageError::Refused(format!("the working directory {} {reason}", directory.path(""))))
            }
            decision => Ok(decision),
        }
    }
}

/// Opens all segments. Only the newest can be written: recovery changes nothing in the others, and a long log must not
/// need a descriptor for each of them, not even while it is opened.
fn open_segments<D: Directory>(
    directory: &mut D,
    names: &[String],
) -> Result<Vec<FoundSegment<D::Region>>, StorageError> {
    let mut numbered = Vec::new();
    for name in names {
        let Some(seq) = parse_segment_name(name) else { continue };
        let seq = seq.map_err(|()| {
            StorageError::Refused(format!(
                "{} is not a name that Keva gives: move the file out of the directory",
                directory.path(name)
            ))
        })?;
        numbered.push((seq, name));
    }
    let newest = numbered.iter().map(|(seq, _)| *seq).max();
    let mut segments = Vec::new();
    for (seq, name) in numbered {
        let mut region = directory.open(name).map_err(io_error("open", directory.path(name)))?;
        if Some(seq) != newest {
            region.seal();
        }
        segments.push(FoundSegment { seq, region });
    }
    Ok(segments)
}

/// Removes what nothing needs. Only when all that is needed has been found.
pub(crate) fn remove_leftovers<D: Directory>(
    directory: &mut D,
    inventory: &Inventory<D::Region>,
    recovered: &RecoveredLog<D::Region>,
    report: &mut RecoveryReport,
) -> Result<(), StorageError> {
    let void = recovered.void.iter().map(|seq| segment_name(*seq));
    // Making what was missing has used up some of the temporary files.
    let present = directory.list().map_err(io_error("list the files in", directory.path("")))?;
    let temporaries =
        inventory.temporaries.iter().map(ToString::to_string).filter(|name| present.contains(name));
    for name in void.chain(temporaries) {
        directory.remove(&name).map_err(io_error("remove", directory.path(&name)))?;
        report.removed.push(name);
    }
    Ok(())
}
