//! A client that follows keys, and holds what it gets against what has really happened.

use keva::net::watch::Format;

use crate::watch_event::{Event, parse};
use crate::world::{Kind, Record, Truth};

/// Where a reader is: behind this change. `None`: behind all of that revision.
type Place = (u64, Option<String>);

/// What a reader expects.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    /// The next change behind this place.
    Live(Place),
    /// Keys, as they are, and their changes: what it knows of them.
    Shown(std::collections::BTreeMap<String, (u64, Vec<u8>)>),
}

#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) prefix: String,
    pub(crate) is_exact: bool,
    pub(crate) format: Format,
    /// Where it goes on after its connection broke. `Some(0)`: shows it all keys.
    pub(crate) resume: Option<u64>,
    phase: Phase,
    /// Resets that have a reason.
    pub(crate) resets_allowed: usize,
    /// The last revision that it was told to have everything of.
    pub(crate) told: u64,
    /// Bytes without the end of their event.
    rest: Vec<u8>,
    pub(crate) resets: usize,
}

impl Reader {
    pub(crate) fn new(prefix: &str, is_exact: bool, format: Format, resume: Option<u64>) -> Reader {
        Reader {
            prefix: prefix.into(),
            is_exact,
            format,
            resume,
            phase: Phase::Live((0, None)),
            resets_allowed: 0,
            told: 0,
            rest: Vec::new(),
            resets: 0,
        }
    }

    pub(crate) fn follows(&self, key: &str) -> bool {
        if self.is_exact { key == self.prefix } else { key.starts_with(&self.prefix) }
    }

    /// A new connection: whatever has a higher revision is to come.
    pub(crate) fn connected(&mut self, above: u64, may_be_reset: bool) {
        self.phase = Phase::Live((above, None));
        self.resets_allowed = usize::from(may_be_reset);
        self.rest.clear();
        self.told = 0;
    }

    /// Takes bytes of the stream, cut anywhere.
    pub(crate) fn read(&mut self, bytes: &[u8], truth: &Truth) {
        self.rest.extend_from_slice(bytes);
        let end: &[u8] = if self.format == Format::JsonLines { b"\n" } else { b"\n\n" };
        while let Some(at) = self.rest.windows(end.len()).position(|window| window == end) {
            let event: Vec<u8> = self.rest.drain(..at + end.len()).collect();
            let event = parse(self.format, &event);
            self.take(event, truth);
        }
    }

    fn take(&mut self, event: Event, truth: &Truth) {
        assert!(event.revision <= truth.revision(), "K8: {event:?} is from the future");
        match event.name.as_str() {
            "bookmark" => self.on_bookmark(event.revision, truth),
            "reset" => {
                assert!(self.resets_allowed > 0, "K4: a reset without a reason");
                assert!(!event.is_resumable, "nobody can go on from a reset");
                self.resets_allowed -= 1;
                self.resets += 1;
                self.phase = Phase::Shown(std::collections::BTreeMap::new());
            }
            "sync" => self.on_sync(&event, truth),
            _ => self.on_change(event, truth),
        }
    }

    /// K6
    fn on_bookmark(&mut self, revision: u64, truth: &Truth) {
        let Phase::Live(place) = &self.phase else { panic!("K6: a bookmark while keys are shown") };
        if let Some(next) = self.next_after(place, truth) {
            assert!(next.revision > revision, "K6: {next:?} was not sent, but {revision} was said");
        }
        assert!(revision >= place.0, "K6: a bookmark went back from {place:?} to {revision}");
        self.told = revision;
        self.phase = Phase::Live((revision, None));
    }

    fn on_sync(&mut self, event: &Event, truth: &Truth) {
        let Phase::Shown(shown) = &self.phase else { panic!("a sync without a reset") };
        let state = truth.state(event.revision);
        let expected: Vec<_> = state.iter().filter(|(key, _)| self.follows(key)).collect();
        let shown: Vec<_> = shown.iter().collect();
        assert!(
            shown == expected,
            "K4: at {} the keys are {expected:?}, shown were {shown:?}",
            event.revision
        );
        assert!(event.is_resumable, "who has all can go on");
        self.resume = Some(event.revision);
        self.told = event.revision;
        self.phase = Phase::Live((event.revision, None));
    }

    fn on_change(&mut self, event: Event, truth: &Truth) {
        let key = event.key.clone().expect("a change has a key");
        if let Phase::Shown(shown) = &mut self.phase {
            assert!(!event.is_resumable, "K4: who goes on from {event:?} misses the rest of the keys");
            let known = shown.get(&key).map_or(0, |(revision, _)| *revision);
            assert!(event.revision > known, "K1, K2: {key:?} goes from {known} to {}", event.revision);
            truth.check(&event);
            match event.value {
                Some(value) => shown.insert(key, (event.revision, value)),
                None => shown.remove(&key),
            };
            return;
        }
        let Phase::Live(place) = &self.phase else { unreachable!("looked at above") };
        let next = self.next_after(place, truth);
        let next = next.unwrap_or_else(|| panic!("K2, K8: {event:?} behind {place:?}, where nothing is"));
        assert_eq!(
            (event.revision, &key),
            (next.revision, &next.key),
            "K1, K2, K3: behind {place:?}, not {event:?}"
        );
        truth.check(&event);
        let is_last = self
            .next_after(&(next.revision, Some(key.clone())), truth)
            .is_none_or(|after| after.revision > next.revision);
        assert_eq!(event.is_resumable, is_last, "K5: {event:?}");
        self.phase = Phase::Live((event.revision, Some(key)));
        if is_last {
            self.resume = Some(event.revision);
        }
    }

    fn next_after<'a>(&self, place: &Place, truth: &'a Truth) -> Option<&'a Record> {
        let is_behind = |record: &Record| match &place.1 {
            _ if record.revision > place.0 => true,
            Some(key) => record.revision == place.0 && record.key > *key,
            None => false,
        };
        truth.from(place.0).find(|record| is_behind(record) && self.follows(&record.key))
    }

    /// K3: everything is here, and that was said.
    pub(crate) fn check_complete(&self, truth: &Truth) {
        let Phase::Live(place) = &self.phase else { panic!("{self:?} never got a sync") };
        assert_eq!(self.next_after(place, truth), None, "K3: missing behind {place:?}");
        assert_eq!(self.told, truth.revision(), "K6: an idle stream says how far it is");
    }
}

impl Truth {
    /// That an event tells what has happened.
    fn check(&self, event: &Event) {
        let record = self.from(event.revision).find(|record| Some(&record.key) == event.key.as_ref());
        let record = record.filter(|record| record.revision == event.revision);
        let record = record.unwrap_or_else(|| panic!("K8: {event:?} never happened"));
        let (name, value) = match &record.kind {
            Kind::Put(value) => ("put", Some(value)),
            Kind::Delete => ("delete", None),
            Kind::Expire => ("expire", None),
        };
        assert_eq!((event.name.as_str(), event.value.as_ref()), (name, value), "at {}", event.revision);
    }
}
