//! One who follows keys.

use crate::net::watch::dump::Dump;
use crate::net::watch::event::Format;
use crate::net::watch::filter::Filter;
use crate::raft::types::Index;
use crate::replica::io::{Change, ChangeKind};
use crate::util::time::Millis;

/// What a waiting request waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitFor {
    /// Any change.
    Change,
    /// A key that has a value.
    Presence,
    /// A key that has none.
    Absence,
}

/// Why a waiting request waits no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fired {
    /// What it waited for has happened.
    News(Change),
    /// It may have happened: what has changed is not known any more.
    Unknown,
    /// Its time is over.
    TimeUp {
        /// Nothing that it waits for has happened up to here. `None`: it may have, not everything was looked at.
        seen: Option<Index>,
    },
}

/// What a watcher gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Events, without end.
    Stream(Format),
    /// One answer.
    Wait(WaitFor),
}

/// How far a watcher is. Up to date: `behind` and `dump` are `None`. It then has everything that the hub has passed, and
/// nothing here changes while nothing happens to its keys.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) filter: Filter,
    pub(super) kind: Kind,
    /// The number of the first change that it has not looked at.
    pub(super) behind: Option<u64>,
    /// All keys are being shown.
    pub(super) dump: Option<Dump>,
    /// Say the revision as soon as it is up to date.
    pub(super) owes_bookmark: bool,
    /// In the list of those that have something to do.
    pub(super) is_ready: bool,
    /// Its place in its group of the index.
    pub(super) place: usize,
    /// When something was last sent.
    pub(super) last_sent: Millis,
    /// When its time comes.
    pub(super) timer: Millis,
}

impl Watcher {
    /// Whether a change of a key of its own is one for it.
    pub(super) fn wants(&self, change: &Change) -> bool {
        let is_put = matches!(change.kind, ChangeKind::Put(_));
        let is_meant = match self.kind {
            Kind::Stream(_) | Kind::Wait(WaitFor::Change) => true,
            Kind::Wait(WaitFor::Presence) => is_put,
            Kind::Wait(WaitFor::Absence) => !is_put,
        };
        is_meant && self.filter.contains(&change.key)
    }
}
