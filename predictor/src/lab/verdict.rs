//! What a run comes to.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::cold::Waits;
use crate::ledger::Ledger;

/// Counts of one run; equal runs have equal ones.
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
    /// Waiting for the cold device with it and without; `None` for a trace without a clock.
    pub device: Option<Device>,
    /// Rounds of training.
    pub rounds: u32,
    /// Rounds whose candidate won.
    pub installed: u32,
}

/// The cold device, as [`super::Model`] imagines it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// With prefetch.
    pub with: Waits,
    /// Without.
    pub without: Waits,
}

impl Device {
    /// Waiting that prefetch saved, in milliseconds; negative where it delayed.
    pub fn hidden_ms(&self) -> f64 {
        (self.without.total_ns as f64 - self.with.total_ns as f64) / 1e6
    }
}

impl Verdict {
    /// Demand accesses that found their fragment, arrived or on its way, 0 to 1.
    pub fn hit_ratio(&self) -> f64 {
        1.0 - self.ledger.misses as f64 / self.touches.max(1) as f64
    }
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
    /// Stages used among those issued, 0 to 1; `None` if there were none.
    pub fn accuracy(&self) -> Option<f64> {
        let issued = self.ledger.issued;
        (issued > 0).then(|| (self.ledger.hits + self.ledger.late) as f64 / issued as f64)
    }
    /// Stages used, as a share of the misses without prefetch.
    pub fn coverage(&self) -> f64 {
        self.ratio(self.ledger.hits + self.ledger.late)
    }
    fn ratio(&self, count: u64) -> f64 {
        count as f64 / self.ghost_misses.max(1) as f64
    }
}

/// Demand misses up to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Nanoseconds since the first request; requests, for a trace without a clock.
    pub at: u64,
    /// Misses with prefetch.
    pub misses: u64,
    /// Misses without.
    pub ghost_misses: u64,
}

/// Time that a run took, by the clock it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// In all, but for training in rounds, which is not for a core to do.
    pub run: Duration,
    /// Training in rounds.
    pub training: Duration,
}

impl Cost {
    /// Nanoseconds for each crossing beyond those of a run without prefetch.
    pub fn ns_per_crossing(&self, none: &Cost, crossings: u64) -> f64 {
        let beyond = self.run.saturating_sub(none.run);
        beyond.as_secs_f64() * 1e9 / crossings.max(1) as f64
    }
}

/// A run that was made.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it came to.
    pub verdict: Verdict,
    /// Misses over time.
    pub curve: Vec<Point>,
    /// What it took.
    pub cost: Cost,
}
