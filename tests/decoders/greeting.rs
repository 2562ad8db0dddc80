//! The first bytes on a peer link.

use keva::limits::{GREETING_BYTES_MAX, GREETING_TEXT_BYTES_MAX};
use keva::net::peer::greeting::{Greeting, Identity};
use keva::raft::types::{Incarnation, NodeId};
use keva::util::rng::Rng;

use crate::bytes::{input, number, one_in, put_u32, u32_at};
use crate::driver::{bounded, drive};

const PREFIX_BYTES: usize = 16;

fn identity(node: u64) -> Identity {
    Identity {
        cluster: 7,
        members_digest: 11,
        node: NodeId(node),
        members: vec![NodeId(1), NodeId(2), NodeId(3)],
        incarnation: Incarnation(5),
        disk_id: 13,
        process: 17,
        version: "0.1.0".into(),
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let long = Identity { version: "v".repeat(500), cluster: u128::MAX, ..identity(3) };
    [
        Greeting::Hello(identity(1).hello(NodeId(2))),
        Greeting::Welcome(identity(3).hello(NodeId(2))),
        Greeting::Welcome(long.hello(NodeId(u64::MAX))),
        Greeting::Refusal(String::new()),
        Greeting::Refusal("it is \u{e4} reason".repeat(20)),
    ]
    .iter()
    .map(|greeting| {
        let mut bytes = Vec::new();
        greeting.encode(&mut bytes);
        bytes
    })
    .collect()
}

/// Makes length and checksum right again.
fn reseal(bytes: &mut [u8]) {
    if bytes.len() < PREFIX_BYTES {
        return;
    }
    let len = (bytes.len() - PREFIX_BYTES).min(GREETING_BYTES_MAX);
    put_u32(bytes, 8, len as u32);
    let body = &bytes[PREFIX_BYTES..PREFIX_BYTES + len];
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), body);
    put_u32(bytes, 12, crc);
}

fn one(rng: &mut Rng, corpus: &[Vec<u8>]) -> bool {
    let mut bytes = input(rng, corpus, &[b"version", b"cluster", b"\xc4\xff", b"\xdb\xff\xff\xff\xff"]);
    if one_in(rng, 16) && bytes.len() >= PREFIX_BYTES {
        put_u32(&mut bytes, 8, number(rng) as u32);
    } else if !one_in(rng, 3) {
        reseal(&mut bytes);
    }
    let decoded = bounded(bytes.len(), 4, 4096, || Greeting::decode(&bytes));
    match decoded {
        Ok(Some((greeting, len))) => {
            assert!(len <= bytes.len() && len <= PREFIX_BYTES + GREETING_BYTES_MAX);
            assert_eq!(len, PREFIX_BYTES + u32_at(&bytes, 8).expect("it has a prefix") as usize);
            assert_eq!(Greeting::decode(&bytes[..len]), Ok(Some((greeting.clone(), len))), "it ends there");
            assert_eq!(Greeting::decode(&bytes[..len - 1]), Ok(None), "and not earlier");
            check(greeting);
            true
        }
        Ok(None) => {
            assert!(bytes.len() < PREFIX_BYTES + GREETING_BYTES_MAX, "it waits for ever");
            false
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

fn check(greeting: Greeting) {
    let again = |greeting: &Greeting| {
        let mut bytes = Vec::new();
        greeting.encode(&mut bytes);
        Greeting::decode(&bytes).expect("it was just encoded").expect("all of it").0
    };
    match &greeting {
        Greeting::Hello(hello) | Greeting::Welcome(hello) => match identity(2).check(hello) {
            Ok(()) => {
                assert!(hello.to == NodeId(2) && [NodeId(1), NodeId(3)].contains(&hello.from));
                assert!(hello.cluster() == Some(7) && hello.members_digest == 11);
                assert_eq!(again(&greeting), greeting);
            }
            Err(reason) => assert!(reason.len() <= GREETING_TEXT_BYTES_MAX, "it must fit in a refusal"),
        },
        Greeting::Refusal(reason) if reason.len() <= GREETING_TEXT_BYTES_MAX => {
            assert_eq!(again(&greeting), greeting);
        }
        Greeting::Refusal(_) => {}
    }
}

/// F19: whatever comes first on a link, it is a whole greeting, the beginning of one, or refused in bounded memory.
#[test]
fn greeting() {
    let corpus = corpus();
    drive("greeting", 19, |rng| one(rng, &corpus));
}
