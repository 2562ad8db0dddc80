//! Whether everybody who follows keys has learned everything that has happened to them, in order, once, and nothing else.
//!
//! What has happened is what those who follow all keys have seen of each entry. It must be explained by what the clients
//! have written, and the other way round: the events of an acknowledged write are those of the entry that its answer
//! named, and every other entry is a write whose outcome nobody knew, or an expiry. Everybody else must have seen the
//! same of the keys that it follows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use keva::net::watch::Format;

use super::mixer::{COUNTER, PREFIX};
use super::place::Observation;
use super::promises::Complaints;
use super::support::cluster::PATIENCE;
use super::support::watch_event::Event;
use super::tally::Tally;
use super::watcher::{Habit, Watcher};
use super::write::{Held, State, Write};

const PAUSE: Duration = Duration::from_millis(10);

/// All watchers of a cluster, and what has happened up to the last check.
#[derive(Debug)]
pub struct Feed {
    watchers: Vec<Watcher>,
    state: State,
    /// Everything up to here was checked.
    checked: u64,
    /// Writes that may have been done.
    unknown: Vec<Write>,
    start: Instant,
}

/// The events of an entry, and when they were first seen.
struct Entry {
    events: Vec<Event>,
    seen: Instant,
}

type Entries = BTreeMap<u64, Entry>;
type Keys = BTreeMap<String, (u64, Vec<u8>)>;

/// What is checked at once.
struct Section {
    end: u64,
    /// Of each watcher.
    observations: Vec<Vec<Observation>>,
    /// Its first one behind the end is a dump: it does not know everything up to the end.
    jumps: Vec<bool>,
    entries: Entries,
    /// Revisions that nobody who follows all keys has seen as they came. The last one is that of a dump.
    unseen: Vec<RangeInclusive<u64>>,
}

impl Feed {
    /// Watchers of a cluster without keys.
    pub fn start(nodes: &[SocketAddr], seed: u64) -> Feed {
        let (sse, lines) = (Format::ServerSentEvents, Format::JsonLines);
        let all = |format, is_slow| Habit { name: "", is_key: false, format, is_slow };
        let some = |name, format, is_slow| Habit { name, is_key: false, format, is_slow };
        let habits = [
            all(sse, false),
            all(lines, false),
            all(sse, true),
            some(PREFIX, sse, false),
            some(PREFIX, lines, true),
            some("w", lines, false),
            some("r", sse, false),
            Habit { name: COUNTER, is_key: true, format: sse, is_slow: false },
        ];
        let start = |(number, habit)| Watcher::start(habit, nodes.to_vec(), seed.wrapping_add(number));
        Feed {
            watchers: (1..).zip(habits).map(start).collect(),
            state: State::new(),
            checked: 0,
            unknown: Vec::new(),
            start: Instant::now(),
        }
    }

    /// Waits until everybody has got as far as the write with the revision `end`, and checks everything up to it. `writes`
    /// are all that were answered, or given up, since the last check; nobody writes any more.
    pub fn check(&mut self, end: u64, writes: Vec<Write>, tally: &mut Tally, complaints: &mut Complaints) {
        if !self.wait(end, tally, complaints) {
            return;
        }
        let section = self.section(end, tally, complaints);
        let (done, unknown): (Vec<_>, Vec<_>) =
            writes.into_iter().partition(|write| write.revision.is_some());
        self.unknown.extend(unknown);
        let mut by_revision = BTreeMap::new();
        for write in done {
            let revision = write.revision.expect("just looked at");
            if let Some(before) = by_revision.insert(revision, write) {
                complaints.add(tally, format!("two writes were done at {revision}: {before:?}"));
            }
        }
        if let Some((revision, write)) =
            by_revision.iter().find(|(revision, _)| **revision <= self.checked || **revision > end)
        {
            let text = format!("{write:?} was done at {revision}, not between {} and {end}", self.checked);
            complaints.add(tally, text);
        }
        let before = self.checked;
        self.replay(&section, &by_revision, tally, complaints);
        for number in 0..self.watchers.len() {
            self.compare(number, before, &section, tally, complaints);
        }
        self.checked = end;
    }

    fn wait(&self, end: u64, tally: &mut Tally, complaints: &mut Complaints) -> bool {
        let deadline = Instant::now() + PATIENCE;
        for watcher in &self.watchers {
            loop {
                let notes = watcher.notes();
                let (revision, problem) = (notes.revision, notes.problem.clone());
                drop(notes);
                if let Some(problem) = problem {
                    complaints.add(tally, format!("{}: {problem}", watcher.habit));
                    return false;
                }
                if revision >= end {
                    break;
                }
                if Instant::now() > deadline {
                    let text =
                        format!("{} is at {revision} and not at {end} after all this time", watcher.habit);
                    complaints.add(tally, text);
                    return false;
                }
                std::thread::sleep(PAUSE);
            }
        }
        true
    }

