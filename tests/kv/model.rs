//! Random commands against a few lines that say what they should do; snapshots at random points, written while the state
//! goes on changing; and the changes, which must tell the whole story.

use std::collections::BTreeMap;

use keva::kv::command::{Command, Condition, Matcher, Operation, Requirement, Transaction, Write};
use keva::kv::history::{Change, ChangeKind, History};
use keva::kv::payload::Payload;
use keva::kv::range::KeyRange;
use keva::kv::restore::Restore;
use keva::kv::store::{Applied, Item, Store};
use keva::limits::{IDEMPOTENCY_MS_MIN, VALUE_BYTES_MAX};
use keva::raft::types::Index;
use keva::util::time::LogicalTime;
use proptest::prelude::*;

use crate::snapshots::{HEADER_BYTES, ITEM_HEADER_BYTES, RECORD_HEADER_BYTES, SESSION_BYTES, snapshot};
use crate::writes::{expire, id};

// ---- what should happen ---------------------------------------------------------------------------

#[derive(Clone, PartialEq, Debug)]
struct Key {
    value: Vec<u8>,
    content_type: Option<String>,
    revision: u64,
    end: Option<u64>,
}

type Keys = BTreeMap<String, Key>;

/// The state as plainly as can be.
#[derive(Default)]
struct Model {
    keys: Keys,
    time: u64,
    /// By name: when, what, and the revision with the outcome.
    names: BTreeMap<String, (u64, Command, u64, Applied)>,
}

impl Model {
    fn apply(&mut self, revision: u64, time: u64, write: &Write) -> Applied {
        self.time = self.time.max(time);
        let Some(name) = &write.idempotency_key else { return self.execute(revision, &write.command) };
        let known = self.names.get(name).filter(|(then, ..)| self.time - then <= IDEMPOTENCY_MS_MIN);
        if let Some((_, command, revision, outcome)) = known {
            return match *command == write.command {
                true => Applied::Repeated { revision: Index(*revision), first: Box::new(outcome.clone()) },
                false => Applied::KeyReused,
            };
        }
        let outcome = self.execute(revision, &write.command);
        self.names.insert(name.clone(), (self.time, write.command.clone(), revision, outcome.clone()));
        outcome
    }

    fn execute(&mut self, revision: u64, command: &Command) -> Applied {
        let current = command.key().and_then(|key| self.keys.get(key)).map(|key| Index(key.revision));
        if command.condition().is_some_and(|condition| !condition.holds(current)) {
            return Applied::ConditionFailed { current };
        }
        let mut keys = self.keys.clone();
        let outcome = match command {
            Command::Put { key, value, content_type, ttl_ms, .. } => {
                self.set(&mut keys, revision, key, value.clone(), content_type.clone(), *ttl_ms);
                Applied::Written
            }
            Command::Delete { key, .. } => {
                keys.remove(key);
                Applied::Written
            }
            Command::Append { key, value, content_type, ttl_ms, .. } => {
                let old = keys.get(key).cloned();
                let whole = [old.as_ref().map_or(&[][..], |old| &old.value), value].concat();
                let content_type = content_type.clone().or(old.and_then(|old| old.content_type));
                self.set(&mut keys, revision, key, whole, content_type, *ttl_ms);
                Applied::Written
            }
            Command::Add { key, by, ttl_ms, .. } => {
                self.add(&mut keys, revision, key, *by, *ttl_ms).map_or_else(refused, Applied::Counted)
            }
            Command::DeletePrefix { prefix } => {
                keys.retain(|key, _| !key.starts_with(prefix));
                Applied::Deleted((self.keys.len() - keys.len()) as u64)
            }
            Command::Transaction(transaction) => self.transaction(&mut keys, revision, transaction),
            Command::Expire { keys: named } => {
                for (name, revision) in named {
                    if keys.get(name).is_some_and(|key| {
                        key.revision == revision.0 && key.end.is_some_and(|end| end <= self.time)
                    }) {
                        keys.remove(name);
                    }
                }
                Applied::Written
            }
            Command::Tick => Applied::Written,
        };
        if !matches!(outcome, Applied::Refused(_)) {
            self.keys = keys;
        }
        outcome
    }

