//! What both implementations can be asked to do, and what can be seen of them.

use std::collections::BTreeSet;

/// A node, from 0.
pub(crate) type Node = usize;
/// Links that lose everything, by sender and receiver.
pub(crate) type Cuts = BTreeSet<(Node, Node)>;
/// An entry: its term and what it carries.
pub(crate) type LoggedEntry = (u64, Vec<u8>);

/// A node's role, as far as both implementations have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// What is seen of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct View {
    pub(crate) role: Role,
    pub(crate) term: u64,
    pub(crate) leader: Option<Node>,
    pub(crate) commit: u64,
    pub(crate) log: Vec<LoggedEntry>,
}

/// What a node has on its disk before it starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) term: u64,
    pub(crate) vote: Option<Node>,
    pub(crate) commit: u64,
    pub(crate) log: Vec<LoggedEntry>,
}

/// A cluster of one of the implementations.
pub(crate) trait Side {
    /// The node's election timer fires.
    fn campaign(&mut self, node: Node);
    /// So much time passes for the node that a leader that it heard from before binds it no longer.
    fn expire(&mut self, node: Node);
    /// A leader sends heartbeats.
    fn heartbeat(&mut self, node: Node);
    /// A leader notes the time, ...
    fn begin_quorum_check(&mut self, node: Node);
    /// ... and steps down if no majority has answered since.
    fn end_quorum_check(&mut self, node: Node);
    /// A client's write. Returns whether the node took it.
    fn propose(&mut self, node: Node, data: &[u8]) -> bool;
    /// Power off and on. Everything was synced; messages on their way are lost.
    fn restart(&mut self, node: Node);
    /// Both nodes learn that they have a new connection; what was on its way on an earlier one may be lost.
    fn reconnect(&mut self, left: Node, right: Node);
    /// Everybody takes turns, and messages arrive in order or are lost on cut links, until nothing is left to do.
    fn exchange(&mut self, cuts: &Cuts);
    /// What is seen of all nodes.
    fn views(&self) -> Vec<View>;
}
