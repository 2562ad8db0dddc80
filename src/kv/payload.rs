//! A write as the payload of a log entry: who wrote it, then what is to be done.
//!
//! ```text
//!  0        8             16       24        25
//!  | origin | incarnation | seq    | version | command (MessagePack)
//! ```
//!
//! Numbers are little-endian. The version says how the command is written; a node that does not know it must not
//! guess, because all nodes have to do the same with an entry.

use std::fmt;
use std::io::Cursor;

use serde::Deserialize;

use crate::kv::command::{Command, CommandError};
use crate::kv::session::WriteId;
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::raft::types::{Incarnation, NodeId};

/// Bytes in front of the command.
const HEADER_BYTES: usize = 25;

const VERSION: u8 = 1;

/// Why bytes are no payload that this node understands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PayloadError {
    /// Shorter than the header, or longer than any payload.
    Length(usize),
    /// A number in the header is 0: no node, incarnation or write has that number.
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
            PayloadError::Header => f.write_str("the write's origin, incarnation or number is 0"),
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

/// Writes a command as a payload.
///
/// # Panics
/// When the command breaks a rule of [`Command::check`]: callers check it where it comes in, because an entry that
/// nobody can decode would stop the whole cluster.
#[must_use]
pub fn encode_payload(id: WriteId, command: &Command) -> Vec<u8> {
    if let Err(error) = command.check() {
        panic!("a command is checked before it is written down: {error}");
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + command.key().len() + command.value_len() + 64);
    out.extend_from_slice(&id.origin.0.to_le_bytes());
    out.extend_from_slice(&id.incarnation.0.to_le_bytes());
    out.extend_from_slice(&id.seq.to_le_bytes());
    out.push(VERSION);
    rmp_serde::encode::write(&mut out, command).expect("memory takes every command");
    assert!(out.len() <= PAYLOAD_BYTES_MAX, "a checked command fits in a payload, not {} bytes", out.len());
    out
}

/// Reads a payload back, with all checks: what this accepts, every node of this version can apply.
///
/// # Errors
/// With what is wrong. Never panics, whatever the bytes.
pub fn decode_payload(payload: &[u8]) -> Result<(WriteId, Command), PayloadError> {
    let (id, body) = decode_header(payload)?;
    let mut decoder = rmp_serde::Deserializer::new(Cursor::new(body));
    let command =
        Command::deserialize(&mut decoder).map_err(|error| PayloadError::Command(error.to_string()))?;
    // The decoder stops behind the first object and would leave the rest unnoticed.
    if decoder.position() != body.len() as u64 {
        return Err(PayloadError::TrailingBytes);
    }
    command.check().map_err(PayloadError::Rule)?;
    Ok((id, command))
}

fn decode_header(payload: &[u8]) -> Result<(WriteId, &[u8]), PayloadError> {
    if payload.len() < HEADER_BYTES || payload.len() > PAYLOAD_BYTES_MAX {
        return Err(PayloadError::Length(payload.len()));
    }
    let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
    let id = WriteId { origin: NodeId(number(0)), incarnation: Incarnation(number(8)), seq: number(16) };
    if id.origin.0 == 0 || id.incarnation.0 == 0 || id.seq == 0 {
        return Err(PayloadError::Header);
    }
    if payload[24] != VERSION {
        return Err(PayloadError::Version(payload[24]));
    }
    Ok((id, &payload[HEADER_BYTES..]))
}
