//! The storage next to a plain model of it, on a disk that crashes: what may be left after a crash, and what must.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(unreachable_pub, missing_docs, reason = "shared by several test programs")]

use keva::limits::REUSED_SEGMENTS_MIN;
use keva::raft::storage::{SnapshotDraft, SnapshotMeta, SnapshotProgress, Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Index, NodeId, Term};
use keva::util::rng::Rng;

use super::sim_disk::{Faults, SimDisk};
use super::storage_fixture::{
    SMALL_MARGIN_BYTES, SMALL_SEGMENT_BYTES, SimStorage, append, contents, open, snapshot_contents,
};

/// What the storage should hold: (term, payload) of each entry, term and vote, and the newest snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// From the first entry on. Those that a received snapshot stands for are [`unknown`].
    pub log: Vec<(u64, Vec<u8>)>,
    pub hard_state: HardState,
    pub snapshot: Option<(EntryId, Vec<u8>)>,
}

/// A snapshot in the making.
#[derive(Clone, Debug)]
struct Draft {
    last: EntryId,
    content: Vec<u8>,
    written: usize,
    received: bool,
}

/// An entry that this node never had: no real one is like it.
fn unknown() -> (u64, Vec<u8>) {
    (u64::MAX, Vec::new())
}

impl State {
    /// The index that the snapshot covers.
    pub fn covered(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |(last, _)| last.index.0)
    }

    fn id(&self, index: u64) -> EntryId {
        EntryId::new(Term(self.log[index as usize - 1].0), Index(index))
    }

    /// D1: the log goes on behind a snapshot whose last entry it has; any other is replaced.
    fn install(&mut self, last: EntryId, content: Vec<u8>) {
        let has = last.index.0 <= self.log.len() as u64 && self.id(last.index.0) == last;
        if !has {
            self.log = vec![unknown(); last.index.0 as usize];
            self.log.last_mut().expect("a snapshot covers something").0 = last.term.0;
        }
        self.snapshot = Some((last, content));
    }

    /// Whether the storage may show this log behind `start`: all of it, or a beginning of it with at least `least` entries.
    fn shows(&self, start: EntryId, log: &[(u64, Vec<u8>)], least: usize) -> bool {
        let begin = start.index.0 as usize;
        begin <= self.covered() as usize
            && (start.index.0 == 0 || self.log.len() >= begin && self.id(start.index.0) == start)
            && self.log[begin..].starts_with(log)
            && begin + log.len() >= least
    }
}

/// A storage, its disk, and every state since the last one that is known to be durable.
pub struct Driver {
    pub disk: SimDisk,
    pub storage: Option<SimStorage>,
    pub rng: Rng,
    /// The first is durable, the last is what was written. With each: how many entries of the durable log no operation
    /// has removed.
    states: Vec<(State, usize)>,
    draft: Option<Draft>,
    seeds: u64,
}

impl Driver {
    /// Opens a new working directory, under these faults.
    pub fn new(seed: u64, faults: Faults) -> Driver {
        let disk = SimDisk::default();
        disk.set_faults(faults);
        if seed.is_multiple_of(2) {
            disk.tear_blocks();
        }
        let states = vec![(State::default(), 0)];
        let (rng, seeds) = (Rng::new(seed), seed << 32);
        let mut driver = Driver { disk, storage: None, rng, states, draft: None, seeds };
        driver.storage = open(&driver.disk, driver.seeds).ok().map(|(storage, _)| storage);
        driver
    }

    /// True once in so many times.
    pub fn chance(&mut self, one_in: u64) -> bool {
        self.rng.range(0, one_in) == 0
    }

    /// What was written.
    pub fn state(&self) -> &State {
        &self.states.last().expect("there is always a state").0
    }

    fn change(&mut self, change: impl FnOnce(&mut State)) {
        let (mut state, floor) = self.states.last().expect("there is always a state").clone();
        change(&mut state);
        let floor = floor.min(state.log.len());
        self.states.push((state, floor));
    }

