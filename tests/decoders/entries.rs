//! Log entries as they come from a peer.

use keva::raft::entry::{ENTRY_HEADER_BYTES, Entries, Entry, EntryKind, encode_entry};
use keva::raft::types::{EntryId, Index, Term};
use keva::util::rng::Rng;

use crate::bytes::{below, input, noise, number, one_in, put_u32, u32_at};
use crate::driver::{bounded, drive};

/// Bytes of valid entries of one log: none to five.
pub(crate) fn valid(rng: &mut Rng) -> Vec<u8> {
    let (mut term, first) = (1 + rng.range(0, 5), 1 + rng.range(0, 300));
    let mut bytes = Vec::new();
    for offset in 0..below(rng, 6) as u64 {
        term += rng.range(0, 2);
        let id = EntryId::new(Term(term), Index(first + offset));
        let kind = if one_in(rng, 5) { EntryKind::NoOp } else { EntryKind::Command };
        let payload = if kind == EntryKind::NoOp { Vec::new() } else { noise(rng, 60) };
        encode_entry(id, kind, &payload, &mut bytes);
    }
    bytes
}

/// Makes the checksums right again, as far as the lengths lead, so that what is behind them is reached.
pub(crate) fn reseal(bytes: &mut [u8]) {
    let mut start = 0;
    while let Some(len) = u32_at(bytes, start + 4) {
        let end = start.saturating_add(ENTRY_HEADER_BYTES).saturating_add(len as usize);
        if end > bytes.len() {
            return;
        }
        let crc = crc32c::crc32c(&bytes[start + 4..end]);
        put_u32(bytes, start, crc);
        start = end;
    }
}

/// What holds for every sequence of entries, whoever made it.
pub(crate) fn check(entries: &Entries) {
    let mut again = Vec::new();
    let (mut count, mut last) = (0, EntryId::default());
    for entry in entries.iter() {
        assert!(entry.term().0 > 0 && entry.index().0 > 0, "0 is no term and no index");
        if count == 0 {
            assert_eq!(entry.id(), entries.first());
        } else {
            assert!(entry.index().0 == last.index.0 + 1 && entry.term() >= last.term, "{entries:?}");
        }
        encode_entry(entry.id(), entry.kind(), entry.payload(), &mut again);
        assert_eq!(Entry::decode(entry.bytes()).expect("it was accepted"), entry);
        last = entry.id();
        count += 1;
    }
    assert_eq!((count, last), (entries.count(), entries.last()));
    assert_eq!(again, entries.as_bytes(), "an entry's bytes follow from its fields");
}

fn one(rng: &mut Rng, corpus: &[Vec<u8>]) -> bool {
    let mut bytes = input(rng, corpus, &[]);
    if one_in(rng, 8) && bytes.len() >= ENTRY_HEADER_BYTES {
        let field = 8 + 8 * below(rng, 2);
        bytes[field..field + 8].copy_from_slice(&number(rng).to_le_bytes());
    }
    if !one_in(rng, 4) {
        reseal(&mut bytes);
    }
    // The one copy is the argument.
    let decoded = bounded(bytes.len(), 1, 0, || Entries::decode(bytes.clone()));
    match decoded {
        Ok(entries) => {
            assert_eq!(entries.as_bytes(), bytes, "nothing is added or left out");
            check(&entries);
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// B15, F24: only whole, undamaged, contiguous entries are taken, and decoding them copies nothing.
#[test]
fn entries() {
    let mut rng = Rng::new(7);
    let corpus: Vec<_> = (0..64).map(|_| valid(&mut rng)).collect();
    drive("entries", 19, |rng| one(rng, &corpus));
}
