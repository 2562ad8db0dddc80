//! What a log entry asks the state machine to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{
    CONDITION_REVISIONS_MAX, CONTENT_TYPE_BYTES_MAX, EXPIRIES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, KEY_BYTES_MAX,
    TRANSACTION_OPERATIONS_MAX, TTL_MS_MAX, VALUE_BYTES_MAX,
};
use crate::raft::types::Index;

/// What a client asks to be changed, and the name under which its outcome is to be remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The change.
    pub command: Command,
    /// The client's name for this request: 1 to `IDEMPOTENCY_KEY_BYTES_MAX` bytes. The first write with it decides; any
    /// further one gets that one's outcome.
    pub idempotency_key: Option<String>,
}

impl From<Command> for Write {
    fn from(command: Command) -> Write {
        Write { command, idempotency_key: None }
    }
}

/// A change of the state. Conditions are evaluated when the command is applied, never before. Lives are in milliseconds of
/// logical time, 1 to `TTL_MS_MAX`, from the entry's time on; a write without one makes its key live for ever.
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
        /// The key's life.
        ttl_ms: Option<u64>,
    },
    /// Remove a key. Removing an absent key is a success.
    Delete {
        /// The key.
        key: String,
        /// Apply only if this holds.
        condition: Condition,
    },
    /// Add bytes behind a key's value; an absent key has an empty one.
    Append {
        /// The key.
        key: String,
        /// The bytes to add.
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
        /// What the whole value is called from then on; `None` leaves it.
        content_type: Option<String>,
        /// Apply only if this holds.
        condition: Condition,
        /// The key's life.
        ttl_ms: Option<u64>,
        /// Refused when the whole value would be longer. At most `VALUE_BYTES_MAX`.
        bytes_max: u64,
    },
    /// Add to a key's value, a decimal number; an absent key is 0.
    Add {
        /// The key.
        key: String,
        /// What to add.
        by: i64,
        /// Apply only if this holds.
        condition: Condition,
        /// The key's life.
        ttl_ms: Option<u64>,
    },
    /// Remove all keys that begin with a prefix. The empty prefix means all keys.
    DeletePrefix {
        /// At most `KEY_BYTES_MAX` bytes.
        prefix: String,
    },
    /// Several changes and reads at once, or others, or none.
    Transaction(Transaction),
    /// Remove keys whose life is over. Only a leader proposes it.
    Expire {
        /// At most `EXPIRIES_MAX`, each as it was when the leader saw its time come. One that was written again since
        /// stays.
        keys: Vec<(String, Index)>,
    },
    /// Nothing but the entry's time. Only a leader proposes it.
    Tick,
}

/// If all of `conditions` hold, `then` is done, else `otherwise`. All of it or nothing: when one operation is refused,
/// none takes effect.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Transaction {
    /// At most `TRANSACTION_OPERATIONS_MAX`.
    pub conditions: Vec<(String, Requirement)>,
    /// With those of `otherwise` at most `TRANSACTION_OPERATIONS_MAX`. A later operation sees what an earlier one did.
    pub then: Vec<Operation>,
    /// `None`: without the conditions the transaction fails.
    pub otherwise: Option<Vec<Operation>>,
}

