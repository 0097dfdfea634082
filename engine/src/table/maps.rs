//! Block maps come and go: loaded by the span on first use, sent away when the
//! budget is used up and nothing is lost by it.
//!
//! A map is read from its page in either copy of the metadata zone; records
//! that recovery replayed are applied on top. A fragment whose map has changed
//! stays until a checkpoint has written it. Beyond the budget, loads wait for
//! the checkpoint that lets others leave.

use super::Table;
use super::fragment::{FragRef, Fragment};
use super::index::{Index, Lookup, Span};
use super::op::{Piece, Token};
use super::sink::{Io, IoKind, IoResult, Sink};
use crate::format::map_page::{MapId, PAGE_BLOCKS, RawMapPage, open};
use crate::format::record::{Entry, FragmentKey, Record, Records};
use crate::planted::{Bug, planted};
use crate::request::Buf;
use crate::units::{BLOCK_BYTES, BLOCK_BYTES_U32, SliceId};

/// Spans that may load at once on a core.
pub(crate) const MAX_LOADS: u32 = 64;
/// Fragments looked at for one that may leave.
const PROBES: usize = 512;

/// A span on its way into memory.
#[derive(Debug)]
pub struct MapLoad {
    slice: SliceId,
    span: Span,
    /// First page, how many, and the checkpoint that wrote them.
    page: u32,
    pages: u32,
    written: u32,
    /// The copy being read, and whether it is the second try.
    copy: usize,
    again: bool,
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
    /// Its map cannot be read.
    Lost,
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
    /// Its map cannot be read.
    Lost,
}

/// A page's blocks as entries: `page` is the page's number in its span.
type PageEntry<'a> = &'a dyn Fn(usize, usize) -> Option<Entry>;

/// The fragments of a span as page and replayed records say.
pub fn assemble(
    index: &Index,
    span: Span,
    page: PageEntry<'_>,
) -> Result<Vec<Fragment>, &'static str> {
    let Some(size) = index.span_size(span) else { return Ok(Vec::new()) };
    let blocks = size.blocks() as usize;
    let unit = |key: FragmentKey| (key.start as usize * 16) % PAGE_BLOCKS;
    let mut maps: Vec<(FragmentKey, Vec<Option<Entry>>)> = index
        .seats(span)
        .map(|(key, seat)| {
            let entry = |block: usize| {
                let at = unit(key) + block;
                seat.page().and_then(|_| page(at / PAGE_BLOCKS, at % PAGE_BLOCKS))
            };
            (key, (0..blocks).map(entry).collect())
        })
        .collect();
    let pending = if planted(Bug::ReplayForgotten) { &[] } else { index.pending(span) };
    for record in Records::new(pending) {
        let record = record.map_err(|_| "malformed")?;
        let (key, first) = match record {
            Record::Blocks { key, first, .. } | Record::Holes { key, first, .. } => (key, first),
            Record::Drop(key) => (key, 0),
            _ => continue,
        };
        let Some((_, map)) = maps.iter_mut().find(|(of, _)| *of == key) else { continue };
        let rest = &mut map[usize::from(first).min(blocks)..];
        match record {
            Record::Blocks { entries, .. } => {
                rest.iter_mut().zip(entries.iter()).for_each(|(slot, entry)| *slot = Some(entry));
            }
            Record::Holes { count, .. } => {
                rest.iter_mut().take(count.into()).for_each(|slot| *slot = None);
            }
            _ => rest.fill(None),
        }
    }
    let fragment = |(key, map): (FragmentKey, Vec<Option<Entry>>)| {
        let (seat, size) = index.seat(key).expect("just seen");
        let mut fragment = Fragment::placed(key, &seat.placement(size));
        fragment.stuck = seat.stuck;
        fragment.last_use = seat.last_use();
        fragment.adopt_map(&map)?;
        Ok(fragment)
    };
    maps.into_iter().map(fragment).collect()
}

/// The pages of a span in `bytes`, if all are what they should be.
pub fn open_pages<'a>(
    bytes: &'a [u8],
    first: &MapId,
) -> Result<Vec<&'a RawMapPage>, crate::format::FormatError> {
    let page = |(unit, block)| open(block, &MapId { unit, ..*first });
    (first.unit..).zip(bytes.chunks_exact(BLOCK_BYTES)).map(page).collect()
}

