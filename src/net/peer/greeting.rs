//! The first bytes on a peer link, in both directions.
//!
//! ```text
//!  0       4          6      8     12    16
//!  | KEVA  | protocol | kind | len | crc | body: len bytes |      crc: CRC-32C over everything else
//! ```
//!
//! The dialling node sends a hello, the accepting node answers with a welcome or with a refusal that says why. This
//! layout, and the refusal's body (text), stay the same in every protocol version, so that two versions can tell one
//! another that they do not match. The other bodies are MessagePack with field names: fields may be added.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{COUNTER_MAX, GREETING_BYTES_MAX, GREETING_TEXT_BYTES_MAX};
use crate::raft::types::{Incarnation, Life, NodeId};

/// The version of everything that follows the greeting. Nodes of different versions do not talk to one another.
pub const PROTOCOL_VERSION: u16 = 3;

const MAGIC: [u8; 4] = *b"KEVA";
const PREFIX_BYTES: usize = 16;
const KIND_HELLO: u16 = 1;
const KIND_WELCOME: u16 = 2;
const KIND_REFUSAL: u16 = 3;

/// What a node says about itself, and whom it believes to talk to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster.
    #[serde(with = "serde_bytes")]
    cluster: Vec<u8>,
    /// A hash of the member list.
    pub members_digest: u64,
    /// The speaking node.
    pub from: NodeId,
    /// The node it wants to reach.
    pub to: NodeId,
    /// How often the speaking node was started.
    pub incarnation: Incarnation,
    /// The number of the speaking node's working directory. A node that lost its directory comes with another one.
    pub disk_id: u64,
    /// A random number that the speaking process has drawn for itself: a start number that comes again on an older copy of
    /// the directory is told from the first one by it.
    pub process: u64,
    /// The speaking node's program version, for people.
    pub version: String,
}

impl Hello {
    /// Which of the speaking node's processes this is.
    #[must_use]
    pub fn life(&self) -> Life {
        Life { disk_id: self.disk_id, incarnation: self.incarnation, process: self.process }
    }

    /// The cluster's id, `None` when the sender's is not of our kind.
    #[must_use]
    pub fn cluster(&self) -> Option<u128> {
        Some(u128::from_le_bytes(self.cluster.as_slice().try_into().ok()?))
    }
}

/// One greeting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Greeting {
    /// From the node that dialled.
    Hello(Hello),
    /// From the node that accepted: the link stands.
    Welcome(Hello),
    /// From either: the link will be closed, for this reason.
    Refusal(String),
}

/// Why the first bytes on a link are no greeting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GreetingError {
    /// The other side speaks something else; a browser or a wrong port, most likely.
    NotKeva,
    /// The other side's protocol has another version.
    Protocol(u16),
    /// The greeting is damaged or over the limit.
    Malformed,
}

impl fmt::Display for GreetingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GreetingError::NotKeva => f.write_str(
                "the other side is no Keva node's keva_port; compare address and keva_port in the nodes' configuration",
            ),
            GreetingError::Protocol(theirs) => write!(
                f,
                "the other side speaks version {theirs} of the protocol between nodes, this node version \
                 {PROTOCOL_VERSION}; run versions of Keva that fit together"
            ),
            GreetingError::Malformed => f.write_str("the greeting is damaged"),
        }
    }
}

impl std::error::Error for GreetingError {}

/// What a node checks greetings against and puts into its own.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster's id: the same on all members.
    pub cluster: u128,
    /// A hash of the member list: the same on all members.
    pub members_digest: u64,
    /// This node.
    pub node: NodeId,
    /// All members, this node included.
    pub members: Vec<NodeId>,
    /// How often this node was started.
    pub incarnation: Incarnation,
    /// The number of this node's working directory, drawn when it was made.
    pub disk_id: u64,
    /// This process's number, drawn when it began.
    pub process: u64,
    /// This program's version.
    pub version: String,
}

impl Identity {
    /// This process.
    #[must_use]
    pub fn life(&self) -> Life {
        Life { disk_id: self.disk_id, incarnation: self.incarnation, process: self.process }
    }

