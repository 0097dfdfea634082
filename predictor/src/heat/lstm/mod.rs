//! The recurrent forecaster: one network for all segments of a volume.
//!
//! Hochreiter and Schmidhuber (1997); a global model with quantile heads as in
//! Wen et al., *A Multi-Horizon Quantile Recurrent Forecaster* (2017), for one
//! horizon. It reads log rates, the hour and yesterday's count, is trained
//! online on bins that are closed, with a fixed number of optimiser steps a
//! round, and says how far the horizon will be from a weighted mean. Equal seeds
//! and inputs give equal forecasts.
//!
//! It runs on candle in training and use alike, for it lives on a background
//! thread: see [`crate::init`]. It knows nothing of which segments are
//! neighbours.
#![forbid(unsafe_code)]

mod features;
mod network;

use features::{STEPS, Sample};
pub use network::LstmWeights;
use network::{Batch, Network};

use super::{Forecast, ForecastError, Forecaster, ForecasterKind, Heatmap, HorizonBins};
use crate::random::Random;

/// Samples of an optimiser step.
const ROWS: usize = 64;
/// Optimiser steps of a round, unless set otherwise.
const STEPS_PER_ROUND: u32 = 12;
/// Rows evaluated at once: bounds the memory of a forecast.
const CHUNK: usize = 512;

/// The network, and what it needs to go on learning.
pub struct Lstm {
    horizon: HorizonBins,
    steps_per_round: u32,
    random: Random,
    network: Option<Network>,
    /// The open bin at the last round.
    trained_at: u64,
    /// The network has learned something, now or before it was resumed.
    trained: bool,
}

impl Lstm {
    /// An untrained forecaster with the usual budget.
    pub fn new(horizon: HorizonBins, seed: u64) -> Self {
        Self::with_budget(horizon, seed, STEPS_PER_ROUND)
    }

    /// An untrained forecaster that makes so many optimiser steps, each on 64
    /// samples, twice in a horizon.
    pub fn with_budget(horizon: HorizonBins, seed: u64, steps_per_round: u32) -> Self {
        let random = Random::new(seed);
        Self { horizon, steps_per_round, random, network: None, trained_at: 0, trained: false }
    }

    fn batch(&self, heat: &Heatmap, samples: &[Sample]) -> Batch {
        let mut batch = Batch { rows: samples.len(), ..Batch::default() };
        for sample in samples {
            sample.extend(heat, self.horizon, &mut batch.inputs);
            batch.bases.push(sample.base(heat, self.horizon));
        }
        batch
    }

    /// Samples whose horizon is closed: one in four from the newest quarter of the
    /// bins, the others from all. Idle ones are drawn again, three times at most,
    /// for most are idle and teach the same.
    fn draw(&mut self, heat: &Heatmap) -> Vec<Sample> {
        let end = heat.open() - self.horizon.get() + 1;
        let start = heat.oldest() + STEPS;
        let newest = end - (end - start).div_ceil(4);
        let rows = heat.rows() as u64;
        let mut samples = Vec::with_capacity(ROWS);
        for _ in 0..ROWS {
            let start = if self.random.below(4) == 0 { newest } else { start };
            let mut draw = || {
                let at = start + self.random.below(end - start);
                let row = self.random.below(rows);
                Sample { row: usize::try_from(row).expect("below a usize"), at }
            };
            let mut sample = draw();
            for _ in 0..3 {
                if !sample.is_active(heat) {
                    sample = draw();
                }
            }
            samples.push(sample);
        }
        samples
    }

    fn round(&mut self, heat: &Heatmap) -> Result<(), ForecastError> {
        for _ in 0..self.steps_per_round {
            let samples = self.draw(heat);
            let batch = self.batch(heat, &samples);
            let targets = samples.iter().map(|sample| sample.target(heat, self.horizon));
            let targets: Vec<f64> = targets.collect();
            let network = match &mut self.network {
                Some(network) => network,
                None => self.network.insert(Network::new(&mut self.random)?),
            };
            self.trained = network.train(&batch, &targets)?.is_finite();
            if !self.trained {
                // Beyond all numbers: begin anew rather than forecast nonsense.
                self.network = None;
            }
        }
        Ok(())
    }
}

impl Forecaster for Lstm {
    fn kind(&self) -> ForecasterKind {
        ForecasterKind::Lstm
    }

