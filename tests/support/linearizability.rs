//! Is a history linearizable? Asked key by key, from the values alone: revisions are not looked at, so an error in
//! them cannot hide an error in the values.

use std::collections::BTreeMap;
use std::time::Duration;

use porcupine_rs::{
    CheckResult, Model, check_operations_info_timeout, check_operations_timeout, visualize_path,
};

use super::history::{Action, History, Operation, Outcome};

/// A key whose search takes longer is undecided, and that is a failure of the test: its history must be made easier,
/// with fewer operations at a time on a key.
const TIME_PER_KEY_MAX: Duration = Duration::from_secs(60);

/// The value of a key that is absent.
const ABSENT: u64 = 0;

/// One key: reads, writes, and writes on a condition.
#[derive(Clone, Debug)]
struct KeyModel;

/// An operation with its result. `done` is `None` when the client does not know whether the condition held.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read { found: u64 },
    Write { value: u64 },
    WriteIf { expected: u64, value: u64, done: Option<bool> },
}

impl Model for KeyModel {
    type State = u64;
    type Op = Step;
    type Metadata = String;

    fn init() -> u64 {
        ABSENT
    }

    fn step(state: &u64, step: &Step) -> (bool, u64) {
        match *step {
            Step::Read { found } => (found == *state, *state),
            Step::Write { value } => (true, value),
            Step::WriteIf { expected, value, done } => {
                let holds = expected == *state;
                (done.is_none_or(|done| done == holds), if holds { value } else { *state })
            }
        }
    }
}

/// Checks every key.
pub fn check(history: &History) -> Result<(), String> {
    for (key, operations) in history.by_key() {
        check_key(key, &operations)?;
    }
    Ok(())
}

fn check_key(key: u32, operations: &[Operation]) -> Result<(), String> {
    let seen = first_sightings(operations);
    let steps: Vec<_> = operations.iter().filter_map(|operation| step_of(operation, &seen)).collect();
    match check_operations_timeout::<KeyModel>(&steps, TIME_PER_KEY_MAX) {
        CheckResult::Ok => Ok(()),
        CheckResult::Unknown => Err(format!(
            "key {key}: undecided after {TIME_PER_KEY_MAX:?} for {} operations: too many at a time",
            steps.len()
        )),
        CheckResult::Illegal => Err(format!("key {key}: not linearizable. {}", picture(key, &steps))),
    }
}

/// When each value was first known to be in the key: the earliest end of an operation that saw it.
fn first_sightings(operations: &[Operation]) -> BTreeMap<u64, u64> {
    let mut seen = BTreeMap::new();
    for operation in operations {
        let value = match (operation.action, operation.outcome) {
            (_, Outcome::Found(version)) => version.value,
            (Action::CompareAndSet { expected, .. }, Outcome::Done) => expected.value,
            _ => continue,
        };
        let first = seen.entry(value).or_insert(operation.end);
        *first = operation.end.min(*first);
    }
    seen
}

fn step_of(operation: &Operation, seen: &BTreeMap<u64, u64>) -> Option<porcupine_rs::Operation<KeyModel>> {
    let done = match operation.outcome {
        Outcome::NotApplied => return None,
        Outcome::Found(_) | Outcome::Missing | Outcome::Done => Some(true),
        Outcome::ConditionFailed(_) => Some(false),
        Outcome::Unknown => None,
    };
    // An unknown write may take effect at any time. Whoever saw its value proves that it had by then.
    let sighting = operation.action.value().and_then(|value| seen.get(&value).copied());
    let (end, done) = match (done, sighting) {
        (Some(_), _) => (operation.end, done),
        (None, Some(seen_at)) => (seen_at.max(operation.call + 1), Some(true)),
        (None, None) => (i64::MAX.cast_unsigned(), None),
    };
    let op = match operation.action {
        Action::Get => Step::Read {
            found: match operation.outcome {
                Outcome::Found(version) => version.value,
                _ => ABSENT,
            },
        },
        Action::Put { value } => Step::Write { value },
        Action::Delete => Step::Write { value: ABSENT },
        Action::Create { value } => Step::WriteIf { expected: ABSENT, value, done },
        Action::CompareAndSet { expected, value } => Step::WriteIf { expected: expected.value, value, done },
    };
    Some(porcupine_rs::Operation {
        client_id: Some(operation.client),
        call_time: operation.call.cast_signed(),
        return_time: end.cast_signed(),
        op,
        metadata: operation.revision.map(|revision| format!("revision {revision}")),
    })
}

/// Draws the history of a key that is wrong.
fn picture(key: u32, steps: &[porcupine_rs::Operation<KeyModel>]) -> String {
    let (_, info) = check_operations_info_timeout::<KeyModel>(steps, TIME_PER_KEY_MAX);
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-of-key-{key}.html"));
    match visualize_path::<KeyModel>(&info, &path) {
        Ok(()) => format!("Look at {}", path.display()),
        Err(error) => format!("No picture: {error}"),
    }
}
