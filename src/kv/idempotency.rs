//! What became of the writes that have an idempotency key: a client that does not know whether its write was executed
//! sends it again and is told, instead of having it executed twice.
//!
//! Records stand in the order of the log, and the oldest go first: when they are too old by the log's own time, too many,
//! or too long together. So all nodes forget the same ones at the same entry.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::io::Cursor;
use std::sync::Arc;

use serde::Deserialize;

use crate::kv::command::Command;
use crate::kv::outcome::Applied;
use crate::kv::snapshot::record_bytes;
use crate::kv::state_hash::StateHash;
use crate::limits::{
    IDEMPOTENCY_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_MS_MIN, IDEMPOTENCY_RECORDS_MAX,
    IDEMPOTENT_OUTCOME_BYTES_MAX,
};
use crate::raft::types::Index;
use crate::util::time::LogicalTime;

const _: () = assert!(
    2 * (IDEMPOTENT_OUTCOME_BYTES_MAX + IDEMPOTENCY_KEY_BYTES_MAX) < IDEMPOTENCY_BYTES_MAX,
    "the newest outcome is never too long to be remembered"
);
/// Deeper than any outcome is nested when it is written down.
const OUTCOME_DEPTH_MAX: usize = 32;

/// What became of one write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// The client's name for it.
    pub(crate) key: Box<str>,
    /// Of its command: see [`fingerprint`].
    pub(crate) fingerprint: u64,
    /// When it was applied.
    pub(crate) time: LogicalTime,
    /// The index of its entry.
    pub(crate) revision: Index,
    /// What became of it, written down: see [`decode_outcome`].
    pub(crate) outcome: Box<[u8]>,
}

/// A record that is found by its key.
#[derive(Clone, Debug)]
struct ByKey(Arc<Record>);

impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &ByKey) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &ByKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &ByKey) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

/// See the module's text.
#[derive(Clone, Default, Debug)]
pub(crate) struct Idempotency {
    /// In the order of the log. Shared with a snapshot that is being taken.
    records: VecDeque<Arc<Record>>,
    by_key: BTreeSet<ByKey>,
    bytes: u64,
}

impl PartialEq for Idempotency {
    fn eq(&self, other: &Idempotency) -> bool {
        self.records == other.records
    }
}

impl Idempotency {
    pub(crate) fn get(&self, key: &str) -> Option<&Record> {
        self.by_key.get(key).map(|record| record.0.as_ref())
    }

    /// Adds the record of the newest entry. Says whether its key is new: if it is not, nothing is added.
    pub(crate) fn push(&mut self, record: Record) -> bool {
        let record = Arc::new(record);
        let is_new = self.by_key.insert(ByKey(Arc::clone(&record)));
        if is_new {
            self.bytes += record_bytes(&record);
            self.records.push_back(record);
        }
        is_new
    }

    /// Forgets what need not be remembered at `now`, the oldest first, and hands it out.
    pub(crate) fn evict(&mut self, now: LogicalTime, mut on_evicted: impl FnMut(Arc<Record>)) {
        while let Some(oldest) = self.records.front() {
            if !self.is_too_much() && now - oldest.time <= IDEMPOTENCY_MS_MIN {
                break;
            }
            let oldest = self.records.pop_front().expect("just seen");
            self.by_key.remove(oldest.key.as_ref());
            self.bytes -= record_bytes(&oldest);
            on_evicted(oldest);
        }
    }

    /// Whether there are more records or more bytes than are kept.
    pub(crate) fn is_too_much(&self) -> bool {
        self.records.len() > IDEMPOTENCY_RECORDS_MAX || self.bytes > IDEMPOTENCY_BYTES_MAX as u64
    }

    pub(crate) fn count(&self) -> u64 {
        self.records.len() as u64
    }

    /// Their bytes in a snapshot.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The newest one.
    pub(crate) fn last(&self) -> Option<&Record> {
        self.records.back().map(Arc::as_ref)
    }

    /// Records of entries behind `revision`, in the order of the log.
    pub(crate) fn iter_after(&self, revision: Index) -> impl Iterator<Item = &Record> {
        let first = self.records.partition_point(|record| record.revision <= revision);
        self.records.range(first..).map(Arc::as_ref)
    }
}

/// What tells two commands apart: a hash over what is written into the log. How long a value may become is a setting of
/// the node that the client asked, and does not make it another command.
pub(crate) fn fingerprint(command: &mut Command) -> u64 {
    let settings = match command {
        Command::Append { bytes_max, .. } => std::mem::take(bytes_max),
        _ => 0,
    };
    let bytes = rmp_serde::to_vec(command).expect("memory takes every command");
    if let Command::Append { bytes_max, .. } = command {
        *bytes_max = settings;
    }
    let mut hash = StateHash::new();
    hash.number(bytes.len() as u64);
    hash.bytes(&bytes);
    hash.get()
}

/// Writes an outcome down.
pub(crate) fn encode_outcome(outcome: &Applied) -> Box<[u8]> {
    let bytes = rmp_serde::to_vec(outcome).expect("memory takes every outcome");
    assert!(bytes.len() <= IDEMPOTENT_OUTCOME_BYTES_MAX, "longer outcomes are refused");
    bytes.into()
}

/// Reads an outcome back; `None` when the bytes are none, or one that is never remembered.
pub(crate) fn decode_outcome(bytes: &[u8]) -> Option<Applied> {
    let mut decoder = rmp_serde::Deserializer::new(Cursor::new(bytes));
    decoder.set_max_depth(OUTCOME_DEPTH_MAX);
    let outcome = Applied::deserialize(&mut decoder).ok()?;
    let is_remembered = !matches!(outcome, Applied::Repeated { .. } | Applied::KeyReused | Applied::Skipped);
    (is_remembered && decoder.position() == bytes.len() as u64).then_some(outcome)
}
