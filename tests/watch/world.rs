//! A state machine with its history, a hub, and pipes to watchers that take as much as a test lets them.

use std::collections::BTreeMap;
use std::sync::Arc;

use keva::kv::command::Command;
use keva::kv::history::History;
use keva::kv::payload::Payload;
use keva::kv::session::WriteId;
use keva::kv::store::Store;
use keva::limits::WATCH_BUFFER_BYTES_MAX;
use keva::net::watch::{Filter, Fired, Hub, Outlets};
use keva::raft::types::{Incarnation, Index, NodeId};
use keva::util::time::{LogicalTime, Millis};

use crate::reader::Reader;

/// What happened to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Put(Vec<u8>),
    Delete,
    Expire,
}

/// A change, found by comparing the states before and after an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) revision: u64,
    pub(crate) key: String,
    pub(crate) kind: Kind,
}

type State = BTreeMap<String, (u64, Vec<u8>)>;

/// All that has happened.
#[derive(Default, Debug)]
pub(crate) struct Truth {
    states: Vec<State>,
    /// By revision, and by key within one.
    records: Vec<Record>,
}

impl Truth {
    fn note(&mut self, store: &Store, is_expiry: bool) {
        let item = |item: &keva::kv::store::Item| (item.revision.0, item.value.to_vec());
        let state: State = store
            .range(&keva::kv::range::KeyRange::default())
            .map(|(key, value)| (key.to_owned(), item(value)))
            .collect();
        let revision = store.applied_index().0;
        let empty = State::new();
        let before = self.states.last().unwrap_or(&empty);
        let mut records = BTreeMap::new();
        for key in before.keys().filter(|key| !state.contains_key(*key)) {
            records.insert(key.clone(), if is_expiry { Kind::Expire } else { Kind::Delete });
        }
        for (key, (_, value)) in state.iter().filter(|(_, (written, _))| *written == revision) {
            records.insert(key.clone(), Kind::Put(value.clone()));
        }
        self.records.extend(records.into_iter().map(|(key, kind)| Record { revision, key, kind }));
        self.states.push(state);
        assert_eq!(self.states.len() as u64, revision);
    }

    pub(crate) fn revision(&self) -> u64 {
        self.states.len() as u64
    }

    pub(crate) fn state(&self, revision: u64) -> State {
        if revision == 0 { State::new() } else { self.states[revision as usize - 1].clone() }
    }

    /// Changes of this revision and above.
    pub(crate) fn from(&self, revision: u64) -> impl Iterator<Item = &Record> {
        let at = self.records.partition_point(|record| record.revision < revision);
        self.records[at..].iter()
    }
}

/// What lies between the hub and a reader.
#[derive(Default, Debug)]
pub(crate) struct Pipe {
    pub(crate) unsent: Vec<u8>,
    pub(crate) is_open: bool,
    /// The hub is told when there is room.
    pub(crate) is_full: bool,
    pub(crate) is_closed: bool,
    pub(crate) events: usize,
}

#[derive(Default, Debug)]
pub(crate) struct Pipes(pub(crate) BTreeMap<u64, Pipe>);

impl Outlets<u64> for Pipes {
    fn unsent_bytes(&self, id: u64) -> Option<usize> {
        self.0.get(&id).filter(|pipe| pipe.is_open).map(|pipe| pipe.unsent.len())
    }

    fn send(&mut self, _now: Millis, id: u64, event: &Arc<[u8]>) {
        let pipe = self.0.get_mut(&id).expect("events are for watchers");
        assert!(pipe.is_open, "nothing is sent to one that takes nothing");
        let before = pipe.unsent.len();
        pipe.unsent.extend_from_slice(event);
        pipe.events += 1;
        pipe.is_full = true;
        assert!(before == 0 || pipe.unsent.len() <= WATCH_BUFFER_BYTES_MAX, "I10: the buffer is bounded");
    }

