//! One client's HTTP connection, without its socket.

mod connection;
mod context;
mod inbox;
mod outbox;
mod pace;

pub use connection::{Call, ClientConnection};
pub use context::{ClientContext, ClientLimits, Names};
pub use outbox::CallId;
