//! A write as the payload of a log entry: who wrote it, then what is to be done.
//!
//! ```text
//!  0        8             16    24     32        33           34
//!  | origin | incarnation | seq | time | version | key length | idempotency key | command (MessagePack)
//! ```
//!
//! Numbers are little-endian. The time is 0 until the leader proposes the write: it writes the logical time over it. A
//! leader's own commands have the number (`seq`) 0: they are no write of any client, have no idempotency key, and count
//! as new always. The version says how the command is written; a node that does not know it must not guess, because all
//! nodes have to do the same with an entry.

use std::fmt;
use std::io::Cursor;

use serde::Deserialize;

use crate::kv::command::{Command, CommandError, Write};
use crate::kv::session::WriteId;
use crate::limits::{COUNTER_MAX, PAYLOAD_BYTES_MAX};
use crate::raft::types::{Incarnation, NodeId};
use crate::util::time::LogicalTime;

/// Bytes in front of the command.
const HEADER_BYTES: usize = 34;
const TIME: std::ops::Range<usize> = 24..32;

/// How the command is written, what is accepted as one, and what comes of it with the limits that every node must agree on:
/// see `limits`.
const VERSION: u8 = 1;

/// Why bytes are no payload that this node understands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PayloadError {
    /// Shorter than the header, or longer than any payload.
    Length(usize),
    /// A number in the header is one that no node, incarnation, write or time has, or the key is no text.
    Header,
    /// Written by a newer Keva.
    Version(u8),
    /// The bytes behind the header are no command, with what the decoder says.
    Command(String),
    /// There are bytes behind the command.
    TrailingBytes,
    /// The command breaks a rule.
    Rule(CommandError),
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PayloadError::Length(bytes) => write!(f, "{bytes} bytes are too few or too many for a write"),
            PayloadError::Header => {
                f.write_str("the numbers or the key in front of the command are impossible")
            }
            PayloadError::Version(version) => {
                write!(f, "the command has version {version}, this Keva knows version {VERSION}")
            }
            PayloadError::Command(reason) => write!(f, "the command cannot be read: {reason}"),
            PayloadError::TrailingBytes => f.write_str("there are bytes behind the command"),
            PayloadError::Rule(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PayloadError {}

/// A write with its name and time: what the state machine carries out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// Who wrote it. The number is 0 for what a leader does of its own accord.
    pub id: WriteId,
    /// When the leader proposed it. 0 before that.
    pub time: LogicalTime,
    /// What is to be done.
    pub write: Write,
}

impl Payload {
    /// Writes everything down.
    ///
    /// # Panics
    /// When the write breaks a rule of [`Write::check`]: callers check it where it comes in, because an entry that
    /// nobody can decode would stop the whole cluster.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Payload { id, time, write } = self;
        if let Err(error) = write.check() {
            panic!("a command is checked before it is written down: {error}");
        }
        assert!(is_named_rightly(*id, write), "writes of clients are numbered, and only they");
        let mut out = Vec::with_capacity(HEADER_BYTES + write.command.value_len() + 256);
        for number in [id.origin.0, id.incarnation.0, id.seq, time.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(VERSION);
        let key = write.idempotency_key.as_deref().unwrap_or_default();
        out.push(u8::try_from(key.len()).expect("an idempotency key is short"));
        out.extend_from_slice(key.as_bytes());
        rmp_serde::encode::write(&mut out, &write.command).expect("memory takes every command");
        assert!(
            out.len() <= PAYLOAD_BYTES_MAX,
            "a checked command fits in a payload, not {} bytes",
            out.len()
        );
        out
    }

    /// Reads a payload back, with all checks: what this accepts, every node of this version can apply.
    ///
    /// # Errors
    /// With what is wrong. Never panics, whatever the bytes.
    pub fn decode(payload: &[u8]) -> Result<Payload, PayloadError> {
        let (id, time, key, body) = decode_header(payload)?;
        let mut decoder = rmp_serde::Deserializer::new(Cursor::new(body));
        let command =
            Command::deserialize(&mut decoder).map_err(|error| PayloadError::Command(error.to_string()))?;
        // The decoder stops behind the first object and would leave the rest unnoticed.
        if decoder.position() != body.len() as u64 {
            return Err(PayloadError::TrailingBytes);
        }
        let write = Write { command, idempotency_key: key };
        write.check().map_err(PayloadError::Rule)?;
        if !is_named_rightly(id, &write) {
            return Err(PayloadError::Header);
        }
        Ok(Payload { id, time, write })
    }
}

