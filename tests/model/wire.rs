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
        let key = key(&envelope);
        if let Err(place) = self.messages.binary_search_by_key(&key, |(key, _)| *key) {
            self.messages.insert(place, (key, Arc::new(envelope)));
            self.hash = self.hash.wrapping_add(key);
        }
    }

    /// Whether such a message was sent before, and may still arrive.
    pub(crate) fn has(&self, envelope: &Envelope) -> bool {
        self.messages.binary_search_by_key(&key(envelope), |(key, _)| *key).is_ok()
    }

    /// Forgets messages that can never matter any more.
    pub(crate) fn retain(&mut self, mut matters: impl FnMut(&Envelope) -> bool) {
        self.messages.retain(|(key, envelope)| {
            let stays = matters(envelope);
            if !stays {
                self.hash = self.hash.wrapping_sub(*key);
            }
            stays
        });
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        self.messages.iter().map(|(_, envelope)| envelope)
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

fn key(envelope: &Envelope) -> u64 {
    let mut hasher = DefaultHasher::new();
    envelope.hash(&mut hasher);
    hasher.finish()
}
