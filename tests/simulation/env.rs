//! What every part of the simulation shares: virtual time, the queue of events, the network, the checks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use crate::checks::Checks;
use crate::marks::{Mark, Marks};
use crate::network::Network;
use crate::plan::Plan;

/// Something that happens at a point in time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Event {
    /// Bytes arrive at the end of a pipe.
    Deliver { pipe: usize },
    /// A pipe has been silent for too long, if it stalled at `since`.
    Silence { pipe: usize, since: u64 },
    /// A node's process goes on.
    Turn { node: usize },
    /// A user looks at the clock.
    User { user: usize },
    /// A node's host starts its process.
    Start { node: usize },
    /// A fault of a kind is due.
    Fault { class: u8 },
    /// The others lose the leader whose answers are held back.
    Depose,
    /// A partition ends.
    Heal { number: u64 },
}

/// See the module's text.
pub(crate) struct Env {
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    pub(crate) events: u64,
    hash: u64,
    /// Until then all users are in a hurry.
    pub(crate) rush_until: u64,
    pub(crate) is_tracing: bool,
    pub(crate) plan: Plan,
    pub(crate) network: Network,
    pub(crate) checks: Checks,
    pub(crate) marks: Marks,
}

impl Env {
    pub(crate) fn new(plan: Plan, is_tracing: bool) -> Env {
        Env {
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            events: 0,
            hash: 0,
            rush_until: 0,
            is_tracing,
            network: Network::new(&plan),
            checks: Checks::new(&plan),
            marks: Marks::default(),
            plan,
        }
    }

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at.max(self.now), self.sequence, event)));
    }

    /// Takes what the network wants to happen later into the queue.
    pub(crate) fn schedule_network(&mut self) {
        while let Some((at, event)) = self.network.scheduled.pop() {
            self.schedule(at, event);
        }
    }

    /// The next event; time moves to it.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let Reverse((at, sequence, event)) = self.queue.pop()?;
        self.now = at;
        self.events += 1;
        self.network.now = at;
        self.checks.record.lives.now = at;
        self.note(at ^ sequence.rotate_left(32));
        Some(event)
    }

    /// Makes a number part of the trace's hash.
    pub(crate) fn note(&mut self, number: u64) {
        self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Equal for runs that did the same.
    pub(crate) fn trace_hash(&self) -> u64 {
        self.hash ^ self.network.hash
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        self.marks.hit(mark);
    }

    /// A line of the trace, if anybody wants it.
    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.is_tracing {
            println!("{:>11.3} {}", self.now as f64 / 1000.0, line());
        }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} us, {} events", self.now, self.events)
    }
}
