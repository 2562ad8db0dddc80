//! What a power cut would leave on a node's disk, read from the durable bytes by code of its own: the production code is
//! not asked what it believes to be durable.

use std::collections::BTreeMap;

use keva::raft::entry::{ENTRY_HEADER_BYTES, Entry};
use keva::raft::types::{EntryId, Index, NodeId, Standing, Term};

use crate::support::sim_disk::SimDisk;

const HEADER_BYTES: usize = 4096;
const PREFIX_BYTES: usize = 16;
const ALIGN_BYTES: usize = 16;

/// One segment's durable records.
#[derive(Clone, Debug)]
struct Segment {
    seq: u64,
    changes: u64,
    base: u64,
    valid_from: u64,
    end: usize,
    entries: Vec<(Term, u32)>,
}

/// One snapshot file's durable bytes.
#[derive(Clone, Debug)]
struct SnapshotFile {
    changes: u64,
    /// What it covers, if it is whole.
    last: Option<EntryId>,
}

/// See the module's text. Records are read once.
#[derive(Clone, Debug, Default)]
pub(crate) struct DurableView {
    /// By the file's number.
    segments: BTreeMap<u64, Segment>,
    /// Files that have a durable name, newest segment first.
    live: Vec<(u64, u64)>,
    /// By the file's number.
    snapshots: BTreeMap<u64, SnapshotFile>,
    /// What the newest whole snapshot covers, `0@0` without one.
    pub(crate) snapshot: EntryId,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) standing: Standing,
}

/// What a copy of the hard state says.
struct Slot {
    seq: u64,
    term: Term,
    vote: Option<NodeId>,
    standing: Standing,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl DurableView {
    /// Reads what has become durable since the last time.
    pub(crate) fn refresh(&mut self, disk: &SimDisk) {
        let (segments, live) = (&mut self.segments, &mut self.live);
        let (snapshots, mut newest) = (&mut self.snapshots, EntryId::default());
        live.clear();
        let mut slot = None;
        disk.visit_durable(|name, id, changes, bytes| {
            if name == "hard-state" && bytes.len() == 2 * HEADER_BYTES {
                slot = newest_slot(bytes);
            }
            if bytes.len() < HEADER_BYTES {
                return;
            }
            if name.starts_with("snap-") {
                let file = snapshots.entry(id).or_insert(SnapshotFile { changes: u64::MAX, last: None });
                if file.changes != changes {
                    *file = SnapshotFile { changes, last: covered(bytes) };
                }
                newest = file.last.filter(|last| last.index > newest.index).unwrap_or(newest);
            }
            if !name.starts_with("seg-") {
                return;
            }
            // What damage did to a file is not what its node knows.
            let is_reused = |segment: &Segment| segment.seq != u64_at(bytes, 48) && is_stamped(bytes);
            if segments.get(&id).is_some_and(is_reused) {
                segments.remove(&id);
            }
            if !segments.contains_key(&id) && !is_stamped(bytes) {
                return;
            }
            let segment = segments.entry(id).or_insert_with(|| Segment {
                seq: u64_at(bytes, 48),
                changes: u64::MAX,
                base: u64_at(bytes, 64),
                valid_from: u64_at(bytes, 80),
                end: HEADER_BYTES,
                entries: Vec::new(),
            });
            live.push((segment.seq, id));
            if segment.changes != changes {
                segment.changes = changes;
                segment.read(bytes);
            }
        });
        live.sort_unstable_by(|left, right| right.cmp(left));
        self.snapshot = newest;
        if let Some(slot) = slot {
            (self.term, self.vote, self.standing) = (slot.term, slot.vote, slot.standing);
        }
        // A log that has not got the snapshot's last entry is void: the snapshot came from a leader.
        let has_last = self.entry(newest.index).is_some_and(|(term, _)| term == newest.term);
        let goes_on = self.live.iter().any(|(_, id)| self.segments[id].base == newest.index.0 + 1);
        if newest.index > Index(0) && !has_last && !goes_on {
            self.live.clear();
        }
    }

    /// The durable entry at an index. Those that only a snapshot covers are not known.
    pub(crate) fn entry(&self, index: Index) -> Option<(Term, u32)> {
        for (_, id) in &self.live {
            let segment = &self.segments[id];
            if index.0 >= segment.base {
                let position = usize::try_from(index.0 - segment.base).expect("short logs");
                return segment.entries.get(position).copied();
            }
            if index.0 >= segment.valid_from {
                return None;
            }
        }
        None
    }

    /// Everything up to here is durable.
    pub(crate) fn last_index(&self) -> Index {
        let segment = self.live.first().map(|(_, id)| &self.segments[id]);
        let last = segment.map_or(0, |segment| segment.base - 1 + segment.entries.len() as u64);
        Index(last).max(self.snapshot.index)
    }

    /// Whether the disk has this entry, or a snapshot that covers it.
    pub(crate) fn has(&self, id: EntryId) -> bool {
        self.snapshot.index >= id.index || self.entry(id.index).is_some_and(|(term, _)| term == id.term)
    }

    /// The newest segment's number.
    pub(crate) fn newest_segment(&self) -> u64 {
        self.live.first().map_or(0, |(seq, _)| *seq)
    }

    /// All durable entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Index, Term, u32)> {
        let mut all = Vec::new();
        for index in 1..=self.last_index().0 {
            if let Some((term, crc)) = self.entry(Index(index)) {
                all.push((Index(index), term, crc));
            }
        }
        all.into_iter()
    }
}

