//! Whole clusters in one thread, with virtual time, bad networks and bad disks: one number decides everything that
//! happens. `scripts/sim.sh --help` says how to use it.

mod answer;
mod arguments;
mod asks;
mod checks;
mod damage;
mod deeds;
mod env;
mod faults;
mod followers;
mod following;
mod hosts;
mod links;
mod listings;
mod marks;
mod network;
mod node;
mod plan;
mod runner;
mod sessions;
mod shrink;
mod storms;
mod support;
mod turn;
mod users;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match arguments::Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("simulation: {message}; see scripts/sim.sh --help");
            return ExitCode::from(2);
        }
    };
    runner::catch_quietly();
    runner::main(&arguments)
}
