//! What happens to disks: crashes, rot, and blocks in wrong places.

use keva::raft::entry::Entry;

use crate::checks::durable::has_prefix;
use crate::faults::Faults;
use crate::plan::{Class, Plan};
use crate::support::sim_disk::{BLOCK_BYTES, SimDisk};

/// The size of the hard state's first copy, and where the second begins.
const SLOT_BYTES: usize = 4096;

impl Faults {
    /// What is left on a disk when the power comes back.
    pub(crate) fn crash_disk(&mut self, plan: &Plan, disk: &SimDisk) {
        if plan.classes.has(Class::Torn) {
            disk.tear_blocks();
        }
        let rng = self.rng(Class::PowerCut);
        match rng.u32(..4) {
            0 => disk.crash_losing_all(),
            1 => disk.crash(&mut |outcomes| outcomes - 1),
            _ => disk.crash(&mut |outcomes| rng.usize(..outcomes)),
        }
    }

    /// Changes some bits where nothing but damage can explain it: not at the end of the newest segment's records, which
    /// may as well have been torn by a crash.
    pub(crate) fn rot_disk(&mut self, disk: &SimDisk) {
        let names = names_in_use(disk);
        if names.is_empty() {
            return;
        }
        let newest = names.iter().filter(|name| name.starts_with("seg-")).max();
        let rng = self.rng(Class::Rot);
        if rng.u32(..6) == 0 {
            // A file system that was damaged may lose whole files.
            let is_data = |name: &&String| name.starts_with("seg-") || name.starts_with("snap-");
            let data: Vec<&String> =
                names.iter().filter(is_data).filter(|name| Some(*name) != newest).collect();
            if !data.is_empty() {
                disk.delete(data[rng.usize(..data.len())]);
            }
            return;
        }
        for _ in 0..rng.usize(1..4) {
            let name = &names[rng.usize(..names.len())];
            let sure = damageable(disk, &names, name);
            if sure == 0 {
                continue;
            }
            // The front, where the data is, more often than the zeros behind it.
            let offset = match (rng.u32(..3), name.as_str()) {
                (0, _) => rng.usize(..sure),
                (_, "hard-state") => rng.usize(..112) + 4096 * rng.usize(..2),
                (1, _) if sure > 4096 => rng.usize(4096..sure),
                _ => rng.usize(..sure.min(4600)),
            };
            disk.flip(name, offset, 1 << rng.u32(..8));
        }
    }

    /// Changes bits of files that the process only reads from time to time. Says whether there are any.
    pub(crate) fn rot_in_use(&mut self, disk: &SimDisk) -> bool {
        let mut names = names_in_use(disk);
        let newest = names.iter().filter(|name| name.starts_with("seg-")).max().cloned();
        names.retain(|name| {
            (name.starts_with("seg-") || name.starts_with("snap-")) && Some(name) != newest.as_ref()
        });
        if names.is_empty() {
            return false;
        }
        let rng = self.rng(Class::Rot);
        let name = &names[rng.usize(..names.len())];
        let len = disk.len_of(name);
        disk.flip(name, rng.usize(SLOT_BYTES.min(len - 1)..len), 1 << rng.u32(..8));
        true
    }

    /// Puts copies of blocks where other blocks belong. What is overwritten obeys the same rule as rot.
    pub(crate) fn misdirect(&mut self, disk: &SimDisk) {
        let names = names_in_use(disk);
        let rng = self.rng(Class::Misdirect);
        for _ in 0..rng.usize(1..4) {
            let durable: Vec<(&String, usize)> =
                names.iter().map(|name| (name, damageable(disk, &names, name))).collect();
            let targets: Vec<(&String, usize)> =
                durable.iter().copied().filter(|(_, sure)| *sure >= BLOCK_BYTES).collect();
            if targets.is_empty() {
                return;
            }
            let (to, sure) = targets[rng.usize(..targets.len())];
            // Often from the same file, where everything but the place is right.
            let from = if rng.bool() { to } else { &names[rng.usize(..names.len())] };
            let from_blocks = disk.len_of(from) / BLOCK_BYTES;
            if from_blocks == 0 {
                continue;
            }
            let whole = if rng.bool() { SLOT_BYTES / BLOCK_BYTES } else { 1 };
            let (from_block, to_block) = (rng.usize(..from_blocks), rng.usize(..sure / BLOCK_BYTES));
            let count = whole.min(from_blocks - from_block).min(sure / BLOCK_BYTES - to_block);
            let blocks = disk.bytes(from)[from_block * BLOCK_BYTES..][..count * BLOCK_BYTES].to_vec();
            disk.overwrite(to, to_block * BLOCK_BYTES, &blocks);
        }
    }
}

/// The files that something depends on.
fn names_in_use(disk: &SimDisk) -> Vec<String> {
    let is_in_use = |name: &String| !name.ends_with(".tmp") && !name.starts_with("damaged-");
    disk.names().into_iter().filter(is_in_use).collect()
}

/// How many bytes of a file nothing but damage can change. The end of the newest segment's records may as well have been
/// torn by a crash.
fn damageable(disk: &SimDisk, names: &[String], name: &String) -> usize {
    let newest = names.iter().filter(|name| name.starts_with("seg-")).max();
    let bytes = disk.bytes(name);
    // While the second copy of the newest hard state is not durable yet, damage to the first one looks like a write
    // that was cut short.
    if name == "hard-state" && bytes.get(..BLOCK_BYTES) != bytes.get(SLOT_BYTES..SLOT_BYTES + BLOCK_BYTES) {
        return 0;
    }
    if Some(name) == newest { surely_durable(&bytes) } else { bytes.len() }
}

/// How many bytes of a segment a later record in it calls durable.
fn surely_durable(bytes: &[u8]) -> usize {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (mut at, mut ends, mut durable) = (4096, Vec::new(), 0);
    while let Some(Ok(entry)) = bytes.get(at + 16..).map(Entry::decode) {
        if !has_prefix(bytes, at) {
            break;
        }
        durable = durable.max(number(at + 8));
        at += (16 + entry.bytes().len()).next_multiple_of(16);
        ends.push((entry.index().0, at));
    }
    // The record that says so must stay.
    let last = ends.len().saturating_sub(1);
    ends[..last].iter().rfind(|(index, _)| *index <= durable).map_or(4096, |(_, end)| *end)
}
