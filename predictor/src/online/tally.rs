//! What prediction has done, and which proposers win.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::rank::{SOURCES, source_names};

/// Stages that a proposer had a part in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTally {
    /// Asked for.
    pub staged: u64,
    /// Used.
    pub used: u64,
}

/// Counters of a predictor since its start, and its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Times that a client came to another fragment.
    pub crossings: u64,
    /// Those at which nothing was ranked, for prediction had taken its share of the core.
    pub unranked: u64,
    /// Of these, those that were not even followed.
    pub unseen: u64,
    /// Those that the trainer of the tower had no room for.
    pub untaught: u64,
    /// Stages asked for that there was nothing to stage for.
    pub needless: u64,
    /// Stages asked for that there was no room for.
    pub refused: u64,
    /// Stages asked for that were not there when they were needed.
    pub lost: u64,
    /// Probability that a fragment must have now to be staged.
    pub threshold: f32,
    /// Fragments fetched beyond what would have been without prediction.
    pub extra: i64,
    /// Misses that there would have been without it.
    pub ghost_misses: u64,
    /// Clients with a model of their own.
    pub models: u64,
    /// Models from all cores that foretold better than the one in use.
    pub models_won: u64,
    /// By proposer, in the order of [`source_names`].
    pub by_source: [SourceTally; SOURCES],
}

impl Tally {
    pub(super) fn staged(&mut self, bits: u16) {
        self.each(bits, |source| source.staged += 1);
    }

    pub(super) fn used(&mut self, bits: u16) {
        self.each(bits, |source| source.used += 1);
    }

    fn each(&mut self, bits: u16, count: impl Fn(&mut SourceTally)) {
        let named = self.by_source.iter_mut().enumerate();
        named.filter(|(n, _)| bits >> n & 1 == 1).for_each(|(_, source)| count(source));
    }

    /// The proposers' counters.
    pub fn sources(&self) -> impl Iterator<Item = SourceTally> {
        self.by_source.iter().copied()
    }

    /// Each proposer's name with its counters.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, SourceTally)> {
        source_names(u16::MAX).zip(self.sources())
    }

    /// Adds another core's; the threshold becomes the higher one.
    pub fn add(&mut self, other: &Tally) {
        self.crossings += other.crossings;
        self.unranked += other.unranked;
        self.unseen += other.unseen;
        self.untaught += other.untaught;
        self.needless += other.needless;
        self.refused += other.refused;
        self.lost += other.lost;
        self.threshold = self.threshold.max(other.threshold);
        self.extra += other.extra;
        self.ghost_misses += other.ghost_misses;
        self.models += other.models;
        self.models_won += other.models_won;
        for (mine, others) in self.by_source.iter_mut().zip(other.by_source) {
            mine.staged += others.staged;
            mine.used += others.used;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_to_all_who_proposed() {
        let mut tally = Tally::default();
        tally.staged(0b101);
        tally.used(0b100);
        let mut sum = tally.clone();
        sum.add(&tally);
        let named: Vec<_> = sum.named().filter(|(_, source)| source.staged > 0).collect();
        let both = |used| SourceTally { staged: 2, used };
        assert_eq!(named, [("ahead", both(0)), ("stride", both(2))]);
    }
}
