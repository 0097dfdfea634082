//! The offline laboratory: what a prefetcher would have brought on a trace.
//!
//! A trace is replayed through an LRU fast tier of a fixed number of fragments,
//! reads and writes alike, with proposals inserted at its most recently used
//! end. A ghost of the same size says what would have happened without them.
//! Learning is strictly prequential: after each slice the trainer is given that
//! slice, and what it learned is judged on later slices only. The cold tier is
//! infinitely wide: a fetch takes [`Setup::late_ns`], whatever else goes on.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use crate::Access;
use crate::ledger::{Ghost, Ledger, Lru, Outcome};
use crate::lstm::{Budget, TrainError, Trainer};
use crate::prefetch::{Predictions, PrefetchKind, Prefetcher, Settings, SettingsError};

/// Conditions of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// The prefetcher judged.
    pub kind: PrefetchKind,
    /// Its settings.
    pub settings: Settings,
    /// Fragments of the fast tier.
    pub tier_fragments: usize,
    /// Proposals staged for one request, at most.
    pub per_request: usize,
    /// A stage used sooner than this after it was issued counts as late.
    pub late_ns: u64,
    /// Accesses between two rounds of training.
    pub slice: usize,
    /// Work of one round.
    pub budget: Budget,
    /// Seed of the model.
    pub seed: u64,
}

impl Setup {
    /// The usual conditions: at most four proposals for each
    /// request, late below 6 ms, a round of training each 4096 accesses.
    pub fn new(kind: PrefetchKind, settings: Settings, tier_fragments: usize) -> Self {
        Self {
            kind,
            settings,
            tier_fragments,
            per_request: 4,
            late_ns: 6_000_000,
            slice: 4096,
            budget: Budget::default(),
            seed: 1,
        }
    }
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A setting is out of its range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Result of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Fragment accesses: a request over two fragments counts twice.
    pub touches: u64,
    /// Demand misses without prefetch.
    pub ghost_misses: u64,
    /// Those of reads.
    pub ghost_read_misses: u64,
    /// Demand misses of reads with it: what a client waits for.
    pub read_misses: u64,
    /// Outcomes with it; `misses` are its demand misses, late stages excluded.
    pub ledger: Ledger,
    /// Rounds of training.
    pub rounds: u32,
    /// Rounds whose candidate won.
    pub installed: u32,
}

impl Verdict {
    /// Demand misses removed, in % of those without prefetch.
    pub fn reduction_percent(&self) -> f64 {
        100.0 * (1.0 - self.ratio(self.ledger.misses))
    }
    /// Demand misses of reads removed, in % of those without prefetch.
    pub fn read_reduction_percent(&self) -> f64 {
        100.0 * (1.0 - self.read_misses as f64 / self.ghost_read_misses.max(1) as f64)
    }
    /// The same as [`Verdict::reduction_percent`] with late stages counted as misses.
    pub fn timely_percent(&self) -> f64 {
        100.0 * (1.0 - self.ratio(self.ledger.misses + self.ledger.late))
    }
    /// Fetches beyond those without prefetch, in %.
    pub fn extra_percent(&self) -> f64 {
        100.0 * (self.ratio(self.ledger.misses + self.ledger.issued) - 1.0)
    }
    fn ratio(&self, count: u64) -> f64 {
        count as f64 / self.ghost_misses.max(1) as f64
    }
}

/// Number of different fragments that the accesses touch.
pub fn footprint(accesses: &[Access]) -> usize {
    let touched = accesses
        .iter()
        .flat_map(|a| (a.fragment..=a.last_fragment).map(|fragment| (a.volume, fragment)));
    touched.collect::<HashSet<_>>().len()
}

/// Replays the accesses of one client under the given conditions.
///
/// # Errors
/// If a setting is out of range or training fails.
///
/// # Panics
/// If the tier or the slice is empty.
pub fn run(accesses: &[Access], setup: &Setup) -> Result<Verdict, LabError> {
    let mut prefetcher = Prefetcher::new(setup.kind, setup.settings)?;
    let mut trainer = match setup.kind {
        PrefetchKind::Lstm => Some(Trainer::new(setup.settings, setup.seed)?),
        PrefetchKind::None | PrefetchKind::Readahead => None,
    };
    let mut bench = Bench {
        tier: Lru::new(setup.tier_fragments),
        ghost: Ghost::new(setup.tier_fragments),
        verdict: Verdict::default(),
    };
    let mut out = Predictions::new();
    for slice in accesses.chunks(setup.slice) {
        for access in slice {
            bench.demand(access, setup.late_ns, &mut prefetcher);
            prefetcher.observe(access, &mut out);
            bench.stage(access.time_ns, &out, setup.per_request, &mut prefetcher);
        }
        if let Some(trainer) = &mut trainer {
            trainer.push(slice);
            let report = trainer.train(setup.budget)?;
            bench.verdict.rounds += u32::from(report.steps > 0);
            if let Some(weights) = report.weights {
                bench.verdict.installed += 1;
                prefetcher.install(weights);
            }
        }
    }
    let (touches, ghost_misses) = (bench.ghost.accesses, bench.ghost.misses);
    Ok(Verdict { touches, ghost_misses, ..bench.verdict })
}

/// When an unused stage was issued; `None` once the fragment was asked for.
type Staged = Option<u64>;

struct Bench {
    tier: Lru<(u32, u64), Staged>,
    ghost: Ghost,
    verdict: Verdict,
}

impl Bench {
    fn demand(&mut self, access: &Access, late_ns: u64, prefetcher: &mut Prefetcher) {
        for fragment in access.fragment..=access.last_fragment {
            let ghost_hit = self.ghost.touch(access.volume, fragment);
            self.verdict.ghost_read_misses += u64::from(!ghost_hit && !access.write);
            let key = (access.volume, fragment);
            match self.tier.get(&key).map(Option::take) {
                Some(None) => {}
                Some(Some(issued_ns)) => {
                    // Without a clock every stage counts as in time.
                    let late =
                        access.time_ns > 0 && access.time_ns.saturating_sub(issued_ns) < late_ns;
                    let outcome = if late { Outcome::Late } else { Outcome::Hit };
                    self.settle(outcome, prefetcher);
                }
                None => {
                    self.verdict.ledger.misses += 1;
                    self.verdict.read_misses += u64::from(!access.write);
                    self.insert(key, None, prefetcher);
                }
            }
        }
    }

    fn stage(&mut self, now: u64, out: &Predictions, most: usize, prefetcher: &mut Prefetcher) {
        let absent = |tier: &Lru<_, _>, key: &(u32, u64)| !tier.contains(key);
        let mut issued = 0;
        for prediction in out.as_slice() {
            let key = (prediction.volume, prediction.fragment);
            if issued < most && absent(&self.tier, &key) {
                issued += 1;
                self.verdict.ledger.issued += 1;
                self.insert(key, Some(now), prefetcher);
            }
        }
    }

    fn insert(&mut self, key: (u32, u64), staged: Staged, prefetcher: &mut Prefetcher) {
        if let Some((_, Some(_))) = self.tier.insert(key, staged) {
            self.settle(Outcome::Wasted, prefetcher);
        }
    }

    fn settle(&mut self, outcome: Outcome, prefetcher: &mut Prefetcher) {
        self.verdict.ledger.record(outcome);
        prefetcher.feedback(outcome);
    }
}
