//! Linearizable reads of this node's clients that wait (thesis, section 6.4).
//!
//! ```text
//!  new ──ask──> asked under a context ──confirm(index)──> waits for applied >= index ──> answered
//!   ^                    │
//!   └──── ask again ─────┘   leader, term or link changed, or no answer came
//! ```
//!
//! All reads that came since the last question share the next one. Reads are numbered in the order they came, so a
//! question covers a range of numbers. A context is used once, ever: an answer to an old question says nothing about
//! reads that came after it was asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::limits::{READ_CONTEXTS_ASKED_MAX, READS_IN_FLIGHT_MAX};
use crate::raft::message::ReadContext;
use crate::raft::types::{Incarnation, Index, Standing};
use crate::replica::io::{KeyRange, Listing, NotApplied, Outcome, Ticket};
use crate::util::mutation::mutant;
use crate::util::time::Millis;

/// Contexts of one incarnation: enough for 10,000 a second over 50 years.
const CONTEXTS_PER_INCARNATION_BITS: u32 = 44;

/// The context before the first one of a process. A question of an earlier life may still be on its way back; the
/// incarnation in the upper bits keeps its context from meaning anything here.
///
/// A node without a memory counts its lives from 1 again. Its contexts begin at a place of the range for such nodes that
/// `seed` chooses.
pub(crate) fn before_first_context(standing: Standing, incarnation: Incarnation, seed: u64) -> ReadContext {
    match standing {
        Standing::Virgin => ReadContext(1 << 63 | seed >> 2),
        Standing::Voter | Standing::Recovering => {
            ReadContext(incarnation.0 << CONTEXTS_PER_INCARNATION_BITS & (u64::MAX >> 1))
        }
    }
}

/// What a read is to be answered with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// Just that it is its turn: a barrier.
    Turn,
    /// A key's value.
    Value(String),
    /// A part of a range.
    Page {
        /// The range.
        range: KeyRange,
        /// Most keys.
        limit: usize,
        /// Whether their values are wanted.
        with_values: bool,
    },
    /// How many keys a range has.
    Count(KeyRange),
}

impl From<(KeyRange, Listing)> for Asked {
    fn from((range, listing): (KeyRange, Listing)) -> Asked {
        match listing {
            Listing::Count => Asked::Count(range),
            Listing::Page { limit, with_values } => Asked::Page { range, limit, with_values },
        }
    }
}

/// The waiting reads of one process.
#[derive(Debug)]
pub(crate) struct Reads {
    last_context: ReadContext,
    last_number: u64,
    /// Every unconfirmed read up to this number is in one of `asked`.
    asked_number: u64,
    /// Questions without an answer, oldest first.
    asked: VecDeque<Question>,
    waiting: BTreeMap<u64, Read>,
    by_index: BTreeSet<(Index, u64)>,
    by_deadline: BTreeSet<(Millis, u64)>,
    by_ticket: BTreeMap<Ticket, u64>,
    /// Those whose keys may be counted: the first one's are.
    counting: VecDeque<u64>,
    /// A question older than this is asked again, in milliseconds.
    retry_after: u64,
}

/// One context with the reads `first..=last` (those of them that still wait).
#[derive(Debug)]
struct Question {
    context: ReadContext,
    first: u64,
    last: u64,
    asked_at: Millis,
}

#[derive(Debug)]
struct Read {
    ticket: Ticket,
    asked: Asked,
    deadline: Millis,
    /// May be answered once this is applied.
    confirmed: Option<Index>,
}

impl Reads {
    /// `retry_after` is in milliseconds. It only matters when an answer is lost without any sign of it.
    pub(crate) fn new(before_first: ReadContext, retry_after: u64) -> Reads {
        Reads {
            last_context: before_first,
            last_number: 0,
            asked_number: 0,
            asked: VecDeque::new(),
            waiting: BTreeMap::new(),
            by_index: BTreeSet::new(),
            by_deadline: BTreeSet::new(),
            by_ticket: BTreeMap::new(),
            counting: VecDeque::new(),
            retry_after,
        }
    }

    /// Takes a read in, or refuses it when too much is waiting.
    pub(crate) fn add(&mut self, ticket: Ticket, asked: Asked, deadline: Millis) -> Result<(), NotApplied> {
        if self.waiting.len() >= READS_IN_FLIGHT_MAX {
            return Err(NotApplied::Overloaded);
        }
        self.insert(ticket, asked, deadline);
        Ok(())
    }

    fn insert(&mut self, ticket: Ticket, asked: Asked, deadline: Millis) {
        self.last_number += 1;
        self.by_ticket.insert(ticket, self.last_number);
        self.by_deadline.insert((deadline, self.last_number));
        self.waiting.insert(self.last_number, Read { ticket, asked, deadline, confirmed: None });
    }

    /// Takes a read in for which any state will do.
    pub(crate) fn add_confirmed(
        &mut self,
        ticket: Ticket,
        asked: Asked,
        deadline: Millis,
    ) -> Result<(), NotApplied> {
        // Those that wait for a leader do not stand in the way of these.
        if self.waiting.len() >= 2 * READS_IN_FLIGHT_MAX {
            return Err(NotApplied::Overloaded);
        }
        self.insert(ticket, asked, deadline);
        let read = self.waiting.get_mut(&self.last_number).expect("just added");
        read.confirmed = Some(Index(0));
        self.by_index.insert((Index(0), self.last_number));
        Ok(())
    }

