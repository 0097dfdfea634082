//! The cache of SARC: space shared between sequential and random tracks by their use of it.
//!
//! Source: B. S. Gill and D. S. Modha, "SARC: Sequential Prefetching in Adaptive
//! Replacement Cache", USENIX ATC '05, section III. Two lists, each least recently used
//! last: SEQ holds what was prefetched and the sequential tracks that missed, RANDOM the
//! rest; a hit leaves a track in its list. The marginal use of SEQ's space is estimated from
//! the sequential misses, that of RANDOM's from hits in the bottom ΔL tracks of it, told by
//! time stamps. With `ratio = 2 · seq_misses · ΔL / |SEQ|`:
//!
//! - a hit in the bottom of RANDOM sets `adapt` to `ratio − 1`, within ±1, and forgets the
//!   sequential misses;
//! - a hit in the bottom of SEQ sets it to 1 if `ratio` exceeds [`LARGE_RATIO`];
//! - each eviction moves the desired size of SEQ by `adapt / 2`. The victim is the last of
//!   SEQ if that is larger than desired, else the last of RANDOM; while either list is
//!   shorter than ΔL, it is the older of both.
//!
//! The rule is after the paper's text; ΔL of 2 % and the large ratio of 20 are not checked
//! against its print. The desired size is kept between 0 and the capacity. The paper evicts
//! ahead of demand into a free list; here eviction is at insertion.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::Key;

/// ΔL, as a share of the capacity.
const BOTTOM_SHARE: f64 = 0.02;
/// `ratio` above which a hit in the bottom of SEQ makes it grow.
const LARGE_RATIO: f64 = 20.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Seq,
    Random,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    list: List,
    stamp: u64,
    value: V,
}

/// Map of fixed capacity that evicts by SARC.
#[derive(Clone, Debug)]
pub struct SarcCache<V> {
    capacity: usize,
    entries: FxHashMap<Key, Entry<V>>,
    /// Keys by the time of their last use.
    seq: BTreeMap<u64, Key>,
    random: BTreeMap<u64, Key>,
    clock: u64,
    bottom: f64,
    desired_seq: f64,
    adapt: f64,
    seq_misses: u64,
}

