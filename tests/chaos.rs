//! Chaos: real processes that are killed, paused and stopped, and whose links fail in every way, in rounds drawn from a
//! seed, while clients use all nodes. After every round the cluster must be whole again in bounded time, no
//! acknowledged write may be lost or done twice, what the clients were told must be linearizable, and everybody who follows
//! keys must have learned of every write exactly once, in order.
//!
//! The test here is short. `scripts/chaos.sh` runs the same for as long as one likes.

#![allow(unreachable_pub, reason = "modules of one program")]

mod support;

#[path = "chaos/fault.rs"]
mod fault;
#[path = "chaos/feed.rs"]
mod feed;
#[path = "chaos/mixer.rs"]
mod mixer;
#[path = "chaos/options.rs"]
mod options;
#[path = "chaos/place.rs"]
mod place;
#[path = "chaos/promises.rs"]
mod promises;
#[path = "chaos/run.rs"]
mod run;
#[path = "chaos/stream.rs"]
mod stream;
#[path = "chaos/tally.rs"]
mod tally;
#[path = "chaos/watcher.rs"]
mod watcher;
#[path = "chaos/write.rs"]
mod write;

use std::path::PathBuf;
use std::time::Duration;

use fault::FaultKind;
use options::Options;
use support::cluster::report;

// C8, E3, E5, F1, F30, J3, K1, K2, K3, K4, K5, K6, K7, K8
#[test]
fn short_chaos_loses_and_doubles_nothing() {
    let options = Options {
        nodes: 3,
        duration: Duration::from_secs(15),
        seed: 1,
        faults: FaultKind::ALL.to_vec(),
        wait_time_ms: 500,
        directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    let total = run::run(&options);
    report(&format!("chaos: {total}"));
    assert!(total.kills > 0 && total.other_faults > 0, "there were no faults: {total}");
    assert!(total.operations > 500, "a history in which hardly anything happens proves nothing: {total}");
    assert!(total.events > 5_000 && total.dumps > 8, "nobody has followed keys: {total}");
    assert_eq!(total.violations, 0);
}

/// What `scripts/chaos.sh` runs.
#[test]
#[ignore = "takes as long as CHAOS_MINUTES says; scripts/chaos.sh runs it"]
fn long_chaos_loses_and_doubles_nothing() {
    let options = Options::from_environment();
    report(&format!("chaos: {options}"));
    let total = run::run(&options);
    report(&format!("total: {total}"));
    assert_eq!(total.violations, 0);
}
