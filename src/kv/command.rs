//! What a log entry asks the state machine to do, and how that is written as an entry's payload.

use serde::{Deserialize, Serialize};

use crate::raft::types::Index;

/// A change of one key. Conditions are evaluated when the command is applied, never before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Give a key a value.
    Put {
        /// 1 to `KEY_BYTES_MAX` bytes of UTF-8.
        key: String,
        /// Any bytes.
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
        /// What the writer called the value, if it said anything.
        content_type: Option<String>,
        /// Apply only if this holds.
        condition: Condition,
    },
    /// Remove a key. Removing an absent key is a success.
    Delete {
        /// The key.
        key: String,
        /// Apply only if this holds.
        condition: Condition,
    },
}

/// What must be true of a key for a command to take effect: RFC 9110, section 13.1. Both parts must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Condition {
    /// `If-Match`.
    pub if_match: Option<Matcher>,
    /// `If-None-Match`: holds when the matcher does not match.
    pub if_none_match: Option<Matcher>,
}

/// The value of a conditional header.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Matcher {
    /// `*`: any existing key.
    Any,
    /// A list of revisions: a key whose last change has one of them. An empty list matches nothing.
    Revisions(Vec<Index>),
}
