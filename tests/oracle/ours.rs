//! A cluster of Keva's Raft.

use keva::raft::entry::{Entry, EntryKind, encode_entry};
use keva::raft::message::Envelope;
use keva::raft::raft::{Config, Raft};
use keva::raft::storage::{Purpose, Storage};
use keva::raft::types::{EntryId, HardState, Index, NodeId, RoleName, Term};
use keva::util::time::Millis;

use crate::memory_storage::MemoryStorage;
use crate::side::{Cuts, Disk, LoggedEntry, Node, Role, Side, View};

/// So long that no number of heartbeats in a test adds up to it.
const ELECTION_TIMEOUT_MS: u64 = 1 << 20;
const HEARTBEAT_INTERVAL_MS: u64 = 1;
/// More rounds than any exchange needs.
const ROUNDS_MAX: usize = 2000;

/// Nodes, each with a clock of its own, and the messages between them.
pub(crate) struct Ours {
    nodes: Vec<Option<Raft<MemoryStorage>>>,
    clocks: Vec<Millis>,
    wire: Vec<Envelope>,
}

pub(crate) fn node_id(node: Node) -> NodeId {
    NodeId(node as u64 + 1)
}

fn position(id: NodeId) -> Node {
    id.0 as Node - 1
}

/// A started node.
pub(crate) fn start(node: Node, count: usize, storage: MemoryStorage, now: Millis) -> Raft<MemoryStorage> {
    let config = Config {
        id: node_id(node),
        voters: (0..count).map(node_id).collect(),
        election_timeout_ms: ELECTION_TIMEOUT_MS,
        heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
        seed: node as u64,
    };
    Raft::new(config, storage, now).expect("the disk is sound")
}

/// A disk with this on it, durably.
pub(crate) fn storage(disk: &Disk) -> MemoryStorage {
    let mut storage = MemoryStorage::default();
    for (position, (term, data)) in disk.log.iter().enumerate() {
        let id = EntryId::new(Term(*term), Index(position as u64 + 1));
        let kind = if data.is_empty() { EntryKind::NoOp } else { EntryKind::Command };
        let mut bytes = Vec::new();
        encode_entry(id, kind, data, &mut bytes);
        storage.append(Entry::decode(&bytes).expect("just encoded")).expect("memory does not fail");
    }
    let (term, vote) = (Term(disk.term), disk.vote.map(node_id));
    let state = HardState { term, vote, commit_index: Index(disk.commit) };
    storage.set_hard_state(state).expect("memory does not fail");
    storage.sync().expect("memory does not fail");
    storage
}

pub(crate) fn log(raft: &Raft<MemoryStorage>) -> Vec<LoggedEntry> {
    (1..=raft.last_index().0)
        .map(|index| {
            let entry = raft.storage().entry(Index(index)).expect("memory does not fail");
            (entry.term().0, entry.payload().to_vec())
        })
        .collect()
}

/// The rest of a turn: what it sends.
pub(crate) fn turn(raft: &mut Raft<MemoryStorage>, now: Millis) -> Vec<Envelope> {
    let mut out = Vec::new();
    loop {
        raft.drain_immediate(now, &mut out).expect("memory does not fail");
        out.extend(raft.sync(now).expect("memory does not fail").messages);
        raft.drain_immediate(now, &mut out).expect("memory does not fail");
        if raft.next_deadline() != Millis(0) {
            return out;
        }
    }
}

impl Ours {
    pub(crate) fn new(disks: &[Disk]) -> Ours {
        let nodes = disks.iter().enumerate();
        Ours {
            nodes: nodes
                .map(|(node, disk)| Some(start(node, disks.len(), storage(disk), Millis(1))))
                .collect(),
            clocks: vec![Millis(1); disks.len()],
            wire: Vec::new(),
        }
    }

    fn raft(&self, node: Node) -> &Raft<MemoryStorage> {
        self.nodes[node].as_ref().expect("it runs")
    }

    fn raft_mut(&mut self, node: Node) -> &mut Raft<MemoryStorage> {
        self.nodes[node].as_mut().expect("it runs")
    }

    fn take_turn(&mut self, node: Node) {
        let now = self.clocks[node];
        let sent = turn(self.raft_mut(node), now);
        self.wire.extend(sent);
    }

    fn at_deadline(&mut self, node: Node) {
        self.clocks[node] = self.clocks[node].max(self.raft(node).next_deadline());
        let now = self.clocks[node];
        self.raft_mut(node).handle_deadline(now).expect("memory does not fail");
        self.take_turn(node);
    }
}

impl Side for Ours {
    fn campaign(&mut self, node: Node) {
        if !self.raft(node).is_leader() {
            self.at_deadline(node);
        }
    }

    fn expire(&mut self, node: Node) {
        if !self.raft(node).is_leader() {
            self.clocks[node] = self.clocks[node].after(ELECTION_TIMEOUT_MS);
        }
    }

    fn heartbeat(&mut self, node: Node) {
        if self.raft(node).is_leader() {
            self.at_deadline(node);
        }
    }

    fn begin_quorum_check(&mut self, node: Node) {
        if self.raft(node).is_leader() {
            // The heartbeat that is due then must not find that all contact is too long ago.
            self.clocks[node] = self.clocks[node].after(ELECTION_TIMEOUT_MS / 2);
        }
    }

    fn end_quorum_check(&mut self, node: Node) {
        if self.raft(node).is_leader() {
            self.clocks[node] = self.clocks[node].after(ELECTION_TIMEOUT_MS - 2);
            self.at_deadline(node);
        }
    }

    fn propose(&mut self, node: Node, data: &[u8]) -> bool {
        let taken = self.raft_mut(node).propose(data, Purpose::Growth).is_ok();
        self.take_turn(node);
        taken
    }

    fn restart(&mut self, node: Node) {
        let mut raft = self.nodes[node].take().expect("it runs");
        // The other implementation writes its commit index down whenever it moves.
        raft.checkpoint().expect("memory does not fail");
        let (now, count) = (self.clocks[node], self.nodes.len());
        self.nodes[node] = Some(start(node, count, raft.into_storage().crash(), now));
    }

    fn reconnect(&mut self, left: Node, right: Node) {
        for (node, peer) in [(left, right), (right, left)] {
            self.raft_mut(node).handle_peer_connected(node_id(peer));
            self.take_turn(node);
        }
    }

    fn exchange(&mut self, cuts: &Cuts) {
        for _ in 0..ROUNDS_MAX {
            if self.wire.is_empty() {
                return;
            }
            let mut arrived: Vec<Envelope> = std::mem::take(&mut self.wire);
            arrived.retain(|envelope| !cuts.contains(&(position(envelope.from), position(envelope.to))));
            arrived.sort_by_key(|envelope| envelope.to);
            for envelope in arrived {
                let to = position(envelope.to);
                let now = self.clocks[to];
                self.raft_mut(to).step(now, envelope).expect("memory does not fail");
                self.take_turn(to);
            }
        }
        panic!("our cluster does not come to rest");
    }

    fn views(&self) -> Vec<View> {
        let view = |raft: &Raft<MemoryStorage>| View {
            role: match raft.role() {
                RoleName::Follower => Role::Follower,
                RoleName::PreCandidate => Role::PreCandidate,
                RoleName::Candidate => Role::Candidate,
                RoleName::Leader => Role::Leader,
            },
            term: raft.term().0,
            leader: raft.leader().map(position),
            commit: raft.commit_index().0,
            log: log(raft),
        };
        self.nodes.iter().flatten().map(view).collect()
    }
}
