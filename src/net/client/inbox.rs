//! The reading half of a connection: from bytes to requests.

use std::mem::MaybeUninit;

use crate::limits::{DRAIN_BYTES_MAX, REQUEST_HEADERS_MAX};
use crate::net::api::Action;
use crate::net::api::route::{BodyPlan, Plan, route};
use crate::net::buffer::Buffer;
use crate::net::client::pace::Pace;
use crate::net::http::body::BodyDecoder;
use crate::net::http::framing::{BodyLength, Expectation, Framing};
use crate::net::http::head::{HeadScanner, RequestHead, malformed};
use crate::net::http::problem::Problem;
use crate::net::http::response::{Persistence, Response};
use crate::net::http::status::Status;
use crate::util::time::Millis;

/// Something the reading half found.
#[derive(Debug)]
pub(crate) enum Event {
    /// A complete request for the node.
    Call { action: Action, persistence: Persistence, is_head: bool },
    /// A request that is answered here. With [`Persistence::Close`] nothing more is read.
    Answer { response: Response, persistence: Persistence, is_head: bool },
    /// The client waits for `100 Continue`.
    ContinueWanted,
    /// Something happened that needs no answer.
    Nothing,
}

/// The state of reading.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    input: Buffer,
    scanner: HeadScanner,
    /// When the first byte of the head came that is being read.
    head_began: Option<Millis>,
    /// The request whose body is being read.
    body: Option<Incoming>,
    /// The body that is being read is malformed or too large.
    failure: Option<Problem>,
    /// No more requests are read.
    is_ended: bool,
    /// Whether any head was complete.
    had_head: bool,
}

/// A request whose body is being read.
#[derive(Debug)]
struct Incoming {
    goal: Goal,
    persistence: Persistence,
    is_head: bool,
    decoder: BodyDecoder,
    pace: Pace,
}

/// What happens at the end of a body.
#[derive(Debug)]
enum Goal {
    Call(Action),
    /// With the body, and how long a value may be.
    Body(BodyPlan, usize),
    Answer(Response),
    /// The request was answered already.
    Nothing,
}

impl Incoming {
    /// Takes bytes of the body from the front of `input`, and says how many.
    fn decode(&mut self, now: Millis, input: &[u8]) -> Result<usize, Problem> {
        let used = self.decoder.decode(input)?;
        self.pace.advance(now, used);
        Ok(used)
    }
}

impl Inbox {
    /// Takes bytes. A body's bytes are decoded at once, the rest waits for `next_event`.
    pub(crate) fn receive(&mut self, now: Millis, bytes: &[u8]) {
        if self.is_ended || self.failure.is_some() {
            return;
        }
        let mut rest = bytes;
        if let Some(body) = self.body.as_mut().filter(|_| self.input.is_empty()) {
            match body.decode(now, bytes) {
                Ok(used) => rest = &bytes[used..],
                Err(problem) => return self.failure = Some(problem),
            }
        }
        self.input.extend(rest);
    }

    /// The next request, or `None` when it is incomplete. `input_ended`: no more bytes will come.
    pub(crate) fn next_event(
        &mut self,
        now: Millis,
        value_bytes_max: usize,
        input_ended: bool,
    ) -> Option<Event> {
        if self.is_ended {
            return None;
        }
        if let Some(problem) = self.failure.take() {
            return Some(self.fail(&problem));
        }
        if self.body.is_none() {
            match self.next_head(now, value_bytes_max) {
                Ok(None) => {}
                Ok(event) => return event,
                Err(problem) => return Some(self.fail(&problem)),
            }
        }
        if self.body.is_some() {
            match self.read_body(now) {
                Ok(None) => {}
                Ok(event) => return event,
                Err(problem) => return Some(self.fail(&problem)),
            }
        }
        input_ended.then(|| self.end_of_input())
    }

    /// Ends reading with an error. A request that has its answer gets no second one.
    pub(crate) fn fail(&mut self, problem: &Problem) -> Event {
        let (is_answered, is_head) = match &self.body {
            Some(body) => (matches!(body.goal, Goal::Nothing), body.is_head),
            None => (false, false),
        };
        if is_answered {
            self.end();
            return Event::Nothing;
        }
        self.refuse_for_good(problem, is_head)
    }

    fn refuse_for_good(&mut self, problem: &Problem, is_head: bool) -> Event {
        self.end();
        Event::Answer { response: problem.to_response(), persistence: Persistence::Close, is_head }
    }

    /// Reads no more requests. What was read of an incomplete one is forgotten.
    pub(crate) fn end(&mut self) {
        self.is_ended = true;
        self.body = None;
        self.failure = None;
        self.head_began = None;
        // A stream may follow that is idle for hours: the memory is not kept.
        self.input = Buffer::new();
    }

    /// Whether no more requests are read.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether a body is being read.
    pub(crate) fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// Whether part of a head is there.
    pub(crate) fn has_partial_head(&self) -> bool {
        self.body.is_none() && self.input.len() > self.scanner.skipped()
    }

    /// Whether a head was complete at any time.
    pub(crate) fn had_head(&self) -> bool {
        self.had_head
    }

    /// Reading pauses: the time of the client does not run.
    pub(crate) fn pause(&mut self) {
        self.head_began = None;
    }

    /// The client got leave to send the body: its time begins.
    pub(crate) fn restart_body(&mut self, now: Millis) {
        if let Some(body) = &mut self.body {
            body.pace = Pace::new(now);
        }
    }

