//! One Raft node whose peers are played by the test.

use keva::raft::raft::Raft;
use keva::raft::storage::Storage;
use keva::raft::types::{Index, NodeId};
use keva::util::time::Millis;

use super::raft_cluster::config;
use super::raft_text::{entry_text, envelope_text, parse_envelope};

/// Node 1 of a cluster whose other nodes are played by the test.
pub struct Lone<S: Storage> {
    /// The node.
    pub raft: Raft<S>,
    /// Its clock, which moves only when it campaigns.
    pub now: Millis,
    count: u64,
}

impl<S: Storage> Lone<S> {
    /// Starts it as one of `count` voters.
    pub fn new(count: u64, storage: S) -> Lone<S> {
        let now = Millis(0);
        let raft = Raft::new(config(1, count), storage, now).expect("the disk is sound");
        Lone { raft, now, count }
    }

    /// Becomes a pre-candidate.
    pub fn pre_campaign(&mut self) {
        self.now = self.raft.next_deadline();
        self.raft.handle_deadline(self.now).expect("memory does not fail");
    }

    /// Becomes a candidate whose requests for votes are out.
    pub fn campaign(&mut self) {
        self.pre_campaign();
        let term = self.raft.term();
        for peer in 2..=self.count {
            self.step(&format!("n{peer}@{term} -> n1 PreVoteResponse term={} granted", term.next()));
        }
        self.turn();
    }

    /// Becomes the leader of the next term, with its empty entry durable.
    pub fn lead(&mut self) {
        self.campaign();
        let term = self.raft.term();
        for peer in 2..=self.count {
            self.step(&format!("n{peer}@{term} -> n1 RequestVoteResponse granted"));
        }
        self.turn();
        assert!(self.raft.is_leader());
    }

    /// Takes a message.
    pub fn step(&mut self, text: &str) {
        let envelope = parse_envelope(text).expect("the row is well written");
        self.raft.step(self.now, envelope).expect("memory does not fail");
    }

    /// One turn. Returns what was sent.
    pub fn turn(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        self.raft.drain_immediate(self.now, &mut out).expect("memory does not fail");
        out.extend(self.raft.sync(self.now).expect("memory does not fail").messages);
        self.raft.drain_immediate(self.now, &mut out).expect("memory does not fail");
        out.iter().map(envelope_text).collect()
    }

    /// Its log, as text.
    pub fn log(&self) -> String {
        let storage = self.raft.storage();
        let texts = (storage.log_start().index.0 + 1..=storage.last_index().0)
            .map(|index| entry_text(storage.entry(Index(index)).expect("memory does not fail")));
        texts.collect::<Vec<String>>().join(", ")
    }

    /// What it knows of a peer: match and next index.
    pub fn progress(&self, peer: u64) -> (u64, u64) {
        let (_, progress) = self.raft.peers().find(|(id, _)| *id == NodeId(peer)).expect("a leader");
        (progress.match_index().0, progress.next_index().0)
    }
}
