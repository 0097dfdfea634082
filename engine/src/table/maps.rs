//! Block maps come: loaded by the span on first use. How they go: [`super::evict`].
//!
//! A map is read from its page in either copy of the metadata zone; records
//! that recovery replayed are applied on top. A fragment whose map has changed
//! stays until a checkpoint has written it. Beyond the budget, loads wait for
//! the checkpoint that lets others leave.

use super::Table;
use super::assemble::{assemble, believe_pages, open_pages};
use super::fragment::{FragRef, Fragment};
use super::index::{Lookup, Span};
use super::op::{Piece, Token};
use super::sink::{Io, IoKind, IoResult, Sink};
use crate::format::map_page::{MapId, PAGE_BLOCKS};
use crate::format::record::FragmentKey;
use crate::planted::{Bug, planted};
use crate::request::{Buf, Failure};
use crate::units::{BLOCK_BYTES, BLOCK_BYTES_U32, SliceId};

/// Spans that may load at once on a core.
pub(crate) const MAX_LOADS: u32 = 64;

/// A span on its way into memory.
#[derive(Debug)]
pub struct MapLoad {
    slice: SliceId,
    span: Span,
    /// First page, how many, and the checkpoint that wrote them.
    page: u32,
    pages: u32,
    written: u32,
    /// The copy being read, and what went wrong with the other if it was tried before.
    copy: usize,
    first_try: Option<Failure>,
    buf: Buf,
}

/// What came of wanting a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It is here.
    Here,
    /// It is being loaded: the slice is kicked when that ends.
    Loading,
    /// There is no memory now.
    NoRoom,
    /// Its map cannot be read now.
    Lost(Failure),
}

/// What came of wanting a piece's fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Here, and pinned.
    Here(FragRef),
    /// It does not exist.
    Absent,
    /// The piece waits.
    Waiting,
    /// Its map cannot be read now.
    Lost(Failure),
}

/// Why a map cannot be read.
struct Unreadable {
    what: &'static str,
    failure: Failure,
}

impl Unreadable {
    fn damaged(what: &'static str) -> Self {
        Self { what, failure: Failure::Media }
    }

    /// Neither copy could be had. A device that did not answer may have a good one.
    fn twice(tries: [Failure; 2]) -> Self {
        match tries.into_iter().find(|failure| *failure != Failure::Media) {
            None => Self::damaged("both copies of its map page are damaged"),
            Some(failure) => Self { what: "a device does not answer", failure },
        }
    }
}

impl Table {
    /// Pins the piece's fragment; if its map is away, loads it and lets the piece wait.
    pub(crate) fn reach<S: Sink>(&mut self, piece: u32, sink: &mut S) -> Reach {
        if let Some(at) = self.pin(piece) {
            return Reach::Here(at);
        }
        let Piece { slice, key, .. } = *self.pieces.get(piece);
        if self.slice(slice).index.lookup(key) == Lookup::Absent {
            return Reach::Absent;
        }
        match self.want_or_wait(piece, sink) {
            // One that turns out to be empty is dropped as it comes.
            Wanted::Here => self.pin(piece).map_or(Reach::Absent, Reach::Here),
            Wanted::Lost(failure) => Reach::Lost(failure),
            Wanted::Loading | Wanted::NoRoom => Reach::Waiting,
        }
    }

    /// Wants the span of a piece's fragment; the piece waits unless it is here or lost.
    pub(crate) fn want_or_wait<S: Sink>(&mut self, piece: u32, sink: &mut S) -> Wanted {
        let Piece { slice, key, .. } = *self.pieces.get(piece);
        let wanted = self.want(slice, Span::of(key), sink);
        if matches!(wanted, Wanted::Loading | Wanted::NoRoom) {
            self.starved |= wanted == Wanted::NoRoom;
            self.wait(piece);
        }
        wanted
    }

    /// Brings a span into memory.
    pub(crate) fn want<S: Sink>(&mut self, id: SliceId, span: Span, sink: &mut S) -> Wanted {
        if self.slice(id).index.is_here(span) {
            return Wanted::Here;
        }
        // This may begin a checkpoint, which may want the same span: look only then.
        let full = !self.shrink_maps(sink) && !self.snapshots.is_empty();
        let slice = self.slice(id);
        if slice.index.is_here(span) {
            return Wanted::Here;
        }
        if slice.loading.contains(&span) {
            return Wanted::Loading;
        }
        if let Some((_, failure)) = slice.lost.iter().find(|(lost, _)| *lost == span) {
            return Wanted::Lost(*failure);
        }
        let Some((page, written)) = slice.index.page(span) else {
            let known = assemble(&slice.index, span, &|_, _| None).map_err(Unreadable::damaged);
            return self.end_want(id, span, known);
        };
        let size = slice.index.span_size(span).expect("a span with fragments");
        let pages = Span::pages(size);
        // A checkpoint makes room; until it ends only it may go further beyond the budget.
        if self.loads.free() == 0 || full && self.snapshots.front() != Some(&id) {
            return Wanted::NoRoom;
        }
        let Some(buf) = sink.alloc(pages as usize * BLOCK_BYTES) else { return Wanted::NoRoom };
        let copy = usize::from(!page.is_multiple_of(2));
        let load = MapLoad { slice: id, span, page, pages, written, copy, first_try: None, buf };
        let load = self.loads.insert(load).expect("one is free");
        self.slice(id).loading.push(span);
        self.counters.map_loads += 1;
        self.read_map(load, sink);
        Wanted::Loading
    }

