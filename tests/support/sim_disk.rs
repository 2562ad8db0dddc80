//! A disk in memory that behaves as badly as a real one may: what was not synced survives a crash block by block, in
//! any combination, and so do names; syncs fail and drop what they should have written; bits rot; space runs out.
//!
//! [`SimDisk`] is the disk, shared by handles; [`sim_region`](super::sim_region) is how the storage sees it. A crash is
//! simulated in two steps: the storage gets an error from some operation and is dropped; then [`SimDisk::crash`] decides
//! what is left.
#![allow(unreachable_pub, reason = "shared by several test programs")]

use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::sim_region::SimDirectory;

/// The unit in which unsynced bytes survive or not.
pub const BLOCK_BYTES: usize = 512;

/// What goes wrong, and when.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The number of the operation at which the power goes: it reaches the disk as far as `crash_after` says, and it
    /// and all later ones return an error.
    pub crash_at: Option<u64>,
    /// When a snapshot gets its name, the power goes so many operations later.
    pub crash_behind_snapshot: Option<u64>,
    /// Whether that operation is carried out first: a write is in the cache, a sync is complete.
    pub crash_after: bool,
    /// The number of the sync (of a file or of names) that fails once. What it should have written stays in the cache
    /// and is never written: the disk's old bytes come back after a crash.
    pub sync_error_at: Option<u64>,
    /// Bytes that may still be allocated. Files that are removed give theirs back.
    pub free_bytes: Option<usize>,
}

/// How many bytes of a torn block are new.
const TORN_BYTES: usize = 60;

/// Everything on the disk and in the cache above it.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) files: BTreeMap<u64, File>,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) unsynced_names: Vec<NameChange>,
    pub(super) next_file: u64,
    pub(super) faults: Faults,
    pub(super) operations: u64,
    pub(super) syncs: u64,
    pub(super) bytes_written: u64,
    /// Renames of a segment to the name of one that is prepared.
    pub(super) reuses: u64,
    /// Counts how often bytes changed by themselves.
    pub(super) rots: u64,
    pub(super) tears: bool,
    pub(super) dead: bool,
    pub(super) descriptors: usize,
    pub(super) descriptors_most: usize,
    /// Bytes of each piece that was given back to the disk.
    pub(super) freed: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// What is read while the machine runs.
    pub(super) cached: Vec<u8>,
    /// What is read after a crash, besides `unsynced`.
    pub(super) durable: Vec<u8>,
    /// For each block written since the last sync: its versions, oldest first.
    pub(super) unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    /// The size, and with it every byte, is durable.
    pub(super) ever_synced: bool,
    /// Counts what may have changed `durable`.
    pub(super) changes: u64,
    /// [`State::rots`] when this file's bytes last changed by themselves.
    pub(super) rotted: u64,
    /// How many handles there are.
    pub(super) handles: usize,
    /// The disk cannot read what is at this byte.
    pub(super) unreadable: Option<usize>,
    /// The disk gives something else back for this byte, whatever was written there.
    pub(super) bad: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

/// A handle on the disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Rc<RefCell<State>>);

impl SimDisk {
    /// The working directory on this disk.
    pub fn directory(&self) -> SimDirectory {
        SimDirectory::on(self.clone())
    }

