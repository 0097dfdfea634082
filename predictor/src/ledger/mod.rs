//! Exact account of what prediction brought and what it cost.
//!
//! [`Ledger`] counts outcomes; [`Ghost`] says what would have been missed
//! without prediction. Fetches really made minus ghost misses is the true extra
//! traffic: it sees the pollution that a count of wasted stages does not.
#![forbid(unsafe_code)]

mod lru;

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

pub use lru::Lru;

/// What became of one staged fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was there when it was asked for.
    Hit,
    /// It was asked for while it was still on its way.
    Late,
    /// It left without having been asked for.
    Wasted,
}

/// Counters of one prefetcher; monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Fragments staged on a prediction.
    pub issued: u64,
    /// Stages used in time.
    pub hits: u64,
    /// Stages used, but not complete when asked for.
    pub late: u64,
    /// Stages evicted unused.
    pub wasted: u64,
    /// Demand accesses to fragments that were neither staged nor resident.
    pub misses: u64,
}

impl Ledger {
    /// Counts an outcome.
    pub fn record(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Hit => self.hits += 1,
            Outcome::Late => self.late += 1,
            Outcome::Wasted => self.wasted += 1,
        }
    }

    /// Used stages among those whose outcome is known; `None` before the first.
    pub fn precision(&self) -> Option<f64> {
        let used = self.hits + self.late;
        let known = used + self.wasted;
        (known > 0).then(|| used as f64 / known as f64)
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.issued += other.issued;
        self.hits += other.hits;
        self.late += other.late;
        self.wasted += other.wasted;
        self.misses += other.misses;
    }
}

/// An LRU cache of tags only: the demand misses that the same space would have
/// without any prefetch.
#[derive(Clone, Debug)]
pub struct Ghost {
    tags: Lru<(u32, u64), ()>,
    /// Fragment accesses seen.
    pub accesses: u64,
    /// Those that missed.
    pub misses: u64,
}

impl Ghost {
    /// A cache of `fragments` fragments.
    ///
    /// # Panics
    /// If `fragments` is 0 or does not fit 32 bits.
    pub fn new(fragments: usize) -> Self {
        Self { tags: Lru::new(fragments), accesses: 0, misses: 0 }
    }

    /// One demand access to a fragment of a volume, which stays if it is one to `keep`; true if
    /// it would hit.
    pub fn touch(&mut self, volume: u32, fragment: u64, keep: bool) -> bool {
        self.accesses += 1;
        let hit = self.tags.get(&(volume, fragment)).is_some();
        self.misses += u64::from(!hit);
        if !hit && keep {
            self.tags.insert((volume, fragment), ());
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_counts_late_as_used() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.precision(), None);
        for outcome in [Outcome::Hit, Outcome::Late, Outcome::Wasted, Outcome::Wasted] {
            ledger.record(outcome);
        }
        assert_eq!(ledger.precision(), Some(0.5));
        let mut sum = ledger;
        sum += ledger;
        assert_eq!((sum.hits, sum.late, sum.wasted), (2, 2, 4));
    }

    #[test]
    fn the_ghost_misses_what_lru_misses() {
        let mut ghost = Ghost::new(2);
        let hits: Vec<bool> = [1, 2, 1, 3, 2, 1].iter().map(|f| ghost.touch(0, *f, true)).collect();
        assert_eq!(hits, [false, false, true, false, false, false]);
        assert_eq!((ghost.accesses, ghost.misses), (6, 5));
        assert!(!ghost.touch(1, 1, false), "volumes are told apart");
        assert!(!ghost.touch(1, 1, true), "it was not kept");
    }
}
