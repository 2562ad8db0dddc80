//! The answering half of a connection: responses in request order, and their bytes.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;

use crate::limits::{PIPELINED_REQUESTS_MAX, UNSENT_BYTES_MAX};
use crate::net::api::Action;
use crate::net::buffer::Buffer;
use crate::net::client::pace::Pace;
use crate::net::http::date::HttpDate;
use crate::net::http::response::{Body, Persistence, Response};
use crate::util::time::Millis;

/// Bodies up to this length are copied behind their head, so that one write sends both. Longer ones are lent out.
const COPY_BYTES_MAX: usize = 16 << 10;
/// No further response is written while this many bytes wait.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// RFC 9112, section 7.1.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const _: () = assert!(COPY_BYTES_MAX < OUTPUT_BYTES_MAX, "several small responses must share a write");
const _: () = assert!(OUTPUT_BYTES_MAX <= UNSENT_BYTES_MAX, "what is written counts as unsent");

/// A connection's name for one of its requests. Counts up; unique within the connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct CallId(pub u64);

/// A request that was read, and its response as soon as there is one.
#[derive(Debug)]
struct Slot {
    persistence: Persistence,
    /// `HEAD`: the body is counted, not sent.
    is_head: bool,
    /// Length of the value that the node was given and may still hold, in bytes.
    asked_bytes: usize,
    /// The answer may be very long: see [`Action::reads_many`].
    reads_many: bool,
    /// The answer may come much later: see [`Action::waits`].
    waits: bool,
    response: Option<Response>,
}

/// The queue of requests that wait for their response, and the bytes of those that have it.
///
/// ```text
///     slots    [r7: answered] [r6: answered] [r5: waiting]   <- r6 and r7 must not overtake r5
///     output   head of r4, then `body`                       <- lent to the socket
/// ```
///
/// A stream is the last response of a connection: its pieces are added to `output`, or are a `body` if they are long.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    slots: VecDeque<Slot>,
    /// The id of the first slot.
    first_id: u64,
    output: Buffer,
    /// A long body that follows the bytes of `output`, and how much of it was sent.
    body: Option<(Body, usize)>,
    /// Bytes of bodies in answered slots.
    held_bytes: usize,
    /// Bytes of values in requests without a response.
    asked_bytes: usize,
    /// Requests without a response whose answers may be very long.
    long_answers: usize,
    /// A client waits for `100 Continue`, behind all slots.
    owes_continue: bool,
    /// The last response was written: nothing may follow it.
    is_closed: bool,
    pace: Option<Pace>,
    /// The last response is a stream, and its end was not written.
    stream: Option<Stream>,
}

/// A response whose body comes piece by piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stream {
    is_chunked: bool,
    /// The chunk that is being sent has no end yet.
    owes_chunk_end: bool,
    /// No more pieces come.
    is_ending: bool,
}

impl Outbox {
    /// Adds a request for the node.
    pub(crate) fn open(&mut self, persistence: Persistence, is_head: bool, action: &Action) -> CallId {
        let (asked_bytes, reads_many) = (action.value_bytes(), action.reads_many());
        self.asked_bytes += asked_bytes;
        self.long_answers += usize::from(reads_many);
        let waits = action.waits();
        self.push(Slot { persistence, is_head, asked_bytes, reads_many, waits, response: None })
    }

    fn push(&mut self, slot: Slot) -> CallId {
        let id = CallId(self.first_id + self.slots.len() as u64);
        self.slots.push_back(slot);
        id
    }

    /// Adds a request that has its response.
    pub(crate) fn open_answered(&mut self, persistence: Persistence, is_head: bool, response: Response) {
        let (asked_bytes, reads_many, waits) = (0, false, false);
        let id = self.push(Slot { persistence, is_head, asked_bytes, reads_many, waits, response: None });
        self.answer(id, response);
    }

    /// Gives a request its response.
    pub(crate) fn answer(&mut self, id: CallId, response: Response) {
        let slot = id.0.checked_sub(self.first_id).and_then(|offset| self.slots.get_mut(offset as usize));
        let slot = slot.expect("a response is for a request of this connection that has none");
        assert!(slot.response.is_none(), "a request is answered once");
        self.asked_bytes -= slot.asked_bytes;
        self.long_answers -= usize::from(slot.reads_many);
        self.held_bytes += response.body.as_slice().len();
        slot.response = Some(response);
    }

    /// Remembers, or forgets, that a client waits for `100 Continue`.
    pub(crate) fn set_owes_continue(&mut self, owes: bool) {
        self.owes_continue = owes;
    }

    /// Whether a client waits for `100 Continue`.
    pub(crate) fn owes_continue(&self) -> bool {
        self.owes_continue
    }

    /// Writes what is in turn. `closes_when_empty`: the last request that was read is the last of the connection.
    pub(crate) fn pump(&mut self, now: Millis, date: &HttpDate, closes_when_empty: bool) {
        while self.body.is_none() && self.output.len() < OUTPUT_BYTES_MAX && !self.is_closed {
            if self.slots.front().is_none_or(|slot| slot.response.is_none()) {
                break;
            }
            let slot = self.slots.pop_front().expect("the queue has a first slot");
            self.first_id += 1;
            let closes = closes_when_empty && self.slots.is_empty();
            self.write(slot, closes, date);
        }
        if self.owes_continue && self.slots.is_empty() && self.body.is_none() && !self.is_closed {
            self.output.extend(CONTINUE);
            self.owes_continue = false;
        }
        if self.pace.is_none() && !self.output().is_empty() {
            self.pace = Some(Pace::new(now));
        }
    }

