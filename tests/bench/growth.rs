//! What the working directories and the memory of the nodes do over a long time, and what snapshots cost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Options;
use super::generator::{Keys, Kind, Outcome, Plan, run};
use super::report::{is_making_snapshot, longest_turn, page, wait_while_making};
use super::support::cluster::{Cluster, ClusterOptions};
use super::table::{Table, mebibytes, microseconds, seconds};
use super::usage::{Usage, directory_bytes};

/// The load runs in slices, with a look at the nodes between two of them.
const SLICE: Duration = Duration::from_secs(2);
/// Rows of the series that is printed, however long it is.
const SERIES_ROWS: usize = 12;
/// With the log growing as long as this, no snapshot is ever taken here.
const NO_SNAPSHOTS: &str = "[storage]\nsnapshot_log_size = \"64GiB\"\n";

/// A look at all nodes between two slices.
struct Sample {
    requests: usize,
    /// The largest working directory.
    directory_bytes: u64,
    /// The largest resident memory, of which the mapped files are not a part.
    memory_bytes: u64,
}

/// What a number of overwrites did.
struct Run {
    outcome: Outcome,
    series: Vec<Sample>,
}

/// See the program's help: the same load with snapshots and without.
pub fn growth(options: &Options) {
    let title = format!(
        "{} overwrites of {} keys with {} bytes over {} connections; the largest of three nodes each time",
        options.overwrites, options.overwritten_keys, options.value_bytes, options.connections
    );
    let columns =
        ["", "per second", "p50", "p99", "max", "largest directory", "memory at half", "at the end"];
    let mut table = Table::new(&title, &columns);
    let mut series = Table::new("Over time, with snapshots", &["overwrites", "directory", "memory"]);
    // Without snapshots the directory grows all the time, so that run is a tenth of the other one.
    for (name, settings, requests) in
        [("with snapshots", "", options.overwrites), ("without", NO_SNAPSHOTS, options.overwrites / 10)]
    {
        let run = overwrite(options, settings, requests);
        let memory = |position: usize| mebibytes(run.series[position].memory_bytes);
        let largest = run.series.iter().map(|sample| sample.directory_bytes).max().unwrap_or_default();
        table.row(vec![
            name.to_owned(),
            format!("{:.0}", run.outcome.rate()),
            microseconds(run.outcome.percentile(0.5)),
            microseconds(run.outcome.percentile(0.99)),
            microseconds(run.outcome.percentile(1.0)),
            mebibytes(largest),
            memory(run.series.len() / 2),
            memory(run.series.len() - 1),
        ]);
        if settings.is_empty() {
            let step = run.series.len().div_ceil(SERIES_ROWS);
            for sample in run.series.iter().step_by(step) {
                series.row(vec![
                    sample.requests.to_string(),
                    mebibytes(sample.directory_bytes),
                    mebibytes(sample.memory_bytes),
                ]);
            }
        }
    }
    table.print();
    series.print();
}

fn overwrite(options: &Options, settings: &str, requests: usize) -> Run {
    let mut cluster = cluster(options, settings);
    let plan = Plan {
        nodes: (0..3).map(|position| cluster.client_address(position)).collect(),
        connections: options.connections,
        kind: Kind::Write,
        keys: Keys::Shared(options.overwritten_keys),
        value_bytes: options.value_bytes,
        duration: SLICE,
    };
    let mut total = Outcome::default();
    let mut series = Vec::new();
    while total.latencies.len() < requests {
        let outcome = run(&plan).unwrap_or_else(|error| panic!("load generator: {error}"));
        assert!(outcome.refused.is_empty(), "not every answer was a 200: {:?}", outcome.refused);
        total.elapsed += outcome.elapsed;
        total.latencies.extend(outcome.latencies);
        series.push(sample(&mut cluster, total.latencies.len()));
    }
    total.latencies.sort_unstable();
    Run { outcome: total, series }
}

