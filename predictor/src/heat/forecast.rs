//! What a forecast says, and what every forecaster does.
//!
//! A [`Forecast`] is made when a bin opens, for that bin and those after it up
//! to the horizon. It speaks of requests over the whole horizon.
//!
//! Invariants, whatever a model computes: every number is finite and at least
//! 0, quantiles ascend, probabilities sum to 1. They are established once, in
//! [`Forecast::new`]. It does not say when within the horizon requests come.
#![forbid(unsafe_code)]

use super::{ForecasterKind, Heatmap, HorizonBins, LstmWeights, Segment};

/// Which quantiles a forecast gives.
pub const LEVELS: [f64; 3] = [0.1, 0.5, 0.9];
/// More requests than any horizon has; larger sums would lose their meaning.
const MOST: f64 = 1e15;

/// Why a forecaster failed: candle reports what should not occur with sound input.
#[derive(Debug, thiserror::Error)]
pub enum ForecastError {
    /// A tensor operation failed.
    #[error("the heat forecast failed: {0}")]
    Candle(#[from] candle_core::Error),
}

/// A model of the future heat of one volume, for one horizon.
pub trait Forecaster: Send {
    /// Which model it is.
    fn kind(&self) -> ForecasterKind;

    /// Learns from the bins that closed since the last call. Call it for each
    /// closed bin: bins that left the ring meanwhile are lost to it.
    ///
    /// # Errors
    /// If the model cannot be trained; what it knew stays usable.
    fn update(&mut self, heat: &Heatmap) -> Result<(), ForecastError>;

    /// What is expected of each row over the horizon, from the open bin on.
    ///
    /// # Errors
    /// If the model cannot be evaluated.
    fn forecast(&mut self, heat: &Heatmap) -> Result<Forecast, ForecastError>;

    /// Which model answers now: itself, unless it chooses among others.
    fn chosen(&self) -> ForecasterKind {
        self.kind()
    }

    /// What outlives the process: the network's weights, once it has learned.
    /// The classic models keep nothing; they read the heatmap.
    ///
    /// # Errors
    /// If the weights cannot be read.
    fn learned(&self) -> Result<Option<LstmWeights>, ForecastError> {
        Ok(None)
    }

    /// Goes on from weights that [`Forecaster::learned`] gave.
    ///
    /// # Errors
    /// If the weights cannot be used; nothing has changed then.
    fn resume(&mut self, _weights: &LstmWeights) -> Result<(), ForecastError> {
        Ok(())
    }
}

/// What is expected of one segment over the horizon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentForecast {
    /// The segment, or [`Segment::REST`].
    pub segment: Segment,
    /// Expected requests.
    pub expected: f64,
    /// Requests that are not exceeded with the probabilities [`LEVELS`].
    pub quantiles: [f64; LEVELS.len()],
}

/// What is expected of a volume over the horizon.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    made_at: u64,
    horizon: HorizonBins,
    bin_ns: u64,
    segments: Vec<SegmentForecast>,
}

impl Forecast {
    /// A forecast from what a model computed for each row in turn.
    pub(super) fn new(
        heat: &Heatmap,
        horizon: HorizonBins,
        rows: impl Iterator<Item = (f64, [f64; LEVELS.len()])>,
    ) -> Self {
        let segments = rows.enumerate().map(|(row, (expected, quantiles))| {
            let mut quantiles = quantiles.map(sane);
            quantiles.sort_by(f64::total_cmp);
            SegmentForecast { segment: heat.segment(row), expected: sane(expected), quantiles }
        });
        let segments: Vec<_> = segments.collect();
        assert_eq!(segments.len(), heat.rows(), "a forecast speaks of every row");
        Self { made_at: heat.open(), horizon, bin_ns: heat.shape().bin_ns(), segments }
    }

    /// The first bin it speaks of.
    pub fn made_at(&self) -> u64 {
        self.made_at
    }
    /// Bins that it speaks of.
    pub fn horizon(&self) -> HorizonBins {
        self.horizon
    }
    /// The bins that it speaks of.
    pub fn bins(&self) -> std::ops::Range<u64> {
        self.made_at..self.made_at.saturating_add(self.horizon.get())
    }
    /// The rows of the heatmap in their order; the first is the rest.
    pub fn segments(&self) -> &[SegmentForecast] {
        &self.segments
    }

    /// Expected requests per second of each segment.
    pub fn rates_per_s(&self) -> impl Iterator<Item = (Segment, f64)> {
        let horizon_s = self.horizon.as_f64() * self.bin_ns as f64 / 1e9;
        self.segments.iter().map(move |s| (s.segment, s.expected / horizon_s))
    }

    /// How likely the next request goes to each segment. The rest shares one
    /// probability. Where nothing is expected at all, all are equal.
    pub fn probabilities(&self) -> impl Iterator<Item = (Segment, f64)> {
        let total: f64 = self.segments.iter().map(|s| s.expected).sum();
        let equal = 1.0 / self.segments.len() as f64;
        // Below the smallest normal number a division loses its digits.
        let probability = move |expected: f64| {
            if total < f64::MIN_POSITIVE { equal } else { expected / total }
        };
        self.segments.iter().map(move |s| (s.segment, probability(s.expected)))
    }
}

/// A number that may be shown: models may diverge, forecasts may not.
pub(super) fn sane(requests: f64) -> f64 {
    if requests.is_nan() { 0.0 } else { requests.clamp(0.0, MOST) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heat::HeatShape;

    #[test]
    fn nonsense_is_made_sound() {
        let (shape, horizon) = HeatShape::five_minutes();
        let mut heat = Heatmap::new(shape);
        heat.record(0, Segment::new(3), false, 1);
        let rows = [(f64::NAN, [5.0, f64::NEG_INFINITY, 1.0]), (f64::INFINITY, [f64::NAN; 3])];
        let forecast = Forecast::new(&heat, horizon, rows.into_iter());
        assert_eq!(forecast.segments()[0].quantiles, [0.0, 1.0, 5.0]);
        assert_eq!(forecast.segments()[1].expected, MOST);
        let probabilities: Vec<_> = forecast.probabilities().collect();
        assert_eq!(probabilities, [(Segment::REST, 0.0), (Segment::new(3), 1.0)]);
    }

    #[test]
    fn rates_are_per_second_and_nothing_expected_is_uniform() {
        let (shape, horizon) = HeatShape::five_minutes();
        let mut heat = Heatmap::new(shape);
        heat.record(0, Segment::new(3), false, 1);
        let forecast = Forecast::new(&heat, horizon, [(0.0, [0.0; 3]); 2].into_iter());
        assert!(forecast.probabilities().all(|(_, p)| p == 0.5));
        let forecast = Forecast::new(&heat, horizon, [(600.0, [0.0; 3]); 2].into_iter());
        assert!(forecast.rates_per_s().all(|(_, rate)| rate == 2.0));
    }
}