    fn set(
        &self,
        keys: &mut Keys,
        revision: u64,
        key: &str,
        value: Vec<u8>,
        content_type: Option<String>,
        ttl: Option<u64>,
    ) {
        let end = ttl.map(|ttl| self.time + ttl);
        keys.insert(key.into(), Key { value, content_type, revision, end });
    }

    /// `None`: refused.
    fn add(&self, keys: &mut Keys, revision: u64, key: &str, by: i64, ttl: Option<u64>) -> Option<i64> {
        let old = keys.get(key).cloned();
        let number = match &old {
            None => 0,
            Some(old) => String::from_utf8(old.value.clone()).ok()?.trim_ascii().parse::<i64>().ok()?,
        };
        let sum = number.checked_add(by)?;
        let content_type = old.and_then(|old| old.content_type);
        self.set(keys, revision, key, sum.to_string().into_bytes(), content_type, ttl);
        Some(sum)
    }

    fn transaction(&self, keys: &mut Keys, revision: u64, transaction: &Transaction) -> Applied {
        use keva::kv::outcome::{OperationResult, TransactionResult};
        let holds = |(key, requirement): &(String, Requirement)| match (requirement, self.keys.get(key)) {
            (Requirement::Absent, key) => key.is_none(),
            (Requirement::Exists, key) => key.is_some(),
            (Requirement::Revision(revision), key) => key.is_some_and(|key| key.revision == revision.0),
            (Requirement::Value(value), key) => key.is_some_and(|key| key.value == *value),
        };
        let failed = transaction.conditions.iter().position(|condition| !holds(condition));
        let operations = match (failed, &transaction.otherwise) {
            (None, _) => &transaction.then,
            (Some(_), Some(otherwise)) => otherwise,
            (Some(at), None) => {
                let current = self.keys.get(&transaction.conditions[at].0).map(|key| Index(key.revision));
                return Applied::RequirementFailed { position: at as u32, current };
            }
        };
        let mut results = Vec::new();
        for operation in operations {
            let key = operation.key().to_owned();
            results.push(match operation {
                Operation::Put { value, content_type, ttl_ms, .. } => {
                    self.set(keys, revision, &key, value.clone(), content_type.clone(), *ttl_ms);
                    OperationResult::Put { key }
                }
                Operation::Add { by, ttl_ms, .. } => match self.add(keys, revision, &key, *by, *ttl_ms) {
                    Some(value) => OperationResult::Added { key, value },
                    None => return refused(),
                },
                Operation::Delete { .. } => {
                    let existed = keys.remove(&key).is_some();
                    OperationResult::Deleted { key, existed }
                }
                Operation::Get { .. } => {
                    let found = keys.get(&key);
                    let found = found.map(|found| (Index(found.revision), found.value.clone().into()));
                    OperationResult::Got { key, found }
                }
            });
        }
        Applied::Transaction(TransactionResult { succeeded: failed.is_none(), results })
    }
}

/// For whatever reason: other tests say which.
fn refused() -> Applied {
    Applied::Refused(keva::kv::outcome::Refusal::ResultTooLong)
}

fn without_reason(outcome: Applied) -> Applied {
    match outcome {
        Applied::Refused(_) => refused(),
        Applied::Repeated { revision, first } => {
            Applied::Repeated { revision, first: Box::new(without_reason(*first)) }
        }
        other => other,
    }
}

fn keys_of(items: impl IntoIterator<Item = (String, Item)>) -> Keys {
    let key = |item: Item| Key {
        value: item.value.to_vec(),
        content_type: item.content_type.map(|name| name.to_string()),
        revision: item.revision.0,
        end: item.expires_at.map(|end| end.0),
    };
    items.into_iter().map(|(name, item)| (name, key(item))).collect()
}

// ---- what is done ---------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Step {
    /// A command, the time since the last one, and a name.
    Run(Command, u64, Option<u8>),
    /// Expire what is over after so much time, as the leader does; some of it written since.
    Expire(u64),
    Pass,
    Begin,
    Write(usize),
    Abandon,
}

