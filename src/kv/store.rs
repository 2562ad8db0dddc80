//! The keys and their values: what all nodes compute alike from the same log.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kv::command::Command;
use crate::kv::session::{Sessions, WriteId};
use crate::raft::types::Index;
use crate::util::hash::fnv1a_64;
use crate::util::mutation::mutant;

/// A key's value with what is known about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The bytes as written.
    pub value: Arc<[u8]>,
    /// What the writer called them.
    pub content_type: Option<Arc<str>>,
    /// The index of the write: the key's revision.
    pub revision: Index,
}

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It took effect.
    Written,
    /// Its condition did not hold; nothing changed.
    ConditionFailed {
        /// The key's revision at that moment, `None` when it is absent.
        current: Option<Index>,
    },
    /// It is not newer than a write of the same origin that came before it in the log: not executed, now or ever.
    Skipped,
}

/// The state machine. Everything in it follows from the log up to [`Store::applied_index`], and from nothing else.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Store {
    applied_index: Index,
    items: BTreeMap<Box<str>, Item>,
    sessions: Sessions,
}

impl Store {
    /// Carries out the command of the entry at `index`. Its condition is judged against the state that all entries
    /// before it have left, which is the only state that is the same on every node.
    ///
    /// # Panics
    /// When an entry is left out or repeated.
    pub fn apply(&mut self, index: Index, id: WriteId, command: Command) -> Applied {
        self.pass(index);
        if !self.sessions.advance(id) && !mutant("no-dedupe") {
            return Applied::Skipped;
        }
        let current = self.items.get(command.key()).map(|item| item.revision);
        if !command.condition().holds(current) && !mutant("conditions-ignored") {
            return Applied::ConditionFailed { current };
        }
        match command {
            Command::Put { key, value, content_type, .. } => {
                let content_type = content_type.map(Arc::from);
                self.items.insert(
                    key.into_boxed_str(),
                    Item { value: value.into(), content_type, revision: index },
                );
            }
            Command::Delete { key, .. } => {
                self.items.remove(key.as_str());
            }
        }
        Applied::Written
    }

    /// Notes that the entry at `index` is done: one without a command changes nothing.
    ///
    /// # Panics
    /// When an entry is left out or repeated.
    pub fn pass(&mut self, index: Index) {
        assert_eq!(index, self.applied_index.next(), "entries are applied in order, each once");
        self.applied_index = index;
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied_index(&self) -> Index {
        self.applied_index
    }

    /// The key's value, if it has one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Item> {
        self.items.get(key)
    }

    /// How many keys there are.
    #[must_use]
    pub fn key_count(&self) -> u64 {
        self.items.len() as u64
    }

    /// The newest write applied of each origin.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// A hash over everything: equal on any two nodes that have applied the same entries. Reads the whole state, so
    /// it is for tests and simulators, not for every turn.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        let mut hash = StateHash::default();
        hash.number(self.applied_index.0);
        hash.number(self.key_count());
        for (key, item) in &self.items {
            hash.bytes(key.as_bytes());
            hash.bytes(&item.value);
            hash.number(u64::from(item.content_type.is_some()));
            hash.bytes(item.content_type.as_deref().unwrap_or_default().as_bytes());
            hash.number(item.revision.0);
        }
        for id in self.sessions.iter() {
            hash.number(id.origin.0);
            hash.number(id.incarnation.0);
            hash.number(id.seq);
        }
        hash.0
    }
}

/// A running hash over a sequence of numbers and byte strings. Strings are hashed with their length, so that moving
/// a byte from one to the next changes the result.
#[derive(Default)]
struct StateHash(u64);

impl StateHash {
    fn number(&mut self, number: u64) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        self.0 = fnv1a_64(&bytes);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.number(fnv1a_64(bytes));
    }
}
