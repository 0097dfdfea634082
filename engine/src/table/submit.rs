//! Parts come in and are cut into pieces; pieces end and parts with them.

use super::Table;
use super::fragment::FragRef;
use super::index::{Span, Spot};
use super::limbo::Freed;
use super::maps::Reach;
use super::op::{Ask, Kind, Part, Phase, Piece};
use super::sink::{Done, Mem, Met, Sink};
use super::slice::Waiter;
use crate::format::record::{FragmentKey, fragment_bytes, put_drop, put_fragment};
use crate::planted::{Bug, planted};
use crate::request::{Failure, Op};
use crate::units::{BLOCK_BYTES, SliceId, WINDOW_BLOCKS};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Blocks that a piece may cover which moves none: a whole fragment.
const FRAGMENT_BLOCKS: u32 = 4096;

/// A run of whole blocks with unwritten edges, inside one part.
#[derive(Clone, Copy)]
struct Range {
    block: u64,
    count: u32,
    head: u16,
    tail: u16,
}

fn short(bytes: u64) -> u16 {
    u16::try_from(bytes).expect("below a block")
}

impl Table {
    /// Takes a part for a slice of this core.
    ///
    /// # Panics
    /// Unless [`Table::can_submit`].
    pub fn submit<S: Sink>(&mut self, slice: SliceId, part: Part, sink: &mut S) {
        match part.op {
            Op::Read => {
                self.counters.reads += 1;
                self.counters.read_bytes += u64::from(part.length);
                self.count_heat(part.volume, part.offset, false);
            }
            Op::Write | Op::CompareAndWrite => {
                self.counters.writes += 1;
                self.counters.write_bytes += u64::from(part.length);
                self.count_heat(part.volume, part.offset, true);
            }
            Op::Status | Op::Discard | Op::WriteZeroes => {}
            Op::Flush => panic!("flush has its own entry"),
        }
        let ask = Ask {
            origin: part.origin,
            fua: part.fua,
            buf: None,
            zeros: None,
            slice,
            remaining: 1,
            met: Met::Near,
            failure: None,
        };
        let ask = self.asks.insert(ask).expect("can_submit was true");
        match part.op {
            Op::Discard | Op::WriteZeroes => self.cut_discard(ask, &part, sink),
            Op::Status => self.cut_status(ask, &part, sink),
            _ => self.cut_transfer(ask, &part, sink),
        }
        self.asks.get_mut(ask).buf = part.buf;
        self.piece_of_ask_ended(ask, Ok(()), sink);
        self.settle(sink);
    }

    /// A part will come: brings the way to its fragment near.
    pub fn expect(&self, slice: SliceId, part: &Part) {
        if let Some(slice) = &self.slices[usize::from(slice.get())] {
            slice.index.expect(part.volume, part.offset / BLOCK);
        }
    }

    /// A part that was expected will come: brings its fragment's seat near.
    pub fn expect_seat(&self, slice: SliceId, part: &Part) {
        if let Some(slice) = &self.slices[usize::from(slice.get())] {
            slice.index.expect_seat(part.volume, part.offset / BLOCK);
        }
    }

    /// A part will come soon: finds its fragment and begins to bring it near.
    pub fn seek(&self, slice: SliceId, part: &mut Part) {
        let Some(slice) = &self.slices[usize::from(slice.get())] else { return };
        part.hint = slice.index.seek(part.volume, part.offset / BLOCK);
    }

    /// A part that was sought will come very soon: brings its map entry near.
    pub fn approach(&self, slice: SliceId, part: &Part) {
        let Some(slice) = &self.slices[usize::from(slice.get())] else { return };
        if let Some(at) = part.hint {
            slice.index.approach(at, part.offset / BLOCK);
        }
    }

    /// The fragment that holds a block, and where: as found ahead if that still holds.
    fn spot(&mut self, slice: SliceId, part: &Part, block: u64) -> (Spot, Option<FragRef>) {
        let index = &self.slice(slice).index;
        let found = part.hint.and_then(|at| {
            let fragment = index.get(at)?;
            let within = fragment.block_of(block)?;
            let spot = Spot { key: fragment.key, size: fragment.size, block: within };
            (fragment.key.volume == part.volume).then_some((spot, Some(at)))
        });
        found.unwrap_or_else(|| (index.spot(part.volume, block, part.fragment), None))
    }

