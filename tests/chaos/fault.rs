//! What is done to nodes and to the links between them.

use std::os::unix::process::ExitStatusExt;
use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;

use super::support::cluster::{Cluster, PATIENCE};
use super::tally::Tally;

/// A kind of fault. Which nodes it hits, and for how long, is drawn each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// SIGKILL of one node, a minority, a majority or all; started again, at times killed again while it recovers.
    Kill,
    /// SIGSTOP and SIGCONT of some nodes, 0.1 to 10 times `wait_time`.
    Pause,
    /// SIGTERM, then a start.
    Terminate,
    /// All links of a node deliver late.
    Delay,
    /// What a node sends, or what it is sent, does not arrive.
    OneWay,
    /// The nodes fall into two groups.
    Split,
    /// All links of a node deliver in small pieces.
    Stall,
    /// A node reaches nobody and nobody reaches it.
    Isolate,
    /// All connections of a node with its peers break.
    Break,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [FaultKind; 9] = [
        FaultKind::Kill,
        FaultKind::Pause,
        FaultKind::Terminate,
        FaultKind::Delay,
        FaultKind::OneWay,
        FaultKind::Split,
        FaultKind::Stall,
        FaultKind::Isolate,
        FaultKind::Break,
    ];

    /// As in `--faults`.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Kill => "kill",
            FaultKind::Pause => "pause",
            FaultKind::Terminate => "terminate",
            FaultKind::Delay => "delay",
            FaultKind::OneWay => "oneway",
            FaultKind::Split => "split",
            FaultKind::Stall => "stall",
            FaultKind::Isolate => "isolate",
            FaultKind::Break => "break",
        }
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Option<FaultKind> {
        FaultKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it concerns links and not processes.
    pub fn is_of_links(self) -> bool {
        !matches!(self, FaultKind::Kill | FaultKind::Pause | FaultKind::Terminate)
    }

    /// Does it to the links, until they are healed.
    pub fn begin(self, cluster: &Cluster, rng: &mut Rng, wait_time: Duration, tally: &mut Tally) {
        tally.other_faults += 1;
        let node = rng.usize(..cluster.len());
        let relays = cluster.relays();
        match self {
            FaultKind::Delay => {
                let most = u32::try_from(wait_time.as_millis()).expect("wait_time is short");
                relays.delay(node, rng.u32(1..=most));
            }
            FaultKind::OneWay => {
                let others = cluster.others(node);
                let some = &others[..rng.usize(1..=others.len())];
                if rng.bool() {
                    relays.hold_one_way(&[node], some);
                } else {
                    relays.hold_one_way(some, &[node]);
                }
            }
            FaultKind::Split => relays.split(&some_nodes(cluster, rng, cluster.len() - 1)),
            FaultKind::Stall => relays.chop(node, rng.usize(1..64)),
            FaultKind::Isolate => relays.isolate(node),
            FaultKind::Break => relays.break_links(node),
            FaultKind::Kill | FaultKind::Pause | FaultKind::Terminate => {
                unreachable!("{self:?} is of processes")
            }
        }
    }

    /// Does it to processes and makes it good again: every node runs when it is over.
    pub fn perform(self, cluster: &mut Cluster, rng: &mut Rng, wait_time: Duration, tally: &mut Tally) {
        match self {
            FaultKind::Kill => kill(cluster, rng, wait_time, tally),
            FaultKind::Pause => pause(cluster, rng, wait_time, tally),
            FaultKind::Terminate => terminate(cluster, rng, tally),
            _ => unreachable!("{self:?} is of links"),
        }
    }
}

/// Between 1 and `at_most` different nodes.
fn some_nodes(cluster: &Cluster, rng: &mut Rng, at_most: usize) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..cluster.len()).collect();
    rng.shuffle(&mut nodes);
    nodes.truncate(rng.usize(1..=at_most));
    nodes
}

fn kill(cluster: &mut Cluster, rng: &mut Rng, wait_time: Duration, tally: &mut Tally) {
    let minority = cluster.len().div_ceil(2) - 1;
    let at_most = [1, minority, minority + 1, cluster.len()][rng.usize(..4)];
    let mut nodes = some_nodes(cluster, rng, at_most);
    cluster.kill_at_once(&nodes);
    tally.kills += nodes.len() as u64;
    sleep(wait_time.mul_f64(rng.f64() * 1.5));
    for node in &nodes {
        cluster.node(*node).start();
    }
    if rng.u32(..3) == 0 {
        // While it recovers, or just afterwards.
        sleep(Duration::from_millis(rng.u64(..60)));
        nodes.truncate(rng.usize(1..=nodes.len()));
        cluster.kill_at_once(&nodes);
        tally.kills += nodes.len() as u64;
        for node in &nodes {
            cluster.node(*node).start();
        }
    }
}

fn pause(cluster: &mut Cluster, rng: &mut Rng, wait_time: Duration, tally: &mut Tally) {
    let nodes = some_nodes(cluster, rng, cluster.len());
    for node in &nodes {
        cluster.node(*node).pause();
    }
    tally.other_faults += nodes.len() as u64;
    // Short ones as often as long ones: from 0.1 to 10 times.
    sleep(wait_time.mul_f64(10_f64.powf(rng.f64() * 2.0 - 1.0)));
    for node in &nodes {
        cluster.node(*node).resume();
    }
}

fn terminate(cluster: &mut Cluster, rng: &mut Rng, tally: &mut Tally) {
    let position = rng.usize(..cluster.len());
    tally.other_faults += 1;
    let node = cluster.node(position);
    node.terminate();
    let status = node.wait_exit(PATIENCE);
    // A process that is still reading its files has nothing to end in good order: the signal ends it.
    let log = node.log_tail();
    let is_starting =
        !log.rsplit("keva: keva ").next().is_some_and(|said| said.contains("listening for nodes"));
    assert!(
        status.success() || (is_starting && status.signal() == Some(Signal::TERM.as_raw())),
        "host{} that is asked to stop ends with {status}",
        position + 1
    );
    node.start();
}
