//! From a volume's address to its fragment.
//!
//! A segment's fragments all have the size that was in force when its first
//! one was made; the segment remembers it for as long as it has any. Memory
//! holds a [`Seat`] of every fragment; the fragment itself, with its block map,
//! is *here* only while it is in use. Fragments come and go by the *span*: the
//! 2 MiB of a map page, or one larger fragment. All fragments of a span are
//! here, or none is. Records that recovery replayed wait in `pending` until
//! their span comes.

mod address;
mod members;
mod walk;

pub use address::{PAGE_UNITS, Span, Spot};
pub use walk::Cursor;

use std::collections::{BTreeMap, HashMap};

use rustc_hash::FxBuildHasher;

use super::fragment::{FragRef, Fragment};
use super::seat::Seat;
use super::segments::{SegmentKey, Segments};
use super::trim::VolumeUsage;
use crate::core::prefetch::{LINE_BYTES, prefetch};
use crate::format::record::FragmentKey;
use crate::units::{FragmentSize, SEGMENT_BLOCKS, VolumeId};
use address::{UNIT_BLOCKS, key_at, position, seats_of, segment_of};

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
