//! Commands as they stand in the log.

use keva::kv::command::{Command, Condition, Matcher};
use keva::kv::payload::{decode_payload, encode_payload};
use keva::kv::session::WriteId;
use keva::raft::types::{Incarnation, Index, NodeId};
use keva::util::rng::Rng;

use crate::bytes::{below, input, noise, number, one_in};
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

/// A valid payload.
pub(crate) fn valid(rng: &mut Rng) -> Vec<u8> {
    let condition = Condition { if_match: matcher(rng), if_none_match: matcher(rng) };
    let key = "k\u{e9}y/".repeat(1 + below(rng, 5));
    let command = if one_in(rng, 4) {
        Command::Delete { key, condition }
    } else {
        let content_type = one_in(rng, 2).then(|| "text/plain".repeat(below(rng, 5)));
        Command::Put { key, value: noise(rng, 300), content_type, condition }
    };
    let id = WriteId {
        origin: NodeId(1 + rng.range(0, 9)),
        incarnation: Incarnation(1),
        seq: 1 + rng.range(0, 99),
    };
    encode_payload(id, &command)
}

fn one(rng: &mut Rng, corpus: &[Vec<u8>]) -> bool {
    let words: &[&[u8]] =
        &[b"Put", b"Delete", b"Revisions", b"\xc0", b"\xdd\xff\xff\xff\xff", b"\xc6\x7f\xff\xff\xff"];
    let mut bytes = input(rng, corpus, words);
    if one_in(rng, 2) && bytes.len() > 24 {
        // Past the header, so that the command is reached.
        bytes[..25].copy_from_slice(&corpus[0][..25]);
    }
    let decoded = bounded(bytes.len(), 4, RESERVED_BYTES_MAX + 4096, || decode_payload(&bytes));
    match decoded {
        Ok((id, command)) => {
            assert_eq!(command.check(), Ok(()));
            assert!(id.origin.0 > 0 && id.incarnation.0 > 0 && id.seq > 0);
            assert!(command.value_len() + command.key().len() <= bytes.len());
            let again = encode_payload(id, &command);
            assert_eq!(decode_payload(&again), Ok((id, command)));
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
