//! Clients that wait until leadership was handed over.

use crate::net::api::HandedOver;
use crate::net::client::CallId;
use crate::net::slab::Key;
use crate::raft::types::{NodeId, Term};
use crate::replica::io::ReplicaStatus;
use crate::util::time::Millis;

/// One of them.
#[derive(Debug)]
pub(super) struct WaitingHandOver {
    pub(super) client: Key,
    pub(super) call: CallId,
    /// Who is to take over.
    pub(super) to: NodeId,
    /// The term that is to end.
    pub(super) term: Term,
    pub(super) deadline: Millis,
}

/// All of them: at most one per request that waits. Most of the time there are none.
#[derive(Debug, Default)]
pub(super) struct HandOvers {
    waiting: Vec<WaitingHandOver>,
}

impl HandOvers {
    /// Waits for an end.
    pub(super) fn push(&mut self, waiting: WaitingHandOver) {
        self.waiting.push(waiting);
    }

    /// Forgets those whose clients went away.
    pub(super) fn forget(&mut self, is_gone: impl Fn(Key) -> bool) {
        self.waiting.retain(|waiting| !is_gone(waiting.client));
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the first one has waited long enough.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.waiting.iter().map(|waiting| waiting.deadline).min()
    }

    /// Those whose wait is over. `is_handing_over`: whether this node, as the leader, still tries.
    pub(super) fn take_ended(
        &mut self,
        now: Millis,
        status: &ReplicaStatus,
        is_handing_over: bool,
    ) -> Vec<(Key, CallId, HandedOver)> {
        let mut ended = Vec::new();
        self.waiting.retain(|waiting| {
            let end = end_of(waiting, now, status, is_handing_over);
            let Some(end) = end else { return true };
            ended.push((waiting.client, waiting.call, end));
            false
        });
        ended
    }
}

/// A later leader than the one asked is an end, whoever it is: it may be another one when the successor lost.
fn end_of(
    waiting: &WaitingHandOver,
    now: Millis,
    status: &ReplicaStatus,
    is_handing_over: bool,
) -> Option<HandedOver> {
    match status.leader {
        Some(leader) if leader == waiting.to => Some(HandedOver::Done(leader)),
        Some(leader) if leader == status.id && status.term == waiting.term && is_handing_over => {
            (waiting.deadline <= now).then_some(HandedOver::TooSlow)
        }
        Some(_) => Some(HandedOver::GivenUp(waiting.to)),
        None => (waiting.deadline <= now).then_some(HandedOver::TooSlow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::slab::Slab;
    use crate::raft::types::{EntryId, Index};
    use crate::replica::io::{RoleName, Standing};

    fn status(term: u64, leader: Option<u64>) -> ReplicaStatus {
        ReplicaStatus {
            id: NodeId(1),
            role: if leader == Some(1) { RoleName::Leader } else { RoleName::Follower },
            term: Term(term),
            leader: leader.map(NodeId),
            commit_index: Index(0),
            applied_index: Index(0),
            last_index: Index(0),
            log_start: EntryId::default(),
            snapshot: None,
            snapshot_draft: None,
            standing: Standing::Voter,
            is_full: false,
            leader_is_full: false,
            keys: 0,
            peers: Vec::new(),
        }
    }

    #[test]
    fn who_went_away_is_forgotten() {
        let mut clients = Slab::default();
        let (to, term, deadline) = (NodeId(2), Term(5), Millis(100));
        let mut hand_overs = HandOvers::default();
        for call in 0..2 {
            let client = clients.insert(());
            hand_overs.push(WaitingHandOver { client, call: CallId(call), to, term, deadline });
        }
        let gone = clients.keys()[0];
        clients.remove(gone);
        hand_overs.forget(|client| clients.get(client).is_none());
        let ended = hand_overs.take_ended(Millis(100), &status(6, None), false);
        assert_eq!(ended, [(clients.keys()[0], CallId(1), HandedOver::TooSlow)]);
    }

    #[test]
    fn every_wait_has_an_end() {
        let client = Slab::default().insert(());
        let (to, term, deadline) = (NodeId(2), Term(5), Millis(100));
        let rows = [
            (99, status(5, Some(1)), true, None),
            (100, status(5, Some(1)), true, Some(HandedOver::TooSlow)),
            (99, status(5, Some(1)), false, Some(HandedOver::GivenUp(to))),
            (99, status(6, None), false, None),
            (100, status(6, None), false, Some(HandedOver::TooSlow)),
            (99, status(6, Some(2)), false, Some(HandedOver::Done(to))),
            (99, status(6, Some(3)), false, Some(HandedOver::GivenUp(to))),
            // The office came back, and goes to somebody else: that is another hand-over.
            (99, status(7, Some(1)), true, Some(HandedOver::GivenUp(to))),
        ];
        for (now, status, is_handing_over, expected) in rows {
            let mut hand_overs = HandOvers::default();
            hand_overs.push(WaitingHandOver { client, call: CallId(7), to, term, deadline });
            assert_eq!(hand_overs.next_deadline(), Some(deadline));
            let ended = hand_overs.take_ended(Millis(now), &status, is_handing_over);
            assert_eq!(hand_overs.is_empty(), expected.is_some());
            let expected: Vec<_> = expected.into_iter().map(|end| (client, CallId(7), end)).collect();
            assert_eq!(ended, expected, "{now} {status:?}");
        }
    }
}
