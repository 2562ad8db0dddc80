//! Explores every state that small clusters of Keva's Raft can reach, with a network that loses, repeats and reorders,
//! and checks that no rule of the protocol is ever broken. Only safety: whether something happens at last is shown
//! elsewhere.

mod cluster;
mod disk;
mod node;
mod scenarios;
mod wire;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::scenarios::{SCENARIOS, Scenario};

const USAGE: &str = "Usage: model [--short] [--mutant NAME] [--seconds N] [SCENARIO]...";

fn main() -> ExitCode {
    let (mut is_short, mut mutant, mut names, mut patience) =
        (false, None, Vec::new(), Duration::from_secs(3600));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--short" => is_short = true,
            "--mutant" => mutant = arguments.next(),
            "--seconds" => {
                let seconds = arguments.next().and_then(|text| text.parse().ok());
                let Some(seconds) = seconds else {
                    eprintln!("model: --seconds takes a number\n{USAGE}");
                    return ExitCode::from(2);
                };
                patience = Duration::from_secs(seconds);
            }
            name if SCENARIOS.iter().any(|scenario| scenario.name == name) => names.push(argument),
            _ => {
                eprintln!("model: there is no scenario or option {argument}\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    // What the nodes' assertions say is reported with the path that leads there.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(name) = &mutant {
        keva::util::mutation::select(name);
    }
    let chosen = |scenario: &&Scenario| {
        let is_named = names.iter().any(|name| name == scenario.name);
        is_named || (names.is_empty() && scenario.is_short == is_short)
    };
    let mut is_good = true;
    for scenario in SCENARIOS.iter().filter(chosen) {
        is_good &= if mutant.is_some() { find(scenario, patience) } else { prove(scenario, patience) };
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Explores everything. Good when all was seen, no rule was broken, and what should be reachable was reached.
fn prove(scenario: &Scenario, patience: Duration) -> bool {
    let cluster = (scenario.cluster)();
    let started = Instant::now();
    let names: Vec<&str> = cluster.properties().iter().map(|property| property.name).collect();
    let checker = cluster
        .checker()
        .threads(scenarios::threads())
        .timeout(patience)
        // Not done before all states are seen, whatever is found on the way.
        .finish_when(HasDiscoveries::AllOf(["nothing"].into()))
        .spawn_dfs()
        .join();
    let is_whole = started.elapsed() < patience;
    let discoveries = checker.discoveries();
    let broken = discoveries.get("safety");
    let missing: Vec<&str> =
        names.into_iter().filter(|name| *name != "safety" && !discoveries.contains_key(name)).collect();
    println!(
        "{:<18} {:>10} states, depth {:>3}, {:>6.1} s, {}",
        scenario.name,
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64(),
        if is_whole { "all explored" } else { "NOT all explored" },
    );
    if let Some(path) = broken {
        print_path(scenario, path.clone().into_states().last(), path);
    }
    for name in &missing {
        println!("  never reached: {name}");
    }
    is_whole && broken.is_none() && missing.is_empty()
}

/// Looks for a broken rule. Good when there is one.
fn find(scenario: &Scenario, patience: Duration) -> bool {
    let started = Instant::now();
    let checker = (scenario.cluster)()
        .checker()
        .threads(scenarios::threads())
        .timeout(patience)
        .finish_when(HasDiscoveries::AnyOf(["safety"].into()))
        .spawn_bfs()
        .join();
    let states = checker.unique_state_count();
    let seconds = started.elapsed().as_secs_f64();
    match checker.discovery("safety") {
        Some(path) => {
            println!("{:<18} found after {states} states, {seconds:.1} s", scenario.name);
            print_path(scenario, path.clone().into_states().last(), &path);
            true
        }
        None => {
            println!("{:<18} NOT FOUND in {states} states, {seconds:.1} s", scenario.name);
            false
        }
    }
}

fn print_path(
    scenario: &Scenario,
    last: Option<&cluster::State>,
    path: &stateright::Path<cluster::State, cluster::Action>,
) {
    let what = last.and_then(|state| state.observer.broken.as_deref()).unwrap_or("a rule was broken");
    println!("  {}: {what}", scenario.name);
    for action in path.clone().into_actions() {
        println!("    {action:?}");
    }
}
