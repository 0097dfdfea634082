//! Exponentially weighted mean: the rate of late is the rate to come.
//!
//! Brown, *Statistical Forecasting for Inventory Control* (1959); Hyndman and
//! Athanasopoulos, *Forecasting: Principles and Practice*, 3rd ed., section 8.1.
//! The start is corrected as in Kingma and Ba (2015): the weights given are
//! divided out, so that a constant is its own mean from the first bin on.
//!
//! It knows neither trend nor season.
#![forbid(unsafe_code)]

use super::point::PointModel;
use super::rows::Rows;
use super::{ForecasterKind, Heatmap, HorizonBins};

/// The weighted mean of each row.
#[derive(Clone, Debug)]
pub struct Ewma {
    keep: f64,
    /// Sum of the weights so far: the same for all rows, for a row was idle
    /// before its first request.
    weight: f64,
    means: Rows<f64>,
}

impl Ewma {
    /// A mean in which a bin's weight halves every `half_life_bins`, at least
    /// one.
    pub fn new(half_life_bins: f64) -> Self {
        Self { keep: 0.5_f64.powf(1.0 / half_life_bins.max(1.0)), weight: 0.0, means: Rows::new() }
    }
}

impl PointModel for Ewma {
    fn kind(&self) -> ForecasterKind {
        ForecasterKind::Ewma
    }

    fn update(&mut self, heat: &Heatmap, bin: u64) {
        self.weight = self.keep * self.weight + (1.0 - self.keep);
        for row in 0..heat.rows() {
            let mean = self.means.state(heat, row);
            *mean = self.keep * *mean + (1.0 - self.keep) * heat.total(row, bin);
        }
    }

    fn expect(&mut self, heat: &Heatmap, row: usize, horizon: HorizonBins) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        horizon.as_f64() * *self.means.state(heat, row) / self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties::{expected, feed};
    use super::*;

    #[test]
    fn a_constant_is_its_own_mean() {
        for bins in [1, 2, 30] {
            let (heat, mut model) = feed(&vec![7; bins], 1, Ewma::new(4.0));
            assert!((expected(&heat, &mut model, 3) - 21.0).abs() < 1e-9);
        }
    }

    #[test]
    fn weights_halve_at_the_half_life() {
        // Weights of 8 then 0 with half-life 1: 1/4 and 1/2, of 3/4 given.
        let (heat, mut model) = feed(&[8, 0], 1, Ewma::new(1.0));
        assert!((expected(&heat, &mut model, 1) - 8.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_seen_expects_nothing() {
        let (heat, mut model) = feed(&[], 1, Ewma::new(1.0));
        assert_eq!(expected(&heat, &mut model, 1), 0.0);
    }
}
