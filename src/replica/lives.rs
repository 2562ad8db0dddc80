//! Which process of which disk each peer is: what a greeting says about the life before.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::raft::types::{Life, NodeId};

/// How a peer's process relates to the one that greeted before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sequel {
    /// It is the same one, or nothing is known of another.
    Same,
    /// A later start on the same disk.
    Restarted,
    /// An earlier start on the same disk, or the same start of another process: an older copy was put in its place.
    RolledBack,
    /// On another disk: the one before was lost.
    Replaced,
}

/// The last life of each peer that this process met.
#[derive(Default, Debug)]
pub(crate) struct Lives {
    known: BTreeMap<NodeId, Life>,
}

impl Lives {
    /// Notes what a peer's greeting says of it.
    pub(crate) fn meet(&mut self, peer: NodeId, life: Life) -> Sequel {
        let Some(known) = self.known.insert(peer, life) else { return Sequel::Same };
        match life.incarnation.cmp(&known.incarnation) {
            _ if known.disk_id != life.disk_id => Sequel::Replaced,
            Ordering::Less => Sequel::RolledBack,
            Ordering::Equal if known.process != life.process => Sequel::RolledBack,
            Ordering::Equal => Sequel::Same,
            Ordering::Greater => Sequel::Restarted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::Incarnation;

    /// F21, F22
    #[test]
    fn lives_are_told_apart() {
        let life =
            |disk_id, incarnation, process| Life { disk_id, incarnation: Incarnation(incarnation), process };
        let mut lives = Lives::default();
        let steps = [
            (life(7, 3, 1), Sequel::Same),
            (life(7, 3, 1), Sequel::Same),
            (life(7, 5, 2), Sequel::Restarted),
            (life(7, 4, 3), Sequel::RolledBack),
            (life(7, 4, 3), Sequel::Same),
            (life(7, 4, 4), Sequel::RolledBack),
            (life(7, 4, 4), Sequel::Same),
            (life(7, 5, 5), Sequel::Restarted),
            (life(8, 5, 6), Sequel::Replaced),
            (life(8, 5, 6), Sequel::Same),
            (life(7, 6, 7), Sequel::Replaced),
        ];
        for (life, sequel) in steps {
            assert_eq!(lives.meet(NodeId(2), life), sequel, "{life:?}");
        }
        assert_eq!(lives.meet(NodeId(3), life(7, 1, 1)), Sequel::Same);
    }
}
