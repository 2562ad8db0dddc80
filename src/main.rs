//! The `keva` program: reads what the operator says, then runs one node.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use keva::config::{Arguments, Settings, usage_line};
use keva::logging::{self, Filter};

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
    run_node(settings)
}

/// Runs the node until it is asked to stop.
fn run_node(settings: Settings) -> ExitCode {
    drop(settings);
    fail(EXIT_FAILED, &"this build has no event loop; use one that has")
}

/// Logs what is about to run.
fn announce(settings: &Settings) {
    let node = &settings.node;
    log::info!(
        "keva {}: node {} ({}), one of {} in cluster {}, clients on {}, data in {}",
        env!("CARGO_PKG_VERSION"),
        node.identity,
        node.id,
        settings.config.nodes.len(),
        settings.config.cluster,
        node.client_address(),
        settings.working_directory.display()
    );
    for hint in &settings.hints {
        log::warn!("{hint}");
    }
}

/// One line on standard error. A closed standard error is no reason to panic.
fn fail(code: u8, message: &dyn Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "keva: {message}");
    ExitCode::from(code)
}