    fn write(&mut self, slot: Slot, closes: bool, date: &HttpDate) {
        let response = slot.response.expect("only an answered slot is written");
        let persistence = if closes { Persistence::Close } else { slot.persistence };
        self.is_closed = persistence == Persistence::Close;
        response.write_head(persistence, date, self.output.tail());
        let length = response.body.as_slice().len();
        self.held_bytes -= length;
        if slot.is_head || response.status.is_bodiless() {
            return;
        }
        if let Body::Stream { is_chunked } = response.body {
            self.stream = Some(Stream { is_chunked, owes_chunk_end: false, is_ending: false });
            // Nothing follows: a stream that is idle for a long time holds no memory that it does not need.
            self.slots = VecDeque::new();
            return;
        }
        if length <= COPY_BYTES_MAX {
            self.output.extend(response.body.as_slice());
        } else {
            self.body = Some((response.body, 0));
        }
    }

    /// The bytes to send next.
    pub(crate) fn output(&self) -> &[u8] {
        match &self.body {
            Some((body, sent)) if self.output.is_empty() => &body.as_slice()[*sent..],
            _ => self.output.as_slice(),
        }
    }

    /// Takes `count` sent bytes away.
    pub(crate) fn sent(&mut self, now: Millis, count: usize) {
        if let Some(pace) = &mut self.pace {
            pace.advance(now, count);
        }
        if !self.output.is_empty() {
            self.output.consume(count);
        } else if let Some((body, sent)) = &mut self.body {
            *sent += count;
            let length = body.as_slice().len();
            assert!(*sent <= length, "sent {count} bytes, more than there were");
            if *sent == length {
                self.body = None;
            }
        } else {
            assert!(count == 0, "sent {count} bytes where there were none");
        }
        self.go_on_with_stream();
        if self.output().is_empty() {
            self.pace = None;
            if self.stream.is_some() {
                self.output = Buffer::new();
            }
        }
    }

    /// What follows a piece that was lent out, and the end.
    fn go_on_with_stream(&mut self) {
        let Some(stream) = self.stream.as_mut().filter(|_| self.body.is_none()) else { return };
        if std::mem::take(&mut stream.owes_chunk_end) {
            self.output.extend(b"\r\n");
        }
        if stream.is_ending {
            if stream.is_chunked {
                self.output.extend(LAST_CHUNK);
            }
            self.stream = None;
        }
    }

    /// Whether a stream is open: its pieces can be sent, one day or now.
    pub(crate) fn is_streaming(&self) -> bool {
        self.stream.is_some_and(|stream| !stream.is_ending)
    }

    /// Bytes that wait to be sent in front of the stream's next piece. `None`: no stream is open, or a long piece is being
    /// sent.
    pub(crate) fn stream_unsent_bytes(&self) -> Option<usize> {
        (self.is_streaming() && self.body.is_none()).then(|| self.output.len())
    }

    /// Adds a piece to the stream. It is not empty: that would be the last chunk.
    ///
    /// # Panics
    /// When the stream takes nothing: see [`Outbox::stream_unsent_bytes`].
    pub(crate) fn send_piece(&mut self, now: Millis, piece: &Arc<[u8]>) {
        assert!(self.stream_unsent_bytes().is_some(), "a piece is for a stream that takes one");
        assert!(!piece.is_empty(), "an empty chunk is the last one");
        let stream = self.stream.as_mut().expect("just looked at");
        if stream.is_chunked {
            write!(self.output.tail(), "{:x}\r\n", piece.len()).expect("writing to a Vec cannot fail");
        }
        if piece.len() <= COPY_BYTES_MAX {
            self.output.extend(piece);
            if stream.is_chunked {
                self.output.extend(b"\r\n");
            }
        } else {
            self.body = Some((Body::Value(Arc::clone(piece)), 0));
            stream.owes_chunk_end = stream.is_chunked;
        }
        self.pace.get_or_insert(Pace::new(now));
    }

    /// The stream ends in good order, if there is one.
    pub(crate) fn end_stream(&mut self, now: Millis) {
        let Some(stream) = &mut self.stream else { return };
        stream.is_ending = true;
        self.go_on_with_stream();
        if !self.output().is_empty() {
            self.pace.get_or_insert(Pace::new(now));
        }
    }

    /// Whether no request waits for a response.
    pub(crate) fn has_no_requests(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether nothing waits, neither for a response nor to be sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.output.is_empty() && self.body.is_none() && self.stream.is_none()
    }

    /// Whether everything before the next answer was sent, and that one may come much later.
    pub(crate) fn only_waits(&self) -> bool {
        let is_next = self.slots.front().is_some_and(|slot| slot.waits && slot.response.is_none());
        is_next && self.output().is_empty()
    }

    /// Whether no further request should be read. An answer that may be very long counts as if it were: there is one of
    /// them at a time.
    pub(crate) fn is_full(&self) -> bool {
        self.slots.len() >= PIPELINED_REQUESTS_MAX
            || self.long_answers > 0
            || self.unsent_bytes() + self.asked_bytes >= UNSENT_BYTES_MAX
    }

    /// When the client counts as gone, because it does not take what is sent.
    pub(crate) fn deadline(&self, stall_ms: u64) -> Millis {
        self.pace.map_or(Millis::NEVER, |pace| pace.deadline(stall_ms))
    }

    /// Memory held, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let answered = self.slots.iter().filter_map(|slot| slot.response.as_ref());
        let bodies = answered.map(|response| &response.body).chain(self.body.as_ref().map(|(body, _)| body));
        self.output.capacity() + self.asked_bytes + bodies.map(Body::memory_bytes).sum::<usize>()
    }

    fn unsent_bytes(&self) -> usize {
        let body = self.body.as_ref().map_or(0, |(body, sent)| body.as_slice().len() - sent);
        self.output.len() + self.held_bytes + body
    }
}
