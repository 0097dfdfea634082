//! Spilling: a fragment's authority moves to a cold slot.

use super::copy::{Job, SPILL, Step};
use crate::format::record::{
    Entry, FragmentKey, MAX_ENTRIES, blocks_bytes, fragment_bytes, put_blocks,
};
use crate::format::superblock::Role;
use crate::planted::{Bug, planted};
use crate::table::Table;
use crate::table::commit::Rider;
use crate::table::entry::{BlockEntry, Place};
use crate::table::fragment::{FragRef, Fragment};
use crate::table::index::{Cursor, Span};
use crate::table::limbo::Freed;
use crate::table::maps::Wanted;
use crate::table::read::{Source, source};
use crate::table::sink::{IoKind, Sink};
use crate::table::write::record_placement;
use crate::units::{BLOCK_BYTES, Crc, SliceId, VolumeId, WINDOW_BLOCKS};

/// Fragments that one look for work visits.
const SAMPLE: usize = 4096;
const WINDOW_BYTES: usize = WINDOW_BLOCKS as usize * BLOCK_BYTES;

/// Blocks whose authority is a fast place.
fn fast_blocks(fragment: &Fragment) -> u32 {
    fragment.present - fragment.cold_blocks
}

/// Bytes of the records that state all entries of a fragment.
fn map_bytes(fragment: &Fragment) -> usize {
    let present = |block: u32| !fragment.entry(block).is_hole();
    let starts = |block: &u32| present(*block) && (*block == 0 || !present(*block - 1));
    let runs = (0..fragment.size.blocks()).filter(starts).count();
    let cuts = fragment.present as usize / MAX_ENTRIES;
    (runs + cuts) * blocks_bytes(0)
        + fragment.present as usize * (blocks_bytes(1) - blocks_bytes(0))
}

impl Table {
    /// Starts the most worthwhile spill, if there is any: in `only`, or where space or age ask for it.
    pub(crate) fn find_spill<S: Sink>(&mut self, only: Option<SliceId>, sink: &mut S) -> bool {
        let short = only.is_some() || self.fast_is_short(sink);
        let Some((id, key)) = self.choose_spill(only, short) else {
            return short && self.evict_copies(only);
        };
        if let Some(at) = self.slice(id).index.find(key) {
            return self.begin_spill(id, at, sink);
        }
        self.tiering.awaited = Some((id, key));
        match self.want(id, Span::of(key), sink) {
            Wanted::Here => self.spill_awaited(id, Span::of(key), sink),
            Wanted::Loading | Wanted::NoRoom => true,
            Wanted::Lost => {
                self.slice(id).index.mark_stuck(key);
                self.tiering.awaited = None;
                false
            }
        }
    }

    /// The map of a span has come: the spill that waited for it begins.
    pub(crate) fn spill_awaited<S: Sink>(&mut self, id: SliceId, span: Span, sink: &mut S) -> bool {
        let of_span = |(of, key): &(SliceId, FragmentKey)| *of == id && Span::of(*key) == span;
        let Some((_, key)) = self.tiering.awaited.take_if(|awaited| of_span(awaited)) else {
            return false;
        };
        let found = self.slice(id).index.find(key);
        let idle = self.tiering.jobs[SPILL].is_none();
        let usable = |at: &FragRef| {
            let fragment =
                self.slices[usize::from(id.get())].as_ref().and_then(|s| s.index.get(*at));
            fragment.is_some_and(|f| f.pins == 0 && fast_blocks(f) > 0)
        };
        match found.filter(|at| idle && usable(at)) {
            Some(at) => self.begin_spill(id, at, sink),
            None => false,
        }
    }

    /// The least recently used fragment worth spilling: of the first sample that has one where
    /// space is short, else of the next sample.
    fn choose_spill(
        &mut self,
        only: Option<SliceId>,
        short: bool,
    ) -> Option<(SliceId, FragmentKey)> {
        let (now, idle_ns, cooling) = (self.now, self.config.tier.idle_ns, self.tiering.cooling);
        let worth = |key: FragmentKey, last_use| {
            short || cooling == Some(key.volume) || idle_ns > 0 && now.since(last_use) > idle_ns
        };
        let mut oldest = None;
        let count = self.slices.len();
        let mut left: usize = self.slices().map(|slice| slice.index.len()).sum();
        let mut sample = SAMPLE;
        let mut rounds = 2 * count + 1;
        while left > 0
            && rounds > 0
            && (sample > 0 || (short || cooling.is_some()) && oldest.is_none())
        {
            let (slice, cursor) = self.tiering.hand;
            let found = self.slices[slice]
                .as_ref()
                .filter(|slice| only.is_none_or(|id| slice.id == id) && !slice.failed);
            let Some((slice, (key, seat, _, next))) =
                found.and_then(|found| Some((found, found.index.walk(cursor)?)))
            else {
                self.tiering.hand = ((slice + 1) % count, Cursor::default());
                rounds -= 1;
                continue;
            };
            left -= 1;
            sample = sample.saturating_sub(1);
            let here = slice.index.find(key).and_then(|at| slice.index.get(at));
            let (movable, last_use) = match here {
                Some(f) => (f.pins == 0 && !f.stuck && fast_blocks(f) > 0, f.last_use),
                None => (seat.is_warm() && !seat.stuck, seat.last_use()),
            };
            if movable && worth(key, last_use) {
                let this = (last_use, slice.id, key);
                oldest = Some(oldest.map_or(this, |other| this.min(other)));
            }
            self.tiering.hand.1 = next;
        }
        oldest.map(|(_, id, key)| (id, key))
    }