    fn learned(&self) -> Result<Option<LstmWeights>, ForecastError> {
        // Before the first round there is nothing that a new one would not have.
        let network = self.network.as_ref().filter(|_| self.trained);
        Ok(network.map(Network::weights).transpose()?.flatten())
    }

    fn resume(&mut self, weights: &LstmWeights) -> Result<(), ForecastError> {
        self.network = Some(Network::resume(weights)?);
        self.trained = true;
        Ok(())
    }

    fn update(&mut self, heat: &Heatmap) -> Result<(), ForecastError> {
        let fresh = heat.open().saturating_sub(self.trained_at);
        let enough = heat.closed_bins() >= STEPS + self.horizon.get();
        if enough && 2 * fresh >= self.horizon.get() {
            self.trained_at = heat.open();
            self.round(heat)?;
        }
        Ok(())
    }

    fn forecast(&mut self, heat: &Heatmap) -> Result<Forecast, ForecastError> {
        if self.network.is_none() {
            self.network = Some(Network::new(&mut self.random)?);
        }
        let network = self.network.as_ref().expect("just made");
        let all: Vec<usize> = (0..heat.rows()).collect();
        let mut said = Vec::with_capacity(all.len());
        for rows in all.chunks(CHUNK) {
            let samples = rows.iter().map(|row| Sample { row: *row, at: heat.open() });
            let batch = self.batch(heat, &samples.collect::<Vec<_>>());
            said.extend(network.predict(&batch)?);
        }
        Ok(Forecast::new(heat, self.horizon, said.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heat::{Arrival, Calibrated, HeatShape, Scores, SeasonalNaive, Segment, evaluate};

    /// Five segments that are busy in turn, three bins each, with noise.
    fn turns(bins: u64, bin_ns: u64) -> Vec<Arrival> {
        let mut random = Random::new(5);
        let busy = |bin: u64, segment: u64| bin / 3 % 5 == segment;
        let mut arrivals = Vec::new();
        for bin in 0..bins {
            for segment in 0..5 {
                let mean = if busy(bin, segment) { 60.0 } else { 2.0 };
                let requests = random.poisson(mean);
                let (time_ns, segment) = (bin * bin_ns, Segment::new(segment));
                arrivals.push(Arrival { time_ns, segment, write: false, requests });
            }
        }
        arrivals
    }

    /// The last 60 of so many bins.
    fn judge(forecaster: &mut dyn Forecaster, bins: u64) -> Scores {
        let shape = HeatShape::new(30, 200, 16).unwrap();
        evaluate(turns(bins, shape.bin_ns()), shape, forecaster, bins - 60, 1).unwrap()
    }

    #[test]
    fn it_beats_the_naive_forecast_of_turns_and_is_repeatable() {
        let shape = HeatShape::new(30, 200, 16).unwrap();
        let horizon = shape.horizon(3).unwrap();
        let naive = judge(&mut Calibrated::new(SeasonalNaive::new(None), horizon), 160);
        let learned = judge(&mut Lstm::new(horizon, 1), 160);
        assert!(learned.pinball < 0.7 * naive.pinball, "{learned:?} {naive:?}");
        assert!(learned.recall > naive.recall + 0.2, "{learned:?} {naive:?}");
        let short = |seed| judge(&mut Lstm::with_budget(horizon, seed, 3), 80);
        assert_eq!(short(1), short(1));
        assert_ne!(short(1), short(2));
    }

    #[test]
    fn one_that_resumes_says_the_same() {
        let shape = HeatShape::new(30, 200, 16).unwrap();
        let horizon = shape.horizon(3).unwrap();
        let mut taught = Lstm::new(horizon, 1);
        assert_eq!(taught.learned().unwrap(), None, "nothing learned yet");
        let mut heat = Heatmap::new(shape);
        for arrival in turns(80, shape.bin_ns()) {
            heat.record(arrival.time_ns, arrival.segment, arrival.write, arrival.requests);
            taught.update(&heat).unwrap();
        }
        let weights = taught.learned().unwrap().expect("it has learned");
        let mut resumed = Lstm::new(horizon, 2);
        assert_ne!(resumed.forecast(&heat).unwrap(), taught.forecast(&heat).unwrap());
        resumed.resume(&weights).unwrap();
        assert_eq!(resumed.forecast(&heat).unwrap(), taught.forecast(&heat).unwrap());
        assert_eq!(resumed.learned().unwrap(), Some(weights));
    }
}
