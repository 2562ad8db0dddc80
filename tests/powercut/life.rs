//! A life: a file system is mounted over the recorded disk, the workload runs on it, and then the power is cut at many
//! moments of the recording. Each leaves an image, which is mounted and inspected.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keva::util::rng::Rng;

use crate::cut::{Cut, Player};
use crate::image::Image;
use crate::inspect::inspect;
use crate::mounts::{Mount, run};
use crate::note::Note;
use crate::promises::Promises;
use crate::recorder::{Event, Recorder};

/// Steps of the workload in a life.
const STEPS: u64 = 36;
/// Sizes of a usual segment, one per life.
const SEGMENT_BYTES: [u64; 3] = [8192, 16384, 65536];
/// The node's working directory in its file system.
const NODE_DIRECTORY: &str = "node";

/// Where everything happens: directories of their own below a scratch directory, on a file system in memory.
pub(crate) struct Places {
    scratch: PathBuf,
}

/// The run so far.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) lives: u64,
    pub(crate) images: u64,
    pub(crate) writes: usize,
    pub(crate) flushes: usize,
    /// Snapshots that were about to become the newest: beside the log, and in its place.
    pub(crate) log_snapshots: usize,
    pub(crate) installed_snapshots: usize,
    /// Time for all images together.
    pub(crate) inspecting: Duration,
}

/// A disk with the promises that hold on it.
pub(crate) struct Disk {
    pub(crate) image: Image,
    pub(crate) promises: Promises,
}

/// What a life needs to know.
pub(crate) struct Life<'a> {
    pub(crate) places: &'a Places,
    pub(crate) recorder: &'a Recorder,
    pub(crate) seed: u64,
    pub(crate) mutant: Option<&'a str>,
    /// No more than this.
    pub(crate) images: u64,
    /// Where an image is left when it is wrong.
    pub(crate) keep: &'a Path,
}

/// What was recorded.
struct Recorded {
    events: Vec<Event>,
    /// Where the workload began: what is before is the file system's own affair.
    start: usize,
}

impl Places {
    /// Makes the directories.
    pub(crate) fn make(scratch: &Path) -> std::io::Result<Places> {
        for name in ["fuse", "recorded", "cut"] {
            std::fs::create_dir_all(scratch.join(name))?;
        }
        Ok(Places { scratch: scratch.to_path_buf() })
    }

    /// The recorder's file system.
    pub(crate) fn fuse(&self) -> PathBuf {
        self.scratch.join("fuse")
    }

    /// The file system that the workload uses.
    fn recorded(&self) -> PathBuf {
        self.scratch.join("recorded")
    }

    /// The file system after the cut.
    fn cut(&self) -> PathBuf {
        self.scratch.join("cut")
    }

    /// The file of an image.
    fn image(&self) -> PathBuf {
        self.scratch.join("image")
    }
}

/// An empty file system, made over what the disk held before: the blocks that no file has keep their old bytes.
pub(crate) fn make_file_system(places: &Places, old: &Image) -> Result<Disk, String> {
    let path = places.image();
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    old.save(&path, &[]).map_err(failed)?;
    let options = ["-q", "-F", "-b", "4096", "-J", "size=4", "-O", "^fast_commit", "-E"];
    let extended = ["nodiscard,lazy_itable_init=0,lazy_journal_init=0"];
    let words: Vec<_> =
        options.iter().chain(&extended).map(AsRef::as_ref).chain([path.as_os_str()]).collect();
    run("mkfs.ext4", &words)?;
    Ok(Disk { image: Image::load(&path).map_err(failed)?, promises: Promises::none() })
}