fn key() -> impl Strategy<Value = String> {
    (0..3u8, 0..8u8).prop_map(|(part, key)| format!("{part}/{key}"))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => (0..40usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        2 => (-9..99i64).prop_map(|number| format!("{number}\n").into_bytes()),
        1 => Just(i64::MAX.to_string().into_bytes()),
    ]
}

fn content_type() -> impl Strategy<Value = Option<String>> {
    prop::option::weighted(0.3, "[a-c]{0,3}")
}

fn ttl() -> impl Strategy<Value = Option<u64>> {
    prop::option::weighted(0.4, 1..50u64)
}

fn condition() -> impl Strategy<Value = Condition> {
    let matcher = || {
        prop::option::weighted(
            0.15,
            prop_oneof![
                Just(Matcher::Any),
                prop::collection::vec((1..40u64).prop_map(Index), 0..9).prop_map(Matcher::Revisions)
            ],
        )
    };
    (matcher(), matcher()).prop_map(|(if_match, if_none_match)| Condition { if_match, if_none_match })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (key(), value(), content_type(), ttl()).prop_map(|(key, value, content_type, ttl_ms)| {
            Operation::Put { key, value, content_type, ttl_ms }
        }),
        (key(), -3..9i64, ttl()).prop_map(|(key, by, ttl_ms)| Operation::Add { key, by, ttl_ms }),
        key().prop_map(|key| Operation::Delete { key }),
        key().prop_map(|key| Operation::Get { key }),
    ]
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let requirement = prop_oneof![
        (1..40u64).prop_map(|revision| Requirement::Revision(Index(revision))),
        Just(Requirement::Absent),
        Just(Requirement::Exists),
        value().prop_map(Requirement::Value),
    ];
    let operations = || prop::collection::vec(operation(), 0..5);
    (prop::collection::vec((key(), requirement), 0..2), operations(), prop::option::of(operations()))
        .prop_map(|(conditions, then, otherwise)| Transaction { conditions, then, otherwise })
}

