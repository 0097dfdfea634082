//! Writes and discards: new places, then new entries, then the answer.
//!
//! A write goes to places that nothing names, and only when all its device
//! operations have ended do its blocks' entries change, in one step together
//! with their record in the pending log. So a write that fails or dies half way
//! has changed nothing.

use super::Table;
use super::entry::{BlockEntry, Place};
use super::fragment::{FastSlot, FragRef};
use super::index::{Lookup, Span};
use super::limbo::Freed;
use super::maps::{Reach, Wanted};
use super::op::{Kind, Phase, Piece, Token};
use super::read::source;
use super::sink::{Io, IoKind, IoResult, Sink};
use super::slice::Slice;
use crate::format::record::{Entry, blocks_bytes, fragment_bytes, holes_bytes};
use crate::format::record::{put_blocks, put_fragment, put_holes};
use crate::format::superblock::Role;
use crate::planted::{Bug, planted};
use crate::request::Failure;
use crate::units::{BLOCK_BYTES, BLOCK_BYTES_U32, DeviceId, SliceId};

/// What stands between a write and its device operations.
enum Room {
    /// Places for all blocks.
    All,
    /// Places for the first so many.
    Some(u32),
    /// Something will free places: wait.
    Wait,
    /// Nothing will.
    None,
}

impl Table {
    pub(crate) fn advance_write<S: Sink>(&mut self, index: u32, sink: &mut S) {
        let Some(at) = self.enter_writer(index, sink) else { return };
        let piece = self.pieces.get(index);
        let (id, first) = (piece.slice, piece.first);
        if piece.edge && self.slice(id).index.held(at).entry(first).is_hole() {
            return self.finish_with_promise(index, Ok(()), sink);
        }
        let piece = self.pieces.get(index);
        if piece.phase == Phase::Start {
            if piece.head == 0 && piece.tail == 0 && !piece.compare {
                self.pieces.get_mut(index).phase = Phase::Merged;
            } else if !self.read_old(index, at, sink) {
                return;
            }
        }
        if self.pieces.get(index).phase == Phase::Merged && self.promise(index, sink) {
            self.place_and_move(index, at, sink);
        }
    }

    /// Makes the piece a writer of its blocks and pins its fragment, made if need be.
    fn enter_writer<S: Sink>(&mut self, index: u32, sink: &mut S) -> Option<FragRef> {
        let piece = self.pieces.get(index);
        let id = piece.slice;
        if self.slices[usize::from(id.get())].as_ref().is_some_and(|slice| slice.failed) {
            self.finish_with_promise(index, Err(Failure::Device), sink);
            return None;
        }
        if !piece.writing {
            let busy = |other: &u32| self.pieces.get(*other).overlaps(piece);
            let slice = self.slices[usize::from(id.get())].as_ref().expect("a slice of this core");
            if slice.writing.iter().any(busy) && !planted(Bug::RacingNeighbours) {
                self.wait(index);
                return None;
            }
            self.slice(id).writing.push(index);
            self.pieces.get_mut(index).writing = true;
        }
        match self.reach(index, sink) {
            Reach::Here(at) => Some(at),
            Reach::Waiting => None,
            Reach::Lost(failure) => {
                self.finish_with_promise(index, Err(failure), sink);
                None
            }
            Reach::Absent => self.make_fragment(index, sink),
        }
    }

    /// Makes the piece's fragment, unless it is for holes only.
    fn make_fragment<S: Sink>(&mut self, index: u32, sink: &mut S) -> Option<FragRef> {
        let Piece { key, size, kind, edge, slice, .. } = *self.pieces.get(index);
        if kind == Kind::Discard || edge {
            self.finish_with_promise(index, Ok(()), sink);
            return None;
        }
        // The others of its map page have to be here: the page is written whole.
        match self.want_or_wait(index, sink) {
            Wanted::Here => {}
            Wanted::Loading | Wanted::NoRoom => return None,
            Wanted::Lost(failure) => {
                self.finish_with_promise(index, Err(failure), sink);
                return None;
            }
        }
        if !self.reserve_meta(slice, key, Span::pages(size), sink) {
            self.finish_with_promise(index, Err(Failure::NoSpace), sink);
            return None;
        }
        self.slice(slice).index.insert(key, size).expect("the spot was free");
        self.pin(index)
    }