    fn cut_transfer<S: Sink>(&mut self, ask: u32, part: &Part, sink: &mut S) {
        let mem = part.buf.as_ref().expect("a transfer has a buffer").mem();
        let end = part.offset + u64::from(part.length);
        let (first, last) = (part.offset / BLOCK, (end - 1) / BLOCK);
        let range = Range {
            block: first,
            count: u32::try_from(last - first + 1).expect("within a window"),
            head: short(part.offset % BLOCK),
            tail: short((BLOCK - end % BLOCK) % BLOCK),
        };
        let most = if part.op == Op::CompareAndWrite { 1 } else { WINDOW_BLOCKS };
        assert!(range.count <= most, "a part stays within a window, a comparison within a block");
        let kind = if part.op == Op::Read { Kind::Read { stage: part.stage } } else { Kind::Write };
        self.cut(ask, part, kind, range, mem, sink);
    }

    /// One byte for each block that the range touches.
    fn cut_status<S: Sink>(&mut self, ask: u32, part: &Part, sink: &mut S) {
        let mem = part.buf.as_ref().expect("status has a buffer").mem();
        let first = part.offset / BLOCK;
        let end = (part.offset + u64::from(part.length)).div_ceil(BLOCK);
        let count = u32::try_from(end - first).expect("within a segment");
        let range = Range { block: first, count, head: 0, tail: 0 };
        self.cut(ask, part, Kind::Status, range, mem, sink);
    }

    /// Whole blocks become holes; partly covered ones are rewritten with zeros, unless holes.
    fn cut_discard<S: Sink>(&mut self, ask: u32, part: &Part, sink: &mut S) {
        let end = part.offset + u64::from(part.length);
        let (first, last) = (part.offset.div_ceil(BLOCK), end / BLOCK);
        let (head, tail) = (part.offset % BLOCK, end % BLOCK);
        if first < last {
            let count = u32::try_from(last - first).expect("within a segment");
            let range = Range { block: first, count, head: 0, tail: 0 };
            self.cut(ask, part, Kind::Discard, range, Mem { arena: 0, byte: 0 }, sink);
        }
        if head == 0 && tail == 0 {
            return;
        }
        let Some(zeros) = sink.alloc(2 * BLOCK_BYTES) else {
            self.piece_failed_early(ask, Failure::NoSpace);
            return;
        };
        sink.zero(zeros.mem(), 2 * BLOCK_BYTES);
        let mem = zeros.mem();
        self.asks.get_mut(ask).zeros = Some(zeros);
        if first > last {
            let range =
                Range { block: last, count: 1, head: short(head), tail: short(BLOCK - tail) };
            return self.cut(ask, part, Kind::Write, range, mem, sink);
        }
        if head != 0 {
            let range = Range { block: first - 1, count: 1, head: short(head), tail: 0 };
            self.cut(ask, part, Kind::Write, range, mem, sink);
        }
        if tail != 0 {
            let range = Range { block: last, count: 1, head: 0, tail: short(BLOCK - tail) };
            self.cut(ask, part, Kind::Write, range, mem.block(1), sink);
        }
    }

    fn piece_failed_early(&mut self, ask: u32, failure: Failure) {
        self.asks.get_mut(ask).failure.get_or_insert(failure);
    }

    /// Cuts a range at fragment boundaries and starts each piece.
    fn cut<S: Sink>(
        &mut self,
        ask: u32,
        part: &Part,
        kind: Kind,
        all: Range,
        mem: Mem,
        sink: &mut S,
    ) {
        let slice = self.asks.get(ask).slice;
        let end = all.block + u64::from(all.count);
        let mut block = all.block;
        while block < end {
            let (spot, hint) = self.spot(slice, part, block);
            let moves = matches!(kind, Kind::Read { .. } | Kind::Write);
            let limit = if moves { WINDOW_BLOCKS } else { FRAGMENT_BLOCKS };
            let left = u32::try_from((end - block).min(u64::from(limit))).expect("bounded");
            let count = left.min(spot.size.blocks() - spot.block);
            let done = u32::try_from(block - all.block).expect("within a segment");
            let piece = Piece {
                kind,
                phase: Phase::Start,
                ask,
                slice,
                key: spot.key,
                size: spot.size,
                hint,
                frag: None,
                writing: false,
                waited: false,
                retry: false,
                first: spot.block,
                count,
                mem: if kind == Kind::Status { mem.plus(done as usize) } else { mem.block(done) },
                edge: kind == Kind::Write && matches!(part.op, Op::Discard | Op::WriteZeroes),
                compare: part.op == Op::CompareAndWrite,
                head: if done == 0 { all.head } else { 0 },
                tail: if done + count == all.count { all.tail } else { 0 },
                pending: 0,
                failure: None,
                era: None,
                reserved: 0,
                temp: None,
                work: self.works.pop().expect("as many as pieces"),
            };
            self.asks.get_mut(ask).remaining += 1;
            let piece = self.pieces.insert(piece).expect("can_submit left room");
            self.advance(piece, sink);
            block += u64::from(count);
        }
    }

