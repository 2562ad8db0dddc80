//! Takes the leader away while clients write, and measures what they notice.

use std::time::{Duration, Instant};

use super::cluster::{Cluster, PATIENCE};
use super::workload::{Acknowledged, Mishap, Writer, WriterReport, write_once};

/// Writes that every client gets acknowledged before and after the leader goes.
const WRITES_AROUND: usize = 30;

/// A leader that is asked to stop must be gone by then. Less than the time after which it would give up handing over.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

/// How the leader goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Farewell {
    /// `kill -9`.
    Kill,
    /// SIGTERM: it may hand its leadership over first.
    Terminate,
}

/// One change of the leader, as clients have seen it.
#[derive(Debug)]
pub struct FailoverRound {
    /// The clients of the other nodes.
    pub bystanders: Vec<WriterReport>,
    /// The client of the node that went.
    pub bereaved: WriterReport,
}

impl FailoverRound {
    /// The longest pause that a client of another node has seen between two acknowledged writes.
    pub fn longest_gap(&self) -> Duration {
        self.bystanders.iter().map(WriterReport::longest_gap).max().unwrap_or_default()
    }

    /// What went wrong for clients of the other nodes.
    pub fn bystander_mishaps(&self) -> impl Iterator<Item = &Mishap> {
        self.bystanders.iter().flat_map(|report| &report.mishaps)
    }

    /// All acknowledged writes.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Acknowledged> {
        self.bystanders.iter().chain([&self.bereaved]).flat_map(|report| &report.acknowledged)
    }
}

/// Lets clients write through every node, takes the leader away, waits until the others write again, and starts it
/// again. `name` makes the keys unique.
pub fn run_round(cluster: &mut Cluster, farewell: Farewell, name: &str) -> FailoverRound {
    let leader = cluster.leader();
    let writer = |position: usize| {
        Writer::start(cluster.client_address(position), format!("{name}/host{}", position + 1))
    };
    let bereaved = writer(leader);
    let bystanders: Vec<Writer> = cluster.others(leader).into_iter().map(writer).collect();
    wait_acknowledged(&bystanders, &[0; 8]);
    wait_acknowledged(std::slice::from_ref(&bereaved), &[0]);

    match farewell {
        Farewell::Kill => cluster.node(leader).kill(),
        Farewell::Terminate => cluster.node(leader).terminate(),
    }
    let so_far: Vec<usize> = bystanders.iter().map(Writer::acknowledged).collect();
    if farewell == Farewell::Terminate {
        let status = cluster.node(leader).wait_exit(HAND_OVER_MAX);
        assert!(status.success(), "a node that is asked to stop ends with {status}, not with 0");
    }
    wait_acknowledged(&bystanders, &so_far);
    let round = FailoverRound {
        bystanders: bystanders.into_iter().map(Writer::stop).collect(),
        bereaved: bereaved.stop(),
    };
    cluster.start_node(leader);
    cluster.wait_all_ready();
    round
}

/// Makes the node with this position the leader of a cluster of three: the present leader hands over while the third
/// node sleeps and is behind.
pub fn make_leader(cluster: &mut Cluster, wanted: usize) {
    for _ in 0..20 {
        let leader = cluster.leader();
        if leader == wanted {
            return;
        }
        let third = 3 - leader - wanted;
        cluster.node(third).pause();
        write_once(&mut cluster.client(leader), "make-leader", "x").expect("two nodes are a quorum");
        cluster.node(leader).terminate();
        assert!(cluster.node(leader).wait_exit(HAND_OVER_MAX).success(), "a clean stop");
        cluster.node(third).resume();
        cluster.node(leader).start();
        cluster.wait_all_ready();
    }
    panic!("host{} does not become the leader", wanted + 1);
}

/// Waits until each of these has so many acknowledged writes more than before.
pub fn wait_acknowledged(writers: &[Writer], so_far: &[usize]) {
    let deadline = Instant::now() + PATIENCE;
    for (writer, before) in writers.iter().zip(so_far) {
        while writer.acknowledged() < before + WRITES_AROUND {
            assert!(
                Instant::now() < deadline,
                "only {} writes acknowledged in {PATIENCE:?}",
                writer.acknowledged() - before
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sorted durations in a few words.
pub fn describe(mut durations: Vec<Duration>) -> String {
    durations.sort_unstable();
    let at = |part: f64| -> f64 {
        let position = ((durations.len() - 1) as f64 * part).round() as usize;
        durations[position].as_secs_f64() * 1e3
    };
    let below = |limit: u64| durations.iter().filter(|one| **one < Duration::from_millis(limit)).count();
    format!(
        "min {:.0}, median {:.0}, p90 {:.0}, max {:.0} ms; below 200 ms: {} of {total}, below 500 ms: {} of {total}",
        at(0.0),
        at(0.5),
        at(0.9),
        at(1.0),
        below(200),
        below(500),
        total = durations.len()
    )
}