    /// Promises log room for the piece's records; waits for a commit if there is none.
    fn promise<S: Sink>(&mut self, index: u32, sink: &mut S) -> bool {
        let piece = self.pieces.get(index);
        if piece.reserved > 0 {
            return true;
        }
        let body = match piece.kind {
            Kind::Discard => holes_bytes(),
            _ => blocks_bytes(piece.count as usize),
        };
        let (id, bytes) = (piece.slice, body + 2 * fragment_bytes());
        if self.slice(id).log.reserve(bytes) {
            self.pieces.get_mut(index).reserved = bytes;
            return true;
        }
        self.wait(index);
        self.request_commit(id, sink);
        false
    }

    /// Ends a piece that may still hold a promise.
    fn finish_with_promise<S: Sink>(
        &mut self,
        index: u32,
        result: Result<(), Failure>,
        sink: &mut S,
    ) {
        let piece = self.pieces.get_mut(index);
        let (id, reserved) = (piece.slice, std::mem::take(&mut piece.reserved));
        self.slice(id).log.release(reserved);
        self.finish(index, result, sink);
    }

    /// Starts reading the old contents of partly written blocks; true if none are needed.
    fn read_old<S: Sink>(&mut self, index: u32, at: FragRef, sink: &mut S) -> bool {
        let Some(temp) = sink.alloc(2 * BLOCK_BYTES) else {
            self.starved = true;
            self.wait(index);
            return false;
        };
        let piece = self.pieces.get_mut(index);
        piece.phase = Phase::ReadOld;
        let mem = temp.mem();
        piece.temp = Some(temp);
        let slice = self.slices[usize::from(piece.slice.get())].as_mut().expect("ours");
        let fragment = slice.index.held(at);
        let first = piece.head > 0 || piece.compare;
        let edges = [(0, first, 0), (1, piece.tail > 0, piece.count - 1)];
        for (which, wanted, i) in edges {
            if !wanted || which == 1 && i == 0 && first {
                continue;
            }
            let block = piece.first + i;
            piece.work.crcs[which as usize] = fragment.entry(block).crc;
            let Some(source) = source(fragment, block) else {
                sink.zero(mem.block(which), BLOCK_BYTES);
                continue;
            };
            piece.pending += 1;
            sink.io(Io {
                device: source.device,
                kind: IoKind::Read,
                offset: source.offset(),
                mem: mem.block(which),
                bytes: BLOCK_BYTES_U32,
                token: Token::Old(index, which).pack(),
                background: false,
            });
        }
        if piece.pending > 0 {
            piece.era = Some(slice.limbo.enter());
            return false;
        }
        self.merge_old(index, sink)
    }

    pub(crate) fn old_block_read<S: Sink>(
        &mut self,
        index: u32,
        which: u32,
        result: IoResult,
        sink: &mut S,
    ) {
        let piece = self.pieces.get_mut(index);
        piece.pending -= 1;
        let mem = piece.temp.as_ref().expect("old blocks have memory").mem().block(which);
        if let Err(failure) = result {
            piece.failure.get_or_insert(failure);
        } else if sink.crc(mem) != piece.work.crcs[which as usize]
            && !planted(Bug::IgnoredCrcOfMerge)
        {
            self.counters.corrupt_blocks += 1;
            piece.failure.get_or_insert(Failure::Media);
        }
        if piece.pending > 0 {
            return;
        }
        let era = piece.era.take().expect("old blocks are read in an era");
        let (id, failure) = (piece.slice, piece.failure);
        let slice = self.slice(id);
        slice.limbo.leave(era);
        // This read may have been the last to keep the places that its own write waits for.
        if !slice.limbo.is_empty() {
            self.kick(id);
        }
        if let Some(failure) = failure {
            return self.finish_with_promise(index, Err(failure), sink);
        }
        if self.merge_old(index, sink) {
            self.advance_write(index, sink);
        }
    }