    /// Starts a piece or takes it further; it waits by itself if it has to.
    pub(crate) fn advance<S: Sink>(&mut self, piece: u32, sink: &mut S) {
        match self.pieces.get(piece).kind {
            Kind::Read { stage } => self.advance_read(piece, stage, sink),
            Kind::Write => self.advance_write(piece, sink),
            Kind::Discard => self.advance_discard(piece, sink),
            Kind::Status => self.advance_status(piece, sink),
        }
    }

    /// Puts a piece back until its slice is kicked.
    pub(crate) fn wait(&mut self, piece: u32) {
        let slice = self.pieces.get(piece).slice;
        self.slice(slice).waiting.push_back(piece);
    }

    /// Holds the piece's fragment, if it exists; its operations then may name it.
    pub(crate) fn pin(&mut self, piece: u32) -> Option<FragRef> {
        let Piece { slice, key, frag, hint, .. } = *self.pieces.get(piece);
        if frag.is_some() {
            return frag;
        }
        let now = self.now;
        let index = &mut self.slice(slice).index;
        // A uid is of one fragment only, so one that lives still is the one that was found.
        let found = hint.filter(|at| index.get(*at).is_some()).or_else(|| index.find(key))?;
        let fragment = index.held(found);
        fragment.pins += 1;
        fragment.referenced = true;
        fragment.last_use = now;
        self.pieces.get_mut(piece).frag = Some(found);
        Some(found)
    }

    /// A piece has ended: gives back all it holds and tells its part.
    pub(crate) fn finish<S: Sink>(
        &mut self,
        index: u32,
        result: Result<(), Failure>,
        sink: &mut S,
    ) {
        let piece = self.pieces.remove(index);
        assert!(piece.pending == 0 && piece.reserved == 0, "a piece ends with nothing under way");
        self.works.push(piece.work);
        let slice = self.slice(piece.slice);
        if piece.writing {
            let at = slice.writing.iter().position(|other| *other == index);
            slice.writing.swap_remove(at.expect("a writer is listed"));
        }
        if let Some(era) = piece.era {
            slice.limbo.leave(era);
        }
        if let Some(temp) = piece.temp {
            sink.free(temp);
        }
        if let Some(frag) = piece.frag {
            self.unpin(piece.slice, frag);
        }
        let slice = self.slice(piece.slice);
        if !slice.waiting.is_empty() || !slice.limbo.is_empty() {
            self.kick(piece.slice);
        }
        if self.starved {
            self.kick_all();
        }
        self.piece_of_ask_ended(piece.ask, result, sink);
    }

    fn piece_of_ask_ended<S: Sink>(
        &mut self,
        index: u32,
        result: Result<(), Failure>,
        sink: &mut S,
    ) {
        let ask = self.asks.get_mut(index);
        ask.remaining -= 1;
        if let Err(failure) = result {
            ask.failure.get_or_insert(failure);
        }
        if ask.remaining > 0 {
            return;
        }
        let (fua, failed, slice) = (ask.fua, ask.failure.is_some(), ask.slice);
        if fua && !failed && self.slice(slice).failed {
            self.asks.get_mut(index).failure = Some(Failure::Device);
        } else if fua && !failed && self.wait_durable(slice, None, Waiter::Ask(index), sink) {
            return;
        }
        self.end_ask(index, sink);
    }

    /// Answers a part.
    pub(crate) fn end_ask<S: Sink>(&mut self, index: u32, sink: &mut S) {
        let ask = self.asks.remove(index);
        if let Some(zeros) = ask.zeros {
            sink.free(zeros);
        }
        let result = ask.failure.map_or(Ok(()), Err);
        sink.done(Done { origin: ask.origin, met: ask.met, buf: ask.buf, result });
    }

    /// One byte per block: 1 if it has bytes somewhere.
    fn advance_status<S: Sink>(&mut self, index: u32, sink: &mut S) {
        let found = match self.reach(index, sink) {
            Reach::Here(at) => Some(at),
            Reach::Absent => None,
            Reach::Waiting => return,
            Reach::Lost(failure) => return self.finish(index, Err(failure), sink),
        };
        let Piece { slice, first, count, mem, .. } = *self.pieces.get(index);
        let index_of = &self.slice(slice).index;
        let fragment = found.and_then(|at| index_of.get(at));
        let out = sink.bytes_mut(mem, count as usize);
        for (block, byte) in (first..).zip(out) {
            *byte = u8::from(fragment.is_some_and(|f| !f.entry(block).is_hole()));
        }
        self.finish(index, Ok(()), sink);
    }