/// What a transaction requires of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Requirement {
    /// Its last change has this revision.
    Revision(Index),
    /// It does not exist.
    Absent,
    /// It exists.
    Exists,
    /// It has exactly this value.
    Value(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// One step of a transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// See [`Command::Put`].
    Put {
        /// The key.
        key: String,
        /// Any bytes.
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
        /// What the value is called.
        content_type: Option<String>,
        /// The key's life.
        ttl_ms: Option<u64>,
    },
    /// See [`Command::Add`].
    Add {
        /// The key.
        key: String,
        /// What to add.
        by: i64,
        /// The key's life.
        ttl_ms: Option<u64>,
    },
    /// See [`Command::Delete`].
    Delete {
        /// The key.
        key: String,
    },
    /// Read a key.
    Get {
        /// The key.
        key: String,
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
    /// The idempotency key is empty or has more than [`IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
    IdempotencyKey,
    /// A life is 0, or longer than [`TTL_MS_MAX`].
    Ttl,
    /// A transaction has more than [`TRANSACTION_OPERATIONS_MAX`] conditions or operations.
    TooManyOperations,
    /// The keys and values of a transaction have more bytes than the longest value.
    TransactionTooLong,
    /// More than [`EXPIRIES_MAX`] keys expire in one entry, or none.
    Expiries,
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
            CommandError::IdempotencyKey => {
                write!(f, "an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes")
            }
            CommandError::Ttl => write!(f, "a time to live is from 1 ms to {TTL_MS_MAX} ms (ten years)"),
            CommandError::TooManyOperations => {
                write!(
                    f,
                    "a transaction has at most {TRANSACTION_OPERATIONS_MAX} conditions and as many operations"
                )
            }
            CommandError::TransactionTooLong => {
                write!(f, "the keys and values of the transaction are longer than {VALUE_BYTES_MAX} bytes")
            }
            CommandError::Expiries => write!(f, "an entry expires 1 to {EXPIRIES_MAX} keys"),
        }
    }
}

impl std::error::Error for CommandError {}

/// What an operation or requirement may add to its key, type and value when it is written down. Every node must agree on it:
/// see `limits`.
pub(super) const OPERATION_OVERHEAD_BYTES: usize = 64;

impl Write {
    /// Checks every rule that the types do not express. Only a write that passes may be proposed.
    ///
    /// # Errors
    /// With the first rule that is broken.
    pub fn check(&self) -> Result<(), CommandError> {
        let key_len = self.idempotency_key.as_ref().map(String::len);
        if key_len.is_some_and(|len| !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&len)) {
            return Err(CommandError::IdempotencyKey);
        }
        self.command.check()
    }
}

impl Command {
    /// The key that the command is about, if it is one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Command::Put { key, .. }
            | Command::Delete { key, .. }
            | Command::Append { key, .. }
            | Command::Add { key, .. } => Some(key),
            Command::DeletePrefix { .. }
            | Command::Transaction(_)
            | Command::Expire { .. }
            | Command::Tick => None,
        }
    }

    /// What must hold of the key for the command to take effect.
    #[must_use]
    pub fn condition(&self) -> Option<&Condition> {
        match self {
            Command::Put { condition, .. }
            | Command::Delete { condition, .. }
            | Command::Append { condition, .. }
            | Command::Add { condition, .. } => Some(condition),
            Command::DeletePrefix { .. }
            | Command::Transaction(_)
            | Command::Expire { .. }
            | Command::Tick => None,
        }
    }

    /// Makes the command take effect in any case.
    pub(crate) fn forget_condition(&mut self) {
        match self {
            Command::Put { condition, .. }
            | Command::Delete { condition, .. }
            | Command::Append { condition, .. }
            | Command::Add { condition, .. } => *condition = Condition::default(),
            Command::DeletePrefix { .. }
            | Command::Transaction(_)
            | Command::Expire { .. }
            | Command::Tick => {}
        }
    }

    /// Whether a leader writes it of its own accord: no client asked for it, and nobody waits for it.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        matches!(self, Command::Expire { .. } | Command::Tick)
    }

    /// Bytes of the keys and values that the command brings.
    #[must_use]
    pub fn value_len(&self) -> usize {
        match self {
            Command::Put { value, .. } | Command::Append { value, .. } => value.len(),
            Command::Transaction(transaction) => transaction.bytes(),
            Command::Delete { .. }
            | Command::Add { .. }
            | Command::DeletePrefix { .. }
            | Command::Expire { .. }
            | Command::Tick => 0,
        }
    }

    fn ttl_ms(&self) -> Option<u64> {
        match self {
            Command::Put { ttl_ms, .. } | Command::Append { ttl_ms, .. } | Command::Add { ttl_ms, .. } => {
                *ttl_ms
            }
            Command::Delete { .. }
            | Command::DeletePrefix { .. }
            | Command::Transaction(_)
            | Command::Expire { .. }
            | Command::Tick => None,
        }
    }

    /// Checks every rule that the types do not express.
    ///
    /// # Errors
    /// With the first rule that is broken.
    pub fn check(&self) -> Result<(), CommandError> {
        if let Some(key) = self.key() {
            check_key(key)?;
        }
        check_ttl(self.ttl_ms())?;
        if let Some(condition) = self.condition() {
            condition.check()?;
        }
        match self {
            Command::Put { value, content_type, .. } => check_value(value, content_type.as_deref()),
            Command::Append { value, content_type, bytes_max, .. } => {
                if *bytes_max > VALUE_BYTES_MAX as u64 {
                    return Err(CommandError::ValueTooLong);
                }
                check_value(value, content_type.as_deref())
            }
            Command::DeletePrefix { prefix } if prefix.len() > KEY_BYTES_MAX => Err(CommandError::KeyTooLong),
            Command::Transaction(transaction) => transaction.check(),
            Command::Expire { keys } => {
                if !(1..=EXPIRIES_MAX).contains(&keys.len()) {
                    return Err(CommandError::Expiries);
                }
                keys.iter().try_for_each(|(key, _)| check_key(key))
            }
            Command::Delete { .. } | Command::Add { .. } | Command::DeletePrefix { .. } | Command::Tick => {
                Ok(())
            }
        }
    }
}

