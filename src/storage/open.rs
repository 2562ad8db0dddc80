//! Opening a working directory: made at the first start, recovered at every other.

use crate::raft::storage::StorageError;
use crate::raft::types::{EntryId, Incarnation};
use crate::storage::cases::DirectoryDecision;
use crate::storage::directory::{Directory, sync_names};
use crate::storage::hard_state::{HardStateFile, Slot};
use crate::storage::identity::{create_identity, open_identity};
use crate::storage::inventory::{Inventory, remove_leftovers};
use crate::storage::log::{Log, SegmentMaker};
use crate::storage::log_storage::{LogStorage, StorageOptions};
use crate::storage::recovery::{Expected, FoundLog, RecoveredLog, RecoveryReport, recover_log};
use crate::storage::segment::SEGMENT_HEADER_BYTES;
use crate::storage::snapshot_recovery::{FoundSnapshots, find_snapshot};
use crate::storage::snapshots::Snapshots;
use crate::util::mutation::mutant;

impl<D: Directory> LogStorage<D> {
    /// Opens the storage in `directory`: makes it at the first start, recovers it at every other. Counts the start.
    /// Everything that the storage shows afterwards is durable.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when the files are not this node's, or a newer Keva's;
    /// [`StorageError::Damaged`] when something is lost that was durable; [`StorageError::Io`] when the disk fails.
    ///
    /// # Panics
    /// When `segment_bytes` is out of range.
    pub fn open(
        mut directory: D,
        options: StorageOptions,
    ) -> Result<(LogStorage<D>, RecoveryReport), StorageError> {
        let StorageOptions { membership, segment_bytes, log_margin_bytes, mut rng } = options;
        let whole =
            segment_bytes.is_multiple_of(SEGMENT_HEADER_BYTES) && segment_bytes >= 2 * SEGMENT_HEADER_BYTES;
        assert!(whole, "a segment is whole blocks, at least two, not {segment_bytes} bytes");
        let inventory = Inventory::take(&mut directory)?;
        let first_start = inventory.decide(&directory)? == DirectoryDecision::Start;
        let mut report = RecoveryReport { first_start, ..RecoveryReport::default() };
        // A name that is seen may still not be durable, if the last run ended between the two.
        sync_names(&mut directory)?;
        let owner = if inventory.has_identity {
            open_identity(&mut directory, &membership)?
        } else {
            create_identity(&mut directory, &membership, &mut rng)?
        };
        let mut opened = None;
        if inventory.has_hard_state {
            let (file, case) = HardStateFile::open(&mut directory, owner)?;
            report.hard_state = Some(case).filter(|case| *case != "both slots");
            opened = Some(file);
        }
        let slot = opened.as_ref().map_or_else(Slot::default, |file| *file.slot());
        report.clean = slot.clean;
        let mut incarnation = Incarnation(slot.incarnation.0 + 1);
        if mutant("start-not-counted") {
            incarnation = slot.incarnation.max(Incarnation(1));
        }
        let maker = SegmentMaker { owner, incarnation, segment_bytes, log_margin_bytes, rng };
        let (log, snapshots) = recover(directory, maker, inventory, &slot, &mut report)?;
        Ok((LogStorage::start(log, snapshots, opened, slot, incarnation)?, report))
    }
}

/// Recovers snapshot and log, or makes the log's first segment, and removes what nothing needs.
fn recover<D: Directory>(
    mut directory: D,
    mut maker: SegmentMaker,
    mut inventory: Inventory<D::Region>,
    slot: &Slot,
    report: &mut RecoveryReport,
) -> Result<(Log<D>, Snapshots<D::Region>), StorageError> {
    let segments = std::mem::take(&mut inventory.segments);
    if segments.is_empty() {
        let recovered = RecoveredLog::empty(maker.make_first(&mut directory)?);
        remove_leftovers(&mut directory, &inventory, &[], &[], report)?;
        let snapshots = Snapshots::new(&mut directory, None, inventory.has_snapshot_temporary)?;
        return Ok((Log::new(directory, maker, recovered), snapshots));
    }
    let found = FoundLog::read(&directory, maker.owner, segments)?;
    let lasts = std::mem::take(&mut inventory.snapshots);
    let FoundSnapshots { newest, others, case } =
        find_snapshot(&mut directory, maker.owner, lasts, found.begins())?;
    report.snapshot = newest.as_ref().map(|file| file.meta().last);
    report.snapshot_case = Some(case).filter(|case| *case != "sound");
    let expected = Expected { snapshot: report.snapshot, durable: slot.durable };
    let recovered = recover_log(&directory, found, expected, report)?;
    remove_leftovers(&mut directory, &inventory, &recovered.void, &others, report)?;
    let snapshots = Snapshots::new(&mut directory, newest, inventory.has_snapshot_temporary)?;
    let starts_over = recovered.starts_over;
    let mut log = Log::new(directory, maker, recovered);
    finish_compaction(&mut log, snapshots.last(), starts_over)?;
    report.segments = log.segments();
    report.entries = log.last_index().0 - log.start().index.0;
    Ok((log, snapshots))
}

/// Does what was left to do when a crash followed the publication of a snapshot.
fn finish_compaction<D: Directory>(
    log: &mut Log<D>,
    covered: EntryId,
    starts_over: bool,
) -> Result<(), StorageError> {
    if starts_over {
        log.start_over(covered)?;
    } else {
        log.remove_covered(covered.index)?;
    }
    sync_names(log.directory_mut())
}
