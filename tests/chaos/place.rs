//! How far somebody is who follows keys, and what it may be sent next.

use std::collections::BTreeMap;
use std::time::Instant;

use super::support::watch_event::Event;

/// What somebody who follows keys has learned, in order.
#[derive(Clone, Debug)]
pub enum Observation {
    /// All events of an entry.
    Entry {
        /// The entry.
        revision: u64,
        /// In the order of their keys.
        events: Vec<Event>,
        /// When the last one was there.
        at: Instant,
    },
    /// Nothing else has happened up to here.
    UpTo(u64),
    /// What happened before is not known, and the keys are as follows.
    Dump {
        /// The state of this entry.
        revision: u64,
        /// The revisions and the values of all keys.
        keys: BTreeMap<String, (u64, Vec<u8>)>,
    },
}

impl Observation {
    /// Up to where it tells everything.
    pub fn revision(&self) -> u64 {
        match self {
            Observation::Entry { revision, .. }
            | Observation::UpTo(revision)
            | Observation::Dump { revision, .. } => *revision,
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Place {
    /// Everything up to here is known.
    pub revision: u64,
    /// The last event that a client may go on from.
    pub id: u64,
    /// Events of an entry that has more of them.
    entry: Vec<Event>,
    /// Keys are shown.
    shown: Option<BTreeMap<String, (u64, Vec<u8>)>>,
    /// The connection was asked for all keys.
    awaits_reset: bool,
}

impl Place {
    /// What was only in part there when the last connection ended will come once more.
    pub fn connected(&mut self, from_the_beginning: bool) {
        self.entry.clear();
        self.shown = None;
        self.awaits_reset = from_the_beginning;
    }

    /// Takes an event. `Err` says in what way it is wrong. `Ok(Some(_))` is what is known with it.
    pub fn take(&mut self, event: Event) -> Result<Option<Observation>, String> {
        if self.awaits_reset && event.name != "reset" {
            return Err(format!("K4: {event:?} without a reset, which was asked for"));
        }
        match event.name.as_str() {
            "reset" => {
                if event.is_resumable {
                    return Err(format!("K4: nobody can go on from {event:?}"));
                }
                self.awaits_reset = false;
                self.entry.clear();
                self.shown = Some(BTreeMap::new());
                Ok(None)
            }
            "bookmark" => self.take_bookmark(event.revision).map(Some),
            "sync" => self.take_sync(&event).map(Some),
            _ if self.shown.is_some() => self.take_shown(event).map(|()| None),
            _ => self.take_change(event),
        }
    }

    fn take_bookmark(&mut self, revision: u64) -> Result<Observation, String> {
        if self.shown.is_some() || !self.entry.is_empty() {
            return Err(format!("K6: a bookmark of {revision} in the middle of something"));
        }
        if revision < self.revision {
            return Err(format!("K6: a bookmark goes back from {} to {revision}", self.revision));
        }
        self.revision = revision;
        Ok(Observation::UpTo(revision))
    }

    fn take_sync(&mut self, event: &Event) -> Result<Observation, String> {
        let keys = self.shown.take().ok_or_else(|| format!("{event:?} without a reset"))?;
        if !event.is_resumable || event.revision < self.revision {
            return Err(format!("K4: {event:?} behind {}", self.revision));
        }
        (self.revision, self.id) = (event.revision, event.revision);
        Ok(Observation::Dump { revision: event.revision, keys })
    }

    fn take_shown(&mut self, event: Event) -> Result<(), String> {
        let shown = self.shown.as_mut().expect("the caller has looked");
        let key = event.key.clone().unwrap_or_default();
        let known = shown.get(&key).map_or(0, |(revision, _)| *revision);
        if event.is_resumable || event.revision <= known {
            return Err(format!("K1, K2, K4: {event:?} while keys are shown, known of revision {known}"));
        }
        match event.value {
            Some(value) => shown.insert(key, (event.revision, value)),
            None => shown.remove(&key),
        };
        Ok(())
    }

    fn take_change(&mut self, event: Event) -> Result<Option<Observation>, String> {
        let (revision, is_last) = (event.revision, event.is_resumable);
        if revision <= self.revision {
            return Err(format!("K1, K2, K6: {event:?} behind {}", self.revision));
        }
        if let Some(last) = self.entry.last()
            && (last.revision != revision || last.key >= event.key)
        {
            return Err(format!("K1, K5: {event:?} behind {last:?}"));
        }
        self.entry.push(event);
        if !is_last {
            return Ok(None);
        }
        (self.revision, self.id) = (revision, revision);
        let events = std::mem::take(&mut self.entry);
        Ok(Some(Observation::Entry { revision, events, at: Instant::now() }))
    }
}
