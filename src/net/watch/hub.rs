//! Who follows what, and how far everybody is.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use crate::limits::{
    WATCH_BUFFER_BYTES_MAX, WATCH_BYTES_PER_TURN_MAX, WATCH_CHANGE_BYTES, WATCH_COMMENT_MS, WATCHERS_MAX,
};
use crate::net::watch::dump::Dump;
use crate::net::watch::event::{Format, Resume};
use crate::net::watch::filter::Filter;
use crate::net::watch::index::Index as Finder;
use crate::net::watch::shared::SharedEvents;
use crate::net::watch::watcher::{Fired, Kind, WaitFor, Watcher};
use crate::raft::types::Index;
use crate::replica::io::{Change, History, Store};
use crate::util::mutation::mutant;
use crate::util::time::Millis;

/// Where events go. What is said here about a watcher that is not there (any more) is ignored.
pub trait Outlets<I> {
    /// Bytes that wait to be sent to a watcher. `None`: it takes nothing at this moment; [`Hub::drained`] will tell when
    /// it does.
    fn unsent_bytes(&self, id: I) -> Option<usize>;
    /// Sends an event. It is whole, and may be shared with other watchers.
    fn send(&mut self, now: Millis, id: I, event: &Arc<[u8]>);
    /// The watcher was too slow and is no watcher any more: its stream breaks off.
    fn close(&mut self, id: I);
}

/// There are [`WATCHERS_MAX`] already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyWatchers;

/// All watchers, by the names that their owner has for them. It knows of no sockets, and iterates in no random order.
///
/// In a turn: [`Hub::watch`], [`Hub::wait`], [`Hub::remove`] and [`Hub::drained`] as things happen, then [`Hub::pump`]
/// once, after what was committed has been applied, then [`Hub::take_fired`]. The history and the state that are passed
/// in must belong together.
#[derive(Debug)]
pub struct Hub<I> {
    pub(super) watchers: HashMap<I, Watcher>,
    pub(super) finder: Finder<I>,
    /// Watchers that have something to do.
    pub(super) ready: VecDeque<I>,
    pub(super) timers: BTreeSet<(Millis, I)>,
    /// The number of the first change that was not handed out. Watchers that are behind have an own one.
    pub(super) next: u64,
    /// Everything up to this revision was handed out.
    pub(super) revision: Index,
    pub(super) shared: SharedEvents,
    pub(super) fired: Vec<(I, Fired)>,
    /// Empty between the calls; kept for its memory.
    found: Vec<I>,
}

