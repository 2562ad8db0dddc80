//! What the network layer and the replica hand one another.

use crate::kv::command::Write;
pub use crate::kv::history::{Change, ChangeKind, History};
pub use crate::kv::outcome::{Applied, OperationResult, Refusal, TransactionResult};
pub use crate::kv::page::Listed;
pub use crate::kv::range::KeyRange;
pub use crate::kv::store::{Item, Page, Store};
use crate::raft::message::Envelope;
pub use crate::raft::storage::{
    Housekeeping, Purpose, SnapshotDraft, SnapshotMeta, SnapshotProgress, Storage, StorageError,
};
use crate::raft::types::{EntryId, Index, NodeId, Term};
pub use crate::raft::types::{RoleName, Standing};
use crate::util::time::Millis;

/// The network layer's name for a waiting request. The replica only hands it back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Ticket(pub u64);

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Change something.
    Write(Write),
    /// Read one key.
    Read {
        /// The key.
        key: String,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// List keys.
    List {
        /// Which.
        range: KeyRange,
        /// What is wanted of them.
        listing: Listing,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Answer as soon as a linearizable read would be answered.
    Barrier,
}

/// What is wanted of the keys of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listing {
    /// One page of them.
    Page {
        /// Most keys.
        limit: usize,
        /// Whether their values are wanted, too, so that they count.
        with_values: bool,
    },
    /// How many there are.
    Count,
}

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// As if there were one copy: every write that was answered before the read began is seen.
    #[default]
    Linearizable,
    /// What this node has applied, without asking anyone. Works without a quorum.
    Stale,
}

/// The answer to a request, in full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Whose request.
    pub ticket: Ticket,
    /// The index that the answer reflects; for a write, the write's own.
    pub revision: Index,
    /// The answer itself.
    pub outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The write was carried out, or could not be: for good, and with the same answer on every node. Never
    /// [`Applied::Skipped`], and never [`Applied::Repeated`]: the reply has the first one's revision and outcome then.
    Applied(Applied),
    /// The key's value, `None` when it is absent.
    Value(Option<Item>),
    /// A page of keys.
    Page(Page),
    /// How many keys there are.
    Count(u64),
    /// [`Request::Barrier`] is through.
    Reached,
    /// The request surely had and will have no effect. Trying again is safe.
    NotApplied(NotApplied),
    /// The write was handed to a leader, and its fate was not learned in time.
    OutcomeUnknown,
}

/// Why a request was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotApplied {
    /// Too much is waiting already.
    Overloaded,
    /// No leader was found, or it could not be reached or confirmed, within the request's time.
    NoLeader,
    /// A later write of the same node was ordered before it, so it can never take effect.
    Superseded,
    /// A write with the same idempotency key waits on this node already, and its client for the answer.
    InFlight,
    /// This node is about to stop.
    Stopping,
    /// The disk of the leader is full: it takes only writes that need no more space than there is.
    DiskFull,
    /// This node is not yet one that votes: it lost what it knew and is getting it back, or it is new and waits for the
    /// others.
    NotReady,
}

/// Everything that may leave the node only after the turn's sync.
#[must_use]
#[derive(Default, Debug)]
pub struct TurnOutput {
    /// Promises to peers.
    pub messages: Vec<Envelope>,
    /// Answers to clients.
    pub replies: Vec<Reply>,
}

/// What a node knows about the cluster and itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaStatus {
    /// This node.
    pub id: NodeId,
    /// Its role.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<NodeId>,
    /// Known to be committed.
    pub commit_index: Index,
    /// Applied to the state machine.
    pub applied_index: Index,
    /// The last entry of the log.
    pub last_index: Index,
    /// The entry before the first one in the log: `0@0` in a log from the beginning.
    pub log_start: EntryId,
    /// The newest whole snapshot.
    pub snapshot: Option<SnapshotMeta>,
    /// The snapshot that is being written, or received from the leader.
    pub snapshot_draft: Option<SnapshotDraft>,
    /// What this node may promise.
    pub standing: Standing,
    /// This node's disk has no room for more data.
    pub is_full: bool,
    /// The leader's disk has no room for more data, as far as this node knows. The leader's own word on the leader.
    pub leader_is_full: bool,
    /// How many keys there are.
    pub keys: u64,
    /// On the leader: what it knows of each peer. Empty elsewhere.
    pub peers: Vec<PeerStatus>,
}

/// What a leader knows of a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub id: NodeId,
    /// Its log is known to equal the leader's up to here.
    pub match_index: Index,
    /// When it last answered.
    pub last_contact: Option<Millis>,
}

/// What waits on a node, for limits and metrics. All of it is bounded, and 0 on an idle node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InFlight {
    /// Writes of this node's clients.
    pub writes: usize,
    /// Their payload bytes.
    pub write_bytes: usize,
    /// Linearizable reads and barriers of this node's clients.
    pub reads: usize,
    /// On the leader: payload bytes of other nodes' writes that are not in the log yet.
    pub held_bytes: usize,
    /// On the leader: payload bytes in the log that are not committed yet.
    pub uncommitted_bytes: usize,
}
