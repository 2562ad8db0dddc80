//! Reads a state machine back from the bytes of a snapshot, piece by piece as they come from the disk.
//!
//! Everything is checked: what this accepts is a state that a state machine can have. Memory is used only for what the
//! bytes really hold, whatever they say of themselves.

use std::fmt;
use std::sync::Arc;

use crate::kv::idempotency::{Idempotency, Record, decode_outcome};
use crate::kv::items::{Item, Items};
use crate::kv::session::{Sessions, WriteId};
use crate::kv::snapshot::{
    HEADER_BYTES, Header, ITEM_HEADER_BYTES, MAGIC, NO_TYPE, RECORD_HEADER_BYTES, SESSION_BYTES,
    TRAILER_BYTES, VERSION, frame_bytes, hash_frame, hash_item, hash_record, item_bytes,
};
use crate::kv::state_hash::StateHash;
use crate::kv::store::Store;
use crate::limits::{
    CONTENT_TYPE_BYTES_MAX, COUNTER_MAX, IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_MS_MIN,
    IDEMPOTENT_OUTCOME_BYTES_MAX, KEY_BYTES_MAX, SNAPSHOT_CHUNK_BYTES, TTL_MS_MAX, VALUE_BYTES_MAX,
};
use crate::raft::types::{Incarnation, Index, NodeId};
use crate::util::mutation::mutant;
use crate::util::time::LogicalTime;