fn command() -> impl Strategy<Value = Command> {
    let bytes_max = VALUE_BYTES_MAX as u64;
    prop_oneof![
        6 => (key(), value(), content_type(), condition(), ttl()).prop_map(
            |(key, value, content_type, condition, ttl_ms)| {
                Command::Put { key, value, content_type, condition, ttl_ms }
            }
        ),
        3 => (key(), condition()).prop_map(|(key, condition)| Command::Delete { key, condition }),
        2 => (key(), value(), content_type(), condition(), ttl()).prop_map(
            move |(key, value, content_type, condition, ttl_ms)| {
                Command::Append { key, value, content_type, condition, ttl_ms, bytes_max }
            }
        ),
        2 => (key(), -3..9i64, condition(), ttl())
            .prop_map(|(key, by, condition, ttl_ms)| Command::Add { key, by, condition, ttl_ms }),
        1 => "(|[0-2]|[0-2]/[0-9]?)".prop_map(|prefix| Command::DeletePrefix { prefix }),
        4 => transaction().prop_map(Command::Transaction),
        1 => Just(Command::Tick),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let elapsed = prop_oneof![20 => 0..9u64, 1 => Just(IDEMPOTENCY_MS_MIN / 2)];
    prop_oneof![
        12 => (command(), elapsed, prop::option::weighted(0.4, 0..12u8))
            .prop_map(|(command, elapsed, name)| Step::Run(command, elapsed, name)),
        2 => (0..30u64).prop_map(Step::Expire),
        1 => Just(Step::Pass),
        2 => Just(Step::Begin),
        6 => (1..200usize).prop_map(Step::Write),
        1 => prop::bool::weighted(0.1).prop_map(|abandon| if abandon { Step::Abandon } else { Step::Pass }),
    ]
}

/// A state machine beside its model, and what has come of it.
struct Run {
    store: Store,
    model: Model,
    time: u64,
    longest_value: usize,
    /// The keys as somebody knows them who has only seen the changes.
    told: Keys,
    history: History,
    /// A snapshot in the making: the state when it began, the bytes so far.
    making: Option<(Store, Vec<u8>)>,
    /// The latest whole one, and every change since.
    newest: (Store, Vec<Change>),
}

impl Run {
    fn new() -> Run {
        Run {
            store: Store::default(),
            model: Model::default(),
            time: 0,
            longest_value: 0,
            told: Keys::new(),
            history: History::new(Index(0), usize::MAX),
            making: None,
            newest: (Store::default(), Vec::new()),
        }
    }

    fn step(&mut self, step: Step, n: u64) {
        let index = self.store.applied_index().next();
        match step {
            Step::Run(command, elapsed, name) => {
                self.time += elapsed;
                let is_internal = command.is_internal();
                let name = name.filter(|_| !is_internal).map(|name| format!("name {name}"));
                self.apply(n, Write { command, idempotency_key: name });
            }
            Step::Expire(elapsed) => {
                // What a leader sees a little ahead, behind, or as it is; some keys with the wrong revision.
                let seen = LogicalTime(self.time + elapsed);
                let mut keys = self.store.expired(seen, 5);
                self.time += elapsed * (n % 2);
                if let Some((_, revision)) = keys.first_mut().filter(|_| n.is_multiple_of(5)) {
                    revision.0 -= 1;
                }
                if !keys.is_empty() {
                    let keys: Vec<_> =
                        keys.iter().map(|(key, revision)| (key.as_str(), revision.0)).collect();
                    self.apply(n, expire(&keys).into());
                }
            }
            Step::Pass => self.store.pass(index),
            Step::Begin if self.making.is_none() => {
                self.making = Some((self.store.clone(), Vec::new()));
                assert_eq!(self.store.begin_snapshot(), self.store.snapshot_bytes());
            }
            Step::Begin => {}
            Step::Write(budget) => self.write_snapshot(budget),
            Step::Abandon => {
                self.store.abandon_snapshot();
                self.making = None;
            }
        }
    }

    fn apply(&mut self, n: u64, write: Write) {
        let index = self.store.applied_index().next();
        let seq = if write.command.is_internal() { 0 } else { n };
        // A leader's clock may be behind the log by a little.
        let time = self.time.saturating_sub(n % 3);
        let expected = self.model.apply(index.0, time, &write);
        let payload = Payload { id: id(1 + n % 3, 1 + n / 50, seq), time: LogicalTime(time), write };
        let outcome = self.store.apply(index, payload);
        assert_eq!(without_reason(outcome), expected, "entry {index}");
        self.check_state();
        self.check_changes(index);
        let longest = self.model.keys.values().map(|key| key.value.len()).max();
        self.longest_value = self.longest_value.max(longest.unwrap_or(0));
    }

    fn check_state(&self) {
        let range = KeyRange::default();
        let items = self.store.range(&range).map(|(key, item)| (key.to_owned(), item.clone()));
        assert_eq!(keys_of(items), self.model.keys);
        assert_eq!(self.store.logical_time().0, self.model.time);
        let mut ends: Vec<_> =
            self.model.keys.iter().filter_map(|(key, item)| Some((item.end?, key))).collect();
        ends.sort();
        assert_eq!(self.store.next_expiry().map(|end| end.0), ends.first().map(|(end, _)| *end));
        let expired = self.store.expired(LogicalTime(u64::MAX), usize::MAX);
        let expected = ends.iter().map(|(_, key)| ((*key).clone(), Index(self.model.keys[*key].revision)));
        assert_eq!(expired, expected.collect::<Vec<_>>());
    }

    /// K1, K2, K3, K5: the changes are those between the states, in order, the last one marked, and nothing else.
    fn check_changes(&mut self, index: Index) {
        let changes = self.store.take_changes().expect("without a bound");
        assert!(changes.is_sorted_by(|one, next| one.key < next.key), "{changes:?}");
        for (at, change) in changes.iter().enumerate() {
            assert_eq!((change.revision, change.is_last), (index, at + 1 == changes.len()));
        }
        self.newest.1.extend(changes.iter().cloned());
        let first = self.history.next_number();
        assert_eq!(self.history.number_after(Index(index.0 - 1)), Some(first));
        self.history.push(changes);
        for number in first..self.history.next_number() {
            let change = self.history.get(number).expect("it was pushed");
            replay(&mut self.told, change);
        }
        assert_eq!(self.told, self.model.keys);
    }

    fn write_snapshot(&mut self, budget: usize) {
        let Some((_, bytes)) = &mut self.making else { return };
        let before = bytes.len();
        let is_whole = self.store.write_snapshot(bytes, budget);
        // D17: a slice is short. What comes in one piece is an item or record, the header with the sessions, the trailer.
        let piece = (HEADER_BYTES + 3 * SESSION_BYTES).max(largest_part(self.longest_value));
        assert!(bytes.len() - before < budget.saturating_add(piece + 8), "{budget}: {piece}");
        if !is_whole {
            return;
        }
        let (frozen, bytes) = self.making.take().expect("it was just written");
        check_whole(&frozen, &bytes);
        // Another node, whose state is the snapshot before and the changes since.
        let range = KeyRange::default();
        let all =
            |store: &Store| keys_of(store.range(&range).map(|(key, item)| (key.to_owned(), item.clone())));
        let mut keys = all(&self.newest.0);
        let (until, later): (Vec<_>, Vec<_>) =
            self.newest.1.drain(..).partition(|change| change.revision <= frozen.applied_index());
        until.iter().for_each(|change| replay(&mut keys, change));
        assert_eq!(keys, all(&frozen));
        self.newest = (frozen, later);
    }
}

fn replay(keys: &mut Keys, change: &Change) {
    let key = change.key.to_string();
    match &change.kind {
        ChangeKind::Put(item) => {
            assert_eq!(item.revision, change.revision);
            keys.extend(keys_of([(key, item.clone())]));
        }
        ChangeKind::Delete => assert!(keys.remove(&key).is_some(), "only what is there is deleted"),
        ChangeKind::Expire => {
            let gone = keys.remove(&key).expect("only what is there expires");
            assert!(gone.end.is_some());
        }
    }
}

/// The longest item with such a value, or outcome of a transaction that has read it in each of its operations.
fn largest_part(longest_value: usize) -> usize {
    ITEM_HEADER_BYTES.max(RECORD_HEADER_BYTES) + 4 * (64 + longest_value)
}

fn check_whole(frozen: &Store, bytes: &[u8]) {
    assert_eq!(bytes.len() as u64, frozen.snapshot_bytes());
    let restored = Store::restore(bytes).expect("just written");
    assert_eq!(&restored, frozen);
    assert_eq!(restored.state_hash(), frozen.state_hash());
    assert_eq!(restored.snapshot_bytes(), frozen.snapshot_bytes());
    assert_eq!(restored.next_expiry(), frozen.next_expiry());
    // D13: another node, which took its snapshot in one go, has written the same bytes.
    assert_eq!(snapshot(&mut frozen.clone()), bytes);
    // In any pieces it is the same.
    let mut pieces = Restore::new(bytes.len() as u64);
    for piece in bytes.chunks(7) {
        pieces.push(piece).expect("just written");
    }
    assert_eq!(pieces.finish().as_ref(), Ok(frozen));
}

fn run(steps: Vec<Step>) {
    let mut run = Run::new();
    let end = [Step::Begin, Step::Write(usize::MAX), Step::Begin, Step::Write(usize::MAX)];
    for (step, n) in steps.into_iter().chain(end).zip(1..) {
        run.step(step, n);
    }
    assert!(run.making.is_none(), "every story ends with a whole snapshot");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// D12, D13, D17, E1, J1, J2, K1: the state is what the commands say, a snapshot is the state at its index, and the
    /// changes tell all of it.
    #[test]
    fn the_state_machine_is_what_its_model_says(steps in prop::collection::vec(step(), 1..200)) {
        run(steps);
    }
}
