//! The workload: a process of its own that uses a storage in every way that the product does, and notes on its standard
//! output what it is about to do and what has become certain. It waits after each line until that is recorded.

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use keva::limits::LOG_BUFFER_BYTES_MAX;
use keva::raft::entry::Entry;
use keva::raft::storage::{SnapshotProgress, Storage, StorageError};
use keva::raft::types::{HardState, Index, NodeId, Term};
use keva::util::rng::Rng;
use rustix::fs::Advice;

use crate::draft::Draft;
use crate::node::{self, Found, Node, digest, entry_bytes};
use crate::note::Note;

/// Bytes in front of the first record of a segment.
const SEGMENT_HEADER_BYTES: usize = 4096;

/// What a step of the workload does.
#[derive(Clone, Copy)]
enum Step {
    Append,
    ChangeHardState,
    RemoveSuffix,
    /// A snapshot is begun, or goes on.
    Snapshot,
    KeepHouse,
    /// The process dies and is started again; the kernel keeps what is in its cache. What the storage then shows is
    /// promised, although no sync came after its writing.
    Crash,
    /// A stop in good order.
    Restart,
    /// The kernel writes back what it likes, and flushes nothing.
    WriteBack,
    Sync,
}

/// The steps with how often they come, in parts of their sum.
const STEPS: [(Step, u64); 9] = [
    (Step::Append, 10),
    (Step::ChangeHardState, 3),
    (Step::RemoveSuffix, 3),
    (Step::Snapshot, 6),
    (Step::KeepHouse, 3),
    (Step::Crash, 2),
    (Step::Restart, 1),
    (Step::WriteBack, 3),
    (Step::Sync, 7),
];

/// One run of the workload.
pub(crate) struct Workload {
    directory: PathBuf,
    segment_bytes: usize,
    rng: Rng,
    /// `None` only while it is opened again.
    node: Option<Node>,
    /// Entries that are durable and were not removed: the commit index may be as high.
    durable: u64,
    /// The digests of all entries, those included that a snapshot covers.
    log: Vec<u64>,
    /// The snapshot that is being written.
    draft: Option<Draft>,
}

