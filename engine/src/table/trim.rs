//! Dropping what lies behind a segment of a volume: deletion and shrinking.
//!
//! A trim walks the fragments of this core's slices in bounded steps, one per
//! event, and drops those of its volume. It waits for log room and for whoever
//! holds a fragment, walks again until nothing was held, and ends like a flush:
//! when the drops are durable. Clients must not reach the range any more: a
//! write that comes later makes a fragment that stays.

use super::Table;
use super::index::{Cursor, Span};
use super::sink::Sink;
use super::space::Space;
use crate::format::record::FragmentKey;
use crate::units::{DeviceId, SEGMENT_SHIFT, SliceId, VolumeId};

/// Fragments that one step visits.
const STEP: usize = 1024;
/// log2 of the segment's length in the unit of a fragment's start, 64 KiB.
const START_SHIFT: u32 = SEGMENT_SHIFT - 16;

/// A trim under way.
#[derive(Debug)]
pub struct Trim {
    volume: VolumeId,
    /// First start that goes.
    from: u64,
    /// The flush that it ends as.
    flush: u32,
    /// Next slice and where in it.
    slice: usize,
    cursor: Cursor,
    /// Some fragment was held: walk once more.
    again: bool,
}

impl Trim {
    fn covers(&self, key: FragmentKey) -> bool {
        key.volume == self.volume && u64::from(key.start) >= self.from
    }
}

/// What a volume takes on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Fragments.
    pub fragments: u64,
    /// Blocks whose authority is a fast place.
    pub fast_blocks: u64,
    /// Blocks whose authority is the cold slot.
    pub cold_blocks: u64,
}

impl VolumeUsage {
    /// Adds another core's.
    pub fn add(&mut self, other: &VolumeUsage) {
        self.fragments += other.fragments;
        self.fast_blocks += other.fast_blocks;
        self.cold_blocks += other.cold_blocks;
    }
}

impl VolumeUsage {
    /// Adds a fragment's blocks.
    pub(crate) fn count(&mut self, present: u16, cold: u16) {
        self.fast_blocks += u64::from(present - cold);
        self.cold_blocks += u64::from(cold);
    }

    /// Takes a fragment's blocks away.
    pub(crate) fn discount(&mut self, present: u16, cold: u16) {
        self.fast_blocks -= u64::from(present - cold);
        self.cold_blocks -= u64::from(cold);
    }
}

impl Table {
    /// Drops all fragments of `volume` from the 16 MiB segment `from_segment` on.
    ///
    /// Ends as a flush does, when the drops are durable. Parts for the range
    /// must have ended before, on every core.
    ///
    /// # Panics
    /// Unless [`Table::can_submit`].
    pub fn drop_range<S: Sink>(
        &mut self,
        volume: VolumeId,
        from_segment: u32,
        origin: u64,
        sink: &mut S,
    ) {
        let flush = self.begin_flush(origin);
        let from = u64::from(from_segment) << START_SHIFT;
        self.trims.push(Trim {
            volume,
            from,
            flush,
            slice: 0,
            cursor: Cursor::default(),
            again: false,
        });
        self.settle(sink);
    }

    /// Takes every trim one step further.
    pub(crate) fn advance_trims<S: Sink>(&mut self, sink: &mut S) {
        let mut trims = std::mem::take(&mut self.trims);
        trims.retain_mut(|trim| {
            let ended = self.advance_trim(trim, sink);
            if ended {
                self.flush_slices(trim.flush, Some(trim.volume), sink);
            }
            !ended
        });
        self.trims = trims;
    }

    /// One step; true if every fragment of the range is gone.
    fn advance_trim<S: Sink>(&mut self, trim: &mut Trim, sink: &mut S) -> bool {
        let mut left = STEP;
        while left > 0 {
            let Some(slot) = self.slices.get(trim.slice) else {
                trim.slice = 0;
                return !std::mem::take(&mut trim.again);
            };
            let next = slot.as_ref().filter(|slice| !slice.failed).and_then(|slice| {
                let (key, _, _, next) = slice.index.walk(trim.cursor)?;
                Some((slice.id, key, next))
            });
            let Some((id, key, next)) = next else {
                trim.slice += 1;
                trim.cursor = Cursor::default();
                continue;
            };
            left -= 1;
            if trim.covers(key) && !self.trim_fragment(id, key, &mut trim.again, sink) {
                return false;
            }
            trim.cursor = next;
        }
        // Whoever waits for an end needs an event to go on from.
        if let Some(slice) = self.slices[trim.slice].as_ref() {
            self.request_commit(slice.id, sink);
        }
        false
    }

    /// Drops a fragment, or notes that it is held; false if the log is full.
    fn trim_fragment<S: Sink>(
        &mut self,
        id: SliceId,
        key: FragmentKey,
        again: &mut bool,
        sink: &mut S,
    ) -> bool {
        let slice = self.slice(id);
        let gone = match slice.index.find(key) {
            Some(at) if slice.index.held(at).pins > 0 => {
                *again = true;
                return true;
            }
            Some(at) => {
                if let Some(stage) = slice.index.held(at).stage {
                    self.evict_stage(stage, sink);
                }
                self.slice(id).index.get(at).is_none() || self.drop_fragment(id, at)
            }
            None if slice.loading.contains(&Span::of(key)) => {
                *again = true;
                return true;
            }
            None => self.drop_away(id, key),
        };
        if !gone {
            self.request_commit(id, sink);
        }
        gone
    }

    /// True while a trim is under way.
    pub fn is_trimming(&self) -> bool {
        !self.trims.is_empty()
    }

    /// What a volume takes in the slices of this core.
    pub fn usage(&self, volume: VolumeId) -> VolumeUsage {
        let mut usage = VolumeUsage::default();
        self.slices().for_each(|slice| usage.add(&slice.index.usage(volume)));
        usage
    }

    /// Bytes of slots that the slices of this core use on a device.
    pub fn device_used(&self, device: DeviceId) -> u64 {
        self.slices()
            .map(|slice| &slice.space[usize::from(device.get())])
            .map(Space::used_bytes)
            .sum()
    }
}
