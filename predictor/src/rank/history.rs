//! What is remembered of fragments: when they were touched, and what followed.
//!
//! What every candidate is asked for (when, how often) lies apart from what only the fragments
//! come to are: a set of four fits into one line of the cache.
#![forbid(unsafe_code)]

use super::followers::Followers;
use super::key::{Key, slot};
use super::log::{Log, Place};

/// log2 of the sets of the table, of [`WAYS`] fragments each.
const SET_BITS: u32 = 14;
const WAYS: usize = 4;
/// log2 of the pairs whose followers are kept.
const PAIR_BITS: u32 = 15;
/// Crossings of a client whose fragments learn what came near.
pub(super) const NEAR: usize = 8;

/// When and how a fragment was touched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    key: Key,
    /// Crossing at which it was last touched, modulo 2^32.
    last: u32,
    /// Crossings to it, at most 2^16 - 1; 0 where there is no fragment.
    pub count: u16,
    /// The last touch was a write.
    pub written: bool,
}

const NOTHING: Touched = Touched { key: Key::NONE, last: 0, count: 0, written: false };

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Set([Touched; WAYS]);

/// Place of a visit that never was.
const NEVER: Place = Place::MAX;

/// What followed a fragment, and where it was visited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lore {
    /// What came next.
    pub next: Followers<4>,
    /// What came within eight crossings of the same client.
    pub near: Followers<8>,
    /// Its last two visits, newest first.
    visits: [Place; 2],
}

impl Lore {
    fn new() -> Lore {
        Lore { next: Followers::default(), near: Followers::default(), visits: [NEVER; 2] }
    }

    /// Where the log has its last two visits, newest first.
    pub fn visits(&self) -> [Option<Place>; 2] {
        self.visits.map(|place| (place != NEVER).then_some(place))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    keys: [Key; 2],
    followers: Followers<2>,
}

/// A client's newest crossings, newest first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recent {
    keys: [Key; NEAR],
    len: usize,
    /// Where the log has the newest.
    pub place: Option<Place>,
}

impl Recent {
    /// The crossing before the newest by `back`: 0 is the newest.
    pub fn get(&self, back: usize) -> Option<Key> {
        (back < self.len).then(|| self.keys[back])
    }

    fn push(&mut self, key: Key, place: Place) {
        self.keys.copy_within(0..NEAR - 1, 1);
        self.keys[0] = key;
        self.len = (self.len + 1).min(NEAR);
        self.place = Some(place);
    }
}

/// The bounded memory of a core's crossings.
pub(super) struct History {
    sets: Vec<Set>,
    lore: Vec<Lore>,
    pairs: Vec<Pair>,
    pub log: Log,
}

impl History {
    pub fn new() -> History {
        History {
            sets: vec![Set([NOTHING; WAYS]); 1 << SET_BITS],
            lore: vec![Lore::new(); WAYS << SET_BITS],
            pairs: vec![Pair::default(); 1 << PAIR_BITS],
            log: Log::new(),
        }
    }

    pub const fn bytes() -> usize {
        let fragment = size_of::<Set>() + size_of::<Lore>() * WAYS;
        (fragment << SET_BITS) + (size_of::<Pair>() << PAIR_BITS) + Log::bytes()
    }

    /// Crossings ever logged.
    pub fn now(&self) -> Place {
        self.log.now()
    }

    /// When a fragment was touched, if it is known.
    pub fn find(&self, key: Key) -> Option<&Touched> {
        let set = &self.sets[slot(key.get(), 1, SET_BITS)];
        set.0.iter().find(|touched| touched.key == key)
    }

    /// Crossings since a touch.
    pub fn age(&self, touched: &Touched) -> u64 {
        u64::from(low(self.now()).wrapping_sub(touched.last))
    }

    fn at(&self, key: Key) -> Option<usize> {
        let set = slot(key.get(), 1, SET_BITS);
        let way = self.sets[set].0.iter().position(|touched| touched.key == key)?;
        Some(set * WAYS + way)
    }

    /// What is known of a fragment.
    pub fn lore(&self, key: Key) -> Option<&Lore> {
        self.at(key).map(|at| &self.lore[at])
    }

    /// What followed two crossings, each with its share.
    pub fn after(&self, first: Key, second: Key) -> impl Iterator<Item = (Key, f32)> {
        let pair = &self.pairs[slot(first.get(), second.get(), PAIR_BITS)];
        let known = pair.keys == [first, second];
        pair.followers.shares().take(if known { 2 } else { 0 })
    }

