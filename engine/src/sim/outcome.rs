//! What runs did, counted.

use crate::table::Counters;

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps taken.
    pub steps: u64,
    /// Requests that ended well.
    pub completed: u64,
    /// Comparisons that found a difference.
    pub miscompared: u64,
    /// Requests refused for want of space.
    pub no_space: u64,
    /// Requests that a failing device or a rotten block ended.
    pub failed: u64,
    /// Deaths of the process.
    pub kills: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Crashes while recovering.
    pub crashes_in_recovery: u64,
    /// Times that a core was woken by another core or by a device.
    pub wakes: u64,
    /// Volumes created, deleted, shrunk, grown.
    pub jobs: u64,
    /// Deletions and shrinks brought to their end.
    pub trims: u64,
    /// Device operations failed.
    pub faults: u64,
    /// Device operations that went to other blocks.
    pub astray: u64,
    /// Device operations that got stuck.
    pub delays: u64,
    /// Times that bits were flipped on a medium.
    pub flips: u64,
    /// Reads that returned rotten or foreign bytes.
    pub wrong_reads: u64,
    /// Worlds in which a device lied about a flush.
    pub lies: u64,
    /// Pools that refused to open after a lie.
    pub refused: u64,
    /// Examinations of the whole pool.
    pub checks: u64,
    /// Stages that the learned predictor asked for.
    pub foreseen: u64,
    /// Everything the tables counted.
    pub counters: Counters,
}

impl Outcome {
    /// Adds another run's.
    pub fn add(&mut self, other: &Outcome) {
        self.steps += other.steps;
        self.completed += other.completed;
        self.miscompared += other.miscompared;
        self.no_space += other.no_space;
        self.failed += other.failed;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.crashes_in_recovery += other.crashes_in_recovery;
        self.wakes += other.wakes;
        self.jobs += other.jobs;
        self.trims += other.trims;
        self.faults += other.faults;
        self.astray += other.astray;
        self.delays += other.delays;
        self.flips += other.flips;
        self.wrong_reads += other.wrong_reads;
        self.lies += other.lies;
        self.refused += other.refused;
        self.checks += other.checks;
        self.foreseen += other.foreseen;
        self.counters.add(&other.counters);
    }
}
