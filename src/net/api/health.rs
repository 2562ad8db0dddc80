//! How a node is: what it may promise, whether its disk has room, how far back its files reach.

use std::fmt::Write as _;

use crate::raft::types::Index;
use crate::replica::io::{ReplicaStatus, Standing};

/// What a node can do at the moment, besides its role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// What the node may promise.
    pub standing: Standing,
    /// Its disk has no room for more data.
    pub is_full: bool,
    /// The leader's disk has no room for more data, as far as the node knows.
    pub leader_is_full: bool,
    /// The newest snapshot: the last entry that it covers, and its size in bytes.
    pub snapshot: Option<(Index, u64)>,
    /// The snapshot in the making: how many of how many bytes are there.
    pub draft: Option<(u64, u64)>,
    /// The first entry that the log holds, or would hold.
    pub log_first: Index,
    /// The last one.
    pub log_last: Index,
}

impl Health {
    /// Of the node with this status.
    #[must_use]
    pub fn of(status: &ReplicaStatus) -> Health {
        Health {
            standing: status.standing,
            is_full: status.is_full,
            leader_is_full: status.leader_is_full,
            snapshot: status.snapshot.map(|snapshot| (snapshot.last.index, snapshot.bytes)),
            draft: status.snapshot_draft.map(|draft| (draft.written, draft.bytes)),
            log_first: status.log_start.index.next(),
            log_last: status.last_index,
        }
    }

    /// As lines for people, each with its line end.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("votes: {}\n", self.vote_text());
        writeln!(text, "disk: {}", self.disk_text()).expect(WRITE_TO_MEMORY);
        match self.snapshot {
            Some((index, bytes)) => writeln!(text, "snapshot: up to entry {index}, {bytes} bytes"),
            None => writeln!(text, "snapshot: none yet"),
        }
        .expect(WRITE_TO_MEMORY);
        if let Some((written, bytes)) = self.draft {
            writeln!(text, "next snapshot: {written} of {bytes} bytes").expect(WRITE_TO_MEMORY);
        }
        let (first, last) = (self.log_first, self.log_last);
        if first <= last {
            writeln!(text, "log: entries {first} to {last}").expect(WRITE_TO_MEMORY);
        } else {
            writeln!(text, "log: empty, goes on with entry {first}").expect(WRITE_TO_MEMORY);
        }
        text
    }

    fn vote_text(&self) -> &'static str {
        match self.standing {
            Standing::Voter => "yes",
            Standing::Virgin => {
                "not yet, its working directory is new or an older copy, and it waits for the other nodes' answers"
            }
            Standing::Recovering => {
                "not yet, a part of its data was damaged and is being fetched from the leader"
            }
        }
    }

    fn disk_text(&self) -> &'static str {
        match (self.is_full, self.leader_is_full) {
            (false, false) => "has room",
            (true, false) => {
                "full; make space on this node's disk; until then it refuses writes that need space with 507"
            }
            (false, true) => {
                "has room, but the leader's is full: writes that need space are refused with 507"
            }
            (true, true) => {
                "full, and so is the leader's: writes that need space are refused with 507 until there is space"
            }
        }
    }
}

/// A standing as programs read it.
pub(super) fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Voter => "voter",
        Standing::Virgin => "new",
        Standing::Recovering => "recovering",
    }
}

const WRITE_TO_MEMORY: &str = "writing to a String cannot fail";