impl Workload {
    /// Opens the storage and takes `steps` steps.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn run(
        directory: &Path,
        segment_bytes: usize,
        seed: u64,
        steps: u64,
    ) -> Result<(), StorageError> {
        let mut workload = Workload {
            directory: directory.to_path_buf(),
            segment_bytes,
            rng: Rng::new(seed),
            node: None,
            durable: 0,
            log: Vec::new(),
            draft: None,
        };
        workload.open()?;
        for _ in 0..steps {
            let step = workload.draw_step();
            workload.take(step)?;
        }
        Ok(())
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("the storage is open")
    }

    fn open(&mut self) -> Result<(), StorageError> {
        let seed = self.rng.next_u64();
        let (node, _) = node::open(&self.directory, self.segment_bytes, seed)?;
        let found = Found::read(&node)?;
        self.durable = found.last_index();
        // With a gap, the note tells.
        self.log = found.whole_log().unwrap_or_default();
        self.draft = None;
        self.node = Some(node);
        say(&Note::Opened(found));
        Ok(())
    }

    fn draw_step(&mut self) -> Step {
        if self.node().hard_state().term == Term(0) {
            return Step::ChangeHardState;
        }
        let mut rest = self.rng.range(0, STEPS.iter().map(|(_, parts)| parts).sum());
        let chosen = STEPS.into_iter().find(|(_, parts)| {
            let is_here = rest < *parts;
            rest = rest.saturating_sub(*parts);
            is_here
        });
        chosen.expect("the number is below the sum").0
    }

    fn take(&mut self, step: Step) -> Result<(), StorageError> {
        match step {
            Step::Append => {
                let payloads = (0..self.rng.range(1, 6)).map(|_| self.payload()).collect();
                self.append(payloads)
            }
            Step::ChangeHardState => self.change_hard_state(),
            Step::RemoveSuffix => {
                let last = self.node().last_index().0;
                let floor = self.removable_behind();
                let last_kept = self.rng.range(floor, last + 1);
                say(&Note::Remove(last_kept));
                self.durable = self.durable.min(last_kept);
                self.log.truncate(last_kept as usize);
                self.node().truncate_suffix(Index(last_kept))
            }
            Step::Snapshot => self.snapshot(),
            Step::KeepHouse => {
                let budget = self.rng.range(1, 2 * self.segment_bytes as u64) as usize;
                self.node().keep_house(budget).map(drop)
            }
            Step::Crash => {
                if self.rng.range(0, 2) == 0 {
                    // So much is written at once, without a sync.
                    let payload = self.fill(LOG_BUFFER_BYTES_MAX);
                    self.append(vec![payload])?;
                }
                self.node = None;
                self.open()
            }
            Step::Restart => {
                self.node.take().expect("the storage is open").close()?;
                say(&Note::Synced);
                self.open()
            }
            Step::WriteBack => {
                self.write_back();
                Ok(())
            }
            Step::Sync => self.sync(),
        }
    }

    /// Entries up to here must stay: committed ones, and those that a snapshot has or is about to have.
    fn removable_behind(&mut self) -> u64 {
        let node = self.node.as_mut().expect("the storage is open");
        let newest = node.snapshot().map_or(0, |meta| meta.last.index.0);
        let draft =
            self.draft.as_ref().filter(|draft| draft.is_of(node)).map_or(0, |draft| draft.last().index.0);
        node.hard_state().commit_index.0.max(newest).max(draft)
    }

    fn append(&mut self, payloads: Vec<Vec<u8>>) -> Result<(), StorageError> {
        // What the leader's snapshot covers has other entries than these under the same ids.
        let hard_state = self.node().hard_state();
        if self.draft.as_ref().is_some_and(|draft| draft.last().term == hard_state.term) {
            self.set_hard_state(HardState { term: Term(hard_state.term.0 + 1), ..hard_state })?;
        }
        let term = self.node().hard_state().term;
        let first = self.node().last_index().0 + 1;
        let batch: Vec<Vec<u8>> =
            (first..).zip(&payloads).map(|(index, payload)| entry_bytes(term, index, payload)).collect();
        let entries: Vec<Entry<'_>> =
            batch.iter().map(|bytes| Entry::decode(bytes).expect("just encoded")).collect();
        let digests: Vec<u64> = entries.iter().map(|entry| digest(*entry)).collect();
        self.log.extend(&digests);
        say(&Note::Append(digests));
        entries.into_iter().try_for_each(|entry| self.node().append(entry))
    }

    fn change_hard_state(&mut self) -> Result<(), StorageError> {
        let HardState { term, commit_index, .. } = self.node().hard_state();
        let vote = [None, Some(NodeId(2))][self.rng.range(0, 2) as usize];
        let commit_index = Index(self.rng.range(commit_index.0, self.durable.max(commit_index.0) + 1));
        self.set_hard_state(HardState { term: Term(term.0 + 1), vote, commit_index })
    }

    fn set_hard_state(&mut self, hard_state: HardState) -> Result<(), StorageError> {
        say(&Note::HardState(hard_state));
        self.node().set_hard_state(hard_state)
    }

    /// Some slices of a snapshot. One that is whole becomes the newest, unless the process dies over it.
    fn snapshot(&mut self) -> Result<(), StorageError> {
        if self.draft.is_some() && self.rng.range(0, 12) == 0 {
            self.draft = None;
            return self.node().drop_snapshot_draft();
        }
        if self.draft.is_none() && !self.begin_snapshot()? {
            return Ok(());
        }
        let node = self.node.as_mut().expect("the storage is open");
        let draft = self.draft.as_mut().expect("just begun, or there before");
        while !draft.is_whole() {
            draft.append(node, self.rng.range(1, 500_000) as usize)?;
            if self.rng.range(0, 4) == 0 {
                return Ok(());
            }
        }
        self.publish()
    }

    /// Whether there was something to take a snapshot of, and space.
    fn begin_snapshot(&mut self) -> Result<bool, StorageError> {
        let is_own = self.rng.range(0, 3) > 0;
        if !is_own && self.rng.range(0, 2) == 0 {
            self.change_hard_state()?;
        }
        let node = self.node.as_mut().expect("the storage is open");
        let draft = if is_own {
            Draft::of_log(node, &self.log, &mut self.rng)
        } else {
            Some(Draft::of_leader(node, &self.log, &mut self.rng))
        };
        if let Some(draft) = draft
            && draft.begin(node)?
        {
            self.draft = Some(draft);
        }
        Ok(self.draft.is_some())
    }

    fn publish(&mut self) -> Result<(), StorageError> {
        let draft = self.draft.take().expect("it is whole");
        let node = self.node.as_mut().expect("the storage is open");
        let keeps_log = draft.is_of(node);
        let covered = draft.covered().to_vec();
        say(&Note::Publish { keeps_log, covered });
        loop {
            match node.finish_snapshot(draft.expected(), self.rng.range(1, 500_000) as usize)? {
                SnapshotProgress::Done(_) => break,
                SnapshotProgress::Damaged => panic!("the snapshot up to {} was not read back", draft.last()),
                SnapshotProgress::More if self.rng.range(0, 12) == 0 => {
                    self.node = None;
                    return self.open();
                }
                SnapshotProgress::More => {}
            }
        }
        say(&Note::Published);
        if !keeps_log {
            self.log = draft.covered().to_vec();
        }
        self.durable = self.durable.max(draft.last().index.0).min(self.log.len() as u64);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.node().sync()?;
        say(&Note::Synced);
        self.durable = self.node().last_index().0;
        // The second copy of a new hard state. A power cut may come before it is asked for.
        if self.rng.range(0, 2) == 0 && self.node().is_dirty() {
            self.node().sync()?;
        }
        Ok(())
    }

    /// Of any size: empty, usual, larger than a segment, larger than the buffer of the log.
    fn payload(&mut self) -> Vec<u8> {
        let len = match self.rng.range(0, 60) {
            0..=4 => 0,
            5 => self.rng.range(200_000, 400_000),
            6..=10 => self.rng.range(3000, 20_000),
            11..=25 => self.rng.range(500, 1700),
            _ => self.rng.range(1, 120),
        };
        self.fill(len as usize)
    }

    /// Some are all zeros, some look like the inside of a segment (F8, F9).
    fn fill(&mut self, len: usize) -> Vec<u8> {
        match self.rng.range(0, 4) {
            0 => vec![0; len],
            1 => self.old_records(len),
            _ => (0..len).map(|_| self.rng.next_u64() as u8).collect(),
        }
    }

    fn old_records(&mut self, len: usize) -> Vec<u8> {
        let segments: Vec<PathBuf> = self
            .files()
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        let chosen = &segments[self.rng.range(0, segments.len() as u64) as usize];
        let bytes = fs::read(chosen).expect("the segment is readable");
        bytes.into_iter().skip(SEGMENT_HEADER_BYTES).take(len).collect()
    }

    /// Sorted by name.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory).expect("the directory is readable");
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.expect("the directory is readable").path()).collect();
        paths.sort();
        paths
    }

    /// "I need this no longer" makes the kernel start to write it.
    fn write_back(&mut self) {
        for path in self.files() {
            if self.rng.range(0, 2) == 0 {
                let file = File::open(&path).expect("the file is there");
                rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advice is taken");
            }
        }
    }
}

/// Notes a line, and waits until it is recorded.
fn say(note: &Note) {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", note.encode()).and_then(|()| out.flush()).expect("the recorder listens");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer).expect("the recorder answers");
    assert!(read > 0, "the recorder has ended");
}
