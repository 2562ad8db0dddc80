//! What must be true of snapshots, and of the space that they are there to save.

use std::collections::BTreeMap;

use keva::kv::store::Store;
use keva::limits::SNAPSHOT_CHUNK_BYTES;
use keva::raft::storage::{SnapshotMeta, Storage, snapshot_id};
use keva::raft::types::{EntryId, Index};
use keva::replica::replica::Replica;

use crate::marks::{Mark, Marks};
use crate::plan::{Class, Plan};
use crate::support::sim_disk::SimDisk;
use crate::support::storage_fixture::SimStorage;

/// What was seen of a node's snapshots when it was looked at last.
#[derive(Debug, Default)]
struct Seen {
    newest: Option<SnapshotMeta>,
    log_start: EntryId,
    /// What the node itself is writing.
    own_draft: Option<EntryId>,
    is_full: bool,
    last: Index,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Snapshots {
    seen: Vec<Seen>,
    /// Every snapshot that ever was, by the last entry that it covers: what it holds is the same on all nodes (D13).
    known: BTreeMap<Index, SnapshotMeta>,
    segment_bytes: usize,
}

impl Snapshots {
    pub(crate) fn new(plan: &Plan) -> Snapshots {
        Snapshots {
            seen: (0..plan.nodes).map(|_| Seen::default()).collect(),
            known: BTreeMap::new(),
            segment_bytes: plan.segment_bytes,
        }
    }

    /// The node has lost its snapshot, or has an earlier one.
    pub(crate) fn forget(&mut self, node: usize) {
        self.seen[node] = Seen::default();
    }

    pub(crate) fn observe(
        &mut self,
        marks: &mut Marks,
        node: usize,
        replica: &Replica<SimStorage>,
        hashes: &mut BTreeMap<Index, u64>,
    ) {
        let storage = replica.raft().storage();
        let newest = storage.snapshot();
        let seen = &mut self.seen[node];
        let start = storage.log_start();
        if start.index > seen.log_start.index {
            marks.hit(Mark::LogCompacted);
            if start.index < snapshot_id(storage).index {
                marks.hit(Mark::CompactedWithMargin);
            }
        }
        seen.log_start = start;
        note_space(marks, seen, storage);
        let before = std::mem::replace(&mut seen.newest, newest);
        let draft = storage.snapshot_draft().filter(|_| !replica.raft().is_receiving_snapshot());
        let own = std::mem::replace(&mut seen.own_draft, draft.map(|draft| draft.last));
        if newest == before {
            return;
        }
        let newest = newest.expect("a snapshot gives way only to a newer one");
        let before = before.unwrap_or_default().last.index;
        assert!(
            newest.last.index > before,
            "node {node} went back from snapshot {before} to {}",
            newest.last
        );
        let is_own = own == Some(newest.last);
        marks.hit(if is_own { Mark::SnapshotTaken } else { Mark::SnapshotInstalled });
        if is_own && replica.store().applied_index() > newest.last.index {
            marks.hit(Mark::SnapshotWhileChanging);
        }
        let known = *self.known.entry(newest.last.index).or_insert(newest);
        assert_eq!(known, newest, "node {node} has another snapshot than others");
        let bytes = contents(storage, newest);
        assert_eq!(crc32c::crc32c(&bytes), newest.crc, "node {node}: snapshot {}", newest.last);
        let store = Store::restore(&bytes).expect("a whole snapshot can be read");
        assert_eq!(store.applied_index(), newest.last.index, "node {node}: snapshot {}", newest.last);
        let hash = store.state_hash();
        let known = *hashes.entry(newest.last.index).or_insert(hash);
        assert_eq!(known, hash, "node {node}: snapshot {} is not the state at that entry", newest.last);
    }

    /// A node's process ended: what it was doing is forgotten.
    pub(crate) fn on_end(&mut self, node: usize) {
        (self.seen[node].own_draft, self.seen[node].is_full) = (None, false);
    }

    /// Compares the bytes of a node's files with its data.
    pub(crate) fn check_space(&self, plan: &Plan, node: usize, live: u64, disk: &SimDisk) {
        let names = disk.names();
        let bytes_of = |is_aside: bool| {
            let named = names.iter().filter(|name| name.starts_with("damaged-") == is_aside);
            named.map(|name| disk.len_of(name) as u64).sum::<u64>()
        };
        let (used, aside) = (bytes_of(false), bytes_of(true));
        let most = self.bytes_max(plan, live);
        assert!(
            used <= most,
            "node {node} uses {used} bytes for {live} bytes of data, more than {most}: {:?}",
            names.iter().map(|name| (name, disk.len_of(name))).collect::<Vec<_>>()
        );
        assert!(
            aside <= 2 * most,
            "node {node} keeps {aside} bytes of damaged files for {live} bytes of data"
        );
    }

    /// How many bytes a node's directory may have at most, damaged files that were set aside not counted: three times
    /// the data, and slack for what this run's small files make relatively large.
    fn bytes_max(&self, plan: &Plan, live: u64) -> u64 {
        let segment = self.segment_bytes as u64;
        // Two neighbouring segments hold at least a segment's room between them.
        let files = |records: u64| (2 * records / (segment - 4096) + 2) * segment;
        let log = plan.snapshot_log_bytes.max(live / 2);
        // What one turn may bring, and records larger than a segment.
        let on_their_way = match (plan.classes.has(Class::Bulk), plan.classes.has(Class::Large)) {
            (true, _) => 3 << 20,
            (false, true) => 512 << 10,
            (false, false) => 64 << 10,
        };
        3 * live + files(2 * log + plan.log_margin_bytes) + 6 * segment + on_their_way
    }
}

fn note_space(marks: &mut Marks, seen: &mut Seen, storage: &SimStorage) {
    let (is_full, last) = (storage.is_full(), storage.last_index());
    if seen.is_full && !is_full {
        marks.hit(Mark::SpaceCameBack);
    }
    if seen.is_full && is_full && last > seen.last {
        marks.hit(Mark::ReserveUsed);
    }
    (seen.is_full, seen.last) = (is_full, last);
}

fn contents(storage: &SimStorage, snapshot: SnapshotMeta) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < snapshot.bytes {
        let len = SNAPSHOT_CHUNK_BYTES.min(snapshot.bytes as usize - bytes.len());
        let chunk = storage.read_snapshot(bytes.len() as u64, len).expect("the disk is sound");
        bytes.extend_from_slice(chunk);
    }
    bytes
}
