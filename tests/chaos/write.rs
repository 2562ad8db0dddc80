//! What clients have asked to be changed, and the events that follow from it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::support::history::{Action, History, Outcome};
use super::support::workload::{MishapKind, WriterReport};

/// Bytes of a value that a message shows.
const SHOWN_BYTES: usize = 40;

/// A value as it is, with what is known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Of the entry that wrote it.
    pub revision: u64,
    /// The bytes.
    pub value: Vec<u8>,
    /// It may be gone from then on.
    pub lives_until: Option<Instant>,
}

/// All keys.
pub type State = BTreeMap<String, Held>;

/// What a write does with a key, or several.
#[derive(Clone, PartialEq, Eq)]
pub enum Effect {
    /// Gives it a value that nothing else gives it.
    Put {
        /// Which.
        key: String,
        /// The bytes.
        value: Vec<u8>,
        /// And removes it when this time is over.
        life: Option<Duration>,
    },
    /// Counts by a number that nothing else counts it by.
    Add {
        /// Which.
        key: String,
        /// How much.
        by: i64,
    },
    /// Removes it.
    Delete {
        /// Which.
        key: String,
    },
    /// Removes all of them.
    DeletePrefix {
        /// The beginning of the keys.
        prefix: String,
    },
}

/// Values as text, and not all of long ones.
impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Put { key, value, life } => {
                let text = String::from_utf8_lossy(&value[..value.len().min(SHOWN_BYTES)]);
                write!(f, "put {key} {text:?} for {life:?}")
            }
            Effect::Add { key, by } => write!(f, "add {by} to {key}"),
            Effect::Delete { key } => write!(f, "delete {key}"),
            Effect::DeletePrefix { prefix } => write!(f, "delete all of {prefix}"),
        }
    }
}

/// A write that was done or may have been.
#[derive(Clone, Debug)]
pub struct Write {
    /// In their order, all at once.
    pub effects: Vec<Effect>,
    /// The revision that the answer named. `None`: nobody knows what became of it.
    pub revision: Option<u64>,
    /// When it was sent.
    pub called: Instant,
}

impl Write {
    /// The events that it has in this state, by key: the value, or `None` for a deletion.
    pub fn events(&self, state: &State) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut events: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
        for effect in &self.effects {
            match effect {
                Effect::Put { key, value, .. } => {
                    events.insert(key.clone(), Some(value.clone()));
                }
                Effect::Add { key, by } => {
                    let held = || state.get(key).map(|held| held.value.clone());
                    let before = events.get(key).cloned().unwrap_or_else(held);
                    let text =
                        before.map_or("0".into(), |value| String::from_utf8_lossy(&value).into_owned());
                    let before: i64 = text.parse().expect("only numbers are added to");
                    events.insert(key.clone(), Some((before + by).to_string().into_bytes()));
                }
                Effect::Delete { key } => {
                    events.remove(key);
                    if state.contains_key(key) {
                        events.insert(key.clone(), None);
                    }
                }
                Effect::DeletePrefix { prefix } => {
                    let all = state.range(prefix.clone()..).map(|(key, _)| key);
                    events
                        .extend(all.take_while(|key| key.starts_with(prefix)).map(|key| (key.clone(), None)));
                }
            }
        }
        events
    }

    /// When the life of the value that it gave to this key may end.
    pub fn lives_until(&self, name: &str) -> Option<Instant> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Put { key, life, .. } if key == name => Some(life.map(|life| self.called + life)),
            _ => None,
        })?
    }

    /// Whether it may be what has happened to this key.
    pub fn concerns(&self, name: &str) -> bool {
        self.effects.iter().any(|effect| match effect {
            Effect::Put { key, .. } | Effect::Add { key, .. } | Effect::Delete { key } => key == name,
            Effect::DeletePrefix { prefix } => name.starts_with(prefix),
        })
    }
}

/// The writes of clients that share keys. Those without effect are left out.
pub fn of_history(name: &str, history: &History) -> Vec<Write> {
    let called = Instant::now();
    let write = |operation: &super::support::history::Operation| {
        let revision = match operation.outcome {
            Outcome::Done => Some(operation.revision.expect("a write's answer names its revision")),
            Outcome::Unknown => None,
            _ => return None,
        };
        let key = format!("{name}-{}", operation.key);
        let effect = match (operation.action, operation.action.value()) {
            (Action::Get, _) => return None,
            (_, Some(value)) => Effect::Put { key, value: value.to_string().into_bytes(), life: None },
            (_, None) => Effect::Delete { key },
        };
        Some(Write { effects: vec![effect], revision, called })
    };
    history.operations.iter().filter_map(write).collect()
}

/// The writes of a client that writes each key once.
pub fn of_report(report: &WriterReport) -> Vec<Write> {
    let called = Instant::now();
    let write = |key: &str, value: &str, revision| Write {
        effects: vec![Effect::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), life: None }],
        revision,
        called,
    };
    let done = report.acknowledged.iter().map(|done| write(&done.key, &done.value, Some(done.revision)));
    let unknown = report.mishaps.iter().filter(|mishap| mishap.kind == MishapKind::Unknown);
    done.chain(unknown.map(|mishap| write(&mishap.key, &mishap.value, None))).collect()
}