    fn read_map<S: Sink>(&mut self, index: u32, sink: &mut S) {
        let load = self.loads.get(index);
        let (device, offset) = self.config.meta.place(load.copy, self.config.meta.page(load.page));
        sink.io(Io {
            device,
            kind: IoKind::Read,
            offset,
            mem: load.buf.mem(),
            bytes: load.pages * BLOCK_BYTES_U32,
            token: Token::Map(index).pack(),
            background: false,
        });
    }

    /// A span's pages have been read.
    pub(crate) fn map_read<S: Sink>(&mut self, index: u32, result: IoResult, sink: &mut S) {
        let load = self.loads.get_mut(index);
        let (id, span) = (load.slice, load.span);
        let (pool, written) = (self.config.pool, load.written);
        let first = MapId { pool, slice: id, volume: span.volume, unit: span.unit, written };
        let bytes = sink.bytes(load.buf.mem(), load.pages as usize * BLOCK_BYTES);
        let open = if planted(Bug::IgnoredCrcOfMap) { believe_pages } else { open_pages };
        let pages = result.and_then(|()| open(bytes, &first).map_err(|_| Failure::Media));
        let first_try = load.first_try;
        let slice = self.slices[usize::from(id.get())].as_mut().expect("ours");
        let found = match (&pages, first_try) {
            (Err(failure), None) => {
                self.counters.corrupt_blocks += u64::from(result.is_ok());
                load.copy = 1 - load.copy;
                load.first_try = Some(*failure);
                return self.read_map(index, sink);
            }
            (Err(failure), Some(first)) => Err(Unreadable::twice([first, *failure])),
            (Ok(pages), _) => assemble(&slice.index, span, &|page, block| pages[page].entry(block))
                .map_err(Unreadable::damaged),
        };
        let load = self.loads.remove(index);
        sink.free(load.buf);
        slice.loading.retain(|other| *other != span);
        self.end_want(id, span, found);
        if first_try.is_some() {
            self.rewrite(id, span);
        }
        self.kick(id);
        if self.starved {
            self.kick_all();
        }
        self.after_load(id, span, sink);
    }

    /// The span's fragments come, or it is lost.
    fn end_want(
        &mut self,
        id: SliceId,
        span: Span,
        found: Result<Vec<Fragment>, Unreadable>,
    ) -> Wanted {
        let slice = self.slice(id);
        let fragments = match found {
            Ok(fragments) => fragments,
            Err(Unreadable { what, failure }) => {
                tracing::error!(
                    slice = id.get(),
                    volume = span.volume.get(),
                    lba = u64::from(span.unit) * PAGE_BLOCKS as u64,
                    "a block map cannot be read: {what}"
                );
                slice.lost.push((span, failure));
                return Wanted::Lost(failure);
            }
        };
        let changed = !slice.index.take_pending(span).is_empty();
        let mut came: smallvec::SmallVec<[FragRef; 32]> = Default::default();
        for fragment in fragments {
            let at = slice.index.bring(fragment);
            slice.index.account(at);
            came.push(at);
        }
        if changed {
            self.rewrite(id, span);
        }
        for at in came {
            self.drop_if_empty(id, at);
            self.release_idle_slots(id, at);
        }
        Wanted::Here
    }

    /// The next checkpoint writes the span's map anew. All its fragments say so: one may be
    /// dropped before, and the others need the page.
    fn rewrite(&mut self, id: SliceId, span: Span) {
        let slice = self.slice(id);
        let here: smallvec::SmallVec<[FragRef; 32]> =
            slice.index.seats(span).filter_map(|(key, _)| slice.index.find(key)).collect();
        here.into_iter().for_each(|at| slice.mark_unsaved(at));
    }

    /// Whoever wanted the span beside clients goes on.
    fn after_load<S: Sink>(&mut self, id: SliceId, span: Span, sink: &mut S) {
        self.stage_wished(id, span, sink);
        self.spill_awaited(id, span, sink);
        if self.snapshots.front() == Some(&id) {
            self.resume_snapshot(sink);
        }
    }

    /// Claims what the metadata of one more fragment may take; false if the zone is full.
    pub(crate) fn reserve_meta<S: Sink>(
        &mut self,
        id: SliceId,
        key: FragmentKey,
        pages: u32,
        sink: &mut S,
    ) -> bool {
        let slice = self.slice(id);
        let fresh = slice.index.seats(Span::of(key)).next().is_none();
        let (maps, seats) = slice.missing_extents(if fresh { pages } else { 0 });
        for _ in 0..maps {
            let Some(extent) = sink.claim_extent() else { return false };
            slice.pages.add(extent);
        }
        for _ in 0..seats {
            let Some(extent) = sink.claim_extent() else { return false };
            slice.spare_extents.push(extent);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_damaged_only_if_both_copies_were_seen_to_be() {
        let of = |tries| Unreadable::twice(tries).failure;
        assert_eq!(of([Failure::Media, Failure::Media]), Failure::Media);
        assert_eq!(of([Failure::Media, Failure::Device]), Failure::Device);
        assert_eq!(of([Failure::Device, Failure::Media]), Failure::Device);
    }
}
