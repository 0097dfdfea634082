//! The offline laboratory: what a prefetcher would have brought on a trace.
//!
//! A trace is replayed through an LRU fast tier of a fixed number of fragments,
//! reads and writes alike, with proposals inserted at its most recently used
//! end. A ghost of the same size says what would have happened without them.
//! Learning is strictly prequential: nothing is judged on what it has learned
//! from. The cold tier is infinitely wide: a fetch takes [`Setup::late_ns`],
//! whatever else goes on.
#![forbid(unsafe_code)]

mod contender;
mod player;

use std::collections::HashSet;

use crate::Access;
use crate::classic::Touch;
use crate::ledger::{Ghost, Ledger, Lru, Outcome};
use crate::lstm::{Budget, TrainError};
use crate::prefetch::{Predictions, Settings, SettingsError};
pub use contender::{Contender, UnknownContender};
use player::Player;

/// Conditions of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// The prefetcher judged.
    pub contender: Contender,
    /// Its settings.
    pub settings: Settings,
    /// Fragments of the fast tier.
    pub tier_fragments: usize,
    /// Proposals staged for one request, at most.
    pub per_request: usize,
    /// Extra traffic that the ranker may cause, as a share of the misses without it.
    pub extra_share: f64,
    /// Writes trigger proposals as reads do; else they are observed only.
    pub writes_trigger: bool,
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
    /// The usual conditions: writes trigger, for they wait for a fetch as reads do here; as
    /// many proposals for each request as the contender is made for; a quarter of extra
    /// traffic; late below 6 ms; a round of training each 4096 accesses.
    pub fn new(contender: Contender, settings: Settings, tier_fragments: usize) -> Self {
        Self {
            contender,
            settings,
            tier_fragments,
            per_request: contender.width(),
            extra_share: 0.25,
            writes_trigger: true,
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
    /// Touches of another fragment than the touch before.
    pub crossings: u64,
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
    let mut bench = Bench {
        tier: Lru::new(setup.tier_fragments),
        ghost: Ghost::new(setup.tier_fragments),
        verdict: Verdict::default(),
        player: Player::new(setup)?,
        out: Predictions::new(),
        issued: 0,
        at: None,
        driven_out: None,
    };
    for slice in accesses.chunks(setup.slice) {
        for access in slice {
            bench.request(access, setup);
        }
        if let Some(installed) = bench.player.train(slice, setup.budget)? {
            bench.verdict.rounds += 1;
            bench.verdict.installed += u32::from(installed);
        }
    }
    let (touches, ghost_misses) = (bench.ghost.accesses, bench.ghost.misses);
    Ok(Verdict { touches, ghost_misses, ..bench.verdict })
}

/// When an unused stage was issued; `None` once the fragment was asked for.
type Staged = Option<u64>;

/// The fast tier, by volume and fragment.
type Tier = Lru<(u32, u64), Staged>;

struct Bench {
    tier: Tier,
    ghost: Ghost,
    verdict: Verdict,
    player: Player,
    out: Predictions,
    /// Proposals staged for the current request.
    issued: usize,
    /// The fragment touched last.
    at: Option<(u32, u64)>,
    /// What the last insertion drove out of the tier.
    driven_out: Option<((u32, u64), Staged)>,
}

impl Bench {
    fn request(&mut self, access: &Access, setup: &Setup) {
        self.issued = 0;
        for fragment in access.fragment..=access.last_fragment {
            let at = Some((access.volume, fragment));
            self.verdict.crossings += u64::from(self.at != at);
            self.at = at;
            let hit = self.demand(access, fragment, setup.late_ns);
            let touch = Touch {
                time_ns: access.time_ns,
                volume: access.volume,
                fragment,
                write: access.write && !setup.writes_trigger,
                hit,
                last: fragment == access.last_fragment,
            };
            self.out.clear();
            self.player.touch(access, &touch, &self.tier, &mut self.out);
            self.wasted();
            self.stage(access.time_ns, setup.per_request);
        }
    }

    /// A fragment is asked for; true if it was there, or on its way.
    fn demand(&mut self, access: &Access, fragment: u64, late_ns: u64) -> bool {
        let key = (access.volume, fragment);
        let ghost_hit = self.ghost.touch(access.volume, fragment);
        self.verdict.ghost_read_misses += u64::from(!ghost_hit && !access.write);
        let Some(staged) = self.tier.get(&key).map(Option::take) else {
            self.verdict.ledger.misses += 1;
            self.verdict.read_misses += u64::from(!access.write);
            self.driven_out = self.tier.insert(key, None);
            self.player.demand(key, true);
            return false;
        };
        if let Some(issued_ns) = staged {
            // Without a clock every stage counts as in time.
            let late = access.time_ns > 0 && access.time_ns.saturating_sub(issued_ns) < late_ns;
            self.settle(key, if late { Outcome::Late } else { Outcome::Hit });
        }
        self.player.demand(key, false);
        true
    }

    fn stage(&mut self, now: u64, most: usize) {
        let proposals = self.out;
        for prediction in proposals.as_slice() {
            let key = (prediction.volume, prediction.fragment);
            if self.issued == most {
                return;
            }
            if !self.tier.contains(&key) && self.player.admit(prediction.score) {
                self.issued += 1;
                self.verdict.ledger.issued += 1;
                self.driven_out = self.tier.insert(key, Some(now));
                self.wasted();
            }
        }
    }

    /// Reports what was driven out unused.
    fn wasted(&mut self) {
        if let Some((evicted, Some(_))) = self.driven_out.take() {
            self.settle(evicted, Outcome::Wasted);
        }
    }

    fn settle(&mut self, key: (u32, u64), outcome: Outcome) {
        self.verdict.ledger.record(outcome);
        self.player.outcome(key, outcome);
    }
}