    fn close(&mut self, id: u64) {
        let pipe = self.0.get_mut(&id).expect("only watchers are closed");
        pipe.is_open = false;
        pipe.is_closed = true;
    }
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) history: History,
    pub(crate) hub: Hub<u64>,
    pub(crate) pipes: Pipes,
    pub(crate) truth: Truth,
    pub(crate) now: Millis,
    pub(crate) fired: Vec<(u64, Fired)>,
    next_id: u64,
}

impl World {
    pub(crate) fn new(history_bytes: usize) -> World {
        let (mut store, history) = (Store::default(), History::new(Index(0), history_bytes));
        store.set_changes_max(history_bytes);
        let hub = Hub::new(&history, &store);
        World {
            store,
            history,
            hub,
            pipes: Pipes::default(),
            truth: Truth::default(),
            now: Millis(1_000),
            fired: Vec::new(),
            next_id: 1,
        }
    }

    fn apply_one(&mut self, command: Command) {
        let index = self.store.applied_index().next();
        let is_expiry = matches!(command, Command::Expire { .. });
        let seq = if command.is_internal() { 0 } else { index.0 };
        let id = WriteId { origin: NodeId(1), incarnation: Incarnation(1), seq };
        let _ = self.store.apply(index, Payload { id, time: LogicalTime(self.now.0), write: command.into() });
        self.truth.note(&self.store, is_expiry);
    }

    pub(crate) fn apply(&mut self, command: Command) {
        self.apply_one(command);
        match self.store.take_changes() {
            Some(changes) => self.history.push(changes),
            None => self.history.clear(self.store.applied_index()),
        }
    }

    /// An entry without a command.
    pub(crate) fn pass(&mut self) {
        self.store.pass(self.store.applied_index().next());
        assert_eq!(self.store.take_changes(), Some(Vec::new()));
        self.truth.note(&self.store, false);
    }

    /// The leader's snapshot comes instead of the entries.
    pub(crate) fn install(&mut self, commands: Vec<Command>) {
        for command in commands {
            self.apply_one(command);
        }
        let _ = self.store.take_changes();
        self.history.clear(self.store.applied_index());
    }

    /// The keys whose life is over.
    pub(crate) fn expire(&mut self) {
        let keys = self.store.expired(LogicalTime(self.now.0), 100);
        if !keys.is_empty() {
            self.apply(Command::Expire { keys });
        }
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Watchers do not know what has happened.
    pub(crate) fn has_gap(&self) -> bool {
        self.history.floor() > self.hub.revision()
    }

    pub(crate) fn watch(&mut self, filter: Filter, reader: &mut Reader) -> u64 {
        let id = self.new_id();
        self.pipes.0.insert(id, Pipe { is_open: true, is_full: true, ..Pipe::default() });
        let applied = self.store.applied_index();
        let since = reader.resume.map(Index);
        let is_kept = since.is_none_or(|since| since.0 > 0 && self.history.number_after(since).is_some());
        self.hub
            .watch(self.now, id, filter, reader.format, since, &self.history, &self.store)
            .expect("there is room");
        reader.connected(since.unwrap_or(applied).0, !is_kept);
        id
    }

    pub(crate) fn pump(&mut self) {
        self.hub.pump(self.now, &self.history, &self.store, &mut self.pipes);
        self.fired.extend(self.hub.take_fired());
    }

    /// Lets a reader take up to `count` bytes.
    pub(crate) fn read(&mut self, id: u64, count: usize, reader: &mut Reader) {
        let pipe = self.pipes.0.get_mut(&id).expect("a pipe");
        let count = count.min(pipe.unsent.len());
        let bytes: Vec<u8> = pipe.unsent.drain(..count).collect();
        // As in `keva::net::event_loop`.
        if pipe.is_open && pipe.is_full && pipe.unsent.len() <= WATCH_BUFFER_BYTES_MAX / 2 {
            pipe.is_full = !pipe.unsent.is_empty();
            self.hub.drained(id);
        }
        reader.read(&bytes, &self.truth);
    }
}
