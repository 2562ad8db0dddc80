//! Runs seeds, counts, and says what failed and how to see it again.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use crate::arguments::Arguments;
use crate::marks::{MARKS, Marks};
use crate::plan::{Overrides, Plan};
use crate::shrink::shrink;
use crate::world::{Report, run};

/// Seeds that have found something once, with what it was.
const CORPUS: &str = include_str!("corpus");
/// Seeds of every test run.
const FIXED_SEEDS: std::ops::Range<u64> = 1..25;

/// The planted bug, if there is one.
static MUTANT: OnceLock<String> = OnceLock::new();

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A failing seed is reported once, with its seed, and not where it panics.
pub(crate) fn catch_quietly() {
    set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("a panic without a text");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        LAST_PANIC.with_borrow_mut(|last| *last = format!("{message}\n  at {place}"));
    }));
}

/// Runs one seed. The error is what went wrong.
pub(crate) fn run_seed(seed: u64, overrides: &Overrides, is_tracing: bool) -> Result<Report, String> {
    let plan = Plan::new(seed, overrides);
    catch_unwind(AssertUnwindSafe(|| run(plan, is_tracing))).map_err(|_| LAST_PANIC.with_borrow(Clone::clone))
}

fn tell(seed: u64, overrides: &Overrides, error: &str) {
    println!("FAILED: seed {seed}\n  {error}\n  {}", Plan::new(seed, overrides));
    println!("  again, with all that happens: {} --trace", command(seed, overrides));
    println!("  make it smaller: {} --shrink", command(seed, overrides));
}

/// What runs this seed again, without its last option.
pub(crate) fn command(seed: u64, overrides: &Overrides) -> String {
    match MUTANT.get() {
        Some(mutant) => format!("scripts/mutants.sh {mutant} --seed {seed}{overrides}"),
        None => format!("scripts/sim.sh --seed {seed}{overrides}"),
    }
}

pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    if let Some(mutant) = &arguments.mutant {
        keva::util::mutation::select(mutant);
        MUTANT.set(mutant.clone()).expect("there is one command line");
    }
    let is_good = match arguments.seed {
        Some(seed) if arguments.is_shrinking => shrink(seed, &arguments.overrides),
        Some(seed) => one(seed, arguments),
        None if arguments.is_test => test(),
        None => many(arguments),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, arguments: &Arguments) -> bool {
    println!("seed {seed}: {}", Plan::new(seed, &arguments.overrides));
    match run_seed(seed, &arguments.overrides, arguments.is_tracing) {
        Ok(report) => {
            println!(
                "passed: {} events, {} operations, {} entries committed, trace {:016x}",
                report.events, report.operations, report.commits, report.hash
            );
            for (name, count) in MARKS.iter().zip(&report.marks.0).filter(|(_, count)| **count > 0) {
                println!("  {count:>6} {name}");
            }
            true
        }
        Err(error) => {
            tell(seed, &arguments.overrides, &error);
            false
        }
    }
}

/// Seeds of the corpus, one per line, each with a reason behind it.
fn corpus() -> Vec<(u64, Overrides)> {
    let lines = CORPUS.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let parse = |line: &str| {
        let words = line.split_whitespace().take_while(|word| *word != "#").map(str::to_owned);
        let arguments = Arguments::parse(words).expect("the corpus holds options of sim.sh");
        (arguments.seed.expect("every line names a seed"), arguments.overrides)
    };
    lines.map(parse).collect()
}

/// As a test: the corpus, a few fixed seeds twice, and a few new ones.
fn test() -> bool {
    let mut is_good = true;
    let none = Overrides::default();
    let mut expect = |seed, overrides: &Overrides| match run_seed(seed, overrides, false) {
        Ok(report) => Some(report),
        Err(error) => {
            tell(seed, overrides, &error);
            is_good = false;
            None
        }
    };
    for (seed, overrides) in corpus() {
        expect(seed, &overrides);
    }
    let mut hashes = Vec::new();
    for seed in FIXED_SEEDS {
        hashes.push((seed, expect(seed, &none).map(|report| report.hash)));
    }
    for (seed, first) in hashes.into_iter().step_by(4) {
        let second = expect(seed, &none).map(|report| report.hash);
        assert_eq!(first, second, "seed {seed} did two different things");
    }
    let start = Arguments::parse(std::iter::empty()).expect("nothing is nothing wrong").start;
    println!("simulation: the corpus, seeds {FIXED_SEEDS:?}, and {start} to {}", start + 19);
    for seed in start..start + 20 {
        expect(seed, &none);
    }
    println!("simulation: {}", if is_good { "ok" } else { "FAILED" });
    is_good
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    events: u64,
    operations: u64,
    commits: u64,
    cpu_seconds: f64,
    marks_in_runs: Marks,
    marks: Marks,
}

fn many(arguments: &Arguments) -> bool {
    let started = Instant::now();
    let (next, failed) = (AtomicU64::new(arguments.start), AtomicBool::new(false));
    let end = arguments.start.saturating_add(arguments.seeds);
    let totals = Mutex::new(Totals::default());
    let work = || {
        let mut mine = Totals::default();
        let began = Instant::now();
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            mine.seeds += 1;
            match run_seed(seed, &arguments.overrides, false) {
                Ok(report) => {
                    mine.events += report.events;
                    mine.operations += report.operations as u64;
                    mine.commits += report.commits;
                    mine.marks_in_runs.add_run(&report.marks);
                    mine.marks.add(&report.marks);
                }
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    tell(seed, &arguments.overrides, &error);
                    if arguments.mutant.is_some() {
                        println!("caught after {} seeds", seed - arguments.start + 1);
                    }
                }
            }
        }
        mine.cpu_seconds = began.elapsed().as_secs_f64();
        totals.lock().expect("no thread panics here").add(&mine);
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let totals = totals.into_inner().expect("no thread panics here");
    totals.print(started.elapsed().as_secs_f64());
    let missing = totals.marks.0.iter().zip(MARKS).filter(|(count, _)| **count == 0);
    let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
    let lacks_marks = arguments.wants_marks && !missing.is_empty();
    if lacks_marks {
        println!("FAILED: never seen: {}", missing.join(", "));
    }
    !failed.into_inner() && !lacks_marks
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.operations += other.operations;
        self.commits += other.commits;
        self.cpu_seconds += other.cpu_seconds;
        self.marks_in_runs.add(&other.marks_in_runs);
        self.marks.add(&other.marks);
    }

    fn print(&self, seconds: f64) {
        println!("    times  in runs  what");
        for ((count, runs), name) in self.marks.0.iter().zip(&self.marks_in_runs.0).zip(MARKS) {
            println!("{count:>9} {runs:>8}  {name}");
        }
        println!(
            "{} seeds in {seconds:.1} s: {} events, {} operations, {} entries committed",
            self.seeds, self.events, self.operations, self.commits
        );
        println!(
            "per core: {:.0} events/s, {:.0} seeds per hour",
            self.events as f64 / self.cpu_seconds,
            self.seeds as f64 / self.cpu_seconds * 3600.0
        );
    }
}
