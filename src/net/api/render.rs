//! The replica's replies as HTTP responses.

use crate::net::api::action::{NodeView, Render};
use crate::net::http::response::Response;
use crate::net::http::status::Status;
use crate::replica::io::Reply;

/// The response to a request whose action was [`super::Action::Submit`].
#[must_use]
pub fn render(render: Render, reply: Reply, node: &NodeView) -> Response {
    let _ = (render, reply, node);
    Response::empty(Status::NoContent)
}
