//! Bytes that wait for a link's socket.

/// The queue gives memory back when it is empty and holds more than this.
const IDLE_BYTES_MAX: usize = 1 << 20;
/// Sent bytes are removed from the front once there are this many, and not fewer than those still waiting.
const SENT_BYTES_KEPT_MAX: usize = 64 << 10;

/// A queue of bytes: encoders append at the back, the socket takes from the front.
#[derive(Default, Debug)]
pub struct SendQueue {
    bytes: Vec<u8>,
    /// Everything in front of this is sent.
    start: usize,
}

impl SendQueue {
    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where encoders append.
    pub fn back(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What waits, in order.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The socket took `count` bytes.
    ///
    /// # Panics
    /// When fewer were waiting.
    pub fn handle_sent(&mut self, count: usize) {
        assert!(count <= self.len(), "the socket took {count} bytes of {}", self.len());
        self.start += count;
        if self.is_empty() {
            self.start = 0;
            self.bytes.clear();
            if self.bytes.capacity() > IDLE_BYTES_MAX {
                self.bytes = Vec::new();
            }
        } else if self.start >= SENT_BYTES_KEPT_MAX.max(self.len()) {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_whatever_the_socket_takes() {
        let (mut queue, mut out) = (SendQueue::default(), Vec::new());
        let mut expected = Vec::new();
        for round in 0..2000usize {
            let piece: Vec<u8> = (0..round % 700).map(|byte| (byte + round) as u8).collect();
            queue.back().extend_from_slice(&piece);
            expected.extend_from_slice(&piece);
            let take = (round * 7919 % 900).min(queue.len());
            out.extend_from_slice(&queue.waiting()[..take]);
            queue.handle_sent(take);
        }
        out.extend_from_slice(queue.waiting());
        queue.handle_sent(queue.len());
        assert!(out == expected && queue.is_empty());
    }

    /// I4: memory follows what waits, not what was ever sent.
    #[test]
    fn memory_is_given_back() {
        let mut queue = SendQueue::default();
        queue.back().resize(8 << 20, 1);
        queue.handle_sent(6 << 20);
        assert_eq!((queue.len(), queue.bytes.len()), (2 << 20, 2 << 20), "sent bytes are gone");
        queue.handle_sent(2 << 20);
        assert_eq!(queue.bytes.capacity(), 0);
    }
}