    pub(super) fn state(&self) -> Ref<'_, State> {
        self.0.borrow()
    }

    pub(super) fn state_mut(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// An independent copy of the disk with its cache, without faults.
    #[must_use]
    pub fn fork(&self) -> SimDisk {
        let mut state = self.0.borrow().clone();
        state.faults = Faults::default();
        state.dead = false;
        (state.descriptors, state.descriptors_most) = (0, 0);
        for file in state.files.values_mut() {
            file.handles = 0;
        }
        SimDisk(Rc::new(RefCell::new(state)))
    }

    /// Sets what will go wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }

    /// Changes what will go wrong.
    pub fn update_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.borrow_mut().faults);
    }

    /// The process ended, and the machine goes on: what was written is still in the cache, synced or not.
    pub fn end_process(&self) {
        let mut state = self.0.borrow_mut();
        state.dead = false;
        state.faults = Faults::default();
    }

    /// Shows every file that a power cut would leave: its name, number, durable bytes, and a count that changes
    /// whenever these may have.
    pub fn visit_durable(&self, mut visit: impl FnMut(&str, u64, u64, &[u8])) {
        let state = self.0.borrow();
        for (name, id) in &state.durable_names {
            let file = &state.files[id];
            visit(name, *id, file.changes, &file.durable);
        }
    }

    /// Bytes of a file.
    pub fn len_of(&self, name: &str) -> usize {
        let state = self.0.borrow();
        state.files[&state.names[name]].cached.len()
    }

    /// From now on a crash may also leave a block that is new at its beginning and old behind it: one more outcome
    /// for each unsynced block, after "as last written".
    pub fn tear_blocks(&self) {
        self.0.borrow_mut().tears = true;
    }

    /// Operations so far that change something: creating, writing, syncing, renaming, removing.
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// Syncs so far, of files and of names.
    pub fn syncs(&self) -> u64 {
        self.0.borrow().syncs
    }

    /// How often a segment's file became the next segment's.
    pub fn reuses(&self) -> u64 {
        self.0.borrow().reuses
    }

    /// Bytes written so far.
    pub fn bytes_written(&self) -> u64 {
        self.0.borrow().bytes_written
    }

    /// The largest number of files that were open for writing at the same time.
    pub fn descriptors_most(&self) -> usize {
        self.0.borrow().descriptors_most
    }

    /// Bytes of each piece that was given back to the disk since this was last asked.
    pub fn take_freed(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.borrow_mut().freed)
    }

    /// Whether the power is gone.
    pub fn is_dead(&self) -> bool {
        self.0.borrow().dead
    }

    /// Power off and on. `choose(n)` picks one of `n` outcomes for each thing that was not synced: 0 is "as it was",
    /// `n - 1` is "as last written".
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut state = self.0.borrow_mut();
        state.dead = false;
        state.faults = Faults::default();
        for change in std::mem::take(&mut state.unsynced_names) {
            if choose(2) == 0 {
                continue;
            }
            match change {
                NameChange::Create(name, id) => drop(state.durable_names.insert(name, id)),
                NameChange::Remove(name) => drop(state.durable_names.remove(&name)),
                NameChange::Rename(from, to, id) => {
                    if state.durable_names.get(&from) == Some(&id) {
                        state.durable_names.remove(&from);
                    }
                    state.durable_names.insert(to, id);
                }
            }
        }
        state.names = state.durable_names.clone();
        let State { files, names, tears, .. } = &mut *state;
        files.retain(|id, _| names.values().any(|named| named == id));
        for file in files.values_mut() {
            file.crash(*tears, choose);
        }
    }

    /// Power off and on, losing everything that was not synced.
    pub fn crash_losing_all(&self) {
        self.crash(&mut |_| 0);
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.0.borrow();
        state.files[&state.names[name]].cached.clone()
    }

    /// Puts a file there, durably, whatever was there before.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.0.borrow_mut();
        let id = state.next_file;
        state.next_file += 1;
        let file =
            File { cached: bytes.to_vec(), durable: bytes.to_vec(), ever_synced: true, ..File::default() };
        state.files.insert(id, file);
        state.names.insert(name.into(), id);
        state.durable_names.insert(name.into(), id);
    }

    /// Takes a file away, durably.
    pub fn delete(&self, name: &str) {
        let mut state = self.0.borrow_mut();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// A misdirected write: bytes that belong elsewhere, on the disk and in the cache.
    pub fn overwrite(&self, name: &str, offset: usize, bytes: &[u8]) {
        self.rot(name, |file| {
            file.cached[offset..offset + bytes.len()].copy_from_slice(bytes);
            file.durable[offset..offset + bytes.len()].copy_from_slice(bytes);
        });
    }

    /// A sector of a file fails: whoever reads it from the disk gets an error.
    pub fn make_unreadable(&self, name: &str, offset: usize) {
        self.spoil(name, |file| file.unreadable = Some(offset));
    }

    /// A sector of a file is bad for good: what is written there reads back as something else.
    pub fn make_bad(&self, name: &str, offset: usize) {
        self.spoil(name, |file| file.bad = Some(offset));
    }

    fn spoil(&self, name: &str, change: impl FnOnce(&mut File)) {
        let mut state = self.0.borrow_mut();
        let id = state.names[name];
        change(state.files.get_mut(&id).expect("a name has a file"));
    }

    /// Bit rot: flips bits of a byte, on the disk and in the cache.
    pub fn flip(&self, name: &str, offset: usize, mask: u8) {
        self.rot(name, |file| {
            file.cached[offset] ^= mask;
            file.durable[offset] ^= mask;
        });
    }

    fn rot(&self, name: &str, change: impl FnOnce(&mut File)) {
        let mut state = self.0.borrow_mut();
        state.rots += 1;
        let (id, rots) = (state.names[name], state.rots);
        let file = state.files.get_mut(&id).expect("a name has a file");
        file.rotted = rots;
        change(file);
    }
}

