//! What the working directories and the memory of the nodes do over a long time, and what snapshots cost.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Options;
use super::generator::{Keys, Kind, Outcome, Plan, run};
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

    // More writes until every node has taken a snapshot of all the keys.
    let (took, quiet, busy) = snapshot_under_load(options, &mut cluster, leader);
    table.row(vec!["a snapshot on the leader, under load".into(), seconds(took)]);
    table.row(vec!["longest stale read in that time".into(), microseconds(busy)]);
    table.row(vec!["longest stale read without a snapshot".into(), microseconds(quiet)]);
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

/// Overwrites keys until the leader has begun and ended a snapshot. Returns how long that took, and the longest stale
/// read of the leader before and meanwhile.
fn snapshot_under_load(
    options: &Options,
    cluster: &mut Cluster,
    leader: usize,
) -> (Duration, Duration, Duration) {
    let address = cluster.client_address(leader);
    let node_directory = cluster.node(leader).working_directory().to_owned();
    let plan = Plan { keys: Keys::Shared(options.keys), duration: SLICE, ..fill_plan(options, cluster) };
    let stale = Plan {
        nodes: vec![address],
        connections: 1,
        kind: Kind::StaleRead,
        keys: Keys::Shared(options.keys),
        value_bytes: 0,
        duration: Duration::from_millis(200),
    };
    let look = |plan: &Plan| run(plan).unwrap_or_else(|error| panic!("load generator: {error}"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                run(&plan).unwrap_or_else(|error| panic!("load generator: {error}"));
            }
        });
        let (mut quiet, mut busy) = (Duration::ZERO, Duration::ZERO);
        let mut begun = None;
        let took = loop {
            let before = snapshots(&node_directory);
            let longest = look(&stale).percentile(1.0);
            let is_writing = before.is_writing && snapshots(&node_directory).is_writing;
            match (&begun, is_writing) {
                (None, true) => begun = Some((Instant::now(), before.newest)),
                (None, false) => quiet = quiet.max(longest),
                (Some(_), true) => busy = busy.max(longest),
                (Some((start, newest)), false) => {
                    if snapshots(&node_directory).newest != *newest {
                        break start.elapsed();
                    }
                }
            }
        };
        done.store(true, Ordering::SeqCst);
        load.join().expect("the load does not fail");
        (took, quiet, busy)
    })
}

/// The snapshots in a working directory, by the names of the files.
struct Snapshots {
    newest: String,
    is_writing: bool,
}

fn snapshots(directory: &Path) -> Snapshots {
    let mut found = Snapshots { newest: String::new(), is_writing: false };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("snap-") {
            found.newest = found.newest.max(name);
        } else if name == "snapshot.tmp" {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            // A file that is only kept for the next snapshot is not being written.
            found.is_writing = modified
                .ok()
                .and_then(|at| at.elapsed().ok())
                .is_some_and(|age| age < Duration::from_millis(300));
        }
    }
    found
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

/// See the program's help: bytes that the kernel counts as written, per write.
pub fn amplification(options: &Options) {
    let mut cluster = cluster(options, "");
    let leader = cluster.leader();
    let title =
        "Bytes that a node has written (/proc/PID/io), per write of a value of 100 bytes, one per second";
    let mut table = Table::new(title, &["node", "bytes per write"]);
    let mut client = cluster.client(leader);
    // What a start leaves to do is over by then.
    std::thread::sleep(Duration::from_secs(3));
    let before: Vec<Usage> = (0..3).map(|position| Usage::of(cluster.node(position).pid())).collect();
    for number in 0..options.idle_seconds {
        let answer = client.request("PUT", &format!("/v1/storage/key/slow/{number}"), &[], &[b'v'; 100]);
        assert_eq!(answer.map(|answer| answer.status).ok(), Some(200));
        std::thread::sleep(Duration::from_secs(1));
    }
    for (position, before) in before.into_iter().enumerate() {
        let used = Usage::of(cluster.node(position).pid()) - before;
        let role = if position == leader { "leader" } else { "follower" };
        let each = used.dirtied_bytes / options.idle_seconds;
        table.row(vec![format!("host{} ({role})", position + 1), each.to_string()]);
    }
    table.print();
}