fn sample(cluster: &mut Cluster, requests: usize) -> Sample {
    let positions = 0..cluster.len();
    let directories =
        positions.clone().map(|position| directory_bytes(cluster.node(position).working_directory()));
    let directory_bytes = directories.max().unwrap_or_default();
    let memory = positions.map(|position| Usage::of(cluster.node(position).pid()).anonymous_bytes);
    Sample { requests, directory_bytes, memory_bytes: memory.max().unwrap_or_default() }
}

fn cluster(options: &Options, settings: &str) -> Cluster {
    let mut cluster_options = ClusterOptions::new(3).settings(settings);
    cluster_options.parent_directory.clone_from(&options.directory);
    Cluster::start_with(&cluster_options)
}

/// See the program's help: many keys, a snapshot of all of them, a restart from it, and a follower that lost its disk.
pub fn keys(options: &Options) {
    let mut cluster = cluster(options, "");
    let leader = cluster.leader();
    let title = format!("{} keys with {} bytes", options.keys, options.key_value_bytes);
    let mut table = Table::new(&title, &["of", "is"]);

    let plan = fill_plan(options, &cluster);
    let outcome = run(&plan).unwrap_or_else(|error| panic!("load generator: {error}"));
    assert!(outcome.refused.is_empty(), "not every answer was a 200: {:?}", outcome.refused);
    table.row(vec!["writing them".into(), seconds(outcome.elapsed)]);

    let idle = snapshot_while_idle(options, &cluster, leader);
    let busy = snapshot_under_load(options, &cluster, leader);
    for (name, run) in [("idle", &idle), ("under load", &busy)] {
        table.row(vec![format!("a snapshot on the leader, {name}"), seconds(run.took)]);
        table.row(vec![format!("longest turn in that time, {name}"), run.making.clone()]);
        table.row(vec![format!("longest turn without a snapshot, {name}"), run.plain.clone()]);
    }
    table.row(vec![
        "longest stale read during the snapshot under load".into(),
        microseconds(busy.longest_read),
    ]);
    let memory = Usage::of(cluster.node(leader).pid());
    table.row(vec!["memory of the leader, without mapped files".into(), mebibytes(memory.anonymous_bytes)]);
    table.row(vec!["directory of the leader".into(), mebibytes(directory(&mut cluster, leader))]);

    let follower = cluster.others(leader)[0];
    cluster.node(follower).kill();
    let start = Instant::now();
    cluster.start_node(follower);
    cluster.wait_ready(follower);
    table.row(vec!["restart of a follower until it is ready".into(), seconds(start.elapsed())]);
    table.print();
}

/// One write of every key.
fn fill_plan(options: &Options, cluster: &Cluster) -> Plan {
    Plan {
        nodes: (0..3).map(|position| cluster.client_address(position)).collect(),
        connections: options.connections,
        kind: Kind::Write,
        keys: Keys::Each(options.keys),
        value_bytes: options.key_value_bytes,
        // Ends when every key was written.
        duration: Duration::MAX,
    }
}

/// A snapshot of the leader, watched.
struct SnapshotRun {
    took: Duration,
    /// The longest turn of the leader while it made the snapshot.
    making: String,
    /// The longest turn with the same load and no snapshot.
    plain: String,
    longest_read: Duration,
}

/// Overwrites keys until the leader has begun a snapshot, and then leaves it alone until the snapshot is there.
fn snapshot_while_idle(options: &Options, cluster: &Cluster, leader: usize) -> SnapshotRun {
    let address = cluster.client_address(leader);
    let duration = Duration::from_millis(50);
    let plan = Plan { keys: Keys::Shared(options.keys), duration, ..fill_plan(options, cluster) };
    wait_while_making(address);
    while !is_making_snapshot(&page(address)) {
        run(&plan).unwrap_or_else(|error| panic!("load generator: {error}"));
    }
    let before = page(address);
    assert!(is_making_snapshot(&before), "the snapshot was ready before the load had ended: take more keys");
    let start = Instant::now();
    let after = wait_while_making(address);
    let took = start.elapsed();
    std::thread::sleep(Duration::from_secs(options.seconds));
    let making = longest_turn(&before, &after, "making");
    let plain = longest_turn(&after, &page(address), "none");
    SnapshotRun { took, making, plain, longest_read: Duration::ZERO }
}

