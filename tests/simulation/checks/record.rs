//! The log of record: what the cluster has committed, and what that means, computed by a second, much simpler state
//! machine. Answers are compared with it.

use std::collections::BTreeMap;

use keva::kv::command::{Command, Matcher};
use keva::kv::payload::decode_payload;
use keva::raft::entry::{Entry, EntryKind};
use keva::raft::types::{Index, NodeId, Term};

use crate::support::history::{Action, History, Outcome};

/// What an entry did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    NoOp,
    /// A repetition, or overtaken.
    Skipped,
    Written,
    /// The key's revision at that moment.
    Failed(Option<u64>),
}

/// A committed entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) term: Term,
    pub(crate) crc: u32,
    /// The term of the node that first knew.
    pub(crate) seen_in: Term,
    /// When that was, in the time of the history.
    pub(crate) tick: u64,
    pub(crate) decision: Decision,
    /// The written value's number.
    value: Option<u64>,
    is_delete: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) log: Vec<Committed>,
    keys: BTreeMap<String, u64>,
    newest: BTreeMap<NodeId, (u64, u64)>,
    executed: BTreeMap<u64, u64>,
}

/// The number that a value begins with.
pub(crate) fn value_number(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
}

impl Record {
    pub(crate) fn len(&self) -> u64 {
        self.log.len() as u64
    }

    pub(crate) fn get(&self, index: u64) -> &Committed {
        &self.log[usize::try_from(index - 1).expect("short logs")]
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, entry: Entry<'_>, seen_in: Term, tick: u64) -> Decision {
        assert_eq!(entry.index().0, self.len() + 1, "entries are committed in order");
        let (mut decision, mut value, mut is_delete) = (Decision::NoOp, None, false);
        if entry.kind() == EntryKind::Command {
            let (id, command) = decode_payload(entry.payload()).expect("only sound commands are committed");
            let number = (id.incarnation.0, id.seq);
            is_delete = matches!(command, Command::Delete { .. });
            if let Command::Put { value: bytes, .. } = &command {
                value = value_number(bytes);
            }
            if self.newest.get(&id.origin).is_some_and(|newest| *newest >= number) {
                decision = Decision::Skipped;
            } else {
                self.newest.insert(id.origin, number);
                decision = self.execute(entry.index(), &command, value);
            }
        }
        let (term, crc) = (entry.term(), entry.crc());
        self.log.push(Committed { term, crc, seen_in, tick, decision, value, is_delete });
        decision
    }

    fn execute(&mut self, index: Index, command: &Command, value: Option<u64>) -> Decision {
        let current = self.keys.get(command.key()).copied();
        let matches = |matcher: &Matcher| match (matcher, current) {
            (_, None) => false,
            (Matcher::Any, Some(_)) => true,
            (Matcher::Revisions(list), Some(revision)) => list.contains(&Index(revision)),
        };
        let condition = command.condition();
        let holds = condition.if_match.as_ref().is_none_or(matches)
            && !condition.if_none_match.as_ref().is_some_and(matches);
        if !holds {
            return Decision::Failed(current);
        }
        match command {
            Command::Put { key, .. } => {
                self.keys.insert(key.clone(), index.0);
                let value = value.expect("users write numbers");
                let earlier = self.executed.insert(value, index.0);
                assert_eq!(
                    earlier, None,
                    "the write of {value} took effect twice, the second time at {index}"
                );
            }
            Command::Delete { key, .. } => {
                self.keys.remove(key);
            }
        }
        Decision::Written
    }

    /// Compares every answer with the log, and replaces what users could not know by what the log says: so that the
    /// search for a linearization stays short.
    pub(crate) fn settle(&self, history: &mut History) {
        for operation in &mut history.operations {
            let executed = operation.action.value().and_then(|value| self.executed.get(&value).copied());
            match operation.outcome {
                Outcome::NotApplied => {
                    assert_eq!(
                        executed, None,
                        "said to be surely not applied, and yet it was: {operation:?}"
                    );
                }
                Outcome::Done => {
                    let index = operation.revision.expect("a write's answer has its revision");
                    assert!(index <= self.len(), "answered before it was committed: {operation:?}");
                    let entry = self.get(index);
                    let is_same = entry.decision == Decision::Written
                        && entry.value == operation.action.value()
                        && entry.is_delete == (operation.action == Action::Delete);
                    assert!(is_same, "the answer is not what entry {index} did, {entry:?}: {operation:?}");
                }
                Outcome::ConditionFailed(current) => {
                    let index = operation.revision.expect("a write's answer has its revision");
                    assert!(index <= self.len(), "answered before it was committed: {operation:?}");
                    let decision = self.get(index).decision;
                    assert_eq!(
                        decision,
                        Decision::Failed(current),
                        "another answer than entry {index}: {operation:?}"
                    );
                }
                Outcome::Unknown if operation.action.value().is_some() => match executed {
                    Some(index) => {
                        operation.outcome = Outcome::Done;
                        operation.revision = Some(index);
                        operation.end = self.get(index).tick.max(operation.call + 1);
                    }
                    None => operation.outcome = Outcome::NotApplied,
                },
                Outcome::Unknown | Outcome::Found(_) | Outcome::Missing => {}
            }
        }
    }
}