impl Segment {
    fn read(&mut self, bytes: &[u8]) {
        while let Some(rest) = bytes.get(self.end + PREFIX_BYTES..) {
            let Ok(entry) = Entry::decode(rest) else { return };
            if !has_prefix(bytes, self.end) {
                return;
            }
            if entry.index().0 != self.base + self.entries.len() as u64 {
                return;
            }
            self.entries.push((entry.term(), entry.crc()));
            self.end += (PREFIX_BYTES + entry.bytes().len()).next_multiple_of(ALIGN_BYTES);
        }
    }
}

/// Whether what is in front of the entry at `at` of a segment is whole, too, and from this life of the file: the entry may
/// have reached the disk without it, or be left over.
pub(crate) fn has_prefix(bytes: &[u8], at: usize) -> bool {
    let mut covered = Vec::with_capacity(60);
    covered.extend_from_slice(&bytes[88..96]);
    covered.extend_from_slice(&(at as u64).to_le_bytes());
    covered.extend_from_slice(&bytes[at + 4..at + PREFIX_BYTES + ENTRY_HEADER_BYTES]);
    crc32c::crc32c(&covered) == u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The newer whole copy.
fn newest_slot(bytes: &[u8]) -> Option<Slot> {
    let slot = |at: usize| {
        let block = &bytes[at..at + 512];
        let crc = u32::from_le_bytes(block[8..12].try_into().expect("four bytes"));
        (crc32c::crc32c(&block[12..]) == crc).then(|| Slot {
            seq: u64_at(block, 48),
            term: Term(u64_at(block, 64)),
            vote: Some(NodeId(u64_at(block, 72))).filter(|node| node.0 != 0),
            standing: [Standing::Voter, Standing::Virgin, Standing::Recovering][usize::from(block[112])],
        })
    };
    [slot(0), slot(HEADER_BYTES)].into_iter().flatten().max_by_key(|slot| slot.seq)
}

/// What a snapshot file covers, if its content is what its header says.
fn covered(bytes: &[u8]) -> Option<EntryId> {
    let len = usize::try_from(u64_at(bytes, 64)).ok()?;
    let crc = u32::from_le_bytes(bytes[72..76].try_into().expect("four bytes"));
    let content = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(len)?)?;
    let last = EntryId::new(Term(u64_at(bytes, 56)), Index(u64_at(bytes, 48)));
    (is_stamped(bytes) && len > 0 && crc32c::crc32c(content) == crc).then_some(last)
}

/// Whether a file's header is what was written.
fn is_stamped(bytes: &[u8]) -> bool {
    let stamp = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
    crc32c::crc32c(&bytes[12..HEADER_BYTES]) == stamp
}
