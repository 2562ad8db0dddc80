//! A small cluster of replicas in one test: links that keep order and can be cut, nodes that can crash, a clock that
//! only the test moves. After every turn it checks what must always hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use keva::kv::command::{Command, Condition};
use keva::kv::payload::Payload;
use keva::kv::store::{Applied, Store};
use keva::limits::HISTORY_BYTES_DEFAULT;
use keva::raft::message::{Envelope, Message};
use keva::raft::storage::{SnapshotMeta, Storage};
use keva::raft::types::{Incarnation, Index, Life, NodeId};
use keva::replica::io::{Consistency, NotApplied, Outcome, Reply, Request, Ticket};
use keva::replica::replica::{Replica, ReplicaConfig};
use keva::util::time::{LogicalTime, Millis};

use crate::support::memory_storage::MemoryStorage;

/// Election timeout of every node.
pub(crate) const ELECTION_TIMEOUT_MS: u64 = 100;
/// How long requests may take unless a test says otherwise.
pub(crate) const PATIENCE_MS: u64 = 5_000;

struct Node {
    incarnation: Incarnation,
    /// When the process began. Its clock counts from there.
    started_at: Millis,
    disk_id: u64,
    /// How often it was started at all.
    starts: u64,
    /// `None` while the node is down; then its disk is in `storage`.
    replica: Option<Replica<MemoryStorage>>,
    storage: MemoryStorage,
    /// Something other than a deadline asks for a turn.
    woken: bool,
}

impl Node {
    fn life(&self) -> Life {
        Life { disk_id: self.disk_id, incarnation: self.incarnation, process: self.starts }
    }
}

type Filter = Box<dyn FnMut(&Envelope) -> bool>;

/// The nodes are `n1`, `n2`, ...
pub(crate) struct Cluster {
    pub(crate) now: Millis,
    seed: u64,
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<(Millis, Envelope)>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose processes stand still. What is sent to them waits.
    paused: BTreeSet<NodeId>,
    lose: Option<Filter>,
    /// Bytes per millisecond of links that are not infinitely fast, and until when they are busy.
    narrow: BTreeMap<(NodeId, NodeId), (u64, Millis)>,
    /// Every message that was sent and not lost, for tests that want to see them.
    pub(crate) sent: Vec<Envelope>,
    pub(crate) replies: BTreeMap<Ticket, Reply>,
    asked: BTreeSet<Ticket>,
    cancelled: BTreeSet<Ticket>,
    last_ticket: u64,
    hashes: BTreeMap<Index, u64>,
    snapshots: BTreeMap<Index, Vec<u8>>,
    /// Each node's snapshot that was looked at last.
    checked: BTreeMap<NodeId, SnapshotMeta>,
    disks: u64,
    /// Bytes of the log behind which a snapshot is due, in the lives that begin from here on.
    pub(crate) snapshot_log_bytes: u64,
    /// Bytes of past changes that are kept, in the lives that begin from here on.
    pub(crate) history_bytes: usize,
    /// Budget of the housekeeping that every node does each millisecond.
    pub(crate) house: Option<usize>,
}

pub(crate) fn node(n: u64) -> NodeId {
    NodeId(n)
}

pub(crate) fn put(key: &str, value: &str) -> Command {
    put_with_life(key, value, None)
}

/// A put after which the key lives for so many milliseconds.
pub(crate) fn put_with_life(key: &str, value: &str, ttl_ms: Option<u64>) -> Command {
    let condition = Condition::default();
    Command::Put { key: key.into(), value: value.into(), content_type: None, condition, ttl_ms }
}

/// Bytes of a message, but for its head.
fn bulk(message: &Message) -> u64 {
    let bytes = match message {
        Message::AppendEntries { entries, .. } => entries.as_bytes().len(),
        Message::InstallSnapshot { chunk, .. } => chunk.len(),
        _ => 0,
    };
    bytes as u64
}

impl Cluster {
    pub(crate) fn new(size: u64, seed: u64) -> Cluster {
        let mut cluster = Cluster::of(vec![MemoryStorage::default(); size as usize], seed);
        cluster.start_all();
        cluster
    }

