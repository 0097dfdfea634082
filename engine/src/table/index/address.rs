//! Positions in a volume: segments, spans, fragments and their blocks.

use crate::format::map_page::PAGE_BLOCKS;
use crate::format::record::FragmentKey;
use crate::table::segments::{Segment, SegmentKey};
use crate::units::{FragmentSize, SEGMENT_BLOCKS, VolumeId};

/// Blocks in the unit of [`FragmentKey::start`].
pub(super) const UNIT_BLOCKS: u32 = 16;
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

    pub(super) fn segment(self) -> SegmentKey {
        SegmentKey { volume: self.volume, segment: self.unit / (SEGMENT_UNITS / PAGE_UNITS) }
    }
}

pub(super) fn segment_of(key: FragmentKey) -> SegmentKey {
    SegmentKey { volume: key.volume, segment: key.start / SEGMENT_UNITS }
}

/// The fragment's position in its segment; `None` if no fragment of this size starts there.
pub(super) fn position(key: FragmentKey, size: FragmentSize) -> Option<u8> {
    let (units, within) = (size.blocks() / UNIT_BLOCKS, key.start % SEGMENT_UNITS);
    within.is_multiple_of(units).then(|| u8::try_from(within / units).expect("at most 256"))
}

pub(super) fn key_at(segment: SegmentKey, at: u8, size: FragmentSize) -> FragmentKey {
    let start = segment.segment * SEGMENT_UNITS + u32::from(at) * (size.blocks() / UNIT_BLOCKS);
    FragmentKey { volume: segment.volume, start }
}

/// The seats of a span.
pub(super) fn seats_of(segment: &Segment, span: Span) -> std::ops::Range<usize> {
    let units = segment.size.blocks() / UNIT_BLOCKS;
    let first = span.unit * PAGE_UNITS % SEGMENT_UNITS / units;
    let count = (PAGE_UNITS / units).max(1);
    let behind = |limit: u32| segment.seats.partition_point(|seat| u32::from(seat.at) < limit);
    behind(first)..behind(first + count)
}
