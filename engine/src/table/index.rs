//! From a volume's address to its fragment.
//!
//! A segment's fragments all have the size that was in force when its first
//! one was made; the segment remembers it for as long as it has any. Memory
//! holds a [`Seat`] of every fragment; the fragment itself, with its block map,
//! is *here* only while it is in use. Fragments come and go by the *span*: the
//! 2 MiB of a map page, or one larger fragment. All fragments of a span are
//! here, or none is. Records that recovery replayed wait in `pending` until
//! their span comes.

use std::collections::{BTreeMap, HashMap};

use rustc_hash::FxBuildHasher;

use super::fragment::{FragRef, Fragment};
use super::seat::{Seat, fits};
use super::segments::{Segment, SegmentKey, Segments};
use super::trim::VolumeUsage;
use crate::core::prefetch::{LINE_BYTES, prefetch};
use crate::format::map_page::PAGE_BLOCKS;
use crate::format::record::{FragmentKey, Mapped, Placement};
use crate::units::{FragmentSize, SEGMENT_BLOCKS, VolumeId};

/// Blocks in the unit of [`FragmentKey::start`].
const UNIT_BLOCKS: u32 = 16;
/// Units of [`FragmentKey::start`] in a segment.
const SEGMENT_UNITS: u32 = SEGMENT_BLOCKS / UNIT_BLOCKS;
/// Units of [`FragmentKey::start`] in a map page.
pub const PAGE_UNITS: u32 = 32;

/// A fragment's key and a block's number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The fragment, existing or not.
    pub key: FragmentKey,
    /// Its size.
    pub size: FragmentSize,
    /// The block in it.
    pub block: u32,
}

/// The fragments whose maps come and go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The volume.
    pub volume: VolumeId,
    /// First 2 MiB of the volume that it covers.
    pub unit: u32,
}

impl Span {
    /// The span of the fragment with `key`.
    pub fn of(key: FragmentKey) -> Self {
        Span { volume: key.volume, unit: key.start / PAGE_UNITS }
    }

    /// Map pages of a span with fragments of `size`.
    pub fn pages(size: FragmentSize) -> u32 {
        size.blocks().div_ceil(u32::try_from(PAGE_BLOCKS).expect("512"))
    }

    fn segment(self) -> SegmentKey {
        SegmentKey { volume: self.volume, segment: self.unit / (SEGMENT_UNITS / PAGE_UNITS) }
    }
}

/// Where a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It does not exist.
    Absent,
    /// Its map is on the device only.
    Away,
    /// In memory.
    Here(FragRef),
}

/// A place in the walk over all seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    segment: usize,
    at: u16,
}

/// A place for a fragment that is here. The number of its user stands beside the pointer, so
/// that a reference is made and checked without touching the fragment.
#[derive(Debug)]
struct Slot {
    fragment: Option<Box<Fragment>>,
    uid: u32,
}

/// The fragments of one slice.
#[derive(Debug, Default)]
pub struct Index {
    segments: Segments,
    fragments: Vec<Slot>,
    vacant: Vec<u32>,
    next_uid: u32,
    live: usize,
    map_pages: u32,
    here_bytes: u64,
    here: usize,
    /// In order, because a checkpoint takes them one by one: the first of a hash map that is being
    /// emptied is found by a search.
    pending: BTreeMap<Span, Vec<u8>>,
    usage: HashMap<VolumeId, VolumeUsage, FxBuildHasher>,
}

fn segment_of(key: FragmentKey) -> SegmentKey {
    SegmentKey { volume: key.volume, segment: key.start / SEGMENT_UNITS }
}

/// The fragment's position in its segment; `None` if no fragment of this size starts there.
fn position(key: FragmentKey, size: FragmentSize) -> Option<u8> {
    let (units, within) = (size.blocks() / UNIT_BLOCKS, key.start % SEGMENT_UNITS);
    within.is_multiple_of(units).then(|| u8::try_from(within / units).expect("at most 256"))
}

