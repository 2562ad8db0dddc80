//! The storage's view of the simulated disk: the working directory and its open files.
#![allow(unreachable_pub, reason = "shared by several test programs")]

use std::cell::OnceCell;
use std::io;

use keva::storage::{Directory, Region, Unreadable};

use super::sim_disk::{File, NameChange, SimDisk, State};

/// What the system says of a sector that the disk cannot read.
const EIO: i32 = 5;

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
    /// `State::rots` when these were the file's bytes.
    seen: u64,
    /// The file after it has changed by itself.
    rotten: OnceCell<Vec<u8>>,
    sealed: bool,
}

impl SimDirectory {
    pub(super) fn on(disk: SimDisk) -> SimDirectory {
        SimDirectory(disk)
    }

    fn change<T>(&mut self, action: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.state_mut();
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
            let state = self.0.state();
            let id = *state.names.get(name).ok_or_else(|| not_found(name))?;
            if let Some(offset) = state.files[&id].unreadable {
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

    /// At once and for good: earlier than a real disk does it for certain.
    fn resize(&mut self, name: &str, size: usize) -> io::Result<()> {
        self.change(|state| {
            let id = *state.names.get(name).ok_or_else(|| not_found(name))?;
            let file = state.files.get_mut(&id).expect("a name has a file");
            assert_eq!(file.handles, 0, "{name} is resized while it is open");
            let before = file.cached.len();
            if let Some(free) = &mut state.faults.free_bytes {
                *free = (*free + before).checked_sub(size).ok_or(io::ErrorKind::StorageFull)?;
            }
            state.freed.push(before.saturating_sub(size));
            file.resize(size);
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
        let mut state = disk.state_mut();
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
        let state = self.disk.state();
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
            self.disk.state_mut().descriptors -= 1;
        }
    }

    fn with_file<T>(&self, action: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state_mut();
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
            self.seen = self.disk.state().rots;
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

    fn reload(&mut self, offset: usize, len: usize) -> io::Result<()> {
        assert!(!self.sealed, "the cache is dropped through an open file");
        let state = self.disk.state();
        let file = &state.files[&self.id];
        let is_inside = |place: &usize| (offset..offset + len).contains(place);
        if let Some(place) = file.unreadable.filter(is_inside) {
            return Err(Unreadable::at(place, io::Error::from_raw_os_error(EIO)));
        }
        self.bytes[offset..offset + len].copy_from_slice(&file.cached[offset..offset + len]);
        if let Some(place) = file.bad.filter(is_inside) {
            self.bytes[place] ^= 1;
        }
        Ok(())
    }

    fn seal(&mut self) {
        {
            let state = self.disk.state();
            let file = &state.files[&self.id];
            assert!(file.unsynced.is_empty() || state.dead, "a sealed segment is wholly durable");
        }
        self.release();
    }
}

impl Drop for SimRegion {
    fn drop(&mut self) {
        self.release();
        if let Some(file) = self.disk.state_mut().files.get_mut(&self.id) {
            file.handles -= 1;
        }
    }
}
