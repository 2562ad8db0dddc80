//! Opening a working directory: made at the first start, recovered at every other.

use crate::raft::storage::{SnapshotMeta, StorageError};
use crate::raft::types::{EntryId, Incarnation, Standing};
use crate::storage::cases::DirectoryDecision;
use crate::storage::directory::{Directory, sync_names};
use crate::storage::hard_state::{HardStateFile, Slot};
use crate::storage::identity::{create_identity, open_identity};
use crate::storage::inventory::{Inventory, open_spares, remove_leftovers};
use crate::storage::log::{Log, SegmentMaker};
use crate::storage::log_storage::{LogStorage, StorageOptions};
use crate::storage::recovery::{Expected, FoundLog, RecoveredLog, RecoveryReport, recover_log};
use crate::storage::region::Region;
use crate::storage::segment::{SEGMENT_HEADER_BYTES, Segment, segment_name};
use crate::storage::set_aside::set_aside;
use crate::storage::snapshot::SnapshotFile;
use crate::storage::snapshot_recovery::{FoundSnapshots, find_snapshot};
use crate::storage::snapshots::Snapshots;
use crate::storage::spare::Spare;
use crate::storage::stamp::{REPLACE, with_advice};
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
        directory: D,
        options: StorageOptions,
    ) -> Result<(LogStorage<D>, RecoveryReport), StorageError> {
        LogStorage::open_files(directory, options).map_err(|error| with_advice(error, REPLACE))
    }

    /// The work of [`LogStorage::open`]; its errors say what is wrong, and not what to do.
    pub(crate) fn open_files(
        mut directory: D,
        options: StorageOptions,
    ) -> Result<(LogStorage<D>, RecoveryReport), StorageError> {
        let StorageOptions { membership, segment_bytes, log_margin_bytes, repair, mut rng } = options;
        let whole =
            segment_bytes.is_multiple_of(SEGMENT_HEADER_BYTES) && segment_bytes >= 2 * SEGMENT_HEADER_BYTES;
        assert!(whole, "a segment is whole blocks, at least two, not {segment_bytes} bytes");
        let mut inventory = Inventory::take(&mut directory)?;
        let decision = inventory.decide(&directory)?;
        let first_start = decision == DirectoryDecision::Start;
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
        let is_alone = membership.members.len() == 1;
        let standing = if is_alone { Standing::Voter } else { Standing::Virgin };
        let new_slot = Slot { standing, ..Slot::default() };
        let slot = opened.as_ref().map_or(new_slot, |file| *file.slot());
        report.clean = slot.clean;
        let mut incarnation = Incarnation(slot.incarnation.0 + 1);
        if mutant("start-not-counted") {
            incarnation = slot.incarnation.max(Incarnation(1));
        }
        let mut maker = SegmentMaker { owner, incarnation, segment_bytes, log_margin_bytes, rng };
        let recovered = match interrupted_or_lost(&directory, &slot, decision) {
            Some(damage) => Err(damage),
            None => recover(&mut directory, &mut maker, &mut inventory, &slot, &mut report),
        };
        let recovered = match (recovered, &mut opened) {
            (Err(damage @ StorageError::Damaged { .. }), Some(hard_state)) if repair => {
                start_over(&mut directory, &mut maker, &mut inventory, hard_state, damage, &mut report)?
            }
            (recovered, _) => recovered?,
        };
        let slot = opened.as_ref().map_or(slot, |file| *file.slot());
        let (log, snapshots) = settle(directory, maker, inventory, recovered, &mut report)?;
        Ok((LogStorage::start(log, snapshots, opened, slot, incarnation, repair)?, report))
    }
}

/// What is believed of the files.
struct Recovered<R> {
    log: RecoveredLog<R>,
    snapshot: Option<SnapshotFile<R>>,
    /// The last entries of snapshots that nothing needs.
    old_snapshots: Vec<EntryId>,
    /// The files for segments to come, where one of them was needed.
    spare: Option<Spare<R>>,
}

/// Why there is no use in recovering the log: all of it is gone, or the last start had begun to set it aside.
fn interrupted_or_lost<D: Directory>(
    directory: &D,
    slot: &Slot,
    decision: DirectoryDecision,
) -> Option<StorageError> {
    let detail = if slot.setting_aside != 0 {
        "an earlier start began to set the log aside because of damage, and was cut short".to_owned()
    } else if let DirectoryDecision::Damaged(reason) = decision {
        format!("the file is missing; the working directory {reason}")
    } else {
        return None;
    };
    let file = directory.path(&segment_name(slot.durable.segment_seq));
    Some(StorageError::Damaged { file, offset: 0, detail })
}