fn key_at(segment: SegmentKey, at: u8, size: FragmentSize) -> FragmentKey {
    let start = segment.segment * SEGMENT_UNITS + u32::from(at) * (size.blocks() / UNIT_BLOCKS);
    FragmentKey { volume: segment.volume, start }
}

/// The seats of a span.
fn seats_of(segment: &Segment, span: Span) -> std::ops::Range<usize> {
    let units = segment.size.blocks() / UNIT_BLOCKS;
    let first = span.unit * PAGE_UNITS % SEGMENT_UNITS / units;
    let count = (PAGE_UNITS / units).max(1);
    let behind = |limit: u32| segment.seats.partition_point(|seat| u32::from(seat.at) < limit);
    behind(first)..behind(first + count)
}

impl Index {
    /// Which fragment holds `block` of `volume`; `size` counts where the segment is empty.
    pub fn spot(&self, volume: VolumeId, block: u64, size: FragmentSize) -> Spot {
        let number = u32::try_from(block / u64::from(SEGMENT_BLOCKS)).expect("volume below 64 PiB");
        let segment = self.segments.get(SegmentKey { volume, segment: number });
        let size = segment.map_or(size, |segment| segment.size);
        let within = u32::try_from(block % u64::from(size.blocks())).expect("below 4096");
        let start = u32::try_from((block - u64::from(within)) / u64::from(UNIT_BLOCKS));
        let start = start.expect("volume below 256 TiB");
        Spot { key: FragmentKey { volume, start }, size, block: within }
    }

    /// The seat of a fragment, and the fragment's size.
    pub fn seat(&self, key: FragmentKey) -> Option<(&Seat, FragmentSize)> {
        let segment = self.segments.get(segment_of(key))?;
        let at = segment.seat(position(key, segment.size)?).ok()?;
        Some((&segment.seats[at], segment.size))
    }

    fn seat_mut(&mut self, key: FragmentKey) -> Option<&mut Seat> {
        let segment = self.segments.get_mut(segment_of(key))?;
        let at = segment.seat(position(key, segment.size)?).ok()?;
        Some(&mut segment.seats[at])
    }

    /// Where the fragment with `key` is.
    pub fn lookup(&self, key: FragmentKey) -> Lookup {
        let Some((seat, _)) = self.seat(key) else { return Lookup::Absent };
        match seat.here() {
            Some(index) => Lookup::Here(self.reference(index)),
            None => Lookup::Away,
        }
    }

    /// The fragment with `key`, if it is here.
    pub fn find(&self, key: FragmentKey) -> Option<FragRef> {
        let index = self.seat(key)?.0.here()?;
        Some(self.reference(index))
    }

    fn reference(&self, index: u32) -> FragRef {
        FragRef { index, uid: self.fragments[index as usize].uid }
    }

    /// A block will be looked up soon. Asked for a batch of blocks before any is looked up, it
    /// lets their misses overlap.
    pub fn expect(&self, volume: VolumeId, block: u64) {
        if let Ok(segment) = u32::try_from(block / u64::from(SEGMENT_BLOCKS)) {
            self.segments.expect(SegmentKey { volume, segment });
        }
    }

    /// A block that was expected will be looked up soon: brings its seat near.
    pub fn expect_seat(&self, volume: VolumeId, block: u64) {
        let Ok(segment) = u32::try_from(block / u64::from(SEGMENT_BLOCKS)) else { return };
        if let Some(segment) = self.segments.get(SegmentKey { volume, segment }) {
            let within = u32::try_from(block % u64::from(SEGMENT_BLOCKS)).expect("below 4096");
            segment.expect((within / segment.size.blocks()) as usize);
        }
    }

