//! The offline laboratory: what a prefetcher would have brought on a trace.
//!
//! A trace is replayed through a fast tier of a fixed number of fragments, reads and writes
//! alike: an LRU with proposals inserted at its most recently used end, for SARC its own
//! cache. A ghost of the same size, always an LRU, says what would have happened without
//! them. Learning is strictly prequential: nothing is judged on what it has learned from; but
//! the oracles, which say how much there is to gain, know the future.
//!
//! Two accounts are kept of what is late. The simple one calls a stage late if it is used
//! less than [`Setup::late_ns`] after it was issued. The other is a cold device with a queue
//! ([`Model`]), with prefetch and without; it says how long reads wait. It does not act on
//! the tier: a stage is in the tier when it is issued, whenever it arrives.
//!
//! A third account ([`Setup::served`]) puts what runs on a core of a server, its predictor and
//! its stages, in the place of the tier.
//!
//! ```text
//! accesses → tier ── proposals ← player
//!          ↘ ghost ↘ cold (with), cold (without)
//! ```
#![forbid(unsafe_code)]

mod account;
mod bench;
mod cold;
mod contender;
mod curve;
mod disk;
mod future;
mod player;
mod served;
mod tier;
mod verdict;

use std::collections::HashSet;
use std::time::Duration;

use crate::Access;
use crate::deep;
use crate::prefetch::{Settings, SettingsError};
use crate::random::Random;
use account::Account;
pub use cold::Waits;
pub use contender::{Contender, UnknownContender};
use curve::Curve;
pub use disk::Model;
pub use served::{MAX_PASSED_OVER, QUIET_NS, RUN_BLOCKS};
pub use verdict::{Cost, Device, Point, Run, Verdict};

/// Accesses between two reports of how far a run is.
const SLICE: usize = 4096;

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
    /// Writes wait for no fragment and need none, as on a server: they are followed, but do
    /// not count, and the ranker foresees reads alone. Else they are as reads.
    pub writes_free: bool,
    /// What runs on a core of a server is judged, with its reads of blocks and its stages, in
    /// place of a tier of whole fragments; for contenders that it can be told to run.
    pub served: bool,
    /// A stage used sooner than this after it was issued counts as late.
    pub late_ns: u64,
    /// The cold device.
    pub model: Model,
    /// Seed of the model.
    pub seed: u64,
}

impl Setup {
    /// The usual conditions: writes trigger, for they wait for a fetch as reads do here; as
    /// many proposals for each request as the contender is made for, or the depth if that is
    /// more; a quarter of extra traffic; late below 6 ms.
    pub fn new(contender: Contender, settings: Settings, tier_fragments: usize) -> Self {
        Self {
            contender,
            settings,
            tier_fragments,
            per_request: contender.width().max(settings.prefetch_depth),
            extra_share: 0.25,
            writes_trigger: true,
            writes_free: false,
            served: false,
            late_ns: 6_000_000,
            model: Model::HDD,
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
    /// Training of the ranker's tower failed.
    #[error(transparent)]
    Tower(#[from] deep::TrainError),
}

/// Number of different fragments that the accesses touch.
pub fn footprint(accesses: &[Access]) -> usize {
    let touched = accesses
        .iter()
        .flat_map(|a| (a.fragment..=a.last_fragment).map(|fragment| (a.volume, fragment)));
    touched.collect::<HashSet<_>>().len()
}

/// The same requests in a random order, at the same times: what is learned from them is
/// learned from noise.
pub fn shuffled(accesses: &[Access], seed: u64) -> Vec<Access> {
    let mut requests = accesses.to_vec();
    Random::new(seed).shuffle(&mut requests);
    for (request, access) in requests.iter_mut().zip(accesses) {
        request.time_ns = access.time_ns;
    }
    requests
}

/// Replays the accesses of one client under the given conditions; `clock` says what the
/// process or thread has taken so far, and `observe` is told now and then how many accesses
/// were done since.
///
/// # Errors
/// If a setting is out of range or training fails.
///
/// # Panics
/// If the tier is empty.
pub fn run(
    accesses: &[Access],
    setup: &Setup,
    clock: impl Fn() -> Duration,
    mut observe: impl FnMut(usize),
) -> Result<Run, LabError> {
    let has_clock = accesses.iter().any(|access| access.time_ns > 0);
    let mut account = Account::new(setup, accesses)?;
    let mut curve = Curve::new(accesses, has_clock);
    let (mut rounds, mut installed) = (0, 0);
    let mut training = Duration::ZERO;
    let started = clock();
    for slice in accesses.chunks(SLICE) {
        for access in slice {
            let (misses, ghost_misses) = account.misses();
            curve.sample(access, misses, ghost_misses);
            account.request(access, setup);
            if account.is_due() {
                let before = clock();
                rounds += 1;
                installed += u32::from(account.teach()?);
                training += clock().saturating_sub(before);
            }
        }
        observe(slice.len());
    }
    let run = clock().saturating_sub(started).saturating_sub(training);
    let (misses, ghost_misses) = account.misses();
    let verdict = account.verdict(has_clock);
    Ok(Run {
        verdict: Verdict { rounds, installed, ..verdict },
        curve: curve.end(misses, ghost_misses),
        cost: Cost { run, training },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_keeps_requests_and_times() {
        let accesses: Vec<Access> = (0..500)
            .map(|n| Access { time_ns: 1 + n, fragment: n, last_fragment: n, ..Access::default() })
            .collect();
        let mixed = shuffled(&accesses, 3);
        assert_eq!(mixed, shuffled(&accesses, 3));
        assert_ne!(mixed, shuffled(&accesses, 4));
        assert!(mixed.iter().zip(&accesses).all(|(a, b)| a.time_ns == b.time_ns));
        assert!(mixed.iter().filter(|a| a.time_ns != a.fragment + 1).count() > 450);
        let mut fragments: Vec<u64> = mixed.iter().map(|access| access.fragment).collect();
        fragments.sort_unstable();
        assert!(fragments.into_iter().eq(0..500));
    }
}
