//! A stream of changes, over all the connections that it takes: every change of its keys in order, each once, none left
//! out, whole entries, and nothing said that is not so (K1 to K8).

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::model::{Change, Kind, Model};

/// Which keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Subject {
    Key(String),
    Prefix(String),
}

/// Something that came on a stream.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) name: String,
    /// Where to go on.
    pub(crate) id: Option<u64>,
    pub(crate) data: Value,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, id {:?}: {:.200}", self.name, self.id, self.data.to_string())
    }
}

/// See the module's text.
pub(crate) struct Stream {
    subject: Subject,
    /// The position of the first of the model's changes that is not accounted for.
    next: usize,
    /// After a reset: keys with their revisions and values.
    shown: Option<BTreeMap<String, (u64, String)>>,
    /// The revision of the last event that had no id: the next one must be of the same.
    open: Option<u64>,
    /// Where a new connection goes on.
    pub(crate) since: Option<u64>,
}

impl Subject {
    pub(crate) fn contains(&self, key: &str) -> bool {
        match self {
            Subject::Key(own) => own == key,
            Subject::Prefix(prefix) => key.starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stream { subject, next, shown, open, since } = self;
        let shown = shown.as_ref().map(|shown| shown.keys().collect::<Vec<_>>());
        write!(f, "stream of {subject:?} at change {next} (shown {shown:?}, open {open:?}, since {since:?})")
    }
}

impl Stream {
    pub(crate) fn new(subject: Subject) -> Stream {
        Stream { subject, next: 0, shown: None, open: None, since: None }
    }

    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// A connection's head says which revision the node has applied; it was asked to go on at `self.since`.
    pub(crate) fn begin(&mut self, model: &Model, applied: u64) {
        let from = self.since.unwrap_or(applied);
        assert!(from <= applied, "a stream from {from} on begins on a node that has {applied}");
        self.next = model.change_after(from);
        (self.shown, self.open) = (None, None);
        self.since = Some(from);
    }

    /// The next change of the keys that is not accounted for.
    fn skip_others<'a>(&mut self, model: &'a Model) -> Option<&'a Change> {
        while let Some(change) = model.changes.get(self.next) {
            if self.subject.contains(&change.key) {
                return Some(change);
            }
            self.next += 1;
        }
        None
    }

    /// Whether it has got all that there is.
    pub(crate) fn is_current(&mut self, model: &Model) -> bool {
        self.shown.is_none() && self.skip_others(model).is_none()
    }

    /// Whether more of the same entry must follow.
    pub(crate) fn is_within_entry(&self) -> bool {
        self.open.is_some()
    }

    /// Everything up to `revision` is said to have been sent.
    pub(crate) fn on_bookmark(&mut self, model: &Model, committed: u64, revision: u64) {
        assert!(revision <= committed, "{self:?} is told of {revision}, and {committed} are committed");
        assert!(self.shown.is_none(), "{self:?} is told of {revision} while keys are shown");
        assert_eq!(self.open, None, "{self:?} is told of {revision} within an entry");
        let missing = self.skip_others(model).filter(|change| change.revision <= revision);
        assert!(missing.is_none(), "{self:?} is told of {revision} and has not got {missing:?}");
        let since = self.since.expect("it has begun");
        assert!(revision >= since, "{self:?} is told of {revision} after {since}");
        self.since = Some(revision);
    }

    /// Something came. Says whether it was the end of what follows a reset.
    pub(crate) fn on_event(&mut self, model: &Model, committed: u64, event: &Event) -> bool {
        let revision = event.data["revision"].as_u64().unwrap_or_else(|| panic!("no revision: {event:?}"));
        assert!(revision <= committed, "{event:?} is not committed");
        assert!(event.id.is_none_or(|id| id == revision), "{event:?}");
        match event.name.as_str() {
            "reset" => {
                // Also in the middle of anything: the node may have installed a snapshot meanwhile.
                assert!(event.id.is_none(), "{event:?} on {self:?}");
                self.open = None;
                self.shown = Some(BTreeMap::new());
                false
            }
            "sync" => self.on_sync(model, event, revision),
            _ if self.shown.is_some() => {
                self.on_shown(model, event, revision);
                false
            }
            _ => {
                self.on_change(model, event, revision);
                false
            }
        }
    }

    /// All keys were shown: they are the state at the event's revision.
    fn on_sync(&mut self, model: &Model, event: &Event, revision: u64) -> bool {
        let shown = self.shown.take().unwrap_or_else(|| panic!("{event:?} without a reset on {self:?}"));
        assert_eq!(event.id, Some(revision), "{event:?}");
        let prefix = match &self.subject {
            Subject::Key(prefix) | Subject::Prefix(prefix) => prefix.clone(),
        };
        let state = model.range(&prefix, revision).filter(|(key, _)| self.subject.contains(key));
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let state: BTreeMap<String, (u64, String)> =
            state.map(|(key, content)| (key.to_string(), (content.revision, text(&content.value)))).collect();
        assert_eq!(shown, state, "what was shown is not the state at {revision}: {:?}", self.subject);
        let since = self.since.expect("it has begun");
        assert!(revision >= since, "{event:?} goes back behind {since}");
        self.next = model.change_after(revision);
        self.since = Some(revision);
        true
    }

    fn on_shown(&mut self, model: &Model, event: &Event, revision: u64) {
        assert_eq!(event.id, None, "{event:?} while keys are shown on {self:?}");
        let key = event.data["key"].as_str().unwrap_or_default().to_owned();
        assert!(self.subject.contains(&key), "{event:?} on {self:?}");
        let shown = self.shown.as_mut().expect("the caller has looked");
        if event.name != "put" {
            shown.remove(&key).unwrap_or_else(|| panic!("{event:?} of a key that was not shown"));
            return;
        }
        let content = model.at(&key, revision).filter(|content| content.revision == revision);
        let value = event.data["value"].as_str().unwrap_or_default();
        let is_right = content.is_some_and(|content| *content.value == *value.as_bytes());
        assert!(is_right, "{event:?} shows what never was");
        let before = shown.insert(key, (revision, value.to_owned()));
        assert!(before.is_none_or(|(before, _)| before < revision), "{event:?} again, or older than before");
    }

    fn on_change(&mut self, model: &Model, event: &Event, revision: u64) {
        let expected = self.skip_others(model).cloned();
        let Some(expected) = expected else { panic!("{event:?} again, or never happened: {self:?}") };
        let kind = match event.name.as_str() {
            "put" => Kind::Put,
            "delete" => Kind::Delete,
            "expire" => Kind::Expire,
            other => panic!("no such event as {other}"),
        };
        let is_same = expected.revision == revision
            && expected.kind == kind
            && event.data["key"] == *expected.key
            && event.data.get("value").and_then(Value::as_str).map(str::as_bytes)
                == expected.value.as_deref();
        assert!(is_same, "{event:?} instead of {expected:?} on {self:?}");
        self.next += 1;
        let is_last = self.skip_others(model).is_none_or(|next| next.revision > revision);
        assert_eq!(event.id.is_some(), is_last, "{event:?} is the last of its entry or is not: {self:?}");
        self.open = (!is_last).then_some(revision);
        if is_last {
            self.since = Some(revision);
        }
    }
}
