//! The state machine: keys and values, changed only by committed commands in log order.
//!
//! [`command`] says what can be asked, [`payload`] how that is written into a log entry, [`store`] what it does,
//! [`session`] why nothing is done twice, and [`restore`] how everything is read back from a snapshot.
//!
//! What this leaves out: there is no expiry of keys, no history of old values, and no operation on several keys.

mod capture;
pub mod command;
pub mod history;
pub mod outcome;
pub mod payload;
pub mod range;
pub mod restore;
pub mod session;
mod snapshot;
mod state_hash;
pub mod store;