    /// When the request that is being read counts as too slow. `None` when none is.
    pub(crate) fn deadline(&self, head_ms: u64, stall_ms: u64) -> Option<Millis> {
        match &self.body {
            Some(body) => Some(body.pace.deadline(stall_ms)),
            None => self.head_began.map(|began| began.after(head_ms)),
        }
    }

    /// Memory held, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.input.capacity() + self.body.as_ref().map_or(0, |body| body.decoder.capacity())
    }

    fn next_head(&mut self, now: Millis, value_bytes_max: usize) -> Result<Option<Event>, Problem> {
        let Some(range) = self.scanner.scan(self.input.as_slice())? else {
            if self.has_partial_head() {
                self.head_began.get_or_insert(now);
            }
            return Ok(None);
        };
        let end = range.end;
        self.scanner = HeadScanner::default();
        self.head_began = None;
        self.had_head = true;
        let mut room = [const { MaybeUninit::uninit() }; REQUEST_HEADERS_MAX];
        let head = RequestHead::parse(&self.input.as_slice()[range], &mut room)?;
        let is_head = head.method == "HEAD";
        let framing = match Framing::of(&head) {
            Ok(framing) => framing,
            Err(problem) => return Ok(Some(self.refuse_for_good(&problem, is_head))),
        };
        let begun = begin(now, &head, framing, value_bytes_max);
        self.input.consume(end);
        match begun {
            Ok(incoming) if incoming.decoder.is_complete() => Ok(Some(self.finish(incoming))),
            Ok(incoming) => {
                self.body = Some(incoming);
                Ok((framing.expectation == Expectation::Continue).then_some(Event::ContinueWanted))
            }
            Err(problem) => Ok(Some(self.refuse(now, &problem, framing, is_head))),
        }
    }

    /// Answers a request without its body. A short body is read and dropped to keep the connection; otherwise the
    /// connection ends. It also ends when the client waits for leave to send the body: whether the body follows
    /// is then unknown (RFC 9110, section 10.1.1).
    fn refuse(&mut self, now: Millis, problem: &Problem, framing: Framing, is_head: bool) -> Event {
        let mut persistence = framing.persistence;
        if !framing.length.is_empty() && persistence != Persistence::Close {
            let waits = framing.expectation != Expectation::None;
            match BodyDecoder::new(framing.length, DRAIN_BYTES_MAX, false) {
                Ok(decoder) if !waits && framing.length != BodyLength::Chunked => {
                    let pace = Pace::new(now);
                    let goal = Goal::Nothing;
                    self.body = Some(Incoming { goal, persistence, is_head, decoder, pace });
                }
                _ => persistence = Persistence::Close,
            }
        }
        if persistence == Persistence::Close {
            self.end();
        }
        Event::Answer { response: problem.to_response(), persistence, is_head }
    }

    fn read_body(&mut self, now: Millis) -> Result<Option<Event>, Problem> {
        let body = self.body.as_mut().expect("a body is being read");
        let used = body.decode(now, self.input.as_slice())?;
        self.input.consume(used);
        if !body.decoder.is_complete() {
            return Ok(None);
        }
        let body = self.body.take().expect("it was there");
        Ok(Some(self.finish(body)))
    }

    fn finish(&mut self, incoming: Incoming) -> Event {
        let Incoming { goal, persistence, is_head, decoder, .. } = incoming;
        if persistence == Persistence::Close {
            self.end();
        }
        match goal {
            Goal::Call(action) => Event::Call { action, persistence, is_head },
            Goal::Body(plan, value_bytes_max) => {
                match plan.into_action(decoder.into_bytes(), value_bytes_max) {
                    Ok(action) => Event::Call { action, persistence, is_head },
                    Err(problem) => Event::Answer { response: problem.to_response(), persistence, is_head },
                }
            }
            Goal::Answer(response) => Event::Answer { response, persistence, is_head },
            Goal::Nothing => Event::Nothing,
        }
    }

    fn end_of_input(&mut self) -> Event {
        if self.has_body() || self.has_partial_head() {
            return self.fail(&malformed("the connection ended before the request did"));
        }
        self.end();
        Event::Nothing
    }
}

/// Decides what to do with a request whose head was read.
fn begin(
    now: Millis,
    head: &RequestHead<'_, '_>,
    framing: Framing,
    value_bytes_max: usize,
) -> Result<Incoming, Problem> {
    if framing.expectation == Expectation::Unknown {
        let detail = "the only expectation this server knows is 100-continue";
        return Err(Problem::new(Status::ExpectationFailed, "unknown-expectation", detail));
    }
    let (goal, bytes_max) = match route(head, framing.length)? {
        Plan::Call(action) => (Goal::Call(action), value_bytes_max),
        Plan::Body(plan) => {
            let bytes_max = plan.bytes_max(value_bytes_max);
            (Goal::Body(plan, value_bytes_max), bytes_max)
        }
        Plan::Answer(response) => (Goal::Answer(response), value_bytes_max),
    };
    let keeps = matches!(goal, Goal::Body(..));
    let decoder = BodyDecoder::new(framing.length, bytes_max, keeps)?;
    let is_head = head.method == "HEAD";
    Ok(Incoming { goal, persistence: framing.persistence, is_head, decoder, pace: Pace::new(now) })
}
