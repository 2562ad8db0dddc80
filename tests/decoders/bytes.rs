//! Bytes that are almost right: mutations of valid inputs, and noise.

use keva::util::rng::Rng;

/// Numbers at which decoders go wrong: ends of ranges, signs, lengths around limits.
const NUMBERS: [u64; 20] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    1 << 20,
    (1 << 24) + 4096,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    1 << 62,
    u64::MAX >> 1,
    u64::MAX - 1,
    u64::MAX,
];
/// Longest input in bytes. Longer ones are cut: they would only be slower.
const INPUT_BYTES_MAX: usize = 16 << 10;

/// A number below `bound`, which must not be 0.
pub(crate) fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.range(0, bound as u64) as usize
}

/// True once in `n` times.
pub(crate) fn one_in(rng: &mut Rng, n: u64) -> bool {
    rng.range(0, n) == 0
}

/// One of the list.
pub(crate) fn pick<'a, T>(rng: &mut Rng, list: &'a [T]) -> &'a T {
    &list[below(rng, list.len())]
}

/// A number that is often an odd one.
pub(crate) fn number(rng: &mut Rng) -> u64 {
    if one_in(rng, 3) { rng.next_u64() >> rng.range(0, 64) } else { *pick(rng, &NUMBERS) }
}

/// Bytes without any meaning.
pub(crate) fn noise(rng: &mut Rng, most: usize) -> Vec<u8> {
    (0..below(rng, most + 1)).map(|_| rng.next_u64() as u8).collect()
}

/// An input: a valid one from the corpus, mutated none to a few times; rarely noise. `words` are pieces that mean
/// something to the decoder.
pub(crate) fn input(rng: &mut Rng, corpus: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    if one_in(rng, 50) {
        return noise(rng, 200);
    }
    let mut bytes = pick(rng, corpus).clone();
    mutate(rng, &mut bytes, corpus, words);
    bytes
}

/// Mutates bytes none to eight times, mostly a few times.
pub(crate) fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&[u8]]) {
    let count = [0, 1, 1, 1, 2, 2, 3, 8][below(rng, 8)];
    for _ in 0..count {
        mutate_once(rng, bytes, corpus, words);
    }
    bytes.truncate(INPUT_BYTES_MAX);
}

fn mutate_once(rng: &mut Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&[u8]]) {
    if bytes.is_empty() {
        *bytes = noise(rng, 20);
        return;
    }
    let at = below(rng, bytes.len());
    let len = 1 + below(rng, (bytes.len() - at).min(40));
    match rng.range(0, 12) {
        0 | 1 => bytes[at] ^= 1 << rng.range(0, 8),
        2 => bytes[at] = rng.next_u64() as u8,
        3 => bytes[at] = *pick(rng, &[0, 1, 0x7f, 0x80, 0xc0, 0xc4, 0xc6, 0xdb, 0xdd, 0xdf, 0xff, b'\n']),
        4 | 5 => {
            let width = *pick(rng, &[1, 2, 4, 8]);
            let number = number(rng);
            let little = number.to_le_bytes();
            let big = number.to_be_bytes();
            let field = if one_in(rng, 3) { &big[8 - width..] } else { &little[..width] };
            let end = bytes.len().min(at + width);
            bytes[at..end].copy_from_slice(&field[..end - at]);
        }
        6 => drop(bytes.drain(at..at + len)),
        7 => bytes.truncate(at),
        8 => {
            let piece = bytes[at..at + len].to_vec();
            let to = below(rng, bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        9 if !words.is_empty() => {
            let word = pick(rng, words).iter().copied();
            let end = if one_in(rng, 2) { at } else { at + len };
            bytes.splice(at..end, word);
        }
        9 | 10 => {
            let piece = noise(rng, 12);
            bytes.splice(at..at, piece);
        }
        _ => {
            let other = pick(rng, corpus);
            let from = below(rng, other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}

/// Cuts `bytes` into pieces of random lengths, some of them empty.
pub(crate) fn pieces<'a>(rng: &mut Rng, bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let longest = *pick(rng, &[1, 3, 20, 200, 5000]);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(below(rng, longest + 1).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Writes a little-endian number.
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Reads a little-endian number, if it is there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().expect("four bytes")))
}
