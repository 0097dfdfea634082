//! A bounded least-recently-used map, as a linked list over a fixed vector.
#![forbid(unsafe_code)]

use std::hash::Hash;

use rustc_hash::{FxBuildHasher, FxHashMap};

const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Node<K, V> {
    key: K,
    value: V,
    newer: u32,
    older: u32,
}

/// Map of fixed capacity that evicts its least recently used entry.
///
/// All operations take constant time and, once the map has been full, allocate
/// nothing.
#[derive(Clone, Debug)]
pub struct Lru<K, V> {
    nodes: Vec<Node<K, V>>,
    places: FxHashMap<K, u32>,
    capacity: usize,
    newest: u32,
    oldest: u32,
}

impl<K: Copy + Eq + Hash, V> Lru<K, V> {
    /// An empty map for `capacity` entries.
    ///
    /// # Panics
    /// If `capacity` is 0 or does not fit 32 bits.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0 && u32::try_from(capacity).is_ok_and(|c| c < NONE));
        Self {
            nodes: Vec::with_capacity(capacity),
            // Twice the room: a hash table at its limit rehashes on removal churn.
            places: FxHashMap::with_capacity_and_hasher(2 * capacity, FxBuildHasher),
            capacity,
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Entries present.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// True if the key is present; leaves the order as it is.
    pub fn contains(&self, key: &K) -> bool {
        self.places.contains_key(key)
    }

    /// The value of a key, which becomes the most recently used.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        self.unlink(place);
        self.link_newest(place);
        Some(&mut self.nodes[place as usize].value)
    }

    /// Inserts as most recently used; returns the entry evicted for it, or the
    /// previous one of the same key.
    pub fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        if let Some(present) = self.get(&key) {
            return Some((key, std::mem::replace(present, value)));
        }
        let node = Node { key, value, newer: NONE, older: NONE };
        let (place, evicted) = if self.nodes.len() < self.capacity {
            let place = u32::try_from(self.nodes.len()).expect("capacity fits 32 bits");
            self.nodes.push(node);
            (place, None)
        } else {
            let place = self.oldest;
            self.unlink(place);
            let old = std::mem::replace(&mut self.nodes[place as usize], node);
            // One that was removed has no place, or by now another one.
            let evicted = self.places.get(&old.key) == Some(&place);
            if evicted {
                self.places.remove(&old.key);
            }
            (place, evicted.then_some((old.key, old.value)))
        };
        self.places.insert(key, place);
        self.link_newest(place);
        evicted
    }

    /// Takes an entry out; its room is the next to be used.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some(place) = self.places.remove(key) else { return false };
        self.unlink(place);
        let previous = std::mem::replace(&mut self.oldest, place);
        let node = &mut self.nodes[place as usize];
        (node.newer, node.older) = (previous, NONE);
        match previous {
            NONE => self.newest = place,
            _ => self.nodes[previous as usize].older = place,
        }
        true
    }

    fn unlink(&mut self, place: u32) {
        let Node { newer, older, .. } = self.nodes[place as usize];
        match newer {
            NONE => self.newest = older,
            _ => self.nodes[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            _ => self.nodes[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, place: u32) {
        let previous = std::mem::replace(&mut self.newest, place);
        let node = &mut self.nodes[place as usize];
        (node.newer, node.older) = (NONE, previous);
        match previous {
            NONE => self.oldest = place,
            _ => self.nodes[previous as usize].newer = place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_an_ordered_list(
            capacity in 1usize..6,
            steps in prop::collection::vec((0u8..10, 0u8..5), 0..200),
        ) {
            let mut lru = Lru::new(capacity);
            let mut oracle: Vec<u8> = Vec::new(); // oldest first
            for (key, step) in steps {
                let at = oracle.iter().position(|k| *k == key);
                if let Some(at) = at {
                    oracle.remove(at);
                }
                if step == 4 {
                    prop_assert_eq!(lru.remove(&key), at.is_some());
                } else if step < 2 {
                    prop_assert_eq!(lru.get(&key).is_some(), at.is_some());
                    if at.is_some() {
                        oracle.push(key);
                    }
                } else {
                    let evicted = lru.insert(key, ()).map(|(k, ())| k);
                    let expected = match at {
                        Some(_) => Some(key),
                        None if oracle.len() == capacity => Some(oracle.remove(0)),
                        None => None,
                    };
                    prop_assert_eq!(evicted, expected);
                    oracle.push(key);
                }
                prop_assert_eq!(lru.len(), oracle.len());
                prop_assert!(oracle.iter().all(|k| lru.contains(k)));
            }
        }
    }
}
