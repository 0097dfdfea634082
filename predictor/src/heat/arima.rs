//! ARIMA(p, d, q), p and q up to 3, d up to 1, one small model per row.
//!
//! Chosen as by Hyndman and Khandakar (2008): d by the test of Kwiatkowski,
//! Phillips, Schmidt and Shin (1992) for a constant level, because AIC does not
//! compare models of different data; p and q by AIC in `arma.rs`. Each row is
//! fitted to its newest bins, and again after a horizon.
//!
//! It knows no season, and it takes counts for continuous numbers.
#![forbid(unsafe_code)]

use super::arma::Arma;
use super::point::PointModel;
use super::rows::Rows;
use super::{ForecasterKind, Heatmap, HorizonBins};

/// Bins that a fit looks at.
const WINDOW: u64 = 256;

#[derive(Clone, Debug)]
struct Fit {
    made_at: u64,
    differenced: bool,
    arma: Arma,
}

/// The fit of each row.
#[derive(Clone, Debug, Default)]
pub struct Arima {
    fits: Rows<Option<Fit>>,
}

impl Arima {
    /// A model that has seen nothing.
    pub fn new() -> Self {
        Self { fits: Rows::new() }
    }
}

impl PointModel for Arima {
    fn kind(&self) -> ForecasterKind {
        ForecasterKind::Arima
    }

    fn update(&mut self, _heat: &Heatmap, _bin: u64) {}

    fn expect(&mut self, heat: &Heatmap, row: usize, horizon: HorizonBins) -> f64 {
        let series: Vec<f64> = heat.history(row, WINDOW).collect();
        let largest = series.iter().fold(0.0, |a, b| f64::max(a, *b));
        if largest == 0.0 {
            return 0.0;
        }
        let open = heat.open();
        let slot = self.fits.state(heat, row);
        let fit = match slot.take() {
            Some(fit) if open - fit.made_at < horizon.get() => fit,
            _ => fitted(&series, open),
        };
        // A model near its limits may run away: no bin exceeds twice the largest.
        let bins = fit.forecast(&series, horizon).into_iter();
        *slot = Some(fit);
        bins.map(|bin| bin.clamp(0.0, 2.0 * largest)).sum()
    }
}

fn fitted(series: &[f64], made_at: u64) -> Fit {
    let differenced = !has_level(series);
    let arma =
        if differenced { Arma::fit(&differences(series), true) } else { Arma::fit(series, false) };
    Fit { made_at, differenced, arma }
}

/// Whether a constant level is not rejected at 5 %: partial sums of the
/// deviations stay small beside their long-run variance (Bartlett weights).
fn has_level(series: &[f64]) -> bool {
    const CRITICAL: f64 = 0.463;
    let length = series.len().max(1) as f64;
    let mean = series.iter().sum::<f64>() / length;
    let deviations: Vec<f64> = series.iter().map(|x| x - mean).collect();
    // 4·(n/100)^¼ lags, rounded down: n is at most the window.
    let lags = (1_u32..=8).rev().find(|l| f64::from(*l) <= 4.0 * (length / 100.0).powf(0.25));
    let lags = lags.unwrap_or(0);
    let product = |lag: usize| -> f64 {
        deviations.iter().zip(deviations.iter().skip(lag)).map(|(a, b)| a * b).sum()
    };
    let weighted = (1..=lags).map(|lag| {
        let weight = 1.0 - f64::from(lag) / f64::from(lags + 1);
        2.0 * weight * product(lag as usize)
    });
    let variance = (product(0) + weighted.sum::<f64>()) / length;
    let (mut partial, mut squares) = (0.0, 0.0);
    for deviation in &deviations {
        partial += deviation;
        squares += partial * partial;
    }
    squares <= CRITICAL * length * length * variance.max(1e-9)
}

impl Fit {
    fn forecast(&self, series: &[f64], horizon: HorizonBins) -> Vec<f64> {
        let ahead = usize::try_from(horizon.get()).expect("16 bits");
        if !self.differenced {
            return self.arma.forecast(series, ahead);
        }
        let mut level = series.last().copied().unwrap_or(0.0);
        let mut steps = self.arma.forecast(&differences(series), ahead);
        for step in &mut steps {
            level += *step;
            *step = level;
        }
        steps
    }
}

fn differences(series: &[f64]) -> Vec<f64> {
    series.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::properties::{expected, feed};
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_random_walk_is_differenced_and_stays_where_it_is() {
        let mut random = Random::new(4);
        let mut level = 500.0;
        let series: Vec<f64> = (0..256)
            .map(|_| {
                level += random.normal();
                level
            })
            .collect();
        let fit = fitted(&series, 0);
        assert!(fit.differenced);
        let (shape, horizon) = crate::heat::HeatShape::five_minutes();
        assert_eq!(shape.horizon(10), Ok(horizon));
        assert!(fit.forecast(&series, horizon).iter().all(|x| (x - level).abs() < 3.0));
    }

    #[test]
    fn an_alternation_is_continued() {
        let mut random = Random::new(6);
        let mean = |i: u32| if i.is_multiple_of(2) { 100.0 } else { 20.0 };
        let series: Vec<u32> = (0..201).map(|i| random.poisson(mean(i))).collect();
        let (heat, mut model) = feed(&series, 1, Arima::new());
        assert!((expected(&heat, &mut model, 1) - 20.0).abs() < 15.0);
        assert!((expected(&heat, &mut model, 2) - 120.0).abs() < 20.0);
    }

    #[test]
    fn constants_stay() {
        let (heat, mut model) = feed(&[9; 60], 1, Arima::new());
        assert!((expected(&heat, &mut model, 5) - 45.0).abs() < 1e-6);
    }
}