    /// Completes the first and last block from their old contents; false if those are not what
    /// the write depends on, and it has ended.
    fn merge_old<S: Sink>(&mut self, index: u32, sink: &mut S) -> bool {
        let piece = self.pieces.get_mut(index);
        let old = piece.temp.take().expect("old blocks have memory");
        let (head, tail) = (usize::from(piece.head), usize::from(piece.tail));
        let last = piece.count - 1;
        if piece.compare {
            let length = BLOCK_BYTES - head - tail;
            let expected = sink.bytes(piece.mem.block(1).plus(head), length);
            let differs = sink.bytes(old.mem().plus(head), length) != expected;
            if differs && !planted(Bug::ComparisonIgnored) {
                sink.free(old);
                self.finish_with_promise(index, Err(Failure::Miscompare), sink);
                return false;
            }
        }
        if planted(Bug::LostNeighbour) {
            sink.zero(old.mem(), 2 * BLOCK_BYTES);
        }
        sink.copy(old.mem(), piece.mem, head);
        if tail > 0 {
            let from = if last == 0 && (head > 0 || piece.compare) {
                old.mem()
            } else {
                old.mem().block(1)
            };
            let keep = BLOCK_BYTES - tail;
            sink.copy(from.plus(keep), piece.mem.block(last).plus(keep), tail);
        }
        sink.free(old);
        piece.head = 0;
        piece.tail = 0;
        piece.phase = Phase::Merged;
        true
    }

    /// Finds places for the piece's blocks and starts its device writes.
    fn place_and_move<S: Sink>(&mut self, index: u32, at: FragRef, sink: &mut S) {
        let (id, count) = (self.pieces.get(index).slice, self.pieces.get(index).count);
        match self.find_room(id, at, count, sink) {
            Room::All => {}
            Room::Some(fewer) => {
                if !self.split(index, fewer) {
                    return self.wait(index);
                }
            }
            Room::Wait => return self.wait(index),
            Room::None => return self.finish_with_promise(index, Err(Failure::NoSpace), sink),
        }
        self.move_out(index, at, sink);
        if planted(Bug::EntryBeforeData) {
            self.apply_write(index, at);
        }
    }

    fn find_room<S: Sink>(&mut self, id: SliceId, at: FragRef, count: u32, sink: &mut S) -> Room {
        let fragment = self.slice(id).index.held(at);
        let free = fragment.free_places();
        if free >= count {
            return Room::All;
        }
        let (size, exists) = (fragment.size, fragment.present > 0);
        if let Some(which) = (0..2).find(|which| fragment.fast[*which].is_none())
            && let Some(slot) = self.alloc_slot(id, Role::Fast, size, exists, sink)
        {
            let fragment = self.slice(id).index.held(at);
            fragment.fast[which] = Some(FastSlot::new(slot, size));
            fragment.target = which;
            return Room::All;
        }
        if free > 0 {
            return Room::Some(free);
        }
        let slice = self.slice(id);
        let has_slot = slice.index.held(at).fast.iter().any(Option::is_some);
        if has_slot {
            // Old places come free with the commit that replaces them, or when writers and readers end.
            self.request_commit(id, sink);
            return Room::Wait;
        }
        if !self.make_room(id, sink) {
            return Room::None;
        }
        // The spill may be of another slice: its end kicks this one too.
        self.starved = true;
        Room::Wait
    }

    /// A slot on the device of that tier with the most free chunks.
    pub(crate) fn alloc_slot<S: Sink>(
        &mut self,
        id: SliceId,
        role: Role,
        size: crate::units::FragmentSize,
        urgent: bool,
        sink: &mut S,
    ) -> Option<super::entry::SlotRef> {
        let devices = self.config.devices.iter().filter(|device| device.role == role);
        let mut order: smallvec::SmallVec<[(u32, DeviceId); 8]> =
            devices.map(|device| (u32::MAX - sink.chunks(device.id).0, device.id)).collect();
        order.sort_unstable();
        let slice = self.slice(id);
        let slot = order
            .into_iter()
            .find_map(|(_, id)| slice.space[usize::from(id.get())].alloc(size, urgent, sink));
        if slot.is_some() && role == Role::Fast {
            self.tiering.look_again();
        }
        slot
    }

    /// Leaves the blocks behind the first `keep` to a new piece; false if none is free.
    fn split(&mut self, index: u32, keep: u32) -> bool {
        if self.pieces.free() == 0 {
            self.starved = true;
            return false;
        }
        let work = self.works.pop().expect("as many as pieces");
        let piece = self.pieces.get_mut(index);
        let rest = Piece {
            phase: Phase::Merged,
            frag: None,
            writing: false,
            first: piece.first + keep,
            count: piece.count - keep,
            mem: piece.mem.block(keep),
            reserved: 0,
            temp: None,
            era: None,
            failure: None,
            work,
            ..*piece
        };
        piece.count = keep;
        let (ask, id) = (rest.ask, rest.slice);
        let rest = self.pieces.insert(rest).expect("checked");
        self.asks.get_mut(ask).remaining += 1;
        self.pin(rest);
        self.pieces.get_mut(rest).writing = true;
        self.slice(id).writing.push(rest);
        self.wait(rest);
        true
    }