impl Life<'_> {
    /// Lives on `disk`, and returns what one of the cuts left of it.
    ///
    /// # Errors
    /// With the promise that was broken, and where.
    pub(crate) fn live(&self, disk: Disk, tally: &mut Tally) -> Result<Disk, String> {
        let mut rng = Rng::new(self.seed);
        let segment_bytes = SEGMENT_BYTES[rng.range(0, SEGMENT_BYTES.len() as u64) as usize] as usize;
        let recorded = self.record(&disk.image, segment_bytes)?;
        tally.lives += 1;
        for event in &recorded.events {
            tally.writes += usize::from(matches!(event, Event::Write { .. }));
            tally.flushes += usize::from(matches!(event, Event::Flush));
            if let Event::Note(Note::Publish { keeps_log, .. }) = event {
                tally.log_snapshots += usize::from(*keeps_log);
                tally.installed_snapshots += usize::from(!keeps_log);
            }
        }
        let moments = choose_moments(&recorded, self.images, &mut rng);
        let survivor = rng.range(0, moments.len() as u64) as usize;
        let mut player = Player::new(disk.image, disk.promises, &recorded.events);
        let mut next = None;
        for (number, moment) in moments.into_iter().enumerate() {
            player.advance(moment).map_err(|error| self.explain(&player, None, &error))?;
            let cut = player.cut(&mut rng);
            let started = Instant::now();
            tally.images += 1;
            self.inspect(&player, &cut, segment_bytes).map_err(|error| {
                let saved = player.durable().save(self.keep, &cut.kept);
                let error =
                    saved.map_or_else(|saving| format!("{error} (not kept: {saving})"), |()| error.clone());
                self.explain(&player, Some(&cut), &error)
            })?;
            tally.inspecting += started.elapsed();
            if number == survivor {
                let mut image = player.durable().clone();
                cut.kept.iter().for_each(|(offset, bytes)| image.write(*offset, bytes));
                next = Some(Disk { image, promises: player.promises().clone() });
            }
        }
        player.advance(recorded.events.len()).map_err(|error| self.explain(&player, None, &error))?;
        Ok(next.expect("the survivor is one of the moments"))
    }

    fn explain(&self, player: &Player<'_>, cut: Option<&Cut<'_>>, error: &str) -> String {
        let mut text = format!("life {}, event {}: {error}", self.seed, player.position());
        if let Some(cut) = cut {
            text += &format!("\n  the cut left {}", cut.how);
            text += &format!("\n  its image is kept: mount -o loop {} DIRECTORY", self.keep.display());
        }
        player.notes().iter().fold(text, |text, note| format!("{text}\n  before: {note}"))
    }

    /// Runs the workload on the recorded disk.
    fn record(&self, image: &Image, segment_bytes: usize) -> Result<Recorded, String> {
        self.recorder.load(image.bytes().to_vec());
        let mount = Mount::new(&Recorder::file(&self.places.fuse()), &self.places.recorded())?;
        let start = self.recorder.position();
        let mut child = self.start_workload(segment_bytes)?;
        let listened = self.listen(&mut child);
        let status = child.wait().map_err(|error| format!("the workload has no end: {error}"))?;
        let events = self.recorder.take();
        mount.close()?;
        listened?;
        if !status.success() {
            return Err(format!("life {}: the workload failed: {status}", self.seed));
        }
        Ok(Recorded { events, start })
    }

    fn start_workload(&self, segment_bytes: usize) -> Result<Child, String> {
        let program =
            std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
        let mut command = Command::new(program);
        command.arg("workload").arg(self.places.recorded().join(NODE_DIRECTORY));
        for (option, number) in
            [("--seed", self.seed), ("--steps", STEPS), ("--segment-bytes", segment_bytes as u64)]
        {
            command.arg(option).arg(number.to_string());
        }
        if let Some(mutant) = self.mutant {
            command.arg("--mutant").arg(mutant);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().map_err(|error| format!("cannot start the workload: {error}"))
    }

    /// Records the notes of the workload until it ends.
    fn listen(&self, child: &mut Child) -> Result<(), String> {
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut answers = child.stdin.take().expect("it is piped");
        for line in lines {
            let line = line.map_err(|error| format!("the workload cannot be heard: {error}"))?;
            let note = Note::decode(&line).ok_or_else(|| format!("the workload said: {line}"))?;
            self.recorder.note(note);
            // A workload that has ended needs no answer; its exit status tells why.
            let _ = answers.write_all(b"\n");
        }
        Ok(())
    }

    /// Mounts what a cut left and looks at the node in it.
    fn inspect(&self, player: &Player<'_>, cut: &Cut<'_>, segment_bytes: usize) -> Result<(), String> {
        let path = self.places.image();
        player.durable().save(&path, &cut.kept).map_err(|error| format!("{}: {error}", path.display()))?;
        let mount = Mount::new(&path, &self.places.cut())?;
        let verdict = inspect(&self.places.cut().join(NODE_DIRECTORY), player.promises(), segment_bytes);
        let faults = mount.faults();
        mount.close()?;
        verdict?;
        match faults? {
            0 => Ok(()),
            count => Err(format!("the file system has noticed {count} faults in itself")),
        }
    }
}

/// The moments of the cuts, in order: before every flush, and as many others, of which half are right behind a note.
fn choose_moments(recorded: &Recorded, limit: u64, rng: &mut Rng) -> Vec<usize> {
    let events = &recorded.events;
    let places = |is_wanted: fn(&Event) -> bool| -> Vec<usize> {
        (recorded.start..events.len()).filter(|position| is_wanted(&events[*position])).collect()
    };
    let mut moments = places(|event| matches!(event, Event::Flush));
    let notes = places(|event| matches!(event, Event::Note(_)));
    for number in 0..moments.len() {
        moments.push(if number % 2 == 0 {
            notes[rng.range(0, notes.len() as u64) as usize] + 1
        } else {
            rng.range(recorded.start as u64, events.len() as u64 + 1) as usize
        });
    }
    while moments.len() as u64 > limit {
        moments.swap_remove(rng.range(0, moments.len() as u64) as usize);
    }
    moments.sort_unstable();
    moments
}
