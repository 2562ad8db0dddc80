//! Keva: a replicated, linearizable key-value store that people drive with curl.
//!
//! # The map
//!
//! ```text
//!   sockets, files, clock, entropy      net/, storage/region.rs, main.rs
//!     └─ replica/   protocol + state machine + waiting requests: deterministic
//!          ├─ raft/     the protocol: owns its storage, gives messages out
//!          └─ kv/       the state machine: keys and values
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`raft`] | the Raft protocol, explained in its module documentation |
//! | [`kv`] | commands, and what they do to keys and values |
//! | [`replica`] | one node without its sockets, files and clock |
//! | [`storage`] | the log, the hard state and the working directory on disk |
//! | [`net`] | the event loop, HTTP for clients, links to peers |
//! | [`config`] | keva.toml |
//! | [`logging`] | log lines that never block the loop |
//! | [`limits`] | every bound, by name |
//! | [`util`] | time as a number, seeded randomness, stable hashes |
//!
//! `raft`, `kv` and `replica` never read a clock, open a socket or a file, or draw randomness of their own: time, seeds
//! and storage are arguments. The same inputs give the same outputs, so that a simulator can run exactly this code. A
//! test holds the rules about who may import whom.
//!
//! # One turn of the loop
//!
//! One thread does everything. The order within a turn is the design:
//!
//! ```text
//! poll    until something is ready or the next deadline; the clock is read once
//!  1 read    what the sockets hold, within budgets
//!  2 step    peers first, then clients: append to the log, queue, never block
//!  3 time    deadlines, after the input: a slow turn must not depose a leader whose heartbeat is waiting in a socket
//!  4 send    what need not be durable, so that the peers' disks work at the same time as ours
//!  5 sync    one fdatasync for everything that the turn wrote, or none
//!  6 apply   what is committed; reads whose index is applied
//!  7 write   votes, acknowledgements, answers
//!  8 reap    close what was marked during the turn
//! ```
//!
//! # One write
//!
//! A client's `PUT` arrives at any node. [`net`] makes a [`Command`](kv::command::Command) of it, the
//! [`replica`] gives it a sequence number and proposes it (on the leader) or forwards it to the leader. The leader
//! appends it to its log, sends it to its peers, syncs, and commits it when a majority has synced it. Every node
//! applies it; the node that the client asked recognizes its own number and answers. If the leader changes meanwhile,
//! that node sends the command again, and the state machine skips whatever it has seen: a fail-over is a pause.
//!
//! # One read
//!
//! All reads that arrive in one turn share one question to the leader: up to where must the state be applied so that
//! nothing committed is missed? The leader answers after a round of heartbeats has confirmed that it still is the
//! leader; then each node answers from its own state.

pub mod config;
pub mod kv;
pub mod limits;
pub mod logging;
pub mod net;
pub mod raft;
pub mod replica;
pub mod storage;
pub mod util;
