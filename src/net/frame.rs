//! Messages between nodes as bytes on a link.
//!
//! ```text
//!  0     4        8            12
//!  | len | crc    | header_len | header          | tail                       |
//!          crc: CRC-32C over len, header_len and header; len: bytes of header and tail
//! ```
//!
//! All numbers are little-endian `u32`. The header is the envelope in MessagePack without its bulk: log entries and
//! forwarded payloads travel in the tail as they are, so that nothing copies them through an encoder. Entries carry
//! their own checksums; so does each forwarded payload: `| len | crc | payload |`.
//!
//! Reading trusts nothing: lengths are checked before anything is allocated for them, a header may not have bytes left
//! over, a tail belongs to the kinds of messages that have one, and entries are checked one by one.

use std::fmt;
use std::io::Cursor;

use serde::{Deserialize, Serialize};

use crate::limits::{
    COUNTER_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, SNAPSHOT_CHUNK_BYTES,
    WRITES_IN_FLIGHT_MAX,
};
use crate::net::buffer::Buffer;
use crate::raft::entry::{Entries, EntryError};
use crate::raft::message::{AppendOutcome, Envelope, Message, SnapshotOutcome};
use crate::raft::types::EntryId;

/// Bytes in front of a frame's header.
pub const FRAME_PREFIX_BYTES: usize = 12;
const PAYLOAD_PREFIX_BYTES: usize = 8;

/// Why bytes are no frame. The link they came from cannot be used any more: where the next frame begins is unknown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The frame or its header is longer than allowed, or the header is longer than the frame.
    Length {
        /// The length field.
        len: usize,
        /// The header's length field.
        header_len: usize,
    },
    /// The header's checksum does not match.
    Checksum,
    /// The header is no envelope: written by a newer Keva, or damaged.
    Header(String),
    /// Bytes behind a message that has none.
    UnexpectedTail,
    /// The entries in the tail are wrong.
    Entries(EntryError),
    /// The forwarded payloads in the tail are wrong.
    Payloads,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Length { len, header_len } => {
                write!(f, "a frame of {len} bytes with a header of {header_len} bytes is over the limit")
            }
            FrameError::Checksum => f.write_str("a frame's checksum does not match"),
            FrameError::Header(reason) => write!(f, "a frame's header cannot be read: {reason}"),
            FrameError::UnexpectedTail => f.write_str("a frame has bytes behind a message that has none"),
            FrameError::Entries(error) => write!(f, "a frame carries bad entries: {error}"),
            FrameError::Payloads => f.write_str("a frame carries bad forwarded payloads"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Appends the frame of `envelope` to `out`.
///
/// # Panics
/// When the message is over [`FRAME_BYTES_MAX`]: batches are bounded where they are made.
pub fn encode_frame(envelope: &Envelope, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_PREFIX_BYTES]);
    envelope
        .serialize(&mut rmp_serde::Serializer::new(&mut *out))
        .expect("an envelope is plain data, and memory takes every byte");
    let header_len = out.len() - start - FRAME_PREFIX_BYTES;
    encode_tail(&envelope.message, out);
    let len = out.len() - start - FRAME_PREFIX_BYTES;
    assert!(
        len <= FRAME_BYTES_MAX && header_len <= FRAME_HEADER_BYTES_MAX,
        "a message of {len} bytes ({header_len} of them header) does not fit in a frame"
    );
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
    out[start + 8..start + 12].copy_from_slice(&(header_len as u32).to_le_bytes());
    let header_end = start + FRAME_PREFIX_BYTES + header_len;
    let crc = frame_crc(&out[start..start + 4], &out[start + 8..header_end]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

fn frame_crc(len: &[u8], header_len_and_header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(len), header_len_and_header)
}