    /// A client comes to `key`: learns what that followed, and logs it.
    pub fn record(&mut self, recent: &mut Recent, key: Key, write: bool) {
        self.follow(recent, key);
        let place = self.log.push(key, recent.place);
        recent.push(key, place);
        let at = self.entry(key);
        let now = low(self.now());
        let touched = &mut self.sets[at / WAYS].0[at % WAYS];
        touched.last = now;
        touched.count = touched.count.saturating_add(1);
        touched.written = write;
        let visits = &mut self.lore[at].visits;
        *visits = [place, visits[0]];
    }

    fn follow(&mut self, recent: &Recent, key: Key) {
        for back in 1..NEAR {
            let Some(before) = recent.get(back) else { break };
            if let Some(at) = self.at(before) {
                self.lore[at].near.count(key);
            }
        }
        let Some(previous) = recent.get(0) else { return };
        if let Some(at) = self.at(previous) {
            self.lore[at].next.count(key);
        }
        let Some(earlier) = recent.get(1) else { return };
        let keys = [earlier, previous];
        let pair = &mut self.pairs[slot(earlier.get(), previous.get(), PAIR_BITS)];
        if pair.keys != keys {
            *pair = Pair { keys, followers: Followers::default() };
        }
        pair.followers.count(key);
    }

    /// The place of a fragment; a stranger takes that of the one touched longest ago.
    fn entry(&mut self, key: Key) -> usize {
        if let Some(at) = self.at(key) {
            return at;
        }
        let set = slot(key.get(), 1, SET_BITS);
        let now = low(self.now());
        let age = |touched: &Touched| match touched.count {
            0 => u32::MAX,
            _ => now.wrapping_sub(touched.last),
        };
        let oldest = (0..WAYS).max_by_key(|way| age(&self.sets[set].0[*way])).expect("ways");
        self.sets[set].0[oldest] = Touched { key, ..NOTHING };
        self.lore[set * WAYS + oldest] = Lore::new();
        set * WAYS + oldest
    }
}

/// A crossing's number in 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "modulo 2^32 is meant")]
fn low(place: Place) -> u32 {
    place as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: () = assert!(size_of::<Set>() == 64);

    fn key(fragment: u64) -> Key {
        Key::new(0, fragment).unwrap()
    }

    fn visit(history: &mut History, recent: &mut Recent, fragments: &[u64]) {
        for fragment in fragments {
            history.record(recent, key(*fragment), false);
        }
    }

    fn keys(shares: impl Iterator<Item = (Key, f32)>) -> Vec<u64> {
        shares.map(|(key, _)| key.fragment()).collect()
    }

    #[test]
    fn followers_are_learned_at_three_distances() {
        let mut history = History::new();
        let mut recent = Recent::default();
        visit(&mut history, &mut recent, &[1, 2, 3, 1, 2]);
        let lore = history.lore(key(1)).unwrap();
        assert_eq!(keys(lore.next.shares()), [2]);
        assert_eq!(keys(lore.near.shares()), [3, 1, 2]);
        assert_eq!(keys(history.after(key(1), key(2))), [3]);
        assert_eq!(keys(history.after(key(2), key(1))), [0; 0]);
        let share = lore.next.shares().next().unwrap().1;
        assert!((share - 1.0).abs() < 1e-6, "{share}: always 2");
        assert_eq!(lore.visits(), [Some(3), Some(0)]);
        assert_eq!(
            (recent.get(0), recent.get(4), recent.get(5)),
            (Some(key(2)), Some(key(1)), None)
        );
        assert_eq!(history.age(history.find(key(1)).unwrap()), 1);
    }

    #[test]
    fn clients_do_not_follow_each_other() {
        let mut history = History::new();
        let (mut one, mut other) = (Recent::default(), Recent::default());
        for n in 0..10 {
            visit(&mut history, &mut one, &[n]);
            visit(&mut history, &mut other, &[100 + n]);
        }
        assert_eq!(keys(history.lore(key(5)).unwrap().next.shares()), [6]);
        assert_eq!(keys(history.lore(key(105)).unwrap().next.shares()), [106]);
    }

    #[test]
    fn strangers_replace_the_fragment_untouched_for_longest() {
        let mut history = History::new();
        let rivals: Vec<u64> = (0..1 << 20)
            .filter(|n| slot(*n, 1, SET_BITS) == slot(0, 1, SET_BITS))
            .take(WAYS + 1)
            .collect();
        visit(&mut history, &mut Recent::default(), &rivals);
        assert!(history.find(key(rivals[0])).is_none());
        assert!(rivals[1..].iter().all(|n| history.find(key(*n)).is_some()));
    }
}
