//! A cluster as a model: its state, what may happen next, and what must always hold.

use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use keva::raft::message::{Envelope, Message, ReadContext};
use keva::raft::raft::Raft;
use keva::raft::storage::{Purpose, Storage};
use keva::raft::types::{EntryId, Index, NodeId, RoleName, Term};
use keva::util::mutation::mutant;
use stateright::{Model, Property};

use crate::disk::Disk;
use crate::node::{Ending, Node, Turn};
use crate::wire::Wire;

/// The name of a read, when so many are left: never the same again. Planted bugs that confuse a read with an earlier
/// attempt of the same request need a request that is tried again under its old name.
fn context_of(reads_left: u8) -> ReadContext {
    if mutant("read-round-is-request") { ReadContext(1) } else { ReadContext(100 - u64::from(reads_left)) }
}

/// What may happen, and how often.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Budget {
    pub(crate) crashes: u8,
    pub(crate) proposals: u8,
    pub(crate) reads: u8,
    pub(crate) heartbeats: u8,
}

/// A small cluster and the bounds of what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) disks: Vec<Disk>,
    /// Who may campaign, for which terms.
    pub(crate) campaigns: Vec<(NodeId, Term)>,
    /// Whether candidates ask for promises first. If not, everybody always has a majority of them: the states that
    /// are reached then include those that are reached with pre-votes, which only ever hold an election back.
    pub(crate) pre_votes: bool,
    /// Who leads at the start, in the term after the disks', with nothing under way; nobody if it is `None`.
    pub(crate) leader: Option<NodeId>,
    /// Who may take a write.
    pub(crate) writers: Vec<NodeId>,
    /// Who may ask for reads.
    pub(crate) readers: Vec<NodeId>,
    pub(crate) budget: Budget,
    /// What is to be shown reachable, besides a leader.
    pub(crate) reachable: &'static [(&'static str, fn(&State) -> bool)],
}

/// The nodes, the messages and what an observer remembers.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) nodes: Vec<Arc<Node>>,
    wire: Wire,
    budget: Budget,
    pub(crate) observer: Observer,
}

/// What must not be forgotten, to see a contradiction later.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Observer {
    /// Who led each term.
    leaders: Vec<Option<NodeId>>,
    /// Every entry that anybody knew to be committed.
    pub(crate) committed: Vec<Arc<[u8]>>,
    /// What was committed when each read that is under way began, by the asking node and the read's name.
    pending_reads: Vec<(NodeId, ReadContext, Index)>,
    pub(crate) reads_done: u8,
    /// The rule that was broken.
    pub(crate) broken: Option<String>,
}

/// Something happens to one node, which then takes its turn.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Action {
    Deliver(Arc<Envelope>, Ending),
    Timeout(NodeId),
    Heartbeat(NodeId),
    Propose(NodeId),
    Read(NodeId),
    Crash(NodeId),
}

impl State {
    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[position(id)]
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.nodes.iter().for_each(|node| node.hash().hash(hasher));
        self.wire.hash().hash(hasher);
        (self.budget, &self.observer).hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        let hashes = |state: &State| state.nodes.iter().map(|node| node.hash()).collect::<Vec<_>>();
        hashes(self) == hashes(other)
            && self.wire.hash() == other.wire.hash()
            && (self.budget, &self.observer) == (other.budget, &other.observer)
    }
}

fn position(id: NodeId) -> usize {
    id.0 as usize - 1
}

impl Cluster {
    pub(crate) fn voters(&self) -> Vec<NodeId> {
        (1..=self.disks.len() as u64).map(NodeId).collect()
    }

    /// The state after an election in which everything arrives, and what is late is lost.
    fn settled(&self, mut state: State, leader: NodeId) -> State {
        let mut next = self.act(&state, &Action::Timeout(leader));
        while let Some(reached) = next {
            state = reached;
            let mut arrivals =
                state.wire.messages().cloned().map(|message| Action::Deliver(message, Ending::Whole));
            next = arrivals.find_map(|arrival| self.act(&state, &arrival));
        }
        state.wire.retain(|_| false);
        state
    }

