//! Majorities: the three questions that Raft asks about a set of voters, as pure functions.

use std::collections::BTreeMap;

use crate::raft::types::NodeId;
use crate::util::mutation::mutant;

/// How an election stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoteResult {
    /// A majority said yes.
    Won,
    /// Enough said no that a majority cannot come together any more.
    Lost,
    /// Neither yet.
    Pending,
}

/// The smallest number of voters that is more than half of `voters`.
#[must_use]
pub fn majority(voters: usize) -> usize {
    if mutant("half-is-a-majority") { voters.div_ceil(2) } else { voters / 2 + 1 }
}

/// The largest value that a majority has reached, given each voter's value. With it commit indexes, confirmed read
/// rounds and contact times are all the same computation.
///
/// # Panics
/// Without voters: no set of nodes has a majority then.
#[must_use]
pub fn reached_by_majority<T: Ord + Copy>(values: &mut [T]) -> T {
    assert!(!values.is_empty(), "a quorum of nobody has no meaning");
    values.sort_unstable();
    // Descending, the majority-th value; everything before it is at least as large.
    values[values.len() - majority(values.len())]
}

/// How the election among `voters` stands with these votes. Votes of others do not count.
#[must_use]
pub fn vote_result(voters: &[NodeId], votes: &BTreeMap<NodeId, bool>) -> VoteResult {
    let count = |wanted: bool| voters.iter().filter(|voter| votes.get(voter) == Some(&wanted)).count();
    let needed = majority(voters.len());
    if count(true) >= needed {
        VoteResult::Won
    } else if count(false) > voters.len() - needed {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cluster-size rows of etcd's majority tables: the value that more than half have reached.
    #[test]
    fn reached_by_more_than_half() {
        for (mut values, expected) in [
            (vec![5], 5),
            (vec![0, 5], 0),
            (vec![5, 7], 5),
            (vec![0, 0, 9], 0),
            (vec![1, 5, 9], 5),
            (vec![9, 1, 5], 5),
            (vec![5, 5, 5], 5),
            (vec![1, 2, 3, 4], 2),
            (vec![4, 4, 1, 1, 9], 4),
            (vec![100, 101, 102, 103, 104], 102),
        ] {
            assert_eq!(reached_by_majority(&mut values), expected, "{values:?}");
        }
    }

    /// B22: only voters count.
    #[test]
    fn votes_of_strangers_do_not_count() {
        let voters = [NodeId(1), NodeId(2), NodeId(3)];
        let votes = |list: &[(u64, bool)]| list.iter().map(|(node, vote)| (NodeId(*node), *vote)).collect();
        assert_eq!(vote_result(&voters, &votes(&[(1, true), (8, true), (9, true)])), VoteResult::Pending);
        assert_eq!(vote_result(&voters, &votes(&[(1, true), (3, true)])), VoteResult::Won);
        assert_eq!(vote_result(&voters, &votes(&[(1, true), (2, false)])), VoteResult::Pending);
        assert_eq!(vote_result(&voters, &votes(&[(1, true), (2, false), (3, false)])), VoteResult::Lost);
        let four = [NodeId(1), NodeId(2), NodeId(3), NodeId(4)];
        assert_eq!(vote_result(&four, &votes(&[(1, true), (2, true)])), VoteResult::Pending);
        assert_eq!(vote_result(&four, &votes(&[(1, false), (2, false)])), VoteResult::Lost);
    }
}
