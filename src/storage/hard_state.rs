//! The hard state on disk: one file with two copies of one small record.
//!
//! ```text
//!  0: first slot    4096: second slot    8192: end
//!  slot: 0                   48    56            64     72     80             88            96              104
//!        | stamp (KEVAHARD) | seq | incarnation | term | vote | commit index | durable seq | durable index | clean |
//!        112        120
//!        | standing | setting aside | zeros |
//! ```
//!
//! A change is written to the first slot and synced; from then on it holds. Then it is copied to the second slot, and
//! that copy is synced by the storage's next sync, which is due at once, and before the first slot is written again. So
//! at any moment one whole copy is durable; and a slot that rots once both are does not take a vote back: the other one
//! says the same. `durable seq` and `durable index` say how far the log was durable when the slot was written, and in
//! which segment. `standing` is 0 for a voter, 1 for a virgin, 2 while the node recovers. `setting aside` is not 0 while
//! a damaged log is being moved out of the way: see [`set_aside`](crate::storage::set_aside).

use std::io;

use crate::limits::COUNTER_MAX;
use crate::raft::storage::StorageError;
use crate::raft::types::{HardState, Incarnation, Index, NodeId, Standing, Term};
use crate::storage::cases::{HARD_STATE_CASES, SlotChoice, find_case};
use crate::storage::directory::{Directory, io_error, publish};
use crate::storage::region::Region;
use crate::storage::stamp::{Owner, StampError, check_stamp, put, stamp, u64_at};
use crate::util::mutation::mutant;

/// The file's name.
pub(crate) const HARD_STATE_NAME: &str = "hard-state";
/// What it is called until it is whole.
pub(crate) const HARD_STATE_TEMPORARY: &str = "hard-state.tmp";
const MAGIC: [u8; 8] = *b"KEVAHARD";
/// The slots lie a block apart, so that a torn write cannot reach both.
const SLOT_DISTANCE_BYTES: usize = 4096;
/// A slot fills one sector: most disks write that whole or not at all.
const SLOT_BYTES: usize = 512;
const FILE_BYTES: usize = 2 * SLOT_DISTANCE_BYTES;

/// How far the log is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct DurableMark {
    /// The newest segment's number.
    pub(crate) segment_seq: u64,
    /// The last durable index.
    pub(crate) index: Index,
}

/// One copy of the hard state, with what storage itself must remember.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Slot {
    /// Counts the changes.
    pub(crate) seq: u64,
    /// Counts the starts.
    pub(crate) incarnation: Incarnation,
    /// What the protocol asked to keep.
    pub(crate) state: HardState,
    /// How far the log was durable then.
    pub(crate) durable: DurableMark,
    /// Written by a stop in good order, with nothing written after it.
    pub(crate) clean: bool,
    /// What the node may promise.
    pub(crate) standing: Standing,
    /// The number under which log and snapshots are being set aside, 0 when they are not.
    pub(crate) setting_aside: u64,
}

/// What the two copies say, before one of them is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotsFound {
    /// Each copy, `None` when it is damaged.
    pub(crate) slots: [Option<Slot>; 2],
    /// The name of the case.
    pub(crate) case: &'static str,
    /// The place of the one that holds.
    pub(crate) chosen: Option<usize>,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct HardStateFile<R> {
    region: R,
    path: String,
    owner: Owner,
    slot: Slot,
    /// See [`HardStateFile::is_copy_dirty`].
    copy_dirty: bool,
}

impl Slot {
    fn encode(&self, owner: Owner) -> [u8; SLOT_BYTES] {
        let mut block = [0; SLOT_BYTES];
        put(&mut block, 48, &self.seq.to_le_bytes());
        put(&mut block, 56, &self.incarnation.0.to_le_bytes());
        put(&mut block, 64, &self.state.term.0.to_le_bytes());
        put(&mut block, 72, &self.state.vote.map_or(0, |node| node.0).to_le_bytes());
        put(&mut block, 80, &self.state.commit_index.0.to_le_bytes());
        put(&mut block, 88, &self.durable.segment_seq.to_le_bytes());
        put(&mut block, 96, &self.durable.index.0.to_le_bytes());
        put(&mut block, 104, &u64::from(self.clean).to_le_bytes());
        put(&mut block, 112, &standing_number(self.standing).to_le_bytes());
        put(&mut block, 120, &self.setting_aside.to_le_bytes());
        stamp(&mut block, MAGIC, owner);
        block
    }

