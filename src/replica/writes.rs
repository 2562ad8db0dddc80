//! Writes of this node's clients that wait for their entry to be applied.
//!
//! Every write gets the next number of this process and keeps it. The waiting ones are offered to the leader in the
//! order of their numbers, and all of them again whenever the leader may have lost them: the state machine sees to it
//! that none runs twice. Because it never runs a write after a later one of the same node, applying number 7 also
//! decides every waiting number below it: those can never take effect.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kv::command::Write as Asked;
use crate::kv::outcome::Applied;
use crate::kv::payload::{Payload, is_same_write};
use crate::kv::session::WriteId;
use crate::limits::{FORWARD_BYTES_MAX, WRITES_IN_FLIGHT_BYTES_MAX, WRITES_IN_FLIGHT_MAX};
use crate::raft::types::{Incarnation, NodeId};
use crate::replica::io::{NotApplied, Outcome, Ticket};
use crate::util::mutation::mutant;
use crate::util::time::{LogicalTime, Millis};

/// The waiting writes of one process.
#[derive(Debug)]
pub(crate) struct Writes {
    origin: NodeId,
    incarnation: Incarnation,
    /// The number given last.
    last_seq: u64,
    /// Every waiting write up to this number was given to the current leader, over the current link.
    offered_seq: u64,
    waiting: BTreeMap<u64, Write>,
    by_deadline: BTreeSet<(Millis, u64)>,
    by_ticket: BTreeMap<Ticket, u64>,
    /// Writes with an idempotency key whose clients wait for the answer.
    by_key: BTreeMap<Arc<str>, u64>,
    /// Payload bytes of `waiting`.
    bytes: usize,
}

#[derive(Debug)]
struct Write {
    /// `None`: the client went away.
    ticket: Option<Ticket>,
    deadline: Millis,
    idempotency_key: Option<Arc<str>>,
    payload: Vec<u8>,
    /// It may be in some log. Until then it is certain that nobody but this node has seen it.
    handed_out: bool,
}