    /// Takes a place for each block and writes contiguous runs.
    fn move_out<S: Sink>(&mut self, index: u32, at: FragRef, sink: &mut S) {
        let piece = self.pieces.get_mut(index);
        let slice = self.slices[usize::from(piece.slice.get())].as_mut().expect("ours");
        let fragment = slice.index.held(at);
        piece.phase = Phase::Moving;
        for i in 0..piece.count as usize {
            let block = piece.first + u32::try_from(i).expect("at most 64");
            piece.work.places[i] = fragment.take_place(block).expect("room was found");
            piece.work.crcs[i] = sink.crc(piece.mem.plus(i * BLOCK_BYTES));
        }
        let fragment = &*fragment;
        let mut run: Option<(u32, u32)> = None;
        let issue = |piece: &mut Piece, (from, len): (u32, u32), sink: &mut S| {
            let start = fragment_block(fragment, piece.work.places[from as usize]);
            piece.pending += 1;
            sink.io(Io {
                device: start.0,
                kind: IoKind::Write { fua: false },
                offset: start.1,
                mem: piece.mem.block(from),
                bytes: len * BLOCK_BYTES_U32,
                token: Token::Piece(index, (from, len)).pack(),
                background: false,
            });
        };
        for i in 0..piece.count {
            let place = piece.work.places[i as usize].raw();
            run = match run {
                Some((from, len))
                    if piece.work.places[from as usize].raw() + short(len) == place =>
                {
                    Some((from, len + 1))
                }
                before => {
                    if let Some(done) = before {
                        issue(piece, done, sink);
                    }
                    Some((i, 1))
                }
            };
        }
        if let Some(done) = run {
            issue(piece, done, sink);
        }
    }

    /// All device writes of a piece have ended.
    pub(crate) fn write_moved<S: Sink>(&mut self, index: u32, sink: &mut S) {
        let piece = self.pieces.get(index);
        let (id, at, failure) = (piece.slice, piece.frag.expect("pinned"), piece.failure);
        if let Some(failure) = failure {
            let slice = self.slices[usize::from(id.get())].as_mut().expect("ours");
            let fragment = slice.index.held(at);
            for place in &piece.work.places[..piece.count as usize] {
                let slot = fragment.slot_of(*place);
                fragment.give_place(*place, slot);
            }
            return self.finish_with_promise(index, Err(failure), sink);
        }
        if !planted(Bug::EntryBeforeData) {
            self.apply_write(index, at);
        }
        self.finish(index, Ok(()), sink);
    }

    /// The write happened: entries and records change in one step.
    fn apply_write(&mut self, index: u32, at: FragRef) {
        let piece = self.pieces.get_mut(index);
        let reserved = std::mem::take(&mut piece.reserved);
        let (id, key, first, count) = (piece.slice, piece.key, piece.first, piece.count as usize);
        let (places, crcs) = (&piece.work.places[..count], &piece.work.crcs[..count]);
        let slice = self.slices[usize::from(id.get())].as_mut().expect("ours");
        slice.log.release(reserved);
        let mark = slice.current_mark();
        let fragment = slice.index.held(at);
        fragment.bump();
        for place in places {
            fragment.name_slot_of(*place);
        }
        let device = fragment.slot_of(places[0]).device;
        record_placement(slice, at);
        let entries = places.iter().zip(crcs);
        slice.log.append(|out| {
            let entries = entries.clone().map(|(place, crc)| Entry { place: *place, crc: *crc });
            put_blocks(out, key, short(first), entries)
        });
        for (block, (place, crc)) in (first..).zip(entries) {
            let new = BlockEntry::fast(*place, *crc, mark);
            replace_entry(slice, at, block, new);
        }
        slice.mark_unsaved(at);
        let other = slice.index.held(at).slot_of(places[count - 1]).device;
        slice.mark_dirty(key.volume, Some(device));
        slice.mark_dirty(key.volume, Some(other));
        self.after_change(id, at, first, count);
    }