/// Overwrites keys until the leader has begun and ended a snapshot, and reads from it all the time.
fn snapshot_under_load(options: &Options, cluster: &Cluster, leader: usize) -> SnapshotRun {
    let address = cluster.client_address(leader);
    let plan = Plan { keys: Keys::Shared(options.keys), duration: SLICE, ..fill_plan(options, cluster) };
    let stale = Plan {
        nodes: vec![address],
        connections: 1,
        kind: Kind::StaleRead,
        keys: Keys::Shared(options.keys),
        value_bytes: 0,
        duration: Duration::from_millis(100),
    };
    let look = |plan: &Plan| run(plan).unwrap_or_else(|error| panic!("load generator: {error}"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                look(&plan);
            }
        });
        let before = wait_while_making(address);
        while !is_making_snapshot(&page(address)) {
            look(&stale);
        }
        let start = Instant::now();
        let mut longest_read = Duration::ZERO;
        let after = loop {
            longest_read = longest_read.max(look(&stale).percentile(1.0));
            let page = page(address);
            if !is_making_snapshot(&page) {
                break page;
            }
        };
        let took = start.elapsed();
        done.store(true, Ordering::SeqCst);
        load.join().expect("the load does not fail");
        let longest = |snapshot| longest_turn(&before, &after, snapshot);
        SnapshotRun { took, making: longest("making"), plain: longest("none"), longest_read }
    })
}

fn directory(cluster: &mut Cluster, position: usize) -> u64 {
    directory_bytes(cluster.node(position).working_directory())
}

/// See the program's help: a follower that comes back with an empty disk while others write.
pub fn rejoin(options: &Options) {
    let mut cluster = cluster(options, "");
    let leader = cluster.leader();
    let fill = fill_plan(options, &cluster);
    run(&fill).unwrap_or_else(|error| panic!("load generator: {error}"));
    let follower = cluster.others(leader)[0];
    let other = cluster.others(leader)[1];
    let plan = Plan {
        nodes: vec![cluster.client_address(leader), cluster.client_address(other)],
        keys: Keys::Shared(options.keys),
        duration: Duration::from_secs(1),
        ..fill
    };
    let slice = |plan: &Plan| run(plan).unwrap_or_else(|error| panic!("load generator: {error}"));
    let _warm_up = slice(&plan);
    let normal = slice(&Plan { duration: Duration::from_secs(options.seconds), ..plan.clone() });
    cluster.node(follower).kill();
    let two_nodes = slice(&Plan { duration: Duration::from_secs(options.seconds), ..plan.clone() });
    std::fs::remove_dir_all(cluster.node(follower).working_directory()).expect("the directory is there");
    let start = Instant::now();
    cluster.start_node(follower);
    let mut meanwhile = Outcome::default();
    loop {
        let outcome = slice(&plan);
        meanwhile.elapsed += outcome.elapsed;
        meanwhile.latencies.extend(outcome.latencies);
        if cluster.is_ready(follower) {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(300),
            "the node does not come back: {}",
            cluster.node(follower).log_tail()
        );
    }
    let back = start.elapsed();
    let title = format!(
        "A follower loses its disk with {} keys of {} bytes in the cluster, under full write load through the others",
        options.keys, options.key_value_bytes
    );
    let mut table = Table::new(&title, &["", "writes per second"]);
    table.row(vec!["three nodes".into(), format!("{:.0}", normal.rate())]);
    table.row(vec!["two nodes".into(), format!("{:.0}", two_nodes.rate())]);
    table.row(vec!["while the third is restored".into(), format!("{:.0}", meanwhile.rate())]);
    table.row(vec!["of three nodes".into(), format!("{:.0} %", 100.0 * meanwhile.rate() / normal.rate())]);
    table.row(vec!["back as a voter after".into(), seconds(back)]);
    table.print();
}