    /// What this node says to `peer`.
    #[must_use]
    pub fn hello(&self, peer: NodeId) -> Hello {
        Hello {
            cluster: self.cluster.to_le_bytes().to_vec(),
            members_digest: self.members_digest,
            from: self.node,
            to: peer,
            incarnation: self.incarnation,
            disk_id: self.disk_id,
            process: self.process,
            version: self.version.clone(),
        }
    }

    /// Whether the sender of `hello` is another member of the same cluster that means this node.
    ///
    /// # Errors
    /// With the reason, in words for both nodes' operators.
    pub fn check(&self, hello: &Hello) -> Result<(), String> {
        if hello.members_digest != self.members_digest {
            return Err(
                "the nodes have different member lists: every node of a cluster needs the same [[node]] \
                        tables, and an address must not belong to another cluster"
                    .into(),
            );
        }
        if hello.cluster() != Some(self.cluster) {
            return Err("the nodes belong to different clusters: one of them has another cluster's address or name in \
                        its configuration"
                .into());
        }
        if hello.to != self.node {
            return Err(format!(
                "this is {}, not {}: an address or keva_port in the configuration belongs to another node",
                self.node, hello.to
            ));
        }
        if hello.from == self.node || !self.members.contains(&hello.from) {
            return Err(format!("{} is no other member of this node's cluster", hello.from));
        }
        let is_start = (1..=COUNTER_MAX).contains(&hello.incarnation.0);
        if !is_start || hello.version.len() > GREETING_TEXT_BYTES_MAX {
            return Err("the greeting has impossible values".into());
        }
        Ok(())
    }
}

impl Greeting {
    /// Appends the greeting's bytes to `out`. A refusal's reason is cut to [`GREETING_TEXT_BYTES_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, body) = match self {
            Greeting::Hello(hello) => (KIND_HELLO, encode_hello(hello)),
            Greeting::Welcome(hello) => (KIND_WELCOME, encode_hello(hello)),
            Greeting::Refusal(reason) => (KIND_REFUSAL, cut(reason).as_bytes().to_vec()),
        };
        assert!(body.len() <= GREETING_BYTES_MAX, "a greeting of {} bytes is over the limit", body.len());
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = greeting_crc(&out[start..], &body);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&body);
    }

    /// The greeting at the start of `bytes` and its length, `None` while bytes are missing. Whatever follows it in
    /// `bytes` is left alone.
    ///
    /// # Errors
    /// As soon as the bytes cannot become a greeting that this version understands.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Greeting, usize)>, GreetingError> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(GreetingError::NotKeva);
        }
        let Some(prefix) = bytes.get(..PREFIX_BYTES) else { return Ok(None) };
        let protocol = u16::from_le_bytes([prefix[4], prefix[5]]);
        let kind = u16::from_le_bytes([prefix[6], prefix[7]]);
        let len = u32::from_le_bytes(prefix[8..12].try_into().expect("four bytes")) as usize;
        let crc = u32::from_le_bytes(prefix[12..16].try_into().expect("four bytes"));
        if protocol != PROTOCOL_VERSION && kind != KIND_REFUSAL {
            return Err(GreetingError::Protocol(protocol));
        }
        if len > GREETING_BYTES_MAX {
            return Err(GreetingError::Malformed);
        }
        let Some(body) = bytes.get(PREFIX_BYTES..PREFIX_BYTES + len) else { return Ok(None) };
        if greeting_crc(&prefix[..12], body) != crc {
            return Err(GreetingError::Malformed);
        }
        let greeting = match kind {
            KIND_HELLO => Greeting::Hello(decode_hello(body)?),
            KIND_WELCOME => Greeting::Welcome(decode_hello(body)?),
            KIND_REFUSAL => Greeting::Refusal(String::from_utf8_lossy(body).into_owned()),
            _ => return Err(GreetingError::Malformed),
        };
        Ok(Some((greeting, PREFIX_BYTES + len)))
    }
}

fn greeting_crc(prefix: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(prefix), body)
}

fn encode_hello(hello: &Hello) -> Vec<u8> {
    rmp_serde::to_vec_named(hello).expect("a hello is plain data, and memory takes every byte")
}

fn decode_hello(body: &[u8]) -> Result<Hello, GreetingError> {
    rmp_serde::from_slice(body).map_err(|_| GreetingError::Malformed)
}

