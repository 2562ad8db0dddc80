//! How reads that may be answered are: so many in a turn, and long counts in several, that no turn is long.

use crate::limits::READ_BYTES_PER_TURN_MAX;
use crate::raft::storage::Storage;
use crate::replica::io::{Outcome, Ticket};
use crate::replica::reads::Asked;
use crate::replica::replica::Replica;
use crate::util::mutation::mutant;

/// What an answer is reckoned as besides what is in it, in bytes.
const ANSWER_OVERHEAD_BYTES: usize = 256;

impl<S: Storage> Replica<S> {
    /// Answers reads up to the turn's budget. The rest follows in the next turns.
    pub(super) fn answer_ready_reads(&mut self) {
        // What a removal has left over of the keys so far is shown to nobody.
        if !self.store.is_settled() && !mutant("reads-amid-removal") {
            return;
        }
        let mut bytes = 0;
        while bytes < READ_BYTES_PER_TURN_MAX {
            let Some((ticket, asked)) = self.reads.take_ready(self.store.applied_index()) else { break };
            bytes += self.answer_read(ticket, asked);
        }
        self.go_on_counting();
    }

    /// Says about how many bytes the answer has.
    fn answer_read(&mut self, ticket: Ticket, asked: Asked) -> usize {
        let (outcome, bytes) = match asked {
            Asked::Turn => (Outcome::Reached, 0),
            Asked::Value(key) => {
                let item = self.store.get(&key).cloned();
                let bytes = item.as_ref().map_or(0, |item| item.value.len());
                (Outcome::Value(item), bytes)
            }
            Asked::Page { range, limit, with_values } => {
                let page = self.store.page(&range, limit, with_values);
                let bytes = page.bytes();
                (Outcome::Page(page), bytes)
            }
            Asked::Count(_) => unreachable!("it is counted first"),
        };
        self.answer(ticket, outcome);
        bytes + ANSWER_OVERHEAD_BYTES
    }

    /// Counts keys for those who asked how many there are, one after the other.
    fn go_on_counting(&mut self) {
        let mut left = self.keys_per_turn;
        while left > 0 {
            let Some((number, range)) = self.reads.counting() else { return self.store.stop_counting() };
            let Some(count) = self.store.go_on_counting(number, range, &mut left) else { return };
            let ticket = self.reads.end_counting();
            self.answer(ticket, Outcome::Count(count));
        }
    }
}
