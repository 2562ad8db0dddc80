//! A table of connections whose keys are never mistaken for one another.
//!
//! A place in the table is used again after its value is removed, but under a new generation: a key that was kept
//! somewhere (an event of the same poll, a timer, a waiting request) finds nothing instead of a stranger.

/// Bits of a key's index, the same on every architecture: [`Key::pack`] must fit a 32-bit `usize` with room to spare.
const INDEX_BITS: u32 = 18;
/// Bits of a key's generation.
const GENERATION_BITS: u32 = 12;
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;
const GENERATION_MASK: usize = (1 << GENERATION_BITS) - 1;

/// Bits of a packed [`Key`].
pub const KEY_BITS: u32 = INDEX_BITS + GENERATION_BITS;
/// Most values in one [`Slab`].
pub const SLAB_VALUES_MAX: usize = 1 << INDEX_BITS;

const _: () = assert!(KEY_BITS <= 30, "two bits of a 32-bit poll token tell what kind of key it is");

/// A place in a [`Slab`] and the generation of the value in it.
///
/// Generations repeat after 4096 removals from one place. Keys are kept no longer than their value except by the events
/// of one poll, and places are given free only after those are handled, so no kept key lives that long.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Key {
    index: u32,
    generation: u16,
}

impl Key {
    /// The key as a number below `2^KEY_BITS`.
    #[must_use]
    pub fn pack(self) -> usize {
        (usize::from(self.generation) << INDEX_BITS) | self.index as usize
    }

    /// The key that [`Key::pack`] made the number from.
    #[must_use]
    pub fn unpack(packed: usize) -> Key {
        let generation = (packed >> INDEX_BITS) & GENERATION_MASK;
        Key { index: (packed & INDEX_MASK) as u32, generation: generation as u16 }
    }
}

/// Values under keys that are given out by the table.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u16,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a value.
    ///
    /// # Panics
    /// When there are [`SLAB_VALUES_MAX`] values already: callers limit connections far below.
    pub fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return Key { index, generation: slot.generation };
        }
        assert!(self.slots.len() < SLAB_VALUES_MAX, "more than {SLAB_VALUES_MAX} values in one table");
        let index = self.slots.len() as u32;
        self.slots.push(Slot { generation: 0, value: Some(value) });
        Key { index, generation: 0 }
    }

    /// The value under `key`, unless it was removed.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_ref() } else { None }
    }

    /// The value under `key` for changing, unless it was removed.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    /// Takes the value out. Its key finds nothing from here on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = (slot.generation + 1) & GENERATION_MASK as u16;
        self.free.push(key.index);
        Some(value)
    }

    /// All values with their keys, by place.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let key = Key { index: index as u32, generation: slot.generation };
            slot.value.as_ref().map(|value| (key, value))
        })
    }

    /// The keys of all values, by place.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_find_the_next_value_of_its_place() {
        let mut slab = Slab::default();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        assert_eq!(slab.remove(first), None, "removed twice");
        let second = slab.insert("second");
        assert_eq!(first.index, second.index, "places are used again");
        assert_eq!((slab.get(first), slab.get(second)), (None, Some(&"second")));
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn generations_wrap_inside_their_bits() {
        let mut slab = Slab::default();
        let first = slab.insert(0);
        let mut key = first;
        for value in 1..=GENERATION_MASK {
            slab.remove(key).expect("just inserted");
            key = slab.insert(value);
            assert_ne!(key, first, "generation {value}");
            assert_eq!(Key::unpack(key.pack()), key);
            assert!(key.pack() < 1 << KEY_BITS);
        }
        slab.remove(key).expect("just inserted");
        assert_eq!(slab.insert(0), first, "every generation is used before one repeats");
    }

    #[test]
    fn every_place_fits_in_a_packed_key() {
        let key = Key { index: INDEX_MASK as u32, generation: GENERATION_MASK as u16 };
        assert_eq!((Key::unpack(key.pack()), key.pack()), (key, (1 << KEY_BITS) - 1));
    }

    #[test]
    fn only_living_values_are_listed() {
        let mut slab = Slab::default();
        let keys: Vec<Key> = (0..4).map(|value| slab.insert(value)).collect();
        slab.remove(keys[1]);
        assert_eq!(slab.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!((slab.keys(), slab.len(), slab.is_empty()), (vec![keys[0], keys[2], keys[3]], 3, false));
    }
}
