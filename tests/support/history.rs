//! What clients asked of a few shared keys, when, and what they were told.

use std::collections::BTreeMap;
use std::time::Instant;

/// What is in a key: the value's number and the revision that it was seen with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// Every write of a test has a value of its own. Never 0.
    pub value: u64,
    /// The ETag.
    pub revision: u64,
}

/// What a client asks of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Read it.
    Get,
    /// Set it.
    Put {
        /// To this.
        value: u64,
    },
    /// Set it if it is absent (`If-None-Match: *`).
    Create {
        /// To this.
        value: u64,
    },
    /// Set it if it is unchanged (`If-Match`).
    CompareAndSet {
        /// Since it was this.
        expected: Version,
        /// To this.
        value: u64,
    },
    /// Remove it.
    Delete,
}

impl Action {
    /// The value that the key gets if the action takes effect. `None` for those that set none.
    pub fn value(self) -> Option<u64> {
        match self {
            Action::Get | Action::Delete => None,
            Action::Put { value } | Action::Create { value } | Action::CompareAndSet { value, .. } => {
                Some(value)
            }
        }
    }
}

/// What a client was told. Failed reads are not recorded: they say nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A read found this.
    Found(Version),
    /// A read found nothing.
    Missing,
    /// The write took effect.
    Done,
    /// The condition did not hold; the key was at this revision, or absent.
    ConditionFailed(Option<u64>),
    /// The write surely has no effect, ever.
    NotApplied,
    /// The write may take effect at any time from its call on, or never.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Who.
    pub client: u32,
    /// On which key.
    pub key: u32,
    /// When it was sent, in nanoseconds since the history began.
    pub call: u64,
    /// When it was answered, in the same unit. For unknown outcomes: when the client gave up, which proves nothing.
    pub end: u64,
    /// What was asked.
    pub action: Action,
    /// What was answered.
    pub outcome: Outcome,
    /// `Keva-Revision` of the answer.
    pub revision: Option<u64>,
}

/// The operations of all clients.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In no particular order.
    pub operations: Vec<Operation>,
}

impl History {
    /// The operations on each key, in order of their calls.
    pub fn by_key(&self) -> BTreeMap<u32, Vec<Operation>> {
        let mut keys: BTreeMap<u32, Vec<Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(operation.key).or_default().push(*operation);
        }
        for operations in keys.values_mut() {
            operations.sort_by_key(|operation| operation.call);
        }
        keys
    }

    /// How many operations ended like this.
    pub fn count(&self, predicate: impl Fn(&Operation) -> bool) -> usize {
        self.operations.iter().filter(|operation| predicate(operation)).count()
    }

    /// How many keys, operations, unknown outcomes and so on, in a line.
    pub fn summary(&self) -> String {
        let of = |wanted: fn(&Outcome) -> bool| self.count(|operation| wanted(&operation.outcome));
        format!(
            "{} operations on {} keys: {} reads, {} writes done, {} conditions failed, {} not applied, {} unknown",
            self.operations.len(),
            self.by_key().len(),
            of(|outcome| matches!(outcome, Outcome::Found(_) | Outcome::Missing)),
            of(|outcome| matches!(outcome, Outcome::Done)),
            of(|outcome| matches!(outcome, Outcome::ConditionFailed(_))),
            of(|outcome| matches!(outcome, Outcome::NotApplied)),
            of(|outcome| matches!(outcome, Outcome::Unknown)),
        )
    }
}

/// The time that all clients of a history share.
#[derive(Clone, Copy, Debug)]
pub struct HistoryClock {
    start: Instant,
}

impl HistoryClock {
    /// Starts at 0.
    pub fn start() -> HistoryClock {
        HistoryClock { start: Instant::now() }
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("tests end before 584 years")
    }
}