    /// Drops the clean fast copies of one fragment; false if there are none.
    fn evict_copies(&mut self, only: Option<SliceId>) -> bool {
        let has = |f: &&Fragment| {
            f.pins == 0 && f.copies > 0 && f.fast.iter().flatten().any(|slot| !slot.named)
        };
        let found = self
            .slices()
            .filter(|slice| only.is_none_or(|id| slice.id == id))
            .flat_map(|slice| {
                slice.index.iter().filter(has).map(move |f| (f.last_use, slice.id, f.key))
            })
            .min();
        let Some((_, id, key)) = found else { return false };
        self.evict_copies_in(id, key);
        true
    }

    /// Drops the clean fast copies of a volume's fragments that nothing holds.
    pub(crate) fn evict_copies_of(&mut self, volume: VolumeId) {
        let has = |f: &&Fragment| f.key.volume == volume && f.pins == 0 && f.copies > 0;
        let found: Vec<_> = self
            .slices()
            .flat_map(|slice| slice.index.iter().filter(has).map(|f| (slice.id, f.key)))
            .collect();
        for (id, key) in found {
            self.evict_copies_in(id, key);
        }
    }

    pub(crate) fn evict_copies_in(&mut self, id: SliceId, key: FragmentKey) {
        let slice = self.slice(id);
        let at = slice.index.find(key).expect("just seen");
        let fragment = slice.index.held(at);
        for block in 0..fragment.size.blocks() {
            let entry = fragment.entry(block);
            if entry.has_copy() {
                let slot = fragment.slot_of(entry.place);
                slice.limbo.push(Freed::Place(at, entry.place, slot));
                fragment.set_entry(block, entry.with_copy(Place::HOLE));
            }
        }
        self.kick(id);
    }

    fn begin_spill<S: Sink>(&mut self, id: SliceId, at: FragRef, sink: &mut S) -> bool {
        let size = self.slice(id).index.held(at).size;
        let buf = sink.alloc(WINDOW_BYTES);
        self.tiering.starved = buf.is_none();
        let Some(buf) = buf else { return false };
        let Some(cold) = self.alloc_slot(id, Role::Cold, size, false, sink) else {
            sink.free(buf);
            return false;
        };
        let slice = self.slice(id);
        let fragment = slice.index.held(at);
        fragment.pins += 1;
        let mut job = Job::new(id, at, fragment.generation);
        job.cold = Some(cold);
        job.buf = Some(buf);
        job.era = Some(slice.limbo.enter());
        self.tiering.jobs[SPILL] = Some(job);
        self.read_window(sink);
        true
    }

    /// Reads the next window that has blocks; flushes when there is none.
    fn read_window<S: Sink>(&mut self, sink: &mut S) {
        let job = self.tiering.jobs[SPILL].as_mut().expect("a spill under way");
        let slice = self.slices[usize::from(job.slice.get())].as_mut().expect("ours");
        let fragment = slice.index.held(job.frag);
        if fragment.generation != job.generation && !planted(Bug::WriteRacingSpillLost) {
            job.failed = true;
        }
        while !job.failed && job.first < fragment.size.blocks() {
            job.moving = 0;
            for i in 0..WINDOW_BLOCKS.min(fragment.size.blocks() - job.first) {
                let entry = fragment.entry(job.first + i);
                job.crcs[i as usize] = entry.crc;
                job.moving |= u64::from(!entry.is_hole()) << i;
            }
            if job.moving != 0 {
                job.step = Step::Reading;
                let mem = job.buf.as_ref().expect("a spill has memory").mem();
                let from = |job: &Job, i| source(fragment, job.first + i).expect("not a hole");
                return job.issue(SPILL, IoKind::Read, mem, from, sink);
            }
            job.first += WINDOW_BLOCKS;
        }
        if job.failed {
            return self.abandon_spill(sink);
        }
        job.step = Step::Flushing;
        let device = job.cold.expect("a spill has a cold slot").device;
        self.flush_device(device, Rider::Copy(0));
    }

