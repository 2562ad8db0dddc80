//! Opening a working directory: made at the first start, recovered at every other.

use crate::raft::storage::StorageError;
use crate::raft::types::{EntryId, Incarnation, Standing};
use crate::storage::cases::DirectoryDecision;
use crate::storage::directory::{Directory, sync_names};
use crate::storage::hard_state::{HardStateFile, Slot};
use crate::storage::identity::{create_identity, open_identity};
use crate::storage::inventory::{Inventory, open_spares, remove_leftovers};
use crate::storage::log::{Log, SegmentMaker};
use crate::storage::log_storage::{LogStorage, StorageOptions};
use crate::storage::recovery::{Expected, RecoveredLog, RecoveryReport, recover_log};
use crate::storage::segment::{SEGMENT_HEADER_BYTES, segment_name};
use crate::storage::set_aside::set_aside;
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
                drop(inventory.segments.drain(..));
                start_over(&mut directory, &mut maker, hard_state, damage, &mut report)?
            }
            (recovered, _) => recovered.map_err(|error| with_advice(error, REPLACE))?,
        };
        let slot = opened.as_ref().map_or(slot, |file| *file.slot());
        let spares = open_spares(&mut directory, &mut inventory, segment_bytes)?;
        remove_leftovers(&mut directory, &inventory, &recovered, &mut report)?;
        let mut log = Log::new(directory, maker, EntryId::default(), recovered);
        spares.into_iter().for_each(|(name, region)| log.keep_spare(name, region));
        Ok((LogStorage::start(log, opened, slot, incarnation, repair)?, report))
    }
}

/// Why there is no use in recovering the log: all of it is gone, or the last start had begun to set it aside.
fn interrupted_or_lost<D: Directory>(
    directory: &D,
    slot: &Slot,
    decision: DirectoryDecision,
) -> Option<StorageError> {
    let detail = if slot.setting_aside != 0 {
        "an earlier start has set the log aside because of damage, and was cut short".to_owned()
    } else if let DirectoryDecision::Damaged(reason) = decision {
        format!("the file is missing; the working directory {reason}")
    } else {
        return None;
    };
    let file = directory.path(&segment_name(slot.durable.segment_seq));
    Some(StorageError::Damaged { file, offset: 0, detail })
}

/// Puts a damaged log out of the way and begins an empty one.
fn start_over<D: Directory>(
    directory: &mut D,
    maker: &mut SegmentMaker,
    hard_state: &mut HardStateFile<D::Region>,
    damage: StorageError,
    report: &mut RecoveryReport,
) -> Result<RecoveredLog<D::Region>, StorageError> {
    let damage = with_advice(damage, "").to_string();
    let (done, newest) = set_aside(directory, hard_state, maker.incarnation, damage)?;
    report.set_aside = Some(done);
    let first = maker.make_first(directory, newest + 1)?;
    Ok(RecoveredLog { segments: vec![first], terms: Default::default(), void: Vec::new() })
}

/// Recovers the log, or makes its first segment.
fn recover<D: Directory>(
    directory: &mut D,
    maker: &mut SegmentMaker,
    inventory: &mut Inventory<D::Region>,
    slot: &Slot,
    report: &mut RecoveryReport,
) -> Result<RecoveredLog<D::Region>, StorageError> {
    if let Some(damage) = inventory.unreadable.take() {
        return Err(damage);
    }
    let found = std::mem::take(&mut inventory.segments);
    if found.is_empty() {
        let first = maker.make_first(directory, 1)?;
        return Ok(RecoveredLog { segments: vec![first], terms: Default::default(), void: Vec::new() });
    }
    let expected = Expected { snapshot: EntryId::default(), durable: slot.durable };
    let recovered = recover_log(directory, maker.owner, found, expected, report)?;
    report.segments = recovered.segments.len();
    report.entries =
        recovered.segments.iter().map(|segment| segment.next_index().0 - segment.header().base_index.0).sum();
    Ok(recovered)
}