/// At most [`GREETING_TEXT_BYTES_MAX`] bytes of `text`, ending between two characters.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(GREETING_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn bytes_of(greeting: &Greeting) -> Vec<u8> {
        let mut out = Vec::new();
        greeting.encode(&mut out);
        out
    }

    #[test]
    fn greetings_survive_the_wire_and_leave_what_follows() {
        let hello = identity(1).hello(NodeId(2));
        let greetings =
            [Greeting::Hello(hello.clone()), Greeting::Welcome(hello), Greeting::Refusal("go away".into())];
        for greeting in greetings {
            let mut bytes = bytes_of(&greeting);
            let len = bytes.len();
            bytes.extend_from_slice(b"the first frame");
            assert_eq!(Greeting::decode(&bytes), Ok(Some((greeting.clone(), len))));
            for cut in 0..len {
                assert_eq!(Greeting::decode(&bytes[..cut]), Ok(None), "{greeting:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn no_flipped_bit_makes_another_greeting() {
        let bytes = bytes_of(&Greeting::Hello(identity(1).hello(NodeId(2))));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let decoded = Greeting::decode(&damaged);
            assert!(!matches!(decoded, Ok(Some(_))), "bit {bit}: {decoded:?}");
        }
    }

    #[test]
    fn other_protocols_and_versions_are_told_apart() {
        assert_eq!(Greeting::decode(b"GET / HTTP/1.1\r\n"), Err(GreetingError::NotKeva));
        assert_eq!(Greeting::decode(b"H"), Err(GreetingError::NotKeva), "known after one byte");
        let mut newer = bytes_of(&Greeting::Hello(identity(1).hello(NodeId(2))));
        newer[4] = 9;
        assert_eq!(Greeting::decode(&newer), Err(GreetingError::Protocol(9)));
        let mut bomb = bytes_of(&Greeting::Refusal("x".into()));
        bomb[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Greeting::decode(&bomb), Err(GreetingError::Malformed), "before the bytes are there");
    }

    /// A refusal is understood whatever the version: its layout never changes.
    #[test]
    fn a_newer_nodes_refusal_can_be_read() {
        let body = b"I am from the future";
        let mut bytes = b"KEVA\x09\x00\x03\x00".to_vec();
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = greeting_crc(&bytes, body);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(body);
        let expected = (Greeting::Refusal("I am from the future".into()), bytes.len());
        assert_eq!(Greeting::decode(&bytes), Ok(Some(expected)));
    }

    /// F19: only another member of the same cluster, with the same member list, that means this node.
    #[test]
    fn strangers_are_refused_with_a_reason() {
        let me = identity(2);
        let good = identity(1).hello(NodeId(2));
        assert_eq!(me.check(&good), Ok(()));
        let refused = |change: fn(&mut Hello), word: &str| {
            let mut hello = good.clone();
            change(&mut hello);
            let reason = me.check(&hello).expect_err(word);
            assert!(reason.contains(word), "{reason}");
        };
        refused(|hello| hello.cluster = 8u128.to_le_bytes().to_vec(), "different clusters");
        refused(|hello| hello.cluster = vec![7], "different clusters");
        refused(|hello| hello.to = NodeId(3), "belongs to another node");
        refused(|hello| hello.from = NodeId(4), "no other member");
        refused(|hello| hello.from = NodeId(2), "no other member");
        refused(|hello| hello.members_digest = 12, "member lists");
        refused(|hello| hello.incarnation = Incarnation(0), "impossible");
        refused(|hello| hello.incarnation = Incarnation(COUNTER_MAX + 1), "impossible");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let greeting = Greeting::Refusal("ä".repeat(GREETING_TEXT_BYTES_MAX));
        let (decoded, _) = Greeting::decode(&bytes_of(&greeting)).expect("valid").expect("whole");
        assert_eq!(decoded, Greeting::Refusal("ä".repeat(GREETING_TEXT_BYTES_MAX / 2)));
        let odd = Greeting::Refusal(format!("x{}", "ä".repeat(GREETING_TEXT_BYTES_MAX)));
        let (decoded, _) = Greeting::decode(&bytes_of(&odd)).expect("valid").expect("whole");
        assert_eq!(decoded, Greeting::Refusal(format!("x{}", "ä".repeat(GREETING_TEXT_BYTES_MAX / 2 - 1))));
    }
}
