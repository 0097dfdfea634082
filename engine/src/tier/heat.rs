//! Heat: requests counted per segment, and what is expected of each.
//!
//! Every read and write is counted here for the heat forecast, which is made
//! elsewhere and comes back as an event. With a forecast, what is expected least
//! is spilled first; without one, or with one that is out of date, it is what
//! was used last that stays.
//!
//! Invariants: counting takes no memory and a bounded number of steps; a count
//! is never given to another segment. Between two collections there is a count of
//! its own for each segment, as long as they are few beside [`MOST_SEGMENTS`],
//! and never for more than that; requests to the others are lost to the forecast,
//! and counted as such.

use std::sync::Arc;

use predictor::heat::worth::{self, SegmentHeat};

use crate::format::record::FragmentKey;
use crate::table::Table;
use crate::units::{FragmentSize, Nanos, SEGMENT_BLOCKS, SEGMENT_SHIFT, VolumeId};

/// Segments that a core counts for between two collections.
pub const MOST_SEGMENTS: usize = 1 << 13;
/// Places in which a segment's count may be.
const PROBES: usize = 16;
/// A forecast is used for so many of its horizons.
const LASTING: u64 = 2;

/// Requests of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentCount {
    /// The volume.
    pub volume: VolumeId,
    /// The segment, from the volume's start.
    pub segment: u32,
    /// Parts read: requests, of which a long one counts once for each window.
    pub reads: u32,
    /// Parts written.
    pub writes: u32,
}

impl SegmentCount {
    fn is_empty(&self) -> bool {
        self.reads == 0 && self.writes == 0
    }
}

/// What a core counted between two collections.
#[derive(Clone, Debug)]
pub struct HeatCounts {
    places: Box<[SegmentCount]>,
    lost: u64,
}

impl Default for HeatCounts {
    fn default() -> Self {
        Self { places: vec![SegmentCount::default(); MOST_SEGMENTS].into(), lost: 0 }
    }
}

impl HeatCounts {
    /// The segments that had requests, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &SegmentCount> {
        self.places.iter().filter(|place| !place.is_empty())
    }

    /// Requests to segments that found no place.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.places.fill(SegmentCount::default());
        self.lost = 0;
    }

    fn count(&mut self, volume: VolumeId, segment: u32, write: bool) {
        let found = places_of(volume, segment).find(|place| {
            let place = &self.places[*place];
            place.is_empty() || (place.volume, place.segment) == (volume, segment)
        });
        let Some(found) = found else {
            self.lost += 1;
            return;
        };
        let place = &mut self.places[found];
        (place.volume, place.segment) = (volume, segment);
        let count = if write { &mut place.writes } else { &mut place.reads };
        *count = count.saturating_add(1);
    }

    fn of(&self, volume: VolumeId, segment: u32) -> u32 {
        let mut places = places_of(volume, segment).map(|place| &self.places[place]);
        let found = places.find(|p| p.is_empty() || (p.volume, p.segment) == (volume, segment));
        found.map_or(0, |place| place.reads.saturating_add(place.writes))
    }
}

/// The places of a segment, in the order in which they are tried: the finaliser of SplitMix64
/// says where they begin.
fn places_of(volume: VolumeId, segment: u32) -> impl Iterator<Item = usize> {
    let mut x = u64::from(volume.get()) << 32 | u64::from(segment);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let start = usize::try_from(x >> 48).expect("16 bits");
    (0..PROBES).map(move |probe| (start + probe) % MOST_SEGMENTS)
}

/// What is expected of the segments of one volume.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeHeat {
    /// The volume.
    pub volume: VolumeId,
    /// The segments that are known, ascending.
    pub segments: Vec<(u32, SegmentHeat)>,
    /// Each of the others.
    pub other: SegmentHeat,
}

/// What is expected of all volumes.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatForecast {
    horizon_ns: u64,
    /// Ascending.
    volumes: Vec<VolumeHeat>,
}