    /// Nodes on these disks, none of them started.
    pub(crate) fn of(disks: Vec<MemoryStorage>, seed: u64) -> Cluster {
        let mut cluster = Cluster {
            now: Millis(1_000),
            seed,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            paused: BTreeSet::new(),
            lose: None,
            narrow: BTreeMap::new(),
            sent: Vec::new(),
            replies: BTreeMap::new(),
            asked: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            last_ticket: 0,
            hashes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            checked: BTreeMap::new(),
            disks: 0,
            snapshot_log_bytes: u64::MAX,
            history_bytes: HISTORY_BYTES_DEFAULT,
            house: None,
        };
        for (mut storage, n) in disks.into_iter().zip(1..) {
            // Copies of a disk would fail together.
            storage.faults = Default::default();
            cluster.disks += 1;
            let down = Node {
                incarnation: Incarnation(0),
                started_at: Millis(0),
                disk_id: cluster.disks,
                starts: 0,
                replica: None,
                storage,
                woken: false,
            };
            cluster.nodes.insert(NodeId(n), down);
        }
        cluster
    }

    pub(crate) fn start_all(&mut self) {
        for id in self.ids() {
            self.start(id);
        }
    }

    /// A cluster with a leader whose nodes take a snapshot behind this many bytes of the log, in slices of `budget`
    /// bytes, one a millisecond.
    pub(crate) fn with_snapshots(size: u64, seed: u64, log_bytes: u64, budget: usize) -> (Cluster, NodeId) {
        let mut cluster = Cluster::of(vec![MemoryStorage::default(); size as usize], seed);
        (cluster.snapshot_log_bytes, cluster.house) = (log_bytes, Some(budget));
        cluster.start_all();
        let leader = cluster.await_leader();
        (cluster, leader)
    }

    /// A cluster with a leader that every node knows and can commit.
    pub(crate) fn with_leader(size: u64, seed: u64) -> (Cluster, NodeId) {
        let mut cluster = Cluster::new(size, seed);
        let leader = cluster.await_leader();
        (cluster, leader)
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    pub(crate) fn up(&self) -> Vec<NodeId> {
        self.ids().into_iter().filter(|id| self.nodes[id].replica.is_some()).collect()
    }

    pub(crate) fn replica(&self, id: NodeId) -> &Replica<MemoryStorage> {
        self.nodes[&id].replica.as_ref().expect("the node is up")
    }

    pub(crate) fn replica_mut(&mut self, id: NodeId) -> &mut Replica<MemoryStorage> {
        let node = self.nodes.get_mut(&id).expect("a known node");
        node.woken = true;
        node.replica.as_mut().expect("the node is up")
    }

    /// What the node's own clock shows: milliseconds since its process began.
    pub(crate) fn clock(&self, id: NodeId) -> Millis {
        Millis(self.now - self.nodes[&id].started_at)
    }

    /// The node's clock is ahead of where it would be from here on.
    pub(crate) fn leap(&mut self, id: NodeId, millis: u64) {
        let started_at = &mut self.nodes.get_mut(&id).expect("a known node").started_at;
        *started_at = Millis(started_at.0 - millis);
    }

    pub(crate) fn incarnation(&self, id: NodeId) -> Incarnation {
        self.nodes[&id].incarnation
    }

    // ---- faults ---------------------------------------------------------------------------------

    /// Starts a node on its disk, in a new incarnation, and connects it.
    pub(crate) fn start(&mut self, id: NodeId) {
        let (seed, now, voters) = (self.seed, self.now, self.ids());
        let history_bytes = self.history_bytes;
        let snapshot_log_bytes = self.snapshot_log_bytes;
        let node = self.nodes.get_mut(&id).expect("a known node");
        assert!(node.replica.is_none(), "{id} is up already");
        node.starts += 1;
        node.incarnation = Incarnation(node.incarnation.0 + 1).max(node.storage.incarnation());
        let config = ReplicaConfig {
            id,
            incarnation: node.incarnation,
            voters,
            election_timeout_ms: ELECTION_TIMEOUT_MS,
            heartbeat_interval_ms: ELECTION_TIMEOUT_MS / 10,
            seed: seed.wrapping_mul(1_000_003) + id.0 * 31 + node.incarnation.0,
            snapshot_log_bytes,
            history_bytes,
            // So that removals take several turns.
            keys_per_turn: 2,
        };
        let storage = std::mem::take(&mut node.storage);
        node.started_at = now;
        node.replica = Some(Replica::new(config, storage, Millis(0)).expect("a good disk"));
        for other in self.others(id) {
            self.connect(id, other);
        }
    }

    /// Tells two nodes that they have new links to one another, if both are up and nothing is cut.
    pub(crate) fn connect(&mut self, one: NodeId, other: NodeId) {
        for (here, peer) in [(one, other), (other, one)] {
            self.links.remove(&(here, peer));
        }
        for (here, peer) in [(one, other), (other, one)] {
            let both_up = self.nodes[&here].replica.is_some() && self.nodes[&peer].replica.is_some();
            if both_up && !self.cut.contains(&(here, peer)) && !self.cut.contains(&(peer, here)) {
                let (now, life) = (self.clock(here), self.nodes[&peer].life());
                self.replica_mut(here).handle_peer_connected(now, peer, life);
            }
        }
    }

    /// Ends a process with a power cut: only what was synced is left. The others see its links break.
    pub(crate) fn crash(&mut self, id: NodeId) {
        self.end(id);
        for other in self.others(id) {
            let now = self.clock(other);
            if self.nodes[&other].replica.is_some() && !self.cut.contains(&(other, id)) {
                self.replica_mut(other).handle_peer_lost(now, id);
            }
        }
    }

    /// The same, and nobody notices that it was gone.
    pub(crate) fn end(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        node.storage = node.replica.take().expect("the node is up").into_storage().crash();
        self.links.retain(|(from, to), _| *from != id && *to != id);
    }

    /// A node that is down gets an empty disk, and with it forgets how often it was started.
    pub(crate) fn wipe(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        assert!(node.replica.is_none(), "{id} is up");
        self.disks += 1;
        (node.storage, node.incarnation, node.disk_id) =
            (MemoryStorage::virgin(), Incarnation(0), self.disks);
    }

    /// What a node that is down has, to be put back later.
    pub(crate) fn copy_disk(&self, id: NodeId) -> (MemoryStorage, Incarnation) {
        assert!(self.nodes[&id].replica.is_none(), "{id} is up");
        (self.nodes[&id].storage.clone(), self.nodes[&id].incarnation)
    }

    /// An older copy takes the place of the disk of a node that is down.
    pub(crate) fn roll_back(&mut self, id: NodeId, copy: &(MemoryStorage, Incarnation)) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        assert!(node.replica.is_none(), "{id} is up");
        (node.storage, node.incarnation) = copy.clone();
    }