impl<V> SarcCache<V> {
    /// An empty cache.
    ///
    /// # Panics
    /// If `capacity` is 0.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a cache holds something");
        Self {
            capacity,
            entries: FxHashMap::default(),
            seq: BTreeMap::new(),
            random: BTreeMap::new(),
            clock: 0,
            bottom: (capacity as f64 * BOTTOM_SHARE).max(1.0),
            desired_seq: 0.0,
            adapt: 0.0,
            seq_misses: 0,
        }
    }

    /// True if the key is present.
    pub fn contains(&self, key: &(u32, u64)) -> bool {
        self.entries.contains_key(key)
    }

    /// The value of a key on demand: a hit in its list.
    pub fn get(&mut self, key: &(u32, u64)) -> Option<&mut V> {
        let Entry { list, stamp, .. } = *self.entries.get(key)?;
        let ratio = 2.0 * self.seq_misses as f64 * self.bottom / self.seq.len().max(1) as f64;
        match (list, self.is_in_bottom(list, stamp)) {
            (List::Random, true) => {
                self.adapt = (ratio - 1.0).clamp(-1.0, 1.0);
                self.seq_misses = 0;
            }
            (List::Seq, true) if ratio > LARGE_RATIO => self.adapt = 1.0,
            _ => {}
        }
        self.touch(*key, list);
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Takes in what was prefetched; returns what it drives out.
    ///
    /// # Panics
    /// If it is present.
    pub fn insert_prefetched(&mut self, key: (u32, u64), value: V) -> Option<((u32, u64), V)> {
        self.insert(key, List::Seq, value)
    }

    /// Takes in what was missed on demand, as random; returns what it drives out.
    ///
    /// # Panics
    /// If it is present.
    pub fn insert_missed(&mut self, key: (u32, u64), value: V) -> Option<((u32, u64), V)> {
        self.insert(key, List::Random, value)
    }

    /// What was missed and just taken in is sequential.
    ///
    /// # Panics
    /// If it is not present.
    pub fn missed_in_sequence(&mut self, key: (u32, u64)) {
        self.seq_misses += 1;
        self.touch(key, List::Seq);
    }

    fn list(&mut self, list: List) -> &mut BTreeMap<u64, Key> {
        match list {
            List::Seq => &mut self.seq,
            List::Random => &mut self.random,
        }
    }

    /// Moves an entry to the head of a list.
    fn touch(&mut self, key: Key, to: List) {
        self.clock += 1;
        let now = self.clock;
        let entry = self.entries.get_mut(&key).expect("present");
        let (from, stamp) = (entry.list, entry.stamp);
        (entry.list, entry.stamp) = (to, now);
        let moved = self.list(from).remove(&stamp);
        assert_eq!(moved, Some(key), "each entry is in its list");
        self.list(to).insert(now, key);
    }

    fn is_in_bottom(&self, list: List, stamp: u64) -> bool {
        let list = if list == List::Seq { &self.seq } else { &self.random };
        let (Some((oldest, _)), Some((newest, _))) =
            (list.first_key_value(), list.last_key_value())
        else {
            return false;
        };
        let share = self.bottom / list.len() as f64;
        (stamp - oldest) as f64 <= share * (newest - oldest) as f64
    }

    fn insert(&mut self, key: Key, list: List, value: V) -> Option<(Key, V)> {
        let evicted = if self.entries.len() == self.capacity { self.evict() } else { None };
        self.clock += 1;
        let stamp = self.clock;
        let before = self.entries.insert(key, Entry { list, stamp, value });
        assert!(before.is_none(), "inserted once");
        self.list(list).insert(stamp, key);
        evicted
    }

    fn evict(&mut self) -> Option<(Key, V)> {
        let (seq, random) = (self.seq.len() as f64, self.random.len() as f64);
        let is_short = seq < self.bottom || random < self.bottom;
        let from_seq = if is_short {
            let oldest = |list: &BTreeMap<u64, Key>| list.keys().next().map_or(u64::MAX, |s| *s);
            oldest(&self.seq) < oldest(&self.random)
        } else {
            seq > self.desired_seq
        };
        self.desired_seq = match self.desired_seq {
            desired if desired > 0.0 => desired + self.adapt / 2.0,
            _ => seq,
        };
        self.desired_seq = self.desired_seq.clamp(0.0, self.capacity as f64);
        let list = if from_seq { List::Seq } else { List::Random };
        let (_, key) = self.list(list).pop_first()?;
        self.entries.remove(&key).map(|entry| (key, entry.value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(fragment: u64) -> Key {
        (0, fragment)
    }

    fn seq_list(cache: &SarcCache<u64>) -> Vec<u64> {
        cache.seq.values().map(|key| key.1).collect()
    }

    /// Six tracks and ΔL of one: 1 to 3 random, 11 to 13 prefetched.
    fn full() -> SarcCache<u64> {
        let mut cache = SarcCache::new(6);
        for (random, prefetched) in [(1, 11), (2, 12), (3, 13)] {
            assert_eq!(cache.insert_missed(key(random), random), None);
            assert_eq!(cache.insert_prefetched(key(prefetched), prefetched), None);
        }
        cache
    }

    #[test]
    fn the_larger_than_desired_list_gives() {
        let mut cache = full();
        assert!((cache.bottom - 1.0).abs() < 1e-9);
        // Nothing is desired yet: SEQ with 3 > 0 gives its last, and 3 become desired.
        assert_eq!(cache.insert_missed(key(4), 4), Some((key(11), 11)));
        assert!((cache.desired_seq - 3.0).abs() < 1e-9);
        // SEQ has 2 of 3: RANDOM gives.
        assert_eq!(cache.insert_missed(key(5), 5), Some((key(1), 1)));
        assert_eq!(cache.insert_prefetched(key(14), 14), Some((key(2), 2)));
        assert_eq!(seq_list(&cache), [12, 13, 14]);
    }

    #[test]
    fn a_hit_in_the_bottom_of_random_weighs_both() {
        let mut cache = full();
        cache.insert_missed(key(4), 4);
        // No sequential miss: random space is worth more, so SEQ shrinks by a half each time.
        assert_eq!(cache.get(&key(1)), Some(&mut 1));
        assert!((cache.adapt + 1.0).abs() < 1e-9);
        cache.insert_missed(key(5), 5);
        assert!((cache.desired_seq - 2.5).abs() < 1e-9);
        // Two sequential misses, SEQ of four: 2 · 2 · 1 / 4 − 1 = 0.
        cache.missed_in_sequence(key(4));
        cache.missed_in_sequence(key(5));
        assert_eq!(seq_list(&cache), [12, 13, 4, 5]);
        let last = *cache.random.values().next().unwrap();
        cache.get(&last);
        assert!(cache.adapt.abs() < 1e-9, "{}", cache.adapt);
        assert_eq!(cache.seq_misses, 0);
    }

    #[test]
    fn a_hit_at_the_top_changes_nothing_but_the_order() {
        let mut cache = full();
        cache.get(&key(3));
        assert!(cache.adapt.abs() < 1e-9);
        cache.missed_in_sequence(key(3));
        assert_eq!(cache.get(&key(13)), Some(&mut 13));
        assert_eq!(seq_list(&cache), [11, 12, 3, 13]);
    }

    #[test]
    fn a_hit_in_the_bottom_of_seq_counts_if_misses_are_many() {
        let mut cache = full();
        cache.get(&key(11));
        assert!(cache.adapt.abs() < 1e-9);
        // 2 · 31 · 1 / 3 exceeds 20.
        cache.seq_misses = 31;
        cache.get(&key(12));
        assert!((cache.adapt - 1.0).abs() < 1e-9);
    }

    #[test]
    fn while_a_list_is_short_the_older_goes() {
        let mut cache = SarcCache::new(2);
        cache.insert_missed(key(1), 1);
        cache.insert_missed(key(2), 2);
        assert_eq!(cache.insert_prefetched(key(3), 3), Some((key(1), 1)));
    }

    proptest! {
        #[test]
        fn lists_and_entries_agree(steps in prop::collection::vec((0..3_u8, 0..40_u64), 0..400)) {
            let mut cache = SarcCache::new(9);
            for (what, fragment) in steps {
                let key = key(fragment);
                if cache.contains(&key) {
                    prop_assert_eq!(cache.get(&key).copied(), Some(fragment));
                } else if what == 0 {
                    cache.insert_prefetched(key, fragment);
                } else {
                    cache.insert_missed(key, fragment);
                    if what == 1 {
                        cache.missed_in_sequence(key);
                    }
                }
                prop_assert!(cache.contains(&key) && cache.entries.len() <= 9);
                prop_assert_eq!(cache.seq.len() + cache.random.len(), cache.entries.len());
                prop_assert!((0.0..=9.0).contains(&cache.desired_seq));
            }
        }
    }
}
