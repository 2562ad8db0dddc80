//! Power cuts on a real file system: Keva's storage runs on ext4 over a disk that records every write and every flush.
//! Then the power is cut at hundreds of moments: what was flushed is there, what was not is there, lost or torn at
//! random. The file system is mounted, the storage is opened, and every promise that was made before the cut must hold.
//!
//! A node has several lives: the next begins with what a cut of the one before left, so recovery is cut as well.
//!
//! scripts/powercut.sh starts this, and cleans up whatever happens.

mod content;
mod cut;
mod draft;
mod image;
mod inspect;
mod life;
mod mounts;
mod node;
mod note;
mod promises;
mod recorder;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::image::Image;
use crate::life::{Life, Places, Tally, make_file_system};
use crate::recorder::Recorder;
use crate::workload::Workload;

/// Lives of a node before another one begins with an empty file system.
const LIVES: u64 = 4;

#[derive(Parser)]
#[command(about = "Power cuts on a real file system; use scripts/powercut.sh")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Cuts the power many times.
    Run(RunArguments),
    /// Uses a storage and notes what it does; started by `run`.
    Workload(WorkloadArguments),
}

#[derive(Args)]
struct RunArguments {
    /// An empty directory in memory, below which everything is mounted.
    #[arg(long)]
    scratch: PathBuf,
    /// Where the image of a failure is left.
    #[arg(long)]
    keep: PathBuf,
    /// How many images to inspect.
    #[arg(long)]
    images: u64,
    /// The first life's number.
    #[arg(long)]
    seed: u64,
    /// A planted bug, which must be found.
    #[arg(long)]
    mutant: Option<String>,
}

#[derive(Args)]
struct WorkloadArguments {
    /// The working directory.
    directory: PathBuf,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    steps: u64,
    #[arg(long)]
    segment_bytes: usize,
    #[arg(long)]
    mutant: Option<String>,
}

fn main() -> ExitCode {
    match Arguments::parse().action {
        Action::Run(arguments) => cut_power(&arguments),
        Action::Workload(arguments) => run_workload(&arguments),
    }
}

fn run_workload(arguments: &WorkloadArguments) -> ExitCode {
    if let Some(mutant) = &arguments.mutant {
        keva::util::mutation::select(mutant);
    }
    let WorkloadArguments { directory, seed, steps, segment_bytes, .. } = arguments;
    match Workload::run(directory, *segment_bytes, *seed, *steps) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("powercut: the storage failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cut_power(arguments: &RunArguments) -> ExitCode {
    if let Some(mutant) = &arguments.mutant {
        keva::util::mutation::select(mutant);
        // A panic is one of the ways in which a planted bug is found; its text is part of the result.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let mut tally = Tally::default();
    let result = live_and_die(arguments, &mut tally);
    match (result, &arguments.mutant) {
        (Ok(()), None) => {
            println!("{}", tally.summary());
            ExitCode::SUCCESS
        }
        (Ok(()), Some(mutant)) => {
            println!("FAILED: the planted bug {mutant} was not found in {} images", tally.images);
            ExitCode::FAILURE
        }
        (Err(error), None) => {
            println!("FAILED after {} images\n{error}", tally.images);
            println!(
                "repeat it (the kernel's timing may differ): scripts/powercut.sh --seed {}",
                arguments.seed
            );
            ExitCode::FAILURE
        }
        (Err(error), Some(_)) => {
            let first = error.lines().next().unwrap_or_default();
            println!("found after {} images: {first}", tally.images);
            ExitCode::SUCCESS
        }
    }
}

fn live_and_die(arguments: &RunArguments, tally: &mut Tally) -> Result<(), String> {
    let places = Places::make(&arguments.scratch)
        .map_err(|error| format!("cannot make directories in {}: {error}", arguments.scratch.display()))?;
    let recorder = Recorder::mount(&places.fuse())?;
    let mut disk = make_file_system(&places, &Image::empty())?;
    let mut seed = arguments.seed;
    while tally.images < arguments.images {
        let life = Life {
            places: &places,
            recorder: &recorder,
            seed,
            mutant: arguments.mutant.as_deref(),
            images: arguments.images - tally.images,
            keep: &arguments.keep,
        };
        disk = life.live(disk, tally)?;
        seed += 1;
        if tally.lives.is_multiple_of(LIVES) {
            disk = make_file_system(&places, &disk.image)?;
        }
    }
    Ok(())
}

impl Tally {
    fn summary(&self) -> String {
        let mean = self.inspecting.as_secs_f64() * 1000.0 / self.images.max(1) as f64;
        format!(
            "{} images of {} lives kept every promise; {mean:.0} ms per image; {} writes, {} flushes, {} snapshots of \
             the log and {} in its place recorded",
            self.images, self.lives, self.writes, self.flushes, self.log_snapshots, self.installed_snapshots
        )
    }
}
