//! Following volumes: their counts in bins, their forecasters, their forecasts.
//!
//! A state machine without thread and clock: time comes with the counts. Memory
//! is bounded: a volume that is followed reserves what its counts and forecasts
//! can take, and no more are followed than [`MOST_BYTES`] allow. A volume that
//! had no request for as long as bins are kept is followed no longer.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use predictor::heat::keep::{Kept, ModelName};
use predictor::heat::worth::SegmentHeat;
use predictor::heat::{
    Forecast, Forecaster, ForecasterKind, HeatShape, Heatmap, Horizon, HorizonBins, Segment,
    SegmentForecast,
};

use crate::tier::heat::{HeatForecast, SegmentCount, VolumeHeat};
use crate::units::{SEGMENT_BYTES, VolumeId};

/// What all volumes that are followed may take.
pub const MOST_BYTES: usize = 64 << 20;
/// What one of them may take.
const MOST_BYTES_OF_VOLUME: usize = MOST_BYTES / 4;
/// Of each row, forecasts that wait to be compared: of all members, and of `auto`.
const WAITING: usize = 2 * ForecasterKind::ALL.len();
/// Of each row, what the models remember: a season of a day, and fits.
const MODEL_BYTES: usize = 4 << 10;
const SEED: u64 = 1;

/// What a user may set, also on a running server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who forecasts.
    pub forecaster: ForecasterKind,
    /// How far ahead.
    pub horizon: Horizon,
}

/// A volume as its follower knows it.
pub(super) struct Followed {
    pub heat: Heatmap,
    pub forecaster: Box<dyn Forecaster>,
    pub forecast: Option<Forecast>,
    /// Who made that forecast.
    pub chosen: Option<ForecasterKind>,
    /// The volume's UUID, under which its weights are kept.
    owner: String,
    /// The bin of its newest request.
    touched: u64,
    failed: bool,
}

/// All volumes that are followed.
pub(super) struct Follower {
    settings: Settings,
    volumes: BTreeMap<VolumeId, Followed>,
    kept: Kept,
    /// Requests that nobody follows.
    pub lost: u64,
}

/// Segments of a volume of that size.
pub(super) fn segments_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(SEGMENT_BYTES)
}

/// The bins for a volume of that size, and how many bytes it may take with them.
pub(super) fn shape_for(horizon: Horizon, size_bytes: u64) -> (HeatShape, HorizonBins, usize) {
    let (shape, bins) = horizon.shape();
    let ring = Heatmap::memory_bound_bytes(shape) / (shape.max_segments() + 1);
    let ahead = usize::try_from(bins.get()).expect("16 bits");
    let row = ring + WAITING * ahead * size_of::<SegmentForecast>() + MODEL_BYTES;
    let segments = usize::try_from(segments_of(size_bytes)).unwrap_or(usize::MAX);
    // The row of the rest is one more.
    let most = (MOST_BYTES_OF_VOLUME / row - 1).min(shape.max_segments());
    let rows = segments.clamp(1, most);
    (shape.with_max_segments(rows), bins, (rows + 1) * row)
}

impl Followed {
    fn new(settings: Settings, owner: String, size_bytes: u64, kept: &Kept) -> Self {
        let (shape, _, _) = shape_for(settings.horizon, size_bytes);
        let forecaster = forecaster(settings, shape, &owner, kept);
        let heat = Heatmap::new(shape);
        let (forecast, chosen) = (None, None);
        Self { heat, forecaster, forecast, chosen, owner, touched: 0, failed: false }
    }

    /// What it may take: of a volume of as many segments as it has rows.
    fn reserved(&self, horizon: Horizon) -> usize {
        let segments = self.heat.shape().max_segments() as u64;
        shape_for(horizon, segments * SEGMENT_BYTES).2
    }

    /// Learns from closed bins and looks ahead again.
    fn look_ahead(&mut self) {
        let Self { heat, forecaster, .. } = self;
        let made = forecaster.update(heat).and_then(|()| forecaster.forecast(heat));
        match made {
            Ok(forecast) => {
                self.forecast = Some(forecast);
                self.chosen = Some(self.forecaster.chosen());
                self.failed = false;
            }
            Err(error) => {
                self.forecast = None;
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::warn!(%error, volume = self.owner, "no forecast");
                }
            }
        }
    }

    /// What the cores are told of it.
    fn to_cores(&self, volume: VolumeId, size_bytes: u64) -> Option<VolumeHeat> {
        let forecast = self.forecast.as_ref()?;
        let open = self.heat.open();
        let last = open.saturating_sub(forecast.horizon().get())..open;
        let (mut segments, mut other) = (Vec::new(), SegmentHeat::default());
        for known in forecast.segments() {
            let Some(row) = self.heat.row(known.segment) else { continue };
            let recent = single(self.heat.sum(row, last.clone()));
            let heat = SegmentHeat { expected: single(known.expected), recent };
            match u32::try_from(known.segment.get()) {
                Ok(segment) => segments.push((segment, heat)),
                Err(_) => other = heat,
            }
        }
        segments.sort_by_key(|(segment, _)| *segment);
        let others = single(segments_of(size_bytes).saturating_sub(segments.len() as u64) as f64);
        let each = |all: f32| all / others.max(1.0);
        let other = SegmentHeat { expected: each(other.expected), recent: each(other.recent) };
        Some(VolumeHeat { volume, segments, other })
    }
}

/// Requests as the cores count them.
fn single(requests: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "to the nearest number that there is")]
    let requests = requests as f32;
    requests
}

