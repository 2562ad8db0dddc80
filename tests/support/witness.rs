//! Checks a history by the revisions that the answers carry.
//!
//! Every answer names the Raft index that it reflects, so the order in which the cluster claims to have done everything
//! is known and need not be searched for. Three things must hold of it: it agrees with real time, no two writes have
//! the same place in it, and doing the operations one after the other in that order gives every client the answer that
//! it got. Writes with unknown outcome take their place when somebody sees them.

use std::collections::BTreeMap;

use super::history::{Action, History, Operation, Outcome, Version};

/// Checks the order in time, then replays each key.
pub fn check(history: &History) -> Result<(), String> {
    check_revisions_present(history)?;
    check_real_time(history)?;
    check_places_unique(history)?;
    for (key, operations) in history.by_key() {
        let replay = Replay::new(&operations).map_err(|error| format!("key {key}: {error}"))?;
        for operation in &operations {
            replay.check(operation).map_err(|error| format!("key {key}: {error}: {operation:?}"))?;
        }
    }
    Ok(())
}

/// Whether the operation was answered from a known place in the order.
fn is_placed(operation: &Operation) -> bool {
    !matches!(operation.outcome, Outcome::NotApplied | Outcome::Unknown)
}

/// Whether the operation has an index of its own in the log: all writes that were decided, not the reads.
fn is_logged(operation: &Operation) -> bool {
    is_placed(operation) && operation.action != Action::Get
}

fn check_revisions_present(history: &History) -> Result<(), String> {
    match history.operations.iter().find(|operation| is_placed(operation) && operation.revision.is_none()) {
        None => Ok(()),
        Some(operation) => Err(format!("an answer without Keva-Revision: {operation:?}")),
    }
}

/// What began after something else was over has a later place; a read may have the same.
fn check_real_time(history: &History) -> Result<(), String> {
    let placed = || history.operations.iter().filter(|operation| is_placed(operation));
    let mut by_call: Vec<&Operation> = placed().collect();
    by_call.sort_by_key(|operation| operation.call);
    let mut by_end: Vec<&Operation> = placed().collect();
    by_end.sort_by_key(|operation| operation.end);

    let mut over = by_end.into_iter().peekable();
    let mut latest: Option<&Operation> = None;
    for operation in by_call {
        while let Some(earlier) = over.next_if(|earlier| earlier.end < operation.call) {
            if latest.is_none_or(|latest| latest.revision < earlier.revision) {
                latest = Some(earlier);
            }
        }
        let Some(latest) = latest else { continue };
        let is_late_enough = if is_logged(operation) {
            operation.revision > latest.revision
        } else {
            operation.revision >= latest.revision
        };
        if !is_late_enough {
            return Err(format!("went back in time: {operation:?} began after {latest:?} was over"));
        }
    }
    Ok(())
}

fn check_places_unique(history: &History) -> Result<(), String> {
    let mut taken: BTreeMap<u64, &Operation> = BTreeMap::new();
    for operation in history.operations.iter().filter(|operation| is_logged(operation)) {
        let revision = operation.revision.expect("checked before");
        if let Some(other) = taken.insert(revision, operation) {
            return Err(format!("two writes at revision {revision}: {operation:?} and {other:?}"));
        }
    }
    Ok(())
}

/// One key's states in the order of the log, as far as they are known.
struct Replay {
    /// The value from this index on; `None`: absent.
    states: BTreeMap<u64, Option<u64>>,
    /// Calls of deletes whose outcome is unknown. They may explain an absence.
    unknown_deletes: Vec<u64>,
    /// Calls of other writes whose outcome is unknown and whose value nobody saw. They may explain a revision that
    /// is known only from a condition that failed.
    unseen_writes: Vec<u64>,
}

