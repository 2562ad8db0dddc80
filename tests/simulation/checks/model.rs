//! A second, much simpler state machine: what every committed entry means, and the whole state at every revision.
//!
//! It shares the types of commands with the product and none of its code. Nothing is ever forgotten, so that every
//! answer, listing and stream of changes can be compared with what it must be at its revision.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use keva::kv::command::{Command, Condition, Matcher, Operation, Requirement, Transaction, Write};
use keva::limits::IDEMPOTENCY_MS_MIN;
use serde_json::{Value, json};

/// What an entry did.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Decision {
    /// No command.
    NoOp,
    /// A leader's own command.
    Internal,
    /// A repetition, or overtaken.
    Skipped,
    Written,
    Counted(i64),
    Deleted(u64),
    /// Whether the conditions held, and the results as the API writes them.
    Transaction(bool, Vec<Value>),
    /// The key's revision at that moment.
    Failed(Option<u64>),
    /// The first condition that did not hold.
    RequirementFailed(usize),
    /// With the code that the API gives it.
    Refused(&'static str),
    /// The entry that did the same under the same idempotency key.
    Repeated(u64),
    KeyReused,
}

/// What is in a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Content {
    pub(crate) value: Rc<[u8]>,
    pub(crate) revision: u64,
    pub(crate) ttl_ms: Option<u64>,
    /// In logical time.
    pub(crate) ends_at: Option<u64>,
}

/// How a key changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Put,
    Delete,
    Expire,
}

/// What a watcher must see.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Rc<str>,
    pub(crate) kind: Kind,
    pub(crate) value: Option<Rc<[u8]>>,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.value.as_ref().map(|value| value.len());
        write!(f, "{:?} of {} at {} to {len:?} bytes", self.kind, self.key, self.revision)
    }
}

type Staged = BTreeMap<String, (Option<Content>, Kind)>;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Of every key all that ever was in it, and since when.
    keys: BTreeMap<Rc<str>, Vec<(u64, Option<Content>)>>,
    /// All changes, in order.
    pub(crate) changes: Vec<Change>,
    /// The newest logical time of an entry.
    pub(crate) time: u64,
    /// How many keys have a life.
    mortal: BTreeMap<Rc<str>, u64>,
    remembered: BTreeMap<String, (Command, u64)>,
    in_order: VecDeque<(String, u64)>,
    /// What the last entry expired.
    pub(crate) expired: Vec<Content>,
    /// Keys that were to expire, and were written or removed meanwhile.
    pub(crate) overtaken: u64,
}

impl Model {
    /// The key's content when entry `revision` was the last one.
    pub(crate) fn at(&self, key: &str, revision: u64) -> Option<&Content> {
        let versions = self.keys.get(key)?;
        let count = versions.partition_point(|(since, _)| *since <= revision);
        versions[..count].last()?.1.as_ref()
    }

