//! The protocol's numbers, each with a type of its own so that none is taken for another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A cluster member. Made from its identity by a stable hash; tests use small numbers. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// A term of office (Raft paper, section 5.1). 0 before the first election.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize)]
pub struct Term(pub u64);

/// A position in the log, from 1. 0 means "before the first entry".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize)]
pub struct Index(pub u64);

/// How often a node's process has been started on its working directory, from 1. A larger one in a peer's greeting
/// says that the peer's process ended and came back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// One process of a node: what tells it from the node's earlier and later ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// The number of its working directory, drawn when that was made.
    pub disk_id: u64,
    /// How often a process was started on that directory, this start included.
    pub incarnation: Incarnation,
    /// A number that the process has drawn for itself.
    pub process: u64,
}

impl Life {
    /// Whether this process came after the `other` one, as far as numbers tell. Numbers of different directories have
    /// no order, and of those the one that greets last is taken for the later one. Of two processes with the same start
    /// number on the same directory neither is later: one of them runs on an older copy, and which one is for others to
    /// find out.
    #[must_use]
    pub fn is_later_than(self, other: Life) -> bool {
        self.disk_id != other.disk_id || self.incarnation > other.incarnation
    }
}

/// An entry's place and the term it was created in. Two entries with equal ids are the same entry (Log Matching).
///
/// The order is the one of the election restriction (paper, section 5.4.1): term first, then index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize)]
pub struct EntryId {
    /// The term of the leader that created the entry.
    pub term: Term,
    /// The entry's position.
    pub index: Index,
}

/// What a node must remember over restarts besides the log (paper, figure 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct HardState {
    /// The latest term this node has seen.
    pub term: Term,
    /// The candidate that got this node's vote in `term`.
    pub vote: Option<NodeId>,
    /// Known to be committed, and durable here, when this was written. May lag; never ahead of the truth.
    pub commit_index: Index,
}

/// A node's part in the cluster (paper, figure 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleName {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Orders the writes.
    Leader,
}

impl RoleName {
    /// In lower case, as users see it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RoleName::Follower => "follower",
            RoleName::PreCandidate => "pre-candidate",
            RoleName::Candidate => "candidate",
            RoleName::Leader => "leader",
        }
    }
}

/// What a node may promise. Kept with the hard state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// It votes, campaigns and serves.
    #[default]
    Voter,
    /// It was started on an empty working directory: the node may be as new as the whole cluster, or may have had
    /// another directory before, with votes and entries in it that it promised to keep. Or another node says that its
    /// directory is an older copy, and what it promised later is lost in the same way.
    Virgin,
    /// A part of its log or its snapshot was lost; its hard state was not.
    Recovering,
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Index {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The position before this one.
    ///
    /// # Panics
    /// On index 0: there is nothing before the start of the log.
    #[must_use]
    pub fn prev(self) -> Index {
        Index(self.0.checked_sub(1).expect("index 0 has no predecessor"))
    }
}

impl EntryId {
    /// The id of the entry of `term` at `index`.
    #[must_use]
    pub fn new(term: Term, index: Index) -> EntryId {
        EntryId { term, index }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Small numbers are test nodes; hashes read better in hexadecimal.
        if self.0 < 1000 { write!(f, "n{}", self.0) } else { write!(f, "n{:016x}", self.0) }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for EntryId {
    /// `index@term`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}
