//! Moving fragments between the fast and the cold tier.
//!
//! *Spill*: a fragment that has cooled down is written whole to a cold slot,
//! the device is flushed, and the authority moves with one record, provided
//! that the fragment's generation is still what it was. Its fast slots are free
//! when that record is durable. *Promote*: a staged fragment that keeps being
//! read gets clean fast copies of its cold blocks; they are on no record and
//! can go at once. One job of each kind at a time per core; both are background.

pub mod copy;
pub mod promote;
pub mod spill;

use crate::format::record::FragmentKey;
use crate::format::superblock::Role;
use crate::table::Table;
use crate::table::fragment::Fragment;
use crate::table::index::Cursor;
use crate::table::seat::Seat;
use crate::table::sink::Sink;
use crate::units::{Nanos, SliceId, VolumeId};

/// When fragments move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierSettings {
    /// Spill while a fast device has less than this part of its chunks free, in per cent.
    pub spill_below_percent: u8,
    /// Spill fragments that nobody has used for so long; 0: only when space is short.
    pub idle_ns: u64,
    /// Copy back after so many separate reads from the cold tier; 0: never.
    pub promote_touches: u8,
}

/// Jobs under way.
#[derive(Debug, Default)]
pub struct Tiering {
    pub(crate) jobs: [Option<copy::Job>; 2],
    /// The fragment whose spill waits for its map.
    pub(crate) awaited: Option<(SliceId, FragmentKey)>,
    /// Where the search for one to spill stands: slice and fragment.
    pub(crate) hand: (usize, Cursor),
    /// Spill everything of this volume, whatever its age.
    pub(crate) cooling: Option<VolumeId>,
    /// The last spill did not begin for want of memory.
    pub(crate) starved: bool,
    next_scan: Nanos,
}

impl Tiering {
    /// A job is under way or wanted.
    fn is_working(&self) -> bool {
        self.cooling.is_some() || self.awaited.is_some() || self.jobs.iter().any(Option::is_some)
    }
}

/// Least pause between two looks for work.
const SCAN_NS: u64 = 500_000_000;
/// The same on a core that nothing else wakes: a fragment becomes idle in minutes, not seconds.
const IDLE_SCAN_NS: u64 = 10_000_000_000;
/// Pause before a job that found no memory is looked at again.
const RESUME_NS: u64 = 20_000_000;
/// Pause between the steps of a trim that no other event takes further.
const TRIM_NS: u64 = 1_000_000;

impl Table {
    /// Looks for background work; call now and then. Returns when it wants to be called again.
    pub fn tick<S: Sink>(&mut self, sink: &mut S) -> Option<Nanos> {
        self.resume_snapshot(sink);
        if self.starved {
            self.kick_all();
        }
        if self.has_cold() && self.now >= self.tiering.next_scan {
            self.tiering.next_scan = self.now.after(SCAN_NS);
            if self.tiering.jobs[copy::SPILL].is_none() {
                self.find_spill(None, sink);
            }
            if self.tiering.jobs[copy::PROMOTE].is_none() {
                self.find_promotion(sink);
            }
        }
        self.settle(sink);
        if self.is_trimming() {
            return Some(self.now.after(TRIM_NS));
        }
        if self.tiering.is_working() || !self.snapshots.is_empty() || self.starved {
            return Some(self.now.after(RESUME_NS));
        }
        let empty = self.slices().all(|slice| slice.index.is_empty());
        let ages = self.has_cold() && !empty && self.config.tier.idle_ns > 0;
        ages.then(|| self.now.after(IDLE_SCAN_NS))
    }

    /// Moves all of a volume to the cold tier, its clean fast copies and stages gone.
    ///
    /// Begins what can be begun and returns whether work is left: call it again
    /// until it returns false. False is also the answer where nothing can be moved.
    pub fn cool<S: Sink>(&mut self, volume: VolumeId, sink: &mut S) -> bool {
        if !self.has_cold() {
            return false;
        }
        self.tiering.cooling = Some(volume);
        self.evict_stages_of(volume, sink);
        self.evict_copies_of(volume);
        if self.tiering.jobs[copy::SPILL].is_none() {
            self.find_spill(None, sink);
        }
        let moving = self.tiering.jobs[copy::SPILL].is_some()
            || self.tiering.awaited.is_some()
            || self.tiering.starved;
        let held = self.here_of(volume).any(|f| f.pins > 0 && (f.is_warm() || f.stage.is_some()));
        let here = self.here_of(volume).any(|f| f.is_warm() && !f.stuck);
        let away = |seat: &Seat| seat.here().is_none() && seat.is_warm() && !seat.stuck;
        let mut seats = self.slices().flat_map(|slice| slice.index.all());
        let movable = here || seats.any(|(key, seat, _)| key.volume == volume && away(seat));
        drop(seats);
        self.settle(sink);
        let left = held || movable && moving;
        if !left {
            self.tiering.cooling = None;
        }
        left
    }

    /// Drops the volume's stages that nothing holds.
    fn evict_stages_of<S: Sink>(&mut self, volume: VolumeId, sink: &mut S) {
        let of_volume = |f: &&Fragment| f.key.volume == volume && f.pins == 0;
        let stages: Vec<u32> =
            self.here_of(volume).filter(of_volume).filter_map(|f| f.stage).collect();
        for stage in stages {
            self.evict_stage(stage, sink);
        }
    }

    fn has_cold(&self) -> bool {
        self.config.devices.iter().any(|device| device.role == Role::Cold)
    }

    pub(crate) fn fast_is_short<S: Sink>(&self, sink: &S) -> bool {
        let fast = self.config.devices.iter().filter(|device| device.role == Role::Fast);
        fast.map(|device| sink.chunks(device.id)).any(|(free, total)| {
            u64::from(free) * 100
                < u64::from(total) * u64::from(self.config.tier.spill_below_percent)
        })
    }

    /// A new fragment finds no slot: spills one from the same slice. False if that cannot help.
    pub(crate) fn make_room<S: Sink>(&mut self, id: SliceId, sink: &mut S) -> bool {
        if !self.has_cold() {
            return false;
        }
        match &self.tiering.jobs[copy::SPILL] {
            Some(_) => true,
            None => self.find_spill(Some(id), sink),
        }
    }
}