impl State {
    /// Counts an operation, and says whether to carry it out and whether to report success.
    pub(super) fn operation(&mut self) -> (bool, io::Result<()>) {
        let number = self.operations;
        self.operations += 1;
        if self.dead {
            return (false, Err(io::Error::other("the power is gone")));
        }
        if self.faults.crash_at == Some(number) {
            self.dead = true;
            return (self.faults.crash_after, Err(io::Error::other("the power goes")));
        }
        (true, Ok(()))
    }

    /// Gives the space of a file that is about to lose its name back.
    pub(super) fn free(&mut self, name: &str) {
        let freed = self.names.get(name).map_or(0, |id| self.files[id].cached.len());
        self.freed.push(freed);
        if let Some(free) = &mut self.faults.free_bytes {
            *free += freed;
        }
    }

    /// Counts a sync, and says whether it fails.
    pub(super) fn sync_fails(&mut self) -> bool {
        let number = self.syncs;
        self.syncs += 1;
        self.faults.sync_error_at == Some(number)
    }
}

impl File {
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.cached[offset..offset + bytes.len()].copy_from_slice(bytes);
        if bytes.is_empty() {
            return;
        }
        for block in offset / BLOCK_BYTES..=(offset + bytes.len() - 1) / BLOCK_BYTES {
            let end = self.cached.len().min((block + 1) * BLOCK_BYTES);
            let version = self.cached[block * BLOCK_BYTES..end].to_vec();
            self.unsynced.entry(block).or_default().push(version);
        }
    }

    pub(super) fn sync(&mut self) {
        for (block, versions) in std::mem::take(&mut self.unsynced) {
            let newest = versions.last().expect("a written block has a version");
            self.durable[block * BLOCK_BYTES..][..newest.len()].copy_from_slice(newest);
        }
        self.ever_synced = true;
        self.changes += 1;
    }

    /// The file is shorter or longer, on the disk as well.
    pub(super) fn resize(&mut self, size: usize) {
        self.cached.resize(size, 0);
        self.durable.resize(size, 0);
        self.unsynced.retain(|block, versions| {
            let room = size.saturating_sub(block * BLOCK_BYTES);
            versions.iter_mut().for_each(|version| version.truncate(room));
            room > 0
        });
        self.changes += 1;
    }

    fn crash(&mut self, tears: bool, choose: &mut dyn FnMut(usize) -> usize) {
        if !self.ever_synced && choose(2) == 0 {
            self.durable.clear();
            self.unsynced.clear();
        }
        for (block, versions) in std::mem::take(&mut self.unsynced) {
            let outcome = choose(versions.len() + 1 + usize::from(tears));
            if let Some(version) = outcome.checked_sub(1) {
                let torn = version == versions.len();
                let bytes = if torn {
                    &versions[version - 1][..TORN_BYTES.min(versions[version - 1].len())]
                } else {
                    &versions[version][..]
                };
                self.durable[block * BLOCK_BYTES..][..bytes.len()].copy_from_slice(bytes);
            }
        }
        self.cached = self.durable.clone();
        self.ever_synced = true;
        self.changes += 1;
    }
}
