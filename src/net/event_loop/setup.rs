//! What a node is started with, and how it can end.

use std::fmt;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, NodeConfig};
use crate::limits::{CLIENTS_REFUSED_MAX, DESCRIPTORS_RESERVED, KEYS_PER_TURN_MAX};
use crate::net::client::ClientLimits;
use crate::net::event_loop::listeners::Listeners;
use crate::net::peer::PeerSettings;
use crate::net::peer::greeting::Identity;
use crate::raft::types::Incarnation;
use crate::replica::io::StorageError;
use crate::replica::replica::ReplicaConfig;
use crate::util::hash::fnv1a_64;

/// Everything that [`super::run`] needs.
#[derive(Debug)]
pub struct NodeSetup<'a, S> {
    /// The cluster.
    pub config: &'a Config,
    /// Which of its nodes this one is.
    pub node: &'a NodeConfig,
    /// Already bound.
    pub listeners: Listeners,
    /// Already recovered.
    pub storage: S,
    /// From the storage: how often this node was started, this start included.
    pub incarnation: Incarnation,
    /// From the storage: the number of the working directory.
    pub disk_id: u64,
    /// Any number, another one at every start: tells processes of the same start number apart.
    pub process: u64,
    /// From the storage: the cluster that its data belongs to.
    pub cluster_id: u128,
    /// Any number, another one at every start: for election timeouts and pauses.
    pub seed: u64,
}

/// Why a node ended although nobody asked it to, or not in good order.
#[derive(Debug)]
pub enum RunError {
    /// The storage failed. No promise and no answer of that turn has left.
    Storage(StorageError),
    /// The system refuses what the loop cannot do without.
    System {
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A second signal came before the clean stop was over.
    Forced,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Storage(error) if error.is_disk_full() => {
                write!(f, "{error}; the node stops at once, because it cannot keep what it would promise")
            }
            // These say themselves what to do.
            RunError::Storage(error @ StorageError::Damaged { .. }) => {
                write!(f, "the node stops at once, before anybody relies on what is damaged: {error}")
            }
            RunError::Storage(error @ StorageError::Refused(_)) => error.fmt(f),
            RunError::Storage(error @ StorageError::Io { .. }) => write!(
                f,
                "{error}; the node stops at once, because nobody can tell what the disk holds: see to the disk, then \
                 start it again"
            ),
            RunError::System { action, source } => write!(f, "cannot {action}: {source}"),
            RunError::Forced => f.write_str("stopped at once by a second signal"),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RunError::Storage(error) => Some(error),
            RunError::System { source, .. } => Some(source),
            RunError::Forced => None,
        }
    }
}

impl From<StorageError> for RunError {
    fn from(error: StorageError) -> RunError {
        RunError::Storage(error)
    }
}

impl<S> NodeSetup<'_, S> {
    pub(super) fn replica_config(&self) -> ReplicaConfig {
        ReplicaConfig {
            id: self.node.id,
            incarnation: self.incarnation,
            voters: self.config.nodes.iter().map(|node| node.id).collect(),
            election_timeout_ms: self.node.wait_time_ms,
            heartbeat_interval_ms: self.config.heartbeat_interval_ms(),
            seed: self.seed,
            snapshot_log_bytes: self.config.storage.snapshot_log_bytes,
            keys_per_turn: KEYS_PER_TURN_MAX,
            history_bytes: self.config.limits.history_bytes,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            cluster: self.cluster_id,
            members_digest: members_digest(&self.config.nodes),
            node: self.node.id,
            members: self.config.nodes.iter().map(|node| node.id).collect(),
            incarnation: self.incarnation,
            disk_id: self.disk_id,
            process: self.process,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    pub(super) fn peers(&self) -> Vec<PeerSettings> {
        let others = self.config.nodes.iter().filter(|node| node.id != self.node.id);
        let settings = |node: &NodeConfig| PeerSettings {
            id: node.id,
            identity: node.identity.clone(),
            host: node.address.clone(),
            port: node.keva_port,
        };
        others.map(settings).collect()
    }

    pub(super) fn client_limits(&self) -> ClientLimits {
        let limits = &self.config.limits;
        ClientLimits {
            value_bytes_max: limits.value_bytes_max,
            head_ms: limits.head_timeout_ms,
            stall_ms: limits.stall_timeout_ms,
            idle_ms: limits.idle_timeout_ms,
        }
    }
}

/// The same on all nodes whose configurations list the same identities, in whatever order.
fn members_digest(nodes: &[NodeConfig]) -> u64 {
    let mut ids: Vec<u64> = nodes.iter().map(|node| node.id.0).collect();
    ids.sort_unstable();
    fnv1a_64(&ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())
}

/// Makes room for `wanted` clients' connections in the process's limit of open files, as far as the system allows.
/// Returns for how many there is room.
pub(super) fn reserve_descriptors(wanted: usize) -> usize {
    let reserved = DESCRIPTORS_RESERVED + CLIENTS_REFUSED_MAX as u64;
    let needed = wanted as u64 + reserved;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return wanted;
    }
    let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let target = Rlimit { current: Some(raised), maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, target) {
        Ok(()) => raised,
        Err(_) => limit.current.unwrap_or(needed),
    };
    let room = usize::try_from(current.saturating_sub(reserved)).unwrap_or(wanted).clamp(1, wanted);
    if room < wanted {
        log::warn!(
            "the limit of {current} open files leaves room for {room} client connections instead of {wanted}; raise it \
             (ulimit -n, LimitNOFILE=) or lower client_connections in keva.toml"
        );
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_full_disk_is_told_from_a_failing_one() {
        let text = |number: i32| {
            let source = io::Error::from_raw_os_error(number);
            RunError::Storage(StorageError::Io { action: "cannot write f".into(), source }).to_string()
        };
        let (failing, full, over_quota) = (5, 28, 122);
        assert!(text(failing).contains("see to the disk"), "{}", text(failing));
        for number in [full, over_quota] {
            let text = text(number);
            assert!(text.contains("make space on that disk, then start the node again"), "{text}");
            assert!(!text.contains("see to the disk"), "{text}");
        }
    }

    /// What the storage says about damage or a refusal says already what to do: nothing is added to it.
    #[test]
    fn damage_is_no_riddle() {
        let detail = "wrong. Start the node again: it mends it.".into();
        let damaged = StorageError::Damaged { file: "d/f".into(), offset: 7, detail };
        assert_eq!(
            RunError::Storage(damaged).to_string(),
            "the node stops at once, before anybody relies on what is damaged: d/f is damaged at byte 7: wrong. Start \
             the node again: it mends it."
        );
        let refused = RunError::Storage(StorageError::Refused("too new: start a newer Keva".into()));
        assert_eq!(refused.to_string(), "too new: start a newer Keva");
    }

    #[test]
    fn the_digest_is_of_the_members_whatever_their_order() {
        let node = |identity: &str| Config::one_node(identity).expect("a good identity").nodes[0].clone();
        let (one, two, three) = (node("host1"), node("host2"), node("host3"));
        let digest = members_digest(&[one.clone(), two.clone()]);
        assert_eq!(digest, members_digest(&[two.clone(), one.clone()]));
        assert_ne!(digest, members_digest(&[one.clone(), three.clone()]));
        assert_ne!(digest, members_digest(&[one, two, three]));
    }
}