    /// The disk of a node that is down.
    pub(crate) fn disk_mut(&mut self, id: NodeId) -> &mut MemoryStorage {
        let node = self.nodes.get_mut(&id).expect("a known node");
        assert!(node.replica.is_none(), "{id} is up");
        &mut node.storage
    }

    /// Messages from one node to the other vanish, and nobody notices.
    pub(crate) fn cut_one_way(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
        self.links.remove(&(from, to));
    }

    pub(crate) fn cut(&mut self, one: NodeId, other: NodeId) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    pub(crate) fn isolate(&mut self, id: NodeId) {
        for other in self.others(id) {
            self.cut(id, other);
        }
    }

    /// The process stands still until [`Cluster::heal`], at any point between two turns, and nobody notices.
    pub(crate) fn pause(&mut self, id: NodeId) {
        self.paused.insert(id);
    }

    /// All processes go on.
    pub(crate) fn unpause(&mut self) {
        self.paused.clear();
    }

    /// Nothing passes to or from the node, and the others take it for ended. So there may soon be another leader, while
    /// the node itself leads on for as long as it believes that it hears from the others.
    pub(crate) fn isolate_as_lost(&mut self, id: NodeId) {
        self.isolate(id);
        for other in self.up().into_iter().filter(|other| *other != id) {
            let now = self.clock(other);
            self.replica_mut(other).handle_peer_lost(now, id);
        }
    }

    /// Nothing is cut, lost or paused from here on; links that were cut are new ones.
    pub(crate) fn heal(&mut self) {
        self.lose = None;
        self.paused.clear();
        for (from, to) in std::mem::take(&mut self.cut) {
            self.connect(from, to);
        }
    }

    /// Loses the messages that the test chooses, until [`Cluster::heal`].
    pub(crate) fn lose(&mut self, filter: impl FnMut(&Envelope) -> bool + 'static) {
        self.lose = Some(Box::new(filter));
    }

