//! The parts of the report.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Options;
use super::disk::sync_times;
use super::generator::{Kind, Outcome, Plan, percentile, run};
use super::support::cluster::{Cluster, ClusterOptions};
use super::support::failover::{Farewell, describe, run_round};
use super::support::node_process::NodeProcess;
use super::table::{Table, mebibytes, microseconds, milliseconds};
use super::usage::{Usage, peer_segments};

/// Warms connections, page cache and the processor up before the clock starts.
const WARM_UP: Duration = Duration::from_secs(1);

fn cluster(options: &Options) -> Cluster {
    let mut cluster_options = ClusterOptions::new(3);
    cluster_options.parent_directory.clone_from(&options.directory);
    Cluster::start_with(&cluster_options)
}

fn usage(cluster: &mut Cluster) -> Vec<Usage> {
    (0..cluster.len()).map(|position| Usage::of(cluster.node(position).pid())).collect()
}

/// Runs a plan and returns what came out, and what every node used for it.
fn measure(cluster: &mut Cluster, plan: &Plan) -> (Outcome, Vec<Usage>) {
    let warm_up = Plan { duration: WARM_UP, ..plan.clone() };
    run(&warm_up).unwrap_or_else(|error| panic!("load generator: {error}"));
    let before = usage(cluster);
    let outcome = run(plan).unwrap_or_else(|error| panic!("load generator: {error}"));
    let after = usage(cluster);
    assert!(outcome.refused.is_empty(), "not every answer was a 200: {:?}", outcome.refused);
    (outcome, after.into_iter().zip(before).map(|(after, before)| after - before).collect())
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
        "{} keep-alive connections, {}-byte values, {} s each; processor and disk of all three nodes together",
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
        "disk bytes/request",
        "RSS per node",
    ];
    let mut table = Table::new(&title, &columns);
    for (name, nodes) in targets {
        for kind in [Kind::Write, Kind::Read] {
            let plan = Plan {
                nodes: nodes.clone(),
                connections: options.connections,
                kind,
                value_bytes: options.value_bytes,
                duration: Duration::from_secs(options.seconds),
            };
            let (outcome, used) = measure(&mut cluster, &plan);
            let what = if kind == Kind::Write { "writes" } else { "reads" };
            table.row(throughput_row(&format!("{what}, {name}"), &outcome, &used));
        }
    }
    table.print();
}

fn throughput_row(name: &str, outcome: &Outcome, used: &[Usage]) -> Vec<String> {
    let requests = u32::try_from(outcome.latencies.len()).expect("fewer than four billion").max(1);
    let processor: Duration = used.iter().map(|one| one.processor).sum();
    let disk: u64 = used.iter().map(|one| one.disk_bytes).sum();
    let memory: Vec<String> = used.iter().map(|one| mebibytes(one.memory_bytes)).collect();
    vec![
        name.to_owned(),
        format!("{:.0}", outcome.rate()),
        microseconds(outcome.percentile(0.5)),
        microseconds(outcome.percentile(0.99)),
        microseconds(outcome.percentile(1.0)),
        microseconds(processor / requests),
        format!("{:.0} %", 100.0 * processor.as_secs_f64() / outcome.elapsed.as_secs_f64()),
        format!("{}", disk / u64::from(requests)),
        memory.join(" "),
    ]
}

/// See the program's help.
pub fn latency(options: &Options) {
    let mut cluster = cluster(options);
    let leader = cluster.leader();
    let follower = cluster.others(leader)[0];
    let directory = cluster.directory().to_owned();
    let disk_times =
        || sync_times(&directory, 2_000).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let before = disk_times();
    let title = format!("One connection, one request after the other, {} s each", options.seconds);
    let mut table = Table::new(&title, &["", "p50", "p99", "max", "p50 / disk p50"]);
    let disk = percentile(&before, 0.5);
    let mut row = |name: &str, sorted: &[Duration]| {
        let p50 = percentile(sorted, 0.5);
        let ratio = p50.as_secs_f64() / disk.as_secs_f64();
        table.row(vec![
            name.to_owned(),
            microseconds(p50),
            microseconds(percentile(sorted, 0.99)),
            microseconds(percentile(sorted, 1.0)),
            format!("{ratio:.2}"),
        ]);
    };
    row("disk: write 4 KiB, fdatasync (before)", &before);
    for (name, position) in [("leader", leader), ("follower", follower)] {
        for (what, kind) in [("write", Kind::Write), ("read", Kind::Read)] {
            let plan = Plan {
                nodes: vec![cluster.client_address(position)],
                connections: 1,
                kind,
                value_bytes: options.value_bytes,
                duration: Duration::from_secs(options.seconds),
            };
            let (outcome, _) = measure(&mut cluster, &plan);
            row(&format!("{what} through the {name}"), &outcome.latencies);
        }
    }
    row("disk: write 4 KiB, fdatasync (after)", &disk_times());
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
    let mut table = Table::new(&title, &["", "CPU", "disk bytes written", "RSS"]);
    let leader = cluster.leader();
    for (position, (after, before)) in after.into_iter().zip(before).enumerate() {
        let used = after - before;
        let role = if position == leader { "leader" } else { "follower" };
        table.row(vec![
            format!("host{} ({role})", position + 1),
            format!("{:.3} %", 100.0 * used.processor.as_secs_f64() / seconds),
            used.disk_bytes.to_string(),
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
    let mut table = Table::new("Size", &["", ""]);
    table.row(vec!["program".to_owned(), format!("{bytes} bytes ({})", mebibytes(bytes))]);
    table.row(vec!["memory of an idle node (RSS)".to_owned(), memory.join(" ")]);
    table.print();
}
