//! The HTTP API: what a request asks of the node, and what the node's answer looks like.
//!
//! [`route()`](route::route) reads a request's head strictly and without side effects. Whatever is unknown is refused,
//! never ignored. [`render()`] and [`render_status()`] turn the node's answers into responses.
//!
//! What this leaves out: expiry, append, add, waiting and watching, listings, transactions, idempotency keys, metrics
//! and copies of the whole state. Requests for them are refused.

pub mod action;
pub mod cluster;
pub mod condition;
pub mod content_type;
pub mod follow;
pub mod health;
mod page;
pub mod query;
pub mod render;
pub mod route;
pub mod target;

pub use action::{Action, NodeView, Render, StatusPage};
pub use cluster::{ClusterView, MemberView, render_status};
pub use health::Health;
pub use render::render;
