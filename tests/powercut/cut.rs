//! What a power cut leaves of a recording: everything up to the last flush, and any part of what was written after it.

use keva::util::rng::Rng;

use crate::image::{BLOCK_BYTES, Image};
use crate::promises::Promises;
use crate::recorder::Event;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A recording, played up to a moment.
pub(crate) struct Player<'a> {
    events: &'a [Event],
    position: usize,
    /// Everything up to the last flush.
    durable: Image,
    /// Blocks written since, in order: offset and bytes.
    unflushed: Vec<(usize, &'a [u8])>,
    promises: Promises,
}

/// What of the unflushed blocks a cut leaves.
pub(crate) struct Cut<'a> {
    /// Offset and bytes, in the order of their writing.
    pub(crate) kept: Vec<(usize, &'a [u8])>,
    /// For people.
    pub(crate) how: String,
}

impl<'a> Player<'a> {
    /// The moment before the first event.
    pub(crate) fn new(base: Image, promises: Promises, events: &'a [Event]) -> Player<'a> {
        Player { events, position: 0, durable: base, unflushed: Vec::new(), promises }
    }

    /// Goes on to the moment before the event at `position`.
    ///
    /// # Errors
    /// When the workload itself saw a broken promise.
    pub(crate) fn advance(&mut self, position: usize) -> Result<(), String> {
        for event in &self.events[self.position..position] {
            match event {
                // A disk does not write many blocks as one.
                Event::Write { offset, bytes } => {
                    let blocks = bytes.chunks(BLOCK_BYTES).enumerate();
                    let pieces = blocks.map(|(number, block)| (offset + number * BLOCK_BYTES, block));
                    self.unflushed.extend(pieces);
                }
                Event::Flush => {
                    for (offset, bytes) in self.unflushed.drain(..) {
                        self.durable.write(offset, bytes);
                    }
                }
                Event::Note(note) => self.promises.apply(note)?,
            }
        }
        self.position = position;
        Ok(())
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn promises(&self) -> &Promises {
        &self.promises
    }

    pub(crate) fn durable(&self) -> &Image {
        &self.durable
    }

    /// The last few notes, for people.
    pub(crate) fn notes(&self) -> Vec<String> {
        let notes = self.events[..self.position].iter().rev().filter_map(|event| match event {
            Event::Note(note) => Some(note.summary()),
            _ => None,
        });
        let mut last: Vec<String> = notes.take(8).collect();
        last.reverse();
        last
    }

    /// Cuts the power. A disk's cache keeps the order of two writes to the same sector and no other.
    pub(crate) fn cut(&self, rng: &mut Rng) -> Cut<'a> {
        let count = self.unflushed.len();
        let any = |rng: &mut Rng| rng.range(0, count.max(1) as u64) as usize;
        let (mut chosen, how): (Vec<bool>, &str) = match rng.range(0, 8) {
            0 => (vec![false; count], "none"),
            1 => (vec![true; count], "all"),
            2 => {
                let end = any(rng);
                ((0..count).map(|number| number < end).collect(), "the first")
            }
            3 => {
                let start = any(rng);
                ((0..count).map(|number| number >= start).collect(), "the last")
            }
            4 => {
                let missing = any(rng);
                ((0..count).map(|number| number != missing).collect(), "all but one")
            }
            5 => {
                let only = any(rng);
                ((0..count).map(|number| number == only).collect(), "only one")
            }
            _ => ((0..count).map(|_| rng.range(0, 2) == 0).collect(), "some"),
        };
        let torn = rng.range(0, 3) == 0;
        if torn {
            // Something must be left to be torn.
            chosen.iter_mut().for_each(|kept| *kept |= rng.range(0, 3) == 0);
        }
        let whole = self.unflushed.iter().zip(&chosen).filter(|(_, kept)| **kept).map(|(write, _)| *write);
        let mut kept: Vec<(usize, &[u8])> = whole.collect();
        let how = format!(
            "{how}{} of {count} unflushed blocks: {}",
            if torn { " and torn pieces" } else { "" },
            kept.len()
        );
        if torn {
            kept = kept.into_iter().flat_map(|write| tear(write, rng)).collect();
        }
        Cut { kept, how }
    }
}

/// Some sectors of a block. The first block stays whole: the checksum of ext4's superblock is in another sector than
/// what changes most, and no file system over it can help when that is torn.
fn tear<'a>((offset, bytes): (usize, &'a [u8]), rng: &mut Rng) -> Vec<(usize, &'a [u8])> {
    if offset < BLOCK_BYTES || rng.range(0, 2) == 0 {
        return vec![(offset, bytes)];
    }
    let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
    sectors
        .map(|(number, sector)| (offset + number * SECTOR_BYTES, sector))
        .filter(|_| rng.range(0, 2) == 0)
        .collect()
}
