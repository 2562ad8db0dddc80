//! Short ways to write commands, and a state machine that numbers them itself.

use keva::kv::command::{Command, Condition, Matcher, Operation, Requirement, Transaction, Write};
use keva::kv::history::{Change, ChangeKind};
use keva::kv::payload::Payload;
use keva::kv::session::WriteId;
use keva::kv::store::{Applied, Store};
use keva::raft::types::{Incarnation, Index, NodeId};
use keva::util::time::LogicalTime;

pub(crate) fn id(origin: u64, incarnation: u64, seq: u64) -> WriteId {
    WriteId { origin: NodeId(origin), incarnation: Incarnation(incarnation), seq }
}

pub(crate) fn put(key: &str, value: &str) -> Command {
    put_if(key, value, Condition::default())
}

pub(crate) fn put_if(key: &str, value: &str, condition: Condition) -> Command {
    Command::Put { key: key.into(), value: value.into(), content_type: None, condition, ttl_ms: None }
}

pub(crate) fn put_for(key: &str, value: &str, ttl_ms: u64) -> Command {
    Command::Put {
        key: key.into(),
        value: value.into(),
        content_type: None,
        condition: Condition::default(),
        ttl_ms: Some(ttl_ms),
    }
}

pub(crate) fn typed(key: &str, value: &[u8], content_type: Option<&str>) -> Command {
    Command::Put {
        key: key.into(),
        value: value.into(),
        content_type: content_type.map(Into::into),
        condition: Condition::default(),
        ttl_ms: None,
    }
}

pub(crate) fn delete(key: &str) -> Command {
    Command::Delete { key: key.into(), condition: Condition::default() }
}

pub(crate) fn append(key: &str, value: &[u8], bytes_max: u64) -> Command {
    Command::Append {
        key: key.into(),
        value: value.into(),
        content_type: None,
        condition: Condition::default(),
        ttl_ms: None,
        bytes_max,
    }
}

pub(crate) fn add(key: &str, by: i64) -> Command {
    Command::Add { key: key.into(), by, condition: Condition::default(), ttl_ms: None }
}

pub(crate) fn delete_prefix(prefix: &str) -> Command {
    Command::DeletePrefix { prefix: prefix.into() }
}

pub(crate) fn expire(keys: &[(&str, u64)]) -> Command {
    Command::Expire { keys: keys.iter().map(|(key, revision)| ((*key).into(), Index(*revision))).collect() }
}

/// A transaction without `otherwise`.
pub(crate) fn when(conditions: Vec<(&str, Requirement)>, then: Vec<Operation>) -> Command {
    let conditions = conditions.into_iter().map(|(key, requirement)| (key.into(), requirement)).collect();
    Command::Transaction(Transaction { conditions, then, otherwise: None })
}

pub(crate) fn op_put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.into(), value: value.into(), content_type: None, ttl_ms: None }
}

pub(crate) fn op_add(key: &str, by: i64) -> Operation {
    Operation::Add { key: key.into(), by, ttl_ms: None }
}

pub(crate) fn op_delete(key: &str) -> Operation {
    Operation::Delete { key: key.into() }
}

pub(crate) fn op_get(key: &str) -> Operation {
    Operation::Get { key: key.into() }
}

pub(crate) fn revisions(list: &[u64]) -> Option<Matcher> {
    Some(Matcher::Revisions(list.iter().copied().map(Index).collect()))
}

/// Without a time.
pub(crate) fn payload(id: WriteId, command: Command) -> Payload {
    Payload { id, time: LogicalTime(0), write: command.into() }
}

/// Applies commands of one origin from index 1.
pub(crate) fn applied(commands: Vec<Command>) -> Store {
    let mut state = State::default();
    for command in commands {
        let _ = state.run(command);
    }
    state.store
}

/// What a change says, short: the key and its value, or why it has none, and whether it is the entry's last.
pub(crate) fn told(changes: &[Change]) -> Vec<(&str, &str, bool)> {
    let kind = |change: &Change| match &change.kind {
        ChangeKind::Put(_) => "put",
        ChangeKind::Delete => "delete",
        ChangeKind::Expire => "expire",
    };
    changes.iter().map(|change| (&*change.key, kind(change), change.is_last)).collect()
}

/// A state machine whose entries come one after the other, from one origin.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) store: Store,
}

impl State {
    /// Without a time.
    pub(crate) fn run(&mut self, command: Command) -> Applied {
        self.run_at(0, command)
    }

    pub(crate) fn run_at(&mut self, time: u64, command: Command) -> Applied {
        self.write(time, command.into())
    }

    /// With an idempotency key.
    pub(crate) fn run_once(&mut self, time: u64, key: &str, command: Command) -> Applied {
        self.write(time, Write { command, idempotency_key: Some(key.into()) })
    }

    fn write(&mut self, time: u64, write: Write) -> Applied {
        assert_eq!(write.check(), Ok(()));
        let index = self.store.applied_index().next();
        let seq = if write.command.is_internal() { 0 } else { index.0 };
        self.store.apply(index, Payload { id: id(1, 1, seq), time: LogicalTime(time), write })
    }

    pub(crate) fn value(&self, key: &str) -> Option<&[u8]> {
        self.store.get(key).map(|item| &*item.value)
    }

    pub(crate) fn expires_at(&self, key: &str) -> Option<u64> {
        self.store.get(key).and_then(|item| item.expires_at).map(|end| end.0)
    }
}