    /// The fragment that holds `block` of `volume`, if it is here; begins to bring it near.
    pub fn seek(&self, volume: VolumeId, block: u64) -> Option<FragRef> {
        let number = u32::try_from(block / u64::from(SEGMENT_BLOCKS)).ok()?;
        let segment = self.segments.get(SegmentKey { volume, segment: number })?;
        let within = u32::try_from(block % u64::from(SEGMENT_BLOCKS)).expect("below 4096");
        let at = u8::try_from(within / segment.size.blocks()).expect("at most 256");
        let index = segment.seats[segment.seat(at).ok()?].here()?;
        let slot = &self.fragments[index as usize];
        let start: *const Fragment = &raw const **slot.fragment.as_ref()?;
        for line in (0..size_of::<Fragment>()).step_by(LINE_BYTES) {
            prefetch(start.wrapping_byte_add(line));
        }
        Some(FragRef { index, uid: slot.uid })
    }

    /// Brings the map entry of `block` of `volume` near, in a fragment found by [`Index::seek`].
    pub fn approach(&self, at: FragRef, block: u64) {
        if let Some(fragment) = self.get(at)
            && let Some(within) = fragment.block_of(block)
        {
            prefetch(fragment.entry_address(within));
        }
    }

    /// True if the fragments of a span that exist are here.
    pub fn is_here(&self, span: Span) -> bool {
        let here = |seat: &Seat| seat.here().is_some();
        self.seats(span).next().is_none_or(|(_, seat)| here(seat))
            && !self.pending.contains_key(&span)
    }

    /// The fragments of a span.
    pub fn seats(&self, span: Span) -> impl Iterator<Item = (FragmentKey, &Seat)> {
        let segment = self.segments.get(span.segment());
        let size = segment.map_or(FragmentSize::MAX, |segment| segment.size);
        let seats = segment.map_or(&[][..], |segment| &segment.seats[seats_of(segment, span)]);
        seats.iter().map(move |seat| (key_at(span.segment(), seat.at, size), seat))
    }

    /// Size of the fragments of a span that has any.
    pub fn span_size(&self, span: Span) -> Option<FragmentSize> {
        self.segments.get(span.segment()).map(|segment| segment.size)
    }

    /// The map page of a span and the checkpoint that wrote it.
    pub fn page(&self, span: Span) -> Option<(u32, u32)> {
        self.seats(span).find_map(|(_, seat)| Some((seat.page()?, seat.written)))
    }

    /// The map of every fragment of the span is, or is about to be, at `page`.
    pub fn set_page(&mut self, span: Span, page: u32, written: u32) {
        let segment = self.segments.get_mut(span.segment()).expect("a span with fragments");
        let range = seats_of(segment, span);
        for seat in &mut segment.seats[range] {
            seat.set_page(Some(page), written);
        }
    }

    /// A seat that recovery found. `None` if its segment has fragments of another size, or it
    /// is taken, or no device has such slots.
    pub fn adopt(
        &mut self,
        key: FragmentKey,
        placement: &Placement,
        mapped: &Mapped,
    ) -> Option<()> {
        let at = position(key, placement.size).filter(|_| fits(placement))?;
        let others = self.seats(Span::of(key)).next().is_some();
        let segment = self.segments.make(segment_of(key), placement.size);
        if segment.size != placement.size || segment.seat(at).is_ok() {
            return None;
        }
        let mut seat = Seat::new(at, placement);
        seat.set_page(mapped.page, mapped.written);
        (seat.present, seat.cold_blocks) = (mapped.present, mapped.cold_blocks);
        segment.add(seat);
        self.live += 1;
        self.map_pages += if others { 0 } else { Span::pages(placement.size) };
        let usage = self.usage.entry(key.volume).or_default();
        usage.fragments += 1;
        usage.count(seat.present, seat.cold_blocks);
        Some(())
    }

    /// Replaces the placement of a fragment that is away.
    pub fn replace_placement(&mut self, key: FragmentKey, placement: &Placement) {
        self.seat_mut(key).expect("a fragment that exists").set_placement(placement);
    }

    /// Adds a fragment with no blocks. The others of its span are here.
    ///
    /// Returns `None` if its segment has fragments of another size, or it exists.
    pub fn insert(&mut self, key: FragmentKey, size: FragmentSize) -> Option<FragRef> {
        assert!(self.is_here(Span::of(key)), "a fragment joins a span that is here");
        let fragment = Fragment::new(key, size, 0);
        let none = Mapped { page: None, written: 0, present: 0, cold_blocks: 0 };
        self.adopt(key, &fragment.placement(), &none)?;
        Some(self.bring(fragment))
    }

