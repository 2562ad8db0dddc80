//! What a round, or a whole run, has done and found.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// Counts. Those of a run are the sums of those of its rounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Rounds that are over.
    pub rounds: u64,
    /// From the first fault to the last check.
    pub time: Duration,
    /// The longest time from the end of the last fault to the moment in which every node was ready.
    pub ready: Duration,
    /// Processes that got SIGKILL.
    pub kills: u64,
    /// Everything else that was done to nodes and links.
    pub other_faults: u64,
    /// Operations of clients whose outcome was recorded.
    pub operations: u64,
    /// Those of them that a client does not know the outcome of.
    pub unknown: u64,
    /// Acknowledged writes to keys of their own that were read back.
    pub kept: u64,
    /// Acknowledged writes that were not there afterwards.
    pub lost: u64,
    /// Acknowledged writes that were there at another revision, so had been done again.
    pub doubled: u64,
    /// Events that watchers have got, keys that they were shown included, and that were held against the writes.
    pub events: u64,
    /// Streams that watchers have followed.
    pub streams: u64,
    /// How often a watcher was shown all keys, because it asked for it or came back too late.
    pub dumps: u64,
    /// Keys that were gone because their time was over.
    pub expiries: u64,
    /// Revisions that no watcher of all keys has seen as they came.
    pub unseen: u64,
    /// Everything that was wrong, those two included.
    pub violations: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.rounds += other.rounds;
        self.time += other.time;
        self.ready = self.ready.max(other.ready);
        self.kills += other.kills;
        self.other_faults += other.other_faults;
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.kept += other.kept;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.events += other.events;
        self.streams += other.streams;
        self.dumps += other.dumps;
        self.expiries += other.expiries;
        self.unseen += other.unseen;
        self.violations += other.violations;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds, {:.2} minutes, ready after {:.2} s at most, {} kills -9, {} other faults, {} operations, \
             {} unknown outcomes, {} writes read back, {} lost, {} doubled, {} events in {} streams and {} dumps, \
             {} expiries, {} revisions unseen, {} violations",
            self.rounds,
            self.time.as_secs_f64() / 60.0,
            self.ready.as_secs_f64(),
            self.kills,
            self.other_faults,
            self.operations,
            self.unknown,
            self.kept,
            self.lost,
            self.doubled,
            self.events,
            self.streams,
            self.dumps,
            self.expiries,
            self.unseen,
            self.violations
        )
    }
}
