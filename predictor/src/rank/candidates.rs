//! The pool of fragments that may come next, and who proposed them.
#![forbid(unsafe_code)]

use super::history::{History, NEAR, Recent};
use super::key::{Key, slot};
use super::log::Place;
use super::walks::steps_ahead;
use crate::stream::Pace;

/// Most candidates of one crossing.
pub(super) const MAX_CANDIDATES: usize = 12;
/// Crossings after an earlier visit that are proposed again.
const REPLAY: usize = 8;
/// Crossings compared to tell a replay, and how far before the visit they may lie.
const REPLAY_MATCH: usize = 6;
const REPLAY_SLACK: usize = 12;

/// Proposers.
pub const SOURCES: usize = 9;

/// The names of proposers, given as bits.
pub fn source_names(bits: u16) -> impl Iterator<Item = &'static str> {
    const NAMES: [&str; SOURCES] =
        ["ahead", "behind", "stride", "next", "near", "pair", "vote", "replay", "older-replay"];
    let named = NAMES.into_iter().enumerate();
    named.filter(move |(n, _)| bits >> n & 1 == 1).map(|(_, name)| name)
}

/// Who proposed; a bit each in [`Candidate::sources`].
#[derive(Clone, Copy, Debug)]
enum Source {
    Ahead,
    Behind,
    Stride,
    Next,
    Near,
    Pair,
    Vote,
    Replay,
    OlderReplay,
}

/// A fragment that may come, with what its proposers say of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Candidate {
    pub key: Key,
    pub sources: u16,
    /// Share of it among what came next.
    pub next: f32,
    /// Share among what came near.
    pub near: f32,
    /// Share among what came after the last two.
    pub pair: f32,
    /// Sum of its shares near the seven fragments before.
    pub votes: f32,
    /// 1 + how many of the last crossings preceded the earlier visit, too; 0 for no replay.
    pub replay: u64,
    /// Crossings after that visit.
    pub replay_at: u64,
}

/// The pool of one crossing.
pub(super) struct Candidates {
    items: [Candidate; MAX_CANDIDATES],
    len: usize,
    /// A bit for the hash of each: most of those proposed once more are not among them.
    hashes: u64,
}

impl Candidates {
    pub fn new() -> Candidates {
        Candidates { items: [Candidate::default(); MAX_CANDIDATES], len: 0, hashes: 0 }
    }

    pub fn as_slice(&self) -> &[Candidate] {
        &self.items[..self.len]
    }

    /// Pools what may follow the client's newest crossing; `visits` are those before it to the
    /// same fragment, and a fetch takes `lead_ns`. What is `resident` is left out.
    pub fn propose(
        &mut self,
        recent: &Recent,
        visits: [Option<Place>; 2],
        pace: &Pace,
        lead_ns: u64,
        history: &History,
        resident: &impl Fn(Key) -> bool,
    ) {
        (self.len, self.hashes) = (0, 0);
        let Some(key) = recent.get(0) else { return };
        let mut pool = Pool { list: self, trigger: key, resident };
        if let Some(lore) = history.lore(key) {
            for (key, share) in lore.next.shares() {
                pool.add(key, Source::Next, |candidate| candidate.next = share);
            }
            for (key, share) in lore.near.shares() {
                pool.add(key, Source::Near, |candidate| candidate.near = share);
            }
        }
        if let Some(previous) = recent.get(1) {
            for (key, share) in history.after(previous, key) {
                pool.add(key, Source::Pair, |candidate| candidate.pair = share);
            }
        }
        for (visit, source) in visits.into_iter().zip([Source::Replay, Source::OlderReplay]) {
            if let Some(visit) = visit {
                pool.replay(visit, source, recent, history);
            }
        }
        for (delta, source) in
            [(1, Source::Ahead), (-1, Source::Behind), (2, Source::Ahead), (-2, Source::Behind)]
        {
            pool.step(delta, source);
        }
        pool.step(3, Source::Ahead);
        pool.step(4, Source::Ahead);
        if pace.delta != 0 {
            let ahead = steps_ahead(pace, lead_ns);
            let steps = (ahead..ahead + 4).map(|n| pace.delta.saturating_mul(n));
            steps.for_each(|delta| pool.step(delta, Source::Stride));
        }
        for voter in (1..NEAR).filter_map(|back| history.lore(recent.get(back)?)) {
            for (key, share) in voter.near.shares() {
                pool.add(key, Source::Vote, |candidate| candidate.votes += share);
            }
        }
    }
}

/// The pool while it is filled.
struct Pool<'a, F> {
    list: &'a mut Candidates,
    trigger: Key,
    resident: &'a F,
}

