//! The clusters that are explored.

use keva::raft::types::{NodeId, Term};

use crate::cluster::{Budget, Cluster, has_installed, has_read, has_two_leaders, is_figure_8};
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

const TWO: &[u64] = &[1, 2];
const ALL: &[u64] = &[1, 2, 3];

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "elections-1", is_short: true, cluster: || elections(ALL, &[1], 1) },
    Scenario { name: "pre-votes", is_short: true, cluster: pre_votes },
    Scenario { name: "elections-2", is_short: false, cluster: || elections(TWO, &[1, 2], 1) },
    Scenario { name: "elections-2a", is_short: false, cluster: || elections(ALL, &[1, 2], 0) },
    Scenario { name: "elections-2b", is_short: false, cluster: || elections(ALL, &[1, 2], 1) },
    Scenario { name: "elections-3", is_short: false, cluster: || elections(TWO, &[1, 2, 3], 0) },
    Scenario { name: "longer-log", is_short: false, cluster: longer_log },
    Scenario { name: "figure-8", is_short: false, cluster: figure_8 },
    Scenario { name: "snapshot", is_short: true, cluster: || snapshot(&[(1, 3)], 1) },
    Scenario { name: "snapshot-2", is_short: false, cluster: || snapshot(&[(1, 3), (2, 4)], 1) },
    Scenario {
        name: "reads",
        is_short: false,
        cluster: || reads(Reads { reader: 1, reads: 1, heartbeats: 1, writer: 2 }),
    },
    Scenario {
        name: "reads-again",
        is_short: false,
        cluster: || reads(Reads { reader: 1, reads: 2, heartbeats: 0, writer: 2 }),
    },
    Scenario {
        name: "reads-new",
        is_short: false,
        cluster: || reads(Reads { reader: 2, reads: 1, heartbeats: 0, writer: 1 }),
    },
    Scenario {
        name: "reads-follower",
        is_short: false,
        cluster: || reads(Reads { reader: 3, reads: 1, heartbeats: 0, writer: 2 }),
    },
];

/// Each of these nodes may campaign for each of these terms.
fn campaigns(candidates: &[u64], terms: &[u64]) -> Vec<(NodeId, Term)> {
    let all = candidates.iter().flat_map(|node| terms.iter().map(|term| (NodeId(*node), Term(*term))));
    all.collect()
}

/// Three nodes from nothing, with every message of an election.
fn pre_votes() -> Cluster {
    Cluster { pre_votes: true, ..elections(TWO, &[1], 0) }
}

/// Three nodes from nothing: votes, and the empty entries of the winners.
fn elections(candidates: &[u64], terms: &[u64], crashes: u8) -> Cluster {
    Cluster {
        disks: vec![Disk::default(); 3],
        pre_votes: false,
        campaigns: campaigns(candidates, terms),
        leader: None,
        writers: Vec::new(),
        readers: Vec::new(),
        budget: Budget { crashes, ..Budget::default() },
        reachable: &[],
    }
}

/// Two earlier leaders have left an entry each; both are elected again, in any order.
fn figure_8() -> Cluster {
    Cluster {
        disks: vec![Disk::with_log(&[1], 2, 0), Disk::with_log(&[2], 2, 0), Disk::with_log(&[], 2, 0)],
        reachable: &[("figure 8", is_figure_8), ("two leaders", has_two_leaders)],
        ..elections(TWO, &[3, 4], 0)
    }
}

/// A node has more entries than the others, all of an earlier term: that must not make it a leader once they have
/// committed something later.
fn longer_log() -> Cluster {
    Cluster {
        disks: vec![Disk::with_log(&[], 1, 0), Disk::with_log(&[1, 1], 1, 0), Disk::with_log(&[], 1, 0)],
        campaigns: vec![(NodeId(1), Term(2)), (NodeId(2), Term(3))],
        ..elections(&[], &[], 0)
    }
}

/// A leader whose log begins behind a snapshot, and a node whose log contradicts that snapshot.
fn snapshot(elections: &[(u64, u64)], crashes: u8) -> Cluster {
    Cluster {
        disks: vec![
            Disk::with_log(&[1, 2], 2, 2).compacted(),
            Disk::with_log(&[1, 2], 2, 2),
            Disk::with_log(&[1, 1, 1], 1, 0),
        ],
        campaigns: elections.iter().map(|(node, term)| (NodeId(*node), Term(*term))).collect(),
        reachable: &[("an installed snapshot", has_installed)],
        ..self::elections(&[], &[], crashes)
    }
}

/// What happens while leadership moves from the first node to the second.
struct Reads {
    reader: u64,
    reads: u8,
    heartbeats: u8,
    writer: u64,
}

/// One write and reads, while leadership moves from the first node to the second and answers to heartbeats are late.
fn reads(what: Reads) -> Cluster {
    let Reads { reader, reads, heartbeats, writer } = what;
    Cluster {
        disks: vec![Disk::with_log(&[1], 1, 1); 3],
        leader: Some(NodeId(1)),
        writers: vec![NodeId(writer)],
        readers: vec![NodeId(reader)],
        budget: Budget { reads, proposals: 1, heartbeats, ..Budget::default() },
        reachable: &[("a read", has_read), ("two leaders", has_two_leaders)],
        ..elections(&[2], &[3], 0)
    }
}