impl<I: Copy + Ord + Hash> Hub<I> {
    /// Nobody follows anything.
    #[must_use]
    pub fn new(history: &History, store: &Store) -> Hub<I> {
        Hub {
            watchers: HashMap::new(),
            finder: Finder::default(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            next: history.next_number(),
            revision: store.applied_index(),
            shared: SharedEvents::default(),
            fired: Vec::new(),
            found: Vec::new(),
        }
    }

    /// A stream of changes. `since`: of all that have a higher revision; where these are not known, and from the
    /// beginning (0), of all keys that there are and then of changes. Without it: of changes from the present state on.
    ///
    /// # Errors
    /// There are too many.
    ///
    /// # Panics
    /// When there is one with this name, or `since` is a revision that is not applied.
    #[allow(
        clippy::too_many_arguments,
        reason = "a watcher is its name, what it follows, and where it begins"
    )]
    pub fn watch(
        &mut self,
        now: Millis,
        id: I,
        filter: Filter,
        format: Format,
        since: Option<Index>,
        history: &History,
        store: &Store,
    ) -> Result<(), TooManyWatchers> {
        self.notice_gap(history, store);
        let from = if since == Some(Index(0)) { None } else { self.first_number(since, history, store) };
        let dump = from.is_none().then_some(Dump::Reset);
        let behind = Some(from.unwrap_or_else(|| history.next_number()));
        self.add(
            now.after(WATCH_COMMENT_MS),
            id,
            Watcher {
                filter,
                kind: Kind::Stream(format),
                behind,
                dump,
                owes_bookmark: true,
                is_ready: false,
                place: 0,
                last_sent: now,
                timer: Millis(0),
            },
        )
    }

    /// One that waits for a change, until `until`. `since`: a change that has a higher revision counts, too, although it
    /// is in the present state. Whatever it waits for is told by [`Hub::take_fired`], and it is no watcher any more.
    ///
    /// # Errors
    /// There are too many.
    ///
    /// # Panics
    /// When there is one with this name, or `since` is a revision that is not applied.
    #[allow(clippy::too_many_arguments, reason = "as above")]
    pub fn wait(
        &mut self,
        now: Millis,
        id: I,
        filter: Filter,
        wait_for: WaitFor,
        since: Option<Index>,
        until: Millis,
        history: &History,
        store: &Store,
    ) -> Result<(), TooManyWatchers> {
        self.notice_gap(history, store);
        // A number that is not kept is noticed when it is looked at.
        let behind = self.first_number(since, history, store).unwrap_or(0);
        self.add(
            until,
            id,
            Watcher {
                filter,
                kind: Kind::Wait(wait_for),
                behind: Some(behind),
                dump: None,
                owes_bookmark: false,
                is_ready: false,
                place: 0,
                last_sent: now,
                timer: Millis(0),
            },
        )
    }

    /// The number of the first change for a watcher that begins. `None`: some of those that it wants are not kept.
    fn first_number(&self, since: Option<Index>, history: &History, store: &Store) -> Option<u64> {
        match since {
            None => Some(history.next_number()),
            Some(since) => {
                assert!(since <= store.applied_index(), "a watcher begins at a revision that is there");
                let since =
                    if mutant("watch-since-includes") { Index(since.0.saturating_sub(1)) } else { since };
                history.number_after(since)
            }
        }
    }

    fn add(&mut self, timer: Millis, id: I, mut watcher: Watcher) -> Result<(), TooManyWatchers> {
        if self.watchers.len() >= WATCHERS_MAX {
            return Err(TooManyWatchers);
        }
        watcher.place = self.finder.add(&watcher.filter, id);
        watcher.timer = timer;
        self.timers.insert((timer, id));
        let before = self.watchers.insert(id, watcher);
        assert!(before.is_none(), "a watcher has a name of its own");
        self.make_ready(id);
        Ok(())
    }

    /// Forgets a watcher, if there is one with this name.
    pub fn remove(&mut self, id: I) {
        let Some(watcher) = self.watchers.remove(&id) else { return };
        self.timers.remove(&(watcher.timer, id));
        if let Some(moved) = self.finder.remove(&watcher.filter, watcher.place) {
            self.watchers.get_mut(&moved).expect("filed watchers exist").place = watcher.place;
        }
    }

    /// A watcher's stream was opened, or about half of what waited to be sent is gone.
    pub fn drained(&mut self, id: I) {
        let waits =
            |watcher: &Watcher| watcher.behind.is_some() || watcher.dump.is_some() || watcher.owes_bookmark;
        if self.watchers.get(&id).is_some_and(waits) {
            self.make_ready(id);
        }
    }

    pub(super) fn make_ready(&mut self, id: I) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        if !std::mem::replace(&mut watcher.is_ready, true) {
            self.ready.push_back(id);
        }
    }

    /// Hands out what has changed, and what is due, as far as a turn's budget goes.
    pub fn pump(&mut self, now: Millis, history: &History, store: &Store, outlets: &mut impl Outlets<I>) {
        // What a removal has left over of the keys so far is shown to nobody.
        if !store.is_settled() && !mutant("follows-amid-removal") {
            return;
        }
        self.notice_gap(history, store);
        let mut budget = WATCH_BYTES_PER_TURN_MAX;
        self.pass_changes(now, history, store, outlets, &mut budget);
        self.find_due(now, &mut budget);
        self.serve_ready(now, history, store, outlets, &mut budget);
        if self.ready.is_empty() {
            self.shared.clear();
        }
    }

    /// Whether [`Hub::pump`] has something to do without anything that happens.
    #[must_use]
    pub fn has_work(&self, history: &History) -> bool {
        !self.ready.is_empty() || self.next != history.next_number() && !self.watchers.is_empty()
    }

    /// When [`Hub::pump`] is to be called although nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.timers.first().map(|(timer, _)| *timer)
    }

    /// The waiting requests that wait no more.
    pub fn take_fired(&mut self) -> Vec<(I, Fired)> {
        std::mem::take(&mut self.fired)
    }

    /// Everything up to this revision was handed out.
    #[must_use]
    pub fn revision(&self) -> Index {
        self.revision
    }

    /// How many watchers there are, waiting requests included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// The time of all waiting requests is over: the node stops.
    pub fn end_waits(&mut self) {
        let waits = |(_, watcher): &(&I, &Watcher)| matches!(watcher.kind, Kind::Wait(_));
        let mut ids: Vec<I> = self.watchers.iter().filter(waits).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        for id in ids {
            self.end_wait(id);
        }
    }

    fn end_wait(&mut self, id: I) {
        // Who is behind has not looked at everything that was handed out.
        let has_seen = self.watchers[&id].behind.is_none_or(|number| number >= self.next);
        self.fire(id, Fired::TimeUp { seen: has_seen.then_some(self.revision) });
    }

    pub(super) fn fire(&mut self, id: I, fired: Fired) {
        self.remove(id);
        self.fired.push((id, fired));
    }

    /// Changes that were not handed out may be lost: a snapshot was installed, or the history is too short for what was
    /// applied at once. Whoever follows keys is told that it does not know them.
    fn notice_gap(&mut self, history: &History, store: &Store) {
        if history.floor() <= self.revision || mutant("watch-survives-snapshot") {
            self.next = self.next.max(history.first_number());
            return;
        }
        self.next = history.next_number();
        self.revision = store.applied_index();
        let mut ids: Vec<I> = self.watchers.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let watcher = self.watchers.get_mut(&id).expect("just listed");
            match watcher.kind {
                Kind::Wait(_) => self.fire(id, Fired::Unknown),
                Kind::Stream(_) => {
                    watcher.behind = None;
                    watcher.dump = Some(Dump::Reset);
                    self.make_ready(id);
                }
            }
        }
    }

    fn pass_changes(
        &mut self,
        now: Millis,
        history: &History,
        store: &Store,
        outlets: &mut impl Outlets<I>,
        budget: &mut usize,
    ) {
        if self.watchers.is_empty() {
            self.next = history.next_number();
        }
        while *budget > 0 && self.next < history.next_number() {
            let change = history.get(self.next).expect("a gap was noticed");
            *budget = budget.saturating_sub(WATCH_CHANGE_BYTES);
            let mut found = std::mem::take(&mut self.found);
            self.finder.find(&change.key, &mut found);
            for id in found.drain(..) {
                self.offer(now, id, change, history, outlets, budget);
            }
            self.found = found;
            self.next += 1;
        }
        self.revision = match history.get(self.next) {
            Some(change) => Index(change.revision.0 - 1),
            None => store.applied_index(),
        };
    }

    /// Gives the change with the number `next` to a watcher of its key, or leaves the watcher behind.
    fn offer(
        &mut self,
        now: Millis,
        id: I,
        change: &Change,
        history: &History,
        outlets: &mut impl Outlets<I>,
        budget: &mut usize,
    ) {
        let number = self.next;
        let watcher = self.watchers.get_mut(&id).expect("filed watchers exist");
        if watcher.behind.is_some() || !watcher.wants(change) {
            return;
        }
        let Kind::Stream(format) = watcher.kind else {
            return self.fire(id, Fired::News(change.clone()));
        };
        if !is_shown(watcher, change) {
            return;
        }
        if *budget == 0 {
            watcher.behind = Some(number);
            return self.make_ready(id);
        }
        let resume = resume(watcher, number, change, history);
        let event = self.shared.get(number, change, format, resume);
        if !try_send(now, id, watcher, &event, outlets, budget) && !mutant("watch-skips-when-behind") {
            let repeats = mutant("watch-repeats-when-behind") && history.get(number - 1).is_some();
            watcher.behind = Some(number - u64::from(repeats));
        }
    }

    /// Watchers whose time has come: a request that waits no longer, a stream that says how far it is.
    fn find_due(&mut self, now: Millis, budget: &mut usize) {
        while *budget > 0
            && let Some(&(timer, id)) = self.timers.first()
            && timer <= now
        {
            *budget = budget.saturating_sub(WATCH_CHANGE_BYTES);
            let watcher = self.watchers.get_mut(&id).expect("filed watchers exist");
            if matches!(watcher.kind, Kind::Wait(_)) {
                self.end_wait(id);
                continue;
            }
            let mut next = watcher.last_sent.after(WATCH_COMMENT_MS);
            let is_due = next <= now;
            if is_due {
                watcher.owes_bookmark = true;
                next = now.after(WATCH_COMMENT_MS);
            }
            watcher.timer = next;
            self.timers.remove(&(timer, id));
            self.timers.insert((next, id));
            if is_due {
                self.make_ready(id);
            }
        }
    }
}

