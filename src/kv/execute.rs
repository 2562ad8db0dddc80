//! What each command does to the state.

use std::sync::Arc;

use crate::kv::capture::Capture;
use crate::kv::command::{Command, Write};
use crate::kv::counter::sum;
use crate::kv::history::{Change, ChangeKind};
use crate::kv::idempotency::{Record, decode_outcome, encode_outcome, fingerprint};
use crate::kv::items::Item;
use crate::kv::outcome::{Applied, Refusal};
use crate::kv::store::Store;
use crate::kv::transaction::Overlay;
use crate::raft::types::Index;
use crate::util::mutation::mutant;
use crate::util::time::LogicalTime;

/// A removal of many keys, which goes on.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    prefix: String,
    /// So many are gone.
    count: u64,
    name: Option<Name>,
}

/// The name under which a write's outcome is to be remembered.
#[derive(Clone, Debug)]
struct Name {
    key: String,
    fingerprint: u64,
}

impl Store {
    /// Carries out the write of the entry at `index`, unless it has an idempotency key that was used before. `None`: there
    /// is more to be removed, see [`Store::go_on`].
    pub(super) fn execute(&mut self, index: Index, write: Write, removals_max: usize) -> Option<Applied> {
        let Write { mut command, idempotency_key } = write;
        let name = idempotency_key.map(|key| Name { key, fingerprint: fingerprint(&mut command) });
        if let Some(first) = name.as_ref().and_then(|name| self.first_outcome(name)) {
            return Some(first);
        }
        if let Command::DeletePrefix { prefix } = command {
            return self.go_on(index, Removal { prefix, count: 0, name }, removals_max);
        }
        let outcome = self.execute_command(index, command, name.is_some());
        self.remember(index, name, &outcome);
        Some(outcome)
    }

    /// Removes the next `removals_max` keys. `None`: there may be more.
    pub(super) fn go_on(
        &mut self,
        index: Index,
        mut removal: Removal,
        removals_max: usize,
    ) -> Option<Applied> {
        let count = self.remove_prefix(index, &removal.prefix, removals_max);
        removal.count += count as u64;
        if count == removals_max {
            self.removal = Some(removal);
            return None;
        }
        let outcome = Applied::Deleted(removal.count);
        self.remember(index, removal.name, &outcome);
        Some(outcome)
    }

    /// What the name stands for, if it was used before.
    fn first_outcome(&self, name: &Name) -> Option<Applied> {
        let known = self.idempotency.get(&name.key).filter(|_| !mutant("repeated-executes-again"))?;
        if known.fingerprint != name.fingerprint {
            return Some(Applied::KeyReused);
        }
        let first = decode_outcome(&known.outcome).expect("outcomes are checked when they come in");
        Some(Applied::Repeated { revision: known.revision, first: Box::new(first) })
    }

    fn remember(&mut self, index: Index, name: Option<Name>, outcome: &Applied) {
        let Some(Name { key, fingerprint }) = name else { return };
        if matches!(outcome, Applied::ConditionFailed { .. }) && mutant("failures-not-remembered") {
            return;
        }
        let record = Record {
            key: key.into(),
            fingerprint,
            time: self.logical_time,
            revision: index,
            outcome: encode_outcome(outcome),
        };
        let is_new = self.idempotency.push(record);
        assert!(
            is_new || mutant("repeated-executes-again"),
            "a key that is remembered is not executed again"
        );
        self.evict_records();
    }

    /// Forgets outcomes that are too old or too many.
    pub(super) fn evict_records(&mut self) {
        self.idempotency.evict(self.logical_time, |record| {
            if let Some(capture) = &mut self.capture {
                capture.keep_record_aside(record);
            }
        });
    }

