//! The HTTP API: what a request asks of the node, and what the node's answer looks like.

pub mod action;
pub mod cluster;
pub mod render;

pub use action::{Action, NodeView, Render, StatusPage};
pub use cluster::{ClusterView, MemberView, render_status};
pub use render::render;
