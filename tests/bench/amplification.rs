//! How many bytes the nodes have written to the disk, compared with what they had to write.

use std::time::Duration;

use super::Options;
use super::generator::{Keys, Kind, Plan, run};
use super::report::{is_making_snapshot, page};
use super::support::cluster::{Cluster, ClusterOptions};
use super::support::metrics::Metrics;
use super::table::{Table, mebibytes};
use super::usage::{Usage, device_bytes, directory_bytes};

/// After a start or a load, a node finishes its snapshot and makes the next file of its log.
const REST: Duration = Duration::from_secs(3);

/// See the program's help.
pub fn amplification(options: &Options) {
    let mut cluster_options = ClusterOptions::new(3);
    cluster_options.parent_directory.clone_from(&options.directory);
    let mut cluster = Cluster::start_with(&cluster_options);
    single_writes(options, &mut cluster);
    under_load(options, &mut cluster);
    idle(options, &mut cluster);
}

fn usages(cluster: &mut Cluster) -> Vec<Usage> {
    (0..cluster.len()).map(|position| Usage::of(cluster.node(position).pid())).collect()
}

fn role(position: usize, leader: usize) -> String {
    let role = if position == leader { "leader" } else { "follower" };
    format!("host{} ({role})", position + 1)
}

/// Writes that come one by one: the smallest thing that a disk writes is a block.
fn single_writes(options: &Options, cluster: &mut Cluster) {
    let leader = cluster.leader();
    let title =
        "Bytes that a node has written (/proc/PID/io), per write of a value of 100 bytes, one per second";
    let mut table = Table::new(title, &["node", "bytes per write"]);
    let mut client = cluster.client(leader);
    // What a start leaves to do is over by then.
    std::thread::sleep(REST);
    let before: Vec<Usage> = usages(cluster);
    for number in 0..options.idle_seconds {
        let answer = client.request("PUT", &format!("/v1/storage/key/slow/{number}"), &[], &[b'v'; 100]);
        assert_eq!(answer.map(|answer| answer.status).ok(), Some(200));
        std::thread::sleep(Duration::from_secs(1));
    }
    for (position, before) in before.into_iter().enumerate() {
        let used = Usage::of(cluster.node(position).pid()) - before;
        let each = used.dirtied_bytes / options.idle_seconds;
        table.row(vec![role(position, leader), each.to_string()]);
    }
    table.print();
}

/// Bytes of entries and of snapshots that a node has written since its start.
fn content(page: &Metrics) -> (f64, f64) {
    (page.value("keva_log_written_bytes_total"), page.value("keva_snapshot_written_bytes_total"))
}

/// All connections write as fast as they can, over so many keys that snapshots are large.
fn under_load(options: &Options, cluster: &mut Cluster) {
    let nodes: Vec<_> = (0..3).map(|position| cluster.client_address(position)).collect();
    let plan = Plan {
        nodes: nodes.clone(),
        connections: options.connections,
        kind: Kind::Write,
        keys: Keys::Shared(options.keys),
        value_bytes: options.value_bytes,
        duration: Duration::from_secs(options.seconds),
    };
    let warm_up = Plan { duration: Duration::from_secs(2), ..plan.clone() };
    run(&warm_up).unwrap_or_else(|error| panic!("load generator: {error}"));
    let leader = cluster.leader();
    let pages_before: Vec<Metrics> = nodes.iter().map(|node| page(*node)).collect();
    let (before, device_before) = (usages(cluster), device_bytes(cluster.directory()));
    let outcome = run(&plan).unwrap_or_else(|error| panic!("load generator: {error}"));
    assert!(outcome.refused.is_empty(), "not every answer was a 200: {:?}", outcome.refused);
    let (after, device_after) = (usages(cluster), device_bytes(cluster.directory()));
    let title = format!(
        "Bytes that a node has written (/proc/PID/io) under full load, {:.0} writes of {} bytes per second for {} s, \
         and per byte of log entries and snapshots",
        outcome.rate(),
        options.value_bytes,
        options.seconds
    );
    let mut table = Table::new(&title, &["node", "entries", "snapshots", "written", "written / content"]);
    let mut total = 0.0;
    for (position, (before, after)) in before.into_iter().zip(after).enumerate() {
        let (log_before, snapshots_before) = content(&pages_before[position]);
        let (log, snapshots) = content(&page(nodes[position]));
        let (log, snapshots) = (log - log_before, snapshots - snapshots_before);
        let written = (after - before).dirtied_bytes;
        total += log + snapshots;
        table.row(vec![
            role(position, leader),
            mebibytes(log as u64),
            mebibytes(snapshots as u64),
            mebibytes(written),
            format!("{:.2}", written as f64 / (log + snapshots)),
        ]);
    }
    if let (Some(before), Some(after)) = (device_before, device_after) {
        let written = after.saturating_sub(before);
        let ratio = format!("{:.2}", written as f64 / total);
        let name = "device, by anybody".to_owned();
        table.row(vec![name, String::new(), String::new(), mebibytes(written), ratio]);
    }
    table.print();
}

/// Nobody asks for anything. The nodes are started again before, so that they are reading their files all the time.
fn idle(options: &Options, cluster: &mut Cluster) {
    cluster.kill_at_once(&[0, 1, 2]);
    (0..3).for_each(|position| cluster.node(position).start());
    cluster.wait_all_ready();
    while (0..3).any(|position| is_making_snapshot(&page(cluster.client_address(position)))) {
        std::thread::sleep(REST);
    }
    std::thread::sleep(REST);
    let leader = cluster.leader();
    let before = usages(cluster);
    std::thread::sleep(Duration::from_secs(options.idle_seconds));
    let after = usages(cluster);
    let title = format!(
        "Bytes that a node has written (/proc/PID/io) in {} s without a request, while it reads its files again to see \
         whether they are still right",
        options.idle_seconds
    );
    let mut table = Table::new(&title, &["node", "bytes", "directory"]);
    for (position, (before, after)) in before.into_iter().zip(after).enumerate() {
        let directory = directory_bytes(cluster.node(position).working_directory());
        let written = (after - before).dirtied_bytes;
        table.row(vec![role(position, leader), written.to_string(), mebibytes(directory)]);
    }
    table.print();
}