    /// Closes the storage in good order and opens it again. An error: the disk failed.
    pub fn close_and_open(&mut self) -> Result<(), StorageError> {
        self.draft = None;
        self.storage.take().expect("the storage is open").close()?;
        self.disk.set_faults(Faults::default());
        self.settle();
        self.seeds += 1;
        let (storage, report) = open(&self.disk, self.seeds).unwrap();
        assert!(report.clean && report.torn.is_none() && report.rewritten_bytes == 0, "{report}");
        self.storage = Some(storage);
        Ok(())
    }

    /// Everything written is durable.
    pub fn settle(&mut self) {
        let state = self.state().clone();
        let floor = state.log.len();
        self.states = vec![(state, floor)];
    }

    /// Entries that a crash cannot take away.
    fn durable_entries(&self) -> usize {
        self.states.last().expect("there is always a state").1
    }

    /// A value of any size, some all zero, some made of what a segment holds: F8, F9.
    fn payload(&mut self) -> Vec<u8> {
        let len = match self.rng.range(0, 12) {
            0 => 0,
            1 => self.rng.range(3000, 9000),
            2..=4 => self.rng.range(500, 1700),
            _ => self.rng.range(1, 120),
        } as usize;
        match self.rng.range(0, 4) {
            0 => vec![0; len],
            1 => {
                let names: Vec<_> =
                    self.disk.names().into_iter().filter(|name| name.starts_with("seg-")).collect();
                let name = &names[self.rng.range(0, names.len() as u64) as usize];
                self.disk.bytes(name).into_iter().skip(4096).take(len).collect()
            }
            _ => (0..len).map(|_| self.rng.next_u64() as u8).collect(),
        }
    }

    /// One random operation on the storage and on the model.
    pub fn operate(&mut self) -> Result<(), StorageError> {
        let term = self.state().hard_state.term.0;
        if term == 0 {
            return self.set_hard_state(1);
        }
        match self.rng.range(0, 24) {
            0..=6 => {
                for _ in 0..self.rng.range(1, 6) {
                    let payload = self.payload();
                    self.append(&payload)?;
                }
            }
            7 | 8 => self.set_hard_state(term + 1)?,
            9 | 10 => {
                let fixed = self.state().hard_state.commit_index.0.max(self.state().covered());
                let last_kept = self.rng.range(fixed, self.state().log.len() as u64 + 1);
                self.truncate(last_kept)?;
            }
            11 => {
                let budget = self.rng.range(1, 9000) as usize;
                self.storage().prepare_spare(budget).map(drop)?;
            }
            12..=17 => self.operate_on_snapshot()?,
            18 | 19 => {
                let steps = [1, 3, usize::MAX][self.rng.range(0, 3) as usize];
                for _ in 0..steps {
                    if !self.storage().clean_up()? {
                        break;
                    }
                }
            }
            _ => {
                self.storage().sync()?;
                self.settle();
                // The second copy of a new hard state.
                if self.storage().is_dirty() {
                    self.storage().sync()?;
                }
                assert!(!self.storage().is_dirty());
            }
        }
        Ok(())
    }

    /// Appends an entry of the present term.
    pub fn append(&mut self, payload: &[u8]) -> Result<(), StorageError> {
        let term = self.state().hard_state.term.0;
        self.change(|state| state.log.push((term, payload.to_vec())));
        append(self.storage(), term, payload)
    }

    fn truncate(&mut self, last_kept: u64) -> Result<(), StorageError> {
        self.change(|state| state.log.truncate(last_kept as usize));
        self.storage().truncate_suffix(Index(last_kept))
    }

