//! What nodes say to one another, by the names of the Raft paper and thesis.

use serde::{Deserialize, Serialize};

use crate::raft::entry::Entries;
use crate::raft::storage::SnapshotMeta;
use crate::raft::types::{EntryId, Index, NodeId, Standing, Term};
use crate::util::mutation::mutant;
use crate::util::time::LogicalTime;

/// Names a round of heartbeats: an ack with this number answers a heartbeat sent after every read with a number up to
/// it was registered. Counts up within a leadership; never taken from a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize)]
pub struct ReadRound(pub u64);

/// The asking node's own name for a group of reads. Only ever compared for equality, by the node that chose it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize)]
pub struct ReadContext(pub u64);

/// A message with its sender, receiver and the sender's term.
#[derive(Clone, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The sender's current term.
    pub term: Term,
    /// What is said.
    pub message: Message,
}

/// Everything that goes over a peer link after the greeting.
#[derive(Clone, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Would you vote for me in `campaign_term`? Changes nothing on the receiver (thesis, section 9.6).
    PreVote {
        /// The term after the sender's.
        campaign_term: Term,
        /// The sender's last log entry.
        last: EntryId,
    },
    /// Answers [`Message::PreVote`].
    PreVoteResponse {
        /// The term that was asked about.
        campaign_term: Term,
        /// Whether a real vote would be given.
        granted: bool,
    },
    /// Vote for me in the envelope's term (paper, section 5.2).
    RequestVote {
        /// The candidate's last log entry, durable on the candidate.
        last: EntryId,
        /// The old leader asked for this election: a voter that hears from a leader votes all the same (thesis,
        /// section 4.2.3).
        transfer: bool,
    },
    /// Answers [`Message::RequestVote`].
    RequestVoteResponse {
        /// Whether the vote is given.
        granted: bool,
    },
    /// Log entries behind `prev`, or just news of the commit index (paper, section 5.3).
    AppendEntries {
        /// The entry before the first one carried.
        prev: EntryId,
        /// What follows `prev`. On a link the bytes travel behind the message, not in it.
        #[serde(skip)]
        entries: Entries,
        /// The leader's commit index.
        commit_index: Index,
    },
    /// Answers [`Message::AppendEntries`].
    AppendEntriesResponse {
        /// What became of it.
        outcome: AppendOutcome,
    },
    /// I am still the leader.
    Heartbeat {
        /// What the receiver has of the committed entries: never beyond what it is known to hold.
        commit_index: Index,
        /// To be echoed.
        round: ReadRound,
        /// The leader's disk is full: new writes would be refused.
        #[serde(default)]
        is_full: bool,
        /// The leader's logical time, for who applies the entries; 0 as long as the leader must not use its own. The
        /// protocol leaves it at 0, and looks at it nowhere.
        #[serde(default)]
        time: LogicalTime,
    },
    /// Answers [`Message::Heartbeat`].
    HeartbeatResponse {
        /// The heartbeat's round.
        round: ReadRound,
        /// The sender's disk is full.
        #[serde(default)]
        is_full: bool,
    },
    /// A part of the leader's newest snapshot, for a peer that lacks entries which the log has no more (paper, section
    /// 7). Without a chunk it asks how far the peer is.
    InstallSnapshot {
        /// Which snapshot.
        snapshot: SnapshotMeta,
        /// Where the chunk belongs.
        offset: u64,
        /// The content from there on. On a link the bytes travel behind the message, not in it.
        #[serde(skip)]
        chunk: Vec<u8>,
    },
    /// Answers [`Message::InstallSnapshot`].
    InstallSnapshotResponse {
        /// The request's snapshot.
        snapshot: SnapshotMeta,
        /// What became of it.
        outcome: SnapshotOutcome,
    },
    /// May I vote? From a node that does not know what it once promised, see [`Standing`].
    Admission,
    /// Answers [`Message::Admission`]. The envelope's term is what the asking node must not vote in any more.
    AdmissionResponse {
        /// The sender's own standing.
        standing: Standing,
        /// The sender has no entry and no snapshot, has lost none that it knows of, and was never in a term.
        is_empty: bool,
        /// From a leader that has committed an entry of its term: how far it has committed.
        commit_index: Option<Index>,
    },
    /// Your disk is an older copy of one that the sender has met, or lacks what you acknowledged to the sender: you may have
    /// forgotten what you promised.
    RolledBack,
    /// Answers [`Message::RolledBack`]: the sender knows it, durably, and does not vote before it may again. Follows every
    /// vote that it gave without knowing.
    RolledBackResponse,
    /// Which index must be applied before the reads of `context` may be answered (thesis, section 6.4)?
    ReadIndex {
        /// To be echoed.
        context: ReadContext,
    },
    /// Answers [`Message::ReadIndex`] once the leader is sure of being the leader.
    ReadIndexResponse {
        /// The request's context.
        context: ReadContext,
        /// Apply up to here, then answer.
        index: Index,
    },
    /// Start an election at once: the leader hands its office over (thesis, section 3.10).
    TimeoutNow,
    /// Proposals of the sender's clients for the leader, in order.
    Forward {
        /// The proposals' payloads. On a link the bytes travel behind the message, not in it.
        #[serde(skip)]
        payloads: Vec<Vec<u8>>,
    },
}

