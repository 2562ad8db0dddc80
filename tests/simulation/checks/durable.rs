//! What a power cut would leave on a node's disk, read from the durable bytes by code of its own: the production code is
//! not asked what it believes to be durable.

use std::collections::BTreeMap;

use keva::raft::entry::Entry;
use keva::raft::types::{Index, NodeId, Term};

use crate::support::sim_region::SimDisk;

const HEADER_BYTES: usize = 4096;
const PREFIX_BYTES: usize = 16;
const ALIGN_BYTES: usize = 16;

/// One segment's durable records.
#[derive(Debug)]
struct Segment {
    seq: u64,
    changes: u64,
    base: u64,
    valid_from: u64,
    end: usize,
    entries: Vec<(Term, u32)>,
}

/// See the module's text. Records are read once.
#[derive(Debug, Default)]
pub(crate) struct DurableView {
    /// By the file's number.
    segments: BTreeMap<u64, Segment>,
    /// Files that have a durable name, newest segment first.
    live: Vec<(u64, u64)>,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl DurableView {
    /// Reads what has become durable since the last time.
    pub(crate) fn refresh(&mut self, disk: &SimDisk) {
        let (segments, live) = (&mut self.segments, &mut self.live);
        live.clear();
        let mut slots = None;
        disk.visit_durable(|name, id, changes, bytes| {
            if name == "hard-state" && bytes.len() == 2 * HEADER_BYTES {
                slots = newest_slot(bytes);
            }
            if !name.starts_with("seg-") || bytes.len() < HEADER_BYTES {
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
        if let Some((term, vote)) = slots {
            (self.term, self.vote) = (term, vote);
        }
    }

    /// The durable entry at an index.
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
        let mut last = 0;
        for (_, id) in self.live.iter().rev() {
            let segment = &self.segments[id];
            // A segment is whole before its successor is made.
            last = segment.base - 1 + segment.entries.len() as u64;
        }
        Index(last)
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
            if entry.index().0 != self.base + self.entries.len() as u64 {
                return;
            }
            self.entries.push((entry.term(), entry.crc()));
            self.end += (PREFIX_BYTES + entry.bytes().len()).next_multiple_of(ALIGN_BYTES);
        }
    }
}

/// Term and vote of the newer whole copy.
fn newest_slot(bytes: &[u8]) -> Option<(Term, Option<NodeId>)> {
    let slot = |at: usize| {
        let block = &bytes[at..at + 512];
        let crc = u32::from_le_bytes(block[8..12].try_into().expect("four bytes"));
        (crc32c::crc32c(&block[12..]) == crc)
            .then(|| (u64_at(block, 48), u64_at(block, 64), u64_at(block, 72)))
    };
    let (_, term, vote) = slot(0).max(slot(HEADER_BYTES))?;
    Some((Term(term), Some(NodeId(vote)).filter(|node| node.0 != 0)))
}
