//! Spilling: a fragment's authority moves to a cold slot.

use super::copy::{Job, Step};
use crate::format::record::{
    Entry, FragmentKey, MAX_ENTRIES, blocks_bytes, fragment_bytes, put_blocks,
};
use crate::format::superblock::Role;
use crate::planted::{Bug, planted};
use crate::pool::space_map::reserve;
use crate::table::Table;
use crate::table::commit::Rider;
use crate::table::entry::{BlockEntry, Place};
use crate::table::fragment::{FragRef, Fragment};
use crate::table::index::{Cursor, Span};
use crate::table::limbo::Freed;
use crate::table::maps::Wanted;
use crate::table::read::{Source, source};
use crate::table::seat::Seat;
use crate::table::sink::{IoKind, Sink};
use crate::table::slice::Slice;
use crate::table::write::record_placement;
use crate::units::{BLOCK_BYTES, Crc, FragmentSize, SliceId, VolumeId, WINDOW_BLOCKS};

/// Fragments that one look for work visits.
const SAMPLE: usize = 4096;
const WINDOW_BYTES: usize = WINDOW_BLOCKS as usize * BLOCK_BYTES;

/// Blocks whose authority is a fast place.
fn fast_blocks(fragment: &Fragment) -> u32 {
    fragment.present - fragment.cold_blocks
}

/// What a look for something to spill has found, if not that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// No fragment could move, and no slot comes free.
    Nothing,
    /// What could move is held by operations, or a slot by a commit or a read: they end.
    Held,
}

/// Its fast blocks could go to a cold slot if there is `room`; if space is `short`, copies go too.
pub(super) fn is_movable(fragment: &Fragment, room: bool, short: bool) -> bool {
    room && fast_blocks(fragment) > 0 && !fragment.stuck
        || short && fast_blocks(fragment) == 0 && fragment.copies > 0
}

