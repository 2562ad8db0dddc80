//! Watches and waiting requests without sockets: the hub against a model.

mod cases;
mod model;
mod reader;
mod waits;
mod world;