/// What became of an InstallSnapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum SnapshotOutcome {
    /// The receiver has everything before this offset and waits for the rest.
    Receiving {
        /// Send from here on.
        next_offset: u64,
    },
    /// The receiver's log equals the sender's up to here, durably: the snapshot is installed, or was not needed.
    Installed {
        /// At least the snapshot's last entry.
        match_index: Index,
    },
    /// It cannot be taken at the moment: the disk is full, or what arrived is not what was sent.
    Refused,
}

/// What became of an AppendEntries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// The receiver's log equals the sender's up to here, durably.
    Accepted {
        /// `prev` plus the entries of the message; never the receiver's own last index (which may be another
        /// leader's tail).
        match_index: Index,
    },
    /// The receiver does not have `prev`.
    Rejected {
        /// The message's `prev` index, so that a late answer is told from a fresh one.
        prev_index: Index,
        /// The receiver's last entry that may still be common: the largest one whose index is not above `prev` and
        /// whose term is not above `prev`'s.
        hint: EntryId,
    },
}

impl Message {
    /// Whether it asks for a vote or pre-vote, or answers such a question.
    pub(super) fn is_about_elections(&self) -> bool {
        matches!(
            self,
            Message::PreVote { .. }
                | Message::PreVoteResponse { .. }
                | Message::RequestVote { .. }
                | Message::RequestVoteResponse { .. }
        )
    }

    /// Whether the receiver may rely on something that the sender must have made durable before (paper, section 5.1:
    /// "updated on stable storage before responding"). Such a message leaves only after a sync.
    ///
    /// Exhaustive on purpose: a new kind has to answer the question.
    #[must_use]
    pub fn requires_sync(&self) -> bool {
        match self {
            // The candidate's term, its vote for itself, and the log that it advertises.
            Message::RequestVote { .. } => !mutant("campaign-before-sync"),
            // The voter's term and vote.
            Message::RequestVoteResponse { .. } => !mutant("vote-before-sync"),
            // The entries that the leader will count.
            Message::AppendEntriesResponse { .. } => !mutant("ack-before-sync"),
            // Everything that the snapshot covers.
            Message::InstallSnapshotResponse { .. } => !mutant("snapshot-answer-before-sync"),
            // The standing. It must not overtake a vote, either.
            Message::RolledBackResponse => !mutant("roll-back-answer-before-sync"),
            // A pre-vote promises nothing. A leader counts itself only after its own sync, so its entries may travel
            // earlier. A heartbeat's answer only says that no newer term is known. The rest is between clients' nodes
            // and the leader, and becomes a promise only through the log.
            Message::PreVote { .. }
            | Message::PreVoteResponse { .. }
            | Message::AppendEntries { .. }
            | Message::Heartbeat { .. }
            | Message::HeartbeatResponse { .. }
            | Message::InstallSnapshot { .. }
            | Message::Admission
            | Message::AdmissionResponse { .. }
            | Message::RolledBack
            | Message::ReadIndex { .. }
            | Message::ReadIndexResponse { .. }
            | Message::TimeoutNow
            | Message::Forward { .. } => false,
        }
    }
}