/// The same of a fragment that is away. Its slots say it: what recovery replayed is not in its
/// counts until its map comes.
pub(super) fn is_seat_movable(seat: &Seat, size: FragmentSize, room: bool) -> bool {
    room && !seat.stuck && seat.placement(size).fast.iter().any(Option::is_some)
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
    /// Begins spills while there is reason to and a job is free. True if there is hope of space:
    /// something is under way, or what could move is in use.
    pub(crate) fn spill_on<S: Sink>(&mut self, aged: bool, sink: &mut S) -> bool {
        while self.tiering.awaited.is_none()
            && self.tiering.idle_spill().is_some()
            && let Some((id, key)) = self.next_victim(aged, sink)
            && self.spill(id, key, sink)
        {}
        self.tiering.is_spilling() || self.tiering.looked == Some(Look::Held)
    }

    /// Begins to spill a fragment of this slice: its next new fragment finds the slot at once,
    /// while another slice can use whole chunks only. True if that helps.
    pub(crate) fn spill_in<S: Sink>(&mut self, id: SliceId, sink: &mut S) -> bool {
        let bit = 1u64 << id.get();
        let busy = self.tiering.awaited.is_some() || self.tiering.idle_spill().is_none();
        if busy || self.tiering.barren & bit != 0 {
            return false;
        }
        let Ok((id, key)) = self.choose_spill(Some(id), true, sink) else {
            self.tiering.barren |= bit;
            return false;
        };
        self.spill(id, key, sink)
    }

    /// The fragment to spill next.
    fn next_victim<S: Sink>(&mut self, aged: bool, sink: &mut S) -> Option<(SliceId, FragmentKey)> {
        let wanted = self.tiering.is_wanted();
        if wanted || self.tiering.cooling.is_none() && self.fast_is_short(sink) {
            if self.tiering.evacuation.is_none() && self.tiering.looked.is_none() {
                match self.choose_spill(None, true, sink) {
                    Ok((id, key)) => self.begin_evacuation(id, key),
                    Err(Look::Nothing) if !self.slots_come(sink) => {
                        self.tiering.looked = Some(Look::Nothing);
                    }
                    Err(_) => self.tiering.looked = Some(Look::Held),
                }
            }
            if let Some(found) = self.next_to_evacuate(sink) {
                return Some(found);
            }
        } else {
            self.end_evacuation();
        }
        let found = self.next_to_cool(sink);
        if found.is_some() || !aged {
            return found;
        }
        self.choose_spill(None, false, sink).ok()
    }

    /// Begins to move a fragment, or to load its map; false if that cannot be done now.
    fn spill<S: Sink>(&mut self, id: SliceId, key: FragmentKey, sink: &mut S) -> bool {
        let slice = self.slice(id);
        if slice.index.seat(key).is_none() {
            return false;
        }
        if let Some(at) = slice.index.find(key) {
            let fragment = slice.index.held(at);
            if fragment.pins > 0 {
                return false;
            }
            if fast_blocks(fragment) > 0 {
                return self.begin_spill(id, at, sink);
            }
            self.evict_copies_in(id, key);
            return true;
        }
        self.tiering.awaited = Some((id, key));
        match self.want(id, Span::of(key), sink) {
            Wanted::Here => self.begin_awaited(id, Span::of(key), sink),
            Wanted::Loading | Wanted::NoRoom => true,
            Wanted::Lost(_) => {
                self.slice(id).index.mark_stuck(key);
                self.tiering.awaited = None;
                false
            }
        }
    }

    /// Tries again to load the map that a spill waits for.
    pub(super) fn want_awaited<S: Sink>(&mut self, sink: &mut S) {
        if let Some((id, key)) = self.tiering.awaited.take() {
            self.spill(id, key, sink);
        }
    }

    /// The map of a span has come: the spill that waited for it begins, and others.
    pub(crate) fn spill_awaited<S: Sink>(&mut self, id: SliceId, span: Span, sink: &mut S) {
        if self.begin_awaited(id, span, sink) {
            self.spill_on(false, sink);
        }
    }

    fn begin_awaited<S: Sink>(&mut self, id: SliceId, span: Span, sink: &mut S) -> bool {
        let of_span = |(of, key): &(SliceId, FragmentKey)| *of == id && Span::of(*key) == span;
        let Some((_, key)) = self.tiering.awaited.take_if(|awaited| of_span(awaited)) else {
            return false;
        };
        let slice = self.slice(id);
        let usable =
            |at: &FragRef| slice.index.get(*at).is_some_and(|f| f.pins == 0 && fast_blocks(f) > 0);
        match slice.index.find(key).filter(usable) {
            Some(at) if self.tiering.idle_spill().is_some() => self.begin_spill(id, at, sink),
            _ => false,
        }
    }

    /// The coldest fragment worth moving: of the first sample that has one where space is
    /// `short`, else of the next sample. What is expected soon is not moved for its age.
    fn choose_spill<S: Sink>(
        &mut self,
        only: Option<SliceId>,
        short: bool,
        sink: &S,
    ) -> Result<(SliceId, FragmentKey), Look> {
        let (now, idle_ns) = (self.now, self.config.tier.idle_ns);
        let is_old = |last_use| idle_ns > 0 && now.since(last_use) > idle_ns;
        let cold = self.cold_is_free(sink);
        let (mut coldest, mut look) = (None, Look::Nothing);
        let count = self.slices.len();
        let mut left: usize = self.slices().map(|slice| slice.index.len()).sum();
        let mut sample = SAMPLE;
        let mut rounds = 2 * count + 1;
        while left > 0 && rounds > 0 && (sample > 0 || short && coldest.is_none()) {
            let (slice, cursor) = self.tiering.hand;
            let found = self.slices[slice]
                .as_ref()
                .filter(|slice| only.is_none_or(|id| slice.id == id) && !slice.failed);
            let Some((slice, (key, seat, size, next))) =
                found.and_then(|found| Some((found, found.index.walk(cursor)?)))
            else {
                self.tiering.hand = ((slice + 1) % count, Cursor::default());
                rounds -= 1;
                continue;
            };
            left -= 1;
            sample = sample.saturating_sub(1);
            let room = cold || self.has_cold_slot(slice, size);
            let here = slice.index.find(key).and_then(|at| slice.index.get(at));
            let (moves, held, last_use) = match here {
                Some(f) => (is_movable(f, room, short), f.pins > 0, f.last_use),
                None => (is_seat_movable(seat, size, room), false, seat.last_use()),
            };
            if held {
                // A first write may be under way that makes it movable.
                let slots = here.is_some_and(|f| f.fast.iter().any(Option::is_some));
                look = if slots && room { Look::Held } else { look };
            } else if moves {
                let worth = short || is_old(last_use) && !self.is_expected(key, size, last_use);
                let this = (self.warmth(key, size, last_use), slice.id, key);
                let colder = coldest.is_none_or(|other| this < other);
                coldest = if worth && colder { Some(this) } else { coldest };
            }
            self.tiering.hand.1 = next;
        }
        coldest.map(|(_, id, key)| (id, key)).ok_or(look)
    }

    /// The pool has cold chunks for any slice.
    pub(super) fn cold_is_free<S: Sink>(&self, sink: &S) -> bool {
        let mut cold = self.config.devices.iter().filter(|device| device.role == Role::Cold);
        cold.any(|device| {
            let (free, total) = sink.chunks(device.id);
            free > reserve(total)
        })
    }

    /// The slice has a free cold slot of its own.
    pub(super) fn has_cold_slot(&self, slice: &Slice, size: FragmentSize) -> bool {
        let mut devices = self.config.devices.iter().zip(&slice.space);
        devices.any(|(device, space)| device.role == Role::Cold && space.has_free(size))
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
        let Some(which) = self.tiering.idle_spill() else { return false };
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
        job.background = !self.tiering.is_wanted();
        self.tiering.jobs[which] = Some(job);
        self.read_window(which, sink);
        true
    }

    /// Reads the next window that has blocks; flushes when there is none.
    fn read_window<S: Sink>(&mut self, which: usize, sink: &mut S) {
        let job = self.tiering.jobs[which].as_mut().expect("a spill under way");
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
                return job.issue(which, IoKind::Read, mem, from, sink);
            }
            job.first += WINDOW_BLOCKS;
        }
        if job.failed {
            return self.abandon_spill(which, sink);
        }
        job.step = Step::Flushing;
        let device = job.cold.expect("a spill has a cold slot").device;
        let rider = Rider::Copy(u32::try_from(which).expect("few jobs"));
        self.flush_device(device, rider);
    }

    pub(crate) fn spill_moved<S: Sink>(&mut self, which: usize, sink: &mut S) {
        let job = self.tiering.jobs[which].as_mut().expect("a spill under way");
        if job.failed {
            return self.abandon_spill(which, sink);
        }
        if job.step == Step::Writing {
            job.first += WINDOW_BLOCKS;
            return self.read_window(which, sink);
        }
        job.step = Step::Writing;
        let cold = job.cold.expect("a spill has a cold slot");
        let mem = job.buf.as_ref().expect("a spill has memory").mem();
        let to = |job: &Job, i: u32| Source {
            device: cold.device,
            block: cold.block + u64::from(job.first + i),
        };
        job.issue(which, IoKind::Write { fua: false }, mem, to, sink);
    }

    /// Moves the authority if nothing has changed since the copy began.
    pub(crate) fn commit_spill<S: Sink>(&mut self, which: usize, sink: &mut S) {
        let job = self.tiering.jobs[which].as_mut().expect("a spill under way");
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
            self.abandon_spill(which, sink);
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
        self.end_spill(which, sink);
        self.request_commit(id, sink);
    }

    /// Gives the cold slot back: no record names it.
    fn abandon_spill<S: Sink>(&mut self, which: usize, sink: &mut S) {
        let job = self.tiering.jobs[which].as_mut().expect("a spill under way");
        let (id, at, cold) = (job.slice, job.frag, job.cold.expect("a spill has a cold slot"));
        let (failed, generation) = (job.failed, job.generation);
        let slice = self.slice(id);
        let fragment = slice.index.held(at);
        // Trying again would fail again, and keep the others from their turn.
        fragment.stuck = failed && fragment.generation == generation;
        let (size, stuck, volume) = (fragment.size, fragment.stuck, fragment.key.volume);
        slice.limbo.push(Freed::Slot(cold, size));
        if let Some(cooling) = self.tiering.cooling.as_mut().filter(|c| c.volume == volume) {
            cooling.again |= !stuck;
        }
        self.end_spill(which, sink);
    }

    fn end_spill<S: Sink>(&mut self, which: usize, sink: &mut S) {
        let job = self.tiering.jobs[which].take().expect("a spill under way");
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
        self.spill_on(false, sink);
    }
}
