//! Messages on a peer link, in pieces.

use keva::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX};
use keva::net::frame::{FRAME_PREFIX_BYTES, FrameDecoder, FrameError, encode_frame};
use keva::raft::entry::Entries;
use keva::raft::message::{AppendOutcome, Envelope, Message, ReadContext, ReadRound, SnapshotOutcome};
use keva::raft::storage::SnapshotMeta;
use keva::raft::types::{EntryId, Index, NodeId, Standing, Term};
use keva::util::rng::Rng;
use keva::util::time::{LogicalTime, Millis};

use crate::bytes::{below, mutate, noise, one_in, pick, pieces, put_u32, u32_at};
use crate::driver::{bounded, drive};
use crate::support::lone_node::Lone;
use crate::support::memory_storage::MemoryStorage;
use crate::{entries, payload};

/// Bytes of serde's own that a header may cost: texts of errors, above all.
const HEADER_COST_BYTES: usize = 8 << 10;

fn message(rng: &mut Rng) -> Message {
    let id = EntryId::new(Term(rng.range(0, 300)), Index(rng.range(0, 70_000)));
    let index = id.index;
    match rng.range(0, 18) {
        0 => Message::PreVote { campaign_term: id.term, last: id },
        1 => Message::PreVoteResponse { campaign_term: id.term, granted: one_in(rng, 2) },
        2 => Message::RequestVote { last: id, transfer: one_in(rng, 2) },
        3 => Message::RequestVoteResponse { granted: one_in(rng, 2) },
        4 => Message::AppendEntriesResponse { outcome: AppendOutcome::Accepted { match_index: index } },
        5 => Message::AppendEntriesResponse {
            outcome: AppendOutcome::Rejected { prev_index: index, hint: id },
        },
        6 => Message::Heartbeat {
            commit_index: index,
            round: ReadRound(rng.range(0, 9)),
            is_full: false,
            time: LogicalTime(rng.range(0, 9)),
        },
        7 => Message::HeartbeatResponse { round: ReadRound(rng.range(0, 9)), is_full: false },
        8 => Message::ReadIndexResponse { context: ReadContext(rng.next_u64()), index },
        9 => Message::TimeoutNow,
        10 => Message::Forward { payloads: (0..below(rng, 4)).map(|_| payload::valid(rng)).collect() },
        11 => Message::Admission,
        12 => Message::AdmissionResponse {
            standing: Standing::Virgin,
            is_empty: one_in(rng, 2),
            commit_index: one_in(rng, 2).then_some(index),
        },
        13 => Message::InstallSnapshotResponse {
            snapshot: snapshot(rng, id),
            outcome: SnapshotOutcome::Receiving { next_offset: rng.range(0, 900) },
        },
        14 => Message::InstallSnapshot {
            snapshot: snapshot(rng, id),
            offset: rng.range(0, 900),
            chunk: vec![7; below(rng, 300)],
        },
        15 => Message::RolledBack,
        16 => Message::RolledBackResponse,
        _ => {
            let entries = Entries::decode(entries::valid(rng)).expect("valid");
            Message::AppendEntries { prev: id, entries, commit_index: index }
        }
    }
}

fn snapshot(rng: &mut Rng, last: EntryId) -> SnapshotMeta {
    SnapshotMeta { last, bytes: rng.range(0, 900), crc: 9 }
}

fn frame(rng: &mut Rng) -> Vec<u8> {
    let (from, to) = (NodeId(rng.range(1, 4)), NodeId(rng.next_u64()));
    let envelope = Envelope { from, to, term: Term(rng.range(0, 300)), message: message(rng) };
    let mut bytes = Vec::new();
    encode_frame(&envelope, &mut bytes);
    bytes
}

