//! Promoting: clean fast copies of cold blocks, taken from a stage.

use super::copy::{Job, PROMOTE, SPILLS, Step};
use crate::format::superblock::Role;
use crate::planted::{Bug, planted};
use crate::table::Table;
use crate::table::entry::{BlockEntry, Place};
use crate::table::fragment::FastSlot;
use crate::table::limbo::Freed;
use crate::table::read::Source;
use crate::table::sink::{IoKind, Sink};
use crate::units::WINDOW_BLOCKS;

/// Stages that a look for one to promote goes through, from the one used last on: a fragment
/// earns its place by being used.
const LOOKED_AT: usize = 64;

impl Table {
    /// Starts copying a stage whose fragment has earned a place on the fast tier.
    pub(crate) fn find_promotion<S: Sink>(&mut self, sink: &mut S) {
        let touches = self.config.tier.promote_touches;
        if touches == 0 || self.fast_is_short(sink) {
            return;
        }
        // A spill that commits takes the fast slots away, copies under way included.
        let spills = &self.tiering.jobs[..SPILLS];
        let is_spilling =
            |slice, frag| spills.iter().flatten().any(|job| job.slice == slice && job.frag == frag);
        let earned = self.stages.by_use().take(LOOKED_AT).find_map(|(slot, stage)| {
            let slice = self.slices[usize::from(stage.slice.get())].as_ref()?;
            let fragment = slice.index.get(stage.frag)?;
            let cold = || (0..fragment.size.blocks()).any(|at| fragment.entry(at).only_cold());
            let ready = fragment.touches >= touches
                && !self.stages.is_loading(slot)
                && !is_spilling(stage.slice, stage.frag)
                && cold();
            ready.then_some((slot, stage.slice, stage.frag))
        });
        let Some((slot, id, at)) = earned else { return };
        let fragment = self.slice(id).index.held(at);
        let (size, target) = (fragment.size, fragment.target);
        if fragment.fast[target].is_none() {
            let Some(fast) = self.alloc_slot(id, Role::Fast, size, false, sink) else { return };
            self.slice(id).index.held(at).fast[target] = Some(FastSlot::new(fast, size));
        }
        let fragment = self.slice(id).index.held(at);
        fragment.pins += 1;
        let mut job = Job::new(id, at, fragment.generation);
        job.stage = Some(slot);
        self.stages.slots.get_mut(slot).pinned = true;
        self.tiering.jobs[PROMOTE] = Some(job);
        self.write_copies(sink);
    }

    /// Writes the next window that has staged cold blocks; ends when there is none.
    fn write_copies<S: Sink>(&mut self, sink: &mut S) {
        let job = self.tiering.jobs[PROMOTE].as_mut().expect("a promotion under way");
        let slot = job.stage.expect("a promotion has a stage");
        let slice = self.slices[usize::from(job.slice.get())].as_mut().expect("ours");
        let fragment = slice.index.held(job.frag);
        job.step = Step::Writing;
        while !job.failed && job.first < fragment.size.blocks() {
            job.moving = 0;
            let count = WINDOW_BLOCKS.min(fragment.size.blocks() - job.first);
            self.stages.verify(slot, fragment, job.first, count, sink);
            for i in 0..count {
                let block = job.first + i;
                let entry = fragment.entry(block);
                if !entry.only_cold() || self.stages.block(slot, block).is_none() {
                    continue;
                }
                let Some(place) = fragment.take_place(block) else { continue };
                job.places[i as usize] = place;
                job.crcs[i as usize] = entry.crc;
                job.moving |= 1 << i;
            }
            if job.moving != 0 {
                let mem = self.stages.slots.get(slot).buf.mem().block(job.first);
                let to = |job: &Job, i: u32| {
                    let at = fragment.device_block(job.places[i as usize]);
                    Source { device: at.device, block: at.block }
                };
                return job.issue(PROMOTE, IoKind::Write { fua: false }, mem, to, sink);
            }
            job.first += WINDOW_BLOCKS;
        }
        self.end_promotion();
    }

    /// A window is on the fast device: its blocks have copies there, unless they changed.
    pub(crate) fn promotion_moved<S: Sink>(&mut self, sink: &mut S) {
        let job = self.tiering.jobs[PROMOTE].as_mut().expect("a promotion under way");
        let slice = self.slices[usize::from(job.slice.get())].as_mut().expect("ours");
        let fragment = slice.index.held(job.frag);
        for i in 0..WINDOW_BLOCKS {
            if !job.moves(i) {
                continue;
            }
            let block = job.first + i;
            let (mut entry, place) = (fragment.entry(block), job.places[i as usize]);
            if planted(Bug::WriteRacingPromotionLost) && fragment.cold.is_some() {
                entry = BlockEntry::cold(job.crcs[i as usize], 0);
            }
            if !job.failed && entry.only_cold() && entry.crc == job.crcs[i as usize] {
                fragment.set_entry(block, entry.with_copy(place));
            } else {
                let slot = fragment.slot_of(place);
                slice.limbo.push(Freed::Place(job.frag, place, slot));
            }
            job.places[i as usize] = Place::HOLE;
        }
        job.first += WINDOW_BLOCKS;
        self.write_copies(sink);
    }

    fn end_promotion(&mut self) {
        let job = self.tiering.jobs[PROMOTE].take().expect("a promotion under way");
        let slot = job.stage.expect("a promotion has a stage");
        self.stages.slots.get_mut(slot).pinned = false;
        self.counters.promotions += u64::from(!job.failed);
        let fragment = self.slice(job.slice).index.held(job.frag);
        fragment.touches = 0;
        self.unpin(job.slice, job.frag);
        self.release_idle_slots(job.slice, job.frag);
        self.kick(job.slice);
    }
}