    pub(crate) fn spill_moved<S: Sink>(&mut self, sink: &mut S) {
        let job = self.tiering.jobs[SPILL].as_mut().expect("a spill under way");
        if job.failed {
            return self.abandon_spill(sink);
        }
        if job.step == Step::Writing {
            job.first += WINDOW_BLOCKS;
            return self.read_window(sink);
        }
        job.step = Step::Writing;
        let cold = job.cold.expect("a spill has a cold slot");
        let mem = job.buf.as_ref().expect("a spill has memory").mem();
        let to = |job: &Job, i: u32| Source {
            device: cold.device,
            block: cold.block + u64::from(job.first + i),
        };
        job.issue(SPILL, IoKind::Write { fua: false }, mem, to, sink);
    }

    /// Moves the authority if nothing has changed since the copy began.
    pub(crate) fn commit_spill<S: Sink>(&mut self, sink: &mut S) {
        let job = self.tiering.jobs[SPILL].as_mut().expect("a spill under way");
        let (id, at, generation) = (job.slice, job.frag, job.generation);
        let (failed, cold) = (job.failed, job.cold.expect("a spill has a cold slot"));
        let writers = {
            let key = self.slice(id).index.held(at).key;
            let slice = self.slices[usize::from(id.get())].as_ref().expect("ours");
            slice.writing.iter().any(|piece| self.pieces.get(*piece).key == key)
        };
        let slice = self.slice(id);
        let fragment = slice.index.held(at);
        let bytes = fragment_bytes() + map_bytes(fragment);
        let changed = fragment.generation != generation && !planted(Bug::WriteRacingSpillLost);
        let stale = failed || changed || writers || slice.failed;
        if stale || !slice.log.reserve(bytes) {
            self.abandon_spill(sink);
            // Where the log was full, the next attempt finds room.
            return self.request_commit(id, sink);
        }
        slice.log.release(bytes);
        let mark = slice.current_mark();
        let fragment = slice.index.held(at);
        fragment.bump();
        let (key, size, old_cold) = (fragment.key, fragment.size, fragment.cold.replace(cold));
        let old_fast = [fragment.fast[0].take(), fragment.fast[1].take()];
        fragment.target = 0;
        fragment.touches = 0;
        fragment.recorded = false;
        record_placement(slice, at);
        let fragment = slice.index.held(at);
        let mut block = 0;
        while block < size.blocks() {
            let mut crcs: smallvec::SmallVec<[Crc; MAX_ENTRIES]> = Default::default();
            while block + u32::try_from(crcs.len()).expect("at most 64") < size.blocks()
                && crcs.len() < MAX_ENTRIES
            {
                let entry = fragment.entry(block + u32::try_from(crcs.len()).expect("at most 64"));
                if entry.is_hole() {
                    break;
                }
                crcs.push(entry.crc);
            }
            if crcs.is_empty() {
                block += 1;
                continue;
            }
            for (at, crc) in (block..).zip(&crcs) {
                fragment.set_entry(at, BlockEntry::cold(*crc, mark));
            }
            let first = u16::try_from(block).expect("at most 4096");
            block += u32::try_from(crcs.len()).expect("at most 64");
            let entries = crcs.into_iter().map(|crc| Entry { place: Place::COLD, crc });
            slice.log.append(|out| put_blocks(out, key, first, entries));
        }
        for slot in old_fast.into_iter().flatten() {
            let freed = Freed::Slot(slot.slot, size);
            let named = slot.named && !planted(Bug::SpillFreesSlotEarly);
            if named { slice.defer(freed) } else { slice.limbo.push(freed) }
        }
        if let Some(old) = old_cold {
            slice.defer(Freed::Slot(old, size));
        }
        slice.mark_dirty(key.volume, None);
        slice.mark_unsaved(at);
        self.counters.spills += 1;
        self.end_spill(sink);
        self.request_commit(id, sink);
    }

    /// Gives the cold slot back: no record names it.
    fn abandon_spill<S: Sink>(&mut self, sink: &mut S) {
        let job = self.tiering.jobs[SPILL].as_mut().expect("a spill under way");
        let (id, at, cold) = (job.slice, job.frag, job.cold.expect("a spill has a cold slot"));
        let (failed, generation) = (job.failed, job.generation);
        let slice = self.slice(id);
        let fragment = slice.index.held(at);
        // Trying again would fail again, and keep the others from their turn.
        fragment.stuck = failed && fragment.generation == generation;
        let size = fragment.size;
        slice.limbo.push(Freed::Slot(cold, size));
        self.end_spill(sink);
    }

    fn end_spill<S: Sink>(&mut self, sink: &mut S) {
        let job = self.tiering.jobs[SPILL].take().expect("a spill under way");
        if let Some(buf) = job.buf {
            sink.free(buf);
        }
        let slice = self.slice(job.slice);
        slice.limbo.leave(job.era.expect("a spill reads in an era"));
        self.unpin(job.slice, job.frag);
        self.kick(job.slice);
        if self.starved {
            self.kick_all();
        }
        let wanted = self.tiering.cooling.is_some() || self.fast_is_short(sink);
        if wanted && !self.find_spill(None, sink) {
            self.tiering.cooling = None;
        }
    }
}