    /// Takes what everybody has learned, and puts together what has happened.
    fn section(&self, end: u64, tally: &mut Tally, complaints: &mut Complaints) -> Section {
        let mut section = Section {
            end,
            observations: Vec::new(),
            jumps: Vec::new(),
            entries: Entries::new(),
            unseen: Vec::new(),
        };
        let mut seen = Vec::new();
        for watcher in &self.watchers {
            let mut notes = watcher.notes();
            let count = notes.observations.partition_point(|observation| observation.revision() <= end);
            let observations: Vec<Observation> = notes.observations.drain(..count).collect();
            section.jumps.push(matches!(notes.observations.front(), Some(Observation::Dump { .. })));
            tally.streams += std::mem::take(&mut notes.streams);
            drop(notes);
            if watcher.habit.name.is_empty() {
                let mut place = self.checked;
                for observation in &observations {
                    let is_dump = matches!(observation, Observation::Dump { .. });
                    let revision = observation.revision();
                    if !is_dump {
                        seen.push((place, revision));
                    }
                    place = revision;
                    if let Observation::Entry { revision, events, at } = observation {
                        add_entry(&mut section.entries, *revision, events, *at, tally, complaints);
                    }
                }
                if !section.jumps.last().expect("just pushed") {
                    seen.push((place, end));
                }
            }
            section.observations.push(observations);
        }
        section.unseen = rest(seen, self.checked, end);
        tally.unseen += section.unseen.iter().map(|range| range.end() - range.start() + 1).sum::<u64>();
        section
    }

    /// Goes through the section entry by entry.
    fn replay(
        &mut self,
        section: &Section,
        done: &BTreeMap<u64, Write>,
        tally: &mut Tally,
        complaints: &mut Complaints,
    ) {
        let mut dumps: Vec<(u64, usize, &Keys)> = Vec::new();
        for (number, observations) in section.observations.iter().enumerate() {
            for observation in observations {
                if let Observation::Dump { revision, keys } = observation {
                    dumps.push((*revision, number, keys));
                }
            }
        }
        tally.dumps += dumps.len() as u64;
        dumps.sort_by_key(|(revision, number, _)| (*revision, *number));
        let revisions: BTreeSet<u64> = section
            .entries
            .keys()
            .chain(done.keys())
            .copied()
            .chain(dumps.iter().map(|(revision, ..)| *revision))
            .collect();
        let mut dumps = dumps.into_iter().peekable();
        for revision in revisions {
            let unseen = section.unseen.iter().find(|range| range.contains(&revision));
            if unseen.is_none() {
                self.replay_entry(
                    revision,
                    section.entries.get(&revision),
                    done.get(&revision),
                    tally,
                    complaints,
                );
            }
            while let Some((_, number, keys)) = dumps.next_if(|dump| dump.0 == revision) {
                let habit = &self.watchers[number].habit;
                if unseen.is_some_and(|range| *range.end() == revision) && habit.name.is_empty() {
                    self.state = state_of(keys, self.start);
                } else if unseen.is_none() {
                    tally.events += keys.len() as u64;
                    check_dump(habit, revision, keys, &self.state, tally, complaints);
                }
            }
        }
    }

    fn replay_entry(
        &mut self,
        revision: u64,
        entry: Option<&Entry>,
        done: Option<&Write>,
        tally: &mut Tally,
        complaints: &mut Complaints,
    ) {
        let events = entry.map_or(&[][..], |entry| &entry.events);
        let is_of = |write: &Write| is_same(&write.events(&self.state), events);
        let write = match done {
            Some(write) if is_of(write) => Some(write.clone()),
            Some(write) => {
                let keys: Vec<String> = write.events(&self.state).into_keys().collect();
                let text = format!(
                    "{revision}: acknowledged {write:?} should be seen of {keys:?}, seen was {events:?}"
                );
                complaints.add(tally, text);
                None
            }
            None if events.is_empty() => None,
            None if events.iter().all(|event| event.name == "expire") => {
                self.check_expiry(events, entry.expect("it has events").seen, tally, complaints);
                None
            }
            None => {
                let key = events[0].key.as_deref().expect("a change has a key");
                let found = self.unknown.iter().position(|write| write.concerns(key) && is_of(write));
                if found.is_none() {
                    complaints.add(tally, format!("{revision}: nobody has written {events:?}"));
                }
                found.map(|at| self.unknown.swap_remove(at))
            }
        };
        for event in events {
            let key = event.key.clone().expect("a change has a key");
            match &event.value {
                None => {
                    self.state.remove(&key);
                }
                Some(value) => {
                    let lives_until = write.as_ref().and_then(|write| write.lives_until(&key));
                    self.state.insert(key, Held { revision, value: value.clone(), lives_until });
                }
            }
        }
    }

    /// J3: no life is shorter than it was asked to be.
    fn check_expiry(&self, events: &[Event], seen: Instant, tally: &mut Tally, complaints: &mut Complaints) {
        for event in events {
            let held = event.key.as_ref().and_then(|key| self.state.get(key));
            match held.and_then(|held| held.lives_until) {
                Some(until) if until <= seen => tally.expiries += 1,
                Some(until) => complaints.add(tally, format!("{event:?} is {:?} too early", until - seen)),
                None => complaints.add(tally, format!("{event:?}, which had no end: {held:?}")),
            }
        }
    }

