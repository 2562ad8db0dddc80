//! The `keva` program: reads what the operator says, then runs one node.

use std::fmt::Display;
use std::process::ExitCode;

use keva::config::{Arguments, Settings, usage_line};
use keva::limits::{LOG_MARGIN_BYTES, SPARE_BYTES_PER_TURN};
use keva::logging::{self, Filter};
use keva::net::event_loop::{self, Housekeeping, Listeners, NodeSetup, RunError};
use keva::raft::storage::StorageError;
use keva::storage::{DataDir, LogStorage, Membership, SpareProgress, StorageOptions};
use keva::util::rng::Rng;
use rustix::rand::{GetRandomFlags, getrandom};

/// The program failed while it ran.
const EXIT_FAILED: u8 = 1;
/// Wrong usage, configuration or storage: nothing was started.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => return fail(EXIT_USAGE, &usage_line(&error)),
        Err(help_or_version) => {
            // Whoever asked may have closed the pipe already, as `keva --help | head -1` does.
            let _ = help_or_version.print();
            return ExitCode::SUCCESS;
        }
    };
    let filter = match Filter::parse(&arguments.log_level) {
        Ok(filter) => filter,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    let settings = match Settings::from_arguments(&arguments) {
        Ok(settings) => settings,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    logging::start(&filter);
    announce(&settings);
    run_node(&settings)
}

/// Runs the node until it is asked to stop. Nothing is left half started: the directory is locked, then ports are
/// taken, then files are recovered, and only then the first message is sent.
fn run_node(settings: &Settings) -> ExitCode {
    let directory = match DataDir::open(&settings.working_directory) {
        Ok(directory) => directory,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    let listeners = match Listeners::bind(&settings.node) {
        Ok(listeners) => listeners,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    let storage = match open_storage(settings, directory) {
        Ok(storage) => storage,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    let setup = NodeSetup {
        config: &settings.config,
        node: &settings.node,
        listeners,
        incarnation: storage.incarnation(),
        cluster_id: storage.cluster_id(),
        storage,
        seed: random_seed(),
    };
    let stopped = event_loop::run(setup, keep_house);
    match stopped.and_then(|storage| storage.close().map_err(RunError::Storage)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED, &error),
    }
}

fn open_storage(settings: &Settings, directory: DataDir) -> Result<LogStorage<DataDir>, StorageError> {
    let options = StorageOptions {
        membership: Membership {
            node: settings.node.id,
            identity: settings.node.identity.clone(),
            members: settings.config.nodes.iter().map(|node| node.identity.clone()).collect(),
            cluster_name: settings.config.cluster.clone(),
        },
        segment_bytes: settings.config.storage.segment_bytes,
        log_margin_bytes: LOG_MARGIN_BYTES,
        rng: Rng::new(random_seed()),
    };
    let (storage, report) = LogStorage::open(directory, options)?;
    log::info!("{}: {report}", settings.working_directory.display());
    Ok(storage)
}

/// A slice of what the storage does ahead of time.
fn keep_house(storage: &mut LogStorage<DataDir>) -> Result<Housekeeping, StorageError> {
    storage.prepare_spare(SPARE_BYTES_PER_TURN).map(|progress| match progress {
        SpareProgress::Ready => Housekeeping::Done,
        SpareProgress::Filling => Housekeeping::More,
        SpareProgress::DiskFull => Housekeeping::Later,
    })
}

/// A number that no other start has: time-outs of nodes that start together must differ.
fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty());
    assert_eq!(filled, Ok(bytes.len()), "the system gives small amounts of randomness whole");
    u64::from_le_bytes(bytes)
}

/// Logs what is about to run.
fn announce(settings: &Settings) {
    let node = &settings.node;
    log::info!(
        "keva {}: node {} ({}), one of {}, clients on {}, data in {}",
        env!("CARGO_PKG_VERSION"),
        node.identity,
        node.id,
        settings.config.nodes.len(),
        node.client_address(),
        settings.working_directory.display()
    );
    for hint in &settings.hints {
        log::warn!("{hint}");
    }
}

/// One line on standard error. A closed standard error is no reason to panic, and a full one none to stay: whoever
/// watches the process waits for its end to start it again.
fn fail(code: u8, message: &dyn Display) -> ExitCode {
    logging::say_last(&format!("keva: {message}"));
    ExitCode::from(code)
}
