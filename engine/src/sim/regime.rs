//! Lives that work of all kinds reaches too rarely, each in some of the worlds.
//!
//! A regime narrows what clients do and bends what happens to it; every promise
//! is checked as everywhere else.

use super::broken::Broken;
use super::core::{Asked, core_id};
use super::plan::Fault;
use super::world::World;
use crate::device::sim::Rng;
use crate::format::journal_block::PAYLOAD_BYTES;
use crate::request::Op;
use crate::table::op::Token;
use crate::table::sink::{Io, IoKind};
use crate::table::slice::Commit;
use crate::units::{BLOCK_BYTES, SEGMENT_BYTES, WINDOW_BLOCKS, WINDOW_BYTES};
use crate::volume::composer::Foresight;

/// What a world is made to come across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// Everything, at random.
    Mixed,
    /// In life after life the power fails while a group of several journal blocks is being
    /// written to the same slice: remains of groups lie behind the journal's end.
    CutGroups,
    /// Writing a checkpoint's root takes about as long as filling the rest of the journal.
    SlowRoots,
    /// Device flushes take long. Commits of several slices wait for each, fragments go and
    /// others come in their place while the records of that are not durable.
    SlowFlushes,
    /// The fast tier has a few chunks, many slices want one each, and the cold tier has room:
    /// nothing may find the pool full.
    Crowded,
}

impl Regime {
    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Regime::Mixed => "mixed",
            Regime::CutGroups => "cut-groups",
            Regime::SlowRoots => "slow-roots",
            Regime::SlowFlushes => "slow-flushes",
            Regime::Crowded => "crowded",
        }
    }

    /// The one with that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let slow = [Regime::SlowRoots, Regime::SlowFlushes];
        let all = [Regime::Mixed, Regime::CutGroups, slow[0], slow[1], Regime::Crowded];
        all.into_iter().find(|regime| regime.name() == name)
    }

    /// One for a new world.
    pub(super) fn choose(rng: &mut Rng) -> Self {
        match rng.below(16) {
            0..=1 => Regime::CutGroups,
            2..=3 => Regime::SlowRoots,
            4 => Regime::SlowFlushes,
            5 => Regime::Crowded,
            _ => Regime::Mixed,
        }
    }

    /// Starts of the regions for this regime's requests, in bytes; none for mixed work.
    pub(super) fn regions(self, rng: &mut Rng) -> Vec<u64> {
        let some = if self == Regime::Crowded { 4 + rng.below(8) } else { 0 };
        let mut segment = || rng.below(40) * SEGMENT_BYTES;
        match self {
            Regime::Mixed => Vec::new(),
            Regime::CutGroups => {
                let start = segment();
                (0..16).map(|window| start + window * WINDOW_BYTES).collect()
            }
            Regime::Crowded => (0..some).map(|_| segment()).collect(),
            Regime::SlowRoots => {
                let regions: Vec<_> = (0..3).map(|_| segment()).collect();
                regions[..1 + rng.index(3)].to_vec()
            }
            Regime::SlowFlushes => {
                let segments = [segment(), segment(), segment()];
                segments
                    .iter()
                    .flat_map(|at| (0..4).map(move |part| at + part * (4 << 20)))
                    .collect()
            }
        }
    }

    /// A request in a region: operation, FUA, offset and length in bytes; `None` for mixed work.
    pub(super) fn request(self, rng: &mut Rng, region: u64) -> Option<(Op, bool, u64, u64)> {
        let op = if rng.one_in(16) { Op::Read } else { Op::Write };
        match self {
            Regime::Mixed => None,
            Regime::CutGroups => Some((op, false, region, WINDOW_BYTES)),
            Regime::Crowded => {
                let start = region + rng.below(SEGMENT_BYTES / WINDOW_BYTES) * WINDOW_BYTES;
                let block = rng.below(WINDOW_BLOCKS.into()) * BLOCK_BYTES as u64;
                Some(match rng.below(24) {
                    0 => (Op::Discard, false, start, WINDOW_BYTES),
                    1 => (op, false, start, WINDOW_BYTES),
                    _ => (op, rng.one_in(8), start + block, BLOCK_BYTES as u64),
                })
            }
            Regime::SlowFlushes if rng.one_in(8) => {
                Some((Op::Discard, false, region, WINDOW_BYTES))
            }
            Regime::SlowFlushes => {
                let block = rng.below(8) * BLOCK_BYTES as u64;
                Some((op, true, region + block, BLOCK_BYTES as u64))
            }
            Regime::SlowRoots => {
                let block = rng.below(WINDOW_BLOCKS.into()) * BLOCK_BYTES as u64;
                Some((op, true, region + block, BLOCK_BYTES as u64))
            }
        }
    }

    /// What goes wrong in half of its worlds besides what chance brings.
    pub(super) fn favours(self) -> Option<Fault> {
        match self {
            // Remains of a group may be in one copy only: recovery that reads it wrong once, and
            // right later, must not believe it then.
            Regime::CutGroups => Some(Fault::Misreads),
            // Another core's flush may be under way when one fails.
            Regime::SlowFlushes => Some(Fault::FailedFlushes),
            Regime::Mixed | Regime::SlowRoots | Regime::Crowded => None,
        }
    }

    /// Requests that may be under way at once.
    pub(super) fn max_in_flight(self) -> usize {
        // Few requests make short queues, and so many commits.
        match self {
            Regime::SlowRoots => 4,
            Regime::SlowFlushes => 8,
            Regime::Mixed | Regime::CutGroups | Regime::Crowded => 24,
        }
    }

    /// Choices for the journal blocks after which a slice is checkpointed.
    pub(super) fn checkpoint_blocks(self) -> [u32; 3] {
        // Only behind a long journal can a checkpoint under way see the ring come round.
        if self == Regime::SlowRoots { [3, 64, 64] } else { [3, 10, 64] }
    }
}

