//! Which process of which disk each peer is: what a greeting says about the life before.

use std::collections::BTreeMap;

use crate::raft::types::{Incarnation, NodeId};

/// How a peer's process relates to the one that greeted before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// It is the same one, or nothing is known of another.
    Same,
    /// A later start on the same disk.
    Restarted,
    /// An earlier start on the same disk: an older copy was put in its place.
    RolledBack,
    /// On another disk: the one before was lost.
    Replaced,
}

/// The last life of each peer that this process met.
#[derive(Default, Debug)]
pub(crate) struct Lives {
    known: BTreeMap<NodeId, (u64, Incarnation)>,
}

impl Lives {
    /// Notes what a peer's greeting says of it.
    pub(crate) fn meet(&mut self, peer: NodeId, disk_id: u64, incarnation: Incarnation) -> Life {
        let Some((known_disk, known)) = self.known.insert(peer, (disk_id, incarnation)) else {
            return Life::Same;
        };
        match incarnation.cmp(&known) {
            _ if known_disk != disk_id => Life::Replaced,
            std::cmp::Ordering::Less => Life::RolledBack,
            std::cmp::Ordering::Equal => Life::Same,
            std::cmp::Ordering::Greater => Life::Restarted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F21, F22
    #[test]
    fn lives_are_told_apart() {
        let mut lives = Lives::default();
        let steps = [
            (7, 3, Life::Same),
            (7, 3, Life::Same),
            (7, 5, Life::Restarted),
            (7, 4, Life::RolledBack),
            (7, 4, Life::Same),
            (7, 5, Life::Restarted),
            (8, 5, Life::Replaced),
            (8, 5, Life::Same),
            (7, 6, Life::Replaced),
        ];
        for (disk_id, incarnation, life) in steps {
            assert_eq!(lives.meet(NodeId(2), disk_id, Incarnation(incarnation)), life);
        }
        assert_eq!(lives.meet(NodeId(3), 7, Incarnation(1)), Life::Same);
    }
}
