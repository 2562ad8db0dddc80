//! Commands as they stand in the log.

use keva::kv::command::{Command, Condition, Matcher, Operation, Requirement, Transaction, Write};
use keva::kv::payload::{Payload, is_same_write, stamp};
use keva::kv::session::WriteId;
use keva::limits::{COUNTER_MAX, TTL_MS_MAX};
use keva::raft::types::{Incarnation, Index, NodeId};
use keva::util::rng::Rng;
use keva::util::time::LogicalTime;

use crate::bytes::{below, input, noise, number, one_in, pick};
use crate::driver::{bounded, drive};

/// What a length that is not backed by bytes may cost: `serde` reserves at most this much for it.
const RESERVED_BYTES_MAX: usize = 1 << 20;

fn matcher(rng: &mut Rng) -> Option<Matcher> {
    match rng.range(0, 4) {
        0 => Some(Matcher::Any),
        1 => Some(Matcher::Revisions((0..below(rng, 17)).map(|_| Index(number(rng))).collect())),
        _ => None,
    }
}

fn condition(rng: &mut Rng) -> Condition {
    Condition { if_match: matcher(rng), if_none_match: matcher(rng) }
}

fn key(rng: &mut Rng) -> String {
    "k\u{e9}y/".repeat(1 + below(rng, 5))
}

fn content_type(rng: &mut Rng) -> Option<String> {
    one_in(rng, 2).then(|| "text/plain".repeat(below(rng, 5)))
}

fn ttl(rng: &mut Rng) -> Option<u64> {
    one_in(rng, 2).then(|| 1 + number(rng) % TTL_MS_MAX)
}

fn operation(rng: &mut Rng) -> Operation {
    let key = key(rng);
    match rng.range(0, 4) {
        0 => Operation::Put { key, value: noise(rng, 50), content_type: content_type(rng), ttl_ms: ttl(rng) },
        1 => Operation::Add { key, by: number(rng) as i64, ttl_ms: ttl(rng) },
        2 => Operation::Delete { key },
        _ => Operation::Get { key },
    }
}

fn requirement(rng: &mut Rng) -> (String, Requirement) {
    let requirement = match rng.range(0, 4) {
        0 => Requirement::Revision(Index(number(rng))),
        1 => Requirement::Absent,
        2 => Requirement::Exists,
        _ => Requirement::Value(noise(rng, 50)),
    };
    (key(rng), requirement)
}

fn transaction(rng: &mut Rng) -> Transaction {
    Transaction {
        conditions: (0..below(rng, 3)).map(|_| requirement(rng)).collect(),
        then: (0..below(rng, 5)).map(|_| operation(rng)).collect(),
        otherwise: one_in(rng, 2).then(|| (0..below(rng, 5)).map(|_| operation(rng)).collect()),
    }
}

/// A command of any kind.
pub(crate) fn command(rng: &mut Rng) -> Command {
    let (key, condition, ttl_ms) = (key(rng), condition(rng), ttl(rng));
    match rng.range(0, 10) {
        0 | 1 => Command::Delete { key, condition },
        2 => Command::Append {
            key,
            value: noise(rng, 100),
            content_type: content_type(rng),
            condition,
            ttl_ms,
            bytes_max: rng.range(0, 1000),
        },
        3 => Command::Add { key, by: number(rng) as i64, condition, ttl_ms },
        4 => Command::DeletePrefix { prefix: key },
        5 | 6 => Command::Transaction(transaction(rng)),
        7 if one_in(rng, 2) => Command::Tick,
        7 => Command::Expire { keys: vec![(key, Index(number(rng))); 1 + below(rng, 4)] },
        _ => Command::Put { key, value: noise(rng, 300), content_type: content_type(rng), condition, ttl_ms },
    }
}

/// A valid payload.
pub(crate) fn valid(rng: &mut Rng) -> Vec<u8> {
    let command = command(rng);
    let is_internal = command.is_internal();
    let idempotency_key = (!is_internal && one_in(rng, 3)).then(|| "name".repeat(1 + below(rng, 16)));
    let id = WriteId {
        origin: NodeId(1 + rng.range(0, 9)),
        incarnation: Incarnation(1),
        seq: if is_internal { 0 } else { 1 + rng.range(0, 99) },
    };
    let time = LogicalTime(number(rng) % COUNTER_MAX);
    Payload { id, time, write: Write { command, idempotency_key } }.encode()
}

/// Bytes in front of the idempotency key and the command.
const HEADER_BYTES: usize = 34;

fn one(rng: &mut Rng, corpus: &[Vec<u8>]) -> bool {
    let words: &[&[u8]] = &[
        b"Put",
        b"Delete",
        b"Append",
        b"Add",
        b"DeletePrefix",
        b"Transaction",
        b"Expire",
        b"Tick",
        b"Get",
        b"Value",
        b"Revisions",
        b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\x7f\xff\xff\xff",
    ];
    let mut bytes = input(rng, corpus, words);
    if one_in(rng, 2) && bytes.len() >= HEADER_BYTES {
        // Past the header, so that the command is reached.
        bytes[..HEADER_BYTES].copy_from_slice(&pick(rng, corpus)[..HEADER_BYTES]);
    }
    let decoded = bounded(bytes.len(), 4, RESERVED_BYTES_MAX + 4096, || Payload::decode(&bytes));
    match decoded {
        Ok(payload) => {
            let Payload { id, write, .. } = &payload;
            assert_eq!(write.check(), Ok(()));
            assert!(id.origin.0 > 0 && (1..=COUNTER_MAX).contains(&id.incarnation.0));
            assert!((id.seq == 0) == write.command.is_internal());
            assert!(payload.time.0 <= COUNTER_MAX);
            let mut again = payload.encode();
            assert_eq!(Payload::decode(&again).as_ref(), Ok(&payload));
            let time = LogicalTime(rng.range(0, COUNTER_MAX));
            stamp(&mut again, time);
            assert!(is_same_write(&again, &payload.encode()));
            assert_eq!(Payload::decode(&again), Ok(Payload { time, ..payload }));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// F25, I4: every node decodes a payload to the same command or to none, and a length costs nothing without its bytes.
#[test]
fn payload() {
    let mut rng = Rng::new(7);
    let corpus: Vec<_> = (0..64).map(|_| valid(&mut rng)).collect();
    drive("payload", 19, |rng| one(rng, &corpus));
}