impl<F: Fn(Key) -> bool> Pool<'_, F> {
    fn step(&mut self, delta: i64, source: Source) {
        if let Some(key) = self.trigger.step(delta) {
            self.add(key, source, |_| {});
        }
    }

    /// Adds a fragment, or what a further proposer says of it.
    fn add(&mut self, key: Key, source: Source, note: impl FnOnce(&mut Candidate)) {
        let list = &mut *self.list;
        let hash = 1 << slot(key.get(), 3, 6);
        let known = (list.hashes & hash != 0)
            .then(|| list.as_slice().iter().position(|candidate| candidate.key == key));
        let place = match known.flatten() {
            Some(place) => place,
            None if list.len == MAX_CANDIDATES || key == self.trigger => return,
            None if (self.resident)(key) => return,
            None => {
                list.hashes |= hash;
                list.items[list.len] = Candidate { key, ..Candidate::default() };
                list.len += 1;
                list.len - 1
            }
        };
        list.items[place].sources |= 1 << source as u16;
        note(&mut list.items[place]);
    }

    /// What came after an earlier visit, if the log still has it.
    fn replay(&mut self, visit: Place, source: Source, recent: &Recent, history: &History) {
        let log = &history.log;
        let mut old = [Key::NONE; REPLAY_SLACK];
        let mut place = visit;
        for old in &mut old {
            let Some(before) = log.before(place) else { break };
            place = before;
            *old = log.key(before).unwrap_or(Key::NONE);
        }
        let newest = (1..=REPLAY_MATCH).filter_map(|back| recent.get(back));
        let replay = 1 + newest.filter(|key| old.contains(key)).count() as u64;
        let mut place = visit;
        for n in 1..=REPLAY as u64 {
            let Some(next) = log.after(place).filter(|next| Some(*next) != recent.place) else {
                return;
            };
            place = next;
            let Some(key) = log.key(place) else { return };
            self.add(key, source, |candidate| {
                if replay > candidate.replay {
                    (candidate.replay, candidate.replay_at) = (replay, n);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fragment: u64) -> Key {
        Key::new(0, fragment).unwrap()
    }

    /// The pool after the crossings, nothing being resident but 11.
    fn pool(crossings: &[u64], pace: &Pace) -> Vec<Candidate> {
        let mut history = History::new();
        let mut recent = Recent::default();
        let mut visits = [None; 2];
        for fragment in crossings {
            let key = key(*fragment);
            visits = history.lore(key).map(|lore| lore.visits()).unwrap_or_default();
            history.record(&mut recent, key, false);
        }
        let mut candidates = Candidates::new();
        let resident = |k: Key| k == key(11);
        candidates.propose(&recent, visits, pace, 0, &history, &resident);
        candidates.as_slice().to_vec()
    }

    fn fragments(pool: &[Candidate]) -> Vec<u64> {
        pool.iter().map(|candidate| candidate.key.fragment()).collect()
    }

    #[test]
    fn neighbours_and_strides_are_proposed_but_not_what_is_resident() {
        let pooled = pool(&[10], &Pace { delta: 5, run: 1, interval_ns: None });
        assert_eq!(fragments(&pooled), [9, 12, 8, 13, 14, 15, 20, 25, 30]);
        assert_eq!(fragments(&pool(&[1], &Pace::default())), [2, 0, 3, 4, 5]);
    }

    #[test]
    fn what_came_before_comes_again() {
        let pooled = pool(&[100, 200, 300, 400, 100], &Pace::default());
        let find = |fragment| pooled.iter().find(|c| c.key == key(fragment)).unwrap();
        assert!((find(200).next - 1.0).abs() < 1e-6);
        assert_eq!((find(200).replay, find(200).replay_at), (1, 1));
        assert_eq!((find(300).replay, find(300).replay_at), (1, 2));
        assert_eq!(find(200).sources & (1 << Source::Next as u16), 1 << Source::Next as u16);
        assert!(!fragments(&pooled).contains(&100), "not the trigger itself");
    }

    #[test]
    fn a_replay_is_told_by_what_preceded_it() {
        let pooled = pool(&[50, 60, 100, 200, 1300, 1400, 1500, 50, 60, 100], &Pace::default());
        let again = pooled.iter().find(|c| c.key == key(200)).unwrap();
        assert_eq!((again.replay, again.replay_at), (3, 1), "50 and 60 came before, too");
        assert!(again.pair > 0.99);
    }

    #[test]
    fn the_pool_is_bounded() {
        let many: Vec<u64> = (0..400).map(|n| (n % 40) * 100).collect();
        assert!(pool(&many, &Pace::default()).len() <= MAX_CANDIDATES);
    }
}
