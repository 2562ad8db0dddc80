//! `POST /v1/cluster/leader`: how it ended, as a response.

use crate::net::api::action::NodeView;
use crate::net::api::cluster::ClusterView;
use crate::net::api::query::shortened;
use crate::net::api::render::sign;
use crate::net::http::problem::{Applied, Problem};
use crate::net::http::response::{Body, Response, TEXT};
use crate::net::http::status::Status;
use crate::raft::types::NodeId;

/// How a request to hand leadership over ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HandedOver {
    /// This node leads.
    Done(NodeId),
    /// No node has this identity.
    NoSuchNode(String),
    /// The node that was asked does not lead; this one does.
    NotLeader(NodeId),
    /// No leader is known.
    NoLeader,
    /// The leader is new and does not know yet how far the others are.
    TooEarly,
    /// It is being handed over to another node.
    Busy,
    /// This node, or no node, was heard from lately.
    NoSuccessor(Option<NodeId>),
    /// This node did not take over: the old leader goes on, or another one leads.
    GivenUp(NodeId),
    /// It takes longer than the client waits.
    TooSlow,
}

/// The response to a request whose action was [`super::Action::HandOver`].
#[must_use]
pub fn render_hand_over(end: HandedOver, cluster: &ClusterView<'_>, node: &NodeView) -> Response {
    let name = |id| cluster.member(id).map_or("another node", |member| member.identity);
    let refused = |code, detail: String| Problem::new(Status::ServiceUnavailable, code, detail).to_response();
    let mut response = match end {
        HandedOver::Done(leader) => {
            let body = Body::Owned(format!("{}\n", name(leader)).into_bytes());
            Response::new(Status::Ok, TEXT, body)
        }
        HandedOver::NoSuchNode(wanted) => no_such_node(&wanted, cluster).to_response(),
        HandedOver::NotLeader(leader) => not_leader(leader, cluster).to_response(),
        HandedOver::NoLeader => refused(
            "no-leader",
            String::from("no leader is known, so there is nothing to hand over; try again in a moment"),
        ),
        HandedOver::TooEarly => refused(
            "hand-over-too-early",
            String::from(
                "this node leads since a moment ago and does not know yet how far the others are; try again",
            ),
        ),
        HandedOver::Busy => refused(
            "hand-over-busy",
            String::from(
                "leadership is being handed over to another node already; try again when that is done",
            ),
        ),
        HandedOver::NoSuccessor(Some(wanted)) => refused(
            "no-successor",
            format!("{} was not heard from lately, so it cannot take over; see /v1/cluster", name(wanted)),
        ),
        HandedOver::NoSuccessor(None) => refused(
            "no-successor",
            String::from("no other node was heard from lately, so none can take over; see /v1/cluster"),
        ),
        HandedOver::GivenUp(wanted) => refused(
            "hand-over-failed",
            format!("{} did not take over; GET /v1/cluster/leader says who leads; try again", name(wanted)),
        ),
        HandedOver::TooSlow => {
            let detail = "leadership is being handed over, which takes longer than this request may; GET \
                          /v1/cluster/leader says who leads";
            let problem = Problem::new(Status::GatewayTimeout, "outcome-unknown", detail);
            Problem { applied: Applied::Unknown, ..problem }.to_response()
        }
    };
    sign(&mut response, node);
    response
}

fn no_such_node(wanted: &str, cluster: &ClusterView<'_>) -> Problem {
    let identities: Vec<&str> = cluster.members.iter().map(|member| member.identity).collect();
    let detail =
        format!("no node is called \"{}\"; the nodes are {}", shortened(wanted), identities.join(", "));
    Problem::bad_request("bad-parameter", detail)
}

/// Only the leader can hand over.
fn not_leader(leader: NodeId, cluster: &ClusterView<'_>) -> Problem {
    let detail = match cluster.member(leader) {
        Some(leader) => format!(
            "this node does not lead; send the request to {}, the leader, at {} port {}",
            leader.identity, leader.address, leader.user_port
        ),
        None => String::from("this node does not lead; send the request to the leader"),
    };
    Problem::new(Status::Conflict, "not-leader", detail)
}
