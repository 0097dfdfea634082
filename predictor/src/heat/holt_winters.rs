//! Holt–Winters: level, damped trend, and an additive season of a day.
//!
//! Hyndman and Athanasopoulos, *Forecasting: Principles and Practice*, 3rd ed.,
//! sections 8.2 (damped trend) and 8.3 (additive season); Gardner and McKenzie
//! (1985). Two whole seasons start the seasonal form, by their means and
//! deviations, exact for a straight line with a season. Before that, and without
//! a season, it is Holt's method with a damped trend.
//!
//! The smoothing constants are set, not fitted per row: a few hundred bins of a
//! bursty segment do not determine four of them.
#![forbid(unsafe_code)]

use super::point::PointModel;
use super::rows::Rows;
use super::{ForecasterKind, Heatmap, HorizonBins};

/// How fast each part follows, from 0, never, to 1, at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Smoothing {
    /// Of the level.
    pub level: f64,
    /// Of the trend.
    pub trend: f64,
    /// Of the season.
    pub season: f64,
    /// What is left of the trend after a bin; 1 does not damp.
    pub damping: f64,
}

impl Smoothing {
    /// The level's memory halves in half a horizon, the other parts are slow and
    /// the trend soon ends: of bursts it knows nothing.
    pub fn for_horizon(horizon: HorizonBins) -> Self {
        let level = 1.0 - 0.5_f64.powf(2.0 / horizon.as_f64());
        Self { level, trend: 0.05, season: 0.2, damping: 0.9 }
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    started: bool,
    level: f64,
    trend: f64,
    /// By bin modulo the season; empty while there is none.
    season: Vec<f64>,
}

/// The state of each row.
#[derive(Clone, Debug)]
pub struct HoltWinters {
    smoothing: Smoothing,
    season_bins: Option<usize>,
    states: Rows<State>,
}

impl HoltWinters {
    /// With a season of that many bins, if there is one.
    pub fn new(smoothing: Smoothing, season_bins: Option<u64>) -> Self {
        let season_bins = season_bins.filter(|bins| (2..=1 << 16).contains(bins));
        let season_bins = season_bins.map(|bins| usize::try_from(bins).expect("at most 65536"));
        Self { smoothing, season_bins, states: Rows::new() }
    }
}

impl PointModel for HoltWinters {
    fn kind(&self) -> ForecasterKind {
        ForecasterKind::HoltWinters
    }

    fn update(&mut self, heat: &Heatmap, bin: u64) {
        let known = bin + 1 - heat.oldest();
        let season = self.season_bins.filter(|bins| 2 * *bins as u64 <= known);
        for row in 0..heat.rows() {
            let state = self.states.state(heat, row);
            match season {
                Some(bins) if state.season.is_empty() => *state = seasonal(heat, row, bin, bins),
                _ => state.step(self.smoothing, bin, heat.total(row, bin), known == 1),
            }
        }
    }

    fn expect(&mut self, heat: &Heatmap, row: usize, horizon: HorizonBins) -> f64 {
        let damping = self.smoothing.damping;
        let state = self.states.state(heat, row);
        let (mut rise, mut factor, mut sum) = (0.0, 1.0, 0.0);
        for bin in heat.open()..heat.open().saturating_add(horizon.get()) {
            factor *= damping;
            rise += factor * state.trend;
            // No bin has fewer than no requests.
            sum += (state.level + rise + state.season_of(bin)).max(0.0);
        }
        sum
    }
}

impl State {
    fn season_of(&self, bin: u64) -> f64 {
        if self.season.is_empty() { 0.0 } else { self.season[slot(bin, self.season.len())] }
    }

    fn step(&mut self, smoothing: Smoothing, bin: u64, requests: f64, first: bool) {
        if !self.started {
            // A row that came later was idle before, so its level starts at 0.
            self.started = true;
            self.level = if first { requests } else { 0.0 };
        }
        let before = self.level + smoothing.damping * self.trend;
        let season = self.season_of(bin);
        let level = before + smoothing.level * (requests - season - before);
        let rise = level - self.level;
        let damped = smoothing.damping * self.trend;
        self.trend = damped + smoothing.trend * (rise - damped);
        self.level = level;
        if !self.season.is_empty() {
            let length = self.season.len();
            self.season[slot(bin, length)] += smoothing.season * (requests - before - season);
        }
    }
}

/// The state after `bin` from the two seasons that end with it: the rise is that
/// between their means, the season what is left on average.
fn seasonal(heat: &Heatmap, row: usize, bin: u64, bins: usize) -> State {
    let length = bins as f64;
    let middle = bin + 1 - bins as u64;
    let start = middle - bins as u64;
    let (first, second) = (heat.sum(row, start..middle), heat.sum(row, middle..bin + 1));
    let trend = (second - first) / (length * length);
    // The mean of a straight line is its value half a season, less half a bin, ago.
    let level = second / length + trend * (length - 1.0) / 2.0;
    let mut season = vec![0.0; bins];
    for past in start..=bin {
        let line = level - trend * (bin - past) as f64;
        season[slot(past, bins)] += (heat.total(row, past) - line) / 2.0;
    }
    State { started: true, level, trend, season }
}

fn slot(bin: u64, length: usize) -> usize {
    usize::try_from(bin % length as u64).expect("below the season's length")
}

#[cfg(test)]
mod tests {
    use super::super::properties::{expected, feed};
    use super::*;
    use crate::heat::Ewma;

    const EXACT: Smoothing = Smoothing { level: 0.3, trend: 0.1, season: 0.2, damping: 1.0 };

    #[test]
    fn a_line_with_a_season_is_continued_exactly() {
        let season = [40, 10, 0, 25, 5];
        let series: Vec<u32> = (0..33).map(|i| 3 * i + season[i as usize % 5]).collect();
        for bins in [10, 13, 28] {
            let model = HoltWinters::new(EXACT, Some(5));
            let (heat, mut model) = feed(&series[..bins], 1, model);
            let truth: u32 = series[bins..bins + 4].iter().sum();
            assert!((expected(&heat, &mut model, 4) - f64::from(truth)).abs() < 1e-6, "{bins}");
        }
    }

    #[test]
    fn a_trend_is_damped() {
        let mut model = HoltWinters::new(Smoothing { damping: 0.5, ..EXACT }, None);
        let (heat, _) = feed(&[1], 1, Ewma::new(1.0));
        let state = model.states.state(&heat, 1);
        (state.level, state.trend) = (10.0, 8.0);
        // 10 + 8/2, and 8/4 more a bin later.
        assert_eq!(expected(&heat, &mut model, 2), 14.0 + 16.0);
    }

    #[test]
    fn without_a_season_a_constant_stays() {
        let (heat, mut model) = feed(&[6; 20], 1, HoltWinters::new(EXACT, None));
        assert!((expected(&heat, &mut model, 3) - 18.0).abs() < 1e-9);
    }
}
