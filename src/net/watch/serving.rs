//! Watchers that are behind, are shown all keys, or are owed a word.

use std::hash::Hash;

use crate::limits::{WATCH_CHANGE_BYTES, WATCH_CHANGES_PER_SLICE_MAX};
use crate::net::watch::dump::Dump;
use crate::net::watch::event::{Format, Resume};
use crate::net::watch::filter::Filter;
use crate::net::watch::hub::{Hub, Outlets, is_shown, resume, try_send};
use crate::net::watch::watcher::{Fired, Kind};
use crate::replica::io::{History, KeyRange, Store};
use crate::util::mutation::mutant;
use crate::util::time::Millis;

/// How a slice of work for one watcher ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slice {
    /// It is done with this kind of work.
    Done,
    /// There is more, when the others had their turn.
    More,
    /// It takes nothing more for the moment, or is no watcher any more.
    Stuck,
}

impl<I: Copy + Ord + Hash> Hub<I> {
    /// Watchers that have something to do take turns.
    pub(super) fn serve_ready(
        &mut self,
        now: Millis,
        history: &History,
        store: &Store,
        outlets: &mut impl Outlets<I>,
        budget: &mut usize,
    ) {
        while *budget > 0
            && let Some(id) = self.ready.pop_front()
        {
            *budget = budget.saturating_sub(WATCH_CHANGE_BYTES);
            let Some(watcher) = self.watchers.get_mut(&id) else { continue };
            watcher.is_ready = false;
            if self.serve(now, id, history, store, outlets, budget) == Slice::More {
                self.make_ready(id);
            }
        }
    }

    fn serve(
        &mut self,
        now: Millis,
        id: I,
        history: &History,
        store: &Store,
        outlets: &mut impl Outlets<I>,
        budget: &mut usize,
    ) -> Slice {
        if mutant("bookmark-too-early") && self.say_revision(now, id, outlets, budget) == Slice::Stuck {
            return Slice::Stuck;
        }
        let caught_up = self.catch_up(now, id, history, outlets, budget);
        if caught_up != Slice::Done {
            return caught_up;
        }
        let shown = self.show(now, id, store, outlets, budget);
        if shown != Slice::Done {
            return shown;
        }
        self.say_revision(now, id, outlets, budget)
    }

    /// Reads the history on for one that is behind.
    fn catch_up(
        &mut self,
        now: Millis,
        id: I,
        history: &History,
        outlets: &mut impl Outlets<I>,
        budget: &mut usize,
    ) -> Slice {
        let watcher = self.watchers.get_mut(&id).expect("the caller has looked");
        let Some(mut number) = watcher.behind else { return Slice::Done };
        if number < history.first_number() {
            if mutant("watch-passes-over-gap") {
                watcher.behind = Some(history.first_number());
                return Slice::More;
            }
            self.give_up(id, outlets);
            return Slice::Stuck;
        }
        let end = self.next.min(number.saturating_add(WATCH_CHANGES_PER_SLICE_MAX as u64));
        while number < end {
            let change = history.get(number).expect("it is kept, and nothing is taken away meanwhile");
            *budget = budget.saturating_sub(WATCH_CHANGE_BYTES);
            if watcher.wants(change) && is_shown(watcher, change) {
                let Kind::Stream(format) = watcher.kind else {
                    self.fire(id, Fired::News(change.clone()));
                    return Slice::Stuck;
                };
                let resume = resume(watcher, number, change, history);
                let event = self.shared.get(number, change, format, resume);
                let is_out = *budget == 0;
                if is_out || !try_send(now, id, watcher, &event, outlets, budget) {
                    watcher.behind = Some(number);
                    return if is_out { Slice::More } else { Slice::Stuck };
                }
            }
            if *budget == 0 {
                watcher.behind = Some(number + 1);
                return Slice::More;
            }
            number += 1;
        }
        if number < self.next {
            watcher.behind = Some(number);
            return Slice::More;
        }
        watcher.behind = None;
        Slice::Done
    }

