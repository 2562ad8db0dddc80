//! The parts of the report.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Options;
use super::disk::sync_times;
use super::generator::{Keys, Kind, Outcome, Plan, percentile, run};
use super::support::cluster::{Cluster, ClusterOptions};
use super::support::failover::{Farewell, describe, run_round};
use super::support::node_process::NodeProcess;
use super::table::{Table, mebibytes, microseconds, milliseconds};
use super::usage::{Usage, device_bytes, peer_segments};

/// Warms connections, page cache and the processor up before the clock starts.
const WARM_UP: Duration = Duration::from_secs(1);
/// The latency is measured in so many turns, each with its own look at the disk.
const LATENCY_SLICES: u32 = 5;
/// Looks at the disk before each measurement of a turn.
const DISK_SYNCS_PER_SLICE: usize = 200;

fn cluster(options: &Options) -> Cluster {
    let mut cluster_options = ClusterOptions::new(3);
    cluster_options.parent_directory.clone_from(&options.directory);
    Cluster::start_with(&cluster_options)
}

fn usage(cluster: &mut Cluster) -> Vec<Usage> {
    (0..cluster.len()).map(|position| Usage::of(cluster.node(position).pid())).collect()
}

/// What a run has cost.
struct Cost {
    nodes: Vec<Usage>,
    /// Written to the device under the data, `None` when that cannot be told.
    device_bytes: Option<u64>,
}

/// Runs a plan and returns what came out, and what it has cost.
fn measure(cluster: &mut Cluster, plan: &Plan) -> (Outcome, Cost) {
    let warm_up = Plan { duration: WARM_UP, ..plan.clone() };
    run(&warm_up).unwrap_or_else(|error| panic!("load generator: {error}"));
    let (before, device_before) = (usage(cluster), device_bytes(cluster.directory()));
    let outcome = run(plan).unwrap_or_else(|error| panic!("load generator: {error}"));
    let (after, device_after) = (usage(cluster), device_bytes(cluster.directory()));
    assert!(outcome.refused.is_empty(), "not every answer was a 200: {:?}", outcome.refused);
    let cost = Cost {
        nodes: after.into_iter().zip(before).map(|(after, before)| after - before).collect(),
        device_bytes: device_before.zip(device_after).map(|(before, after)| after - before),
    };
    (outcome, cost)
}

/// See the program's help.
pub fn throughput(options: &Options) {
    let mut cluster = cluster(options);
    let leader = cluster.leader();
    let everywhere: Vec<SocketAddr> = (0..3).map(|position| cluster.client_address(position)).collect();
    let one_follower = cluster.others(leader)[0];
    let targets = [
        ("all nodes", everywhere),
        ("leader only", vec![cluster.client_address(leader)]),
        ("one follower", vec![cluster.client_address(one_follower)]),
    ];
    let title = format!(
        "{} keep-alive connections, {}-byte values, {} s each; processor and disk of all three nodes together \
         (device: everything that was written to the disk, by anybody)",
        options.connections, options.value_bytes, options.seconds
    );
    let columns = [
        "",
        "per second",
        "p50",
        "p99",
        "max",
        "CPU/request",
        "CPU busy",
        "device bytes/request",
        "dirtied bytes/request",
        "RSS per node",
    ];
    let mut table = Table::new(&title, &columns);
    for (name, nodes) in targets {
        for kind in [Kind::Write, Kind::Read] {
            let plan = Plan {
                nodes: nodes.clone(),
                connections: options.connections,
                kind,
                keys: Keys::Own,
                value_bytes: options.value_bytes,
                duration: Duration::from_secs(options.seconds),
            };
            let (outcome, cost) = measure(&mut cluster, &plan);
            let what = if kind == Kind::Write { "writes" } else { "reads" };
            table.row(throughput_row(&format!("{what}, {name}"), &outcome, &cost));
        }
    }
    table.print();
}

fn throughput_row(name: &str, outcome: &Outcome, cost: &Cost) -> Vec<String> {
    let requests = u32::try_from(outcome.latencies.len()).expect("fewer than four billion").max(1);
    let processor: Duration = cost.nodes.iter().map(|one| one.processor).sum();
    let dirtied: u64 = cost.nodes.iter().map(|one| one.dirtied_bytes).sum();
    let memory: Vec<String> = cost.nodes.iter().map(|one| mebibytes(one.memory_bytes)).collect();
    let device =
        cost.device_bytes.map_or("unknown".to_owned(), |bytes| (bytes / u64::from(requests)).to_string());
    vec![
        name.to_owned(),
        format!("{:.0}", outcome.rate()),
        microseconds(outcome.percentile(0.5)),
        microseconds(outcome.percentile(0.99)),
        microseconds(outcome.percentile(1.0)),
        microseconds(processor / requests),
        format!("{:.0} %", 100.0 * processor.as_secs_f64() / outcome.elapsed.as_secs_f64()),
        device,
        (dirtied / u64::from(requests)).to_string(),
        memory.join(" "),
    ]
}