impl HeatForecast {
    /// A forecast for a horizon, in nanoseconds.
    ///
    /// # Panics
    /// If the horizon is 0, or a volume or segment comes twice.
    pub fn new(horizon_ns: u64, mut volumes: Vec<VolumeHeat>) -> Self {
        assert!(horizon_ns > 0, "a forecast speaks of some time");
        volumes.sort_by_key(|volume| volume.volume);
        assert!(volumes.windows(2).all(|pair| pair[0].volume < pair[1].volume));
        for volume in &volumes {
            assert!(volume.segments.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        Self { horizon_ns, volumes }
    }

    /// What is expected of a segment; nothing of those that nobody knows.
    pub fn of(&self, volume: VolumeId, segment: u32) -> SegmentHeat {
        let found = self.volumes.binary_search_by_key(&volume, |known| known.volume);
        let Ok(at) = found else { return SegmentHeat::default() };
        let known = &self.volumes[at];
        let found = known.segments.binary_search_by_key(&segment, |(number, _)| *number);
        found.map_or(known.other, |at| known.segments[at].1)
    }
}

/// What a core knows of heat.
#[derive(Debug, Default)]
pub(crate) struct Heat {
    counts: HeatCounts,
    /// The forecast in force, and since when.
    forecast: Option<(Arc<HeatForecast>, Nanos)>,
}

/// How warm a fragment is; the least is spilled first. Steps of what it is worth, all 0 without
/// a forecast, then the time of the last use.
pub(crate) type Warmth = (u8, Nanos);

fn part_of(ns: u64, horizon_ns: u64) -> f32 {
    ns as f32 / horizon_ns as f32
}

impl Table {
    /// Counts a part for the forecast.
    pub(crate) fn count_heat(&mut self, volume: VolumeId, offset: u64, write: bool) {
        let segment = u32::try_from(offset >> SEGMENT_SHIFT).expect("within a volume");
        self.heat.counts.count(volume, segment, write);
    }

    /// Gives away what was counted and goes on in `fresh`, which has no counts.
    pub fn take_heat(&mut self, fresh: HeatCounts) -> HeatCounts {
        std::mem::replace(&mut self.heat.counts, fresh)
    }

    /// Copies what was counted since the last collection.
    pub fn copy_heat(&self, into: &mut HeatCounts) {
        into.places.copy_from_slice(&self.heat.counts.places);
        into.lost = self.heat.counts.lost;
    }

    /// Spills by this forecast from now on, or by none.
    pub fn set_forecast(&mut self, forecast: Option<Arc<HeatForecast>>) {
        self.heat.forecast = forecast.map(|forecast| (forecast, self.now));
    }

    /// How warm a fragment is that was last used at a time.
    pub(super) fn warmth(&self, key: FragmentKey, size: FragmentSize, last_use: Nanos) -> Warmth {
        let known = self.heat_of(key, last_use);
        let worth = known.map(|(heat, idle)| heat.worth(fragments_in_segment(size), idle));
        (worth.map_or(0, worth::step), last_use)
    }

    /// Whether a fragment is expected to be used within the horizon.
    pub(super) fn is_expected(
        &self,
        key: FragmentKey,
        size: FragmentSize,
        last_use: Nanos,
    ) -> bool {
        let known = self.heat_of(key, last_use);
        let expected = known.map(|(heat, idle)| heat.of_fragment(fragments_in_segment(size), idle));
        expected.is_some_and(|expected| worth::step(expected) > 0)
    }

    /// What is known of a fragment's segment, and for which part of a horizon it has been idle;
    /// nothing without a forecast that lasts.
    fn heat_of(&self, key: FragmentKey, last_use: Nanos) -> Option<(SegmentHeat, f32)> {
        let (forecast, since) = self.heat.forecast.as_ref()?;
        let (age, horizon_ns) = (self.now.since(*since), forecast.horizon_ns);
        if age > horizon_ns.saturating_mul(LASTING) {
            return None;
        }
        let segment = key.start / (SEGMENT_BLOCKS / FragmentSize::MIN.blocks());
        let seen = self.heat.counts.of(key.volume, segment) as f32;
        let heat = forecast.of(key.volume, segment).seen(seen, part_of(age, horizon_ns));
        Some((heat, part_of(self.now.since(last_use), horizon_ns)))
    }
}

fn fragments_in_segment(size: FragmentSize) -> u16 {
    u16::try_from(SEGMENT_BLOCKS / size.blocks()).expect("at most 256")
}

#[cfg(test)]
#[path = "heat_tests.rs"]
mod tests;
