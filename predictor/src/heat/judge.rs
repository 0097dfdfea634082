//! How good forecasts are: pinball loss, ranking, prequential evaluation.
//!
//! Pinball loss (Koenker and Bassett, 1978) is least in expectation for the true
//! quantile; it is in requests per segment and horizon, so busy segments weigh
//! most. Recall says how many of the segments that were truly among the busiest
//! tenth the forecast had there: what tiering lives on. Evaluation is strictly
//! prequential (Dawid, 1984): a forecast is compared with bins that close after
//! it was made, and a forecaster sees a bin only when it is closed.
//!
//! The row of the rest is not judged. A segment that appears after the forecast
//! counts as forecast to be idle.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::pending::Pending;
use super::{Forecast, ForecastError, Forecaster, HeatShape, Heatmap, LEVELS, Segment};

/// Requests of one segment at a time: what an evaluation is fed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Nanoseconds from an arbitrary start; midnight where days matter.
    pub time_ns: u64,
    /// Where.
    pub segment: Segment,
    /// Reads or writes.
    pub write: bool,
    /// How many.
    pub requests: u32,
}

/// What an evaluation found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Forecasts that were compared.
    pub rounds: u32,
    /// Mean pinball loss of a segment's quantiles, in requests per horizon.
    pub pinball: f64,
    /// Mean recall over the rounds that had requests, 0 to 1.
    pub recall: f64,
    /// Mean requests of a segment per horizon.
    pub requests: f64,
}

/// Mean pinball loss of the quantiles [`LEVELS`] for one outcome.
pub fn pinball(quantiles: &[f64; LEVELS.len()], actual: f64) -> f64 {
    let losses = LEVELS.iter().zip(quantiles).map(|(tau, quantile)| {
        let short = actual - quantile;
        if short >= 0.0 { tau * short } else { (tau - 1.0) * short }
    });
    losses.sum::<f64>() / LEVELS.len() as f64
}

/// Of the busiest tenth by `actual`, the share that is in the busiest tenth by
/// `expected`; idle segments are never busy. `None` if all were idle. Ties go to
/// the first.
pub fn recall(expected: &[f64], actual: &[f64]) -> Option<f64> {
    assert_eq!(expected.len(), actual.len());
    let tenth = actual.len().div_ceil(10);
    let busiest = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        order.truncate(tenth);
        order
    };
    let mut truly = busiest(actual);
    truly.retain(|row| actual[*row] > 0.0);
    let foreseen = busiest(expected);
    let found = truly.iter().filter(|row| foreseen.contains(row)).count();
    (!truly.is_empty()).then(|| found as f64 / truly.len() as f64)
}

/// One forecast against what came, once its bins are closed.
pub(super) fn compare(forecast: &Forecast, heat: &Heatmap) -> (Scores, bool) {
    let foreseen: HashMap<_, _> = forecast.segments().iter().map(|s| (s.segment, s)).collect();
    let rows = 1..heat.rows();
    let actual: Vec<f64> = rows.clone().map(|row| heat.sum(row, forecast.bins())).collect();
    let row = |row| foreseen.get(&heat.segment(row));
    let expected: Vec<f64> = rows.clone().map(|r| row(r).map_or(0.0, |s| s.expected)).collect();
    let losses = rows.zip(&actual).map(|(r, actual)| {
        let quantiles = row(r).map_or([0.0; LEVELS.len()], |s| s.quantiles);
        pinball(&quantiles, *actual)
    });
    let count = actual.len().max(1) as f64;
    let recall = recall(&expected, &actual);
    let scores = Scores {
        rounds: 1,
        pinball: losses.sum::<f64>() / count,
        recall: recall.unwrap_or(0.0),
        requests: actual.iter().sum::<f64>() / count,
    };
    (scores, recall.is_some())
}

