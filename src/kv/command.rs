//! What a log entry asks the state machine to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{CONDITION_REVISIONS_MAX, CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
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

/// Why a command is refused before it gets near a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// The key is empty.
    KeyEmpty,
    /// The key has more than [`KEY_BYTES_MAX`] bytes.
    KeyTooLong,
    /// The value has more than [`VALUE_BYTES_MAX`] bytes.
    ValueTooLong,
    /// The content type has more than [`CONTENT_TYPE_BYTES_MAX`] bytes.
    ContentTypeTooLong,
    /// A condition lists more than [`CONDITION_REVISIONS_MAX`] revisions.
    TooManyRevisions,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::KeyEmpty => f.write_str("the key is empty; it needs at least one byte"),
            CommandError::KeyTooLong => write!(f, "the key is longer than {KEY_BYTES_MAX} bytes"),
            CommandError::ValueTooLong => write!(f, "the value is longer than {VALUE_BYTES_MAX} bytes"),
            CommandError::ContentTypeTooLong => {
                write!(f, "the content type is longer than {CONTENT_TYPE_BYTES_MAX} bytes")
            }
            CommandError::TooManyRevisions => {
                write!(f, "a condition lists more than {CONDITION_REVISIONS_MAX} revisions")
            }
        }
    }
}

impl std::error::Error for CommandError {}

impl Command {
    /// The key that the command is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Command::Put { key, .. } | Command::Delete { key, .. } => key,
        }
    }

    /// What must hold for the command to take effect.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        match self {
            Command::Put { condition, .. } | Command::Delete { condition, .. } => condition,
        }
    }

    /// Makes the command take effect in any case.
    pub(crate) fn forget_condition(&mut self) {
        match self {
            Command::Put { condition, .. } | Command::Delete { condition, .. } => {
                *condition = Condition::default();
            }
        }
    }

    /// Bytes of the value that the command brings.
    #[must_use]
    pub fn value_len(&self) -> usize {
        match self {
            Command::Put { value, .. } => value.len(),
            Command::Delete { .. } => 0,
        }
    }

    /// Checks every rule that the types do not express. Only a command that passes may be proposed.
    ///
    /// # Errors
    /// With the first rule that is broken.
    pub fn check(&self) -> Result<(), CommandError> {
        check_key(self.key())?;
        if self.value_len() > VALUE_BYTES_MAX {
            return Err(CommandError::ValueTooLong);
        }
        if let Command::Put { content_type: Some(name), .. } = self
            && name.len() > CONTENT_TYPE_BYTES_MAX
        {
            return Err(CommandError::ContentTypeTooLong);
        }
        let condition = self.condition();
        for matcher in [&condition.if_match, &condition.if_none_match].into_iter().flatten() {
            if matches!(matcher, Matcher::Revisions(list) if list.len() > CONDITION_REVISIONS_MAX) {
                return Err(CommandError::TooManyRevisions);
            }
        }
        Ok(())
    }
}

/// Checks a key: 1 to [`KEY_BYTES_MAX`] bytes (that it is UTF-8, its type says).
///
/// # Errors
/// When it is empty or too long.
pub fn check_key(key: &str) -> Result<(), CommandError> {
    match key.len() {
        0 => Err(CommandError::KeyEmpty),
        1..=KEY_BYTES_MAX => Ok(()),
        _ => Err(CommandError::KeyTooLong),
    }
}

impl Condition {
    /// Whether the condition holds for a key whose last change is `current` (`None`: there is no such key).
    #[must_use]
    pub fn holds(&self, current: Option<Index>) -> bool {
        self.if_match.as_ref().is_none_or(|matcher| matcher.matches(current))
            && !self.if_none_match.as_ref().is_some_and(|matcher| matcher.matches(current))
    }
}

impl Matcher {
    /// Whether a key whose last change is `current` is meant (`None`: there is no such key, so nothing matches).
    #[must_use]
    pub fn matches(&self, current: Option<Index>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Matcher::Any, Some(_)) => true,
            (Matcher::Revisions(list), Some(revision)) => list.contains(&revision),
        }
    }
}
