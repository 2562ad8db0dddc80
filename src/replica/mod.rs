//! One node without its sockets, files and clock: the protocol, the state machine and the requests that wait.

pub mod io;
#[allow(clippy::module_inception)]
pub mod replica;
