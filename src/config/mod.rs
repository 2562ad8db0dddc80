//! What an operator says: the flags, their environment variables and keva.toml, checked before anything starts.
//!
//! Text becomes settings in three steps. [`Arguments`] takes the command line, a private module mirrors the file's
//! tables for `serde`, and the checks turn those into a [`Config`], in which every rule holds: whoever gets one need
//! not look again. A broken rule is a [`ConfigError`] that says where and what to do.

mod address;
mod arguments;
mod check;
mod error;
mod file;
mod node;
mod settings;
pub mod units;

use std::path::{Path, PathBuf};

pub use self::arguments::{Arguments, CheckArguments, Command, usage_line};
pub use self::error::{ConfigError, ConfigProblem};
pub use self::node::NodeConfig;
pub use self::settings::{LimitSettings, StorageSettings};
use crate::limits::{
    CONFIG_FILE_BYTES_MAX, ELECTION_TIMEOUT_MS_DEFAULT, HEARTBEAT_INTERVAL_MS_MAX,
    HEARTBEATS_PER_ELECTION_TIMEOUT, KEVA_PORT_DEFAULT, USER_PORT_DEFAULT,
};
use crate::raft::types::NodeId;
use crate::util::hash::fnv1a_64;

/// The identity of the only node when there is no configuration file: the first of the sample file, whatever the host
/// is called, so that a container with a new host name still owns its data.
pub const IDENTITY_DEFAULT: &str = "host1";
/// Where a node keeps its data unless told otherwise.
pub const WORKING_DIRECTORY_DEFAULT: &str = "./keva-data";
/// The file that is looked for, but never read, when no configuration file is named.
const CONFIG_FILE_USUAL: &str = "keva.toml";

/// Everything that one node needs to start.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Which of the cluster's nodes this process is.
    pub node: NodeConfig,
    /// The cluster, with the limits that hold on this node.
    pub config: Config,
    /// Where the node keeps its data. Created by the storage when it is missing.
    pub working_directory: PathBuf,
    /// What the operator should know although nothing is wrong, for the log.
    pub hints: Vec<String>,
}

/// A checked configuration: what keva.toml says, or its defaults.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The cluster's name, from which its id is made at the first start. Without one, the id is made of the nodes'
    /// identities.
    pub cluster: Option<String>,
    /// All nodes, in the order of the file: 1 to `NODES_MAX`, with distinct identities, ids and ports.
    pub nodes: Vec<NodeConfig>,
    /// Bounds for clients.
    pub limits: LimitSettings,
    /// How the log is kept.
    pub storage: StorageSettings,
}

/// The id of the node with this identity: the same on every host and in every version.
#[must_use]
pub fn node_id(identity: &str) -> NodeId {
    NodeId(fnv1a_64(identity.as_bytes()))
}

impl Settings {
    /// What the command line, its environment and the file that they name amount to.
    ///
    /// # Errors
    /// When the file cannot be read, breaks a rule or has no node of that identity.
    pub fn from_arguments(arguments: &Arguments) -> Result<Settings, ConfigError> {
        let working_directory = arguments.working_directory.clone();
        let Some(path) = &arguments.config_file else {
            let identity = arguments.node_identity.as_deref().unwrap_or(IDENTITY_DEFAULT);
            let config = Config::one_node(identity)?;
            let node = config.nodes[0].clone();
            return Ok(Settings { node, config, working_directory, hints: hints_without_file() });
        };
        let config = Config::read(path)?;
        let (identity, from_host_name) = match &arguments.node_identity {
            Some(identity) => (identity.clone(), false),
            None => (host_name(), true),
        };
        let Some(node) = config.node(&identity).cloned() else {
            let known = config.nodes.iter().map(|node| node.identity.clone()).collect();
            let problem = ConfigProblem::IdentityUnknown { identity, from_host_name, known };
            return Err(ConfigError::in_file(path, problem));
        };
        let hints = config.hints();
        Ok(Settings { node, config, working_directory, hints })
    }
}

impl Config {
    /// The configuration in the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read or breaks a rule.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        use std::io::Read as _;
        let unreadable = |error: std::io::Error| {
            ConfigError::in_file(path, ConfigProblem::Unreadable { reason: error.to_string() })
        };
        let mut text = String::new();
        let longest = CONFIG_FILE_BYTES_MAX as u64;
        std::fs::File::open(path)
            .and_then(|file| file.take(longest + 1).read_to_string(&mut text))
            .map_err(unreadable)?;
        if text.len() > CONFIG_FILE_BYTES_MAX {
            return Err(ConfigError::in_file(path, ConfigProblem::FileTooLong));
        }
        Config::parse(&text, path)
    }

    /// The configuration in `text`. Errors name `path` as its file.
    ///
    /// # Errors
    /// When it is no TOML or breaks a rule.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        check::check(&check::Source { text, path })
    }

    /// A cluster of one node that only this host can reach, for a first try.
    ///
    /// # Errors
    /// When the identity breaks a rule.
    pub fn one_node(identity: &str) -> Result<Config, ConfigError> {
        check::check_identity(identity).map_err(ConfigError::outside_files)?;
        let address = address::Address::parse("127.0.0.1").expect("a loopback address is an address");
        let node = NodeConfig {
            identity: identity.to_owned(),
            id: node_id(identity),
            bind_addresses: address.bind_addresses(),
            address: address.to_string(),
            keva_port: KEVA_PORT_DEFAULT,
            user_port: USER_PORT_DEFAULT,
            wait_time_ms: ELECTION_TIMEOUT_MS_DEFAULT,
        };
        Ok(Config {
            cluster: None,
            nodes: vec![node],
            limits: LimitSettings::default(),
            storage: StorageSettings::default(),
        })
    }

    /// The node of that identity.
    #[must_use]
    pub fn node(&self, identity: &str) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.identity == identity)
    }

    /// The node of that id.
    #[must_use]
    pub fn node_by_id(&self, id: NodeId) -> Option<&NodeConfig> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// How often a leader says that it is alive, in milliseconds. The same on every node, and often enough for the
    /// least patient one.
    #[must_use]
    pub fn heartbeat_interval_ms(&self) -> u64 {
        let shortest = self.nodes.iter().map(|node| node.wait_time_ms).min();
        let shortest = shortest.unwrap_or(ELECTION_TIMEOUT_MS_DEFAULT);
        (shortest / HEARTBEATS_PER_ELECTION_TIMEOUT).clamp(1, HEARTBEAT_INTERVAL_MS_MAX)
    }

    /// What looks like a slip, but may be meant.
    fn hints(&self) -> Vec<String> {
        let is_mixed =
            self.nodes.iter().any(NodeConfig::is_loopback) && !self.nodes.iter().all(NodeConfig::is_loopback);
        if !is_mixed {
            return Vec::new();
        }
        let local: Vec<&str> =
            self.nodes.iter().filter(|node| node.is_loopback()).map(|node| node.identity.as_str()).collect();
        vec![format!(
            "{} has a loopback address, which other hosts cannot reach; give every node an address that all the \
             others can reach, unless a tunnel stands behind it",
            local.join(", ")
        )]
    }
}

/// The name that the system has for this host.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn hints_without_file() -> Vec<String> {
    if !Path::new(CONFIG_FILE_USUAL).exists() {
        return Vec::new();
    }
    vec![format!(
        "./{CONFIG_FILE_USUAL} is not used: give --config-file {CONFIG_FILE_USUAL} to run a node of that cluster"
    )]
}