    /// Goes on with the draft, or begins one; often everything at once, because a restart drops a draft.
    fn operate_on_snapshot(&mut self) -> Result<(), StorageError> {
        let Some(draft) = self.draft.clone() else {
            self.begin_random_snapshot()?;
            while self.draft.is_some() && self.rng.range(0, 5) > 0 {
                self.operate_on_snapshot()?;
            }
            return Ok(());
        };
        match self.rng.range(0, 12) {
            0 => self.begin_random_snapshot(),
            1 => self.drop_snapshot(),
            // D2: a leader's snapshot of what is committed here is of no use.
            _ if draft.received && draft.last.index <= self.state().hard_state.commit_index => {
                self.drop_snapshot()
            }
            // What the leader said of it is something else.
            2 if draft.written == draft.content.len() => {
                self.draft = None;
                let bytes = draft.content.len() as u64;
                let other = SnapshotMeta { last: draft.last, bytes, crc: !crc32c::crc32c(&draft.content) };
                let progress = self.storage().finish_snapshot(Some(other), usize::MAX)?;
                assert_eq!(progress, SnapshotProgress::Damaged);
                Ok(())
            }
            _ if draft.written == draft.content.len() => {
                let budget = [1, 100_000, usize::MAX][self.rng.range(0, 3) as usize];
                self.finish_snapshot(budget).map(drop)
            }
            _ => {
                let rest = draft.content.len() - draft.written;
                let len = if self.chance(3) { self.rng.range(1, rest as u64 + 1) as usize } else { rest };
                self.append_snapshot(len)
            }
        }
    }

    /// Begins a snapshot of the node's own, or one from a leader, sometimes on a full disk.
    fn begin_random_snapshot(&mut self) -> Result<(), StorageError> {
        let state = self.state();
        let (covered, entries) = (state.covered(), state.log.len() as u64);
        let (commit, term) = (state.hard_state.commit_index.0.max(covered), state.hard_state.term.0);
        let received = commit == covered || self.chance(3);
        let last = if !received {
            let index = self.rng.range(covered + 1, commit + 1);
            self.state().id(index)
        } else {
            let index = self.rng.range(commit + 1, entries.max(commit) + 6);
            let least = self.state().log.get(commit.saturating_sub(1) as usize).map_or(1, |entry| entry.0);
            let other = EntryId::new(Term(self.rng.range(least.min(term), term + 1)), Index(index));
            if index <= entries && self.chance(2) { self.state().id(index) } else { other }
        };
        let len = match self.rng.range(0, 30) {
            0 => self.rng.range(250_000, 600_000),
            1..=10 => self.rng.range(1, 600),
            _ => self.rng.range(600, 9000),
        };
        let first = self.rng.next_u64();
        let content = (0..len).map(|at| (first.wrapping_mul(at + 1) >> 32) as u8).collect();
        let full = self.chance(5);
        if full {
            let free_bytes = Some(self.rng.range(0, 2 * len + 9000) as usize);
            self.disk.update_faults(|faults| faults.free_bytes = free_bytes);
        }
        let begun = self.begin_snapshot(last, content, received)?;
        assert!(begun || full, "there was space");
        self.disk.update_faults(|faults| faults.free_bytes = None);
        Ok(())
    }

    /// Begins a snapshot. `false`: the disk is full.
    pub fn begin_snapshot(
        &mut self,
        last: EntryId,
        content: Vec<u8>,
        received: bool,
    ) -> Result<bool, StorageError> {
        self.draft = None;
        let begun = self.storage().begin_snapshot(last, content.len() as u64)?;
        self.draft = begun.then_some(Draft { last, content, written: 0, received });
        Ok(begun)
    }

    /// Writes the next `len` bytes of the draft.
    pub fn append_snapshot(&mut self, len: usize) -> Result<(), StorageError> {
        let draft = self.draft.as_mut().expect("there is a draft");
        let part = draft.content[draft.written..draft.written + len].to_vec();
        draft.written += len;
        self.storage().append_snapshot(&part)
    }

