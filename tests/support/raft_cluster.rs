//! A cluster of Raft nodes on one thread: disks that forget what was not synced, a network that the test works by hand,
//! and a clock that stands still until it is moved. Everything is determined by the calls made; what happens is noted
//! as lines of text, and [`Checks`] looks at the whole cluster after every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use keva::raft::message::{Envelope, ReadContext};
use keva::raft::raft::{Config, ProposeError, Raft, Synced};
use keva::raft::storage::{Purpose, SnapshotProgress, Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Index, NodeId, RoleName, Term};
use keva::util::time::Millis;

use super::memory_storage::{MemoryStorage, Space, snapshot_content};
use super::raft_checks::Checks;
use super::raft_text::{
    entry_bytes, envelope_text, hard_state_text, kind, log_text, parse_envelope, role_text, status_text,
};

/// T of every node, in milliseconds.
pub const ELECTION_TIMEOUT_MS: u64 = 1000;
/// Milliseconds between a leader's heartbeats.
pub const HEARTBEAT_INTERVAL_MS: u64 = 100;
/// Milliseconds that a message travels while [`Cluster::run`] works the network.
const LATENCY_MS: u64 = 1;
/// More rounds than any test needs to come to rest.
const ROUNDS_MAX: usize = 1000;

/// Nodes, the messages between them and the time.
pub struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    /// On their way, oldest first, with the time of arrival under [`Cluster::run`].
    wire: VecDeque<(Millis, Envelope)>,
    /// Set aside by the test.
    held: Vec<Envelope>,
    /// Links that lose everything, by sender and receiver.
    cut: BTreeSet<(NodeId, NodeId)>,
    now: Millis,
    contexts: u64,
    /// How many messages of each kind were sent since the last time somebody asked.
    traffic: BTreeMap<&'static str, u64>,
    checks: Checks,
    lines: Vec<String>,
}

struct Node {
    config: Config,
    process: Process,
    /// What was last noted about it.
    noted: Option<(RoleName, Term, Option<NodeId>)>,
    noted_commit: Index,
    /// What a state machine would have applied.
    applied: Index,
}

enum Process {
    Running(Box<Raft<MemoryStorage>>),
    Crashed(Box<MemoryStorage>),
}

/// Which messages a command means. What is `None` does not matter.
#[derive(Clone, Default)]
pub struct Filter {
    /// Receivers; none named means all.
    pub to: Vec<NodeId>,
    /// The sender.
    pub from: Option<NodeId>,
    /// The name of the message.
    pub kind: Option<String>,
    /// Only the oldest so many.
    pub first: Option<usize>,
}

impl Filter {
    fn matches(&self, envelope: &Envelope) -> bool {
        (self.to.is_empty() || self.to.contains(&envelope.to))
            && self.from.is_none_or(|from| from == envelope.from)
            && self.kind.as_ref().is_none_or(|name| name == kind(&envelope.message))
    }
}

/// The disk of a node that has written these entries and this hard state, and synced.
pub fn disk(snapshot: EntryId, entries: &[EntryId], hard_state: HardState) -> MemoryStorage {
    let mut disk = MemoryStorage::compacted_at(snapshot);
    for id in entries {
        let bytes = entry_bytes(*id, b"");
        let entry = keva::raft::entry::Entry::decode(&bytes).expect("just encoded");
        disk.append(entry).expect("memory does not fail");
    }
    disk.set_hard_state(hard_state).expect("memory does not fail");
    disk.sync().expect("memory does not fail");
    disk
}

/// The disk whose entries, from index 1 on, are of these terms; the hard state is of the last one.
pub fn disk_of_terms(terms: &[u64]) -> MemoryStorage {
    let ids: Vec<EntryId> =
        (1..).zip(terms).map(|(index, term)| EntryId::new(Term(*term), Index(index))).collect();
    let term = ids.last().map_or(Term(0), |id| id.term);
    disk(EntryId::default(), &ids, HardState { term, ..HardState::default() })
}

/// The settings of node `id` of `count` nodes.
pub fn config(id: u64, count: u64) -> Config {
    Config {
        id: NodeId(id),
        voters: (1..=count).map(NodeId).collect(),
        election_timeout_ms: ELECTION_TIMEOUT_MS,
        heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
        seed: id,
    }
}