/// Pages as they are: only a planted bug takes them so.
fn believe_pages<'a>(
    bytes: &'a [u8],
    _: &MapId,
) -> Result<Vec<&'a RawMapPage>, crate::format::FormatError> {
    bytes.chunks_exact(BLOCK_BYTES).map(RawMapPage::unchecked).collect()
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
            Wanted::Lost => Reach::Lost,
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
        if slice.lost.contains(&span) {
            return Wanted::Lost;
        }
        let Some((page, written)) = slice.index.page(span) else {
            let known = assemble(&slice.index, span, &|_, _| None);
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
        let load = MapLoad { slice: id, span, page, pages, written, copy, again: false, buf };
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
        let pages = result.ok().and_then(|()| open(bytes, &first).ok());
        if pages.is_none() && !load.again {
            self.counters.corrupt_blocks += u64::from(result.is_ok());
            load.copy = 1 - load.copy;
            load.again = true;
            return self.read_map(index, sink);
        }
        let slice = self.slices[usize::from(id.get())].as_mut().expect("ours");
        let found = match &pages {
            Some(pages) => assemble(&slice.index, span, &|page, block| pages[page].entry(block)),
            None => Err("both copies of its map page are damaged"),
        };
        let load = self.loads.remove(index);
        sink.free(load.buf);
        slice.loading.retain(|other| *other != span);
        self.end_want(id, span, found);
        if load.again {
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
        found: Result<Vec<Fragment>, &'static str>,
    ) -> Wanted {
        let slice = self.slice(id);
        let fragments = match found {
            Ok(fragments) => fragments,
            Err(what) => {
                tracing::error!(
                    slice = id.get(),
                    volume = span.volume.get(),
                    lba = u64::from(span.unit) * PAGE_BLOCKS as u64,
                    "a block map cannot be read: {what}"
                );
                slice.lost.push(span);
                return Wanted::Lost;
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

    /// The next checkpoint writes the span's map anew.
    fn rewrite(&mut self, id: SliceId, span: Span) {
        let slice = self.slice(id);
        let first = slice.index.seats(span).find_map(|(key, _)| slice.index.find(key));
        if let Some(at) = first {
            slice.mark_unsaved(at);
        }
    }

    /// Whoever wanted the span beside clients goes on.
    fn after_load<S: Sink>(&mut self, id: SliceId, span: Span, sink: &mut S) {
        self.stage_wished(id, span, sink);
        self.spill_awaited(id, span, sink);
        if self.snapshots.front() == Some(&id) {
            self.resume_snapshot(sink);
        }
    }

    /// Bytes of maps in memory.
    pub fn map_bytes(&self) -> u64 {
        self.slices().map(|slice| slice.index.here_bytes()).sum()
    }

    /// Sends spans away until the budget holds; false if too few can leave now.
    pub(crate) fn shrink_maps<S: Sink>(&mut self, sink: &mut S) -> bool {
        // At most once round: what has just been used stays.
        let here: usize = self.slices().map(|slice| slice.index.here()).sum();
        let mut probes = PROBES.min(here);
        while self.map_bytes() > self.config.map_budget_bytes {
            if probes == 0 || !self.send_one_away(&mut probes) {
                let dirtiest = self.slices().filter(|s| !s.failed).max_by_key(|s| s.dirty.len());
                if let Some(id) = dirtiest.filter(|slice| !slice.dirty.is_empty()).map(|s| s.id) {
                    self.request_snapshot(id, sink);
                }
                return false;
            }
        }
        true
    }

    /// Goes round until a span has left; false if none could in so many probes.
    fn send_one_away(&mut self, probes: &mut usize) -> bool {
        while *probes > 0 {
            *probes -= 1;
            let (at, position) = self.hand;
            let next = self.slices[at].as_mut().and_then(|slice| {
                let (position, fragment) = slice.index.next(position)?;
                Some((position, fragment.reference(position), slice))
            });
            let Some((position, at, slice)) = next else {
                self.hand = ((at + 1) % self.slices.len(), 0);
                continue;
            };
            self.hand.1 = position + 1;
            let fragment = slice.index.held(at);
            if std::mem::take(&mut fragment.referenced) {
                continue;
            }
            let (id, span) = (slice.id, Span::of(fragment.key));
            let (key, idle) = (fragment.key, fragment.pins == 0 && fragment.copies > 0);
            if idle {
                self.evict_copies_in(id, key);
                continue;
            }
            let here: smallvec::SmallVec<[FragRef; 32]> =
                slice.index.seats(span).filter_map(|(key, _)| slice.index.find(key)).collect();
            let may = |at: &FragRef| slice.index.get(*at).is_some_and(Fragment::may_leave);
            let saved = slice.index.seats(span).all(|(_, seat)| seat.page().is_some());
            if saved && here.iter().all(may) {
                here.into_iter().for_each(|at| slice.index.send_away(at));
                return true;
            }
        }
        false
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
    use crate::format::record::{
        MAX_RECORD_BYTES, Mapped, Placement, put_blocks, put_drop, put_holes,
    };
    use crate::table::entry::{Place, SlotRef};
    use crate::units::{Crc, DeviceId, FragmentSize, Generation, VolumeId};

    const KEY: FragmentKey = FragmentKey { volume: VolumeId::new(1), start: 16 };

    fn entry(block: u32) -> Entry {
        Entry { place: Place::fast(0, block), crc: Crc::new(block) }
    }

    type Encode<'a> = &'a dyn Fn(&mut [u8]) -> usize;

    /// The span of one fragment with a seat, and records that were replayed behind it.
    fn index(page: Option<u32>, records: &[Encode<'_>]) -> Index {
        let slot = SlotRef { device: DeviceId::new(0), block: 256 };
        let (size, generation) = (FragmentSize::DEFAULT, Generation::new(1));
        let placement = Placement { size, generation, fast: [Some(slot), None], cold: None };
        let mapped = Mapped { page, written: 1, present: 0, cold_blocks: 0 };
        let mut index = Index::default();
        index.adopt(KEY, &placement, &mapped).expect("a free seat");
        for record in records {
            let mut out = [0; MAX_RECORD_BYTES];
            let len = record(&mut out);
            index.postpone(Span::of(KEY), &out[..len]);
        }
        index
    }

    fn blocks(index: &Index, page: PageEntry<'_>) -> [Option<Entry>; 4] {
        let found = assemble(index, Span::of(KEY), page).expect("sound");
        assert_eq!(found.len(), 1);
        [0, 1, 2, 3].map(|block| found[0].authority(block))
    }

    #[test]
    fn replayed_records_come_after_the_page_in_order() {
        // The fragment is the second of its span: its blocks start at 256 of the page.
        let page = |_: usize, at: usize| {
            let block = u32::try_from(at).expect("below 512").checked_sub(256)?;
            (block < 3).then(|| entry(block))
        };
        assert_eq!(
            blocks(&index(Some(7), &[]), &page),
            [Some(entry(0)), Some(entry(1)), Some(entry(2)), None]
        );
        let overwrite = |out: &mut [u8]| put_blocks(out, KEY, 1, [entry(9), entry(10)].into_iter());
        let discard = |out: &mut [u8]| put_holes(out, KEY, 2, 2);
        let replayed = index(Some(7), &[&overwrite, &discard]);
        assert_eq!(blocks(&replayed, &page), [Some(entry(0)), Some(entry(9)), None, None]);
        let dropped = index(Some(7), &[&|out| put_drop(out, KEY), &overwrite]);
        assert_eq!(blocks(&dropped, &page), [None, Some(entry(9)), Some(entry(10)), None]);
    }

    #[test]
    fn a_seat_without_a_page_is_all_holes_but_for_replayed_records() {
        let no_page = |_: usize, _: usize| panic!("there is none");
        assert_eq!(blocks(&index(None, &[]), &no_page), [None; 4]);
        let write = |out: &mut [u8]| put_blocks(out, KEY, 3, [entry(5)].into_iter());
        assert_eq!(blocks(&index(None, &[&write]), &no_page), [None, None, None, Some(entry(5))]);
    }
}