/// Writes of clients have numbers. What a leader does of its own accord has none, and no idempotency key.
fn is_named_rightly(id: WriteId, write: &Write) -> bool {
    let is_internal = write.command.is_internal();
    (id.seq == 0) == is_internal && !(is_internal && write.idempotency_key.is_some())
}

/// Writes the time of its proposal into an encoded payload.
///
/// # Panics
/// When the bytes are no payload.
pub fn stamp(payload: &mut [u8], time: LogicalTime) {
    assert!(payload.len() >= HEADER_BYTES, "only what was encoded or decoded is stamped");
    payload[TIME].copy_from_slice(&time.0.to_le_bytes());
}

/// Whether two encoded payloads are the same write, proposed at whatever time.
#[must_use]
pub fn is_same_write(one: &[u8], other: &[u8]) -> bool {
    one.get(..TIME.start) == other.get(..TIME.start) && one.get(TIME.end..) == other.get(TIME.end..)
}

type Header<'a> = (WriteId, LogicalTime, Option<String>, &'a [u8]);

fn decode_header(payload: &[u8]) -> Result<Header<'_>, PayloadError> {
    if payload.len() < HEADER_BYTES || payload.len() > PAYLOAD_BYTES_MAX {
        return Err(PayloadError::Length(payload.len()));
    }
    let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
    let id = WriteId { origin: NodeId(number(0)), incarnation: Incarnation(number(8)), seq: number(16) };
    let time = LogicalTime(number(TIME.start));
    // What is accepted here must be accepted from a snapshot, too.
    let is_possible = (1..=COUNTER_MAX).contains(&id.incarnation.0) && time.0 <= COUNTER_MAX;
    if id.origin.0 == 0 || !is_possible {
        return Err(PayloadError::Header);
    }
    if payload[32] != VERSION {
        return Err(PayloadError::Version(payload[32]));
    }
    let rest = &payload[HEADER_BYTES..];
    let Some((key, body)) = rest.split_at_checked(usize::from(payload[33])) else {
        return Err(PayloadError::Length(payload.len()));
    };
    let key = std::str::from_utf8(key).map_err(|_| PayloadError::Header)?;
    Ok((id, time, (!key.is_empty()).then(|| key.to_owned()), body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::command::OPERATION_OVERHEAD_BYTES;
    use crate::kv::snapshot;
    use crate::limits::{
        COMMAND_OVERHEAD_BYTES_MAX, CONDITION_REVISIONS_MAX, CONTENT_TYPE_BYTES_MAX, EXPIRIES_MAX,
        IDEMPOTENCY_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_MS_MIN, IDEMPOTENCY_RECORDS_MAX,
        IDEMPOTENT_OUTCOME_BYTES_MAX, KEY_BYTES_MAX, TRANSACTION_OPERATIONS_MAX, TRANSACTION_READ_BYTES_MAX,
        TTL_MS_MAX, VALUE_BYTES_MAX,
    };

    /// Another number here makes this node do something else with an entry than nodes that have the old one: it takes
    /// new versions, and nodes that know both.
    #[test]
    fn these_limits_belong_to_the_versions() {
        assert_eq!((VERSION, snapshot::VERSION), (1, 1));
        let lengths = [KEY_BYTES_MAX, VALUE_BYTES_MAX, CONTENT_TYPE_BYTES_MAX];
        assert_eq!(lengths, [1_024, 16_777_216, 256]);
        let payload = [COMMAND_OVERHEAD_BYTES_MAX, PAYLOAD_BYTES_MAX, OPERATION_OVERHEAD_BYTES];
        assert_eq!(payload, [1_024, 16_779_520, 64]);
        assert_eq!([CONDITION_REVISIONS_MAX, TRANSACTION_OPERATIONS_MAX, EXPIRIES_MAX], [16, 1_000, 256]);
        assert_eq!(TRANSACTION_READ_BYTES_MAX, 16_777_216);
        let remembered = [IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENT_OUTCOME_BYTES_MAX];
        assert_eq!(remembered, [64, 2_097_152]);
        assert_eq!([IDEMPOTENCY_RECORDS_MAX, IDEMPOTENCY_BYTES_MAX], [65_536, 16_777_216]);
        assert_eq!([TTL_MS_MAX, IDEMPOTENCY_MS_MIN], [315_360_000_000, 600_000]);
        assert_eq!(COUNTER_MAX, 9_223_372_036_854_775_807);
    }
}
