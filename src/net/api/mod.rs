//! The HTTP API: what a request asks of the node, and what the node's answer looks like.
//!
//! [`route()`](route::route) reads a request's head strictly and without side effects. Whatever is unknown is refused,
//! never ignored. [`render()`], [`render_status()`] and [`render_metrics()`] turn the node's answers into
//! responses.
//!
//! What this leaves out: copies of the whole state. Requests for them are refused.

pub mod accept;
pub mod action;
pub mod body_plan;
pub mod cluster;
pub mod condition;
pub mod content_type;
mod failure;
pub mod follow;
pub mod hand_over;
pub mod health;
pub mod idempotency;
mod key_route;
mod listing_route;
pub mod metrics;
pub mod origin;
mod page;
pub mod query;
pub mod render;
mod render_listing;
mod render_write;
pub mod route;
mod status_page;
pub mod target;
pub mod transaction_json;
mod transaction_route;

pub use action::{Action, ListingForm, NodeView, Render, StatusPage, Wanted};
pub use cluster::{ClusterView, MemberView, render_status};
pub use hand_over::{HandedOver, render_hand_over};
pub use health::Health;
pub use metrics::{MetricsView, render_metrics};
pub use render::render;
