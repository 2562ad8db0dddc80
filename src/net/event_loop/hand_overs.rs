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
