//! Watches and waiting requests without sockets: the hub against a model.

mod cases;
mod model;
mod reader;
mod waits;
#[path = "../support/watch_event.rs"]
mod watch_event;
mod world;