impl Writes {
    pub(crate) fn new(origin: NodeId, incarnation: Incarnation, first_seq: u64) -> Writes {
        Writes {
            origin,
            incarnation,
            last_seq: first_seq,
            offered_seq: first_seq,
            waiting: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
            by_ticket: BTreeMap::new(),
            by_key: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes a write in, or refuses it when too much is waiting. A single one always finds room.
    ///
    /// Of two writes with the same idempotency key, the second one would wait for the first one's answer. So it is
    /// refused while somebody else waits for that. When nobody does any more, it goes into the log behind the first one.
    pub(crate) fn add(&mut self, ticket: Ticket, write: Asked, deadline: Millis) -> Result<(), NotApplied> {
        let seq = self.last_seq + 1;
        let id = WriteId { origin: self.origin, incarnation: self.incarnation, seq };
        let idempotency_key: Option<Arc<str>> = write.idempotency_key.as_deref().map(Arc::from);
        if idempotency_key.as_ref().is_some_and(|key| self.by_key.contains_key(key)) {
            return Err(NotApplied::InFlight);
        }
        // First without the cost of encoding: refusing has to be cheap.
        let bytes_at_least = self.bytes + write.command.value_len();
        if self.waiting.len() >= WRITES_IN_FLIGHT_MAX || bytes_at_least > WRITES_IN_FLIGHT_BYTES_MAX {
            return Err(NotApplied::Overloaded);
        }
        let payload = Payload { id, time: LogicalTime::default(), write }.encode();
        if self.bytes + payload.len() > WRITES_IN_FLIGHT_BYTES_MAX {
            return Err(NotApplied::Overloaded);
        }
        self.by_ticket.insert(ticket, seq);
        self.last_seq = seq;
        self.bytes += payload.len();
        self.by_deadline.insert((deadline, seq));
        if let Some(key) = &idempotency_key {
            self.by_key.insert(key.clone(), seq);
        }
        let write = Write { ticket: Some(ticket), deadline, idempotency_key, payload, handed_out: false };
        self.waiting.insert(seq, write);
        Ok(())
    }

    /// Says whose write it is, if this process has numbered it.
    pub(crate) fn own_seq(&self, id: WriteId) -> Option<u64> {
        (id.origin == self.origin && id.incarnation == self.incarnation && id.seq > 0).then_some(id.seq)
    }

    /// The name of what this node does as the leader, and nobody waits for.
    pub(crate) fn id_of_leader(&self) -> WriteId {
        WriteId { origin: self.origin, incarnation: self.incarnation, seq: 0 }
    }

    /// The leader, or the link to it, is another one, so any waiting write may have been lost: all are to be offered
    /// again.
    pub(crate) fn offer_again(&mut self) {
        self.offered_seq = 0;
        if mutant("handed-out-forgotten") {
            self.waiting.values_mut().for_each(|write| write.handed_out = false);
        }
    }

    /// The next write to offer. One whose time is up is passed over: it ends in this turn, and must not be sent
    /// after its client was told that it never was.
    fn next_to_offer(&self, now: Millis) -> Option<u64> {
        let mut rest = self.waiting.range(self.offered_seq + 1..);
        rest.find(|(_, write)| write.deadline > now).map(|(seq, _)| *seq)
    }

    /// The payload to propose next on this node.
    pub(crate) fn peek_offer(&mut self, now: Millis) -> Option<&mut [u8]> {
        let seq = self.next_to_offer(now)?;
        self.waiting.get_mut(&seq).map(|write| write.payload.as_mut_slice())
    }

    /// The payload that [`Writes::peek_offer`] gave is in this node's log.
    pub(crate) fn confirm_offer(&mut self, now: Millis) {
        let seq = self.next_to_offer(now).expect("a write was offered");
        self.mark_offered(seq);
    }

    /// The payload that [`Writes::peek_offer`] gave finds no space on this node's disk. One that nobody else has seen
    /// ends here: its ticket is returned. Another one may be in some log, so its end is awaited.
    pub(crate) fn refuse_offer(&mut self, now: Millis) -> Option<Ticket> {
        let seq = self.next_to_offer(now).expect("a write was offered");
        self.offered_seq = seq;
        if self.waiting[&seq].handed_out { None } else { self.remove(seq) }
    }

    fn mark_offered(&mut self, seq: u64) {
        self.offered_seq = seq;
        self.waiting.get_mut(&seq).expect("only waiting writes are offered").handed_out = true;
    }

    /// The payloads of the next Forward message, empty when there is nothing to offer. At most [`FORWARD_BYTES_MAX`]
    /// bytes, but at least one payload.
    pub(crate) fn take_forward(&mut self, now: Millis) -> Vec<Vec<u8>> {
        let (mut payloads, mut bytes) = (Vec::new(), 0);
        while let Some(seq) = self.next_to_offer(now) {
            let payload = &self.waiting[&seq].payload;
            if !payloads.is_empty() && bytes + payload.len() > FORWARD_BYTES_MAX {
                break;
            }
            bytes += payload.len();
            payloads.push(payload.clone());
            self.mark_offered(seq);
        }
        payloads
    }

    /// The entry with this number and payload was applied. `outcome` is what came of it, `None` when the state machine
    /// skipped it. Answers it, and every waiting write before it: those were overtaken for good.
    ///
    /// A node whose disk was lost, or replaced by an older copy, counts its starts and its writes from a number that it
    /// has used before. Then the log holds other writes with the numbers of waiting ones. The payload tells them apart;
    /// the waiting one is overtaken by its namesake.
    pub(crate) fn on_applied(
        &mut self,
        seq: u64,
        payload: &[u8],
        mut outcome: Option<Outcome>,
        mut answer: impl FnMut(Ticket, Outcome),
    ) {
        while let Some((&oldest, write)) = self.waiting.range(..=seq).next() {
            let is_applied = oldest == seq && is_same_write(&write.payload, payload);
            let ticket = self.remove(oldest);
            let overtaken = Outcome::NotApplied(NotApplied::Superseded);
            // It may hold megabytes: it is not copied.
            let outcome = outcome.take_if(|_| is_applied).unwrap_or(overtaken);
            if let Some(ticket) = ticket {
                answer(ticket, outcome);
            }
        }
    }

    /// The state was replaced by one with this newest write of this node in it. What became of the waiting writes up to
    /// that one cannot be learned any more: they took effect, or never will.
    pub(crate) fn on_restored(
        &mut self,
        newest: (Incarnation, u64),
        mut answer: impl FnMut(Ticket, Outcome),
    ) {
        let covered = match newest.0.cmp(&self.incarnation) {
            Ordering::Less => return,
            Ordering::Equal => newest.1,
            Ordering::Greater => u64::MAX,
        };
        while let Some((&oldest, write)) = self.waiting.range(..=covered).next() {
            let outcome = match write.handed_out {
                true if mutant("restored-writes-said-to-be-written") => Outcome::Applied(Applied::Written),
                true => Outcome::OutcomeUnknown,
                false => Outcome::NotApplied(NotApplied::Superseded),
            };
            if let Some(ticket) = self.remove(oldest) {
                answer(ticket, outcome);
            }
        }
    }

    /// Whether the state knows a write of this node that this process has not numbered yet: one of another life, whose
    /// numbers went further. Until this one has an incarnation above it, none of its writes can take effect.
    pub(crate) fn is_outnumbered_by(&self, newest: (Incarnation, u64)) -> bool {
        newest > (self.incarnation, self.last_seq)
    }

    /// Goes on in a new incarnation. The waiting writes have numbers that the state machine will not take any more.
    pub(crate) fn start_over(&mut self, incarnation: Incarnation, mut answer: impl FnMut(Ticket, Outcome)) {
        assert!(incarnation > self.incarnation, "incarnations only ever rise");
        while let Some((&oldest, _)) = self.waiting.first_key_value() {
            if let Some(ticket) = self.remove(oldest) {
                answer(ticket, Outcome::NotApplied(NotApplied::Superseded));
            }
        }
        *self = Writes::new(self.origin, incarnation, self.last_seq);
    }

    /// Ends the writes whose time is up.
    pub(crate) fn expire(&mut self, now: Millis, mut answer: impl FnMut(Ticket, Outcome)) {
        while let Some(&(deadline, seq)) = self.by_deadline.first()
            && deadline <= now
        {
            let handed_out = self.waiting[&seq].handed_out && !mutant("unknown-said-to-be-not-applied");
            let ticket = self.remove(seq);
            let never_sent = Outcome::NotApplied(NotApplied::NoLeader);
            if let Some(ticket) = ticket {
                answer(ticket, if handed_out { Outcome::OutcomeUnknown } else { never_sent });
            }
        }
    }

    /// The client went away. A write that nobody has seen is dropped: the gap in the numbers does no harm, since
    /// only their order counts. One that may be in a log goes on being offered, so that it ends like any other.
    /// Says whether the ticket was a write's.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> bool {
        let Some(seq) = self.by_ticket.remove(&ticket) else { return false };
        let write = self.waiting.get_mut(&seq).expect("every ticket has its write");
        write.ticket = None;
        if let Some(key) = &write.idempotency_key
            && !mutant("key-outlives-client")
        {
            self.by_key.remove(key);
        }
        if !write.handed_out {
            self.remove(seq);
        }
        true
    }

    fn remove(&mut self, seq: u64) -> Option<Ticket> {
        let write = self.waiting.remove(&seq).expect("only waiting writes end");
        self.by_deadline.remove(&(write.deadline, seq));
        self.bytes -= write.payload.len();
        if let Some(ticket) = write.ticket {
            self.by_ticket.remove(&ticket);
            if let Some(key) = &write.idempotency_key {
                self.by_key.remove(key);
            }
        }
        write.ticket
    }

    pub(crate) fn next_deadline(&self) -> Millis {
        self.by_deadline.first().map_or(Millis::NEVER, |(deadline, _)| *deadline)
    }

    /// Whether a client waits for an answer.
    pub(crate) fn has_clients(&self) -> bool {
        !self.by_ticket.is_empty()
    }

    /// How many writes wait, and their payload bytes.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }

    pub(crate) fn has_ticket(&self, ticket: Ticket) -> bool {
        self.by_ticket.contains_key(&ticket)
    }
}