/// Whether a change is an event while all keys are being shown.
pub(super) fn is_shown(watcher: &Watcher, change: &Change) -> bool {
    watcher.dump.as_ref().is_none_or(|dump| dump.covers(&change.key) || mutant("dump-and-event-both"))
}

/// Whether the event of a change is the last one of its revision for a watcher. While all keys are being shown, none is:
/// who goes on from there would not see the rest.
pub(super) fn resume(watcher: &Watcher, number: u64, change: &Change, history: &History) -> Resume {
    if watcher.dump.is_some() && !mutant("id-before-sync") {
        return Resume::Later;
    }
    let has_more = |next: &Change| watcher.filter.contains(&next.key);
    let is_last = change.is_last || !history.get(number + 1).is_some_and(has_more);
    if is_last || mutant("id-on-every-event-of-a-transaction") { Resume::Here } else { Resume::Later }
}

/// Sends an event, unless too much waits already.
pub(super) fn try_send<I: Copy>(
    now: Millis,
    id: I,
    watcher: &mut Watcher,
    event: &Arc<[u8]>,
    outlets: &mut impl Outlets<I>,
    budget: &mut usize,
) -> bool {
    let fits = |unsent| unsent == 0 || unsent + event.len() <= WATCH_BUFFER_BYTES_MAX;
    if !outlets.unsent_bytes(id).is_some_and(fits) {
        return false;
    }
    outlets.send(now, id, event);
    watcher.last_sent = now;
    *budget = budget.saturating_sub(event.len().max(WATCH_CHANGE_BYTES));
    true
}