/// See the program's help. The disk is asked in turns with the nodes, because its speed changes with what else the
/// machine does.
pub fn latency(options: &Options) {
    let mut cluster = cluster(options);
    let leader = cluster.leader();
    let follower = cluster.others(leader)[0];
    let directory = cluster.directory().to_owned();
    let mut disk = Vec::new();
    let mut rows = [
        ("write through the leader", leader, Kind::Write, Vec::new()),
        ("read through the leader", leader, Kind::Read, Vec::new()),
        ("write through a follower", follower, Kind::Write, Vec::new()),
        ("read through a follower", follower, Kind::Read, Vec::new()),
    ];
    for _ in 0..LATENCY_SLICES {
        for (_, position, kind, latencies) in &mut rows {
            let times = sync_times(&directory, DISK_SYNCS_PER_SLICE);
            disk.extend(times.unwrap_or_else(|error| panic!("{}: {error}", directory.display())));
            let plan = Plan {
                nodes: vec![cluster.client_address(*position)],
                connections: 1,
                kind: *kind,
                keys: Keys::Own,
                value_bytes: options.value_bytes,
                duration: Duration::from_secs(options.seconds) / LATENCY_SLICES,
            };
            let outcome = run(&plan).unwrap_or_else(|error| panic!("load generator: {error}"));
            assert!(outcome.refused.is_empty(), "not every answer was a 200: {:?}", outcome.refused);
            latencies.extend(outcome.latencies);
        }
    }
    let title = format!(
        "One connection, {}-byte values, one request after the other, {} s each",
        options.value_bytes, options.seconds
    );
    let mut table = Table::new(&title, &["", "p10", "p50", "p99", "max", "p50 / disk p50"]);
    disk.sort_unstable();
    let disk_p50 = percentile(&disk, 0.5);
    let mut row = |name: &str, latencies: &mut Vec<Duration>| {
        latencies.sort_unstable();
        let p50 = percentile(latencies, 0.5);
        table.row(vec![
            name.to_owned(),
            microseconds(percentile(latencies, 0.1)),
            microseconds(p50),
            microseconds(percentile(latencies, 0.99)),
            microseconds(percentile(latencies, 1.0)),
            format!("{:.2}", p50.as_secs_f64() / disk_p50.as_secs_f64()),
        ]);
    };
    row("disk: write 4 KiB, fdatasync", &mut disk.clone());
    for (name, _, _, mut latencies) in rows {
        row(name, &mut latencies);
    }
    table.print();
}

/// See the program's help.
pub fn idle(options: &Options) {
    let mut cluster = cluster(options);
    let ip = cluster.ip();
    let ports: Vec<u16> = (0..3).map(|position| cluster.peer_address(position).port()).collect();
    // Whatever the start has left to do is over by then.
    std::thread::sleep(Duration::from_secs(2));
    let (before, segments_before) = (usage(&mut cluster), peer_segments(ip, &ports));
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(options.idle_seconds));
    let seconds = start.elapsed().as_secs_f64();
    let (after, segments_after) = (usage(&mut cluster), peer_segments(ip, &ports));

    let title = format!("Idle for {seconds:.0} s");
    let mut table = Table::new(&title, &["", "CPU", "dirtied bytes", "RSS"]);
    let leader = cluster.leader();
    for (position, (after, before)) in after.into_iter().zip(before).enumerate() {
        let used = after - before;
        let role = if position == leader { "leader" } else { "follower" };
        table.row(vec![
            format!("host{} ({role})", position + 1),
            format!("{:.3} %", 100.0 * used.processor.as_secs_f64() / seconds),
            used.dirtied_bytes.to_string(),
            mebibytes(used.memory_bytes),
        ]);
    }
    table.print();
    match segments_before.zip(segments_after) {
        Some((before, after)) => {
            let rate = after.saturating_sub(before) as f64 / seconds;
            println!(
                "  messages between the nodes, all together: {rate:.1} per second (TCP segments with data)"
            );
        }
        None => {
            println!("  messages between the nodes: not counted, because `ss` (iproute2) is not installed");
        }
    }
}

/// See the program's help.
pub fn failover(options: &Options) {
    let mut cluster = cluster(options);
    let title = "Leader gone while clients write through every node, default settings: the longest pause that a client \
                 of another node saw, and its errors";
    let mut table = Table::new(title, &["", "errors", "pauses"]);
    for (name, farewell) in [("kill -9", Farewell::Kill), ("SIGTERM", Farewell::Terminate)] {
        let mut gaps = Vec::new();
        let mut errors = 0;
        for number in 0..options.rounds {
            let round = run_round(&mut cluster, farewell, &format!("{farewell:?}/{number}"));
            errors += round.bystander_mishaps().count();
            gaps.push(round.longest_gap());
        }
        if gaps.is_empty() {
            continue;
        }
        let each: Vec<String> = gaps.iter().map(|gap| milliseconds(*gap)).collect();
        table.row(vec![name.to_owned(), errors.to_string(), describe(gaps)]);
        println!("\n{name}, round by round: {}", each.join(", "));
    }
    table.print();
}

/// See the program's help.
pub fn size(options: &Options) {
    let program = NodeProcess::program();
    let bytes = std::fs::metadata(program).map_or(0, |metadata| metadata.len());
    let mut cluster = cluster(options);
    std::thread::sleep(Duration::from_secs(2));
    let memory: Vec<String> = usage(&mut cluster).iter().map(|used| mebibytes(used.memory_bytes)).collect();
    let mut table = Table::new("Size", &["of", "is"]);
    table.row(vec!["program".to_owned(), format!("{bytes} bytes ({})", mebibytes(bytes))]);
    table.row(vec!["memory of an idle node (RSS)".to_owned(), memory.join(" ")]);
    table.print();
}
