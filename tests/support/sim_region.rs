//! A disk in memory that behaves as badly as a real one may: what was not synced survives a crash block by block, in
//! any combination, and so do names; syncs fail and drop what they should have written; bits rot; space runs out.
//!
//! [`SimDisk`] is the disk, shared by handles. [`SimDirectory`] is the working directory on it, as the storage sees it.
//! A crash is simulated in two steps: the storage gets an error from some operation and is dropped; then
//! [`SimDisk::crash`] decides what is left.
#![allow(unreachable_pub, reason = "shared by several test programs")]

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use keva::storage::{Directory, Region, Unreadable};

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
struct State {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    next_file: u64,
    faults: Faults,
    operations: u64,
    syncs: u64,
    bytes_written: u64,
    /// Renames of a segment to the name of one that is prepared.
    reuses: u64,
    /// Counts how often bytes changed by themselves.
    rots: u64,
    tears: bool,
    dead: bool,
    descriptors: usize,
    descriptors_most: usize,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What is read while the machine runs.
    cached: Vec<u8>,
    /// What is read after a crash, besides `unsynced`.
    durable: Vec<u8>,
    /// For each block written since the last sync: its versions, oldest first.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    /// The size, and with it every byte, is durable.
    ever_synced: bool,
    /// Counts what may have changed `durable`.
    changes: u64,
    /// [`State::rots`] when this file's bytes last changed by themselves.
    rotted: u64,
    /// How many handles there are.
    handles: usize,
    /// The disk cannot read what is at this byte.
    unreadable: Option<usize>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

/// A handle on the disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Rc<RefCell<State>>);

/// The working directory.
#[derive(Clone, Debug)]
pub struct SimDirectory(SimDisk);

/// An open file.
#[derive(Debug)]
pub struct SimRegion {
    disk: SimDisk,
    id: u64,
    /// The file as this process sees it. A file is open once at a time, so nobody else changes it, but for the disk.
    bytes: Vec<u8>,
    /// [`State::rots`] when these were the file's bytes.
    seen: u64,
    /// The file after it has changed by itself.
    rotten: OnceCell<Vec<u8>>,
    sealed: bool,
}

impl SimDisk {
    /// The working directory on this disk.
    pub fn directory(&self) -> SimDirectory {
        SimDirectory(self.clone())
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

    /// A sector of a file fails: whoever opens the file to read it gets an error.
    pub fn make_unreadable(&self, name: &str, offset: usize) {
        let mut state = self.0.borrow_mut();
        let id = state.names[name];
        state.files.get_mut(&id).expect("a name has a file").unreadable = Some(offset);
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
    fn operation(&mut self) -> (bool, io::Result<()>) {
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
    fn free(&mut self, name: &str) {
        let freed = self.names.get(name).map_or(0, |id| self.files[id].cached.len());
        if let Some(free) = &mut self.faults.free_bytes {
            *free += freed;
        }
    }

    /// Counts a sync, and says whether it fails.
    fn sync_fails(&mut self) -> bool {
        let number = self.syncs;
        self.syncs += 1;
        self.faults.sync_error_at == Some(number)
    }
}

impl File {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
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

    fn sync(&mut self) {
        for (block, versions) in std::mem::take(&mut self.unsynced) {
            let newest = versions.last().expect("a written block has a version");
            self.durable[block * BLOCK_BYTES..][..newest.len()].copy_from_slice(newest);
        }
        self.ever_synced = true;
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

impl SimDirectory {
    fn change<T>(&mut self, action: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.0.borrow_mut();
        let (carry_out, result) = state.operation();
        let value = if carry_out { Some(action(&mut state)?) } else { None };
        result.map(|()| value.expect("success means carried out"))
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_string())
}

impl Directory for SimDirectory {
    type Region = SimRegion;

    fn path(&self, name: &str) -> String {
        format!("/sim/{name}")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.names())
    }

    fn create(&mut self, name: &str, size: usize) -> io::Result<SimRegion> {
        let id = self.change(|state| {
            state.free(name);
            if let Some(free) = &mut state.faults.free_bytes {
                let Some(left) = free.checked_sub(size) else {
                    if state.names.remove(name).is_some() {
                        state.unsynced_names.push(NameChange::Remove(name.into()));
                    }
                    return Err(io::ErrorKind::StorageFull.into());
                };
                *free = left;
            }
            let id = state.next_file;
            state.next_file += 1;
            state.files.insert(id, File { cached: vec![0; size], durable: vec![0; size], ..File::default() });
            state.names.insert(name.into(), id);
            state.unsynced_names.push(NameChange::Create(name.into(), id));
            Ok(id)
        })?;
        Ok(SimRegion::new(&self.0, id, vec![0; size]))
    }

    fn open(&mut self, name: &str) -> io::Result<SimRegion> {
        let (id, bytes) = {
            let state = self.0.0.borrow();
            let id = *state.names.get(name).ok_or_else(|| not_found(name))?;
            if let Some(offset) = state.files[&id].unreadable {
                const EIO: i32 = 5;
                return Err(Unreadable::at(offset, io::Error::from_raw_os_error(EIO)));
            }
            (id, state.files[&id].cached.clone())
        };
        Ok(SimRegion::new(&self.0, id, bytes))
    }

    fn open_unread(&mut self, name: &str) -> io::Result<SimRegion> {
        self.open(name)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            let id = state.names.remove(from).ok_or_else(|| not_found(from))?;
            if to.starts_with("snap-")
                && let Some(later) = state.faults.crash_behind_snapshot.take()
            {
                state.faults.crash_at = Some(state.operations + later);
            }
            state.reuses += u64::from(from.starts_with("seg-") && to.ends_with(".tmp"));
            state.free(to);
            state.names.insert(to.into(), id);
            state.unsynced_names.push(NameChange::Rename(from.into(), to.into(), id));
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change(|state| {
            state.free(name);
            state.names.remove(name).ok_or_else(|| not_found(name))?;
            state.unsynced_names.push(NameChange::Remove(name.into()));
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.change(|state| {
            if state.sync_fails() {
                state.unsynced_names.clear();
                return Err(io::Error::other("the disk does not answer"));
            }
            state.unsynced_names.clear();
            state.durable_names = state.names.clone();
            let State { files, names, .. } = state;
            files.retain(|id, file| file.handles > 0 || names.values().any(|named| named == id));
            Ok(())
        })
    }
}

impl SimRegion {
    fn new(disk: &SimDisk, id: u64, bytes: Vec<u8>) -> SimRegion {
        let mut state = disk.0.borrow_mut();
        state.descriptors += 1;
        state.descriptors_most = state.descriptors_most.max(state.descriptors);
        let seen = state.rots;
        state.files.get_mut(&id).expect("an open file is kept").handles += 1;
        SimRegion { disk: disk.clone(), id, bytes, seen, rotten: OnceCell::new(), sealed: false }
    }

    /// The file's bytes, with what has happened to them by itself.
    fn current(&self) -> &[u8] {
        if let Some(rotten) = self.rotten.get() {
            return rotten;
        }
        let state = self.disk.0.borrow();
        match state.files.get(&self.id) {
            Some(file) if state.rots > self.seen && file.rotted > self.seen => {
                self.rotten.get_or_init(|| file.cached.clone())
            }
            _ => &self.bytes,
        }
    }

    /// Gives the descriptor back.
    fn release(&mut self) {
        if !std::mem::replace(&mut self.sealed, true) {
            self.disk.0.borrow_mut().descriptors -= 1;
        }
    }

    fn with_file<T>(&self, action: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.borrow_mut();
        let (carry_out, result) = state.operation();
        let value = if carry_out { Some(action(&mut state, self.id)?) } else { None };
        result.map(|()| value.expect("success means carried out"))
    }
}

impl Region for SimRegion {
    fn size(&self) -> usize {
        self.bytes.len()
    }

    fn read(&self, offset: usize, len: usize) -> &[u8] {
        &self.current()[offset..offset + len]
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.sealed, "a write after the segment was sealed");
        if let Some(rotten) = self.rotten.take() {
            self.bytes = rotten;
            self.seen = self.disk.0.borrow().rots;
        }
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.with_file(|state, id| {
            state.bytes_written += bytes.len() as u64;
            state.files.get_mut(&id).expect("an open file is kept").write(offset, bytes);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        assert!(!self.sealed, "a sync after the segment was sealed");
        self.with_file(|state, id| {
            let fails = state.sync_fails();
            let file = state.files.get_mut(&id).expect("an open file is kept");
            if fails {
                // The kernel marks the pages clean: no later sync writes them.
                file.unsynced.clear();
                return Err(io::Error::other("the disk does not answer"));
            }
            file.sync();
            Ok(())
        })
    }

    fn drop_cache(&mut self, offset: usize, len: usize) -> io::Result<()> {
        assert!(!self.sealed, "the cache is dropped through an open file");
        let state = self.disk.0.borrow();
        let file = &state.files[&self.id];
        self.bytes[offset..offset + len].copy_from_slice(&file.cached[offset..offset + len]);
        Ok(())
    }

    fn seal(&mut self) {
        {
            let state = self.disk.0.borrow();
            let file = &state.files[&self.id];
            assert!(file.unsynced.is_empty() || state.dead, "a sealed segment is wholly durable");
        }
        self.release();
    }
}

impl Drop for SimRegion {
    fn drop(&mut self) {
        self.release();
        if let Some(file) = self.disk.0.borrow_mut().files.get_mut(&self.id) {
            file.handles -= 1;
        }
    }
}
