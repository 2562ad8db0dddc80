//! `/v1/cluster` and `/v1/cluster/leader`.

use crate::net::api::action::{NodeView, StatusPage};
use crate::net::http::response::Response;
use crate::net::http::status::Status;
use crate::raft::types::NodeId;
use crate::replica::io::ReplicaStatus;
use crate::util::time::Millis;

/// What the network layer knows about the cluster, for [`render_status`].
#[derive(Clone, Debug)]
pub struct ClusterView<'a> {
    /// The turn's time, to show how long ago a peer answered.
    pub now: Millis,
    /// All members, this node included, in the order they are to be shown in.
    pub members: &'a [MemberView<'a>],
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
    /// Its program's version, as far as it is known.
    pub version: Option<&'a str>,
}

/// The response to a request whose action was [`super::Action::Status`].
#[must_use]
pub fn render_status(
    page: StatusPage,
    status: &ReplicaStatus,
    cluster: &ClusterView<'_>,
    node: &NodeView,
) -> Response {
    let _ = (page, status, cluster, node);
    Response::empty(Status::NoContent)
}