    /// From here on what is sent on this link takes its time: so many bytes in a millisecond.
    pub(crate) fn narrow(&mut self, from: NodeId, to: NodeId, rate: u64) {
        self.narrow.insert((from, to), (rate, self.now));
    }

    /// Puts a message on a link that no node has sent now.
    pub(crate) fn inject(&mut self, envelope: Envelope) {
        self.links.entry((envelope.from, envelope.to)).or_default().push_back((self.now, envelope));
    }

    // ---- time -----------------------------------------------------------------------------------

    /// Lets this many milliseconds pass, one by one.
    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now = self.now.after(1);
            for id in self.up() {
                // Work that is left over is done without waiting, as the loop does.
                let mut turns = 0;
                while self.turn_if_due(id) {
                    turns += 1;
                    assert!(turns < 1_000, "{id} asks for turn after turn and gets nothing done");
                }
                self.keep_house(id);
            }
        }
    }

    /// Runs until the condition holds.
    #[track_caller]
    pub(crate) fn run_until(&mut self, what: &str, mut condition: impl FnMut(&Cluster) -> bool) {
        for _ in 0..20_000 {
            if condition(self) {
                return;
            }
            self.run(1);
        }
        panic!("waited for 20 seconds in vain until {what}");
    }

    fn keep_house(&mut self, id: NodeId) {
        let Some(budget) = self.house.filter(|_| !self.paused.contains(&id)) else { return };
        self.replica_mut(id).keep_house(budget).expect("memory works");
        self.check_snapshot(id);
    }

    /// D13: nodes that have taken a snapshot at the same entry have the same one, and it says where it was taken.
    fn check_snapshot(&mut self, id: NodeId) {
        let storage = self.replica(id).raft().storage();
        let (Some(snapshot), Some(bytes)) = (storage.snapshot(), storage.snapshot_bytes()) else { return };
        if self.checked.get(&id) == Some(&snapshot) {
            return;
        }
        let last = snapshot.last.index;
        if let Some(known) = self.snapshots.get(&last) {
            assert!(known == bytes, "{id} has another snapshot at {last} than another node");
            self.checked.insert(id, snapshot);
            return;
        }
        let restored = Store::restore(bytes).expect("a node's own snapshot is sound");
        assert_eq!(restored.applied_index(), last);
        if let Some(hash) = self.hashes.get(&last) {
            assert_eq!(restored.state_hash(), *hash, "the snapshot of {id} is not the state at {last}");
        }
        let bytes = bytes.to_vec();
        self.snapshots.insert(last, bytes);
        self.checked.insert(id, snapshot);
    }

    fn turn_if_due(&mut self, id: NodeId) -> bool {
        let now = self.now;
        let node = &self.nodes[&id];
        let Some(replica) = &node.replica else { return false };
        if self.paused.contains(&id) {
            return false;
        }
        let arrived = |link: &VecDeque<(Millis, Envelope)>| link.front().is_some_and(|(due, _)| *due <= now);
        let has_input = self.links.iter().any(|((_, to), link)| *to == id && arrived(link));
        let due = has_input || node.woken || replica.next_deadline() <= self.clock(id);
        if due {
            self.turn(id);
        }
        due
    }

    fn turn(&mut self, id: NodeId) {
        let now = self.now;
        let mut input = Vec::new();
        for ((_, to), link) in &mut self.links {
            while *to == id && link.front().is_some_and(|(due, _)| *due <= now) {
                input.extend(link.pop_front().map(|(_, envelope)| envelope));
            }
        }
        let now = self.clock(id);
        let replica = self.replica_mut(id);
        for envelope in input {
            replica.handle_envelope(now, envelope).expect("memory works");
        }
        let mut out = Vec::new();
        replica.handle_deadline(now).expect("memory works");
        replica.drain_immediate(now, &mut out).expect("memory works");
        let output = replica.sync(now).expect("memory works");
        out.extend(output.messages);
        replica.drain_immediate(now, &mut out).expect("memory works");
        for envelope in out {
            self.send(envelope);
        }
        for reply in output.replies {
            assert!(self.asked.contains(&reply.ticket), "{reply:?} answers nothing");
            assert!(!self.cancelled.contains(&reply.ticket), "{reply:?} answers a client that is gone");
            let other = self.replies.insert(reply.ticket, reply.clone());
            assert!(other.is_none(), "two answers to one request: {other:?} and {reply:?}");
        }
        self.nodes.get_mut(&id).expect("a known node").woken = false;
        self.check(id);
    }

    fn send(&mut self, envelope: Envelope) {
        self.check_time(&envelope);
        let link = (envelope.from, envelope.to);
        let lost = self.lose.as_mut().is_some_and(|lose| lose(&envelope));
        if lost || self.cut.contains(&link) || self.nodes[&envelope.to].replica.is_none() {
            return;
        }
        let mut due = self.now.after(1);
        if let Some((rate, busy)) = self.narrow.get_mut(&link) {
            *busy = (*busy).max(self.now).after(bulk(&envelope.message) / *rate);
            due = due.max(*busy);
        }
        self.sent.push(envelope.clone());
        self.links.entry(link).or_default().push_back((due, envelope));
    }

    /// D13: nodes that have applied equally far have equal states.
    fn check(&mut self, id: NodeId) {
        let replica = self.replica(id);
        let status = replica.status();
        assert!(status.applied_index <= status.commit_index && status.commit_index <= status.last_index);
        if !replica.store().is_settled() {
            return;
        }
        let hash = replica.store().state_hash();
        let known = *self.hashes.entry(status.applied_index).or_insert(hash);
        assert_eq!(known, hash, "{id} differs from another node at {}", status.applied_index);
    }

    /// J2, J3: only a leader that has applied an entry of its own term says what time it is.
    fn check_time(&self, envelope: &Envelope) {
        let Message::Heartbeat { time, .. } = &envelope.message else { return };
        let status = self.replica(envelope.from).status();
        let storage = self.replica(envelope.from).raft().storage();
        let holds_office = storage.term(status.applied_index) >= Some(envelope.term);
        assert!(holds_office || time.0 == 0, "{} must not say what time it is", envelope.from);
    }

    // ---- requests -------------------------------------------------------------------------------

    pub(crate) fn submit(&mut self, id: NodeId, request: Request, patience: u64) -> Ticket {
        self.last_ticket += 1;
        let (now, ticket) = (self.clock(id), Ticket(self.last_ticket));
        self.asked.insert(ticket);
        self.replica_mut(id).submit(now, ticket, request, now.after(patience));
        ticket
    }

    pub(crate) fn cancel(&mut self, id: NodeId, ticket: Ticket) {
        self.cancelled.insert(ticket);
        self.replica_mut(id).cancel(ticket);
    }

    pub(crate) fn start_write(&mut self, id: NodeId, key: &str, value: &str) -> Ticket {
        self.submit(id, write_of(put(key, value)), PATIENCE_MS)
    }

    pub(crate) fn start_read(&mut self, id: NodeId, key: &str) -> Ticket {
        self.submit(id, read_of(key, Consistency::Linearizable), PATIENCE_MS)
    }

    pub(crate) fn reply(&self, ticket: Ticket) -> Option<&Reply> {
        self.replies.get(&ticket)
    }

    #[track_caller]
    pub(crate) fn await_reply(&mut self, ticket: Ticket) -> Reply {
        self.run_until(&format!("{ticket:?} is answered"), |cluster| cluster.replies.contains_key(&ticket));
        self.replies[&ticket].clone()
    }

    /// Writes, and returns the revision.
    #[track_caller]
    pub(crate) fn write(&mut self, id: NodeId, key: &str, value: &str) -> Index {
        let ticket = self.start_write(id, key, value);
        let reply = self.await_reply(ticket);
        assert_eq!(reply.outcome, WRITTEN, "{key}={value} on {id}");
        reply.revision
    }

    #[track_caller]
    pub(crate) fn read(&mut self, id: NodeId, key: &str) -> Option<String> {
        let ticket = self.start_read(id, key);
        value_in(&self.await_reply(ticket))
    }

    pub(crate) fn read_stale(&mut self, id: NodeId, key: &str) -> Option<String> {
        let ticket = self.submit(id, read_of(key, Consistency::Stale), 0);
        self.turn(id);
        value_in(&self.replies[&ticket])
    }

    // ---- what the test wants to know ------------------------------------------------------------

    /// Waits until a node leads, a majority follows it, and it can commit.
    #[track_caller]
    pub(crate) fn await_leader(&mut self) -> NodeId {
        self.run_until("a leader is followed by all and can commit", |cluster| cluster.leader().is_some());
        self.leader().expect("just seen")
    }

    /// The leader, if all nodes that are up and not cut off agree on it, and its term has a committed entry.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let cut_off = |id: &NodeId| self.others(*id).iter().all(|other| self.cut.contains(&(*id, *other)));
        let reachable: Vec<NodeId> =
            self.up().into_iter().filter(|id| self.ids().len() == 1 || !cut_off(id)).collect();
        let leader = self.replica(*reachable.first()?).status().leader?;
        let agreed = reachable.iter().all(|id| self.replica(*id).status().leader == Some(leader));
        let replica = self.nodes[&leader].replica.as_ref()?;
        let status = replica.status();
        let ready = replica.raft().is_leader()
            && replica.raft().storage().term(status.commit_index) == Some(status.term);
        (agreed && ready).then_some(leader)
    }

    /// Waits until all nodes that are up have applied everything that is committed, and nothing waits anywhere.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        self.run_until("everything is applied everywhere", |cluster| {
            let up = cluster.up();
            let applied = |id: &NodeId| cluster.replica(*id).status().applied_index;
            let last = |id: &NodeId| cluster.replica(*id).status().last_index;
            up.iter().all(|id| applied(id) == applied(&up[0]) && last(id) == applied(id))
                && up.iter().all(|id| cluster.replica(*id).in_flight() == Default::default())
        });
    }

    /// Every put that took effect, as (index, key, value): computed from the log alone.
    pub(crate) fn effects(&self, id: NodeId) -> Vec<(Index, String, String)> {
        let storage = self.replica(id).raft().storage();
        let mut newest = BTreeMap::new();
        let mut effects = Vec::new();
        assert_eq!(storage.log_start().index, Index(0), "the log is whole");
        for index in (1..=storage.last_index().0).map(Index) {
            let entry = storage.entry(index).expect("memory works");
            let Ok(Payload { id, write, .. }) = Payload::decode(entry.payload()) else { continue };
            let number = (id.incarnation, id.seq);
            if newest.get(&id.origin).is_some_and(|newest| *newest >= number) {
                continue;
            }
            newest.insert(id.origin, number);
            if let Command::Put { key, value, .. } = write.command {
                effects.push((index, key, String::from_utf8(value).expect("tests write text")));
            }
        }
        effects
    }

    /// The commands in the node's log, with their revisions and times.
    pub(crate) fn commands(&self, id: NodeId) -> Vec<(Index, LogicalTime, Command)> {
        let storage = self.replica(id).raft().storage();
        let decode = |index: u64| {
            let entry = storage.entry(Index(index)).expect("memory works");
            let Payload { time, write, .. } = Payload::decode(entry.payload()).ok()?;
            Some((Index(index), time, write.command))
        };
        (storage.log_start().index.0 + 1..=storage.last_index().0).filter_map(decode).collect()
    }

    /// How many entries of the node's log are about the key.
    pub(crate) fn copies_in_log(&self, id: NodeId, key: &str) -> usize {
        let storage = self.replica(id).raft().storage();
        let about_key = |index: &u64| {
            let entry = storage.entry(Index(*index)).expect("memory works");
            Payload::decode(entry.payload()).is_ok_and(|payload| payload.write.command.key() == Some(key))
        };
        (storage.log_start().index.0 + 1..=storage.last_index().0).filter(about_key).count()
    }
}

/// What a write that took effect is answered with.
pub(crate) const WRITTEN: Outcome = Outcome::Applied(Applied::Written);

/// What a write is answered with whose condition does not hold.
pub(crate) fn condition_failed(current: Option<Index>) -> Outcome {
    Outcome::Applied(Applied::ConditionFailed { current })
}

pub(crate) fn write_of(command: Command) -> Request {
    Request::Write(command.into())
}

pub(crate) fn read_of(key: &str, consistency: Consistency) -> Request {
    Request::Read { key: key.into(), consistency }
}

#[track_caller]
pub(crate) fn value_in(reply: &Reply) -> Option<String> {
    match &reply.outcome {
        Outcome::Value(item) => {
            item.as_ref().map(|item| String::from_utf8(item.value.to_vec()).expect("tests write text"))
        }
        other => panic!("no value but {other:?}"),
    }
}

pub(crate) fn not_applied(reason: NotApplied) -> Outcome {
    Outcome::NotApplied(reason)
}

pub(crate) fn is_forward(envelope: &Envelope) -> bool {
    matches!(envelope.message, Message::Forward { .. })
}
