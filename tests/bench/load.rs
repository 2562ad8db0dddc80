//! Measures a cluster of three nodes on this machine: throughput, latency, idle cost, pauses when the leader goes, size.
//!
//! `scripts/bench.sh` builds and runs it. The figures are those of one machine that runs the nodes and the clients.

#![allow(unreachable_pub, reason = "modules of one program")]

mod amplification;
mod disk;
mod generator;
mod growth;
mod listing;
mod report;
mod scenarios;
#[path = "../support/mod.rs"]
mod support;
mod swarm;
mod table;
mod usage;
mod watchers;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// One part of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// Writes and reads per second over many connections, and what they cost.
    Throughput,
    /// One connection, one write after the other, against the disk's own speed.
    Latency,
    /// Processor, disk and messages when nobody asks for anything.
    Idle,
    /// Pauses of clients when the leader is killed and when it is asked to stop.
    Failover,
    /// The program on disk and in memory.
    Size,
    /// Overwrites for a long time: working directory and memory, and what snapshots cost.
    Growth,
    /// Many keys: snapshot and the longest turns meanwhile, restart, memory.
    Keys,
    /// A follower loses its disk under load.
    Rejoin,
    /// Bytes written to the disk: by single writes, one per second; under full load; when idle.
    Amplification,
    /// Many keys: all of them in pages, counted, and deleted, and what the others notice of it.
    Listing,
    /// Very many clients that follow keys: memory, processor, and how soon they learn what happens.
    Watchers,
}

/// The parts that run unless others are named.
const USUAL_PARTS: [Part; 5] = [Part::Throughput, Part::Latency, Part::Idle, Part::Failover, Part::Size];

/// Measures a cluster of three Keva nodes on this machine and prints a report.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench.sh", version)]
struct Options {
    /// Only these parts of the report
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = USUAL_PARTS)]
    only: Vec<Part>,
    /// Seconds per measurement under load
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds per measurement without requests
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Client connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Length of the values in bytes
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// How often the leader is killed, and how often it is asked to stop
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Overwrites of the growth part
    #[arg(long, default_value_t = 1_000_000)]
    overwrites: usize,
    /// Keys that the growth part overwrites
    #[arg(long, default_value_t = 1_000)]
    overwritten_keys: usize,
    /// Keys of the keys, rejoin, amplification and listing parts
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Length of their values in bytes
    #[arg(long, default_value_t = 100)]
    key_value_bytes: usize,
    /// Clients of the watchers part that follow keys that nobody writes
    #[arg(long, default_value_t = 5_000)]
    watchers: usize,
    /// Clients of the watchers part who all see every write
    #[arg(long, default_value_t = 1_000)]
    followers: usize,
    /// The nodes keep their data in a scratch directory in here; its file system is what is measured
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` runs benchmarks too, to see that they start, and with options of its own.
        return;
    }
    let options = Options::parse();
    println!("{}", machine());
    for part in &options.only {
        match part {
            Part::Throughput => scenarios::throughput(&options),
            Part::Latency => scenarios::latency(&options),
            Part::Idle => scenarios::idle(&options),
            Part::Failover => scenarios::failover(&options),
            Part::Size => scenarios::size(&options),
            Part::Growth => growth::growth(&options),
            Part::Keys => growth::keys(&options),
            Part::Rejoin => growth::rejoin(&options),
            Part::Amplification => amplification::amplification(&options),
            Part::Listing => listing::listing(&options),
            Part::Watchers => watchers::watchers(&options),
        }
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    println!("\nMade with: scripts/bench.sh {}", arguments.join(" "));
}

/// The machine in a line.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let system = rustix::system::uname();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown").to_owned();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    format!(
        "Keva {} on {cores} cores ({}), {} {}, load average {load} (a busy machine spoils the figures)",
        env!("CARGO_PKG_VERSION"),
        model.trim_start_matches(['\t', ' ', ':']),
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy()
    )
}