/// The bulk of a message. Exhaustive on purpose: a new kind has to say what travels in the tail.
fn encode_tail(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::AppendEntries { entries, .. } => out.extend_from_slice(entries.as_bytes()),
        Message::Forward { payloads } => payloads.iter().for_each(|payload| encode_payload(payload, out)),
        Message::InstallSnapshot { chunk, .. } if chunk.is_empty() => {}
        Message::InstallSnapshot { chunk, .. } => encode_payload(chunk, out),
        Message::PreVote { .. }
        | Message::PreVoteResponse { .. }
        | Message::RequestVote { .. }
        | Message::RequestVoteResponse { .. }
        | Message::AppendEntriesResponse { .. }
        | Message::Heartbeat { .. }
        | Message::HeartbeatResponse { .. }
        | Message::InstallSnapshotResponse { .. }
        | Message::Admission
        | Message::AdmissionResponse { .. }
        | Message::RolledBack
        | Message::RolledBackResponse
        | Message::ReadIndex { .. }
        | Message::ReadIndexResponse { .. }
        | Message::TimeoutNow => {}
    }
}

fn decode_tail(message: &mut Message, tail: Vec<u8>) -> Result<(), FrameError> {
    match message {
        Message::AppendEntries { entries, .. } => {
            *entries = Entries::decode(tail).map_err(FrameError::Entries)?;
        }
        Message::Forward { payloads } => *payloads = decode_payloads(&tail)?,
        Message::InstallSnapshot { chunk, .. } => {
            let mut payloads = decode_payloads(&tail)?;
            if payloads.len() > 1 || payloads.first().is_some_and(|chunk| chunk.len() > SNAPSHOT_CHUNK_BYTES)
            {
                return Err(FrameError::Payloads);
            }
            *chunk = payloads.pop().unwrap_or_default();
        }
        Message::PreVote { .. }
        | Message::PreVoteResponse { .. }
        | Message::RequestVote { .. }
        | Message::RequestVoteResponse { .. }
        | Message::AppendEntriesResponse { .. }
        | Message::Heartbeat { .. }
        | Message::HeartbeatResponse { .. }
        | Message::InstallSnapshotResponse { .. }
        | Message::Admission
        | Message::AdmissionResponse { .. }
        | Message::RolledBack
        | Message::RolledBackResponse
        | Message::ReadIndex { .. }
        | Message::ReadIndexResponse { .. }
        | Message::TimeoutNow => {
            if !tail.is_empty() {
                return Err(FrameError::UnexpectedTail);
            }
        }
    }
    Ok(())
}

fn encode_payload(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// The forwarded payloads: at most as many as a node may have waiting, each within the limit and undamaged.
fn decode_payloads(mut rest: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut payloads = Vec::new();
    while !rest.is_empty() {
        let (len, crc) = match (u32_at(rest, 0), u32_at(rest, 4)) {
            (Some(len), Some(crc)) => (len as usize, crc),
            _ => return Err(FrameError::Payloads),
        };
        if len > PAYLOAD_BYTES_MAX || payloads.len() == WRITES_IN_FLIGHT_MAX {
            return Err(FrameError::Payloads);
        }
        let payload =
            rest.get(PAYLOAD_PREFIX_BYTES..PAYLOAD_PREFIX_BYTES + len).ok_or(FrameError::Payloads)?;
        if crc32c::crc32c(payload) != crc {
            return Err(FrameError::Payloads);
        }
        payloads.push(payload.to_vec());
        rest = &rest[PAYLOAD_PREFIX_BYTES + len..];
    }
    Ok(payloads)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Bytes from a link become envelopes: [`FrameDecoder::push`] what was read, then call [`FrameDecoder::next`] until it
/// gives `None`. Between the calls it holds at most one unfinished frame.
#[derive(Default, Debug)]
pub struct FrameDecoder {
    buffer: Buffer,
    /// The checked header of the frame whose tail is awaited, and the tail's length.
    header: Option<(Envelope, usize)>,
}

impl FrameDecoder {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// At the first byte that cannot be part of a frame; the link must be closed.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot go on after None, this can")]
    pub fn next(&mut self) -> Result<Option<Envelope>, FrameError> {
        if self.header.is_none() {
            self.header = self.take_header()?;
        }
        let Some((_, tail_len)) = self.header else { return Ok(None) };
        let Some(tail) = self.buffer.as_slice().get(..tail_len) else { return Ok(None) };
        let tail = tail.to_vec();
        self.buffer.consume(tail_len);
        let (mut envelope, _) = self.header.take().expect("looked at above");
        decode_tail(&mut envelope.message, tail)?;
        Ok(Some(envelope))
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.header.is_some() || !self.buffer.is_empty()
    }

    fn take_header(&mut self) -> Result<Option<(Envelope, usize)>, FrameError> {
        let bytes = self.buffer.as_slice();
        let (Some(len), Some(crc), Some(header_len)) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8))
        else {
            return Ok(None);
        };
        let (len, header_len) = (len as usize, header_len as usize);
        if len > FRAME_BYTES_MAX || header_len > FRAME_HEADER_BYTES_MAX || header_len > len {
            return Err(FrameError::Length { len, header_len });
        }
        let end = FRAME_PREFIX_BYTES + header_len;
        let Some(header) = bytes.get(FRAME_PREFIX_BYTES..end) else { return Ok(None) };
        if frame_crc(&bytes[..4], &bytes[8..end]) != crc {
            return Err(FrameError::Checksum);
        }
        let envelope = decode_header(header)?;
        self.buffer.consume(end);
        Ok(Some((envelope, len - header_len)))
    }
}

