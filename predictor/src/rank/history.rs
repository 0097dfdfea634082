//! What is remembered of fragments: when they were touched, and what followed.
#![forbid(unsafe_code)]

use super::key::{Key, slot};

/// log2 of the sets of the table, of [`WAYS`] fragments each.
const SET_BITS: u32 = 14;
const WAYS: usize = 4;
/// log2 of the pairs whose followers are kept.
const PAIR_BITS: u32 = 15;
/// log2 of the crossings in the log.
const LOG_BITS: u32 = 17;
/// What a follower's weight keeps when another follows.
const MEMORY: f32 = 0.98;
/// What the weakest follower loses when a newcomer finds no room.
const EROSION: f32 = 0.3;
/// Place in the log of a visit that never was.
pub(super) const NEVER: u64 = u64::MAX;

/// The fragments that came after something, with fading weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followers<const N: usize> {
    keys: [Key; N],
    weights: [f32; N],
    /// All weight, that of followers without a place included.
    pub total: f32,
}

impl<const N: usize> Default for Followers<N> {
    fn default() -> Self {
        Followers { keys: [Key::default(); N], weights: [0.0; N], total: 0.0 }
    }
}

impl<const N: usize> Followers<N> {
    fn count(&mut self, key: Key) {
        self.total = self.total * MEMORY + 1.0;
        let mut weakest = 0;
        let mut found = None;
        for i in 0..N {
            self.weights[i] *= MEMORY;
            if self.weights[i] > 0.0 && self.keys[i] == key {
                found = Some(i);
            }
            if self.weights[i] < self.weights[weakest] {
                weakest = i;
            }
        }
        match found {
            Some(i) => self.weights[i] += 1.0,
            None if self.weights[weakest] < 1.0 => {
                (self.keys[weakest], self.weights[weakest]) = (key, 1.0);
            }
            None => self.weights[weakest] -= EROSION,
        }
    }

    /// Each follower with its share of all weight.
    pub fn shares(&self) -> impl Iterator<Item = (Key, f32)> {
        let total = self.total.max(f32::MIN_POSITIVE);
        let known = self.keys.iter().zip(self.weights).filter(|(_, weight)| *weight > 0.0);
        known.map(move |(key, weight)| (*key, weight / total))
    }
}

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    key: Key,
    /// Crossing at which it was last touched; 0 if never.
    pub last: u64,
    /// Crossings to it.
    pub count: u64,
    /// The last touch was a write.
    pub written: bool,
    /// What came next.
    pub next: Followers<4>,
    /// What came within eight crossings.
    pub near: Followers<8>,
    /// Where the log has its last two visits, newest first.
    pub visits: [u64; 2],
}

