//! The state machine out of the newest snapshot: when the node starts, and when the leader has sent one.

use crate::kv::restore::{Restore, RestoreError};
use crate::kv::store::Store;
use crate::limits::{RESTORE_REPORT_BYTES_MIN, SNAPSHOT_CHUNK_BYTES};
use crate::raft::storage::{SnapshotMeta, Storage, StorageError};

/// Reads the newest snapshot, whose meta data this is.
pub(crate) fn restore(storage: &impl Storage, snapshot: SnapshotMeta) -> Result<Store, StorageError> {
    let refuse = |error| StorageError::Refused(refusal(snapshot, error));
    let mut restore = Restore::new(snapshot.bytes);
    let mut offset = 0;
    while offset < snapshot.bytes {
        let len = (snapshot.bytes - offset).min(SNAPSHOT_CHUNK_BYTES as u64);
        let chunk = storage.read_snapshot(offset, usize::try_from(len).expect("a chunk fits in memory"))?;
        restore.push(chunk).map_err(refuse)?;
        report(snapshot, offset, offset + len);
        offset += len;
    }
    let store = restore.finish().map_err(refuse)?;
    if store.applied_index() != snapshot.last.index {
        return Err(refuse(RestoreError::Header));
    }
    Ok(store)
}

/// Says when another quarter is read: somebody may be waiting.
fn report(snapshot: SnapshotMeta, from: u64, to: u64) {
    let quarter = |offset: u64| u128::from(offset) * 4 / u128::from(snapshot.bytes);
    if snapshot.bytes > RESTORE_REPORT_BYTES_MIN && quarter(to) > quarter(from) && to < snapshot.bytes {
        log::info!("reading the snapshot: {} % of {} bytes", 25 * quarter(to), snapshot.bytes);
    }
}

fn refusal(snapshot: SnapshotMeta, error: RestoreError) -> String {
    let what_to_do = match error {
        RestoreError::Version(_) => {
            "Upgrade this node to the version that the other nodes run, and start it again on the same working \
             directory"
        }
        _ => {
            "The file is as it was written, so the program that wrote it has a defect; please report it. A node of \
             several can be started on an empty working directory: it gets its data from the others"
        }
    };
    format!("the snapshot of everything up to {} cannot be read: {error}. {what_to_do}", snapshot.last)
}
