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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::command::Condition;
    use crate::kv::payload::Payload;
    use crate::kv::session::WriteId;
    use crate::raft::types::{Incarnation, Index, NodeId};
    use crate::util::time::LogicalTime;

    fn put(key: &str, value: &str) -> Operation {
        Operation::Put { key: key.into(), value: value.into(), content_type: None, ttl_ms: None }
    }

    fn delete(key: &str) -> Operation {
        Operation::Delete { key: key.into() }
    }

    fn add(key: &str) -> Operation {
        Operation::Add { key: key.into(), by: 1, ttl_ms: None }
    }

    fn of(operation: Operation) -> Command {
        let condition = Condition::default();
        match operation {
            Operation::Put { key, value, content_type, ttl_ms } => {
                Command::Put { key, value, content_type, condition, ttl_ms }
            }
            Operation::Add { key, by, ttl_ms } => Command::Add { key, by, condition, ttl_ms },
            Operation::Delete { key } => Command::Delete { key, condition },
            Operation::Get { .. } => panic!("no command by itself"),
        }
    }

    fn append(key: &str, value: &str) -> Command {
        let (key, value, condition) = (key.into(), value.into(), Condition::default());
        Command::Append { key, value, content_type: None, condition, ttl_ms: None, bytes_max: 100 }
    }

    fn transaction(then: Vec<Operation>, otherwise: Option<Vec<Operation>>) -> Command {
        Command::Transaction(Transaction { conditions: Vec::new(), then, otherwise })
    }

    /// F14: what makes room, and what leaves the data as large as it is, is taken on a full disk.
    #[test]
    fn growth_is_told_apart() {
        let mut store = Store::default();
        for (seq, key, value) in [(1, "five", "12345"), (2, "n", "9")] {
            let id = WriteId { origin: NodeId(1), incarnation: Incarnation(1), seq };
            let write = of(put(key, value)).into();
            store.apply(Index(seq), Payload { id, time: LogicalTime(seq), write });
        }
        let get = Operation::Get { key: "five".into() };
        for command in [
            of(put("new", "")),
            of(put("five", "123456")),
            of(add("new")),
            append("five", "6"),
            append("new", ""),
            transaction(vec![put("five", "123456")], None),
            transaction(vec![put("five", ""), put("long name", "")], None),
            transaction(vec![delete("five"), put("five", "123456")], None),
            transaction(vec![add("new")], None),
            transaction(vec![delete("five")], Some(vec![put("new", "1")])),
        ] {
            assert!(grows(&store, &command), "{command:?}");
        }
        for command in [
            of(put("five", "54321")),
            of(add("n")),
            append("five", ""),
            of(delete("five")),
            of(delete("absent")),
            Command::DeletePrefix { prefix: "f".into() },
            Command::Expire { keys: vec![("five".into(), Index(1))] },
            Command::Tick,
            transaction(vec![], None),
            transaction(vec![get, add("n"), delete("absent")], None),
            transaction(vec![put("five", "1234567"), put("five", "")], None),
            transaction(vec![delete("five"), put("new", "123456")], None),
            transaction(vec![put("new", "1"), delete("new")], Some(vec![put("five", "")])),
        ] {
            assert!(!grows(&store, &command), "{command:?}");
        }
    }
}
