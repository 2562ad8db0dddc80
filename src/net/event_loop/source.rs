//! What a poll event is about, packed into mio's token.

use mio::Token;

use crate::net::slab::{KEY_BITS, Key};

/// Where an event comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The listening socket for clients.
    ClientListener,
    /// The listening socket for peers.
    PeerListener,
    /// SIGTERM and SIGINT.
    Signals,
    /// A client's connection.
    Client(Key),
    /// A peer's link.
    PeerLink(Key),
}

const KIND_FIXED: usize = 0;
const KIND_CLIENT: usize = 1;
const KIND_PEER_LINK: usize = 2;

impl From<Source> for Token {
    fn from(source: Source) -> Token {
        let (kind, number) = match source {
            Source::ClientListener => (KIND_FIXED, 0),
            Source::PeerListener => (KIND_FIXED, 1),
            Source::Signals => (KIND_FIXED, 2),
            Source::Client(key) => (KIND_CLIENT, key.pack()),
            Source::PeerLink(key) => (KIND_PEER_LINK, key.pack()),
        };
        Token(kind << KEY_BITS | number)
    }
}

impl Source {
    /// The source that was packed into `token`.
    ///
    /// # Panics
    /// When no source was: the kernel gives back what was registered.
    #[must_use]
    pub fn of(token: Token) -> Source {
        let number = token.0 & ((1 << KEY_BITS) - 1);
        match (token.0 >> KEY_BITS, number) {
            (KIND_FIXED, 0) => Source::ClientListener,
            (KIND_FIXED, 1) => Source::PeerListener,
            (KIND_FIXED, 2) => Source::Signals,
            (KIND_CLIENT, packed) => Source::Client(Key::unpack(packed)),
            (KIND_PEER_LINK, packed) => Source::PeerLink(Key::unpack(packed)),
            _ => panic!("an event with the token {} that was never registered", token.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_packing_and_fits_32_bits() {
        let largest = Key::unpack((1 << KEY_BITS) - 1);
        let smallest = Key::unpack(0);
        let sources = [
            Source::ClientListener,
            Source::PeerListener,
            Source::Signals,
            Source::Client(smallest),
            Source::Client(largest),
            Source::PeerLink(smallest),
            Source::PeerLink(largest),
        ];
        for source in sources {
            let token = Token::from(source);
            assert_eq!(Source::of(token), source);
            assert!(u32::try_from(token.0).is_ok(), "{source:?} on a 32-bit host");
        }
    }
}
