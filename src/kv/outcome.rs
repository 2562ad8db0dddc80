//! What became of a command. The same on every node, and remembered for writes with an idempotency key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::raft::types::Index;

/// See the module's text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Applied {
    /// It took effect.
    Written,
    /// [`Command::Add`](crate::kv::command::Command::Add) took effect: the key's value is this number.
    Counted(i64),
    /// [`Command::DeletePrefix`](crate::kv::command::Command::DeletePrefix) took effect: so many keys are gone.
    Deleted(u64),
    /// The transaction took effect.
    Transaction(TransactionResult),
    /// Its condition did not hold; nothing changed.
    ConditionFailed {
        /// The key's revision at that moment, `None` when it is absent.
        current: Option<Index>,
    },
    /// The transaction's conditions did not hold, and it has no `otherwise`; nothing changed.
    RequirementFailed {
        /// The position of the first condition that did not hold, from 0.
        position: u32,
        /// Its key's revision at that moment, `None` when it is absent.
        current: Option<Index>,
    },
    /// It could not be carried out; nothing changed.
    Refused(Refusal),
    /// The idempotency key was used before for the same write, which was not executed again.
    Repeated {
        /// The index of the first one.
        revision: Index,
        /// What became of the first one.
        first: Box<Applied>,
    },
    /// The idempotency key was used before for another write; nothing changed.
    KeyReused,
    /// It is not newer than a write of the same origin that came before it in the log: not executed, now or ever.
    Skipped,
}

impl Applied {
    /// Bytes of values that are in it: those that a transaction has read.
    #[must_use]
    pub fn read_bytes(&self) -> usize {
        let Applied::Transaction(TransactionResult { results, .. }) = self else { return 0 };
        let found = results.iter().filter_map(|result| match result {
            OperationResult::Got { found, .. } => found.as_ref(),
            _ => None,
        });
        found.map(|(_, value)| value.len()).sum()
    }
}

/// Why a command that was in order when it was proposed could not be carried out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// There is something to be added to a value that is no decimal 64-bit number.
    NotANumber {
        /// Whose value.
        key: String,
    },
    /// The sum does not fit in 64 bits.
    Overflow {
        /// Whose value.
        key: String,
    },
    /// The value would be longer than allowed.
    ValueTooLong {
        /// How long it would be, in bytes.
        bytes: u64,
        /// How long it may be, in bytes.
        bytes_max: u64,
    },
    /// The values that a transaction reads are longer than `TRANSACTION_READ_BYTES_MAX`, or, with an idempotency key,
    /// than can be remembered.
    ResultTooLong,
}

/// What a transaction did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransactionResult {
    /// Whether the conditions held, so that `then` was done.
    pub succeeded: bool,
    /// One per operation of the branch that was done, in its order.
    pub results: Vec<OperationResult>,
}

/// What one operation of a transaction did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OperationResult {
    /// A key has a new value; its revision is the transaction's.
    Put {
        /// The key.
        key: String,
    },
    /// A number was added.
    Added {
        /// The key.
        key: String,
        /// Its value.
        value: i64,
    },
    /// A key is gone.
    Deleted {
        /// The key.
        key: String,
        /// Whether it existed.
        existed: bool,
    },
    /// A key was read.
    Got {
        /// The key.
        key: String,
        /// Its revision and value, `None` when it is absent. The revision is the transaction's when it wrote the key
        /// before.
        #[serde(with = "found")]
        found: Option<(Index, Arc<[u8]>)>,
    },
}

/// A value that is shared with the store is written down as bytes.
mod found {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_bytes::{ByteBuf, Bytes};

    use crate::raft::types::Index;

    type Found = Option<(Index, Arc<[u8]>)>;

    pub(super) fn serialize<S: Serializer>(found: &Found, serializer: S) -> Result<S::Ok, S::Error> {
        found.as_ref().map(|(revision, value)| (revision, Bytes::new(value))).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Found, D::Error> {
        let found = Option::<(Index, ByteBuf)>::deserialize(deserializer)?;
        Ok(found.map(|(revision, value)| (revision, value.into_vec().into())))
    }
}
