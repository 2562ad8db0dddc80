//! When which connection wants to be looked at again.
//!
//! Deadlines move with every request, mostly to a later time. An entry is therefore only ever moved to an earlier time;
//! one that comes up too early is asked for its true deadline and filed again. A turn costs nothing per connection.

use std::collections::{BTreeSet, HashMap};

use crate::net::slab::Key;
use crate::util::time::Millis;

/// The connections that wait for a point in time, the earliest first.
#[derive(Default, Debug)]
pub struct Deadlines {
    order: BTreeSet<(Millis, Key)>,
    filed: HashMap<Key, Millis>,
}

impl Deadlines {
    /// Makes sure that `key` comes up at `deadline` at the latest. It may come up earlier.
    pub fn set(&mut self, key: Key, deadline: Millis) {
        if let Some(filed) = self.filed.get(&key).copied() {
            if filed <= deadline {
                return;
            }
            self.order.remove(&(filed, key));
        }
        self.filed.insert(key, deadline);
        self.order.insert((deadline, key));
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: Key) {
        if let Some(filed) = self.filed.remove(&key) {
            self.order.remove(&(filed, key));
        }
    }

    /// The earliest time at which a connection comes up.
    #[must_use]
    pub fn next(&self) -> Option<Millis> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// Takes a connection whose time has come. The caller compares with the connection's true deadline, and files that
    /// with [`Deadlines::set`] when it is still ahead.
    pub fn pop_due(&mut self, now: Millis) -> Option<Key> {
        let (deadline, key) = self.order.first().copied()?;
        if deadline > now {
            return None;
        }
        self.remove(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<Key> {
        (0..count).map(Key::unpack).collect()
    }

    #[test]
    fn the_earliest_comes_first_and_only_when_due() {
        let keys = keys(3);
        let mut deadlines = Deadlines::default();
        deadlines.set(keys[0], Millis(30));
        deadlines.set(keys[1], Millis(10));
        deadlines.set(keys[2], Millis(20));
        assert_eq!((deadlines.next(), deadlines.pop_due(Millis(9))), (Some(Millis(10)), None));
        assert_eq!(deadlines.pop_due(Millis(20)), Some(keys[1]));
        assert_eq!(deadlines.pop_due(Millis(20)), Some(keys[2]));
        assert_eq!((deadlines.pop_due(Millis(20)), deadlines.next()), (None, Some(Millis(30))));
    }

    #[test]
    fn an_entry_moves_forward_but_not_back() {
        let key = keys(1)[0];
        let mut deadlines = Deadlines::default();
        deadlines.set(key, Millis(10));
        deadlines.set(key, Millis(50));
        assert_eq!(
            deadlines.next(),
            Some(Millis(10)),
            "a later deadline is looked up when the earlier one comes up"
        );
        deadlines.set(key, Millis(5));
        assert_eq!(deadlines.pop_due(Millis(5)), Some(key));
        assert_eq!(deadlines.next(), None, "one entry per connection");
    }

    #[test]
    fn a_forgotten_connection_does_not_come_up() {
        let keys = keys(2);
        let mut deadlines = Deadlines::default();
        deadlines.set(keys[0], Millis(1));
        deadlines.set(keys[1], Millis(1));
        deadlines.remove(keys[0]);
        assert_eq!((deadlines.pop_due(Millis(9)), deadlines.pop_due(Millis(9))), (Some(keys[1]), None));
    }
}