    fn decode(block: &[u8], owner: Owner) -> Result<Slot, StampError> {
        check_stamp(block, MAGIC, owner)?;
        // Every number but the vote, which is a hash.
        if [48, 56, 64, 80, 88, 96, 120].into_iter().any(|field| u64_at(block, field) > COUNTER_MAX) {
            return Err(StampError::Damaged);
        }
        Ok(Slot {
            seq: u64_at(block, 48),
            incarnation: Incarnation(u64_at(block, 56)),
            state: HardState {
                term: Term(u64_at(block, 64)),
                vote: Some(NodeId(u64_at(block, 72))).filter(|node| node.0 != 0),
                commit_index: Index(u64_at(block, 80)),
            },
            durable: DurableMark { segment_seq: u64_at(block, 88), index: Index(u64_at(block, 96)) },
            clean: u64_at(block, 104) != 0,
            standing: standing_of(u64_at(block, 112)).ok_or(StampError::Damaged)?,
            setting_aside: u64_at(block, 120),
        })
    }
}

fn standing_number(standing: Standing) -> u64 {
    match standing {
        Standing::Voter => 0,
        Standing::Virgin => 1,
        Standing::Recovering => 2,
    }
}

fn standing_of(number: u64) -> Option<Standing> {
    [Standing::Voter, Standing::Virgin, Standing::Recovering].get(usize::try_from(number).ok()?).copied()
}

impl SlotsFound {
    /// Reads both copies and decides which one holds.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when the file has another size; [`StorageError::Refused`] when it is somebody else's or
    /// a newer Keva's.
    pub(crate) fn read(region: &impl Region, owner: Owner, path: &str) -> Result<SlotsFound, StorageError> {
        if region.size() != FILE_BYTES {
            let detail = format!("it has {} bytes instead of {FILE_BYTES}", region.size());
            return Err(StorageError::Damaged { file: path.to_string(), offset: 0, detail });
        }
        let slots = [read_slot(region, 0, owner, path)?, read_slot(region, 1, owner, path)?];
        let seqs = slots.map(|slot| slot.map_or(0, |slot| slot.seq));
        let second_is_newer = if mutant("older-slot-wins") { seqs[1] < seqs[0] } else { seqs[1] > seqs[0] };
        let case = find_case(&HARD_STATE_CASES, [slots[0].is_some(), slots[1].is_some(), second_is_newer]);
        let chosen = match case.decision {
            SlotChoice::First => Some(0),
            SlotChoice::Second => Some(1),
            SlotChoice::Refuse => None,
        };
        Ok(SlotsFound { slots, case: case.name, chosen })
    }

    /// The copy that holds, with its place.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when neither does: starting without a vote that was given would be worse than not
    /// starting.
    pub(crate) fn choose(&self, path: &str) -> Result<(Slot, usize), StorageError> {
        self.chosen.and_then(|place| Some((self.slots[place]?, place))).ok_or_else(|| StorageError::Damaged {
            file: path.to_string(),
            offset: 0,
            detail: "neither copy of term and vote can be read".into(),
        })
    }
}

impl<R: Region> HardStateFile<R> {
    /// Makes the file with `slot` in both copies, durably.
    pub(crate) fn create<D: Directory<Region = R>>(
        directory: &mut D,
        owner: Owner,
        slot: Slot,
    ) -> Result<HardStateFile<R>, StorageError> {
        let temporary = directory.path(HARD_STATE_TEMPORARY);
        let mut region = directory
            .create(HARD_STATE_TEMPORARY, FILE_BYTES)
            .map_err(io_error("create", temporary.clone()))?;
        let block = slot.encode(owner);
        write_slot(&mut region, 0, &block)
            .and_then(|()| write_slot(&mut region, 1, &block))
            .map_err(io_error("write", temporary))?;
        publish(directory, &mut region, HARD_STATE_TEMPORARY, HARD_STATE_NAME)?;
        let path = directory.path(HARD_STATE_NAME);
        Ok(HardStateFile { region, path, owner, slot, copy_dirty: false })
    }

