//! The state machine as bytes: how a snapshot is laid out, and its parts one by one.
//!
//! ```text
//!  0        8         12         16              24      32      40             48        56
//!  | magic  | version | sessions | applied index | items | bytes | logical time | records |    header
//!  | origin | incarnation | seq |                                             one per session, by origin
//!  | revision | time | fingerprint | key len | outcome len | key | outcome |  one per record, by revision
//!  | revision | end | key len | type len | value len | key | type | value |   one per item, by key
//!  | state hash |                                                             trailer
//! ```
//!
//! Numbers are little-endian: 64 bits, but for the version, the count of sessions, the outcome's and the value's length
//! (32), the item's key's and the type's length (16), the record's key's length (8). `bytes` is the whole length. A record
//! is of a write with an idempotency key; its outcome is in MessagePack. `end` is when the item's life is over, 0: never.
//! An item without a type has the type length `0xffff`.
//!
//! The bytes depend on the state and on nothing else, so nodes that take a snapshot at the same entry write the same.

use crate::kv::idempotency::Record;
use crate::kv::session::{Sessions, WriteId};
use crate::kv::state_hash::StateHash;
use crate::kv::store::Item;
use crate::limits::{
    CONTENT_TYPE_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENT_OUTCOME_BYTES_MAX, KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use crate::raft::types::Index;
use crate::util::time::LogicalTime;

pub(crate) const MAGIC: [u8; 8] = *b"KEVAKEYS";
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 56;
pub(crate) const SESSION_BYTES: usize = 24;
/// Of a record, without its key and outcome.
pub(crate) const RECORD_HEADER_BYTES: usize = 29;
/// Of an item, without its key, type and value.
pub(crate) const ITEM_HEADER_BYTES: usize = 24;
pub(crate) const TRAILER_BYTES: usize = 8;
/// The length of a type that is not there.
pub(crate) const NO_TYPE: u16 = u16::MAX;

const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);
const _: () =
    assert!(CONTENT_TYPE_BYTES_MAX < NO_TYPE as usize, "no type has the length that says there is none");
const _: () = assert!(VALUE_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(IDEMPOTENCY_KEY_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(IDEMPOTENT_OUTCOME_BYTES_MAX <= u32::MAX as usize);

/// What a snapshot says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) applied_index: Index,
    pub(crate) logical_time: LogicalTime,
    pub(crate) sessions: u32,
    pub(crate) records: u64,
    pub(crate) items: u64,
    /// Header and trailer included.
    pub(crate) bytes: u64,
}

impl Header {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.sessions.to_le_bytes());
        out.extend_from_slice(&self.applied_index.0.to_le_bytes());
        out.extend_from_slice(&self.items.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.logical_time.0.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
    }
}

/// Bytes of everything but the records and items.
pub(crate) fn frame_bytes(sessions: &Sessions) -> u64 {
    (HEADER_BYTES + SESSION_BYTES * sessions.count() + TRAILER_BYTES) as u64
}

/// Bytes of one record.
pub(crate) fn record_bytes(record: &Record) -> u64 {
    (RECORD_HEADER_BYTES + record.key.len() + record.outcome.len()) as u64
}

/// Bytes of one item.
pub(crate) fn item_bytes(key: &str, item: &Item) -> u64 {
    let content_type = item.content_type.as_ref().map_or(0, |content_type| content_type.len());
    (ITEM_HEADER_BYTES + key.len() + content_type + item.value.len()) as u64
}

pub(crate) fn encode_session(id: WriteId, out: &mut Vec<u8>) {
    for number in [id.origin.0, id.incarnation.0, id.seq] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

pub(crate) fn encode_record(record: &Record, out: &mut Vec<u8>) {
    for number in [record.revision.0, record.time.0, record.fingerprint] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(u8::try_from(record.key.len()).expect("an idempotency key has a bound below that"));
    let outcome_len = u32::try_from(record.outcome.len()).expect("an outcome has a bound below that");
    out.extend_from_slice(&outcome_len.to_le_bytes());
    out.extend_from_slice(record.key.as_bytes());
    out.extend_from_slice(&record.outcome);
}

pub(crate) fn encode_item(key: &str, item: &Item, out: &mut Vec<u8>) {
    let content_type = item.content_type.as_deref();
    out.extend_from_slice(&item.revision.0.to_le_bytes());
    out.extend_from_slice(&end(item).to_le_bytes());
    out.extend_from_slice(&length_16(key).to_le_bytes());
    out.extend_from_slice(&content_type.map_or(NO_TYPE, length_16).to_le_bytes());
    let value_len = u32::try_from(item.value.len()).expect("a value has a bound below that");
    out.extend_from_slice(&value_len.to_le_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(content_type.unwrap_or_default().as_bytes());
    out.extend_from_slice(&item.value);
}

/// When a life is over, as a number. No life is over at the time 0: it lasts at least a millisecond.
fn end(item: &Item) -> u64 {
    item.expires_at.map_or(0, |end| end.0)
}

fn length_16(text: &str) -> u16 {
    u16::try_from(text.len()).expect("keys and types have bounds below that")
}

/// Begins the hash of a state.
pub(crate) fn hash_frame(header: &Header, sessions: &Sessions) -> StateHash {
    let mut hash = StateHash::new();
    hash.number(header.applied_index.0);
    hash.number(header.logical_time.0);
    hash.number(u64::from(header.sessions));
    hash.number(header.records);
    hash.number(header.items);
    for id in sessions.iter() {
        hash.number(id.origin.0);
        hash.number(id.incarnation.0);
        hash.number(id.seq);
    }
    hash
}

/// Adds the next record in the order of the log.
pub(crate) fn hash_record(hash: &mut StateHash, record: &Record) {
    hash.number(record.revision.0);
    hash.number(record.time.0);
    hash.number(record.fingerprint);
    hash.number(record.key.len() as u64 | (record.outcome.len() as u64) << 32);
    hash.bytes(record.key.as_bytes());
    hash.bytes(&record.outcome);
}

/// Adds the next item in the order of the keys.
pub(crate) fn hash_item(hash: &mut StateHash, key: &str, item: &Item) {
    let content_type = item.content_type.as_deref();
    let type_len = content_type.map_or(u64::from(NO_TYPE), |content_type| content_type.len() as u64);
    hash.number(item.revision.0);
    hash.number(end(item));
    hash.number(key.len() as u64 | type_len << 16 | (item.value.len() as u64) << 32);
    hash.bytes(key.as_bytes());
    hash.bytes(content_type.unwrap_or_default().as_bytes());
    hash.bytes(&item.value);
}
