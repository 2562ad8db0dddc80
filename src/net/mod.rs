//! Sockets and what is spoken over them: HTTP with clients, frames with peers.

pub mod api;
pub mod buffer;
pub mod client;
pub mod http;
