//! Clients that follow keys: what very many of them cost when nothing happens, and how soon they learn what happens.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Options;
use super::generator::{Keys, Kind, Outcome, Plan, run};
use super::support::cluster::{Cluster, ClusterOptions};
use super::support::http_client::HttpClient;
use super::swarm::{Swarm, connections_max, value_of};
use super::table::{Table, mebibytes, microseconds};
use super::usage::Usage;

/// What a start leaves to do is over by then.
const REST: Duration = Duration::from_secs(3);
/// Writes per second that all watchers of the second part see.
const RATES: [u32; 3] = [100, 300, 1_000];
/// Connections that write them.
const WRITERS: u32 = 32;
/// Until the last events have come.
const LAST_EVENTS: Duration = Duration::from_secs(3);

/// See the program's help.
pub fn watchers(options: &Options) {
    let possible = connections_max();
    let count = options.watchers.min(possible);
    if count < options.watchers {
        println!(
            "\nOnly {count} of {} watchers: this process may not open more files. Raise the hard limit (ulimit -Hn).",
            options.watchers
        );
    }
    idle(options, count);
    fan_out(options, options.followers.min(possible));
}

fn node(options: &Options, watchers: usize) -> Cluster {
    let settings = format!("[limits]\nclient_connections = {}\n", watchers + options.connections + 100);
    let mut cluster_options = ClusterOptions::new(1).settings(&settings);
    cluster_options.parent_directory.clone_from(&options.directory);
    let cluster = Cluster::start_with(&cluster_options);
    std::thread::sleep(REST);
    cluster
}

fn open(address: SocketAddr, targets: &[String], start: Instant) -> Swarm {
    Swarm::open(address, targets, start).unwrap_or_else(|error| panic!("watchers: {error}"))
}

/// Watchers of keys that nobody writes: half of them of a key, half of a prefix.
fn idle(options: &Options, count: usize) {
    let mut cluster = node(options, count);
    let address = cluster.client_address(0);
    let pid = cluster.node(0).pid();
    let alone = Usage::of(pid);
    std::thread::sleep(Duration::from_secs(options.idle_seconds));
    let alone = Usage::of(pid) - alone;

    let target = |number: usize| match number % 2 {
        0 => format!("/v1/storage/key/idle/{number}?watch"),
        _ => format!("/v1/storage/keys?prefix=idle/{number}/&watch"),
    };
    let targets: Vec<String> = (0..count).map(target).collect();
    let began = Instant::now();
    let mut swarm = open(address, &targets, began);
    let opened = began.elapsed();
    swarm.read_for(REST).expect("streams can be read");
    swarm.clear();
    let before = Usage::of(pid);
    swarm.read_for(Duration::from_secs(options.idle_seconds)).expect("streams can be read");
    let used = Usage::of(pid) - before;
    assert_eq!(swarm.closed(), 0, "streams have ended");
    let comments = swarm.comments;

    let with = write(options, address);
    drop(swarm);
    std::thread::sleep(REST);
    let without = write(options, address);
    let seconds = options.idle_seconds as f64;
    let cpu = |usage: Usage| format!("{:.3} %", 100.0 * usage.processor.as_secs_f64() / seconds);
    let each = used.anonymous_bytes.saturating_sub(alone.anonymous_bytes) / count.max(1) as u64;
    let title =
        format!("One node and {count} watchers of keys that nobody writes, {seconds} s without requests");
    let mut table = Table::new(&title, &["of", "is"]);
    let mut row = |name: &str, value: String| table.row(vec![name.to_owned(), value]);
    row("opening all streams", format!("{:.2} s", opened.as_secs_f64()));
    row("memory without mapped files, nobody watches", mebibytes(alone.anonymous_bytes));
    row("with the watchers", mebibytes(used.anonymous_bytes));
    row("more per watcher", format!("{each} bytes"));
    row("CPU, nobody watches", cpu(alone));
    row("CPU with the watchers", cpu(used));
    row("comments per watcher and minute", format!("{:.1}", comments as f64 / count as f64 * 60.0 / seconds));
    table.print();
    let title = format!(
        "Writes of other keys at full speed over {} connections, {} s each",
        options.connections, options.seconds
    );
    let mut table = Table::new(&title, &["", "per second", "p50", "p99", "of it alone"]);
    for (name, outcome) in [("nobody watches".to_owned(), &without), (format!("{count} watchers"), &with)] {
        table.row(vec![
            name,
            format!("{:.0}", outcome.rate()),
            microseconds(outcome.percentile(0.5)),
            microseconds(outcome.percentile(0.99)),
            format!("{:.0} %", 100.0 * outcome.rate() / without.rate()),
        ]);
    }
    table.print();
}