impl Cluster {
    /// Starts these nodes of a cluster of `count`, each on its disk or on an empty one. The others are down, and the
    /// test may speak for them.
    pub fn new(
        count: u64,
        started: &[NodeId],
        mut disks: BTreeMap<NodeId, MemoryStorage>,
    ) -> Result<Cluster, StorageError> {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            wire: VecDeque::new(),
            held: Vec::new(),
            cut: BTreeSet::new(),
            now: Millis(0),
            contexts: 0,
            traffic: BTreeMap::new(),
            checks: Checks::default(),
            lines: Vec::new(),
        };
        for id in (1..=count).map(NodeId) {
            let disk = disks.remove(&id).unwrap_or_default();
            let process = Process::Crashed(Box::new(disk));
            let node = Node {
                config: config(id.0, count),
                process,
                noted: None,
                noted_commit: Index(0),
                applied: Index(0),
            };
            cluster.nodes.insert(id, node);
        }
        for id in started {
            cluster.restart(*id)?;
        }
        cluster.lines.clear();
        Ok(cluster)
    }

    /// What happened since the last call.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// The nodes that run.
    pub fn running(&self) -> Vec<NodeId> {
        let running = self.nodes.iter().filter(|(_, node)| matches!(node.process, Process::Running(_)));
        running.map(|(id, _)| *id).collect()
    }

    /// A running node.
    ///
    /// # Panics
    /// When the node is down.
    pub fn raft(&self, id: NodeId) -> &Raft<MemoryStorage> {
        match &self.nodes.get(&id).expect("the node exists").process {
            Process::Running(raft) => raft,
            Process::Crashed(_) => panic!("{id} is down"),
        }
    }

    fn raft_mut(&mut self, id: NodeId) -> &mut Raft<MemoryStorage> {
        match &mut self.nodes.get_mut(&id).expect("the node exists").process {
            Process::Running(raft) => raft,
            Process::Crashed(_) => panic!("{id} is down"),
        }
    }

    // ---- a node's turn, part by part ------------------------------------------------------------

    /// Gives the node one message, whoever wrote it.
    pub fn step(&mut self, envelope: Envelope) -> Result<(), StorageError> {
        let (now, to) = (self.now, envelope.to);
        self.raft_mut(to).step(now, envelope)?;
        self.after_step();
        Ok(())
    }

    /// The node notices that its deadline has come.
    pub fn handle_deadline(&mut self, id: NodeId) -> Result<(), StorageError> {
        let now = self.now;
        self.raft_mut(id).handle_deadline(now)?;
        self.after_step();
        Ok(())
    }

    /// Sends what need not wait for the disk.
    pub fn drain(&mut self, id: NodeId) -> Result<(), StorageError> {
        let now = self.now;
        let mut out = Vec::new();
        self.raft_mut(id).drain_immediate(now, &mut out)?;
        for envelope in out {
            assert!(!envelope.message.requires_sync(), "a promise left before the sync: {envelope:?}");
            self.send(envelope);
        }
        self.after_step();
        Ok(())
    }

    /// Syncs the node's disk and sends the promises.
    pub fn sync(&mut self, id: NodeId) -> Result<(), StorageError> {
        let now = self.now;
        let raft = self.raft_mut(id);
        let Synced { messages, committed, reads, restore } = raft.sync(now)?;
        assert_eq!(committed, raft.commit_index().min(raft.synced_index()), "applied before it is certain");
        if let Some(snapshot) = restore {
            assert_eq!(raft.storage().snapshot(), Some(snapshot), "restored from what is there");
            self.note(format!("{id}: restored from the snapshot up to {}", snapshot.last));
        }
        self.apply(id, restore.map_or(Index(0), |snapshot| snapshot.last.index), committed);
        for envelope in messages {
            let Process::Running(raft) = &self.nodes[&id].process else { unreachable!("it just synced") };
            self.checks.check_promise(raft.storage(), &envelope);
            self.send(envelope);
        }
        for (context, index) in reads {
            self.checks.check_read(context, index);
            self.note(format!("{id}: read {} at {index}", context.0));
        }
        self.after_step();
        Ok(())
    }

    /// Applies entries without a gap.
    fn apply(&mut self, id: NodeId, restored: Index, committed: Index) {
        let log_start = self.raft(id).storage().log_start().index;
        let node = self.nodes.get_mut(&id).expect("the node exists");
        assert!(
            restored == Index(0) || restored > node.applied,
            "{id} has applied {} and must not go back to {restored}",
            node.applied
        );
        node.applied = node.applied.max(restored);
        assert!(committed >= node.applied, "{id} has applied {}, more than is committed", node.applied);
        assert!(node.applied >= log_start, "{id} cannot apply what follows {}: it is gone", node.applied);
        node.applied = committed;
    }

    /// The part of a turn that follows the input: drain, sync, drain.
    pub fn turn(&mut self, id: NodeId) -> Result<(), StorageError> {
        self.drain(id)?;
        self.sync(id)?;
        self.drain(id)
    }

    // ---- clients --------------------------------------------------------------------------------

    /// Proposes a command.
    pub fn propose(&mut self, id: NodeId, payload: &[u8]) -> Result<EntryId, ProposeError> {
        self.propose_for(id, payload, Purpose::Growth)
    }

    /// Proposes a command for growth or upkeep.
    pub fn propose_for(
        &mut self,
        id: NodeId,
        payload: &[u8],
        purpose: Purpose,
    ) -> Result<EntryId, ProposeError> {
        let proposed = self.raft_mut(id).propose(payload, purpose)?;
        self.after_step();
        Ok(proposed)
    }

    /// Asks for a read index. Returns the read's number, if the node takes it.
    pub fn read(&mut self, id: NodeId) -> Option<u64> {
        self.contexts += 1;
        let context = ReadContext(self.contexts);
        self.checks.on_read(context);
        self.raft_mut(id).read_index(context).then_some(self.contexts)
    }

    /// Asks the node to hand its leadership over.
    pub fn transfer(&mut self, id: NodeId) {
        let now = self.now;
        self.raft_mut(id).transfer_leadership(now);
    }

    // ---- processes and hints about them ---------------------------------------------------------

    /// Power off: what was not synced is gone.
    pub fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("the node exists");
        let process = std::mem::replace(&mut node.process, Process::Crashed(Box::default()));
        let Process::Running(raft) = process else { panic!("{id} is down already") };
        (node.noted, node.noted_commit) = (None, Index(0));
        node.process = Process::Crashed(Box::new(raft.into_storage().crash()));
    }

    /// Power on, on the disk as it is.
    pub fn restart(&mut self, id: NodeId) -> Result<(), StorageError> {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("the node exists");
        let Process::Crashed(disk) = &node.process else { panic!("{id} runs already") };
        let raft = Raft::new(node.config.clone(), (**disk).clone(), now)?;
        node.applied = raft.storage().snapshot().map_or(Index(0), |snapshot| snapshot.last.index);
        node.process = Process::Running(Box::new(raft));
        self.after_step();
        Ok(())
    }

    /// Another disk is put into a node that is down.
    pub fn replace_disk(&mut self, id: NodeId, disk: MemoryStorage) {
        self.nodes.get_mut(&id).expect("the node exists").process = Process::Crashed(Box::new(disk));
    }

    /// A node that is down gets a new, empty disk.
    pub fn wipe(&mut self, id: NodeId) {
        self.replace_disk(id, MemoryStorage::virgin());
    }

    fn disk_mut(&mut self, id: NodeId) -> &mut MemoryStorage {
        match &mut self.nodes.get_mut(&id).expect("the node exists").process {
            Process::Running(raft) => raft.storage_mut(),
            Process::Crashed(disk) => disk,
        }
    }

    /// A node that is down finds a part of its log damaged: log and snapshot are set aside.
    pub fn set_aside(&mut self, id: NodeId) {
        let disk = self.disk_mut(id).clone().set_aside();
        self.replace_disk(id, disk);
    }

    /// The node's disk has this much space from here on.
    pub fn set_space(&mut self, id: NodeId, space: Option<Space>) {
        self.disk_mut(id).space = space;
    }

    /// How many bytes of entries stay under the node's snapshots from here on.
    pub fn set_margin(&mut self, id: NodeId, bytes: u64) {
        self.disk_mut(id).margin_bytes = bytes;
    }

    /// The node takes a snapshot of what it has applied, of this size. Returns whether there was space.
    pub fn take_snapshot(&mut self, id: NodeId, bytes: Option<usize>) -> Result<bool, StorageError> {
        let applied = self.nodes[&id].applied;
        let disk = self.disk_mut(id);
        let last = EntryId::new(disk.term(applied).expect("applied entries have a term"), applied);
        let content = snapshot_content(last, bytes);
        if !disk.begin_snapshot(last, content.len() as u64)? {
            return Ok(false);
        }
        disk.append_snapshot(&content)?;
        let done = disk.finish_snapshot(None, usize::MAX)?;
        assert!(matches!(done, SnapshotProgress::Done(_)), "memory does not rot");
        self.note(format!("{id}: snapshot up to {last}"));
        self.after_step();
        Ok(true)
    }

    /// The node makes its commit index durable.
    pub fn checkpoint(&mut self, id: NodeId) -> Result<(), StorageError> {
        self.raft_mut(id).checkpoint()
    }

    /// The node learns that it has a new connection to the peer.
    pub fn connected(&mut self, id: NodeId, peer: NodeId) {
        self.raft_mut(id).handle_peer_connected(peer);
    }

    /// The node learns that the peer has another disk. What the peer said before is lost.
    pub fn replaced(&mut self, id: NodeId, peer: NodeId) {
        let now = self.now;
        self.drop_messages(&Filter { to: vec![id], from: Some(peer), ..Filter::default() });
        self.raft_mut(id).handle_peer_replaced(now, peer);
    }

    /// The node learns that the peer has an older copy of its disk. What the peer said before is lost.
    pub fn rolled_back(&mut self, id: NodeId, peer: NodeId) {
        let now = self.now;
        self.drop_messages(&Filter { to: vec![id], from: Some(peer), ..Filter::default() });
        self.raft_mut(id).handle_peer_rolled_back(now, peer);
    }

    /// The node learns that the peer's process has ended.
    pub fn lost(&mut self, id: NodeId, peer: NodeId) {
        let now = self.now;
        self.raft_mut(id).handle_peer_lost(now, peer);
        self.after_step();
    }

    // ---- the network ----------------------------------------------------------------------------

    fn send(&mut self, envelope: Envelope) {
        let text = envelope_text(&envelope);
        if !text.ends_with(" bytes>") && !text.contains(" bytes>,") && !text.contains(" bytes>]") {
            assert_eq!(parse_envelope(&text).as_ref(), Ok(&envelope), "text and message say the same");
        }
        *self.traffic.entry(kind(&envelope.message)).or_default() += 1;
        let is_lost = self.cut.contains(&(envelope.from, envelope.to));
        self.note(if is_lost { format!("{text} (lost)") } else { text });
        if !is_lost {
            self.wire.push_back((self.now.after(LATENCY_MS), envelope));
        }
    }

    fn take(&mut self, filter: &Filter) -> Vec<Envelope> {
        let mut taken = Vec::new();
        let limit = filter.first.unwrap_or(usize::MAX);
        self.wire.retain(|(_, envelope)| {
            let is_taken = taken.len() < limit && filter.matches(envelope);
            if is_taken {
                taken.push(envelope.clone());
            }
            !is_taken
        });
        taken
    }

    /// Gives the messages to their receivers; those for nodes that are down are lost. Returns how many arrived.
    pub fn deliver(&mut self, filter: &Filter) -> Result<usize, StorageError> {
        let mut count = 0;
        for envelope in self.take(filter) {
            if self.is_running(envelope.to) {
                self.step(envelope)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Loses the messages. Returns how many.
    pub fn drop_messages(&mut self, filter: &Filter) -> usize {
        self.take(filter).len()
    }

    /// Sets the messages aside. Returns how many.
    pub fn hold(&mut self, filter: &Filter) -> usize {
        let taken = self.take(filter);
        self.held.extend(taken.iter().cloned());
        taken.len()
    }

    /// Sets copies of the messages aside. Returns how many.
    pub fn duplicate(&mut self, filter: &Filter) -> usize {
        let limit = filter.first.unwrap_or(usize::MAX);
        let copies = self.wire.iter().map(|(_, envelope)| envelope).filter(|e| filter.matches(e)).take(limit);
        let before = self.held.len();
        self.held.extend(copies.cloned());
        self.held.len() - before
    }

    /// Puts what was set aside behind everything that is on its way.
    pub fn release(&mut self) {
        for envelope in std::mem::take(&mut self.held) {
            self.note(format!("{} (released)", envelope_text(&envelope)));
            self.wire.push_back((self.now.after(LATENCY_MS), envelope));
        }
    }

    /// One direction of a link loses everything from here on.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Nothing passes between these nodes and all others from here on.
    pub fn partition(&mut self, side: &[NodeId]) {
        let (inside, outside): (Vec<NodeId>, Vec<NodeId>) =
            self.nodes.keys().partition(|id| side.contains(id));
        for (left, right) in inside.iter().flat_map(|left| outside.iter().map(|right| (*left, *right))) {
            self.cut.extend([(left, right), (right, left)]);
        }
    }

    /// Every link works again. What was lost stays lost.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// How many messages of each kind were sent since the last call.
    pub fn take_traffic(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.traffic)
    }

    // ---- time -----------------------------------------------------------------------------------

    /// Time passes and nobody notices.
    pub fn advance(&mut self, millis: u64) {
        self.now = self.now.after(millis);
    }

    /// Time passes until the node's deadline, and the node notices.
    ///
    /// # Panics
    /// When the node has work left that needs no time: it must take its turn first.
    pub fn timeout(&mut self, id: NodeId) -> Result<(), StorageError> {
        let deadline = self.raft(id).next_deadline();
        assert_ne!(deadline, Millis(0), "{id} must take its turn before time can pass");
        self.now = self.now.max(deadline);
        self.handle_deadline(id)
    }

    /// Everybody takes turns, and messages arrive at once, until nothing is left to do. No time passes.
    pub fn stabilize(&mut self, nodes: &[NodeId]) -> Result<(), StorageError> {
        for _ in 0..ROUNDS_MAX {
            let mut is_active = false;
            for id in nodes.iter().copied() {
                is_active |= self.deliver(&Filter { to: vec![id], ..Filter::default() })? > 0;
                let sent_before = self.wire.len();
                self.turn(id)?;
                let is_left_over = self.raft(id).next_deadline() == Millis(0);
                is_active |= is_left_over || self.wire.len() > sent_before;
            }
            if !is_active {
                return Ok(());
            }
        }
        panic!("the cluster does not come to rest")
    }

    /// Time passes, deadlines are noticed when they come, and each message travels for a millisecond.
    pub fn run(&mut self, millis: u64) -> Result<(), StorageError> {
        let end = self.now.after(millis);
        while self.now < end {
            self.now = self.now.after(1);
            for id in self.running() {
                let mut is_due = false;
                for envelope in self.take_arrived(id) {
                    self.step(envelope)?;
                    is_due = true;
                }
                if is_due || self.raft(id).next_deadline() <= self.now {
                    self.handle_deadline(id)?;
                    self.turn(id)?;
                }
            }
            let running = self.running();
            self.wire.retain(|(_, envelope)| running.contains(&envelope.to));
        }
        Ok(())
    }

    fn take_arrived(&mut self, id: NodeId) -> Vec<Envelope> {
        let now = self.now;
        let mut arrived = Vec::new();
        self.wire.retain(|(due, envelope)| {
            let is_here = envelope.to == id && *due <= now;
            if is_here {
                arrived.push(envelope.clone());
            }
            !is_here
        });
        arrived
    }

    // ---- looking --------------------------------------------------------------------------------

    fn is_running(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| matches!(node.process, Process::Running(_)))
    }

    fn note(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Checks the cluster and notes what has changed.
    fn after_step(&mut self) {
        let rafts: Vec<&Raft<MemoryStorage>> = self.nodes.values().filter_map(Node::raft).collect();
        self.checks.check(&rafts);
        let mut lines = Vec::new();
        for node in self.nodes.values_mut() {
            node.note_changes(&mut lines);
        }
        lines.into_iter().for_each(|line| self.note(line));
    }

    /// One line about a node.
    pub fn status(&self, id: NodeId) -> String {
        match &self.nodes.get(&id).expect("the node exists").process {
            Process::Running(raft) => status_text(raft),
            Process::Crashed(disk) => format!("{id}: down, {}", hard_state_text(&disk.durable_hard_state())),
        }
    }

    /// One line about a node's log.
    pub fn log(&self, id: NodeId) -> String {
        log_text(self.raft(id))
    }
}

impl Node {
    fn raft(&self) -> Option<&Raft<MemoryStorage>> {
        match &self.process {
            Process::Running(raft) => Some(raft),
            Process::Crashed(_) => None,
        }
    }

    fn note_changes(&mut self, lines: &mut Vec<String>) {
        let Process::Running(raft) = &self.process else { return };
        let state = (raft.role(), raft.term(), raft.leader());
        if self.noted.replace(state).is_some_and(|noted| noted != state) {
            lines.push(format!("{}: {}", raft.id(), role_text(raft)));
        }
        if std::mem::replace(&mut self.noted_commit, raft.commit_index()) != raft.commit_index() {
            lines.push(format!("{}: commit {}", raft.id(), raft.commit_index()));
        }
    }
}