impl Fragment {
    /// One that nothing is known of.
    fn unknown(key: Key) -> Fragment {
        Fragment {
            key,
            last: 0,
            count: 0,
            written: false,
            next: Followers::default(),
            near: Followers::default(),
            visits: [NEVER; 2],
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    keys: [Key; 2],
    followers: Followers<2>,
}

/// The bounded memory of one client's crossings.
pub(super) struct History {
    fragments: Vec<Fragment>,
    pairs: Vec<Pair>,
    log: Vec<Key>,
    /// Crossings ever logged.
    pub now: u64,
}

impl History {
    pub fn new() -> History {
        let fragment = Fragment::unknown(Key::default());
        History {
            fragments: vec![fragment; WAYS << SET_BITS],
            pairs: vec![Pair::default(); 1 << PAIR_BITS],
            log: vec![Key::default(); 1 << LOG_BITS],
            now: 0,
        }
    }

    pub const fn bytes() -> usize {
        ((size_of::<Fragment>() * WAYS) << SET_BITS)
            + (size_of::<Pair>() << PAIR_BITS)
            + (size_of::<Key>() << LOG_BITS)
    }

    /// What is known of a fragment.
    pub fn find(&self, key: Key) -> Option<&Fragment> {
        let first = slot(key.get(), 1, SET_BITS) * WAYS;
        let set = &self.fragments[first..first + WAYS];
        set.iter().find(|fragment| fragment.key == key && fragment.last > 0)
    }

    fn known(&mut self, key: Key) -> Option<&mut Fragment> {
        let first = slot(key.get(), 1, SET_BITS) * WAYS;
        let set = &mut self.fragments[first..first + WAYS];
        set.iter_mut().find(|fragment| fragment.key == key && fragment.last > 0)
    }

    /// The same, made if need be; a stranger takes the place of the one touched longest ago.
    fn entry(&mut self, key: Key) -> &mut Fragment {
        let first = slot(key.get(), 1, SET_BITS) * WAYS;
        let set = &mut self.fragments[first..first + WAYS];
        let known = set.iter().position(|fragment| fragment.key == key && fragment.last > 0);
        let place = known.unwrap_or_else(|| {
            let oldest = (0..WAYS).min_by_key(|i| set[*i].last).expect("ways");
            set[oldest] = Fragment::unknown(key);
            oldest
        });
        &mut set[place]
    }

    /// The crossing before the newest by `back`: 0 is the newest.
    pub fn recent(&self, back: u64) -> Option<Key> {
        self.logged(self.now.checked_sub(back + 1)?)
    }

    /// The crossing at a place of the log, if it is still there.
    pub fn logged(&self, place: u64) -> Option<Key> {
        let kept = place < self.now && self.now - place <= 1 << LOG_BITS;
        kept.then(|| self.log[usize::try_from(place).expect("64 bits") & ((1 << LOG_BITS) - 1)])
    }

    /// What followed two crossings, each with its share.
    pub fn after(&self, first: Key, second: Key) -> impl Iterator<Item = (Key, f32)> {
        let pair = &self.pairs[slot(first.get(), second.get(), PAIR_BITS)];
        let known = pair.keys == [first, second];
        pair.followers.shares().take(if known { 2 } else { 0 })
    }

    /// Learns what a crossing to `key` followed; before [`History::record`].
    pub fn follow(&mut self, key: Key) {
        for back in 1..8 {
            let Some(before) = self.recent(back) else { break };
            if let Some(fragment) = self.known(before) {
                fragment.near.count(key);
            }
        }
        let Some(previous) = self.recent(0) else { return };
        if let Some(fragment) = self.known(previous) {
            fragment.next.count(key);
        }
        let Some(earlier) = self.recent(1) else { return };
        let keys = [earlier, previous];
        let pair = &mut self.pairs[slot(earlier.get(), previous.get(), PAIR_BITS)];
        if pair.keys != keys {
            *pair = Pair { keys, followers: Followers::default() };
        }
        pair.followers.count(key);
    }

    /// Logs a crossing.
    pub fn record(&mut self, key: Key, written: bool) {
        let place = self.now;
        self.now += 1;
        self.log[usize::try_from(place).expect("64 bits") & ((1 << LOG_BITS) - 1)] = key;
        let now = self.now;
        let fragment = self.entry(key);
        fragment.last = now;
        fragment.count += 1;
        fragment.written = written;
        fragment.visits = [place, fragment.visits[0]];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fragment: u64) -> Key {
        Key::new(0, fragment).unwrap()
    }

    fn visit(history: &mut History, fragments: &[u64]) {
        for fragment in fragments {
            history.follow(key(*fragment));
            history.record(key(*fragment), false);
        }
    }

    fn keys(shares: impl Iterator<Item = (Key, f32)>) -> Vec<u64> {
        shares.map(|(key, _)| key.fragment()).collect()
    }

    #[test]
    fn followers_are_learned_at_three_distances() {
        let mut history = History::new();
        visit(&mut history, &[1, 2, 3, 1, 2]);
        assert_eq!(keys(history.find(key(1)).unwrap().next.shares()), [2]);
        assert_eq!(keys(history.find(key(1)).unwrap().near.shares()), [3, 1, 2]);
        assert_eq!(keys(history.after(key(1), key(2))), [3]);
        assert_eq!(keys(history.after(key(2), key(1))), [0; 0]);
        let share = history.find(key(1)).unwrap().next.shares().next().unwrap().1;
        assert!((share - 1.0).abs() < 1e-6, "{share}: always 2");
        assert_eq!(history.find(key(1)).unwrap().visits, [3, 0]);
        assert_eq!((history.recent(0), history.logged(0)), (Some(key(2)), Some(key(1))));
        assert_eq!(history.logged(5), None);
    }

    #[test]
    fn the_weakest_follower_is_worn_down_before_it_goes() {
        let mut followers = Followers::<2>::default();
        [1, 1, 1, 2, 2].into_iter().for_each(|n| followers.count(key(n)));
        followers.count(key(3));
        assert_eq!(keys(followers.shares()), [1, 2], "two visits stand against one");
        for _ in 0..4 {
            followers.count(key(3));
        }
        assert_eq!(keys(followers.shares()), [1, 3]);
    }

    #[test]
    fn strangers_replace_the_fragment_untouched_for_longest() {
        let mut history = History::new();
        let rivals: Vec<u64> = (0..1 << 20)
            .filter(|n| slot(*n, 1, SET_BITS) == slot(0, 1, SET_BITS))
            .take(WAYS + 1)
            .collect();
        visit(&mut history, &rivals);
        assert!(history.find(key(rivals[0])).is_none());
        assert!(rivals[1..].iter().all(|n| history.find(key(*n)).is_some()));
    }
}
