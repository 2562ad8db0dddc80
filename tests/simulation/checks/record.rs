//! The log of record: what the cluster has committed, and what that means. Answers are compared with it.

use std::collections::BTreeMap;

use keva::kv::command::{Command, Operation, Write};
use keva::kv::payload::Payload;
use keva::raft::entry::{Entry, EntryKind};
use keva::raft::types::{NodeId, Term};

use super::lives::Lives;
pub(crate) use super::model::Decision;
use super::model::Model;
use crate::plan::Plan;
use crate::support::history::{Action, History, Outcome};

/// A committed entry.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) term: Term,
    pub(crate) crc: u32,
    /// The term of the node that first knew.
    pub(crate) seen_in: Term,
    /// When that was, in the time of the history.
    pub(crate) tick: u64,
    pub(crate) decision: Decision,
    pub(crate) write: Option<Write>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) log: Vec<Committed>,
    pub(crate) model: Model,
    pub(crate) lives: Lives,
    newest: BTreeMap<NodeId, (u64, u64)>,
    executed: BTreeMap<u64, u64>,
}

/// The number that a value begins with.
pub(crate) fn value_number(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
}

/// The number by which a write is known: every request of a user that writes something has its own.
fn tag_of(command: &Command) -> Option<u64> {
    let of_sum = |by: i64| Some(if by > i64::MAX / 2 { i64::MAX.abs_diff(by) } else { by.unsigned_abs() });
    match command {
        Command::Put { value, .. } | Command::Append { value, .. } => value_number(value),
        Command::Add { by, .. } => of_sum(*by),
        Command::Transaction(transaction) => transaction.operations().find_map(|operation| match operation {
            Operation::Put { value, .. } => value_number(value),
            Operation::Add { by, .. } => of_sum(*by),
            Operation::Delete { .. } | Operation::Get { .. } => None,
        }),
        Command::Delete { .. } | Command::DeletePrefix { .. } | Command::Expire { .. } | Command::Tick => {
            None
        }
    }
}

impl Record {
    pub(crate) fn new(plan: &Plan) -> Record {
        Record { lives: Lives::new(plan), ..Record::default() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.log.len() as u64
    }

    pub(crate) fn get(&self, index: u64) -> &Committed {
        &self.log[usize::try_from(index - 1).expect("short logs")]
    }

    /// The entry that carried out the request with this number.
    pub(crate) fn executed(&self, tag: u64) -> Option<u64> {
        self.executed.get(&tag).copied()
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, entry: Entry<'_>, seen_in: Term, tick: u64) {
        assert_eq!(entry.index().0, self.len() + 1, "entries are committed in order");
        let (mut decision, mut write) = (Decision::NoOp, None);
        self.model.expired.clear();
        if entry.kind() == EntryKind::Command {
            let payload = Payload::decode(entry.payload()).expect("only sound commands are committed");
            decision = self.carry_out(entry.index().0, &payload);
            write = Some(payload.write);
        }
        let (term, crc) = (entry.term(), entry.crc());
        self.log.push(Committed { term, crc, seen_in, tick, decision, write });
    }

    fn carry_out(&mut self, index: u64, payload: &Payload) -> Decision {
        let id = payload.id;
        assert!(payload.time.0 > 0, "entry {index} has no time");
        self.model.time = self.model.time.max(payload.time.0);
        let is_internal = matches!(payload.write.command, Command::Expire { .. } | Command::Tick);
        assert_eq!(id.seq == 0, is_internal, "entry {index} is not who it says: {payload:?}");
        let number = (id.incarnation.0, id.seq);
        if !is_internal {
            if self.newest.get(&id.origin).is_some_and(|newest| *newest >= number) {
                return Decision::Skipped;
            }
            self.newest.insert(id.origin, number);
        }
        let decision = self.model.apply(index, &payload.write);
        if matches!(decision, Decision::Written | Decision::Counted(_) | Decision::Transaction(..))
            && let Some(tag) = tag_of(&payload.write.command)
        {
            let earlier = self.executed.insert(tag, index);
            assert_eq!(earlier, None, "the write of {tag} took effect twice, the second time at {index}");
        }
        for gone in &self.model.expired {
            let write = self.log[usize::try_from(gone.revision - 1).expect("short logs")].write.as_ref();
            let tag =
                write.and_then(|write| tag_of(&write.command)).expect("only numbered writes give lives");
            self.lives.check_expired(tag, gone.ttl_ms.expect("it had an end"), seen_terms(&self.log));
        }
        decision
    }

    /// Compares every answer with the log, and replaces what users could not know by what the log says: so that the
    /// search for a linearization stays short.
    pub(crate) fn settle(&self, history: &mut History) {
        for operation in &mut history.operations {
            let executed = operation.action.value().and_then(|value| self.executed(value));
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
                    let command = entry.write.as_ref().map(|write| &write.command);
                    let is_delete = matches!(command, Some(Command::Delete { .. }));
                    let is_same = entry.decision == Decision::Written
                        && command.and_then(tag_of) == operation.action.value()
                        && is_delete == (operation.action == Action::Delete);
                    assert!(is_same, "the answer is not what entry {index} did, {entry:?}: {operation:?}");
                }
                Outcome::ConditionFailed(current) => {
                    let index = operation.revision.expect("a write's answer has its revision");
                    assert!(index <= self.len(), "answered before it was committed: {operation:?}");
                    assert_eq!(
                        self.get(index).decision,
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

/// The newest term of the log.
fn seen_terms(log: &[Committed]) -> u64 {
    log.last().map_or(0, |last| last.term.0)
}
