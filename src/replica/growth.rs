//! Whether a write needs space: when a disk is full, only what makes the data no larger is taken.

use std::collections::BTreeMap;

use crate::kv::command::{Command, Operation, Transaction};
use crate::kv::store::Store;

/// Bytes of a number that is written where there was none: the longest one.
const NUMBER_BYTES: usize = 20;

/// Whether the data would be larger for it, as far as can be told before it is applied.
pub(super) fn grows(store: &Store, command: &Command) -> bool {
    match command {
        Command::Put { key, value, content_type, .. } => {
            put_bytes(key, value, content_type.as_deref()) > present_bytes(store, key)
        }
        Command::Append { key, value, .. } => !value.is_empty() || store.get(key).is_none(),
        // A number that gets longer by a digit is not worth a refusal.
        Command::Add { key, .. } => store.get(key).is_none(),
        Command::Transaction(Transaction { then, otherwise, .. }) => {
            branch_grows(store, then) || otherwise.as_ref().is_some_and(|other| branch_grows(store, other))
        }
        Command::Delete { .. } | Command::DeletePrefix { .. } | Command::Expire { .. } | Command::Tick => {
            false
        }
    }
}

/// Bytes of a key that exists. Never 0.
fn put_bytes(key: &str, value: &[u8], content_type: Option<&str>) -> usize {
    key.len() + value.len() + content_type.map_or(0, str::len)
}

/// Bytes of a key as it is, 0 when it is absent.
fn present_bytes(store: &Store, key: &str) -> usize {
    store.get(key).map_or(0, |item| put_bytes(key, &item.value, item.content_type.as_deref()))
}

/// Whether all keys that the operations change have more bytes after them than before.
fn branch_grows(store: &Store, operations: &[Operation]) -> bool {
    let mut after: BTreeMap<&str, usize> = BTreeMap::new();
    for operation in operations {
        let key = operation.key();
        let bytes = after.get(key).copied().unwrap_or_else(|| present_bytes(store, key));
        let bytes = match operation {
            Operation::Put { value, content_type, .. } => put_bytes(key, value, content_type.as_deref()),
            Operation::Add { .. } if bytes == 0 => key.len() + NUMBER_BYTES,
            Operation::Delete { .. } => 0,
            Operation::Add { .. } | Operation::Get { .. } => bytes,
        };
        after.insert(key, bytes);
    }
    let before: usize = after.keys().map(|key| present_bytes(store, key)).sum();
    after.values().sum::<usize>() > before
}