/// A forecaster that goes on from what is kept of it.
fn forecaster(
    settings: Settings,
    shape: HeatShape,
    owner: &str,
    kept: &Kept,
) -> Box<dyn Forecaster> {
    let Settings { forecaster, horizon } = settings;
    let mut made = forecaster.build(shape, horizon.shape().1, SEED);
    if let Some(weights) = kept.get(&ModelName::new(owner, horizon))
        && let Err(error) = made.resume(weights)
    {
        tracing::warn!(%error, volume = owner, "kept weights are not usable, learning anew");
    }
    made
}

impl Follower {
    /// One that follows nothing yet; `kept` is what earlier runs have learned.
    pub fn new(settings: Settings, kept: Kept) -> Self {
        Self { settings, volumes: BTreeMap::new(), kept, lost: 0 }
    }

    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Length of a bin.
    pub fn bin_ns(&self) -> u64 {
        self.settings.horizon.shape().0.bin_ns()
    }

    pub fn volume(&self, volume: VolumeId) -> Option<&Followed> {
        self.volumes.get(&volume)
    }

    /// Changes what a user may set. Counts stay where they fit the new bins.
    pub fn set(&mut self, settings: Settings) {
        if settings == self.settings {
            return;
        }
        self.learn();
        let before = std::mem::replace(&mut self.settings, settings);
        for followed in self.volumes.values_mut() {
            if settings.horizon != before.horizon {
                let segments = followed.heat.shape().max_segments() as u64;
                let (shape, ..) = shape_for(settings.horizon, segments * SEGMENT_BYTES);
                followed.heat = followed.heat.rebinned(shape);
                followed.touched = followed.heat.open();
            }
            let shape = followed.heat.shape();
            followed.forecaster = forecaster(settings, shape, &followed.owner, &self.kept);
            followed.forecast = None;
            followed.chosen = None;
        }
        let mut left = MOST_BYTES;
        self.volumes.retain(|_, followed| {
            let fits = left.checked_sub(followed.reserved(settings.horizon));
            left = fits.unwrap_or(left);
            fits.is_some()
        });
    }

    /// Counts what a core has seen of a volume of that UUID and size.
    pub fn count(&mut self, time_ns: u64, owner: &str, size_bytes: u64, seen: &SegmentCount) {
        if !self.follows(seen.volume, owner, size_bytes) {
            self.lost += u64::from(seen.reads) + u64::from(seen.writes);
            return;
        }
        let followed = self.volumes.get_mut(&seen.volume).expect("it is followed");
        for (write, requests) in [(false, seen.reads), (true, seen.writes)] {
            let segment = Segment::new(seen.segment.into());
            followed.heat.record(time_ns, segment, write, requests);
        }
        followed.touched = followed.heat.open();
    }

    /// True if the volume is followed, from now on if need be and possible.
    fn follows(&mut self, volume: VolumeId, owner: &str, size_bytes: u64) -> bool {
        let horizon = self.settings.horizon;
        let (shape, _, bytes) = shape_for(horizon, size_bytes);
        let fits = |followed: &Followed| {
            // A volume that has grown begins anew if that gives it more rows.
            followed.owner == owner && followed.heat.shape().max_segments() >= shape.max_segments()
        };
        if self.volumes.get(&volume).is_some_and(fits) {
            return true;
        }
        self.volumes.remove(&volume);
        let taken: usize = self.volumes.values().map(|other| other.reserved(horizon)).sum();
        if taken + bytes > MOST_BYTES {
            return false;
        }
        let followed = Followed::new(self.settings, owner.to_owned(), size_bytes, &self.kept);
        self.volumes.insert(volume, followed);
        true
    }

    /// Closes the bins that ended before this time; forgets idle volumes, and those that
    /// `exists` does not know.
    pub fn close(&mut self, time_ns: u64, exists: impl Fn(VolumeId) -> bool) {
        for followed in self.volumes.values_mut() {
            followed.heat.advance(time_ns);
        }
        let gone: Vec<VolumeId> = self
            .volumes
            .iter()
            .filter(|(id, followed)| !exists(**id) || followed.touched < followed.heat.oldest())
            .map(|(id, _)| *id)
            .collect();
        if !gone.is_empty() {
            self.learn();
            gone.iter().for_each(|id| drop(self.volumes.remove(id)));
        }
    }

    /// Learns and looks ahead for every volume; what the cores are to know of it.
    pub fn look_ahead(&mut self, size_of: impl Fn(VolumeId) -> u64) -> HeatForecast {
        self.volumes.values_mut().for_each(Followed::look_ahead);
        let volumes = self.volumes.iter();
        let volumes = volumes.filter_map(|(id, followed)| followed.to_cores(*id, size_of(*id)));
        let horizon_ns = u64::from(self.settings.horizon.seconds()) * 1_000_000_000;
        HeatForecast::new(horizon_ns, volumes.collect())
    }

    /// What is worth keeping of all that the forecasters have learned, of volumes that
    /// `exists` knows by UUID.
    pub fn keep(&mut self, exists: impl Fn(&str) -> bool) -> &Kept {
        self.learn();
        self.kept.retain(|model, _| exists(model.owner()));
        &self.kept
    }

    fn learn(&mut self) {
        for followed in self.volumes.values() {
            match followed.forecaster.learned() {
                Ok(Some(weights)) => {
                    let model = ModelName::new(&followed.owner, self.settings.horizon);
                    self.kept.insert(model, weights);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "what was learned is not kept"),
            }
        }
    }
}
