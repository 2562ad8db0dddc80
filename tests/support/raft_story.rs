//! The language of the protocol stories in `tests/raft_stories`, and what its commands do with a [`Cluster`].

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

use keva::raft::raft::ProposeError;
use keva::raft::storage::{Purpose, Storage};
use keva::raft::types::{EntryId, HardState, Index, NodeId, Standing, Term};

use super::memory_storage::{MemoryStorage, Space};
use super::raft_cluster::{Cluster, Filter, disk};
use super::raft_text::{parse_envelope, parse_id, parse_node};

/// What a story can say. Nodes are numbers. Where nodes may be left out, all that run are meant.
#[derive(goldenscript::Command)]
pub enum StoryCommand {
    /// Starts a cluster. With `leader`, that node has been elected in term 1 and everybody knows. With `only`, the
    /// other nodes are down, and the story speaks for them. A node's disk is given as the terms of its entries, and
    /// optionally term=, vote=, commit= and snapshot=, and virgin or recovering for a node that may not vote yet.
    /// Example: cluster nodes=3 n1="1 1 2 term=3 vote=2" n2=virgin
    Cluster {
        #[arg(key)]
        nodes: u64,
        #[arg(key)]
        leader: Option<u64>,
        #[arg(key)]
        only: Option<u64>,
        #[arg(key, many, optional)]
        disks: BTreeMap<String, String>,
    },
    /// The clock moves to the node's deadline, and that node alone notices. Example: timeout 1
    Timeout(u64),
    /// Time passes in milliseconds and nobody notices. Example: advance 500
    Advance(u64),
    /// The node looks at the clock. Example: tick 1
    Tick(u64),
    /// Time passes in milliseconds; everybody takes turns, each message travels for 1 ms. Shows what the nodes become,
    /// not what they say. Example: run 1000
    Run(u64),
    /// Proposes commands, in order. Example: propose 1 a=1 b=2
    Propose(u64, #[arg(key, many)] Vec<(String, String)>),
    /// Proposes commands that may use the disk's reserve. Example: upkeep 1 a=1
    Upkeep(u64, #[arg(key, many)] Vec<(String, String)>),
    /// Proposes a command of so many bytes. Example: propose_large 1 600000
    ProposeLarge(u64, usize),
    /// Proposes commands one by one, draining after each, so that each travels in a message of its own. Quiet.
    /// Example: burst 1 64
    Burst(u64, u64),
    /// Asks for a linearizable read. Example: read 2
    Read(u64),
    /// Asks for several reads. Quiet; tells how many were taken. Example: read_many 2 100
    ReadMany(u64, u64),
    /// Asks the node to hand its leadership over. Example: transfer 1
    Transfer(u64),
    /// The nodes send what need not wait for their disks. Example: drain 1
    Drain(#[arg(pos, many, optional)] Vec<u64>),
    /// The nodes sync their disks and send their promises. Example: sync 1 2
    Sync(#[arg(pos, many, optional)] Vec<u64>),
    /// The nodes drain, sync and drain again. Example: turn 1
    Turn(#[arg(pos, many, optional)] Vec<u64>),
    /// Messages arrive. Example: deliver 2 from=1 kind=Heartbeat first=1
    Deliver {
        #[arg(pos, many, optional)]
        to: Vec<u64>,
        #[arg(key)]
        from: Option<u64>,
        #[arg(key)]
        kind: Option<String>,
        #[arg(key)]
        first: Option<usize>,
    },
    /// Messages are lost. Arguments as for deliver.
    Drop {
        #[arg(pos, many, optional)]
        to: Vec<u64>,
        #[arg(key)]
        from: Option<u64>,
        #[arg(key)]
        kind: Option<String>,
        #[arg(key)]
        first: Option<usize>,
    },
    /// Messages are delayed until released. Arguments as for deliver.
    Hold {
        #[arg(pos, many, optional)]
        to: Vec<u64>,
        #[arg(key)]
        from: Option<u64>,
        #[arg(key)]
        kind: Option<String>,
        #[arg(key)]
        first: Option<usize>,
    },
    /// Messages are doubled; the copies are held. Arguments as for deliver.
    Duplicate {
        #[arg(pos, many, optional)]
        to: Vec<u64>,
        #[arg(key)]
        from: Option<u64>,
        #[arg(key)]
        kind: Option<String>,
        #[arg(key)]
        first: Option<usize>,
    },
    /// Held messages are on their way again, behind all others.
    Release,
    /// Messages arrive and nodes take turns until nothing is left to do. No time passes. Example: stabilize 1 2
    Stabilize(#[arg(pos, many, optional)] Vec<u64>),
    /// A message written by hand arrives. Example: step "n2@1 -> n1 HeartbeatResponse round=0"
    Step(String),
    /// The node loses its power, and everything it had not synced. Example: crash 1
    Crash(u64),
    /// The node starts on what its disk holds. Example: restart 1
    Restart(u64),
    /// The disk of a node that is down is exchanged; written as for cluster. Example: disk n2="1 1 term=2"
    Disk(#[arg(key, many)] BTreeMap<String, String>),
    /// The disk of a node that is down is exchanged for one that was never used. Example: wipe 1
    Wipe(u64),
    /// A node that is down finds its log damaged: log and snapshot are set aside, the hard state stays. Example: damage 1
    Damage(u64),
    /// The nodes take a snapshot of what they have applied, of so many bytes, and cut the log but for so many bytes of
    /// entries under it. Example: snapshot 1 2 size=300000 margin=64
    Snapshot {
        #[arg(pos, many, optional)]
        nodes: Vec<u64>,
        #[arg(key)]
        size: Option<usize>,
        #[arg(key)]
        margin: Option<u64>,
    },
    /// The node's disk has room for so many bytes of entries and snapshots, the last ones only for upkeep. Without a
    /// number there is room for everything. Example: space 1 bytes=200 reserve=64
    Space {
        node: u64,
        #[arg(key)]
        bytes: Option<u64>,
        #[arg(key)]
        reserve: Option<u64>,
    },
    /// The node makes its commit index durable. Example: checkpoint 1
    Checkpoint(u64),
    /// Messages from one node to another are lost from here on. Example: cut from=1 to=2
    Cut {
        #[arg(key)]
        from: u64,
        #[arg(key)]
        to: u64,
    },
    /// Nothing passes between these nodes and all others. Example: partition 1 2
    Partition(Vec<u64>),
    /// Every link works again.
    Heal,
    /// The first node learns that it has a new connection to the second. Example: connected 1 2
    Connected(u64, u64),
    /// The first node learns that the second's process has ended. Example: lost 2 1
    Lost(u64, u64),
    /// The first node learns that the second has another disk. What is on its way from it is lost. Example: replaced 1 2
    Replaced(u64, u64),
    /// The first node learns that the second has an older copy of its disk. Example: rolled_back 1 2
    RolledBack(u64, u64),
    /// One line per node.
    Status(#[arg(pos, many, optional)] Vec<u64>),
    /// One line per log: what is known to be committed stands before the bar, `~` marks what is not durable.
    Log(#[arg(pos, many, optional)] Vec<u64>),
    /// How many messages were sent since the last time.
    Traffic,
}

/// Runs one story.
#[derive(Default)]
pub struct StoryRunner {
    cluster: Option<Cluster>,
}

impl goldenscript::Runner for StoryRunner {
    type Command = StoryCommand;

    fn run(
        &mut self,
        command: &StoryCommand,
        _context: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        if let StoryCommand::Cluster { nodes, leader, only, disks } = command {
            self.cluster = Some(start(*nodes, *leader, *only, disks)?);
            return Ok(String::new());
        }
        let cluster = self.cluster.as_mut().ok_or("a story begins with a cluster")?;
        let mut output = String::new();
        let result = run_command(cluster, command, &mut output);
        let mut lines = cluster.take_lines().join("\n");
        result?;
        if !lines.is_empty() {
            lines.push('\n');
        }
        Ok(lines + &output)
    }
}

fn run_command(
    cluster: &mut Cluster,
    command: &StoryCommand,
    output: &mut String,
) -> Result<(), Box<dyn Error>> {
    match command {
        StoryCommand::Cluster { .. } => unreachable!("handled by the caller"),
        StoryCommand::Timeout(id) => cluster.timeout(NodeId(*id))?,
        StoryCommand::Advance(millis) => cluster.advance(*millis),
        StoryCommand::Tick(id) => cluster.handle_deadline(NodeId(*id))?,
        StoryCommand::Run(millis) => run_quietly(cluster, *millis, output)?,
        StoryCommand::Propose(id, commands) => {
            for (key, value) in commands {
                cluster.propose(NodeId(*id), format!("{key}={value}").as_bytes()).map_err(refusal)?;
            }
        }
        StoryCommand::Upkeep(id, commands) => {
            for (key, value) in commands {
                let payload = format!("{key}={value}");
                cluster.propose_for(NodeId(*id), payload.as_bytes(), Purpose::Upkeep).map_err(refusal)?;
            }
        }
        StoryCommand::ProposeLarge(id, bytes) => {
            cluster.propose(NodeId(*id), &vec![b'x'; *bytes]).map_err(refusal)?;
        }
        StoryCommand::Burst(id, count) => {
            for number in 0..*count {
                cluster.propose(NodeId(*id), format!("k={number}").as_bytes()).map_err(refusal)?;
                cluster.drain(NodeId(*id))?;
            }
            cluster.take_lines();
        }
        StoryCommand::Read(id) => match cluster.read(NodeId(*id)) {
            Some(read) => writeln!(output, "read {read} is asked for")?,
            None => writeln!(output, "refused")?,
        },
        StoryCommand::ReadMany(id, count) => {
            let taken = (0..*count).filter_map(|_| cluster.read(NodeId(*id))).count();
            writeln!(output, "{taken} reads taken, {} refused", *count - taken as u64)?;
        }
        StoryCommand::Transfer(id) => cluster.transfer(NodeId(*id)),
        StoryCommand::Drain(ids) => each(cluster, ids, Cluster::drain)?,
        StoryCommand::Sync(ids) => each(cluster, ids, Cluster::sync)?,
        StoryCommand::Turn(ids) => each(cluster, ids, Cluster::turn)?,
        StoryCommand::Stabilize(ids) => {
            let ids = nodes_or_all(cluster, ids);
            cluster.stabilize(&ids)?;
        }
        StoryCommand::Step(text) => cluster.step(parse_envelope(text)?)?,
        StoryCommand::Connected(id, peer) => cluster.connected(NodeId(*id), NodeId(*peer)),
        StoryCommand::Lost(id, peer) => cluster.lost(NodeId(*id), NodeId(*peer)),
        StoryCommand::Replaced(id, peer) => cluster.replaced(NodeId(*id), NodeId(*peer)),
        StoryCommand::RolledBack(id, peer) => cluster.rolled_back(NodeId(*id), NodeId(*peer)),
        StoryCommand::Status(ids) => {
            for id in nodes_or_all(cluster, ids) {
                writeln!(output, "{}", cluster.status(id))?;
            }
        }
        StoryCommand::Log(ids) => {
            for id in nodes_or_all(cluster, ids) {
                writeln!(output, "{}", cluster.log(id))?;
            }
        }
        StoryCommand::Traffic => {
            for (kind, count) in cluster.take_traffic() {
                writeln!(output, "{count} {kind}")?;
            }
        }
        disk_or_network => run_disk_command(cluster, disk_or_network, output)?,
    }
    Ok(())
}

/// The commands about processes and their disks.
fn run_disk_command(
    cluster: &mut Cluster,
    command: &StoryCommand,
    output: &mut String,
) -> Result<(), Box<dyn Error>> {
    match command {
        StoryCommand::Crash(id) => cluster.crash(NodeId(*id)),
        StoryCommand::Restart(id) => cluster.restart(NodeId(*id))?,
        StoryCommand::Disk(disks) => {
            for (node, text) in disks {
                cluster.replace_disk(parse_node(node)?, parse_disk(text)?);
            }
        }
        StoryCommand::Wipe(id) => cluster.wipe(NodeId(*id)),
        StoryCommand::Damage(id) => cluster.set_aside(NodeId(*id)),
        StoryCommand::Checkpoint(id) => cluster.checkpoint(NodeId(*id))?,
        StoryCommand::Space { node, bytes, reserve } => {
            let space = bytes.map(|bytes| Space { bytes, reserve: reserve.unwrap_or(0) });
            cluster.set_space(NodeId(*node), space);
        }
        StoryCommand::Snapshot { nodes, size, margin } => {
            for id in nodes_or_all(cluster, nodes) {
                cluster.set_margin(id, margin.unwrap_or(0));
                if !cluster.take_snapshot(id, *size)? {
                    writeln!(output, "{id}: no space for a snapshot")?;
                }
            }
        }
        network => run_network_command(cluster, network, output)?,
    }
    Ok(())
}

/// The commands about messages and links.
fn run_network_command(
    cluster: &mut Cluster,
    command: &StoryCommand,
    output: &mut String,
) -> Result<(), Box<dyn Error>> {
    match command {
        StoryCommand::Deliver { to, from, kind, first } => {
            if cluster.deliver(&filter(to, *from, kind, *first))? == 0 {
                return Err("there is nothing to deliver".into());
            }
        }
        StoryCommand::Drop { to, from, kind, first } => {
            let count = cluster.drop_messages(&filter(to, *from, kind, *first));
            writeln!(output, "{count} lost")?;
        }
        StoryCommand::Hold { to, from, kind, first } => {
            let count = cluster.hold(&filter(to, *from, kind, *first));
            writeln!(output, "{count} delayed")?;
        }
        StoryCommand::Duplicate { to, from, kind, first } => {
            let count = cluster.duplicate(&filter(to, *from, kind, *first));
            writeln!(output, "{count} doubled")?;
        }
        StoryCommand::Release => cluster.release(),
        StoryCommand::Cut { from, to } => cluster.cut(NodeId(*from), NodeId(*to)),
        StoryCommand::Partition(side) => cluster.partition(&ids_of(side)),
        StoryCommand::Heal => cluster.heal(),
        _ => unreachable!("handled by the caller"),
    }
    Ok(())
}

fn ids_of(numbers: &[u64]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

fn nodes_or_all(cluster: &Cluster, numbers: &[u64]) -> Vec<NodeId> {
    if numbers.is_empty() { cluster.running() } else { ids_of(numbers) }
}

fn each<E: Error + 'static>(
    cluster: &mut Cluster,
    numbers: &[u64],
    action: impl Fn(&mut Cluster, NodeId) -> Result<(), E>,
) -> Result<(), Box<dyn Error>> {
    for id in nodes_or_all(cluster, numbers) {
        action(cluster, id)?;
    }
    Ok(())
}

fn filter(to: &[u64], from: Option<u64>, kind: &Option<String>, first: Option<usize>) -> Filter {
    Filter { to: ids_of(to), from: from.map(NodeId), kind: kind.clone(), first }
}

/// Shows what the nodes become, and not the messages.
fn run_quietly(cluster: &mut Cluster, millis: u64, output: &mut String) -> Result<(), Box<dyn Error>> {
    let earlier = cluster.take_lines();
    cluster.run(millis)?;
    for line in earlier.into_iter().chain(cluster.take_lines()).filter(|line| !line.contains(" -> ")) {
        writeln!(output, "{line}")?;
    }
    Ok(())
}

fn refusal(error: ProposeError) -> String {
    match error {
        ProposeError::NotLeader => "not the leader".into(),
        ProposeError::Transferring => "leadership is being handed over".into(),
        ProposeError::DiskFull => "the disk is full".into(),
        ProposeError::Storage(error) => error.to_string(),
    }
}

fn start(
    nodes: u64,
    leader: Option<u64>,
    only: Option<u64>,
    disks: &BTreeMap<String, String>,
) -> Result<Cluster, Box<dyn Error>> {
    let mut parsed = BTreeMap::new();
    for (node, text) in disks {
        parsed.insert(parse_node(node)?, parse_disk(text)?);
    }
    let started: Vec<NodeId> =
        (1..=nodes).filter(|id| only.is_none_or(|only| only == *id)).map(NodeId).collect();
    let mut cluster = Cluster::new(nodes, &started, parsed)?;
    if let Some(leader) = leader {
        cluster.timeout(NodeId(leader))?;
        cluster.stabilize(&started)?;
        assert!(cluster.raft(NodeId(leader)).is_leader(), "the first election goes to node {leader}");
        cluster.take_lines();
        cluster.take_traffic();
    }
    Ok(cluster)
}

/// A disk from the terms of its entries and `key=value` settings: `1 1 2 term=3 vote=2`, `snapshot=5@2 3 3`.
fn parse_disk(text: &str) -> Result<MemoryStorage, Box<dyn Error>> {
    let (mut snapshot, mut terms, mut settings) = (EntryId::default(), Vec::new(), BTreeMap::new());
    let mut standing = Standing::Voter;
    for word in text.split_whitespace() {
        match word.split_once('=') {
            Some(("snapshot", id)) => snapshot = parse_id(id)?,
            Some((key, value)) => {
                settings.insert(key, value.parse::<u64>()?);
            }
            None if word == "virgin" => standing = Standing::Virgin,
            None if word == "recovering" => standing = Standing::Recovering,
            None => terms.push(Term(word.parse()?)),
        }
    }
    let ids: Vec<EntryId> =
        (snapshot.index.0 + 1..).zip(&terms).map(|(index, term)| EntryId::new(*term, Index(index))).collect();
    let last_term = ids.last().unwrap_or(&snapshot).term;
    let hard_state = HardState {
        term: settings.remove("term").map_or(last_term, Term),
        vote: settings.remove("vote").map(NodeId),
        commit_index: settings.remove("commit").map_or(snapshot.index, Index),
    };
    match settings.first_key_value() {
        Some((unknown, _)) => Err(format!("a disk has no {unknown}").into()),
        None => {
            let mut disk = disk(snapshot, &ids, hard_state);
            disk.set_standing(standing)?;
            disk.sync()?;
            Ok(disk)
        }
    }
}
