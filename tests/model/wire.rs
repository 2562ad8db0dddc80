//! A network that may do anything: lose, delay, reorder and repeat. It is the set of all messages ever sent; a message
//! that is delivered stays there, and one that is lost is one that is never delivered.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use keva::raft::message::Envelope;

/// All messages ever sent, without repetitions.
#[derive(Clone, Default, Debug)]
pub(crate) struct Wire {
    /// By hash.
    messages: Vec<(u64, Arc<Envelope>)>,
    /// Over all messages, whatever their order.
    hash: u64,
}

impl Wire {
    pub(crate) fn send(&mut self, envelope: Envelope) {
        let mut hasher = DefaultHasher::new();
        envelope.hash(&mut hasher);
        let key = hasher.finish();
        if let Err(place) = self.messages.binary_search_by_key(&key, |(key, _)| *key) {
            self.messages.insert(place, (key, Arc::new(envelope)));
            self.hash = self.hash.wrapping_add(key);
        }
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        self.messages.iter().map(|(_, envelope)| envelope)
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}
