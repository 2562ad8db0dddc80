//! The state machine: keys and values, changed only by committed commands in log order.
//!
//! [`command`] says what can be asked, [`payload`] how that is written into a log entry, [`store`] what it does and
//! [`outcome`] what became of it, [`session`] why nothing is done twice, [`history`] what has changed of late, and
//! [`restore`] how everything is read back from a snapshot.
//!
//! What this leaves out: old values. Nothing is known of a key but its last write.

mod capture;
mod changes;
pub mod command;
mod count;
mod counter;
mod execute;
pub mod history;
mod idempotency;
mod items;
pub mod outcome;
pub mod page;
pub mod payload;
pub mod range;
pub mod restore;
pub mod session;
mod snapshot;
mod state_hash;
pub mod store;
mod transaction;
