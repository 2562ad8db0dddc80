//! The state machine: keys and values, changed only by committed commands in log order.

pub mod command;
