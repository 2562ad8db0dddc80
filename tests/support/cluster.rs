//! A cluster of real processes on this machine.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::http_client::HttpClient;
use super::http_message::Answer;
use super::loopback::LoopbackAddress;
use super::node_process::NodeProcess;
use super::relay::Relays;

/// How long a cluster may take for what it should do in less than a second. Long, because the machine may be busy:
/// running into it means that something hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes with their configuration and data in a scratch directory. Dropping it kills the processes, removes the
/// directory and, when the test has failed, prints the end of what each node said.
#[derive(Debug)]
pub struct Cluster {
    // Before the others, so that no process outlives what it uses.
    nodes: Vec<NodeProcess>,
    relays: Relays,
    address: LoopbackAddress,
    /// Where each node is, on ports that `address` names.
    ips: Vec<Ipv4Addr>,
    directory: Option<TempDir>,
}

/// What makes one test's cluster differ from another's.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many nodes.
    pub nodes: usize,
    /// `wait_time` of the nodes as it stands in the file, the last one for all nodes behind it; empty: the default.
    pub wait_times: Vec<String>,
    /// Whether the nodes reach one another through relays.
    pub relayed: bool,
    /// More lines for the top of the configuration file.
    pub settings: String,
    /// The address of each node; empty: all share one of this machine that nobody else uses.
    pub ips: Vec<Ipv4Addr>,
    /// Where the scratch directory is made.
    pub parent_directory: PathBuf,
}

impl ClusterOptions {
    /// Nodes with default settings.
    pub fn new(nodes: usize) -> ClusterOptions {
        ClusterOptions {
            nodes,
            wait_times: Vec::new(),
            relayed: false,
            settings: String::new(),
            ips: Vec::new(),
            parent_directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        }
    }

    /// With this `wait_time` for every node, as it stands in the file.
    #[must_use]
    pub fn wait_time(self, wait_time: &str) -> ClusterOptions {
        self.wait_times(&[wait_time])
    }

    /// With these `wait_time`s for the first nodes, the last one for all others.
    #[must_use]
    pub fn wait_times(mut self, wait_times: &[&str]) -> ClusterOptions {
        self.wait_times = wait_times.iter().map(ToString::to_string).collect();
        self
    }

    /// With links between the nodes that can be taken down.
    #[must_use]
    pub fn relayed(mut self) -> ClusterOptions {
        self.relayed = true;
        self
    }

    /// With these lines at the top of the configuration file.
    #[must_use]
    pub fn settings(mut self, settings: &str) -> ClusterOptions {
        self.settings = settings.to_owned();
        self
    }
}

impl Cluster {
    /// Writes the files of a cluster. Nothing runs yet.
    pub fn create(options: &ClusterOptions) -> Cluster {
        let directory = tempfile::Builder::new()
            .prefix("cluster-")
            .tempdir_in(&options.parent_directory)
            .expect("scratch directory");
        let address = LoopbackAddress::take();
        let ips =
            if options.ips.is_empty() { vec![address.ip(); options.nodes] } else { options.ips.clone() };
        let relays =
            if options.relayed { Cluster::start_relays(options, &address) } else { Relays::default() };
        let nodes = (0..options.nodes)
            .map(|position| {
                let identity = format!("host{}", position + 1);
                let name = if options.relayed { format!("{identity}.toml") } else { "keva.toml".to_owned() };
                let config_file = directory.path().join(name);
                let configuration = Cluster::configuration(options, &address, &ips, position);
                std::fs::write(&config_file, configuration).expect("write the configuration");
                let working_directory = directory.path().join(format!("workdir{}", position + 1));
                std::fs::create_dir(&working_directory).expect("make the working directory");
                let log_file = directory.path().join(format!("{identity}.log"));
                NodeProcess::new(&identity, &config_file, &working_directory, &log_file)
            })
            .collect();
        Cluster { nodes, relays, address, ips, directory: Some(directory) }
    }

    fn start_relays(options: &ClusterOptions, address: &LoopbackAddress) -> Relays {
        let mut relays = Relays::default();
        for from in 0..options.nodes {
            for to in (0..options.nodes).filter(|to| *to != from) {
                let listen = SocketAddr::from((address.ip(), address.relay_port(from, to)));
                relays.add(from, to, listen, SocketAddr::from((address.ip(), address.keva_port(to))));
            }
        }
        relays
    }

    /// A running cluster with default settings in which every node is ready.
    pub fn start(nodes: usize) -> Cluster {
        Cluster::start_with(&ClusterOptions::new(nodes))
    }

    /// A running cluster in which every node is ready.
    pub fn start_with(options: &ClusterOptions) -> Cluster {
        let mut cluster = Cluster::create(options);
        for position in 0..options.nodes {
            cluster.nodes[position].start();
        }
        cluster.wait_all_ready();
        cluster
    }

