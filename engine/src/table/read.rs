//! Reads: from a stage, from fast places, from the cold slot; every block verified.

use super::Table;
use super::entry::Place;
use super::fragment::Fragment;
use super::limbo::Freed;
use super::maps::Reach;
use super::op::{Phase, Piece, Token};
use super::sink::{Io, IoKind, IoResult, Met, Sink};
use crate::planted::{Bug, planted};
use crate::request::Failure;
use crate::units::{BLOCK_BYTES, BLOCK_BYTES_U32, DeviceId, DeviceOffset};

/// Where a block is read from: device and block on it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub device: DeviceId,
    pub block: u64,
}

impl Source {
    pub(crate) fn offset(self) -> DeviceOffset {
        DeviceOffset::new(self.block * BLOCK_BYTES as u64)
    }

    /// True if `next` lies right behind `count` blocks from here.
    pub(crate) fn continues(self, count: u32, next: Source) -> bool {
        self.device == next.device && self.block + u64::from(count) == next.block
    }
}

/// The nearest copy of a block: a fast place, else the cold slot; `None` for a hole.
pub(crate) fn source(fragment: &Fragment, block: u32) -> Option<Source> {
    let entry = fragment.entry(block);
    if entry.place.as_fast().is_some() {
        let at = fragment.device_block(entry.place);
        return Some(Source { device: at.device, block: at.block });
    }
    let cold = entry.is_cold().then(|| fragment.cold.expect("a cold entry has a cold slot"))?;
    Some(Source { device: cold.device, block: cold.block + u64::from(block) })
}

/// What a fast slot held before, where a hole lies: read only by a planted bug.
fn stale(fragment: &Fragment, block: u32) -> Option<Source> {
    if !planted(Bug::StaleSlot) || !fragment.entry(block).is_hole() {
        return None;
    }
    let which = (0..2).find(|which| fragment.fast[*which].is_some())?;
    let at = fragment.device_block(Place::fast(which, block));
    Some(Source { device: at.device, block: at.block })
}

fn is_stale(piece: &Piece, i: u32) -> bool {
    let (place, crc) = (piece.work.places[i as usize], piece.work.crcs[i as usize]);
    planted(Bug::StaleSlot) && place == Place::HOLE && crc.get() == 0
}

impl Table {
    pub(crate) fn advance_read<S: Sink>(&mut self, index: u32, stage: bool, sink: &mut S) {
        let at = match self.reach(index, sink) {
            Reach::Here(at) => at,
            Reach::Waiting => return,
            Reach::Lost(failure) => return self.finish(index, Err(failure), sink),
            Reach::Absent => {
                let piece = self.pieces.get(index);
                sink.zero(piece.mem, piece.count as usize * BLOCK_BYTES);
                return self.finish(index, Ok(()), sink);
            }
        };
        let piece = self.pieces.get(index);
        let (id, first, count, waited) = (piece.slice, piece.first, piece.count, piece.waited);
        let fragment = self.slice(id).index.held(at);
        let staged = fragment.stage;
        let cold = (first..first + count).any(|block| fragment.entry(block).only_cold());
        if cold && !waited {
            fragment.touches = fragment.touches.saturating_add(1);
        }
        if cold {
            if let Some(slot) = staged {
                let slice = self.slices[usize::from(id.get())].as_mut().expect("of this core");
                self.stages.verify(slot, slice.index.held(at), first, count, sink);
            }
            match staged {
                Some(slot) if self.stages.covers(slot, first, count) => {
                    self.use_stage(slot, waited);
                    self.meet(index, Met::Staged);
                }
                Some(slot) if self.stages.is_loading(slot) => {
                    if !waited {
                        self.meet(index, Met::Staged);
                        self.counters.late += 1;
                        self.stages.mark_used(slot);
                        self.want_stage(slot, sink);
                        self.pieces.get_mut(index).waited = true;
                    }
                    return self.wait(index);
                }
                Some(_) => {
                    self.stages.demanded_at = self.now;
                    self.meet(index, Met::Fetched);
                    self.counters.misses += 1;
                }
                None => {
                    self.stages.demanded_at = self.now;
                    self.counters.misses += u64::from(!waited);
                    let follows =
                        stage && !waited && self.stage_for(id, at, first + count, sink).is_there();
                    self.meet(index, if follows { Met::Fetched } else { Met::Missed });
                }
            }
        }
        self.issue_read(index, sink);
    }

    /// Notes for the one who asked where a piece finds its blocks.
    fn meet(&mut self, index: u32, met: Met) {
        let ask = self.asks.get_mut(self.pieces.get(index).ask);
        ask.met = ask.met.max(met);
    }