    /// A fragment that is away comes into memory.
    pub fn bring(&mut self, mut fragment: Fragment) -> FragRef {
        let (seat, _) = self.seat(fragment.key).expect("a fragment has a seat");
        fragment.accounted = (seat.present.into(), seat.cold_blocks.into());
        self.next_uid = self.next_uid.wrapping_add(1);
        fragment.uid = self.next_uid;
        self.here_bytes += fragment.heap_bytes();
        self.here += 1;
        let key = fragment.key;
        let slot = Slot { fragment: Some(Box::new(fragment)), uid: self.next_uid };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.fragments[index as usize] = slot;
                index
            }
            None => {
                self.fragments.push(slot);
                u32::try_from(self.fragments.len() - 1).expect("fewer than 2^32 fragments")
            }
        };
        let seat = self.seat_mut(key).expect("a fragment has a seat");
        assert!(seat.here().is_none(), "a fragment comes once");
        seat.set_here(Some(index));
        FragRef { index, uid: self.next_uid }
    }

    /// A fragment leaves memory; its map is on the device.
    pub fn send_away(&mut self, at: FragRef) {
        self.account(at);
        let fragment = self.vacate(at);
        let seat = self.seat_mut(fragment.key).expect("a fragment has a seat");
        assert!(seat.page().is_some(), "its map is on the device");
        seat.set_placement(&fragment.placement());
        seat.set_last_use(fragment.last_use);
        seat.stuck = fragment.stuck;
        seat.set_here(None);
    }

    fn vacate(&mut self, at: FragRef) -> Box<Fragment> {
        let slot = &mut self.fragments[at.index as usize];
        let fragment = slot.fragment.take().expect("a live fragment");
        assert!(slot.uid == at.uid && fragment.pins == 0, "fragment in use");
        self.vacant.push(at.index);
        self.here_bytes -= fragment.heap_bytes();
        self.here -= 1;
        fragment
    }

    /// Removes a fragment that nothing holds, and its map page if no other fragment needs it.
    pub fn remove(&mut self, at: FragRef) -> (Box<Fragment>, Option<u32>) {
        self.account(at);
        let fragment = self.vacate(at);
        let page = self.unseat(fragment.key);
        (fragment, page)
    }

    /// Removes a fragment that is away; its placement, and its map page if none else needs it.
    pub fn remove_away(&mut self, key: FragmentKey) -> (Placement, Option<u32>) {
        let (seat, size) = self.seat(key).expect("a fragment that exists");
        assert!(seat.here().is_none(), "a fragment that is away");
        let placement = seat.placement(size);
        (placement, self.unseat(key))
    }

    fn unseat(&mut self, key: FragmentKey) -> Option<u32> {
        let (name, span) = (segment_of(key), Span::of(key));
        let segment = self.segments.get_mut(name).expect("its segment lives");
        let size = segment.size;
        let seat = segment.take(position(key, size).expect("it was found there"));
        let range = seats_of(segment, span);
        let (left, empty) = (&segment.seats[range], segment.seats.is_empty());
        let page = seat.page().filter(|page| left.iter().all(|o| o.page() != Some(*page)));
        if left.is_empty() {
            self.map_pages -= Span::pages(size);
            self.pending.remove(&span);
        }
        if empty {
            self.segments.remove(name);
        }
        self.live -= 1;
        let usage = self.usage.get_mut(&key.volume).expect("it was counted");
        usage.fragments -= 1;
        usage.discount(seat.present, seat.cold_blocks);
        if usage.fragments == 0 {
            self.usage.remove(&key.volume);
        }
        page
    }

    /// Brings the seat's counts up to date with the fragment's.
    pub fn account(&mut self, at: FragRef) {
        let fragment = self.get_mut(at).expect("a fragment that is here");
        let now = (fragment.present, fragment.cold_blocks);
        if std::mem::replace(&mut fragment.accounted, now) == now {
            return;
        }
        let short = |blocks: u32| u16::try_from(blocks).expect("at most 4096");
        let (key, present, cold) = (fragment.key, fragment.present, fragment.cold_blocks);
        let (present, cold) = (short(present), short(cold));
        let seat = self.seat_mut(key).expect("a fragment has a seat");
        let old = (seat.present, seat.cold_blocks);
        if old != (present, cold) {
            (seat.present, seat.cold_blocks) = (present, cold);
            let usage = self.usage.get_mut(&key.volume).expect("it was counted");
            usage.discount(old.0, old.1);
            usage.count(present, cold);
        }
    }

    /// What a volume takes.
    pub fn usage(&self, volume: VolumeId) -> VolumeUsage {
        self.usage.get(&volume).copied().unwrap_or_default()
    }

    /// A fragment that is away cannot be spilled.
    pub fn mark_stuck(&mut self, key: FragmentKey) {
        if let Some(seat) = self.seat_mut(key) {
            seat.stuck = true;
        }
    }

    /// Keeps a replayed record for when its span comes.
    pub fn postpone(&mut self, span: Span, record: &[u8]) {
        self.pending.entry(span).or_default().extend_from_slice(record);
    }

    /// The replayed records of a span, in order.
    pub fn take_pending(&mut self, span: Span) -> Vec<u8> {
        self.pending.remove(&span).unwrap_or_default()
    }

    /// The replayed records of a span, in order.
    pub fn pending(&self, span: Span) -> &[u8] {
        self.pending.get(&span).map_or(&[], Vec::as_slice)
    }

    /// The first span with replayed records.
    pub fn first_pending(&self) -> Option<Span> {
        self.pending.first_key_value().map(|(span, _)| *span)
    }

    /// The fragment, if it is still here.
    pub fn get(&self, at: FragRef) -> Option<&Fragment> {
        let slot = &self.fragments[at.index as usize];
        slot.fragment.as_deref().filter(|_| slot.uid == at.uid)
    }

    /// The fragment, if it is still here.
    pub fn get_mut(&mut self, at: FragRef) -> Option<&mut Fragment> {
        let slot = &mut self.fragments[at.index as usize];
        slot.fragment.as_deref_mut().filter(|_| slot.uid == at.uid)
    }

    /// The fragment that an operation holds.
    pub fn held(&mut self, at: FragRef) -> &mut Fragment {
        self.get_mut(at).expect("a pinned fragment is here")
    }

    /// The first fragment that is here at or behind position `from`, and its position.
    pub fn next(&self, from: usize) -> Option<(usize, &Fragment)> {
        let rest = self.fragments.get(from..)?;
        let found = rest.iter().enumerate().find_map(|(at, s)| Some((at, s.fragment.as_deref()?)));
        found.map(|(at, fragment)| (from + at, fragment))
    }

    /// All fragments that are here.
    pub fn iter(&self) -> impl Iterator<Item = &Fragment> {
        self.fragments.iter().filter_map(|slot| slot.fragment.as_deref())
    }

    /// The first seat at or behind `from`: its key, its fragment's size, and what comes next.
    ///
    /// A walk sees every fragment that exists throughout, once.
    pub fn walk(&self, from: Cursor) -> Option<(FragmentKey, &Seat, FragmentSize, Cursor)> {
        let mut from = from;
        loop {
            let (position, key, segment) = self.segments.next(from.segment)?;
            let at = if position == from.segment { from.at } else { 0 };
            let first = segment.seats.partition_point(|seat| u16::from(seat.at) < at);
            if let Some(seat) = segment.seats.get(first) {
                let next = Cursor { segment: position, at: u16::from(seat.at) + 1 };
                return Some((key_at(key, seat.at, segment.size), seat, segment.size, next));
            }
            from = Cursor { segment: position + 1, at: 0 };
        }
    }

    /// Where a walk over the segments of now ends; later ones may come before or behind it.
    pub fn end(&self) -> Cursor {
        Cursor { segment: self.segments.positions(), at: 0 }
    }

    /// All fragments: key, seat and size.
    pub fn all(&self) -> impl Iterator<Item = (FragmentKey, &Seat, FragmentSize)> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(move || {
            let (key, seat, size, next) = self.walk(cursor)?;
            cursor = next;
            Some((key, seat, size))
        })
    }

    /// Number of fragments, here or away.
    pub fn len(&self) -> usize {
        self.live
    }

    /// True without fragments.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Map pages that all fragments need.
    pub fn map_pages(&self) -> u32 {
        self.map_pages
    }

    /// Number of fragments that are here.
    pub fn here(&self) -> usize {
        self.here
    }

    /// Bytes of the fragments that are here.
    pub fn here_bytes(&self) -> u64 {
        self.here_bytes
    }

    /// Bytes that it takes beside the fragments that are here.
    pub fn heap_bytes(&self) -> usize {
        self.segments.heap_bytes()
    }

    /// Panics unless the invariants hold.
    pub fn self_check(&self) {
        let (mut here, mut live, mut pages) = (0, 0, 0);
        let mut last = None;
        for (key, seat, size) in self.all() {
            live += 1;
            if last != Some(Span::of(key)) {
                pages += Span::pages(size);
                last = Some(Span::of(key));
            }
            assert_eq!(seat.here().is_some(), self.is_here(Span::of(key)), "half a span is here");
            if let Some(index) = seat.here() {
                here += 1;
                let fragment = self.get(self.reference(index)).expect("seated");
                assert_eq!((fragment.key, fragment.size), (key, size));
                fragment.self_check();
            }
        }
        assert_eq!((live, pages), (self.live, self.map_pages));
        assert_eq!((here, here), (self.iter().count(), self.here), "a fragment without a seat");
        let bytes: u64 = self.iter().map(Fragment::heap_bytes).sum();
        assert_eq!(bytes, self.here_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_the_size_of_its_first_fragment() {
        let mut index = Index::default();
        let volume = VolumeId::new(1);
        let small = FragmentSize::MIN;
        let spot = index.spot(volume, 5000, FragmentSize::DEFAULT);
        assert_eq!((spot.key.start, spot.block), (304, 136));
        let key = index.spot(volume, 5000, small).key;
        let at = index.insert(key, small).unwrap();
        assert_eq!(index.lookup(key), Lookup::Here(at));
        let again = index.spot(volume, 5000, FragmentSize::DEFAULT);
        assert_eq!((again.key, again.size, again.block), (key, small, 8));
        assert_eq!(index.insert(key, small), None);
        index.self_check();
        index.remove(at);
        assert_eq!(index.lookup(key), Lookup::Absent);
        assert_eq!(index.spot(volume, 5000, FragmentSize::DEFAULT), spot);
        assert_eq!((index.len(), index.map_pages(), index.here_bytes()), (0, 0, 0));
    }

    #[test]
    fn the_fragments_of_a_page_share_it() {
        let mut index = Index::default();
        let key = |start| FragmentKey { volume: VolumeId::new(1), start };
        let (first, second) = (key(64), key(80));
        let at = [first, second].map(|key| index.insert(key, FragmentSize::DEFAULT).unwrap());
        index.insert(key(96), FragmentSize::DEFAULT).unwrap();
        let span = Span::of(first);
        assert_eq!((span, index.seats(span).count()), (Span::of(second), 2));
        assert_eq!((index.map_pages(), index.page(span)), (2, None));
        index.set_page(span, 7, 3);
        assert_eq!((index.page(span), index.page(Span::of(key(96)))), (Some((7, 3)), None));
        assert_eq!(index.remove(at[0]).1, None, "the other one needs it");
        index.send_away(at[1]);
        assert_eq!((index.lookup(second), index.is_here(span)), (Lookup::Away, false));
        assert_eq!(index.remove_away(second).1, Some(7));
        assert_eq!(index.map_pages(), 1);
        index.self_check();
    }
}