impl Replay {
    fn new(operations: &[Operation]) -> Result<Replay, String> {
        let mut writers = BTreeMap::new();
        for operation in operations {
            if let Some(value) = operation.action.value() {
                writers.insert(value, operation);
            }
        }
        let mut states = BTreeMap::new();
        for operation in operations.iter().filter(|operation| operation.outcome == Outcome::Done) {
            states.insert(operation.revision.expect("checked before"), operation.action.value());
        }
        let mut places: BTreeMap<u64, u64> = BTreeMap::new();
        for operation in operations {
            let Outcome::Found(version) = operation.outcome else { continue };
            check_sighting(version, writers.get(&version.value).copied(), operation)?;
            if *places.entry(version.value).or_insert(version.revision) != version.revision {
                return Err(format!("value {} was seen at two revisions: {operation:?}", version.value));
            }
            if *states.entry(version.revision).or_insert(Some(version.value)) != Some(version.value) {
                return Err(format!("revision {} has two contents: {operation:?}", version.revision));
            }
        }
        let unknown = |operation: &&Operation| operation.outcome == Outcome::Unknown;
        let calls = |wanted: &dyn Fn(&Operation) -> bool| {
            operations
                .iter()
                .filter(unknown)
                .filter(|operation| wanted(operation))
                .map(|one| one.call)
                .collect()
        };
        Ok(Replay {
            states,
            unknown_deletes: calls(&|operation| operation.action == Action::Delete),
            unseen_writes: calls(&|operation| {
                operation.action.value().is_some_and(|value| !places.contains_key(&value))
            }),
        })
    }

    /// The last known change at or before this index, and the value since then.
    fn state_at(&self, index: u64) -> (Option<u64>, Option<u64>) {
        match self.states.range(..=index).next_back() {
            None => (None, None),
            Some((revision, value)) => (Some(*revision), *value),
        }
    }

    fn check(&self, operation: &Operation) -> Result<(), String> {
        if !is_placed(operation) {
            return Ok(());
        }
        let revision = operation.revision.expect("checked before");
        match (operation.action, operation.outcome) {
            (_, Outcome::Found(version)) => {
                if version.revision > revision {
                    return Err("found a revision that is later than the answer's own".to_owned());
                }
                self.expect_version(revision, version)
            }
            (_, Outcome::Missing) => self.expect_absent(revision, operation),
            (Action::CompareAndSet { expected, .. }, Outcome::Done) => {
                self.expect_version(revision - 1, expected)
            }
            (Action::Create { .. }, Outcome::Done) => self.expect_absent(revision - 1, operation),
            (_, Outcome::ConditionFailed(current)) => {
                self.check_condition_failed(revision, current, operation)
            }
            _ => Ok(()),
        }
    }

    fn expect_version(&self, index: u64, version: Version) -> Result<(), String> {
        match self.state_at(index) {
            (Some(revision), Some(value)) if (Version { value, revision }) == version => Ok(()),
            state => {
                Err(format!("at index {index} the key was at {state:?} (revision, value), not {version:?}"))
            }
        }
    }

    fn expect_absent(&self, index: u64, operation: &Operation) -> Result<(), String> {
        let (revision, value) = self.state_at(index);
        if value.is_none() || self.unknown_deletes.iter().any(|call| *call < operation.end) {
            return Ok(());
        }
        Err(format!(
            "at index {index} the key had the value {value:?} of revision {revision:?}, and was found absent"
        ))
    }

    fn check_condition_failed(
        &self,
        revision: u64,
        current: Option<u64>,
        operation: &Operation,
    ) -> Result<(), String> {
        match (operation.action, current) {
            (Action::Create { .. }, None) => return Err("absent, and yet not created".to_owned()),
            (Action::CompareAndSet { expected, .. }, Some(current)) if current == expected.revision => {
                return Err("the condition held, and the write was refused".to_owned());
            }
            _ => {}
        }
        let Some(current) = current else {
            return self.expect_absent(revision, operation);
        };
        let (known, value) = self.state_at(revision);
        let explained = if known == Some(current) {
            value.is_some()
        } else {
            known < Some(current) && self.unseen_writes.iter().any(|call| *call < operation.end)
        };
        if explained {
            return Ok(());
        }
        Err(format!("refused because of revision {current}, but the key was at {known:?}"))
    }
}

/// Whoever sees a value sees a write that could have taken effect, where the cluster said that it did.
fn check_sighting(version: Version, writer: Option<&Operation>, reader: &Operation) -> Result<(), String> {
    let Some(writer) = writer else {
        return Err(format!("nobody wrote this value: {reader:?}"));
    };
    let complaint = match writer.outcome {
        Outcome::NotApplied | Outcome::ConditionFailed(_) => "a write was seen that had no effect",
        Outcome::Done if writer.revision != Some(version.revision) => "a write was seen at another revision",
        _ if reader.end < writer.call => "a write was seen before it was sent",
        _ => return Ok(()),
    };
    Err(format!("{complaint}: {reader:?} saw {writer:?}"))
}
