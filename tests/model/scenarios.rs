//! The clusters that are explored.

use keva::raft::types::{NodeId, Term};

use crate::cluster::{Budget, Cluster, has_read, has_two_leaders, is_figure_8};
use crate::disk::Disk;

/// A cluster with a name.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Small enough for every build.
    pub(crate) is_short: bool,
    pub(crate) cluster: fn() -> Cluster,
}

/// How many threads explore.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

const ALL: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const TWO: [NodeId; 2] = [NodeId(1), NodeId(2)];

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "elections-short", is_short: true, cluster: || elections(&ALL, 1, 1) },
    Scenario { name: "elections-2", is_short: false, cluster: || elections(&TWO, 2, 1) },
    Scenario { name: "figure-8", is_short: false, cluster: figure_8 },
    Scenario { name: "reads", is_short: false, cluster: || reads(1) },
];

/// Three nodes from nothing: campaigns, votes, and the empty entries of the winners.
fn elections(candidates: &[NodeId], term_max: u64, crashes: u8) -> Cluster {
    Cluster {
        disks: vec![Disk::default(); 3],
        candidates: candidates.to_vec(),
        term_max: Term(term_max),
        budget: Budget { crashes, ..Budget::default() },
        reachable: &[],
    }
}

/// Two earlier leaders have left an entry each; both are elected again, one after the other.
fn figure_8() -> Cluster {
    Cluster {
        disks: vec![Disk::with_log(&[1], 2, 0), Disk::with_log(&[2], 2, 0), Disk::with_log(&[], 2, 0)],
        candidates: TWO.to_vec(),
        term_max: Term(4),
        budget: Budget { expiries: 1, ..Budget::default() },
        reachable: &[("figure 8", is_figure_8), ("two leaders", has_two_leaders)],
    }
}

/// One write and reads, while leadership moves and answers to heartbeats are late.
fn reads(reads: u8) -> Cluster {
    Cluster {
        disks: vec![Disk::with_log(&[1], 1, 1); 3],
        candidates: TWO.to_vec(),
        term_max: Term(3),
        budget: Budget { reads, proposals: 1, heartbeats: 1, expiries: 1, ..Budget::default() },
        reachable: &[("a read", has_read), ("two leaders", has_two_leaders)],
    }
}