impl World {
    /// Work between two crashes.
    pub(super) fn life(&mut self) -> Result<(), Broken> {
        let most = self.plan.steps;
        let steps = match self.plan.regime {
            Regime::Mixed => most.div_ceil(8) + self.rng.below(most),
            Regime::CutGroups => return self.cut_a_group(),
            Regime::SlowRoots | Regime::SlowFlushes | Regime::Crowded => {
                most / 2 + self.rng.below(most)
            }
        };
        for _ in 0..steps {
            if self.dying {
                break;
            }
            self.step(true)?;
        }
        Ok(())
    }

    /// Lets a group outgrow a journal block, flushes, and stops while it is being written.
    fn cut_a_group(&mut self) -> Result<(), Broken> {
        let goal = PAYLOAD_BYTES * (1 + self.rng.index(3));
        let mut flushed = false;
        for _ in 0..self.plan.steps {
            self.step(true)?;
            let (load, writing) = self.largest_group();
            if writing && self.rng.one_in(2) {
                break;
            }
            if load > goal && !flushed {
                flushed = true;
                let (volume, _) = self.playground.volumes[0];
                let (oracle, shared) = (&mut self.oracle, &mut self.shared);
                let request = self.clients.flush(volume, core_id(0), oracle, shared);
                self.cores[0].ask(Asked::Request(request, Foresight::default()));
            }
        }
        Ok(())
    }

    /// Bytes of the largest pending group, and whether one of several blocks is being written
    /// and whole in neither copy.
    fn largest_group(&self) -> (usize, bool) {
        let slices = self.cores.iter().flat_map(|core| core.table.slices());
        slices.fold((0, false), |(load, writing), slice| {
            let cut = matches!(slice.journal.commit, Commit::Writing { left: 2.., .. })
                && slice.log.committing().len() > PAYLOAD_BYTES;
            (load.max(slice.log.load()), writing || cut)
        })
    }

    /// True if this operation is to wait longer, though its turn has come.
    pub(super) fn holds_back(&mut self, io: &Io) -> bool {
        let root = io.kind == IoKind::Write { fua: true }
            && matches!(Token::unpack(io.token), Token::Checkpoint(_));
        let odds = match self.plan.regime {
            Regime::SlowRoots if root => self.root_odds,
            Regime::SlowFlushes if io.kind == IoKind::Flush => 100,
            _ => return false,
        };
        !self.auditing && !self.rng.one_in(odds)
    }
}
