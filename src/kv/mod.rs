//! The state machine: keys and values, changed only by committed commands in log order.
//!
//! [`command`] says what can be asked, [`payload`] how that is written into a log entry, [`store`] what it does, and
//! [`session`] why nothing is done twice.
//!
//! What this leaves out: there is no expiry of keys, no history of old values, and no operation on several keys.

pub mod command;
pub mod payload;
pub mod session;
pub mod store;