    /// Asks one question for all reads that are in none, if there are any and few enough questions are open. `ask`
    /// says whether the question could be put.
    pub(crate) fn maybe_ask(&mut self, now: Millis, ask: impl FnOnce(ReadContext) -> bool) {
        if self.asked.len() >= READ_CONTEXTS_ASKED_MAX {
            // A question whose reads have all ended needs no answer.
            let waiting = &self.waiting;
            self.asked.retain(|question| waiting.range(question.first..=question.last).next().is_some());
        }
        let mut rest = self.waiting.range(self.asked_number + 1..);
        let Some((&first, _)) = rest.find(|(_, read)| read.confirmed.is_none()) else {
            self.asked_number = self.last_number;
            return;
        };
        if self.asked.len() >= READ_CONTEXTS_ASKED_MAX {
            return;
        }
        let context = ReadContext(self.last_context.0 + 1);
        self.last_context = context;
        if ask(context) {
            self.asked.push_back(Question { context, first, last: self.last_number, asked_at: now });
            self.asked_number = self.last_number;
        }
    }

    /// Forgets the open questions: their answers may never come, and are not waited for. All unconfirmed reads will
    /// be asked about again.
    pub(crate) fn ask_again(&mut self) {
        self.asked.clear();
        self.asked_number = 0;
    }

    /// Asks again when the oldest question has waited for too long: its answer was lost on a link of the leader's
    /// that this node cannot see break.
    pub(crate) fn maybe_ask_again(&mut self, now: Millis) {
        if self.retry_deadline() <= now {
            self.ask_again();
        }
    }

    /// The leader's answer. Unknown contexts are old ones; they confirm nothing.
    pub(crate) fn confirm(&mut self, context: ReadContext, index: Index) {
        let Some(position) = self.asked.iter().position(|question| question.context == context) else {
            return;
        };
        let question = self.asked.remove(position).expect("just found");
        let last = if mutant("context-confirms-later-reads") { u64::MAX } else { question.last };
        for (number, read) in self.waiting.range_mut(question.first..=last) {
            if read.confirmed.is_none() {
                read.confirmed = Some(index);
                self.by_index.insert((index, *number));
            }
        }
    }

    /// A read that may be answered from a state with everything up to `applied` in it. Counts are not given out but go on,
    /// see [`Reads::counting`].
    pub(crate) fn take_ready(&mut self, applied: Index) -> Option<(Ticket, Asked)> {
        loop {
            let (index, number) = *self.by_index.first()?;
            if index > applied && !mutant("read-before-applied") {
                return None;
            }
            if let Asked::Count(_) = &self.waiting[&number].asked {
                self.by_index.pop_first();
                self.counting.push_back(number);
                continue;
            }
            let read = self.remove(number);
            return Some((read.ticket, read.asked));
        }
    }

    /// Whether there is something to do with a state that has everything up to `applied` in it.
    pub(crate) fn has_ready(&self, applied: Index) -> bool {
        !self.counting.is_empty() || self.by_index.first().is_some_and(|(index, _)| *index <= applied)
    }

    /// The range whose keys are to be counted, and a number that stands for this one count.
    pub(crate) fn counting(&self) -> Option<(u64, &KeyRange)> {
        let number = *self.counting.front()?;
        let Asked::Count(range) = &self.waiting[&number].asked else {
            unreachable!("only counts are counted")
        };
        Some((number, range))
    }

    /// They are counted.
    ///
    /// # Panics
    /// When none are.
    pub(crate) fn end_counting(&mut self) -> Ticket {
        let number = *self.counting.front().expect("a range is being counted");
        self.remove(number).ticket
    }

    /// Ends the reads whose time is up.
    pub(crate) fn expire(&mut self, now: Millis, mut answer: impl FnMut(Ticket, Outcome)) {
        while let Some(&(deadline, number)) = self.by_deadline.first()
            && deadline <= now
        {
            let read = self.remove(number);
            // One that needs nobody's word waits for nothing but its turn.
            let reason = match read.confirmed {
                Some(Index(0)) => NotApplied::Overloaded,
                _ => NotApplied::NoLeader,
            };
            answer(read.ticket, Outcome::NotApplied(reason));
        }
    }

    /// The client went away. Says whether the ticket was a read's.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> bool {
        let Some(&number) = self.by_ticket.get(&ticket) else { return false };
        self.remove(number);
        true
    }

    fn remove(&mut self, number: u64) -> Read {
        let read = self.waiting.remove(&number).expect("only waiting reads end");
        self.by_deadline.remove(&(read.deadline, number));
        self.by_ticket.remove(&read.ticket);
        if let Some(index) = read.confirmed {
            self.by_index.remove(&(index, number));
        }
        if let Asked::Count(_) = &read.asked {
            self.counting.retain(|other| *other != number);
        }
        read
    }

    fn retry_deadline(&self) -> Millis {
        let oldest = self.asked.front().filter(|_| !self.waiting.is_empty());
        oldest.map_or(Millis::NEVER, |question| question.asked_at.after(self.retry_after))
    }

    pub(crate) fn next_deadline(&self) -> Millis {
        let expiry = self.by_deadline.first().map_or(Millis::NEVER, |(deadline, _)| *deadline);
        expiry.min(self.retry_deadline())
    }

    /// How many reads wait.
    pub(crate) fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn has_ticket(&self, ticket: Ticket) -> bool {
        self.by_ticket.contains_key(&ticket)
    }
}