fn write(options: &Options, address: SocketAddr) -> Outcome {
    let plan = Plan {
        nodes: vec![address],
        connections: options.connections,
        kind: Kind::Write,
        keys: Keys::Own,
        value_bytes: options.value_bytes,
        duration: Duration::from_secs(options.seconds),
    };
    let warm_up = Plan { duration: Duration::from_secs(1), ..plan.clone() };
    run(&warm_up).unwrap_or_else(|error| panic!("load generator: {error}"));
    let outcome = run(&plan).unwrap_or_else(|error| panic!("load generator: {error}"));
    assert!(outcome.refused.is_empty(), "not every answer was a 200: {:?}", outcome.refused);
    outcome
}

/// Watchers of the same prefix, who all see every write.
fn fan_out(options: &Options, count: usize) {
    let title = format!(
        "One node, {count} watchers who all see every write, {} s each; the time from the moment a write is sent to the \
         moment its event is read",
        options.seconds
    );
    let columns = [
        "writes/s",
        "done/s",
        "events/s",
        "p50",
        "p99",
        "worst watcher's p99",
        "max",
        "missing",
        "streams ended",
        "CPU",
        "memory more",
    ];
    let mut table = Table::new(&title, &columns);
    for rate in RATES {
        let mut cluster = node(options, count);
        let address = cluster.client_address(0);
        let pid = cluster.node(0).pid();
        let start = Instant::now();
        let targets = vec!["/v1/storage/keys?prefix=all/&watch".to_owned(); count];
        let mut swarm = open(address, &targets, start);
        swarm.clear();
        let before = Usage::of(pid);
        let (is_over, done) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for number in 0..WRITERS {
                let (is_over, done) = (&is_over, &done);
                scope.spawn(move || write_paced(address, number, rate, start, is_over, done));
            }
            swarm.read_for(Duration::from_secs(options.seconds)).expect("streams can be read");
            is_over.store(true, Ordering::SeqCst);
        });
        let used = Usage::of(pid) - before;
        swarm.read_for(LAST_EVENTS).expect("streams can be read");
        let (done, closed) = (done.into_inner(), swarm.closed());
        let latencies = swarm.latencies();
        let per = |count: u64| format!("{:.0}", count as f64 / options.seconds as f64);
        let worst = latencies.iter().map(|own| part(own, 0.99)).max().unwrap_or_default();
        let mut all: Vec<u32> = latencies.concat();
        all.sort_unstable();
        table.row(vec![
            rate.to_string(),
            per(done),
            per(all.len() as u64),
            microseconds(micros(part(&all, 0.5))),
            microseconds(micros(part(&all, 0.99))),
            microseconds(micros(worst)),
            microseconds(micros(part(&all, 1.0))),
            (done * count as u64).saturating_sub(all.len() as u64).to_string(),
            closed.to_string(),
            format!("{:.0} %", 100.0 * used.processor.as_secs_f64() / options.seconds as f64),
            mebibytes(used.anonymous_bytes.saturating_sub(before.anonymous_bytes)),
        ]);
    }
    table.print();
}

/// One of the connections that write so many times per second together.
fn write_paced(
    address: SocketAddr,
    number: u32,
    rate: u32,
    start: Instant,
    is_over: &AtomicBool,
    done: &AtomicU64,
) {
    let mut client = HttpClient::new(address);
    let pause = Duration::from_secs(1) * WRITERS / rate;
    let mut next = Instant::now() + pause * number / WRITERS;
    for count in 0_u32.. {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        // One that is late does not catch up: that would be a burst.
        next = (next + pause).max(Instant::now());
        let target = format!("/v1/storage/key/all/{number}/{}", count % 100);
        let answer = client.request("PUT", &target, &[], value_of(start).as_bytes());
        let answer = answer.unwrap_or_else(|failure| panic!("{target}: {failure}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        done.fetch_add(1, Ordering::SeqCst);
    }
}

fn part(sorted: &[u32], part: f64) -> u32 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
}

fn micros(count: u32) -> Duration {
    Duration::from_micros(count.into())
}