/// Judges a forecaster on arrivals in the order of time: it learns from each bin
/// that closes and forecasts every `stride_bins`, first after `warm_up_bins`,
/// which are not judged. A leap in time beyond the ring is not stepped through.
///
/// # Errors
/// If the forecaster fails.
pub fn evaluate(
    arrivals: impl IntoIterator<Item = Arrival>,
    shape: HeatShape,
    forecaster: &mut dyn Forecaster,
    warm_up_bins: u64,
    stride_bins: u64,
) -> Result<Scores, ForecastError> {
    let mut heat = Heatmap::new(shape);
    let mut bench = Bench { pending: Pending::new(), sums: Scores::default(), busy: 0 };
    let mut first = None;
    for arrival in arrivals {
        let bin = arrival.time_ns / shape.bin_ns();
        let first = *first.get_or_insert(bin);
        let known = if bin > first { heat.open() } else { bin };
        for open in bin.saturating_sub(shape.ring_bins()).max(known + 1)..=bin {
            heat.advance(open.saturating_mul(shape.bin_ns()));
            bench.settle(&heat);
            forecaster.update(&heat)?;
            if open - first >= warm_up_bins && (open - first).is_multiple_of(stride_bins.max(1)) {
                bench.pending.push(forecaster.forecast(&heat)?, ());
            }
        }
        heat.record(arrival.time_ns, arrival.segment, arrival.write, arrival.requests);
    }
    Ok(bench.scores())
}

struct Bench {
    pending: Pending<()>,
    sums: Scores,
    /// Rounds that had requests.
    busy: u32,
}

impl Bench {
    fn settle(&mut self, heat: &Heatmap) {
        while let Some((forecast, ())) = self.pending.pop_due(heat) {
            let (scores, busy) = compare(&forecast, heat);
            self.sums.rounds += 1;
            self.sums.pinball += scores.pinball;
            self.sums.recall += scores.recall;
            self.sums.requests += scores.requests;
            self.busy += u32::from(busy);
        }
    }

    fn scores(&self) -> Scores {
        let rounds = f64::from(self.sums.rounds.max(1));
        Scores {
            rounds: self.sums.rounds,
            pinball: self.sums.pinball / rounds,
            recall: self.sums.recall / f64::from(self.busy.max(1)),
            requests: self.sums.requests / rounds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heat::{Calibrated, SeasonalNaive};

    #[test]
    fn pinball_is_asymmetric() {
        // 0.1·10, 0.5·5 and (1 − 0.9)·10, by three.
        assert!((pinball(&[0.0, 5.0, 20.0], 10.0) - (1.0 + 2.5 + 1.0) / 3.0).abs() < 1e-12);
        assert_eq!(pinball(&[3.0; 3], 3.0), 0.0);
    }

    #[test]
    fn recall_is_of_the_busiest_tenth() {
        let mut actual = vec![0.0; 20];
        (actual[3], actual[9]) = (5.0, 7.0);
        let mut expected = vec![0.1; 20];
        (expected[3], expected[4]) = (1.0, 2.0);
        assert_eq!(recall(&expected, &actual), Some(0.5));
        assert_eq!(recall(&actual, &actual), Some(1.0));
        assert_eq!(recall(&expected, &[0.0; 20]), None);
        assert_eq!(recall(&[], &[]), None);
    }

    #[test]
    fn a_forecast_is_judged_on_later_bins_only() {
        let (shape, horizon) = HeatShape::five_minutes();
        // Twice as many every horizon: the naive forecast is always half the truth.
        let arrivals = (0..60_u64).map(|bin| Arrival {
            time_ns: bin * shape.bin_ns(),
            segment: Segment::new(1),
            write: false,
            requests: 1 << (bin / horizon.get()),
        });
        let mut naive = Calibrated::new(SeasonalNaive::new(None), horizon);
        let scores = evaluate(arrivals, shape, &mut naive, 10, 10).unwrap();
        assert_eq!((scores.rounds, scores.recall), (4, 1.0));
        assert_eq!(scores.requests, 10.0 * f64::from(2 + 4 + 8 + 16) / 4.0);
        assert!(scores.pinball > 0.0);
    }

    #[test]
    fn leaps_in_time_and_no_arrivals_are_survived() {
        let (shape, horizon) = HeatShape::five_minutes();
        let mut naive = Calibrated::new(SeasonalNaive::new(None), horizon);
        let arrival = Arrival { time_ns: 0, segment: Segment::new(1), write: false, requests: 1 };
        let far = Arrival { time_ns: u64::MAX, ..arrival };
        let scores = evaluate([arrival, far, arrival], shape, &mut naive, 0, 1).unwrap();
        assert!(scores.rounds > 0 && scores.pinball.is_finite());
        let none = evaluate([], shape, &mut naive, 0, 1).unwrap();
        assert_eq!(none, Scores::default());
    }
}
