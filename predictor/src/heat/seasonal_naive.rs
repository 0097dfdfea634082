//! Seasonal naive: the horizon gets what it got a day ago.
//!
//! Hyndman and Athanasopoulos, *Forecasting: Principles and Practice*, 3rd ed.,
//! section 5.2: the benchmark that others must beat. While less than a day is
//! kept it is the plain naive forecast: what the last horizon got.
#![forbid(unsafe_code)]

use super::point::PointModel;
use super::{ForecasterKind, Heatmap, HorizonBins};

/// Reads the heatmap alone; it remembers nothing itself.
#[derive(Clone, Copy, Debug)]
pub struct SeasonalNaive {
    season_bins: Option<u64>,
}

impl SeasonalNaive {
    /// With a season of that many bins, if there is one.
    pub fn new(season_bins: Option<u64>) -> Self {
        Self { season_bins: season_bins.filter(|bins| *bins > 0) }
    }
}

impl PointModel for SeasonalNaive {
    fn kind(&self) -> ForecasterKind {
        ForecasterKind::SeasonalNaive
    }

    fn update(&mut self, _heat: &Heatmap, _bin: u64) {}

    fn expect(&mut self, heat: &Heatmap, row: usize, horizon: HorizonBins) -> f64 {
        let (open, bins) = (heat.open(), horizon.get());
        match self.season_bins {
            Some(season) if season >= bins && heat.closed_bins() >= season => {
                let start = open - season;
                heat.sum(row, start..start + bins)
            }
            _ => {
                let seen = bins.min(heat.closed_bins());
                // Less than a horizon seen: as if it went on at this rate.
                let scale = horizon.as_f64() / seen.max(1) as f64;
                heat.sum(row, open - seen..open) * scale
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties::{expected, feed};
    use super::*;

    #[test]
    fn yesterday_comes_again() {
        let series = [1, 2, 3, 4, 5, 6];
        let (heat, mut model) = feed(&series, 1, SeasonalNaive::new(Some(4)));
        assert_eq!(expected(&heat, &mut model, 2), 3.0 + 4.0);
    }

    #[test]
    fn without_a_season_the_last_horizon_comes_again() {
        let series = [1, 2, 3];
        let (heat, mut model) = feed(&series, 1, SeasonalNaive::new(None));
        assert_eq!(expected(&heat, &mut model, 2), 5.0);
        let (heat, mut model) = feed(&series[..1], 1, SeasonalNaive::new(Some(4)));
        assert_eq!(expected(&heat, &mut model, 2), 2.0);
    }
}