    fn drop_snapshot(&mut self) -> Result<(), StorageError> {
        self.draft = None;
        self.storage().drop_snapshot_draft()
    }

    /// Finishes the draft, as far as the budget goes. Returns whether it is done.
    pub fn finish_snapshot(&mut self, budget: usize) -> Result<bool, StorageError> {
        let Draft { last, content, received, .. } = self.draft.clone().expect("there is a draft");
        let meta = SnapshotMeta { last, bytes: content.len() as u64, crc: crc32c::crc32c(&content) };
        let mut after = self.state().clone();
        after.install(last, content);
        let floor = self.durable_entries().max(last.index.0 as usize).min(after.log.len());
        // The old state and the new one: a crash leaves one of them.
        self.states.push((after, floor));
        match self.storage().finish_snapshot(received.then_some(meta), budget)? {
            SnapshotProgress::More => {
                self.states.pop();
                Ok(false)
            }
            SnapshotProgress::Done(done) => {
                assert_eq!(done, meta);
                self.draft = None;
                self.settle();
                Ok(true)
            }
            SnapshotProgress::Damaged => panic!("the disk is not damaged"),
        }
    }

    /// Takes a whole snapshot, and puts away what it takes the place of.
    pub fn take_snapshot(
        &mut self,
        last: EntryId,
        content: &[u8],
        received: bool,
    ) -> Result<(), StorageError> {
        assert!(self.begin_snapshot(last, content.to_vec(), received)?, "there is space");
        self.append_snapshot(content.len())?;
        assert!(self.finish_snapshot(usize::MAX)?);
        while self.storage().clean_up()? {}
        Ok(())
    }

    /// Moves to a term, with a random vote and commit index.
    pub fn set_hard_state(&mut self, term: u64) -> Result<(), StorageError> {
        let commit = self.state().hard_state.commit_index.0.max(self.state().covered());
        let commit_index = Index(self.rng.range(commit, (self.durable_entries() as u64).max(commit) + 1));
        let vote = [None, Some(NodeId(2))][self.rng.range(0, 2) as usize];
        let hard_state = HardState { term: Term(term), vote, commit_index };
        self.change(|state| state.hard_state = hard_state);
        self.storage().set_hard_state(hard_state)
    }

    /// The open storage.
    pub fn storage(&mut self) -> &mut SimStorage {
        self.storage.as_mut().expect("the storage is open")
    }

    /// The storage shows exactly what was written.
    pub fn compare(&self) {
        let storage = self.storage.as_ref().expect("the storage is open");
        let state = self.state();
        assert!(state.shows(storage.log_start(), &contents(storage), state.log.len()), "{:?}", self.shape());
        assert_eq!(storage.last_index().0, state.log.len() as u64);
        assert_eq!(storage.hard_state(), state.hard_state);
        assert_eq!(snapshot_contents(storage), state.snapshot);
        let draft = self.draft.as_ref().map(|draft| SnapshotDraft {
            last: draft.last,
            bytes: draft.content.len() as u64,
            written: draft.written as u64,
        });
        assert_eq!(storage.snapshot_draft(), draft);
        self.check_files();
    }

    /// D11, D15: no file is left that nothing needs, and no segment but those that the margin asks for.
    fn check_files(&self) {
        let storage = self.storage.as_ref().expect("the storage is open");
        if storage.must_clean_up() {
            return;
        }
        let names = self.disk.names();
        let segments = names.iter().filter(|name| name.starts_with("seg-")).count();
        let used = names.iter().filter(|name| name.starts_with("used-")).count();
        let content = self.state().snapshot.as_ref().map_or(0, |(_, content)| content.len());
        let used_most = REUSED_SEGMENTS_MIN.max((content / 3).div_ceil(SMALL_SEGMENT_BYTES) + 1);
        assert!(segments > 0 && used <= used_most, "{names:?}");
        let snapshots: Vec<_> = names.iter().filter(|name| name.starts_with("snap-")).collect();
        let expected = self
            .state()
            .snapshot
            .as_ref()
            .map(|(last, _)| format!("snap-{:020}-{:020}.snap", last.index.0, last.term.0));
        assert!(snapshots.into_iter().eq(expected.iter()), "{names:?}, but the snapshot is {expected:?}");
        let first_kept = storage.log_start().index.0;
        let margin = self.state().covered() - first_kept;
        assert!(
            margin as usize * 48 <= SMALL_MARGIN_BYTES as usize + 2 * SMALL_SEGMENT_BYTES,
            "{margin} entries are kept for peers that are a little behind"
        );
    }

