//! Which of the snapshots in the working directory holds. The decision is a table in [`cases`](crate::storage::cases).

use std::cmp::Reverse;

use crate::raft::storage::StorageError;
use crate::raft::types::{EntryId, Index};
use crate::storage::cases::{SNAPSHOT_CASES, SnapshotChoice, find_case};
use crate::storage::directory::{Directory, open_error};
use crate::storage::snapshot::{SnapshotFile, snapshot_name};
use crate::storage::stamp::Owner;

/// What is there of snapshots.
#[derive(Debug)]
pub(crate) struct FoundSnapshots<R> {
    /// The one that holds.
    pub(crate) newest: Option<SnapshotFile<R>>,
    /// The last entries of those that nothing needs: older ones, and a damaged newest that the log makes up for.
    pub(crate) others: Vec<EntryId>,
    /// Why it holds.
    pub(crate) case: &'static str,
}

/// Chooses among the snapshots with these last entries. `log_begins` is the index of the log's first entry.
///
/// # Errors
/// [`StorageError::Damaged`] when the newest is, and the log does not make up for it.
/// [`StorageError::Refused`] when a file does not belong here.
pub(crate) fn find_snapshot<D: Directory>(
    directory: &mut D,
    owner: Owner,
    mut lasts: Vec<EntryId>,
    log_begins: Index,
) -> Result<FoundSnapshots<D::Region>, StorageError> {
    lasts.sort_by_key(|last| Reverse((last.index, last.term)));
    let (mut newest, mut damage) = (None, None);
    for last in &lasts {
        let name = snapshot_name(*last);
        let path = directory.path(&name);
        let region = directory.open(&name).map_err(open_error(path.clone()));
        match region.and_then(|region| SnapshotFile::open(region, *last, owner, path, &lasts)) {
            Ok(file) => {
                newest = Some(file);
                break;
            }
            Err(error @ StorageError::Damaged { .. }) => drop(damage.get_or_insert(error)),
            Err(error) => return Err(error),
        }
    }
    let last = newest.as_ref().map_or(EntryId::default(), |file| file.meta().last);
    let case = find_case(&SNAPSHOT_CASES, [damage.is_none(), log_begins <= last.index.next()]);
    match (case.decision, damage) {
        (SnapshotChoice::Damaged, Some(error)) => Err(error),
        _ => {
            lasts.retain(|other| *other != last);
            Ok(FoundSnapshots { newest, others: lasts, case: case.name })
        }
    }
}