    /// An operation lets go of a fragment; an empty one is dropped.
    pub(crate) fn unpin(&mut self, id: SliceId, at: FragRef) {
        let slice = self.slice(id);
        let fragment = slice.index.held(at);
        fragment.pins -= 1;
        let (released, changed) = (fragment.pins == 0, fragment.is_unaccounted());
        let leaves = fragment.present == 0 || fragment.idle_slot().is_some();
        if changed {
            slice.index.account(at);
        }
        if released && leaves {
            self.drop_if_empty(id, at);
            self.release_idle_slots(id, at);
        }
    }

    /// Drops a fragment without blocks, if nothing holds it and the log has room.
    pub(crate) fn drop_if_empty(&mut self, id: SliceId, at: FragRef) {
        let Some(fragment) = self.slice(id).index.get(at) else { return };
        let idle = fragment.pins == 0 && fragment.present == 0 && fragment.stage.is_none();
        if idle && !self.drop_fragment(id, at) {
            self.slice(id).sweep_later(at);
        }
    }

    /// Drops a fragment that nothing holds; false if the log has no room for the record.
    pub(crate) fn drop_fragment(&mut self, id: SliceId, at: FragRef) -> bool {
        let slice = self.slice(id);
        let fragment = slice.index.held(at);
        let on_record = fragment.recorded || fragment.fast.iter().flatten().any(|slot| slot.named);
        if on_record {
            if !slice.log.reserve(MAX_DROP_BYTES) {
                return false;
            }
            let key = fragment.key;
            slice.log.release(MAX_DROP_BYTES);
            slice.log.append(|out| put_drop(out, key));
            slice.mark_dirty(key.volume, None);
        }
        let (fragment, page) = slice.index.remove(at);
        if let Some(page) = page {
            slice.defer(Freed::Pages(page, Span::pages(fragment.size)));
        }
        for slot in fragment.fast.iter().flatten() {
            let freed = Freed::Slot(slot.slot, fragment.size);
            let named = slot.named && !planted(Bug::SlotFreedEarly);
            if named { slice.defer(freed) } else { slice.limbo.push(freed) }
        }
        if let Some(cold) = fragment.cold {
            slice.defer(Freed::Slot(cold, fragment.size));
        }
        self.kick(id);
        true
    }

    /// Drops a fragment whose map is away and not being loaded; false if the log has no room.
    pub(crate) fn drop_away(&mut self, id: SliceId, key: FragmentKey) -> bool {
        let slice = self.slice(id);
        assert!(!slice.loading.contains(&Span::of(key)), "nobody waits for it");
        if !slice.log.reserve(MAX_DROP_BYTES) {
            return false;
        }
        slice.log.release(MAX_DROP_BYTES);
        slice.log.append(|out| put_drop(out, key));
        slice.mark_dirty(key.volume, None);
        let (placement, page) = slice.index.remove_away(key);
        let size = placement.size;
        if let Some(page) = page {
            slice.defer(Freed::Pages(page, Span::pages(size)));
        }
        for slot in placement.fast.into_iter().chain([placement.cold]).flatten() {
            slice.defer(Freed::Slot(slot, size));
        }
        self.kick(id);
        true
    }

    /// Drops and releases what found the log full before the commit that has just ended.
    pub(crate) fn sweep(&mut self, id: SliceId) {
        let unswept = std::mem::take(&mut self.slice(id).unswept);
        for at in unswept {
            let Some(fragment) = self.slice(id).index.get_mut(at) else { continue };
            fragment.unswept = false;
            self.drop_if_empty(id, at);
            self.release_idle_slots(id, at);
        }
        let slice = self.slice(id);
        slice.journal.wanted |= !slice.unswept.is_empty();
    }

    /// Fast slots without a taken block leave their fragment.
    pub(crate) fn release_idle_slots(&mut self, id: SliceId, at: FragRef) {
        let slice = self.slice(id);
        let Some(fragment) = slice.index.get_mut(at) else { return };
        if fragment.pins > 0 {
            return;
        }
        while let Some(which) = fragment.idle_slot() {
            let named = fragment.fast[which].as_ref().is_some_and(|slot| slot.named);
            if named && !slice.log.reserve(fragment_bytes()) {
                return slice.sweep_later(at);
            }
            let slot = fragment.fast[which].take().expect("an idle slot").slot;
            fragment.target = 1 - which;
            let freed = Freed::Slot(slot, fragment.size);
            if named {
                let (key, placement) = (fragment.key, fragment.placement());
                slice.log.release(fragment_bytes());
                slice.log.append(|out| put_fragment(out, key, &placement));
                let group = slice.log.group();
                slice.deferred.push_back((group, freed));
                if !slice.dirty_volumes[0].contains(&key.volume) {
                    slice.dirty_volumes[0].push(key.volume);
                }
            } else {
                slice.limbo.push(freed);
            }
        }
    }
}

/// Bytes promised before a drop record.
const MAX_DROP_BYTES: usize = 12;