impl Transaction {
    /// Its operations, those of both branches.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.then.iter().chain(self.otherwise.iter().flatten())
    }

    /// At least the bytes that it has when it is written down.
    fn bytes(&self) -> usize {
        let conditions = self.conditions.iter().map(|(key, requirement)| match requirement {
            Requirement::Value(value) => key.len() + value.len(),
            Requirement::Revision(_) | Requirement::Absent | Requirement::Exists => key.len(),
        });
        let operations = self.operations().map(|operation| match operation {
            Operation::Put { key, value, content_type, .. } => {
                key.len() + value.len() + content_type.as_ref().map_or(0, String::len)
            }
            Operation::Add { key, .. } | Operation::Delete { key } | Operation::Get { key } => key.len(),
        });
        conditions.chain(operations).map(|bytes| bytes + OPERATION_OVERHEAD_BYTES).sum()
    }

    fn check(&self) -> Result<(), CommandError> {
        if self.conditions.len().max(self.operations().count()) > TRANSACTION_OPERATIONS_MAX {
            return Err(CommandError::TooManyOperations);
        }
        if self.bytes() > VALUE_BYTES_MAX {
            return Err(CommandError::TransactionTooLong);
        }
        self.conditions.iter().try_for_each(|(key, _)| check_key(key))?;
        self.operations().try_for_each(Operation::check)
    }
}

impl Operation {
    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Operation::Put { key, .. }
            | Operation::Add { key, .. }
            | Operation::Delete { key }
            | Operation::Get { key } => key,
        }
    }

    fn check(&self) -> Result<(), CommandError> {
        check_key(self.key())?;
        match self {
            Operation::Put { value, content_type, ttl_ms, .. } => {
                check_ttl(*ttl_ms)?;
                check_value(value, content_type.as_deref())
            }
            Operation::Add { ttl_ms, .. } => check_ttl(*ttl_ms),
            Operation::Delete { .. } | Operation::Get { .. } => Ok(()),
        }
    }
}

fn check_value(value: &[u8], content_type: Option<&str>) -> Result<(), CommandError> {
    if value.len() > VALUE_BYTES_MAX {
        Err(CommandError::ValueTooLong)
    } else if content_type.is_some_and(|name| name.len() > CONTENT_TYPE_BYTES_MAX) {
        Err(CommandError::ContentTypeTooLong)
    } else {
        Ok(())
    }
}

fn check_ttl(ttl_ms: Option<u64>) -> Result<(), CommandError> {
    if ttl_ms.is_none_or(|ttl_ms| (1..=TTL_MS_MAX).contains(&ttl_ms)) {
        Ok(())
    } else {
        Err(CommandError::Ttl)
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
    fn check(&self) -> Result<(), CommandError> {
        let mut matchers = [&self.if_match, &self.if_none_match].into_iter().flatten();
        let is_long = |matcher: &Matcher| matches!(matcher, Matcher::Revisions(list) if list.len() > CONDITION_REVISIONS_MAX);
        if matchers.any(is_long) { Err(CommandError::TooManyRevisions) } else { Ok(()) }
    }

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
