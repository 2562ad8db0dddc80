//! What a leader orders of its own accord: the end of keys whose life is over, and now and then the time.
//!
//! Nobody waits for these entries. They are proposed once, on the leader, and never offered again: when its leadership
//! ends, the next leader looks for itself. An entry of a deposed leader that is committed all the same names the writes
//! that it ends, so it ends nothing that was written again since.

use crate::kv::command::Command;
use crate::kv::payload::Payload;
use crate::limits::{EXPIRIES_IN_FLIGHT_MAX, EXPIRIES_MAX, TIME_CHECKPOINT_MS, UPKEEP_PAUSE_MS};
use crate::raft::message::{Envelope, Message};
use crate::raft::storage::{Storage, StorageError};
use crate::raft::types::Index;
use crate::replica::proposals::{Proposal, propose};
use crate::replica::replica::Replica;
use crate::util::mutation::mutant;
use crate::util::time::{LogicalTime, Millis};

/// What a leader keeps about its own entries. Set up anew for each leadership.
#[derive(Default, Debug)]
pub(crate) struct Upkeep {
    /// The last of the entries that end keys, from its proposal until it is applied. What comes due meanwhile waits for
    /// that: until then the state does not show which keys are taken care of.
    expiring: Option<Index>,
    /// The newest time in the log.
    written: LogicalTime,
    /// Before this there is no use in trying: the disk is full, or too much waits to be committed.
    rest_until: Millis,
}

impl Upkeep {
    /// An entry with this time was proposed.
    pub(super) fn on_proposed(&mut self, time: LogicalTime) {
        self.written = self.written.max(time);
    }
}

impl<S: Storage> Replica<S> {
    /// What the logical time is on this node: on the leader what it writes into the log, elsewhere a little less. It may
    /// go back a little: each message of the leader sets it. Meant for telling how much of a key's life is left.
    #[must_use]
    pub fn logical_now(&self, now: Millis) -> LogicalTime {
        self.clock.read(now).max(self.store.logical_time())
    }

    /// The logical time, on a leader that has taken office: one that may write it down and tell the others.
    pub(super) fn office_time(&self, now: Millis) -> Option<LogicalTime> {
        let holds_office = self.raft.is_leader() && self.clock.term() == self.raft.term();
        holds_office.then(|| self.clock.read(now))
    }

    /// A leader takes office once the entry that opened its term is applied.
    pub(super) fn maybe_take_office(&mut self, now: Millis) {
        let term = self.raft.term();
        let applied_term = self.raft.storage().term(self.store.applied_index());
        if self.raft.is_leader() && applied_term == Some(term) && self.clock.term() < term {
            let written = self.store.logical_time();
            self.clock.take_office(term, written, now);
            self.upkeep = Upkeep { written, ..Upkeep::default() };
        }
    }

    /// Writes the time into the heartbeats among these messages.
    pub(super) fn time_heartbeats(&self, now: Millis, messages: &mut [Envelope]) {
        let mut known = self.office_time(now);
        if mutant("time-told-before-office") {
            known = Some(self.clock.read(now));
        }
        let Some(known) = known else { return };
        for envelope in messages {
            if let Message::Heartbeat { time, .. } = &mut envelope.message {
                *time = known;
            }
        }
    }

    /// Proposes what is due. Called after the clients' writes of the turn: a renewal that has come is in time.
    pub(super) fn propose_upkeep(&mut self, now: Millis) -> Result<(), StorageError> {
        if self.upkeep_deadline() > now {
            return Ok(());
        }
        let Some(time) = self.office_time(now) else { return Ok(()) };
        if self.expiry_deadline() > now {
            self.propose_command(now, time, Command::Tick)?;
            return Ok(());
        }
        let over = LogicalTime(time.0.saturating_sub(rounding_ms()));
        // Several at once: however slow the disk is, keys must not come due faster than they are removed.
        let keys = self.store.expired(over, EXPIRIES_MAX * EXPIRIES_IN_FLIGHT_MAX);
        for keys in keys.chunks(EXPIRIES_MAX) {
            let Some(index) = self.propose_command(now, time, Command::Expire { keys: keys.to_vec() })?
            else {
                break;
            };
            self.upkeep.expiring = Some(index);
        }
        Ok(())
    }

    /// Proposes a command of the leader itself. `None`: it has to wait.
    fn propose_command(
        &mut self,
        now: Millis,
        time: LogicalTime,
        command: Command,
    ) -> Result<Option<Index>, StorageError> {
        let mut payload = Payload { id: self.writes.id_of_leader(), time, write: command.into() }.encode();
        if self.leadership.has_room(payload.len())
            && let Proposal::Appended(index) = propose(&mut self.raft, &self.store, &mut payload, time)?
        {
            self.leadership.on_proposed(index, payload.len());
            self.upkeep.on_proposed(time);
            return Ok(Some(index));
        }
        self.upkeep.rest_until = now.after(UPKEEP_PAUSE_MS);
        Ok(None)
    }

    /// When [`Replica::propose_upkeep`] has something to do. Never on a node that is no leader.
    pub(super) fn upkeep_deadline(&self) -> Millis {
        if !self.raft.is_leader() || self.clock.term() != self.raft.term() || self.raft.is_transferring() {
            return Millis::NEVER;
        }
        self.expiry_deadline().min(self.checkpoint_deadline()).max(self.upkeep.rest_until)
    }

    /// When the next key's life is over for certain.
    fn expiry_deadline(&self) -> Millis {
        let is_waiting = self.upkeep.expiring.is_some_and(|index| index > self.store.applied_index());
        match self.store.next_expiry() {
            Some(expiry) if !is_waiting || mutant("expiry-proposed-again") => {
                self.clock.when(expiry.after(rounding_ms()))
            }
            _ => Millis::NEVER,
        }
    }

    /// When the log must be told the time, so that a cluster that is stopped knows how old its keys are.
    fn checkpoint_deadline(&self) -> Millis {
        let has_lives = self.store.next_expiry().is_some() || mutant("time-written-for-nothing");
        if has_lives && !mutant("time-not-written") {
            self.clock.when(self.upkeep.written.after(TIME_CHECKPOINT_MS))
        } else {
            Millis::NEVER
        }
    }
}

/// Times are rounded down to milliseconds, so a life may have begun, and end, almost one later than it says.
fn rounding_ms() -> u64 {
    if mutant("life-rounded-down") { 0 } else { 1 }
}
