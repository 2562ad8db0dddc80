//! A running hash over a sequence of numbers and byte strings: the same for the same sequence, however it is cut into
//! calls in time. It finds differences that happen by accident; it does not resist somebody who looks for one.

/// Odd, and with its bits well spread: the golden ratio's fraction in 64 bits.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Odd, and with its bits well spread: any such number would do.
const SECOND_FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// See the module's text.
///
/// Every step is a bijection of the hash so far and of the number, so two sequences that differ in one number never
/// have the same hash.
#[derive(Clone, Debug)]
pub(crate) struct StateHash(u64);

impl StateHash {
    pub(crate) fn new() -> StateHash {
        StateHash(FACTOR)
    }

    pub(crate) fn number(&mut self, number: u64) {
        let mut hash = (self.0 ^ number).wrapping_mul(FACTOR);
        // Multiplying moves differences upwards only, and leaves one in the highest bit where it is: the next number
        // could take it back. This spreads it.
        hash ^= hash >> 32;
        self.0 = hash.wrapping_mul(SECOND_FACTOR);
    }

    /// Adds bytes, eight at a time. Their length is not added: it has to be, as a number, where strings are read one
    /// after the other.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.number(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.number(u64::from_le_bytes(word));
        }
    }

    /// The hash of everything so far.
    pub(crate) fn get(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&[u8]]) -> u64 {
        let mut hash = StateHash::new();
        for part in parts {
            hash.number(part.len() as u64);
            hash.bytes(part);
        }
        hash.get()
    }

    /// The hash is written into snapshots: it must be the same in every version and on every host.
    #[test]
    fn the_hash_is_fixed() {
        assert_eq!(StateHash::new().get(), of(&[]));
        assert_eq!(of(&[b"a", b"0123456789"]), 12_702_498_188_327_264_753);
    }

    #[test]
    fn every_bit_and_every_boundary_counts() {
        let mut hashes = vec![of(&[b"ab", b"c"]), of(&[b"a", b"bc"]), of(&[b"abc"]), of(&[b"abc", b""])];
        let bytes = [7; 19];
        hashes.push(of(&[&bytes]));
        for bit in 0..8 * bytes.len() {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            hashes.push(of(&[&other]));
        }
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }
}
