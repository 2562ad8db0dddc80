//! Several operations as one. They are carried out beside the state, on an overlay; only when all of them have worked
//! does the state get what the overlay holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kv::command::{Operation, Requirement, Transaction};
use crate::kv::counter::sum;
use crate::kv::items::{Item, Items};
use crate::kv::outcome::{Applied, OperationResult, Refusal, TransactionResult};
use crate::limits::{
    IDEMPOTENT_OUTCOME_BYTES_MAX, KEY_BYTES_MAX, TRANSACTION_OPERATIONS_MAX, TRANSACTION_READ_BYTES_MAX,
};
use crate::raft::types::Index;
use crate::util::mutation::mutant;
use crate::util::time::LogicalTime;

/// At least what a result has besides its key and value when it is written down, and the whole outcome besides its
/// results.
const RESULT_OVERHEAD_BYTES: usize = 40;

/// What becomes of keys; `None`: they are gone.
pub(crate) type Writes = BTreeMap<String, Option<Item>>;

/// A transaction at work.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    items: &'a Items,
    writes: Writes,
    /// The entry.
    revision: Index,
    /// Its time.
    now: LogicalTime,
    /// Its outcome is to be remembered.
    is_remembered: bool,
    /// Bytes of values that were read.
    read_bytes: usize,
    /// At least what the results have when they are written down.
    result_bytes: usize,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(
        items: &'a Items,
        revision: Index,
        now: LogicalTime,
        is_remembered: bool,
    ) -> Overlay<'a> {
        Overlay {
            items,
            writes: Writes::new(),
            revision,
            now,
            is_remembered,
            read_bytes: 0,
            result_bytes: RESULT_OVERHEAD_BYTES,
        }
    }

    /// Carries out the transaction; says what becomes of it and of the keys.
    pub(crate) fn run(mut self, transaction: Transaction) -> (Applied, Writes) {
        let fails = |(key, requirement): &(String, Requirement)| !holds(requirement, self.items.get(key));
        let failed = transaction.conditions.iter().position(fails);
        let operations = match (failed, transaction.otherwise) {
            (None, _) => transaction.then,
            (Some(_), Some(otherwise)) => otherwise,
            (Some(position), None) => {
                let current = self.items.get(&transaction.conditions[position].0).map(|item| item.revision);
                let position = u32::try_from(position).expect("conditions are few");
                return (Applied::RequirementFailed { position, current }, Writes::new());
            }
        };
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            match self.step(operation) {
                Ok(result) => results.push(result),
                Err(refusal) if mutant("transaction-not-atomic") => {
                    return (Applied::Refused(refusal), self.writes);
                }
                Err(refusal) => return (Applied::Refused(refusal), Writes::new()),
            }
        }
        (Applied::Transaction(TransactionResult { succeeded: failed.is_none(), results }), self.writes)
    }

    fn step(&mut self, operation: Operation) -> Result<OperationResult, Refusal> {
        self.reserve(operation.key().len(), 0)?;
        let current = self.current(operation.key());
        Ok(match operation {
            Operation::Put { key, value, content_type, ttl_ms } => {
                self.put(&key, value.into(), content_type.map(Arc::from), ttl_ms);
                OperationResult::Put { key }
            }
            Operation::Add { key, by, ttl_ms } => {
                let value = sum(&key, current, by)?;
                let content_type = current.and_then(|item| item.content_type.clone());
                self.put(&key, value.to_string().into_bytes().into(), content_type, ttl_ms);
                OperationResult::Added { key, value }
            }
            Operation::Delete { key } => {
                let existed = current.is_some();
                self.writes.insert(key.clone(), None);
                OperationResult::Deleted { key, existed }
            }
            Operation::Get { key } => {
                let found = current.map(|item| (item.revision, Arc::clone(&item.value)));
                self.reserve(0, found.as_ref().map_or(0, |(_, value)| value.len()))?;
                OperationResult::Got { key, found }
            }
        })
    }

    /// The key as the operations before have left it.
    fn current(&self, key: &str) -> Option<&Item> {
        match self.writes.get(key) {
            Some(write) if !mutant("transaction-reads-around-itself") => write.as_ref(),
            _ => self.items.get(key),
        }
    }

    fn put(&mut self, key: &str, value: Arc<[u8]>, content_type: Option<Arc<str>>, ttl_ms: Option<u64>) {
        let expires_at = ttl_ms.map(|ttl_ms| self.now.after(ttl_ms));
        let item = Item { value, content_type, revision: self.revision, expires_at };
        self.writes.insert(key.to_owned(), Some(item));
    }

    /// Makes room in the outcome, before it takes any memory: for the key of another result, or for a value.
    fn reserve(&mut self, key_len: usize, value_len: usize) -> Result<(), Refusal> {
        self.read_bytes += value_len;
        self.result_bytes += key_len + value_len;
        if key_len > 0 {
            self.result_bytes += RESULT_OVERHEAD_BYTES;
        }
        let is_too_long = self.read_bytes > TRANSACTION_READ_BYTES_MAX
            || self.is_remembered && self.result_bytes > IDEMPOTENT_OUTCOME_BYTES_MAX;
        if is_too_long { Err(Refusal::ResultTooLong) } else { Ok(()) }
    }
}

fn holds(requirement: &Requirement, current: Option<&Item>) -> bool {
    match requirement {
        Requirement::Revision(revision) => current.is_some_and(|item| item.revision == *revision),
        Requirement::Absent => current.is_none(),
        Requirement::Exists => current.is_some(),
        Requirement::Value(value) => current.is_some_and(|item| *item.value == **value),
    }
}

// Only what is read can make an outcome too long: the keys alone never do.
const _: () = assert!(
    TRANSACTION_OPERATIONS_MAX * (KEY_BYTES_MAX + RESULT_OVERHEAD_BYTES) + RESULT_OVERHEAD_BYTES
        <= IDEMPOTENT_OUTCOME_BYTES_MAX
);
