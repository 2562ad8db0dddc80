//! Majorities against tables that other implementations use (the cases of etcd's `majority_commit` and
//! `majority_vote`), and against the definition, for every small cluster.

use std::collections::BTreeMap;

use keva::limits::NODES_MAX;
use keva::raft::quorum::{VoteResult, majority, reached_by_majority, vote_result};
use keva::raft::types::NodeId;

/// The index that a majority has, by what each voter has; 0 where nothing is known.
const COMMITS: [(&[u64], u64); 16] = [
    (&[0], 0),
    (&[12], 12),
    (&[0, 0], 0),
    (&[12, 0], 0),
    (&[12, 5], 5),
    (&[0, 0, 0], 0),
    (&[12, 0, 0], 0),
    (&[12, 5, 0], 5),
    (&[12, 5, 6], 6),
    (&[12, 5, 4], 5),
    (&[5, 5, 0], 5),
    (&[5, 5, 12], 5),
    (&[100, 101, 103], 101),
    (&[101, 104, 103, 103, 0], 103),
    (&[101, 102, 103, 103, 0], 102),
    (&[101, 102, 103, 103, 104], 103),
];

/// How a vote stands: `y` for, `n` against, `_` not heard from.
const VOTES: [(&str, VoteResult); 21] = [
    ("_", VoteResult::Pending),
    ("n", VoteResult::Lost),
    ("y", VoteResult::Won),
    ("__", VoteResult::Pending),
    ("n_", VoteResult::Lost),
    ("y_", VoteResult::Pending),
    ("ny", VoteResult::Lost),
    ("yy", VoteResult::Won),
    ("___", VoteResult::Pending),
    ("n__", VoteResult::Pending),
    ("y__", VoteResult::Pending),
    ("nn_", VoteResult::Lost),
    ("yn_", VoteResult::Pending),
    ("yy_", VoteResult::Won),
    ("yyn", VoteResult::Won),
    ("nyn", VoteResult::Lost),
    ("yyny___", VoteResult::Pending),
    ("_yy_nyn", VoteResult::Pending),
    ("yyny_ny", VoteResult::Won),
    ("yy_nynn", VoteResult::Pending),
    ("yynynnn", VoteResult::Lost),
];

/// Voters with numbers that are neither small nor contiguous, as real ones are.
fn voters(count: usize) -> Vec<NodeId> {
    (1..=count as u64).map(|node| NodeId(node.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

fn result_of(text: &str) -> VoteResult {
    let voters = voters(text.len());
    let heard = voters.iter().zip(text.chars()).filter(|(_, vote)| *vote != '_');
    let votes: BTreeMap<NodeId, bool> = heard.map(|(voter, vote)| (*voter, vote == 'y')).collect();
    vote_result(&voters, &votes)
}

/// Every way to give each of `count` voters one of `choices`.
fn every(count: usize, choices: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..choices.pow(count as u32)).map(move |mut number| {
        (0..count)
            .map(|_| {
                let digit = number % choices;
                number /= choices;
                digit
            })
            .collect()
    })
}

/// Whether some majority of the voters, taken as a set, is inside `members`. By trying every set of voters.
fn contains_a_majority(count: usize, members: &[bool]) -> bool {
    (0..1_u32 << count).any(|set| {
        let is_majority = 2 * set.count_ones() as usize > count;
        is_majority && (0..count).all(|voter| set & (1 << voter) == 0 || members[voter])
    })
}

/// Covers: S62 B22
#[test]
fn commit_table() {
    for (indexes, expected) in COMMITS {
        assert_eq!(reached_by_majority(&mut indexes.to_vec()), expected, "{indexes:?}");
    }
}

/// Covers: S62
#[test]
fn vote_table() {
    for (votes, expected) in VOTES {
        assert_eq!(result_of(votes), expected, "{votes}");
    }
}

/// The definition: the largest value such that the voters with at least that much contain a majority. All clusters of
/// up to six nodes, all orders of four values.
#[test]
fn commits_of_all_small_clusters() {
    let mut count = 0;
    for size in 1..=6 {
        for values in every(size, 4) {
            let has = |least: usize| values.iter().map(|value| *value >= least).collect::<Vec<_>>();
            let expected = (0..4).filter(|least| contains_a_majority(size, &has(*least))).max();
            assert_eq!(Some(reached_by_majority(&mut values.clone())), expected, "{values:?}");
            count += 1;
        }
    }
    assert_eq!(count, 4 + 16 + 64 + 256 + 1024 + 4096);
}

/// The definition: won when those who said yes contain a majority, lost when no majority is left without somebody who
/// said no. All clusters of up to the largest size, all states of the vote.
#[test]
fn votes_of_all_small_clusters() {
    for size in 1..=NODES_MAX.min(7) {
        for votes in every(size, 3) {
            let text: String = votes.iter().map(|vote| ['_', 'y', 'n'][*vote]).collect();
            let said = |chars: &[char]| text.chars().map(|vote| chars.contains(&vote)).collect::<Vec<_>>();
            let expected = if contains_a_majority(size, &said(&['y'])) {
                VoteResult::Won
            } else if contains_a_majority(size, &said(&['y', '_'])) {
                VoteResult::Pending
            } else {
                VoteResult::Lost
            };
            assert_eq!(result_of(&text), expected, "{text}");
        }
    }
}

/// What everything rests on: any two majorities share a voter, and one voter less is no majority.
#[test]
fn majorities_overlap() {
    for size in 1..=NODES_MAX {
        let needed = majority(size);
        assert!(2 * needed > size && 2 * (needed - 1) <= size, "{size}");
        let sets = || (0..1_u32 << size).filter(|set| set.count_ones() as usize == needed);
        assert!(sets().all(|left| sets().all(|right| left & right != 0)), "{size}");
    }
}