    /// The content of all keys with a prefix at a revision, in order.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a str,
        revision: u64,
    ) -> impl Iterator<Item = (&'a Rc<str>, &'a Content)> + 'a {
        let from = self.keys.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, _)| Some((key, self.at(key, revision)?)))
    }

    /// The position of the first change above a revision.
    pub(crate) fn change_after(&self, revision: u64) -> usize {
        self.changes.partition_point(|change| change.revision <= revision)
    }

    /// A key that should not live for ever, with its life, unless it is longer than `ttl_ms_max`.
    pub(crate) fn mortal(&self, ttl_ms_max: u64) -> Option<(&Rc<str>, u64)> {
        self.mortal.iter().map(|(key, ttl_ms)| (key, *ttl_ms)).find(|(_, ttl_ms)| *ttl_ms <= ttl_ms_max)
    }

    fn current(&self, staged: &Staged, key: &str) -> Option<Content> {
        match staged.get(key) {
            Some((content, _)) => content.clone(),
            None => self.keys.get(key)?.last()?.1.clone(),
        }
    }

    /// Carries out a write that is not skipped.
    pub(crate) fn apply(&mut self, revision: u64, write: &Write) -> Decision {
        while let Some((key, time)) = self.in_order.front()
            && self.time - time > IDEMPOTENCY_MS_MIN
        {
            self.remembered.remove(key);
            self.in_order.pop_front();
        }
        let Some(key) = &write.idempotency_key else { return self.execute(revision, &write.command) };
        match self.remembered.get(key) {
            Some((command, first)) if *command == write.command => return Decision::Repeated(*first),
            Some(_) => return Decision::KeyReused,
            None => {}
        }
        self.remembered.insert(key.clone(), (write.command.clone(), revision));
        self.in_order.push_back((key.clone(), self.time));
        self.execute(revision, &write.command)
    }

    fn execute(&mut self, revision: u64, command: &Command) -> Decision {
        let mut staged = Staged::new();
        let current = command.key().and_then(|key| self.current(&staged, key));
        if let Some(condition) = condition_of(command)
            && !holds(condition, current.as_ref().map(|content| content.revision))
        {
            return Decision::Failed(current.map(|content| content.revision));
        }
        let decision = match command {
            Command::Put { key, value, ttl_ms, .. } => {
                self.put(&mut staged, revision, key, value.as_slice().into(), *ttl_ms);
                Decision::Written
            }
            Command::Delete { key, .. } => {
                staged.insert(key.clone(), (None, Kind::Delete));
                Decision::Written
            }
            Command::Append { key, value, ttl_ms, bytes_max, .. } => {
                let mut whole = current.map_or_else(Vec::new, |content| content.value.to_vec());
                whole.extend_from_slice(value);
                if whole.len() as u64 > *bytes_max {
                    return Decision::Refused("value-too-large");
                }
                self.put(&mut staged, revision, key, whole.into(), *ttl_ms);
                Decision::Written
            }
            Command::Add { key, by, ttl_ms, .. } => {
                match self.add(&mut staged, revision, key, *by, *ttl_ms) {
                    Ok(sum) => Decision::Counted(sum),
                    Err(code) => return Decision::Refused(code),
                }
            }
            Command::DeletePrefix { prefix } => {
                let gone =
                    self.range(prefix, u64::MAX).map(|(key, _)| (key.to_string(), (None, Kind::Delete)));
                staged.extend(gone);
                Decision::Deleted(staged.len() as u64)
            }
            Command::Transaction(transaction) => match self.transact(&mut staged, revision, transaction) {
                Ok(decision) => decision,
                Err(decision) => return decision,
            },
            Command::Expire { keys } => {
                for (key, named) in keys {
                    let current = self.current(&staged, key).filter(|content| content.revision == named.0);
                    if current.is_some_and(|content| content.ends_at.is_some_and(|end| end <= self.time)) {
                        staged.insert(key.clone(), (None, Kind::Expire));
                    } else {
                        self.overtaken += 1;
                    }
                }
                Decision::Internal
            }
            Command::Tick => Decision::Internal,
        };
        self.commit(revision, staged);
        decision
    }

    fn put(&self, staged: &mut Staged, revision: u64, key: &str, value: Rc<[u8]>, ttl_ms: Option<u64>) {
        let ends_at = ttl_ms.map(|ttl_ms| self.time + ttl_ms);
        let content = Content { value, revision, ttl_ms, ends_at };
        staged.insert(key.to_owned(), (Some(content), Kind::Put));
    }

    fn add(
        &self,
        staged: &mut Staged,
        revision: u64,
        key: &str,
        by: i64,
        ttl_ms: Option<u64>,
    ) -> Result<i64, &'static str> {
        let before = match self.current(staged, key) {
            None => 0,
            Some(content) => {
                let text = std::str::from_utf8(&content.value).map_err(|_| "not-a-number")?;
                text.trim_ascii().parse::<i64>().map_err(|_| "not-a-number")?
            }
        };
        let sum = before.checked_add(by).ok_or("overflow")?;
        self.put(staged, revision, key, sum.to_string().into_bytes().into(), ttl_ms);
        Ok(sum)
    }

    fn transact(
        &self,
        staged: &mut Staged,
        revision: u64,
        transaction: &Transaction,
    ) -> Result<Decision, Decision> {
        let failed = transaction.conditions.iter().position(|(key, requirement)| {
            let current = self.current(staged, key);
            !match requirement {
                Requirement::Absent => current.is_none(),
                Requirement::Exists => current.is_some(),
                Requirement::Revision(wanted) => current.is_some_and(|content| content.revision == wanted.0),
                Requirement::Value(wanted) => current.is_some_and(|content| *content.value == **wanted),
            }
        });
        let operations = match (failed, &transaction.otherwise) {
            (None, _) => &transaction.then,
            (Some(_), Some(otherwise)) => otherwise,
            (Some(position), None) => return Err(Decision::RequirementFailed(position)),
        };
        let mut results = Vec::new();
        for operation in operations {
            let result = self.operate(staged, revision, operation).map_err(Decision::Refused)?;
            results.push(result);
        }
        Ok(Decision::Transaction(failed.is_none(), results))
    }

    fn operate(
        &self,
        staged: &mut Staged,
        revision: u64,
        operation: &Operation,
    ) -> Result<Value, &'static str> {
        Ok(match operation {
            Operation::Put { key, value, ttl_ms, .. } => {
                self.put(staged, revision, key, value.as_slice().into(), *ttl_ms);
                json!({"put": key, "revision": revision})
            }
            Operation::Add { key, by, ttl_ms } => {
                json!({"add": key, "value": self.add(staged, revision, key, *by, *ttl_ms)?})
            }
            Operation::Delete { key } => {
                let existed = self.current(staged, key).is_some();
                staged.insert(key.clone(), (None, Kind::Delete));
                json!({"delete": key, "existed": existed})
            }
            Operation::Get { key } => match self.current(staged, key) {
                None => json!({"get": key, "missing": true}),
                Some(content) => {
                    let value = String::from_utf8_lossy(&content.value);
                    json!({"get": key, "revision": content.revision, "value": value})
                }
            },
        })
    }

    /// What was staged happens.
    fn commit(&mut self, revision: u64, staged: Staged) {
        for (key, (content, kind)) in staged {
            let key: Rc<str> = key.into();
            let versions = self.keys.entry(Rc::clone(&key)).or_default();
            let before = versions.last().and_then(|(_, content)| content.clone());
            if before.is_none() && content.is_none() {
                continue;
            }
            match content.as_ref().and_then(|content| content.ttl_ms) {
                Some(ttl_ms) => drop(self.mortal.insert(Rc::clone(&key), ttl_ms)),
                None => drop(self.mortal.remove(&key)),
            }
            if kind == Kind::Expire {
                self.expired.extend(before);
            }
            let value = content.as_ref().map(|content| Rc::clone(&content.value));
            self.changes.push(Change { revision, key, kind, value });
            versions.push((revision, content));
        }
    }
}

fn condition_of(command: &Command) -> Option<&Condition> {
    match command {
        Command::Put { condition, .. }
        | Command::Delete { condition, .. }
        | Command::Append { condition, .. }
        | Command::Add { condition, .. } => Some(condition),
        _ => None,
    }
}

fn holds(condition: &Condition, current: Option<u64>) -> bool {
    let matches = |matcher: &Matcher| match (matcher, current) {
        (_, None) => false,
        (Matcher::Any, Some(_)) => true,
        (Matcher::Revisions(list), Some(current)) => list.iter().any(|revision| revision.0 == current),
    };
    condition.if_match.as_ref().is_none_or(matches) && !condition.if_none_match.as_ref().is_some_and(matches)
}
