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
use crate::storage::recovery::{Expected, RecoveredLog, RecoveryReport, recover_log};
use crate::storage::segment::SEGMENT_HEADER_BYTES;
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
        let mut inventory = Inventory::take(&mut directory)?;
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
        let mut maker = SegmentMaker { owner, incarnation, segment_bytes, log_margin_bytes, rng };
        let recovered = recover(&mut directory, &mut maker, &mut inventory, &slot, &mut report)?;
        remove_leftovers(&mut directory, &inventory, &recovered, &mut report)?;
        let log = Log::new(directory, maker, EntryId::default(), recovered);
        Ok((LogStorage::start(log, opened, slot, incarnation)?, report))
    }
}

/// Recovers the log, or makes its first segment.
fn recover<D: Directory>(
    directory: &mut D,
    maker: &mut SegmentMaker,
    inventory: &mut Inventory<D::Region>,
    slot: &Slot,
    report: &mut RecoveryReport,
) -> Result<RecoveredLog<D::Region>, StorageError> {
    let found = std::mem::take(&mut inventory.segments);
    if found.is_empty() {
        let first = maker.make_first(directory)?;
        return Ok(RecoveredLog { segments: vec![first], terms: Default::default(), void: Vec::new() });
    }
    let expected = Expected { snapshot: EntryId::default(), durable: slot.durable };
    let recovered = recover_log(directory, maker.owner, found, expected, report)?;
    report.segments = recovered.segments.len();
    report.entries =
        recovered.segments.iter().map(|segment| segment.next_index().0 - segment.header().base_index.0).sum();
    Ok(recovered)
}
