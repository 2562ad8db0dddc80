//! A node's storage in one piece: working directory, hard state and log.

use crate::raft::entry::Entry;
use crate::raft::storage::{
    Housekeeping, Purpose, SnapshotDraft, SnapshotMeta, SnapshotProgress, Storage, StorageError,
};
use crate::raft::types::{EntryId, HardState, Incarnation, Index, Standing, Term};
use crate::storage::cases::{DIRECTORY_CASES, DirectoryDecision, find_case};
use crate::storage::directory::{Directory, io_error, sync_names};
use crate::storage::hard_state::{HARD_STATE_NAME, HARD_STATE_TEMPORARY, HardStateFile, Slot};
use crate::storage::identity::{
    IDENTITY_NAME, IDENTITY_TEMPORARY, Membership, create_identity, open_identity,
};
use crate::storage::log::{LARGE_SEGMENT_TEMPORARY, Log, SegmentMaker};
use crate::storage::recovery::{
    Expected, FoundSegment, RecoveredLog, RecoveryReport, check_term, recover_log,
};
use crate::storage::region::Region;
use crate::storage::segment::{SEGMENT_HEADER_BYTES, parse_segment_name, segment_name};
use crate::storage::spare::{SPARE_NAME, SpareProgress};
use crate::util::mutation::mutant;
use crate::util::rng::Rng;

/// Names of files that are not whole yet. What a crash left of them is worth nothing.
const TEMPORARIES: [&str; 4] =
    [IDENTITY_TEMPORARY, HARD_STATE_TEMPORARY, SPARE_NAME, LARGE_SEGMENT_TEMPORARY];

/// What [`LogStorage::open`] needs to know.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// Who this node is.
    pub membership: Membership,
    /// Size of a usual segment in bytes: [`SEGMENT_BYTES`](crate::limits::SEGMENT_BYTES), less in tests. A multiple of
    /// 4096, at least 8192.
    pub segment_bytes: usize,
    /// For salts and ids. Seeded by the operating system in production: a salt that is drawn twice could bring removed
    /// entries back.
    pub rng: Rng,
}

/// Hard state and log of one node, on the files of a directory.
///
/// A change of the hard state is durable before any later entry is written, so the log never has an entry of a term
/// that the hard state does not know: a term without its entries is harmless, the reverse is not.
#[derive(Debug)]
pub struct LogStorage<D: Directory> {
    log: Log<D>,
    hard_state_file: HardStateFile<D::Region>,
    hard_state: HardState,
    hard_state_dirty: bool,
    /// A write or sync failed: what the disk holds is unknown from then on.
    failed: bool,
}

/// What lies in the working directory.
struct Inventory<R> {
    has_identity: bool,
    has_hard_state: bool,
    segments: Vec<FoundSegment<R>>,
    temporaries: Vec<&'static str>,
}

