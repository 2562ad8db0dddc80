//! The Raft protocol, as a synchronous state machine without clock, sockets, files or threads.
//!
//! # What it does
//!
//! A few nodes keep the same log of commands. Applying the log in order gives each of them the same state, and a
//! command that a majority has made durable is never lost while a majority of the disks survives. References are to
//! the Raft paper (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", extended version) and
//! to Ongaro's thesis ("Consensus: Bridging Theory and Practice").
//!
//! # One write
//!
//! 1. [`propose`](raft::Raft::propose) appends the command to the leader's log. It is written, not yet durable.
//! 2. [`drain_immediate`](raft::Raft::drain_immediate) gives out one AppendEntries per peer with everything new
//!    (paper, section 5.3), so that the peers' disks work at the same time as the leader's.
//! 3. [`sync`](raft::Raft::sync) makes the leader's copy durable. Only now it counts (thesis, section 10.2.1).
//! 4. A follower checks that its log holds the entry before the first new one, appends, syncs, and only then
//!    acknowledges up to the last entry that it compared.
//! 5. When a majority has an entry *of the leader's own term*, that entry and everything before it is committed
//!    (section 5.4.2). The news goes out at the end of the same turn, and each node applies it.
//!
//! # One election
//!
//! A follower that hears nothing for a random time in [T, 2T) first asks whether it could win (PreVote; thesis,
//! section 9.6): a node that was cut off does not come back with a higher term and depose a working leader. Voters
//! that hear from a leader refuse (thesis, section 4.2.3). With a majority of promises it starts a new term, votes for
//! itself, syncs, and asks for votes. A vote goes to the first asker whose log is at least as complete (sections 5.2
//! and 5.4.1), and leaves the voter after its sync. The winner appends an empty entry, because only an entry of its
//! own term tells it what is committed (section 8). A leader that no majority has answered for T steps down (thesis,
//! section 6.2).
//!
//! Two hints make this fast without making it less safe: the network layer says when the leader's process has ended,
//! so that nobody waits for T; and a leader that is about to stop tells its best follower to campaign at once (thesis,
//! section 3.10).
//!
//! # One read
//!
//! No log entry is written. The leader notes its commit index, makes sure with one round of heartbeats that it is
//! still the leader, and the asking node (which may be a follower) answers once it has applied that index: see
//! `read_index` and section 6.4 of the thesis.
//!
//! # One crash
//!
//! What was synced is there after a restart: term, vote and log (paper, figure 2). What was not synced was not
//! promised to anyone, because everything that another node may rely on leaves only through
//! [`Synced`](raft::Synced); [`Message::requires_sync`](message::Message::requires_sync) says which messages those are.
//!
//! # One snapshot
//!
//! Who applies the entries also takes the snapshots, and hands them to the [`Storage`](storage::Storage), which may then
//! forget the beginning of its log. A peer that needs more than is left gets the leader's newest snapshot in parts
//! (paper, section 7). It keeps its log until the snapshot is whole and durable; then
//! [`Synced::restore`](raft::Synced::restore) says that the state must be read from it. What is committed never goes
//! back.
//!
//! # One lost disk
//!
//! A node that comes back on an empty disk does not know what it promised. It follows and stores, and votes again only
//! when the others' answers show that it can do no harm: see `admission`. The others hear of the new disk and stop
//! counting what the old one held.
//!
//! # One full disk
//!
//! Data that grows is refused first, while there is a reserve for what the protocol needs, and for making space. A full
//! leader hands over to a peer with room. A follower without any room ignores entries, and takes them when there is
//! room again.
//!
//! # What this leaves out
//!
//! - Membership changes: the voters are given at the start and stay.
//! - Leases for reads: they would trust clocks.
//! - Advancing the commit index by what votes tell: an election is followed by the new leader's own entry anyway.
//! - Learners and witnesses.

mod admission;
mod append;
mod election;
pub mod entry;
mod fingerprint;
mod invariants;
pub mod message;
mod peers;
pub mod progress;
pub mod quorum;
#[allow(clippy::module_inception, reason = "the type Raft lives in the file named after it")]
pub mod raft;
mod read_index;
mod read_queue;
mod role;
mod sending;
mod snapshot;
pub mod storage;
mod transfer;
pub mod types;
mod view;