    /// Carries out an action on a copy. `None` when nothing changes.
    fn act(&self, before: &State, action: &Action) -> Option<State> {
        let voters = self.voters();
        let id = action.node();
        let mut node = (*before.nodes[position(id)]).clone();
        let mut ending = Ending::Whole;
        let mut budget = before.budget;
        match action {
            Action::Deliver(envelope, how) => {
                node.step((**envelope).clone());
                ending = *how;
            }
            Action::Timeout(_) if self.pre_votes => node.at_deadline(),
            Action::Timeout(_) => node.campaign(&voters),
            Action::Heartbeat(_) => {
                node.at_deadline();
                budget.heartbeats -= 1;
            }
            Action::Propose(_) => {
                node.raft.propose(b"write", Purpose::Growth).ok()?;
                budget.proposals -= 1;
            }
            Action::Read(_) => {
                if !node.raft.read_index(context_of(budget.reads)) {
                    return None;
                }
                budget.reads -= 1;
            }
            Action::Crash(_) => node.restart(&voters),
        }
        let crashes = ending == Ending::CrashBeforeSync || matches!(action, Action::Crash(_));
        budget.crashes -= u8::from(crashes);
        let Turn { mut sent, reads } = node.finish(ending, &voters);
        sent.retain(|envelope| {
            let is_wanted = self.pre_votes || !matches!(envelope.message, Message::PreVote { .. });
            is_wanted && !before.wire.has(envelope) && !is_dead(envelope, before.node(envelope.to))
        });
        if sent.is_empty()
            && node.hash() == before.node(id).hash()
            && budget == before.budget
            && reads.is_empty()
        {
            return None;
        }
        let mut state = State { budget, ..before.clone() };
        sent.into_iter().for_each(|envelope| state.wire.send(envelope));
        // A repeated request would be another read, and their number is bounded.
        let is_request = |envelope: &Envelope| {
            let is_this = matches!(action, Action::Deliver(this, _) if **this == *envelope);
            is_this && matches!(envelope.message, Message::ReadIndex { .. })
        };
        state
            .wire
            .retain(|envelope| envelope.to != id || !(is_dead(envelope, &node) || is_request(envelope)));
        state.nodes[position(id)] = Arc::new(node);
        if crashes {
            state.observer.forget_reads(id);
        }
        if matches!(action, Action::Read(_)) {
            state.observer.begin_read(id, context_of(before.budget.reads));
        }
        for (context, index) in reads {
            state.observer.end_read(id, context, index);
        }
        let rafts: Vec<&Raft<Disk>> = state.nodes.iter().map(|node| &node.raft).collect();
        state.observer.observe(&rafts);
        Some(state)
    }
}

/// Whether a message can never have an effect on its receiver any more: it answers something that the receiver was in
/// a term that is over, or as a candidate or leader that it can not become again in the same term.
fn is_dead(envelope: &Envelope, receiver: &Node) -> bool {
    let (term, role) = (receiver.raft.term(), receiver.raft.role());
    let is_over = envelope.term < term;
    match envelope.message {
        Message::RequestVoteResponse { .. } => {
            is_over || (envelope.term == term && role != RoleName::Candidate)
        }
        Message::AppendEntriesResponse { .. }
        | Message::HeartbeatResponse { .. }
        | Message::InstallSnapshotResponse { .. } => {
            let is_follower = matches!(role, RoleName::Follower | RoleName::PreCandidate);
            is_over || (envelope.term == term && is_follower)
        }
        Message::PreVoteResponse { campaign_term, .. } => campaign_term <= term && envelope.term <= term,
        _ => false,
    }
}