/// Why bytes are no snapshot that this version can read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestoreError {
    /// They do not begin like a snapshot.
    NoSnapshot,
    /// Written by a newer Keva.
    Version(u32),
    /// The numbers in the header contradict one another, or how many bytes there are.
    Header,
    /// They end too early, or go on behind the end.
    Length {
        /// How many were expected.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// A session breaks a rule.
    Session(u32),
    /// The record of an idempotency key breaks a rule: its number, from 1, and the rule.
    Record(u64, &'static str),
    /// An item breaks a rule: its number, from 1, and the rule.
    Item(u64, &'static str),
    /// What was read is not what was written.
    Hash,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::NoSnapshot => f.write_str("it does not begin like one"),
            RestoreError::Version(version) => {
                write!(f, "it has version {version}, this Keva knows version {VERSION}")
            }
            RestoreError::Header => f.write_str("the numbers in its header contradict one another"),
            RestoreError::Length { expected, found } => {
                write!(f, "it should have {expected} bytes and has {found}")
            }
            RestoreError::Session(number) => write!(f, "its session number {number} breaks a rule"),
            RestoreError::Record(number, rule) => {
                write!(f, "its idempotency record number {number} {rule}")
            }
            RestoreError::Item(number, rule) => write!(f, "its item number {number} {rule}"),
            RestoreError::Hash => f.write_str("what was read is not what was written"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// A state machine that is being read. Feed it with [`Restore::push`], then ask for the result.
#[derive(Debug)]
pub struct Restore {
    /// How many bytes there are to be.
    bytes: u64,
    pushed: u64,
    /// What was pushed and is not read yet: less than one part.
    rest: Vec<u8>,
    /// `None` at first.
    header: Option<Header>,
    sessions: Sessions,
    sessions_read: u32,
    idempotency: Idempotency,
    items: Vec<(Box<str>, Item)>,
    item_bytes: u64,
    hash: StateHash,
    /// The trailer is read.
    is_whole: bool,
}

impl Restore {
    /// Expects a snapshot of this length.
    #[must_use]
    pub fn new(bytes: u64) -> Restore {
        Restore {
            bytes,
            pushed: 0,
            rest: Vec::new(),
            header: None,
            sessions: Sessions::default(),
            sessions_read: 0,
            idempotency: Idempotency::default(),
            items: Vec::new(),
            item_bytes: 0,
            hash: StateHash::new(),
            is_whole: false,
        }
    }

    /// Reads a whole snapshot.
    ///
    /// # Errors
    /// With what is wrong. Never panics, whatever the bytes.
    pub fn read(bytes: &[u8]) -> Result<Store, RestoreError> {
        let mut restore = Restore::new(bytes.len() as u64);
        for chunk in bytes.chunks(SNAPSHOT_CHUNK_BYTES) {
            restore.push(chunk)?;
        }
        restore.finish()
    }

    /// Reads on.
    ///
    /// # Errors
    /// With what is wrong. Never panics, whatever the bytes.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), RestoreError> {
        self.pushed += chunk.len() as u64;
        if self.pushed > self.bytes {
            return Err(RestoreError::Length { expected: self.bytes, found: self.pushed });
        }
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(chunk);
        let mut at = 0;
        while let Some(read) = self.read_part(&bytes[at..])? {
            at += read;
        }
        bytes.drain(..at);
        self.rest = bytes;
        Ok(())
    }

    /// The state machine.
    ///
    /// # Errors
    /// When bytes are missing, or what was read is not what was written.
    pub fn finish(self) -> Result<Store, RestoreError> {
        let length = RestoreError::Length { expected: self.bytes, found: self.pushed };
        let header = self.header.filter(|_| self.is_whole).ok_or(length)?;
        let (mut sessions, mut idempotency) = (self.sessions, self.idempotency);
        if frame_bytes(&sessions) + idempotency.bytes() + self.item_bytes != header.bytes {
            return Err(RestoreError::Header);
        }
        if mutant("snapshot-without-sessions") {
            sessions = Sessions::default();
        }
        if mutant("idempotency-forgotten-in-snapshot") {
            idempotency = Idempotency::default();
        }
        let items = Items::from_iter(self.items);
        Ok(Store::restored(header.applied_index, header.logical_time, sessions, idempotency, items))
    }

    /// Reads the next part at the beginning of `bytes` and says how long it is; `None` when more bytes are needed, or
    /// everything is read.
    fn read_part(&mut self, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        let Some(header) = self.header else { return self.read_header(bytes) };
        if self.sessions_read < header.sessions {
            self.read_session(bytes)
        } else if self.idempotency.count() < header.records {
            self.read_record(bytes, &header)
        } else if (self.items.len() as u64) < header.items {
            self.read_item(bytes, &header)
        } else {
            self.read_trailer(bytes)
        }
    }

    fn read_header(&mut self, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
            return Err(RestoreError::NoSnapshot);
        }
        if bytes.len() < HEADER_BYTES {
            return Ok(None);
        }
        let version = number_32(bytes, 8);
        if version != VERSION {
            return Err(RestoreError::Version(version));
        }
        let header = Header {
            sessions: number_32(bytes, 12),
            applied_index: Index(number_64(bytes, 16)),
            items: number_64(bytes, 24),
            bytes: number_64(bytes, 32),
            logical_time: LogicalTime(number_64(bytes, 40)),
            records: number_64(bytes, 48),
        };
        if header.bytes != self.bytes {
            return Err(RestoreError::Length { expected: header.bytes, found: self.bytes });
        }
        let frame = (HEADER_BYTES + TRAILER_BYTES) as u128;
        let at_least = frame
            + u128::from(header.sessions) * SESSION_BYTES as u128
            + u128::from(header.records) * (RECORD_HEADER_BYTES + 2) as u128
            + u128::from(header.items) * (ITEM_HEADER_BYTES + 1) as u128;
        let newest = header.applied_index.0.max(header.logical_time.0);
        if at_least > u128::from(header.bytes) || newest > COUNTER_MAX {
            return Err(RestoreError::Header);
        }
        self.header = Some(header);
        if header.sessions == 0 {
            self.hash = hash_frame(&header, &self.sessions);
        }
        Ok(Some(HEADER_BYTES))
    }

    fn read_session(&mut self, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        if bytes.len() < SESSION_BYTES {
            return Ok(None);
        }
        self.sessions_read += 1;
        let id = WriteId {
            origin: NodeId(number_64(bytes, 0)),
            incarnation: Incarnation(number_64(bytes, 8)),
            seq: number_64(bytes, 16),
        };
        let is_valid = id.origin.0 > 0 && id.incarnation.0 > 0 && id.seq > 0;
        let is_next = self.sessions.last_origin().is_none_or(|last| last < id.origin);
        if !is_valid || id.incarnation.0 > COUNTER_MAX || !is_next {
            return Err(RestoreError::Session(self.sessions_read));
        }
        self.sessions.advance(id);
        let header = self.header.expect("sessions come behind the header");
        if self.sessions_read == header.sessions {
            self.hash = hash_frame(&header, &self.sessions);
        }
        Ok(Some(SESSION_BYTES))
    }

    fn read_record(&mut self, bytes: &[u8], header: &Header) -> Result<Option<usize>, RestoreError> {
        if bytes.len() < RECORD_HEADER_BYTES {
            return Ok(None);
        }
        let number = self.idempotency.count() + 1;
        let broken = |rule| Err(RestoreError::Record(number, rule));
        let (key_len, outcome_len) = (usize::from(bytes[24]), number_32(bytes, 25) as usize);
        if !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key_len) || outcome_len > IDEMPOTENT_OUTCOME_BYTES_MAX {
            return broken("has an impossible length");
        }
        let outcome_at = RECORD_HEADER_BYTES + key_len;
        let Some(bytes) = bytes.get(..outcome_at + outcome_len) else { return Ok(None) };
        let Ok(key) = std::str::from_utf8(&bytes[RECORD_HEADER_BYTES..outcome_at]) else {
            return broken("has a key that is no text");
        };
        let record = Record {
            key: key.into(),
            fingerprint: number_64(bytes, 16),
            time: LogicalTime(number_64(bytes, 8)),
            revision: Index(number_64(bytes, 0)),
            outcome: bytes[outcome_at..].into(),
        };
        let (last_revision, last_time) =
            self.idempotency.last().map_or_else(Default::default, |last| (last.revision, last.time));
        if record.revision <= last_revision || record.revision > header.applied_index {
            return broken("has an impossible revision");
        }
        let is_too_old = header.logical_time - record.time > IDEMPOTENCY_MS_MIN;
        if record.time < last_time || record.time > header.logical_time || is_too_old {
            return broken("has an impossible time");
        }
        if decode_outcome(&record.outcome).is_none() {
            return broken("has no outcome that is remembered");
        }
        hash_record(&mut self.hash, &record);
        if !self.idempotency.push(record) {
            return broken("has the key of another one");
        }
        if self.idempotency.is_too_much() {
            return broken("is more than is remembered");
        }
        Ok(Some(bytes.len()))
    }

    fn read_item(&mut self, bytes: &[u8], header: &Header) -> Result<Option<usize>, RestoreError> {
        if bytes.len() < ITEM_HEADER_BYTES {
            return Ok(None);
        }
        let number = self.items.len() as u64 + 1;
        let broken = |rule| Err(RestoreError::Item(number, rule));
        let revision = Index(number_64(bytes, 0));
        let end = number_64(bytes, 8);
        let (key_len, type_len) = (number_16(bytes, 16), number_16(bytes, 18));
        let value_len = number_32(bytes, 20) as usize;
        let type_len = if type_len == NO_TYPE { None } else { Some(usize::from(type_len)) };
        if revision == Index(0) || revision > header.applied_index {
            return broken("has an impossible revision");
        }
        // It was given at a time that is over.
        if end > header.logical_time.0 + TTL_MS_MAX {
            return broken("has an impossible end of its life");
        }
        let key_len = usize::from(key_len);
        if !(1..=KEY_BYTES_MAX).contains(&key_len)
            || type_len.is_some_and(|len| len > CONTENT_TYPE_BYTES_MAX)
            || value_len > VALUE_BYTES_MAX
        {
            return broken("has an impossible length");
        }
        let value_at = ITEM_HEADER_BYTES + key_len + type_len.unwrap_or(0);
        let Some(bytes) = bytes.get(..value_at + value_len) else { return Ok(None) };
        let text = |from: usize, to: usize| std::str::from_utf8(&bytes[from..to]);
        let Ok(key) = text(ITEM_HEADER_BYTES, ITEM_HEADER_BYTES + key_len) else {
            return broken("has a key that is no text");
        };
        let Ok(content_type) = text(ITEM_HEADER_BYTES + key_len, value_at) else {
            return broken("has a type that is no text");
        };
        if self.items.last().is_some_and(|(last, _)| &**last >= key) {
            return broken("is out of order");
        }
        let content_type = type_len.map(|_| Arc::from(content_type));
        let expires_at = (end > 0).then_some(LogicalTime(end));
        let mut item = Item { value: bytes[value_at..].into(), content_type, revision, expires_at };
        hash_item(&mut self.hash, key, &item);
        self.item_bytes += item_bytes(key, &item);
        if mutant("snapshot-loses-revisions") {
            item.revision = header.applied_index;
        }
        if mutant("snapshot-loses-lives") {
            item.expires_at = None;
        }
        self.items.push((key.into(), item));
        Ok(Some(bytes.len()))
    }

    fn read_trailer(&mut self, bytes: &[u8]) -> Result<Option<usize>, RestoreError> {
        if self.is_whole || bytes.len() < TRAILER_BYTES {
            return Ok(None);
        }
        if number_64(bytes, 0) != self.hash.get() {
            return Err(RestoreError::Hash);
        }
        self.is_whole = true;
        Ok(Some(TRAILER_BYTES))
    }
}

fn number_64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn number_32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn number_16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}
