//! What the workload says about itself, in the order in which it happens: what it is about to do, and what has become
//! certain. One line of text each.

use keva::raft::types::{HardState, Index, NodeId, Term};

use crate::node::Found;

/// One line.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// The storage is open and shows this. All of it is durable.
    Opened(Found),
    /// Entries with these digests are about to be appended.
    Append(Vec<u64>),
    /// Every entry behind this one is about to be removed.
    Remove(u64),
    /// The hard state is about to be changed.
    HardState(HardState),
    /// A snapshot is about to become the newest one. It covers entries with these digests; the log behind it stays, or
    /// there is none afterwards.
    Publish {
        /// The log has the last entry that it covers.
        keeps_log: bool,
        /// From index 1 on.
        covered: Vec<u64>,
    },
    /// It is the newest one, durably.
    Published,
    /// Everything noted so far is durable.
    Synced,
}

impl Note {
    /// The line, without its end.
    pub(crate) fn encode(&self) -> String {
        let (word, numbers) = match self {
            Note::Opened(found) => {
                let mut numbers = vec![
                    found.incarnation,
                    found.disk_id,
                    (found.cluster_id >> 64) as u64,
                    found.cluster_id as u64,
                    found.base,
                ];
                numbers.extend(hard_state_numbers(found.hard_state));
                numbers.push(found.covered.len() as u64);
                numbers.extend(&found.covered);
                numbers.extend(&found.entries);
                ("opened", numbers)
            }
            Note::Append(digests) => ("append", digests.clone()),
            Note::Remove(last_kept) => ("remove", vec![*last_kept]),
            Note::HardState(hard_state) => ("hard-state", hard_state_numbers(*hard_state).to_vec()),
            Note::Publish { keeps_log, covered } => {
                ("publish", [u64::from(*keeps_log)].iter().chain(covered).copied().collect())
            }
            Note::Published => ("published", Vec::new()),
            Note::Synced => ("synced", Vec::new()),
        };
        numbers.iter().fold(word.to_owned(), |line, number| format!("{line} {number}"))
    }

    /// Reads a line.
    pub(crate) fn decode(line: &str) -> Option<Note> {
        let mut words = line.split_whitespace();
        let word = words.next()?;
        let numbers = words.map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
        Some(match (word, numbers.as_slice()) {
            ("opened", [incarnation, disk_id, high, low, base, term, vote, commit, count, digests @ ..]) => {
                let (covered, entries) = digests.split_at_checked(*count as usize)?;
                Note::Opened(Found {
                    incarnation: *incarnation,
                    disk_id: *disk_id,
                    cluster_id: u128::from(*high) << 64 | u128::from(*low),
                    base: *base,
                    hard_state: hard_state([*term, *vote, *commit]),
                    covered: covered.to_vec(),
                    entries: entries.to_vec(),
                })
            }
            ("append", digests) => Note::Append(digests.to_vec()),
            ("remove", [last_kept]) => Note::Remove(*last_kept),
            ("hard-state", [term, vote, commit]) => Note::HardState(hard_state([*term, *vote, *commit])),
            ("publish", [keeps_log, covered @ ..]) => {
                Note::Publish { keeps_log: *keeps_log != 0, covered: covered.to_vec() }
            }
            ("published", []) => Note::Published,
            ("synced", []) => Note::Synced,
            _ => return None,
        })
    }

    /// The line for people: without the digests.
    pub(crate) fn summary(&self) -> String {
        match self {
            Note::Opened(found) => format!("opened: {}", found.summary()),
            Note::Append(digests) => format!("append {} entries", digests.len()),
            Note::Publish { keeps_log, covered } => {
                let rest = if *keeps_log { "the log stays" } else { "no log behind it" };
                format!("publish a snapshot up to {}, {rest}", covered.len())
            }
            _ => self.encode(),
        }
    }
}

fn hard_state_numbers(hard_state: HardState) -> [u64; 3] {
    [hard_state.term.0, hard_state.vote.map_or(0, |node| node.0), hard_state.commit_index.0]
}

fn hard_state([term, vote, commit]: [u64; 3]) -> HardState {
    let vote = Some(NodeId(vote)).filter(|node| node.0 != 0);
    HardState { term: Term(term), vote, commit_index: Index(commit) }
}
