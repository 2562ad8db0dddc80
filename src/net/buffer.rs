//! A queue of bytes between a socket and a parser: bytes are added at the end and taken from the front.

/// An empty buffer gives back its memory when it has more than this many bytes of it.
const KEEP_BYTES_MAX: usize = 16 << 10;

/// A queue of bytes that keeps a small allocation for the next message and frees a large one.
///
/// Taking bytes moves a cursor; the rest is moved to the front only when the end of the memory is reached and at
/// least half of it was taken already, so that every byte is moved a constant number of times.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// An empty buffer. It allocates when the first bytes come.
    #[must_use]
    pub fn new() -> Buffer {
        Buffer::default()
    }

    /// The bytes in the queue.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes are in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether the queue is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How much memory the buffer has, used or not, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds bytes at the end.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// For writing at the end in place. Nothing but appending is meant.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        self.make_room(0);
        &mut self.bytes
    }

    /// Takes `count` bytes from the front.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "took {count} bytes from a buffer of {}", self.len());
        self.start += count;
        if self.is_empty() {
            self.clear();
        }
    }

    /// Throws everything away.
    pub fn clear(&mut self) {
        self.start = 0;
        if self.bytes.capacity() > KEEP_BYTES_MAX {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    fn make_room(&mut self, count: usize) {
        let full = self.bytes.len() + count > self.bytes.capacity();
        if self.start > 0 && (full || self.start > KEEP_BYTES_MAX) && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The queue against the obvious model, through growth, compaction and shrinking.
    #[test]
    fn behaves_like_a_queue() {
        let mut buffer = Buffer::new();
        let mut model: Vec<u8> = Vec::new();
        let mut next = 0u8;
        for step in 0..5_000usize {
            let add = (step * 7919) % 97;
            let chunk: Vec<u8> = (0..add).map(|i| next.wrapping_add(i as u8)).collect();
            next = next.wrapping_add(1);
            buffer.extend(&chunk);
            model.extend_from_slice(&chunk);
            let take = ((step * 104_729) % 101).min(model.len());
            buffer.consume(take);
            model.drain(..take);
            assert_eq!(buffer.as_slice(), &model[..]);
        }
        assert!(buffer.capacity() <= 4 * KEEP_BYTES_MAX, "compaction must bound the memory");
    }

    #[test]
    fn frees_a_large_allocation_when_it_is_empty() {
        let mut buffer = Buffer::new();
        buffer.extend(&vec![1; 1 << 20]);
        buffer.consume(1 << 20);
        assert!(buffer.capacity() <= KEEP_BYTES_MAX);
        buffer.extend(b"abc");
        let small = buffer.capacity();
        buffer.consume(3);
        assert_eq!(buffer.capacity(), small, "a small allocation is kept for the next message");
    }
}
