//! `/v1/cluster` and `/v1/cluster/leader`.

use serde::Serialize;

use crate::net::api::action::{NodeView, StatusPage};
use crate::net::api::health::{Health, standing_name};
use crate::net::api::render::sign;
use crate::net::api::status_page;
use crate::net::http::problem::Problem;
use crate::net::http::response::{Body, JSON, Response, TEXT};
use crate::net::http::status::Status;
use crate::raft::types::{Index, NodeId};
use crate::replica::io::{PeerStatus, ReplicaStatus};
use crate::util::time::Millis;

/// What the network layer knows about the cluster, for [`render_status`].
#[derive(Clone, Debug)]
pub struct ClusterView<'a> {
    /// The turn's time, to show how long ago a peer answered.
    pub now: Millis,
    /// All members, this node included, in the order they are to be shown in.
    pub members: &'a [MemberView<'a>],
}

impl<'a> ClusterView<'a> {
    /// A member by its id.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&'a MemberView<'a>> {
        self.members.iter().find(|member| member.id == id)
    }
}

/// One member of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct MemberView<'a> {
    /// Its id.
    pub id: NodeId,
    /// Its name in the configuration.
    pub identity: &'a str,
    /// Its address in the configuration, without a port.
    pub address: &'a str,
    /// Where peers reach it.
    pub keva_port: u16,
    /// Where clients reach it.
    pub user_port: u16,
    /// Whether a link to it stands. Of no meaning for this node itself.
    pub connected: bool,
    /// When something last came over a link from it.
    pub last_contact: Option<Millis>,
    /// Its program's version, as far as it is known. Of no meaning for this node itself.
    pub version: Option<&'a str>,
}

/// The members of the JSON object, in this order.
#[derive(Serialize)]
struct ClusterJson<'a> {
    node: &'a str,
    role: &'static str,
    leader: Option<&'a str>,
    term: u64,
    commit: u64,
    applied: u64,
    last: u64,
    log_first: u64,
    snapshot: Option<SnapshotJson>,
    standing: &'static str,
    disk_full: bool,
    leader_disk_full: bool,
    keys: u64,
    quorum: usize,
    failures_tolerated: usize,
    members: Vec<MemberJson<'a>>,
}

/// The newest snapshot.
#[derive(Serialize)]
struct SnapshotJson {
    index: u64,
    bytes: u64,
}

/// One element of `members`. What this node does not know is null.
#[derive(Serialize)]
struct MemberJson<'a> {
    identity: &'a str,
    role: Option<&'static str>,
    address: &'a str,
    keva_port: u16,
    user_port: u16,
    connected: bool,
    r#match: Option<u64>,
    lag: Option<u64>,
    last_contact_ms: Option<u64>,
    version: Option<&'a str>,
}

/// The response to a request whose action was [`super::Action::Status`].
#[must_use]
pub fn render_status(
    page: StatusPage,
    status: &ReplicaStatus,
    cluster: &ClusterView<'_>,
    node: &NodeView,
) -> Response {
    let mut response = match page {
        StatusPage::Cluster => describe(status, cluster, node),
        StatusPage::Leader => match &node.leader {
            Some(leader) => Response::new(Status::Ok, TEXT, Body::Owned(format!("{leader}\n").into_bytes())),
            None => Problem::new(
                Status::ServiceUnavailable,
                "no-leader",
                "this node knows of no leader; try again in a moment, or see /v1/cluster",
            )
            .to_response(),
        },
        StatusPage::Html => status_page::html(status, cluster, node),
    };
    sign(&mut response, node);
    response.is_live = true;
    response
}

fn describe(status: &ReplicaStatus, cluster: &ClusterView<'_>, node: &NodeView) -> Response {
    let count = cluster.members.len();
    let health = Health::of(status);
    let json = ClusterJson {
        node: &node.node,
        role: status.role.as_str(),
        leader: node.leader.as_deref(),
        term: status.term.0,
        commit: status.commit_index.0,
        applied: status.applied_index.0,
        last: status.last_index.0,
        log_first: health.log_first.0,
        snapshot: health.snapshot.map(|(index, bytes)| SnapshotJson { index: index.0, bytes }),
        standing: standing_name(health.standing),
        disk_full: health.is_full,
        leader_disk_full: health.leader_is_full,
        keys: status.keys,
        quorum: count / 2 + 1,
        failures_tolerated: count.saturating_sub(1) / 2,
        members: cluster.members.iter().map(|member| describe_member(member, status, cluster.now)).collect(),
    };
    let mut body = serde_json::to_vec_pretty(&json).expect("the status is plain strings and numbers");
    body.push(b'\n');
    Response::new(Status::Ok, JSON, Body::Owned(body))
}

fn describe_member<'a>(member: &MemberView<'a>, status: &ReplicaStatus, now: Millis) -> MemberJson<'a> {
    let is_self = member.id == status.id;
    let peer: Option<&PeerStatus> = status.peers.iter().find(|peer| peer.id == member.id);
    let match_index = match_of(member.id, status);
    let last_contact = peer.and_then(|peer| peer.last_contact).or(member.last_contact);
    MemberJson {
        identity: member.identity,
        role: role_of(member.id, status),
        address: member.address,
        keva_port: member.keva_port,
        user_port: member.user_port,
        connected: is_self || member.connected,
        r#match: match_index.map(|index| index.0),
        lag: match_index.map(|index| status.last_index.0.saturating_sub(index.0)),
        last_contact_ms: if is_self { Some(0) } else { last_contact.map(|time| now - time) },
        version: if is_self { Some(env!("CARGO_PKG_VERSION")) } else { member.version },
    }
}

/// How far a member's log is known to equal the leader's. A leader knows of itself that its log ends where it ends; the
/// others know only about themselves.
pub(super) fn match_of(id: NodeId, status: &ReplicaStatus) -> Option<Index> {
    if id == status.id {
        return Some(status.last_index);
    }
    status.peers.iter().find(|peer| peer.id == id).map(|peer| peer.match_index)
}

/// What a member does: this node's own role is known, and the leader's; the others follow while there is a leader.
pub(super) fn role_of(id: NodeId, status: &ReplicaStatus) -> Option<&'static str> {
    if id == status.id {
        return Some(status.role.as_str());
    }
    status.leader.map(|leader| if leader == id { "leader" } else { "follower" })
}
