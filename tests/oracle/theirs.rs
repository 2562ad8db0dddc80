//! A cluster of the crate `raft`.

use raft::eraftpb::{Entry, HardState, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole, Storage};

use crate::side::{Cuts, Disk, LoggedEntry, Node, Role, Side, View};

const ELECTION_TICKS: usize = 10;
/// More rounds than any exchange needs.
const ROUNDS_MAX: usize = 2000;

/// Nodes and the messages between them.
pub(crate) struct Theirs {
    nodes: Vec<RawNode<MemStorage>>,
    wire: Vec<Message>,
}

pub(crate) fn node_id(node: Node) -> u64 {
    node as u64 + 1
}

fn position(id: u64) -> Node {
    id as Node - 1
}

/// A started node.
pub(crate) fn start(node: Node, storage: MemStorage) -> RawNode<MemStorage> {
    let config = Config {
        id: node_id(node),
        election_tick: ELECTION_TICKS,
        heartbeat_tick: 1,
        max_size_per_msg: u64::MAX,
        pre_vote: true,
        check_quorum: true,
        ..Config::default()
    };
    RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!())).expect("the disk is sound")
}

/// A disk with this on it.
pub(crate) fn storage(disk: &Disk, count: usize) -> MemStorage {
    let voters: Vec<u64> = (0..count).map(node_id).collect();
    let storage = MemStorage::new_with_conf_state((voters, vec![]));
    let entries: Vec<Entry> = disk
        .log
        .iter()
        .enumerate()
        .map(|(position, (term, data))| Entry {
            term: *term,
            index: position as u64 + 1,
            data: data.clone().into(),
            ..Entry::default()
        })
        .collect();
    storage.wl().append(&entries).expect("memory does not fail");
    storage.wl().set_hardstate(HardState {
        term: disk.term,
        vote: disk.vote.map_or(0, node_id),
        commit: disk.commit,
        ..HardState::default()
    });
    storage
}

pub(crate) fn log(node: &RawNode<MemStorage>) -> Vec<LoggedEntry> {
    let entries = node.raft.raft_log.all_entries();
    entries.into_iter().map(|entry| (entry.term, entry.data.to_vec())).collect()
}

/// Writes what is to be written and returns what is to be sent.
pub(crate) fn turn(node: &mut RawNode<MemStorage>) -> Vec<Message> {
    let mut sent = Vec::new();
    while node.has_ready() {
        let mut ready = node.ready();
        sent.extend(ready.take_messages());
        let storage = node.store().clone();
        storage.wl().append(ready.entries()).expect("memory does not fail");
        if let Some(state) = ready.hs() {
            storage.wl().set_hardstate(state.clone());
        }
        sent.extend(ready.take_persisted_messages());
        let mut light = node.advance(ready);
        if let Some(commit) = light.commit_index() {
            storage.wl().mut_hard_state().commit = commit;
        }
        sent.extend(light.take_messages());
        node.advance_apply();
    }
    sent
}

impl Theirs {
    pub(crate) fn new(disks: &[Disk]) -> Theirs {
        let nodes = disks.iter().enumerate();
        let nodes = nodes.map(|(node, disk)| start(node, storage(disk, disks.len()))).collect();
        Theirs { nodes, wire: Vec::new() }
    }

    fn is_leader(&self, node: Node) -> bool {
        self.nodes[node].raft.state == StateRole::Leader
    }

    fn take_turn(&mut self, node: Node) {
        let sent = turn(&mut self.nodes[node]);
        self.wire.extend(sent);
    }
}

impl Side for Theirs {
    fn campaign(&mut self, node: Node) {
        if !self.is_leader(node) {
            self.nodes[node].campaign().expect("a voter may campaign");
            self.take_turn(node);
        }
    }

    fn expire(&mut self, node: Node) {
        if !self.is_leader(node) {
            self.nodes[node].raft.election_elapsed = ELECTION_TICKS;
        }
    }

    fn heartbeat(&mut self, node: Node) {
        if self.is_leader(node) {
            self.nodes[node].ping();
            self.take_turn(node);
        }
    }

    fn begin_quorum_check(&mut self, node: Node) {
        if self.is_leader(node) {
            for (_, progress) in self.nodes[node].raft.mut_prs().iter_mut() {
                progress.recent_active = false;
            }
        }
    }

    fn end_quorum_check(&mut self, node: Node) {
        if self.is_leader(node) {
            let message =
                Message { msg_type: MessageType::MsgCheckQuorum, from: node_id(node), ..Message::default() };
            self.nodes[node].raft.step(message).expect("a leader takes it");
            self.take_turn(node);
        }
    }

    fn propose(&mut self, node: Node, data: &[u8]) -> bool {
        // A follower would forward it.
        let taken = self.is_leader(node) && self.nodes[node].propose(Vec::new(), data.to_vec()).is_ok();
        self.take_turn(node);
        taken
    }

    fn restart(&mut self, node: Node) {
        let storage = self.nodes[node].store().clone();
        self.nodes[node] = start(node, storage);
    }

    fn reconnect(&mut self, left: Node, right: Node) {
        for (node, peer) in [(left, right), (right, left)] {
            self.nodes[node].report_unreachable(node_id(peer));
            self.take_turn(node);
        }
    }

    fn exchange(&mut self, cuts: &Cuts) {
        for _ in 0..ROUNDS_MAX {
            if self.wire.is_empty() {
                return;
            }
            let mut arrived: Vec<Message> = std::mem::take(&mut self.wire);
            arrived.retain(|message| !cuts.contains(&(position(message.from), position(message.to))));
            arrived.sort_by_key(|message| message.to);
            for message in arrived {
                let to = position(message.to);
                self.nodes[to].step(message).expect("a message of a voter is taken");
                self.take_turn(to);
            }
        }
        panic!("their cluster does not come to rest");
    }

    fn views(&self) -> Vec<View> {
        let view = |node: &RawNode<MemStorage>| View {
            role: match node.raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            term: node.raft.term,
            leader: Some(node.raft.leader_id).filter(|id| *id != 0).map(position),
            commit: node.raft.raft_log.committed,
            log: log(node),
        };
        self.nodes.iter().map(view).collect()
    }
}

/// The durable term and vote.
pub(crate) fn hard_state(node: &RawNode<MemStorage>) -> (u64, u64) {
    let state = node.store().initial_state().expect("memory does not fail").hard_state;
    (state.term, state.vote)
}
