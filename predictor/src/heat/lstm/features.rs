//! What the network reads of a row before a bin.
//!
//! A [`Sample`] is the newest [`STEPS`] bins before `at`, one step each, and the
//! base: what a weighted mean of these bins would expect of the horizon. The
//! network says how far the truth is from the base, so that untrained it is a
//! weighted mean, and quiet and busy rows look alike to it.
//!
//! All of a sample lies before `at`: what comes after is [`Sample::target`] only,
//! and asked for in training alone.
#![forbid(unsafe_code)]

use std::f64::consts::TAU;

use crate::heat::{Heatmap, HorizonBins};

/// Bins that are read.
pub(super) const STEPS: u64 = 16;
/// Numbers in a step.
pub(super) const FEATURES: usize = 8;
/// Bins of the slow mean.
const SLOW: u64 = 8 * STEPS;

/// A row before a bin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub row: usize,
    pub at: u64,
}

impl Sample {
    /// Requests over the horizon from `at` on.
    pub fn target(self, heat: &Heatmap, horizon: HorizonBins) -> f64 {
        heat.sum(self.row, self.at..self.at.saturating_add(horizon.get()))
    }

    /// Whether the row had requests in the bins that are read.
    pub fn is_active(self, heat: &Heatmap) -> bool {
        heat.sum(self.row, self.at.saturating_sub(STEPS)..self.at) > 0.0
    }

    /// Requests over the horizon that a weighted mean expects; a bin's weight
    /// halves every half horizon.
    pub fn base(self, heat: &Heatmap, horizon: HorizonBins) -> f64 {
        let keep = 0.5_f64.powf(2.0 / horizon.as_f64());
        let (mut sum, mut weight) = (0.0, 0.0);
        for bin in self.at.saturating_sub(STEPS).max(heat.oldest())..self.at {
            sum = keep * sum + heat.total(self.row, bin);
            weight = keep * weight + 1.0;
        }
        if weight > 0.0 { horizon.as_f64() * sum / weight } else { 0.0 }
    }

    /// Appends the steps: [`STEPS`] times [`FEATURES`] numbers of about ±1.
    pub fn extend(self, heat: &Heatmap, horizon: HorizonBins, out: &mut Vec<f64>) {
        let scaled = |requests: f64| requests.ln_1p() / 5.0;
        let start = self.at.saturating_sub(SLOW).max(heat.oldest());
        let known = (self.at - start).max(1) as f64;
        let slow = scaled(horizon.as_f64() * heat.sum(self.row, start..self.at) / known);
        let (yesterday, has_yesterday) = self.yesterday(heat, horizon);
        // Bins before the time began read as idle ones.
        for back in (1..=STEPS).rev() {
            let bin = self.at.checked_sub(back);
            let phase = TAU * heat.shape().day_phase(bin.unwrap_or(0));
            out.extend([
                1.0,
                scaled(bin.map_or(0.0, |bin| heat.total(self.row, bin))),
                scaled(bin.map_or(0.0, |bin| heat.volume_total(bin))) / 2.0,
                phase.sin(),
                phase.cos(),
                slow,
                scaled(yesterday),
                f64::from(u8::from(has_yesterday)),
            ]);
        }
    }

    /// Requests over the same horizon a day before, where that is kept.
    fn yesterday(self, heat: &Heatmap, horizon: HorizonBins) -> (f64, bool) {
        let start = heat.shape().day_bins().and_then(|day| self.at.checked_sub(day));
        match start {
            Some(start) if start >= heat.oldest() && start + horizon.get() <= self.at => {
                (heat.sum(self.row, start..start + horizon.get()), true)
            }
            _ => (0.0, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heat::properties::feed;
    use crate::heat::{Ewma, HeatShape};

    #[test]
    fn the_future_is_not_read() {
        let past: Vec<u32> = (0..60).map(|i| i * 7 % 11).collect();
        let mut future = past.clone();
        future.extend([1000; 20]);
        let (_, horizon) = HeatShape::five_minutes();
        let (heat, _) = feed(&past, 30, Ewma::new(1.0));
        let (later, _) = feed(&future, 30, Ewma::new(1.0));
        let sample = Sample { row: 1, at: 60 };
        let read = |heat: &Heatmap| {
            let mut out = Vec::new();
            sample.extend(heat, horizon, &mut out);
            out.push(sample.base(heat, horizon));
            out
        };
        assert_eq!(read(&heat), read(&later));
        assert_eq!(sample.target(&later, horizon), 10_000.0);
        assert_eq!(read(&heat).len() as u64, STEPS * FEATURES as u64 + 1);
    }

    #[test]
    fn the_base_of_a_constant_is_the_constant() {
        let (heat, _) = feed(&[4; 30], 30, Ewma::new(1.0));
        let (_, horizon) = HeatShape::five_minutes();
        let base = |at| Sample { row: 1, at }.base(&heat, horizon);
        assert!((base(30) - 40.0).abs() < 1e-9 && (base(3) - 40.0).abs() < 1e-9);
        assert_eq!(base(0), 0.0);
    }
}
