//! The replacement policy of SARC: two lists and an adaptive split between them.
//!
//! Source: B. S. Gill and D. S. Modha, "SARC: Sequential Prefetching in Adaptive
//! Replacement Cache", USENIX ATC '05, section III. Sequential tracks, read or
//! prefetched, live in SEQ, all others in RANDOM; both are LRU lists with time
//! stamps. The bottom ΔL of RANDOM shows what its last places are worth: between two
//! hits there, the sequential misses s are counted, and the desired size of SEQ
//! grows if 2·s·ΔL/L > 1, where L is the length of SEQ, else it shrinks (equation 6).
//! The track to evict is the oldest of both lists while one of them is shorter than
//! ΔL, else the last of SEQ if SEQ is larger than desired, else the last of RANDOM.
//!
//! The marginal utilities and equation 6 follow the text; the rule of eviction was not
//! checked against the paper's figure. One difference: L, a time in equation 6, is taken as the number of tracks in SEQ.
//! Own choices, where the text leaves room: ΔL is 2 % of the cache, the step one
//! track, the start an even split. The free queue, destaging of writes and the
//! counters of tracks (see `sarc`) are not modelled here.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use super::Key;

/// Why a fragment comes into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A demand miss that is no part of a sequential stream.
    Random,
    /// A demand miss of a sequential stream.
    SequentialMiss,
    /// Prefetched for a sequential stream.
    Prefetched,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    stamp: u64,
    sequential: bool,
}

/// Tags of a cache under this policy.
#[derive(Clone, Debug)]
pub struct SarcCache {
    capacity: usize,
    /// ΔL.
    bottom: usize,
    places: HashMap<Key, Place>,
    /// Tracks by time stamp, the least recently used first.
    seq: BTreeMap<u64, Key>,
    random: BTreeMap<u64, Key>,
    clock: u64,
    /// Since the last hit in the bottom of RANDOM.
    sequential_misses: usize,
    desired_seq: usize,
}

impl SarcCache {
    /// An empty cache of `capacity` fragments.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0);
        Self {
            capacity,
            bottom: (capacity / 50).max(1),
            places: HashMap::new(),
            seq: BTreeMap::new(),
            random: BTreeMap::new(),
            clock: 0,
            sequential_misses: 0,
            desired_seq: capacity / 2,
        }
    }

    /// Size that SEQ should have.
    pub fn desired_seq(&self) -> usize {
        self.desired_seq
    }

    /// True if the fragment is present; changes nothing.
    pub fn contains(&self, volume: u32, fragment: u64) -> bool {
        self.places.contains_key(&(volume, fragment))
    }

    /// A demand access; true if it hits, and the fragment is then the most recently
    /// used of its list.
    pub fn touch(&mut self, volume: u32, fragment: u64) -> bool {
        let key = (volume, fragment);
        let Some(place) = self.places.remove(&key) else { return false };
        if !place.sequential && self.is_at_bottom(place.stamp) {
            self.adapt();
        }
        self.list(place.sequential).remove(&place.stamp);
        self.link(key, place.sequential);
        true
    }

    /// Brings a fragment in; returns the one evicted for it.
    ///
    /// A fragment that is present already is moved to the list it now belongs to.
    pub fn insert(&mut self, volume: u32, fragment: u64, entry: Entry) -> Option<(u32, u64)> {
        let key = (volume, fragment);
        if entry == Entry::SequentialMiss {
            self.sequential_misses += 1;
        }
        let evicted = match self.places.remove(&key) {
            Some(place) => {
                self.list(place.sequential).remove(&place.stamp);
                None
            }
            None if self.places.len() == self.capacity => Some(self.evict()),
            None => None,
        };
        self.link(key, entry != Entry::Random);
        assert!(self.places.len() <= self.capacity);
        evicted
    }

    fn list(&mut self, sequential: bool) -> &mut BTreeMap<u64, Key> {
        if sequential { &mut self.seq } else { &mut self.random }
    }

    fn link(&mut self, key: Key, sequential: bool) {
        self.clock += 1;
        let stamp = self.clock;
        self.list(sequential).insert(stamp, key);
        self.places.insert(key, Place { stamp, sequential });
    }

    fn is_at_bottom(&self, stamp: u64) -> bool {
        self.random.keys().take(self.bottom).any(|low| *low == stamp)
    }

    /// Equation 6, at a hit in the bottom of RANDOM.
    fn adapt(&mut self) {
        let misses = std::mem::take(&mut self.sequential_misses);
        if 2 * misses * self.bottom > self.seq.len() {
            self.desired_seq = (self.desired_seq + 1).min(self.capacity);
        } else {
            self.desired_seq = self.desired_seq.saturating_sub(1);
        }
    }

    fn evict(&mut self) -> Key {
        let oldest = |list: &BTreeMap<u64, Key>| list.keys().next().copied().unwrap_or(u64::MAX);
        let short = self.seq.len() < self.bottom || self.random.len() < self.bottom;
        let sequential = if short {
            oldest(&self.seq) < oldest(&self.random)
        } else {
            self.seq.len() > self.desired_seq
        };
        let (_, key) = self.list(sequential).pop_first().expect("a full cache has a last track");
        self.places.remove(&key);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache of 4, ΔL = 1, desired SEQ = 2, with 1 and 2 in RANDOM, 10 and 11 in SEQ.
    fn full() -> SarcCache {
        let mut cache = SarcCache::new(4);
        for (fragment, entry) in [
            (1, Entry::Random),
            (2, Entry::Random),
            (10, Entry::SequentialMiss),
            (11, Entry::Prefetched),
        ] {
            assert_eq!(cache.insert(0, fragment, entry), None);
        }
        cache
    }

    #[test]
    fn the_larger_list_gives_way() {
        let mut cache = full();
        assert_eq!(cache.insert(0, 12, Entry::Prefetched), Some((0, 1)), "SEQ is as desired");
        assert_eq!(cache.insert(0, 13, Entry::Prefetched), Some((0, 10)), "now it is too large");
        assert!(cache.contains(0, 2) && !cache.contains(1, 2));
    }

    #[test]
    fn bottom_hits_shift_the_split() {
        let mut cache = full();
        // s = 1: 2·1·1 does not exceed the 2 tracks of SEQ.
        assert!(cache.touch(0, 1));
        assert_eq!(cache.desired_seq(), 1);
        // 1 is at the top now: no bottom hit, nothing changes.
        assert!(cache.touch(0, 1));
        assert_eq!(cache.desired_seq(), 1);
        assert_eq!(cache.insert(0, 20, Entry::SequentialMiss), Some((0, 10)));
        assert_eq!(cache.insert(0, 21, Entry::SequentialMiss), Some((0, 11)));
        // s = 2: 4 exceeds the 2 tracks of SEQ.
        assert!(cache.touch(0, 2));
        assert_eq!(cache.desired_seq(), 2);
        assert!(!cache.touch(0, 10));
    }

    #[test]
    fn a_short_list_is_spared_unless_it_holds_the_oldest() {
        let mut cache = SarcCache::new(2);
        cache.insert(0, 1, Entry::Random);
        cache.insert(0, 2, Entry::Random);
        assert_eq!(cache.insert(0, 3, Entry::Random), Some((0, 1)), "SEQ is empty");
        assert_eq!(cache.insert(0, 10, Entry::SequentialMiss), Some((0, 2)));
    }
}