/// Puts a damaged log out of the way and begins an empty one, in a file that is there if there is one: the disk may be
/// full.
fn start_over<D: Directory>(
    directory: &mut D,
    maker: &mut SegmentMaker,
    inventory: &mut Inventory<D::Region>,
    hard_state: &mut HardStateFile<D::Region>,
    damage: StorageError,
    report: &mut RecoveryReport,
) -> Result<Recovered<D::Region>, StorageError> {
    let (done, newest) = set_aside(directory, hard_state, maker.incarnation, damage.to_string())?;
    report.set_aside = Some(done);
    let mut spare = open_spares(directory, inventory, maker.segment_bytes)?;
    let first = maker.make_first(directory, &mut spare, newest + 1)?;
    Ok(Recovered { spare: Some(spare), ..Recovered::empty(first) })
}

impl<R: Region> Recovered<R> {
    fn empty(first: Segment<R>) -> Recovered<R> {
        let log = RecoveredLog::empty(first);
        Recovered { log, snapshot: None, old_snapshots: Vec::new(), spare: None }
    }
}

/// Recovers snapshot and log, or makes the log's first segment.
fn recover<D: Directory>(
    directory: &mut D,
    maker: &mut SegmentMaker,
    inventory: &mut Inventory<D::Region>,
    slot: &Slot,
    report: &mut RecoveryReport,
) -> Result<Recovered<D::Region>, StorageError> {
    if let Some(damage) = inventory.unreadable.take() {
        return Err(damage);
    }
    let segments = std::mem::take(&mut inventory.segments);
    if segments.is_empty() {
        // In a new file: an empty segment that a first start left is known by its zeros.
        let mut none = Spare::none(maker.segment_bytes);
        return Ok(Recovered::empty(maker.make_first(directory, &mut none, 1)?));
    }
    let found = FoundLog::read(directory, maker.owner, segments)?;
    let lasts = std::mem::take(&mut inventory.snapshots);
    let FoundSnapshots { newest, others, case } =
        find_snapshot(directory, maker.owner, lasts, found.begins())?;
    report.snapshot = newest.as_ref().map(|file| file.meta().last);
    report.snapshot_case = Some(case).filter(|case| *case != "sound");
    let expected = Expected { snapshot: report.snapshot, durable: slot.durable };
    let log = recover_log(directory, found, expected, report)?;
    Ok(Recovered { log, snapshot: newest, old_snapshots: others, spare: None })
}

/// Removes what nothing needs, and takes what was found into use.
fn settle<D: Directory>(
    mut directory: D,
    maker: SegmentMaker,
    mut inventory: Inventory<D::Region>,
    recovered: Recovered<D::Region>,
    report: &mut RecoveryReport,
) -> Result<(Log<D>, Snapshots<D::Region>), StorageError> {
    let Recovered { log, snapshot, old_snapshots, spare } = recovered;
    let spare = match spare {
        Some(spare) => spare,
        None => open_spares(&mut directory, &mut inventory, maker.segment_bytes)?,
    };
    remove_leftovers(&mut directory, &inventory, &log.void, &old_snapshots, report)?;
    let snapshots = Snapshots::new(&mut directory, snapshot, inventory.has_snapshot_temporary)?;
    let starts_over = log.starts_over;
    let mut log = Log::new(directory, maker, log, spare);
    if let Some(snapshot) = snapshots.meta() {
        finish_compaction(&mut log, snapshot, starts_over)?;
    }
    sync_names(log.directory_mut())?;
    report.segments = log.segments().len();
    report.entries = log.last_index().0 - log.start().index.0;
    Ok((log, snapshots))
}

/// Does what was left to do when a crash followed the publication of a snapshot.
fn finish_compaction<D: Directory>(
    log: &mut Log<D>,
    snapshot: SnapshotMeta,
    starts_over: bool,
) -> Result<(), StorageError> {
    if starts_over {
        log.start_over(snapshot.last, snapshot.bytes)?;
    } else {
        log.remove_covered(snapshot.last.index, snapshot.bytes);
    }
    Ok(())
}