    /// Stops the process, perhaps with the power, and starts it again, perhaps several times.
    pub fn restart(&mut self, power_cut: bool) {
        self.storage = None;
        self.draft = None;
        let mut power_cut = power_cut || self.disk.is_dead();
        loop {
            if power_cut {
                self.crash();
            } else {
                self.disk.set_faults(Faults::default());
            }
            if self.chance(2) {
                let crash_at = Some(self.disk.operations() + self.rng.range(0, 12));
                let crash_after = self.chance(2);
                self.disk.set_faults(Faults { crash_at, crash_after, ..Faults::default() });
            }
            self.seeds += 1;
            let opened = open(&self.disk, self.seeds);
            match opened {
                Ok((storage, _)) => {
                    self.storage = Some(storage);
                    break;
                }
                Err(error) if self.disk.is_dead() => {
                    assert!(matches!(error, StorageError::Io { .. }), "{error}");
                }
                Err(error) => panic!("cannot open after a crash: {error}"),
            }
            power_cut = true;
        }
        self.disk.set_faults(Faults::default());
        self.accept_recovered();
    }

    fn crash(&mut self) {
        let mode = self.rng.range(0, 4);
        let rng = &mut self.rng;
        self.disk.crash(&mut |outcomes| match mode {
            0 => 0,
            1 => outcomes - 1,
            _ => rng.range(0, outcomes as u64) as usize,
        });
    }

    /// F4, F10, B7, D3: what is recovered is a prefix of something that was written, with all that was durable and was
    /// not removed since, and with the snapshot that goes with it. It becomes the durable state.
    fn accept_recovered(&mut self) {
        let storage = self.storage.as_ref().expect("the storage is open");
        let (start, log, hard_state) = (storage.log_start(), contents(storage), storage.hard_state());
        let snapshot = snapshot_contents(storage);
        let fits =
            |(state, floor): &&(State, usize)| state.snapshot == snapshot && state.shows(start, &log, *floor);
        let entries = start.index.0 as usize + log.len();
        let Some((found, _)) = self.states.iter().rev().find(fits) else {
            let last = snapshot.map(|(last, _)| last);
            panic!(
                "recovered {entries} entries behind {start}, snapshot {last:?}, allowed: {:?}",
                self.shape()
            )
        };
        let mut recovered = State { log: found.log[..entries].to_vec(), hard_state, snapshot };
        let same = |(state, _): &(State, usize)| {
            state.hard_state.term == hard_state.term
                && state.hard_state.vote == hard_state.vote
                && state.hard_state.commit_index >= hard_state.commit_index
        };
        assert!(self.states.iter().any(same), "{hard_state:?} was never written: {:?}", self.shape());
        assert!(hard_state.commit_index.0 <= entries as u64, "B19: the commit index is in the log");
        assert!(recovered.covered() <= entries as u64, "D4: no gap between snapshot and log");
        recovered.log.truncate(entries);
        self.states = vec![(recovered, entries)];
        self.check_files();
    }

    fn shape(&self) -> Vec<(usize, usize, HardState, u64)> {
        let shape =
            |(state, floor): &(State, usize)| (state.log.len(), *floor, state.hard_state, state.covered());
        self.states.iter().map(shape).collect()
    }
}