impl<R: Region> Inventory<R> {
    fn take<D: Directory<Region = R>>(directory: &mut D) -> Result<Inventory<R>, StorageError> {
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

    fn decide<D: Directory>(&self, directory: &D) -> Result<DirectoryDecision, StorageError> {
        let facts = [self.has_identity, self.has_hard_state, !self.segments.is_empty(), self.has_records()];
        match find_case(&DIRECTORY_CASES, facts).decision {
            DirectoryDecision::Refuse(reason) => {
                Err(StorageError::Refused(format!("the working directory {} {reason}", directory.path(""))))
            }
            decision => Ok(decision),
        }
    }
}

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
        let StorageOptions { membership, segment_bytes, mut rng } = options;
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
        let mut maker = SegmentMaker { owner, incarnation, segment_bytes, rng };
        let recovered = recover(&mut directory, &mut maker, &mut inventory, &slot, &mut report)?;
        remove_leftovers(&mut directory, &inventory, &recovered, &mut report)?;
        let log = Log::new(directory, maker, EntryId::default(), recovered);
        Ok((LogStorage::start(log, opened, slot, incarnation)?, report))
    }

    /// Counts the start in the hard state, durably.
    fn start(
        mut log: Log<D>,
        opened: Option<HardStateFile<D::Region>>,
        slot: Slot,
        incarnation: Incarnation,
    ) -> Result<LogStorage<D>, StorageError> {
        let last_term = log.term(log.last_index()).expect("the last term is known");
        check_term(slot.state.term, last_term, log.directory().path(HARD_STATE_NAME))?;
        let slot = Slot { incarnation, durable: log.durable_mark(), clean: false, ..slot };
        let hard_state_file = match opened {
            Some(mut file) => {
                file.replace(slot)?;
                file.sync_copy()?;
                file
            }
            None => {
                let owner = log.owner();
                HardStateFile::create(log.directory_mut(), owner, slot)?
            }
        };
        Ok(LogStorage {
            log,
            hard_state_file,
            hard_state: slot.state,
            hard_state_dirty: false,
            failed: false,
        })
    }

    /// How often this working directory has been started, from 1.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.hard_state_file.slot().incarnation
    }

    /// The cluster's number, fixed at the first start.
    #[must_use]
    pub fn cluster_id(&self) -> u128 {
        self.log.owner().cluster_id
    }

    /// The working directory's number, drawn at the first start. A node that lost its disk comes back with another.
    #[must_use]
    pub fn disk_id(&self) -> u64 {
        self.log.owner().disk_id
    }

    /// Bytes of records (an entry and at most 31 bytes) that can be appended without asking the file system for space.
    /// When this is less than what waits to be written and [`LogStorage::prepare_spare`] says that the disk is full,
    /// refuse writes: an append without space is an error that stops the process.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.log.free_bytes()
    }

    /// Works for about `budget` bytes on the file of the next segment, so that beginning that segment costs a few
    /// syncs and not the time to make a file. To be called in turns that have time, until it says that it is ready.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn prepare_spare(&mut self, budget: usize) -> Result<SpareProgress, StorageError> {
        self.attempt(|storage| storage.log.prepare_spare(budget))
    }

    /// Stops in good order: makes everything durable and notes that nothing is missing. The next start then knows that
    /// every entry was durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn close(mut self) -> Result<(), StorageError> {
        self.attempt(|storage| {
            storage.write_hard_state()?;
            storage.log.sync()?;
            storage.replace_slot(true)?;
            storage.hard_state_file.sync_copy()
        })
    }

    /// Runs something that writes. After its first error nothing is written any more.
    fn attempt<T>(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        assert!(!self.failed, "after a failed write or sync the process stops; nothing else is written");
        let result = action(self);
        self.failed = result.is_err();
        result
    }

    fn write_hard_state(&mut self) -> Result<(), StorageError> {
        if self.hard_state_dirty {
            self.replace_slot(false)?;
            self.hard_state_dirty = false;
        }
        Ok(())
    }

    /// Has the next sync note in the hard state that the log goes on in another file: should that file be lost, nothing
    /// else would miss it.
    fn note_new_segment(&mut self) {
        let noted = self.hard_state_file.slot().durable.segment_seq;
        self.hard_state_dirty |= self.log.durable_mark().segment_seq != noted;
    }

    fn replace_slot(&mut self, clean: bool) -> Result<(), StorageError> {
        let durable = self.log.durable_mark();
        // The commit index on disk promises that the log reaches it.
        let commit_index = self.hard_state.commit_index.min(durable.index);
        let state = HardState { commit_index, ..self.hard_state };
        let slot = Slot { state, durable, clean, ..*self.hard_state_file.slot() };
        self.hard_state_file.replace(slot)
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

/// Removes what nothing needs. Only when all that is needed has been found.
fn remove_leftovers<D: Directory>(
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

impl<D: Directory> Storage for LogStorage<D> {
    fn hard_state(&self) -> HardState {
        self.hard_state
    }

    fn set_hard_state(&mut self, hard_state: HardState) -> Result<(), StorageError> {
        assert!(!self.failed, "after a failed write or sync the process stops; nothing else is written");
        self.hard_state = hard_state;
        self.hard_state_dirty = true;
        Ok(())
    }

    fn standing(&self) -> Standing {
        Standing::Voter
    }

    fn set_standing(&mut self, _standing: Standing) -> Result<(), StorageError> {
        todo!()
    }

    fn incarnation(&self) -> Incarnation {
        self.hard_state_file.slot().incarnation
    }

    fn raise_incarnation(&mut self, _incarnation: Incarnation) -> Result<(), StorageError> {
        todo!()
    }

    fn reserve(&mut self, _bytes: usize, _purpose: Purpose) -> Result<bool, StorageError> {
        Ok(true)
    }

    fn is_full(&self) -> bool {
        false
    }

    fn log_bytes(&self) -> u64 {
        0
    }

    fn snapshot(&self) -> Option<SnapshotMeta> {
        None
    }

    fn read_snapshot(&self, _offset: u64, _len: usize) -> Result<&[u8], StorageError> {
        todo!()
    }

    fn begin_snapshot(&mut self, _last: EntryId, _bytes: u64) -> Result<bool, StorageError> {
        todo!()
    }

    fn snapshot_draft(&self) -> Option<SnapshotDraft> {
        None
    }

    fn append_snapshot(&mut self, _bytes: &[u8]) -> Result<(), StorageError> {
        todo!()
    }

    fn finish_snapshot(
        &mut self,
        _expected: Option<SnapshotMeta>,
        _budget: usize,
    ) -> Result<SnapshotProgress, StorageError> {
        todo!()
    }

    fn drop_snapshot_draft(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn keep_house(&mut self, _budget: usize) -> Result<Housekeeping, StorageError> {
        Ok(Housekeeping::Done)
    }

    fn log_start(&self) -> EntryId {
        self.log.snapshot()
    }

    fn last_index(&self) -> Index {
        self.log.last_index()
    }

    fn term(&self, index: Index) -> Option<Term> {
        self.log.term(index)
    }

    fn entry(&self, index: Index) -> Result<Entry<'_>, StorageError> {
        self.log.entry(index)
    }

    fn append(&mut self, entry: Entry<'_>) -> Result<(), StorageError> {
        assert!(
            entry.term() <= self.hard_state.term,
            "an entry of a term that the hard state does not know yet"
        );
        self.attempt(|storage| {
            if !mutant("log-before-hard-state") {
                storage.write_hard_state()?;
            }
            storage.log.append(entry)?;
            storage.note_new_segment();
            Ok(())
        })
    }

    fn truncate_suffix(&mut self, last_kept: Index) -> Result<(), StorageError> {
        let commit_index = self.hard_state.commit_index;
        assert!(last_kept >= commit_index, "entry {} is committed and must stay", last_kept.next());
        self.attempt(|storage| {
            storage.write_hard_state()?;
            storage.log.truncate_suffix(last_kept)?;
            storage.note_new_segment();
            Ok(())
        })
    }

    fn is_dirty(&self) -> bool {
        self.hard_state_dirty || self.log.is_dirty() || self.hard_state_file.is_copy_dirty()
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.attempt(|storage| {
            if mutant("log-before-hard-state") {
                storage.log.sync()?;
            }
            // What earlier turns left. A copy that is made here waits for the next turn, so that its sync does not delay
            // the promises that this one sets free.
            storage.hard_state_file.sync_copy()?;
            storage.write_hard_state()?;
            storage.log.sync()
        })
    }
}
