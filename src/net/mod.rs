//! Sockets and what is spoken over them: HTTP with clients, frames with peers, and the loop that drives everything.
//!
//! [`event_loop`] owns the only poll of the process and the replica. It is the only code that reads the clock, and its
//! turn is the program's order of events. Below it are two tables: [`peer`] keeps a link to and from every other node,
//! `event_loop::clients` keeps the HTTP connections. What goes over a socket is understood by code without sockets:
//! [`frame`] and [`peer::greeting`] for peers, [`http`], [`client`] and [`api`] for clients.
//!
//! What this leaves out: encryption (put a tunnel between hosts that do not trust their network), HTTP/2, and
//! asynchronous name look-ups (see [`resolver`]).

pub mod api;
pub mod buffer;
pub mod client;
pub mod event_loop;
pub mod frame;
pub mod http;
pub mod listener;
pub mod peer;
pub mod resolver;
pub mod signals;
pub mod slab;
pub mod watch;