    /// `is_remembered`: the outcome will be.
    fn execute_command(&mut self, index: Index, command: Command, is_remembered: bool) -> Applied {
        let current = command.key().and_then(|key| self.items.get(key));
        let revision = current.map(|item| item.revision);
        let holds = command.condition().is_none_or(|condition| condition.holds(revision));
        if !holds && !mutant("conditions-ignored") {
            return Applied::ConditionFailed { current: revision };
        }
        match command {
            Command::Put { key, value, content_type, ttl_ms, .. } => {
                let expires_at = self.end_of_life(&key, ttl_ms);
                let content_type = content_type.map(Arc::from);
                self.put(key, Item { value: value.into(), content_type, revision: index, expires_at });
                Applied::Written
            }
            Command::Delete { key, .. } => {
                self.remove(index, &key, ChangeKind::Delete);
                Applied::Written
            }
            Command::Append { key, value, content_type, ttl_ms, bytes_max, .. } => {
                let expires_at = self.end_of_life(&key, ttl_ms);
                match appended(current, &value, bytes_max) {
                    Ok(value) => {
                        let old_type = current.and_then(|item| item.content_type.clone());
                        let content_type = content_type.map(Arc::from).or(old_type);
                        self.put(key, Item { value, content_type, revision: index, expires_at });
                        Applied::Written
                    }
                    Err(refusal) => Applied::Refused(refusal),
                }
            }
            Command::Add { key, by, ttl_ms, .. } => {
                let expires_at = self.end_of_life(&key, ttl_ms);
                match sum(&key, current, by) {
                    Ok(number) => {
                        let content_type = current.and_then(|item| item.content_type.clone());
                        let value = number.to_string().into_bytes().into();
                        self.put(key, Item { value, content_type, revision: index, expires_at });
                        Applied::Counted(number)
                    }
                    Err(refusal) => Applied::Refused(refusal),
                }
            }
            Command::DeletePrefix { .. } => unreachable!("it may have several parts"),
            Command::Transaction(transaction) => {
                let overlay = Overlay::new(&self.items, index, self.logical_time, is_remembered);
                let (outcome, writes) = overlay.run(transaction);
                for (key, item) in writes {
                    match item {
                        Some(item) => self.put(key, item),
                        None => self.remove(index, &key, ChangeKind::Delete),
                    }
                }
                outcome
            }
            Command::Expire { keys } => {
                self.expire(index, &keys);
                Applied::Written
            }
            Command::Tick => Applied::Written,
        }
    }

    /// When the life of a key is over that is written by the present entry.
    fn end_of_life(&self, key: &str, ttl_ms: Option<u64>) -> Option<LogicalTime> {
        if ttl_ms.is_none() && mutant("ttl-survives-plain-write") {
            return self.items.get(key).and_then(|item| item.expires_at);
        }
        ttl_ms.map(|ttl_ms| self.logical_time.after(ttl_ms))
    }

    fn put(&mut self, key: String, item: Item) {
        let kind = ChangeKind::Put(item.clone());
        self.changes.push(Change { revision: item.revision, key: key.as_str().into(), kind, is_last: false });
        if let Some(count) = &mut self.count
            && self.items.get(&key).is_none()
        {
            count.on_added(&key);
        }
        if let Some((key, old)) = self.items.put(key, item) {
            keep_aside(&mut self.capture, key.into_boxed_str(), old);
        }
    }

    /// Removing an absent key is no change.
    fn remove(&mut self, revision: Index, key: &str, kind: ChangeKind) {
        if mutant("deleted-key-comes-back") && self.capture.is_some() {
            return;
        }
        if let Some(old) = self.items.remove(key) {
            if let Some(count) = &mut self.count {
                count.on_removed(key);
            }
            self.changes.push(Change { revision, key: key.into(), kind, is_last: false });
            keep_aside(&mut self.capture, key.into(), old);
        }
    }

    /// At most `max` keys; says how many.
    fn remove_prefix(&mut self, revision: Index, prefix: &str, max: usize) -> usize {
        let Store { items, changes, capture, count, .. } = self;
        items.remove_prefix(prefix, max, |key, old| {
            if let Some(count) = count {
                count.on_removed(&key);
            }
            changes.push(Change {
                revision,
                key: key.as_ref().into(),
                kind: ChangeKind::Delete,
                is_last: false,
            });
            keep_aside(capture, key, old);
        })
    }

    /// Removes the keys whose life is over, and that nobody has written since the leader saw it.
    fn expire(&mut self, index: Index, keys: &[(String, Index)]) {
        for (key, revision) in keys {
            let Some(item) = self.items.get(key) else { continue };
            let is_same = item.revision == *revision || mutant("expire-ignores-revision");
            let is_over = item.expires_at.is_some_and(|end| end <= self.logical_time);
            if is_same && (is_over || mutant("expire-early")) {
                self.remove(index, key, ChangeKind::Expire);
            }
        }
        self.changes.sort();
    }
}

/// A snapshot that is being taken may need what is replaced or gone.
fn keep_aside(capture: &mut Option<Box<Capture>>, key: Box<str>, old: Item) {
    if let Some(capture) = capture {
        capture.keep_aside(key, old);
    }
}

/// A value with bytes behind it; an absent one is empty.
fn appended(current: Option<&Item>, tail: &[u8], bytes_max: u64) -> Result<Arc<[u8]>, Refusal> {
    let head = current.map_or(&[][..], |item| &item.value);
    let bytes = head.len() as u64 + tail.len() as u64;
    if bytes > bytes_max && !mutant("append-without-bound") {
        return Err(Refusal::ValueTooLong { bytes, bytes_max });
    }
    Ok([head, tail].concat().into())
}
