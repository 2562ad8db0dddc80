//! What a chaos run is told.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::fault::FaultKind;

/// How a run differs from another one.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes, 3 or 5.
    pub nodes: usize,
    /// No round begins later than this after the start.
    pub duration: Duration,
    /// Decides which faults come, when, and what the clients do.
    pub seed: u64,
    /// The kinds of faults to draw from.
    pub faults: Vec<FaultKind>,
    /// `wait_time` of all nodes, in milliseconds.
    pub wait_time_ms: u64,
    /// The nodes' files go into new directories in here.
    pub directory: PathBuf,
}

impl Options {
    /// The options that `scripts/chaos.sh` has put into the environment. Panics with the name of one that is wrong.
    pub fn from_environment() -> Options {
        let faults = std::env::var("CHAOS_FAULTS").unwrap_or_default();
        let faults = match faults.as_str() {
            "" => FaultKind::ALL.to_vec(),
            list => list
                .split(',')
                .map(|name| {
                    FaultKind::named(name)
                        .unwrap_or_else(|| panic!("there is no fault '{name}'; see scripts/chaos.sh --help"))
                })
                .collect(),
        };
        Options {
            nodes: variable("CHAOS_NODES", 3),
            duration: Duration::from_secs_f64(60.0 * variable("CHAOS_MINUTES", 1.0)),
            seed: variable("CHAOS_SEED", 1),
            faults,
            wait_time_ms: variable("CHAOS_WAIT_TIME_MS", 500),
            directory: variable("CHAOS_DIRECTORY", PathBuf::from(env!("CARGO_TARGET_TMPDIR"))),
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<&str> = self.faults.iter().map(|kind| kind.name()).collect();
        write!(
            f,
            "{} nodes, {:.1} minutes, seed {}, wait_time {} ms, faults {}",
            self.nodes,
            self.duration.as_secs_f64() / 60.0,
            self.seed,
            self.wait_time_ms,
            faults.join(",")
        )
    }
}

fn variable<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Err(_) => default,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not of the right kind")),
    }
}