    /// A watcher against what has happened.
    fn compare(
        &self,
        number: usize,
        before: u64,
        section: &Section,
        tally: &mut Tally,
        complaints: &mut Complaints,
    ) {
        let habit = &self.watchers[number].habit;
        let mut entries = section
            .entries
            .iter()
            .filter_map(|(revision, entry)| {
                let own: Vec<&Event> = entry
                    .events
                    .iter()
                    .filter(|event| event.key.as_ref().is_some_and(|key| habit.follows(key)))
                    .collect();
                (!own.is_empty()).then_some((*revision, own))
            })
            .peekable();
        let is_unseen = |from: u64, to: u64| {
            section.unseen.iter().any(|range| *range.start() <= to && from < *range.end())
        };
        let mut lost = |from: u64, to: u64, entries: Vec<(u64, Vec<&Event>)>| {
            if !entries.is_empty() && !is_unseen(from, to) {
                complaints.add(tally, format!("lost: {habit} between {from} and {to}: {entries:?}"));
            }
        };
        let mut place = before;
        let mut wrong = Vec::new();
        let mut count = 0;
        for observation in &section.observations[number] {
            let revision = observation.revision();
            let skipped = std::iter::from_fn(|| entries.next_if(|(next, _)| *next < revision)).collect();
            let present = entries.next_if(|(next, _)| *next == revision);
            match observation {
                Observation::Entry { events, .. } => {
                    lost(place, revision, skipped);
                    count += events.len() as u64;
                    let expected = present.map(|(_, events)| events).unwrap_or_default();
                    if !is_equal(events, &expected) && !is_unseen(place, revision) {
                        wrong.push(format!("{habit} got {events:?}, others have seen {expected:?}"));
                    }
                }
                Observation::UpTo(_) => {
                    lost(place, revision, skipped);
                    // When it had come before, it is not there once more.
                    lost(place, revision, present.filter(|_| revision > place).into_iter().collect());
                }
                Observation::Dump { .. } => {}
            }
            place = revision;
        }
        if !section.jumps[number] {
            lost(place, section.end, entries.collect());
        }
        wrong.into_iter().for_each(|text| complaints.add(tally, text));
        tally.events += count;
    }
}

fn add_entry(
    entries: &mut Entries,
    revision: u64,
    events: &[Event],
    at: Instant,
    tally: &mut Tally,
    complaints: &mut Complaints,
) {
    let first = entries.entry(revision).or_insert_with(|| Entry { events: events.to_vec(), seen: at });
    first.seen = first.seen.min(at);
    if first.events != events {
        complaints.add(tally, format!("two see different entries: {:?} and {events:?}", first.events));
    }
}

/// What is left of `(from, end]` without these parts.
fn rest(mut parts: Vec<(u64, u64)>, from: u64, end: u64) -> Vec<RangeInclusive<u64>> {
    parts.sort_unstable();
    let mut place = from;
    let mut rest = Vec::new();
    for (first, last) in parts {
        if first > place {
            rest.push(place + 1..=first);
        }
        place = place.max(last);
    }
    if place < end {
        rest.push(place + 1..=end);
    }
    rest
}

fn is_same(expected: &BTreeMap<String, Option<Vec<u8>>>, events: &[Event]) -> bool {
    expected.len() == events.len()
        && expected.iter().zip(events).all(|((key, value), event)| {
            let name = if value.is_some() { "put" } else { "delete" };
            event.key.as_ref() == Some(key) && event.name == name && event.value == *value
        })
}

/// Whether two have seen the same. Where a client may go on depends on what it follows.
fn is_equal(events: &[Event], expected: &[&Event]) -> bool {
    events.len() == expected.len()
        && events.iter().zip(expected).all(|(event, expected)| {
            (&event.name, &event.key, &event.value) == (&expected.name, &expected.key, &expected.value)
        })
}

fn state_of(keys: &Keys, lives_until: Instant) -> State {
    let held = |(revision, value): &(u64, Vec<u8>)| Held {
        revision: *revision,
        value: value.clone(),
        // What was given to it is not known.
        lives_until: Some(lives_until),
    };
    keys.iter().map(|(key, item)| (key.clone(), held(item))).collect()
}

fn check_dump(
    habit: &Habit,
    revision: u64,
    keys: &Keys,
    state: &State,
    tally: &mut Tally,
    complaints: &mut Complaints,
) {
    let shown = keys.iter().map(|(key, (revision, value))| (key, *revision, value));
    let own = state.iter().filter(|(key, _)| habit.follows(key));
    let expected = own.map(|(key, held)| (key, held.revision, &held.value));
    if shown.clone().eq(expected.clone()) {
        return;
    }
    let differs = shown.zip(expected).find(|(shown, expected)| shown != expected);
    complaints
        .add(tally, format!("K4: {habit} was shown other keys at {revision}, beginning with {differs:?}"));
}
