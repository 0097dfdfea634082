//! Moving fragments between the fast and the cold tier.
//!
//! *Spill*: a fragment that has cooled down is written whole to a cold slot,
//! the device is flushed, and the authority moves with one record, provided
//! that the fragment's generation is still what it was. Its fast slots are free
//! when that record is durable. *Promote*: a staged fragment that keeps being
//! read gets clean fast copies of its cold blocks; they are on no record and
//! can go at once. Both are background, unless somebody waits for the space:
//! then whole chunks are emptied ([`evacuate`]), on other cores if need be
//! ([`exchange`]). What goes first is what is expected least ([`heat`]), or,
//! as long as nobody knows, what was used least recently.

pub mod cool;
pub mod copy;
pub mod evacuate;
pub mod exchange;
pub mod heat;
pub mod promote;
pub mod spill;

use crate::format::record::FragmentKey;
use crate::format::superblock::Role;
use crate::table::Table;
use crate::table::fragment::Fragment;
use crate::table::index::Cursor;
use crate::table::limbo::Freed;
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
    pub(crate) jobs: [Option<copy::Job>; copy::JOBS],
    /// The fragment whose spill waits for its map.
    pub(crate) awaited: Option<(SliceId, FragmentKey)>,
    /// Where the search for one to spill stands: slice and fragment.
    pub(crate) hand: (usize, Cursor),
    /// Spill everything of a volume, whatever its age.
    pub(crate) cooling: Option<cool::Cooling>,
    pub(crate) evacuation: Option<evacuate::Evacuation>,
    pub(crate) exchange: exchange::Exchange,
    /// The last spill did not begin for want of memory.
    pub(crate) starved: bool,
    /// A new fragment has waited for a fast slot since the last tick.
    hungry: bool,
    /// What the last look for a spill saw, if it was in vain. A look may visit every fragment:
    /// there is no other until a fast slot is taken, or a tick has reason to hope.
    looked: Option<spill::Look>,
    /// Slices in which a look was in vain, one bit each.
    barren: u64,
    /// Free chunks of all devices when somebody last looked.
    free_chunks: u32,
    next_scan: Nanos,
}

impl Tiering {
    /// A job is under way or wanted.
    fn is_working(&self) -> bool {
        self.cooling.is_some()
            || self.is_spilling()
            || self.is_wanted()
            || self.jobs.iter().any(Option::is_some)
    }

    /// A fragment is on its way to the cold tier.
    fn is_copying(&self) -> bool {
        self.awaited.is_some() || self.jobs[..copy::SPILLS].iter().any(Option::is_some)
    }

    /// Space comes free by what is under way, or soon may.
    fn is_spilling(&self) -> bool {
        self.is_copying() || self.evacuation.is_some() || self.starved
    }

    /// Somebody waits for space on the fast tier, here or on another core.
    fn is_wanted(&self) -> bool {
        self.hungry || !self.exchange.askers.is_empty()
    }

    /// What could not be spilled before may be able to now.
    pub(crate) fn look_again(&mut self) {
        self.looked = None;
        self.barren = 0;
    }

    /// Space came free: what was found full need not be.
    pub(crate) fn space_freed(&mut self) {
        self.look_again();
        self.exchange.hope();
    }

    /// A spill job that is free.
    fn idle_spill(&self) -> Option<usize> {
        self.jobs[..copy::SPILLS].iter().position(Option::is_none)
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
        if self.has_cold() {
            self.tick_tiers(sink);
        }
        self.settle(sink);
        if self.is_merging() {
            return Some(self.now);
        }
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

    /// Looks for work that nothing else begins or takes further.
    fn tick_tiers<S: Sink>(&mut self, sink: &mut S) {
        let due = self.now >= self.tiering.next_scan;
        if !due && !self.tiering.is_working() {
            return;
        }
        if due || self.tiering.looked == Some(spill::Look::Held) {
            self.tiering.look_again();
        }
        self.tiering.starved = false;
        self.want_awaited(sink);
        self.renew_evacuation(sink);
        self.spill_on(due, sink);
        self.serve_askers(sink);
        // Who still waits will say so when it is tried again.
        self.tiering.hungry = false;
        if due {
            self.tiering.next_scan = self.now.after(SCAN_NS);
            if self.tiering.jobs[copy::PROMOTE].is_none() {
                self.find_promotion(sink);
            }
        }
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

    /// A new fragment finds no slot. False if nothing can move: here, or on any core.
    pub(crate) fn make_room<S: Sink>(&mut self, id: SliceId, sink: &mut S) -> bool {
        if !self.has_cold() {
            return false;
        }
        self.tiering.hungry = true;
        let free = self.config.devices.iter().map(|device| sink.chunks(device.id).0).sum();
        // Any core may have freed some.
        if std::mem::replace(&mut self.tiering.free_chunks, free) < free {
            self.tiering.space_freed();
        }
        self.spill_in(id, sink) || self.spill_on(false, sink) || self.ask_for_space(sink)
    }

    /// Slots come free that nothing names any more, with the commit that says so or when their
    /// readers are gone.
    fn slots_come<S: Sink>(&mut self, sink: &mut S) -> bool {
        let mut come = false;
        for at in 0..self.slices.len() {
            let Some(slice) = self.slices[at].as_ref().filter(|slice| !slice.failed) else {
                continue;
            };
            let id = slice.id;
            come |= slice.limbo.has_slot();
            if !slice.unswept.is_empty()
                || slice.deferred.iter().any(|(_, freed)| matches!(freed, Freed::Slot(..)))
            {
                come = true;
                self.request_commit(id, sink);
            }
        }
        come
    }
}