    /// The file of the node with position `reader`. All nodes have the same one, unless there are relays.
    fn configuration(
        options: &ClusterOptions,
        address: &LoopbackAddress,
        ips: &[Ipv4Addr],
        reader: usize,
    ) -> String {
        let mut text = options.settings.clone();
        for (position, ip) in ips.iter().enumerate() {
            let keva_port = if options.relayed && position != reader {
                address.relay_port(reader, position)
            } else {
                address.keva_port(position)
            };
            write!(
                text,
                "\n[[node]]\nidentity = 'host{}'\naddress = '{}'\nkeva_port = '{keva_port}'\nuser_port = {}\n",
                position + 1,
                ip,
                address.user_port(position)
            )
            .expect("writing to a string");
            if let Some(wait_time) = options.wait_times.get(position).or(options.wait_times.last()) {
                writeln!(text, "wait_time = {wait_time}").expect("writing to a string");
            }
        }
        text
    }

    /// How many nodes there are, running or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The address that all nodes of this cluster, and nothing else, use.
    pub fn ip(&self) -> Ipv4Addr {
        self.address.ip()
    }

    /// The scratch directory.
    pub fn directory(&self) -> &Path {
        self.directory.as_ref().expect("it is there until the cluster is dropped").path()
    }

    /// The node with this position, counted from 0.
    pub fn node(&mut self, position: usize) -> &mut NodeProcess {
        &mut self.nodes[position]
    }

    /// All positions but this one.
    pub fn others(&self, position: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|other| *other != position).collect()
    }

    /// The links between the nodes, of a cluster with [`ClusterOptions::relayed`].
    pub fn relays(&self) -> &Relays {
        &self.relays
    }

    /// Where clients reach the node with this position.
    pub fn client_address(&self, position: usize) -> SocketAddr {
        SocketAddr::from((self.ips[position], self.address.user_port(position)))
    }

    /// Where peers reach the node with this position.
    pub fn peer_address(&self, position: usize) -> SocketAddr {
        SocketAddr::from((self.ips[position], self.address.keva_port(position)))
    }

    /// A client of the node with this position.
    pub fn client(&self, position: usize) -> HttpClient {
        HttpClient::new(self.client_address(position))
    }

    /// Starts the node with this position and waits until it is ready.
    pub fn start_node(&mut self, position: usize) {
        self.nodes[position].start();
        self.wait_ready(position);
    }

    /// Waits until every node is ready.
    pub fn wait_all_ready(&mut self) {
        for position in 0..self.nodes.len() {
            self.wait_ready(position);
        }
    }

    /// Waits until the node with this position says that it is ready.
    pub fn wait_ready(&mut self, position: usize) {
        let mut client = self.client(position).with_timeout(Duration::from_secs(5));
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.nodes[position].assert_running();
            let last = match client.request("GET", "/readyz?verbose", &[], b"") {
                Ok(Answer { status: 200, .. }) => return,
                Ok(answer) => format!("{} {}", answer.status, answer.text()),
                Err(failure) => failure.to_string(),
            };
            assert!(Instant::now() < deadline, "host{} is not ready: {last}", position + 1);
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Whether the node says that it is ready.
    pub fn is_ready(&self, position: usize) -> bool {
        let mut client = self.client(position).with_timeout(Duration::from_secs(5));
        client.request("GET", "/readyz", &[], b"").is_ok_and(|answer| answer.status == 200)
    }

    /// Waits until the running ones of these nodes agree on a leader among them, and returns its position.
    pub fn wait_leader(&mut self, among: &[usize]) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let names: Vec<Option<String>> = among.iter().map(|position| self.leader_by(*position)).collect();
            if let Some(Some(name)) = names.first()
                && names.iter().all(|other| other.as_ref() == Some(name))
            {
                let leader = among.iter().find(|position| self.nodes[**position].identity() == name);
                if let Some(leader) = leader {
                    return *leader;
                }
            }
            assert!(Instant::now() < deadline, "no agreement on a leader: {names:?}");
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// The leader of a cluster in which every node runs.
    pub fn leader(&mut self) -> usize {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.wait_leader(&all)
    }

    /// The leader's identity as the node with this position tells it.
    pub fn leader_by(&self, position: usize) -> Option<String> {
        let mut client = self.client(position).with_timeout(Duration::from_secs(2));
        let answer = client.request("GET", "/v1/cluster/leader", &[], b"").ok()?;
        (answer.status == 200).then(|| answer.text().trim().to_owned())
    }

    /// Kills the nodes at these positions at the same moment.
    pub fn kill_at_once(&mut self, positions: &[usize]) {
        for position in positions {
            self.nodes[*position].kill_without_waiting();
        }
        for position in positions {
            self.nodes[*position].kill();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        if !std::thread::panicking() {
            return;
        }
        let mut out = std::io::stderr();
        for node in &self.nodes {
            let _ = writeln!(out, "---- the end of what {} said ----\n{}", node.identity(), node.log_tail());
        }
        if std::env::var_os("KEEP_TEST_CLUSTERS").is_some()
            && let Some(directory) = self.directory.take()
        {
            let _ = writeln!(out, "---- the files are kept in {} ----", directory.keep().display());
        }
    }
}

/// Asks again and again until `question` has an answer, and fails with `what` when there is none after [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for this: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Writes a line past the test harness, which hides what a passing test prints.
pub fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