    /// What it wants to see is not kept any more.
    fn give_up(&mut self, id: I, outlets: &mut impl Outlets<I>) {
        match self.watchers[&id].kind {
            Kind::Wait(_) => self.fire(id, Fired::Unknown),
            Kind::Stream(_) => {
                self.remove(id);
                outlets.close(id);
            }
        }
    }

    /// Shows the next keys to one that is shown all of them. Only called when all changes are handed out, and to one that
    /// is not behind: what it then sees of the state is what it has got of the changes.
    fn show(
        &mut self,
        now: Millis,
        id: I,
        store: &Store,
        outlets: &mut impl Outlets<I>,
        budget: &mut usize,
    ) -> Slice {
        let revision = self.revision;
        assert_eq!(revision, store.applied_index(), "keys are shown from the state that was handed out");
        let watcher = self.watchers.get_mut(&id).expect("the caller has looked");
        let Kind::Stream(format) = watcher.kind else { return Slice::Done };
        if watcher.dump == Some(Dump::Reset) {
            if !try_send(now, id, watcher, &format.reset(revision), outlets, budget) {
                return Slice::Stuck;
            }
            watcher.dump = Some(Dump::Keys(None));
        }
        if matches!(watcher.dump, Some(Dump::Keys(_))) {
            let shown = self.show_keys(now, id, format, store, outlets, budget);
            if shown != Slice::Done {
                return shown;
            }
        }
        let watcher = self.watchers.get_mut(&id).expect("as above");
        if watcher.dump == Some(Dump::Sync) {
            if !try_send(now, id, watcher, &format.sync(revision), outlets, budget) {
                return Slice::Stuck;
            }
            watcher.dump = None;
            watcher.owes_bookmark = false;
        }
        Slice::Done
    }

    fn show_keys(
        &mut self,
        now: Millis,
        id: I,
        format: Format,
        store: &Store,
        outlets: &mut impl Outlets<I>,
        budget: &mut usize,
    ) -> Slice {
        let watcher = self.watchers.get_mut(&id).expect("the caller has looked");
        let Some(Dump::Keys(last)) = watcher.dump.take() else { unreachable!("the caller has looked") };
        let range = rest(&watcher.filter, last.as_deref());
        let mut last = last;
        let mut result = Slice::Done;
        for (count, (key, item)) in store.range(&range).enumerate() {
            if *budget == 0 || count == WATCH_CHANGES_PER_SLICE_MAX {
                result = Slice::More;
                break;
            }
            let event = format.item(key, item, Resume::Later);
            if !try_send(now, id, watcher, &event, outlets, budget) {
                result = Slice::Stuck;
                break;
            }
            last = Some(key.into());
        }
        let is_done = result == Slice::Done || mutant("reset-without-later-keys");
        watcher.dump = Some(if is_done { Dump::Sync } else { Dump::Keys(last) });
        result
    }

    fn say_revision(
        &mut self,
        now: Millis,
        id: I,
        outlets: &mut impl Outlets<I>,
        budget: &mut usize,
    ) -> Slice {
        let watcher = self.watchers.get_mut(&id).expect("the caller has looked");
        let Kind::Stream(format) = watcher.kind else { return Slice::Done };
        if watcher.owes_bookmark {
            if !try_send(now, id, watcher, &format.bookmark(self.revision), outlets, budget) {
                return Slice::Stuck;
            }
            watcher.owes_bookmark = false;
        }
        Slice::Done
    }
}

/// What is left of the keys to be shown.
fn rest(filter: &Filter, last: Option<&str>) -> KeyRange {
    let after = last.map(str::to_owned);
    match filter {
        Filter::Key(key) => KeyRange {
            start: Some((**key).to_owned()),
            end: Some(format!("{key}\0")),
            after,
            ..KeyRange::default()
        },
        Filter::Range(range) => {
            let after = after.or_else(|| range.after.clone());
            KeyRange { after, ..(**range).clone() }
        }
    }
}