    /// Opens the file and decides which copy holds.
    ///
    /// # Errors
    /// As [`SlotsFound::read`] and [`SlotsFound::choose`].
    pub(crate) fn open<D: Directory<Region = R>>(
        directory: &mut D,
        owner: Owner,
    ) -> Result<(HardStateFile<R>, &'static str), StorageError> {
        let path = directory.path(HARD_STATE_NAME);
        let region = directory.open(HARD_STATE_NAME).map_err(io_error("open", path.clone()))?;
        let found = SlotsFound::read(&region, owner, &path)?;
        let (slot, place) = found.choose(&path)?;
        let mut file = HardStateFile { region, path, owner, slot, copy_dirty: false };
        file.restore(place)?;
        Ok((file, found.case))
    }

    /// Writes the chosen copy over itself and then over the other one, durably. What was read may exist only in the
    /// cache of a kernel that failed to write it. The copy's own place comes first: if the disk has it, the same bytes
    /// do no harm; if not, the other place still has the state before it, which is then the last one promised.
    fn restore(&mut self, chosen: usize) -> Result<(), StorageError> {
        let block = self.slot.encode(self.owner);
        for place in [chosen, 1 - chosen] {
            write_slot(&mut self.region, place, &block).map_err(io_error("write", self.path.clone()))?;
            self.region.sync().map_err(io_error("sync", self.path.clone()))?;
        }
        Ok(())
    }

    /// The newest state written.
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Replaces the state, durably. The number of changes is counted here.
    pub(crate) fn replace(&mut self, slot: Slot) -> Result<(), StorageError> {
        self.sync_copy()?;
        let slot = Slot { seq: self.slot.seq + 1, ..slot };
        let block = slot.encode(self.owner);
        write_slot(&mut self.region, 0, &block).map_err(io_error("write", self.path.clone()))?;
        if !mutant("hard-state-not-synced") {
            self.region.sync().map_err(io_error("sync", self.path.clone()))?;
        }
        self.slot = slot;
        write_slot(&mut self.region, 1, &block).map_err(io_error("write", self.path.clone()))?;
        self.copy_dirty = true;
        Ok(())
    }

    /// Looks whether both copies still say what was written.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when one does not.
    pub(crate) fn check_copies(&self) -> Result<(), StorageError> {
        let block = self.slot.encode(self.owner);
        for place in [0, 1] {
            let offset = place * SLOT_DISTANCE_BYTES;
            if self.region.read(offset, SLOT_BYTES) != block {
                return Err(StorageError::Damaged {
                    file: self.path.clone(),
                    offset: offset as u64,
                    detail: "one of the two copies of term and vote is not what was written there".into(),
                });
            }
        }
        Ok(())
    }

    /// Whether the second copy is written and not yet durable.
    pub(crate) fn is_copy_dirty(&self) -> bool {
        self.copy_dirty
    }

    /// Makes the second copy durable.
    pub(crate) fn sync_copy(&mut self) -> Result<(), StorageError> {
        if self.copy_dirty {
            self.region.sync().map_err(io_error("sync", self.path.clone()))?;
            self.copy_dirty = false;
        }
        Ok(())
    }
}

fn write_slot(region: &mut impl Region, place: usize, block: &[u8]) -> io::Result<()> {
    region.write_at(place * SLOT_DISTANCE_BYTES, block)
}

/// A slot, `None` when it is damaged.
fn read_slot(
    region: &impl Region,
    place: usize,
    owner: Owner,
    path: &str,
) -> Result<Option<Slot>, StorageError> {
    let offset = place * SLOT_DISTANCE_BYTES;
    match Slot::decode(region.read(offset, SLOT_BYTES), owner) {
        Ok(slot) => Ok(Some(slot)),
        Err(StampError::Damaged) => Ok(None),
        Err(other) => Err(other.explain(path.to_string(), offset, "the hard state", owner)),
    }
}