/// Makes lengths and checksums of a single frame right again, those of the entries or payloads in it included.
fn reseal(bytes: &mut [u8]) {
    if bytes.len() < FRAME_PREFIX_BYTES {
        return;
    }
    let len = bytes.len() - FRAME_PREFIX_BYTES;
    let header_len = u32_at(bytes, 8).expect("there is a prefix") as usize;
    put_u32(bytes, 0, len as u32);
    let header_end = FRAME_PREFIX_BYTES + header_len.min(len);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..header_end]);
    put_u32(bytes, 4, crc);
    let tail = &mut bytes[header_end..];
    let payload_len = u32_at(tail, 0).map_or(0, |len| len as usize);
    if payload_len > 0 && payload_len.saturating_add(8) <= tail.len() {
        let crc = crc32c::crc32c(&tail[8..8 + payload_len]);
        put_u32(tail, 4, crc);
    } else {
        entries::reseal(tail);
    }
}

/// The messages in `pieces`, and how it ended.
fn decode(pieces: &[&[u8]]) -> (Vec<Envelope>, Result<bool, FrameError>) {
    let mut decoder = FrameDecoder::default();
    let mut envelopes = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(envelope)) => envelopes.push(envelope),
                Ok(None) => break,
                Err(error) => return (envelopes, Err(error)),
            }
        }
    }
    (envelopes, Ok(decoder.is_mid_frame()))
}

/// A follower and a leader take the message and go on: whatever a peer says first, it stops nobody.
fn step_fresh_nodes(envelope: &Envelope) {
    let envelope = Envelope { from: NodeId(2), to: NodeId(1), ..envelope.clone() };
    for leads in [false, true] {
        // Only one node leads a term, so a message from a leader of this one's term would prove that all is lost.
        if leads
            && matches!(
                envelope.message,
                Message::AppendEntries { .. } | Message::Heartbeat { .. } | Message::InstallSnapshot { .. }
            )
        {
            continue;
        }
        let mut node = Lone::new(3, MemoryStorage::default());
        if leads {
            node.lead();
        }
        node.raft.step(Millis(0), envelope.clone()).expect("memory does not fail");
        node.turn();
        node.now = Millis(1 << 40);
        node.raft.handle_deadline(node.now).expect("memory does not fail");
        node.turn();
    }
}

fn one(rng: &mut Rng, corpus: &[Vec<u8>]) -> bool {
    let mut bytes = Vec::new();
    for _ in 0..1 + below(rng, 3) {
        let mut frame = pick(rng, corpus).clone();
        if one_in(rng, 2) {
            mutate(rng, &mut frame, corpus, &[b"Forward", b"AppendEntries", b"\xdf\xff\xff\xff\xff"]);
            if !one_in(rng, 4) {
                reseal(&mut frame);
            }
        }
        bytes.extend_from_slice(&frame);
    }
    if one_in(rng, 50) {
        bytes = noise(rng, 100);
    }
    let pieces = pieces(rng, &bytes);
    let (envelopes, end) = bounded(bytes.len(), 16, HEADER_COST_BYTES, || decode(&pieces));
    assert_eq!((envelopes.clone(), end.clone()), decode(&[&bytes]), "cuts do not matter");
    let mut again = Vec::new();
    for envelope in &envelopes {
        if let Message::AppendEntries { entries, .. } = &envelope.message {
            entries::check(entries);
        }
        encode_frame(envelope, &mut again);
        if one_in(rng, 64) {
            step_fresh_nodes(envelope);
        }
    }
    assert_eq!(decode(&[&again]), (envelopes, Ok(false)), "what was decoded survives another trip");
    match end {
        Ok(is_mid_frame) => !is_mid_frame,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if let FrameError::Length { len, header_len } = error {
                assert!(
                    len > FRAME_BYTES_MAX || header_len > FRAME_HEADER_BYTES_MAX || header_len > len,
                    "a frame within the limits was refused for its length"
                );
            }
            false
        }
    }
}

/// F24, F25, I4: frames in any pieces, damaged or hostile.
#[test]
fn frame_stream() {
    let mut rng = Rng::new(7);
    let corpus: Vec<_> = (0..200).map(|_| frame(&mut rng)).collect();
    drive("frame_stream", 19, |rng| one(rng, &corpus));
}