fn decode_header(header: &[u8]) -> Result<Envelope, FrameError> {
    let mut decoder = rmp_serde::Deserializer::new(Cursor::new(header));
    let envelope =
        Envelope::deserialize(&mut decoder).map_err(|error| FrameError::Header(error.to_string()))?;
    if decoder.position() != header.len() as u64 {
        return Err(FrameError::Header("it has bytes left over".into()));
    }
    if largest_counter(&envelope) > COUNTER_MAX {
        return Err(FrameError::Header(
            "a term, an index, a round or a time is larger than any node gets to".into(),
        ));
    }
    Ok(envelope)
}

/// The largest of the numbers that the receiver may add one to. Exhaustive on purpose: a new kind has to name its own.
fn largest_counter(envelope: &Envelope) -> u64 {
    let id = |id: EntryId| id.term.0.max(id.index.0);
    let own = match &envelope.message {
        Message::PreVote { campaign_term, last } => campaign_term.0.max(id(*last)),
        Message::PreVoteResponse { campaign_term, granted: _ } => campaign_term.0,
        Message::RequestVote { last, transfer: _ } => id(*last),
        Message::AppendEntries { prev, entries: _, commit_index } => id(*prev).max(commit_index.0),
        Message::AppendEntriesResponse { outcome: AppendOutcome::Accepted { match_index } } => match_index.0,
        Message::AppendEntriesResponse { outcome: AppendOutcome::Rejected { prev_index, hint } } => {
            prev_index.0.max(id(*hint))
        }
        Message::Heartbeat { commit_index, round, is_full: _, time } => {
            commit_index.0.max(round.0).max(time.0)
        }
        Message::HeartbeatResponse { round, is_full: _ } => round.0,
        Message::InstallSnapshot { snapshot, offset, chunk: _ } => {
            id(snapshot.last).max(snapshot.bytes).max(*offset)
        }
        Message::InstallSnapshotResponse { snapshot, outcome } => {
            let own = match outcome {
                SnapshotOutcome::Receiving { next_offset } => *next_offset,
                SnapshotOutcome::Installed { match_index } => match_index.0,
                SnapshotOutcome::Refused => 0,
            };
            id(snapshot.last).max(snapshot.bytes).max(own)
        }
        Message::AdmissionResponse { standing: _, is_empty: _, commit_index } => {
            commit_index.map_or(0, |index| index.0)
        }
        Message::ReadIndexResponse { context: _, index } => index.0,
        Message::RequestVoteResponse { granted: _ }
        | Message::ReadIndex { context: _ }
        | Message::Admission
        | Message::RolledBack
        | Message::RolledBackResponse
        | Message::TimeoutNow
        | Message::Forward { payloads: _ } => 0,
    };
    own.max(envelope.term.0)
}