impl Action {
    fn node(&self) -> NodeId {
        match self {
            Action::Deliver(envelope, _) => envelope.to,
            Action::Timeout(node)
            | Action::Heartbeat(node)
            | Action::Propose(node)
            | Action::Read(node)
            | Action::Crash(node) => *node,
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let voters = self.voters();
        let start = |(id, disk): (&NodeId, &Disk)| {
            Arc::new(Node::start(*id, &voters, disk.clone(), keva::util::time::Millis(1)))
        };
        let nodes: Vec<Arc<Node>> = voters.iter().zip(&self.disks).map(start).collect();
        let mut observer = Observer::default();
        observer.observe(&nodes.iter().map(|node| &node.raft).collect::<Vec<_>>());
        let state = State { nodes, wire: Wire::default(), budget: self.budget, observer };
        vec![match self.leader {
            Some(leader) => self.settled(state, leader),
            None => state,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.observer.broken.is_some() {
            return;
        }
        let budget = state.budget;
        let endings: &[Ending] =
            if budget.crashes > 0 { &[Ending::Whole, Ending::CrashBeforeSync] } else { &[Ending::Whole] };
        for envelope in state.wire.messages() {
            actions.extend(endings.iter().map(|ending| Action::Deliver(envelope.clone(), *ending)));
        }
        for node in &state.nodes {
            let (id, is_leader) = (node.raft.id(), node.raft.is_leader());
            let may_campaign = self.campaigns.contains(&(id, node.raft.term().next()));
            if !is_leader && may_campaign {
                actions.push(Action::Timeout(id));
            }
            if is_leader && budget.heartbeats > 0 {
                actions.push(Action::Heartbeat(id));
            }
            if is_leader && budget.proposals > 0 && self.writers.contains(&id) {
                actions.push(Action::Propose(id));
            }
            if budget.reads > 0 && self.readers.contains(&id) {
                actions.push(Action::Read(id));
            }
            if budget.crashes > 0 {
                actions.push(Action::Crash(id));
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let state = match catch_unwind(AssertUnwindSafe(|| self.act(before, &action))) {
            Ok(state) => state?,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                let mut state = before.clone();
                state.observer.broken = Some(format!("an assertion of the node: {text}"));
                state
            }
        };
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        let mut properties = vec![
            Property::always("safety", |_, state: &State| state.observer.broken.is_none()),
            Property::sometimes("a leader", |_, state: &State| {
                state.nodes.iter().any(|node| node.raft.is_leader())
            }),
        ];
        for (name, _) in self.reachable {
            // A property is a plain function, and so finds its predicate by its place.
            let property = match properties.len() {
                2 => Property::sometimes(name, |cluster: &Cluster, state: &State| {
                    (cluster.reachable[0].1)(state)
                }),
                3 => Property::sometimes(name, |cluster: &Cluster, state: &State| {
                    (cluster.reachable[1].1)(state)
                }),
                _ => Property::sometimes(name, |cluster: &Cluster, state: &State| {
                    (cluster.reachable[2].1)(state)
                }),
            };
            properties.push(property);
        }
        properties
    }
}

impl Observer {
    fn begin_read(&mut self, id: NodeId, context: ReadContext) {
        let latest = Index(self.committed.len() as u64);
        self.pending_reads.retain(|(asker, name, _)| (*asker, *name) != (id, context));
        self.pending_reads.push((id, context, latest));
        self.pending_reads.sort_unstable();
    }

    /// The node that asked is not the same any more.
    fn forget_reads(&mut self, id: NodeId) {
        self.pending_reads.retain(|(asker, _, _)| *asker != id);
    }

    fn end_read(&mut self, id: NodeId, context: ReadContext, index: Index) {
        let is_this = |(asker, name, _): &(NodeId, ReadContext, Index)| (*asker, *name) == (id, context);
        let Some(place) = self.pending_reads.iter().position(is_this) else { return };
        let (_, _, needed) = self.pending_reads.remove(place);
        self.reads_done += 1;
        if index < needed {
            self.broken =
                Some(format!("a stale read at {id}: at {index}, but {needed} was committed before"));
        }
    }

    fn observe(&mut self, nodes: &[&Raft<Disk>]) {
        for raft in nodes {
            self.observe_leader(raft);
            self.observe_committed(raft);
        }
        for (position, left) in nodes.iter().enumerate() {
            for right in &nodes[position + 1..] {
                self.observe_logs(left, right);
            }
        }
    }

    /// Election Safety.
    fn observe_leader(&mut self, raft: &Raft<Disk>) {
        if !raft.is_leader() {
            return;
        }
        let term = raft.term().0 as usize;
        if self.leaders.len() <= term {
            self.leaders.resize(term + 1, None);
        }
        let first = *self.leaders[term].get_or_insert(raft.id());
        if first != raft.id() {
            self.broken = Some(format!("{first} and {} both led term {term}", raft.id()));
        }
    }

    /// State Machine Safety.
    fn observe_committed(&mut self, raft: &Raft<Disk>) {
        // What a snapshot covers is seen on the nodes that have the entries.
        let first = raft.storage().log_start().index.next();
        for index in first.0..=raft.commit_index().0 {
            let bytes = raft.storage().bytes(Index(index));
            match self.committed.get(index as usize - 1) {
                None if index as usize > self.committed.len() + 1 => {}
                None => self.committed.push(bytes.clone()),
                Some(first) if first == bytes => {}
                Some(_) => self.broken = Some(format!("two different entries were committed at {index}")),
            }
        }
    }

    /// Log Matching.
    fn observe_logs(&mut self, left: &Raft<Disk>, right: &Raft<Disk>) {
        let mut is_common = false;
        let first = left.storage().log_start().index.max(right.storage().log_start().index).next();
        for index in (first.0..=left.last_index().min(right.last_index()).0).rev().map(Index) {
            is_common |= left.storage().term(index) == right.storage().term(index);
            if is_common && left.storage().bytes(index) != right.storage().bytes(index) {
                self.broken = Some(format!("{} and {} differ at {index}", left.id(), right.id()));
            }
        }
    }
}

/// Figure 8 of the paper: an entry is durable on a majority, and yet a leader is about to replace it.
pub(crate) fn is_figure_8(state: &State) -> bool {
    state.nodes.iter().filter(|node| node.raft.is_leader()).any(|leader| {
        let log = leader.raft.storage();
        (log.log_start().index.0 + 1..=log.last_index().0).map(Index).any(|index| {
            let own = EntryId::new(log.term(index).expect("it is in the log"), index);
            let others = state.nodes.iter().filter(|node| node.raft.id() != leader.raft.id());
            let mut terms = others.map(|node| node.raft.storage().durable_term(index));
            let first = terms.next().flatten();
            first.is_some_and(|term| term != own.term && leader.raft.term() > term)
                && terms.all(|term| term == first)
        })
    })
}

/// Two nodes believe to lead at the same time.
pub(crate) fn has_two_leaders(state: &State) -> bool {
    state.nodes.iter().filter(|node| node.raft.is_leader()).count() >= 2
}

/// A node that took another leader's entries has its snapshot instead.
pub(crate) fn has_installed(state: &State) -> bool {
    state.nodes.last().is_some_and(|node| node.raft.storage().snapshot().is_some())
}

/// A read was answered.
pub(crate) fn has_read(state: &State) -> bool {
    state.observer.reads_done > 0
}