    /// Follows every change of entries: the stage forgets, an unused cold slot goes.
    fn after_change(&mut self, id: SliceId, at: FragRef, first: u32, count: usize) {
        let slice = self.slices[usize::from(id.get())].as_mut().expect("ours");
        let fragment = slice.index.held(at);
        if let Some(stage) = fragment.stage.filter(|_| !planted(Bug::StageNotForgotten)) {
            self.stages.forget(stage, first, count);
        }
        if fragment.cold_blocks == 0
            && let Some(cold) = fragment.cold.take()
        {
            let size = fragment.size;
            fragment.recorded = false;
            record_placement(slice, at);
            slice.defer(Freed::Slot(cold, size));
        }
    }

    pub(crate) fn advance_discard<S: Sink>(&mut self, index: u32, sink: &mut S) {
        if self.drops_whole(index, sink) {
            return;
        }
        let Some(at) = self.enter_writer(index, sink) else { return };
        if !self.promise(index, sink) {
            return;
        }
        let piece = self.pieces.get_mut(index);
        let reserved = std::mem::take(&mut piece.reserved);
        let (id, first, count, key) = (piece.slice, piece.first, piece.count, piece.key);
        let slice = self.slices[usize::from(id.get())].as_mut().expect("ours");
        slice.log.release(reserved);
        let mark = slice.current_mark();
        let fragment = slice.index.held(at);
        let on_record = fragment.recorded || fragment.fast.iter().flatten().any(|slot| slot.named);
        if on_record {
            fragment.bump();
            if !planted(Bug::DiscardNotJournaled) {
                slice.log.append(|out| put_holes(out, key, short(first), short(count)));
            }
            slice.mark_dirty(key.volume, None);
            slice.mark_unsaved(at);
            for block in first..first + count {
                replace_entry(slice, at, block, BlockEntry::hole(mark));
            }
            self.after_change(id, at, first, count as usize);
        }
        let fragment = self.slice(id).index.held(at);
        if fragment.present == 0
            && let Some(stage) = fragment.stage
            && self.stages.may_go(stage)
        {
            self.evict_stage(stage, sink);
        }
        self.finish(index, Ok(()), sink);
    }
}

impl Table {
    /// A discard of a whole fragment needs no map: drops it if it is away. True if that was done,
    /// or waits for room in the log.
    fn drops_whole<S: Sink>(&mut self, index: u32, sink: &mut S) -> bool {
        let Piece { slice: id, key, size, first, count, .. } = *self.pieces.get(index);
        let slice = self.slice(id);
        let away = slice.index.lookup(key) == Lookup::Away;
        let idle = away && !slice.loading.contains(&Span::of(key)) && !slice.failed;
        if !idle || first > 0 || count < size.blocks() {
            return false;
        }
        if self.drop_away(id, key) {
            self.finish_with_promise(index, Ok(()), sink);
        } else {
            self.wait(index);
            self.request_commit(id, sink);
        }
        true
    }
}

fn short(value: u32) -> u16 {
    u16::try_from(value).expect("at most 4096")
}

fn fragment_block(
    fragment: &super::fragment::Fragment,
    place: Place,
) -> (DeviceId, crate::units::DeviceOffset) {
    let at = fragment.device_block(place);
    (at.device, at.offset(0))
}

/// Logs the fragment's placement unless the newest is on record. The caller has promised the room.
pub(crate) fn record_placement(slice: &mut Slice, at: FragRef) {
    let fragment = slice.index.held(at);
    if fragment.recorded {
        return;
    }
    fragment.recorded = true;
    let (key, placement) = (fragment.key, fragment.placement());
    slice.log.append(|out| put_fragment(out, key, &placement));
}

/// Replaces an entry and frees what the old one held, as early as is safe.
pub(crate) fn replace_entry(slice: &mut Slice, at: FragRef, block: u32, new: BlockEntry) {
    let mark = slice.current_mark();
    let fragment = slice.index.held(at);
    let old = fragment.set_entry(block, new);
    if old.place.as_fast().is_none() {
        return;
    }
    let freed = Freed::Place(at, old.place, fragment.slot_of(old.place));
    let journaled = !old.is_cold() && old.mark() != mark && !planted(Bug::PlaceFreedEarly);
    if journaled { slice.defer(freed) } else { slice.limbo.push(freed) }
}
