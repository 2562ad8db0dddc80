//! Finds the watchers of a key without a look at the others.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use crate::net::watch::filter::Filter;

/// Watchers by the key that they follow, or by the prefix of their range, and those by its length: a key has as many
/// prefixes as there are different lengths.
#[derive(Debug)]
pub(super) struct Index<I> {
    keys: HashMap<Box<[u8]>, Vec<I>>,
    prefixes: BTreeMap<usize, HashMap<Box<[u8]>, Vec<I>>>,
}

impl<I> Default for Index<I> {
    fn default() -> Index<I> {
        Index { keys: HashMap::new(), prefixes: BTreeMap::new() }
    }
}

impl<I: Copy + Ord + Hash> Index<I> {
    /// Files a watcher; in which place of its group is to be kept.
    pub(super) fn add(&mut self, filter: &Filter, id: I) -> usize {
        let group = match filter {
            Filter::Key(key) => group(&mut self.keys, key),
            Filter::Range(range) => {
                group(self.prefixes.entry(range.prefix.len()).or_default(), &range.prefix)
            }
        };
        group.push(id);
        group.len() - 1
    }

    /// Forgets a watcher. Gives the one that is in its place from here on.
    ///
    /// # Panics
    /// When it is not there.
    pub(super) fn remove(&mut self, filter: &Filter, place: usize) -> Option<I> {
        match filter {
            Filter::Key(key) => remove_from(&mut self.keys, key, place),
            Filter::Range(range) => {
                let length = range.prefix.len();
                let groups = self.prefixes.get_mut(&length).expect("filed watchers have a group");
                let moved = remove_from(groups, &range.prefix, place);
                if groups.is_empty() {
                    self.prefixes.remove(&length);
                }
                moved
            }
        }
    }

    /// Appends the watchers of a key. Those of ranges may have other bounds than the prefix.
    pub(super) fn find(&self, key: &str, out: &mut Vec<I>) {
        let key = key.as_bytes();
        out.extend(self.keys.get(key).into_iter().flatten());
        for (&length, groups) in self.prefixes.range(..=key.len()) {
            out.extend(groups.get(&key[..length]).into_iter().flatten());
        }
    }
}

fn group<'a, I>(groups: &'a mut HashMap<Box<[u8]>, Vec<I>>, name: &str) -> &'a mut Vec<I> {
    // The name is only copied for a group that is new.
    if !groups.contains_key(name.as_bytes()) {
        groups.insert(name.as_bytes().into(), Vec::with_capacity(1));
    }
    groups.get_mut(name.as_bytes()).expect("just looked at")
}

fn remove_from<I: Copy>(groups: &mut HashMap<Box<[u8]>, Vec<I>>, name: &str, place: usize) -> Option<I> {
    let group = groups.get_mut(name.as_bytes()).expect("filed watchers have a group");
    group.swap_remove(place);
    let moved = group.get(place).copied();
    if group.is_empty() {
        groups.remove(name.as_bytes());
    }
    moved
}
