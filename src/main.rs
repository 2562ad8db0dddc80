//! The `keva` program: reads what the operator says, then runs one node or does what else was asked.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use keva::config::{Arguments, CheckArguments, Command, Settings, usage_line};
use keva::limits::{LOG_MARGIN_BYTES, RECOVERY_BYTES_TOLD};
use keva::logging::{self, Filter};
use keva::net::event_loop::{self, Listeners, NodeSetup, RunError};
use keva::raft::storage::StorageError;
use keva::storage::{DataDir, LogStorage, Membership, StorageOptions, check, watch_for_bus_errors};
use keva::util::rng::Rng;
use rustix::rand::{GetRandomFlags, getrandom};

/// The program failed while it ran, or found files that are not sound.
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
    if let Some(Command::Check(arguments)) = &arguments.command {
        return check_files(arguments);
    }
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
    if let Err(error) = watch_for_bus_errors() {
        return fail(EXIT_FAILED, &format!("cannot take over the signal SIGBUS: {error}"));
    }
    run_node(&settings)
}

/// `keva check`: the report goes to standard output, the verdict is the exit code.
fn check_files(arguments: &CheckArguments) -> ExitCode {
    let report = match check(&arguments.working_directory, arguments.verbose) {
        Ok(report) => report,
        // Nothing was looked at: there is no verdict.
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    // Whoever reads may have seen enough, as `keva check | head -1` has.
    let _ = writeln!(std::io::stdout(), "{report}");
    if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
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
        disk_id: storage.disk_id(),
        process: random_seed(),
        cluster_id: storage.cluster_id(),
        storage,
        seed: random_seed(),
    };
    let stopped = event_loop::run(setup);
    match stopped.and_then(|storage| storage.close().map_err(RunError::Storage)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILED, &error),
    }
}

fn open_storage(settings: &Settings, directory: DataDir) -> Result<LogStorage<DataDir>, StorageError> {
    announce_recovery(&settings.working_directory);
    let options = StorageOptions {
        membership: Membership {
            node: settings.node.id,
            identity: settings.node.identity.clone(),
            members: settings.config.nodes.iter().map(|node| node.identity.clone()).collect(),
            cluster_name: settings.config.cluster.clone(),
        },
        segment_bytes: settings.config.storage.segment_bytes,
        log_margin_bytes: LOG_MARGIN_BYTES,
        // Alone, there is nobody to get the data from.
        repair: settings.config.nodes.len() > 1,
        rng: Rng::new(random_seed()),
    };
    let (storage, report) = LogStorage::open(directory, options)?;
    let level = if report.set_aside.is_some() { log::Level::Error } else { log::Level::Info };
    log::log!(level, "{}: {report}", settings.working_directory.display());
    Ok(storage)
}

/// Says so when there is much to read, so that nobody takes a long start for a hanging one.
fn announce_recovery(directory: &Path) {
    let Ok(files) = std::fs::read_dir(directory) else { return };
    let lengths = files.filter_map(|file| file.ok()?.metadata().ok()).map(|metadata| metadata.len());
    let bytes: u64 = lengths.sum();
    if bytes >= RECOVERY_BYTES_TOLD {
        log::info!("{}: reading {} MiB of log and snapshots", directory.display(), bytes >> 20);
    }
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
