//! Watches the replica's part in the cluster: for the log, and for the names in every answer.

use std::rc::Rc;

use crate::config::NodeConfig;
use crate::limits::RECOVERY_PROGRESS_MS;
use crate::net::api::{Health, MemberView, NodeView};
use crate::net::peer::Peers;
use crate::raft::types::{NodeId, Term};
use crate::replica::io::{ReplicaStatus, RoleName, Standing};
use crate::util::time::{LogicalTime, Millis};

/// What was seen at the last look.
#[derive(Debug)]
pub(super) struct Observer {
    id: NodeId,
    nodes: Vec<NodeConfig>,
    identities: Vec<(NodeId, Rc<str>)>,
    view: NodeView,
    seen: (RoleName, Term, Option<NodeId>),
    /// When to say again how far the entries that were committed before the start are applied. `None`: they all are.
    replay_told: Option<Millis>,
}

impl Observer {
    /// Of the node `id`, one of `nodes`.
    ///
    /// # Panics
    /// When it is not one of them.
    #[must_use]
    pub(super) fn new(id: NodeId, nodes: &[NodeConfig]) -> Observer {
        let identities: Vec<(NodeId, Rc<str>)> =
            nodes.iter().map(|node| (node.id, Rc::from(node.identity.as_str()))).collect();
        let own = identities.iter().find(|(member, _)| *member == id).expect("this node is a member");
        let view = NodeView {
            node: Rc::clone(&own.1),
            leader: None,
            health: Health::default(),
            time: LogicalTime::default(),
        };
        let seen = (RoleName::Follower, Term(0), None);
        Observer { id, nodes: nodes.to_vec(), identities, view, seen, replay_told: Some(Millis(0)) }
    }

    /// The names for the heads of answers.
    #[must_use]
    pub(super) fn view(&self) -> &NodeView {
        &self.view
    }

    /// For what answers say about lives.
    pub(super) fn set_time(&mut self, time: LogicalTime) {
        self.view.time = time;
    }

    /// The node with this name.
    #[must_use]
    pub(super) fn member(&self, identity: &str) -> Option<NodeId> {
        self.identities.iter().find(|(_, name)| **name == *identity).map(|(member, _)| *member)
    }

    /// Looks at the replica after something may have changed, and logs what did. Returns whether the names for the heads
    /// of answers have changed.
    pub(super) fn look(&mut self, now: Millis, status: &ReplicaStatus) -> bool {
        self.look_at_replay(now, status);
        let health = Health::of(status);
        let old = std::mem::replace(&mut self.view.health, health);
        log_standing(old.standing, health.standing);
        log_room(&old, &health);
        self.look_at_role(status)
    }

    /// A long log takes its time at the start.
    fn look_at_replay(&mut self, now: Millis, status: &ReplicaStatus) {
        let Some(told) = self.replay_told else { return };
        let (applied, committed) = (status.applied_index, status.commit_index);
        if applied >= committed {
            self.replay_told = None;
        } else if now - told >= RECOVERY_PROGRESS_MS {
            self.replay_told = Some(now);
            log::info!("applying the log: at entry {applied} of {committed}");
        }
    }

    fn look_at_role(&mut self, status: &ReplicaStatus) -> bool {
        let (role, term, leader) = (status.role, status.term, status.leader);
        let (old_role, old_term, old_leader) = std::mem::replace(&mut self.seen, (role, term, leader));
        if (role, term, leader) == (old_role, old_term, old_leader) {
            return false;
        }
        log::debug!("{} in term {term}", role.as_str());
        let new_name = leader.and_then(|leader| self.identity(leader));
        let old_name = std::mem::replace(&mut self.view.leader, new_name);
        match (&self.view.leader, old_name) {
            (Some(_), _) if role == RoleName::Leader => log::info!("this node is the leader of term {term}"),
            (Some(leader), _) => log::info!("following {leader} in term {term}"),
            (None, Some(old)) => {
                log::info!("{old}, the leader of term {old_term}, is gone: looking for another");
            }
            (None, None) => {}
        }
        leader != old_leader
    }

    /// All members with what their links say, in the order of the configuration.
    #[must_use]
    pub(super) fn members<'a>(&'a self, peers: &'a Peers) -> Vec<MemberView<'a>> {
        let member = |node: &'a NodeConfig| {
            let link = peers.status().find(|link| link.id == node.id);
            let is_own = node.id == self.id;
            MemberView {
                id: node.id,
                identity: &node.identity,
                address: &node.address,
                keva_port: node.keva_port,
                user_port: node.user_port,
                connected: is_own || link.is_some_and(|link| link.is_connected),
                last_contact: link.and_then(|link| link.last_contact),
                version: if is_own {
                    Some(env!("CARGO_PKG_VERSION"))
                } else {
                    link.and_then(|link| link.version)
                },
            }
        };
        self.nodes.iter().map(member).collect()
    }

    fn identity(&self, id: NodeId) -> Option<Rc<str>> {
        self.identities.iter().find(|(member, _)| *member == id).map(|(_, identity)| Rc::clone(identity))
    }
}

/// Says what a node that does not vote waits for, and when that is over.
fn log_standing(old: Standing, new: Standing) {
    match new {
        _ if old == new => {}
        // The protocol tells that.
        Standing::Voter => {}
        Standing::Virgin => log::info!(
            "this node's working directory is new, or an older copy: it votes and serves as soon as the other nodes have \
             said that nothing depends on what it does not know"
        ),
        Standing::Recovering => log::warn!(
            "a part of this node's data was lost: it gets everything from the leader, and votes and serves when that is \
             done"
        ),
    }
}

/// Says when a disk is full and what then works, and when there is space again.
fn log_room(old: &Health, new: &Health) {
    match (old.is_full, new.is_full) {
        (false, true) => log::warn!(
            "the disk is full: this node refuses writes that need space with 507; make space on the disk of its working directory, and it \
             goes on by itself"
        ),
        (true, false) => log::info!("the disk has room again"),
        _ => {}
    }
    if old.leader_is_full != new.leader_is_full && !new.is_full {
        if new.leader_is_full {
            log::warn!("the leader's disk is full: writes that need space are refused with 507");
        } else {
            log::info!("the leader's disk has room: writes are taken again");
        }
    }
}