    /// Copies what is staged, zeroes holes and reads the rest in contiguous runs.
    fn issue_read<S: Sink>(&mut self, index: u32, sink: &mut S) {
        let piece = self.pieces.get(index);
        let (id, at) = (piece.slice, piece.frag.expect("pinned"));
        let (first, count, mem) = (piece.first, piece.count, piece.mem);
        let slice = self.slices[usize::from(id.get())].as_mut().expect("a slice of this core");
        let fragment = slice.index.held(at);
        let piece = self.pieces.get_mut(index);
        piece.phase = Phase::Moving;
        piece.retry = false;
        let mut run: Option<(u32, u32, Source)> = None;
        let mut issue = |piece: &mut Piece, (from, len, source): (u32, u32, Source)| {
            piece.pending += 1;
            sink.io(Io {
                device: source.device,
                kind: IoKind::Read,
                offset: source.offset(),
                mem: mem.block(from),
                bytes: len * BLOCK_BYTES_U32,
                token: Token::Piece(index, (from, len)).pack(),
                background: false,
            });
        };
        let mut local: smallvec::SmallVec<[(u32, Option<super::sink::Mem>); 64]> =
            Default::default();
        for i in 0..count {
            let block = first + i;
            let entry = fragment.entry(block);
            piece.work.crcs[i as usize] = entry.crc;
            piece.work.places[i as usize] = entry.place;
            let near = fragment.stage.filter(|_| entry.only_cold());
            let staged = near.and_then(|slot| self.stages.block(slot, block));
            let source = if staged.is_some() { None } else { source(fragment, block) };
            let source = source.or_else(|| stale(fragment, block));
            if source.is_none() {
                local.push((i, staged));
            }
            run = match (run, source) {
                (Some((from, len, start)), Some(next)) if start.continues(len, next) => {
                    Some((from, len + 1, start))
                }
                (before, next) => {
                    if let Some(done) = before {
                        issue(piece, done);
                    }
                    next.map(|next| (i, 1, next))
                }
            };
        }
        if let Some(done) = run {
            issue(piece, done);
        }
        if piece.pending > 0 {
            piece.era = Some(slice.limbo.enter());
        }
        let idle = piece.pending == 0;
        // By reference: the list is long, and moving it copies all of it.
        for &(i, staged) in &local {
            match staged {
                Some(from) => sink.copy(from, mem.block(i), BLOCK_BYTES),
                None => sink.zero(mem.block(i), BLOCK_BYTES),
            }
        }
        if idle {
            self.finish(index, Ok(()), sink);
        }
    }

    /// A run of a read or write piece has been moved.
    pub(crate) fn piece_moved<S: Sink>(
        &mut self,
        index: u32,
        run: (u32, u32),
        result: IoResult,
        sink: &mut S,
    ) {
        let piece = self.pieces.get_mut(index);
        piece.pending -= 1;
        if let Err(failure) = result {
            piece.failure.get_or_insert(failure);
        }
        if piece.kind == super::op::Kind::Write {
            if piece.pending == 0 {
                self.write_moved(index, sink);
            }
            return;
        }
        if result.is_ok() {
            let bad = (run.0..run.0 + run.1)
                .find(|i| sink.crc(piece.mem.block(*i)) != piece.work.crcs[*i as usize])
                .filter(|i| !planted(Bug::IgnoredCrc) && !is_stale(piece, *i));
            if let Some(i) = bad {
                self.bad_block(index, i);
            }
        }
        if self.pieces.get(index).pending > 0 {
            return;
        }
        self.read_moved(index, sink);
    }

    fn read_moved<S: Sink>(&mut self, index: u32, sink: &mut S) {
        let piece = self.pieces.get_mut(index);
        let era = piece.era.take();
        let (failure, retry, id) = (piece.failure, piece.retry, piece.slice);
        if let Some(era) = era {
            self.slice(id).limbo.leave(era);
        }
        match failure {
            None if retry => self.issue_read(index, sink),
            None => self.finish(index, Ok(()), sink),
            Some(failure) => self.finish(index, Err(failure), sink),
        }
    }

    /// A block's bytes differ from its checksum: fall back to the cold copy if it was a fast copy.
    fn bad_block(&mut self, index: u32, i: u32) {
        self.counters.corrupt_blocks += 1;
        let piece = self.pieces.get_mut(index);
        let (id, at, block) = (piece.slice, piece.frag.expect("pinned"), piece.first + i);
        let read_from = piece.work.places[i as usize];
        let slice = self.slices[usize::from(id.get())].as_mut().expect("a slice of this core");
        let fragment = slice.index.held(at);
        let entry = fragment.entry(block);
        let copy = read_from != Place::HOLE && entry.is_cold() && entry.place == read_from;
        if copy {
            let slot = fragment.slot_of(entry.place);
            slice.limbo.push(Freed::Place(at, entry.place, slot));
            fragment.set_entry(block, entry.with_copy(Place::HOLE));
            piece.retry = true;
        } else if entry.place != read_from {
            piece.retry = true;
        } else {
            let place = source(fragment, block);
            tracing::error!(
                volume = fragment.key.volume.get(),
                lba = u64::from(fragment.key.start) * 16 + u64::from(block),
                device = place.map_or(255, |source| source.device.get()),
                "stored block fails its checksum"
            );
            piece.failure.get_or_insert(Failure::Media);
        }
    }
}
