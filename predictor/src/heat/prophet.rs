//! Prophet-style additive model: a trend that bends, and Fourier seasons.
//!
//! Taylor and Letham, *Forecasting at Scale* (2018): requests per bin are a
//! piecewise-linear trend with changepoints, whose bends have a sparse (Laplace)
//! prior, plus Fourier series of the day and the week with normal priors. The
//! mode of the posterior is found by least squares, reweighted a few times so
//! that the penalty of a bend approaches its absolute value. Each forecast fits
//! all rows anew; the columns depend on time only, so their products are summed
//! once for all rows.
//!
//! A season is used when two of its cycles are kept. No holidays, no saturating
//! growth, no sampling: quantiles come from past errors, like everybody's.
#![forbid(unsafe_code)]

use std::f64::consts::TAU;

use super::dense::Gram;
use super::point::PointModel;
use super::{ForecasterKind, HeatShape, Heatmap, HorizonBins};

const CHANGEPOINTS: u32 = 12;
/// Changepoints lie in this part of the window: the newest bins bend nothing.
const BENDING: f64 = 0.9;
/// Waves of the day, of the week.
const ORDERS: [u32; 2] = [4, 3];
/// Scale of the Laplace prior of a bend, in units of the largest count.
const BEND_SCALE: f64 = 0.05;
const REWEIGHTINGS: usize = 4;

/// The columns of the model over a window of bins.
#[derive(Clone, Debug)]
struct Design {
    shape: HeatShape,
    oldest: u64,
    open: u64,
    waves: [u32; 2],
    gram: Gram,
    /// Bins × columns.
    rows: Vec<f64>,
    /// The columns summed over the horizon.
    ahead: Vec<f64>,
}

/// The design of the newest forecast; rows are fitted when asked for.
#[derive(Clone, Debug, Default)]
pub struct Prophet {
    design: Option<Design>,
}

impl Prophet {
    /// A model that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl PointModel for Prophet {
    fn kind(&self) -> ForecasterKind {
        ForecasterKind::Prophet
    }

    fn update(&mut self, _heat: &Heatmap, _bin: u64) {
        self.design = None;
    }

    fn expect(&mut self, heat: &Heatmap, row: usize, horizon: HorizonBins) -> f64 {
        if heat.closed_bins() == 0 {
            return 0.0;
        }
        self.design.get_or_insert_with(|| Design::new(heat, horizon)).expect(heat, row)
    }
}

impl Design {
    fn new(heat: &Heatmap, horizon: HorizonBins) -> Self {
        let shape = heat.shape();
        let (oldest, open) = (heat.oldest(), heat.open());
        let days = shape.days(open - oldest);
        let cycles = [days, days / 7.0];
        let mut waves = ORDERS;
        waves.iter_mut().zip(cycles).filter(|(_, c)| *c < 2.0).for_each(|(wave, _)| *wave = 0);
        let columns = usize::try_from(2 + CHANGEPOINTS + 2 * (waves[0] + waves[1])).expect("small");
        let gram = Gram::new(columns);
        let ahead = vec![0.0; columns];
        let mut design = Self { shape, oldest, open, waves, gram, rows: Vec::new(), ahead };
        for bin in oldest..open {
            let x = design.columns(bin);
            design.gram.add(&x, 0.0);
            design.rows.extend(x);
        }
        for bin in open..open.saturating_add(horizon.get()) {
            let x = design.columns(bin);
            design.ahead.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
        design
    }

    /// 1, time, time since each changepoint, waves.
    fn columns(&self, bin: u64) -> Vec<f64> {
        let time = (bin - self.oldest) as f64 / (self.open - self.oldest) as f64;
        let mut x = vec![1.0, time];
        for changepoint in 1..=CHANGEPOINTS {
            let place = BENDING * f64::from(changepoint) / f64::from(CHANGEPOINTS);
            x.push((time - place).max(0.0));
        }
        let phases = [self.shape.day_phase(bin), self.shape.week_phase(bin)];
        for (phase, waves) in phases.into_iter().zip(self.waves) {
            for wave in 1..=waves {
                let angle = TAU * phase * f64::from(wave);
                x.extend([angle.sin(), angle.cos()]);
            }
        }
        x
    }

    fn expect(&mut self, heat: &Heatmap, row: usize) -> f64 {
        let counts = heat.history(row, u64::MAX).enumerate();
        let mut xy = vec![0.0; self.ahead.len()];
        let (mut yy, mut largest, mut sum) = (0.0, 0.0, 0.0);
        for (bin, count) in counts.filter(|(_, count)| *count > 0.0) {
            let x = &self.rows[bin * xy.len()..];
            xy.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * count);
            yy += count * count;
            sum += count;
            largest = f64::max(largest, count);
        }
        if largest == 0.0 {
            return 0.0;
        }
        // Priors speak of counts between 0 and 1.
        xy.iter_mut().for_each(|sum| *sum /= largest);
        self.gram.set_target(xy, yy / (largest * largest));
        match self.fit() {
            Some(fit) => largest * fit.iter().zip(&self.ahead).map(|(c, x)| c * x).sum::<f64>(),
            None => self.ahead[0] * sum / self.gram.rows(),
        }
    }

    /// The coefficients of the target at hand.
    fn fit(&self) -> Option<Vec<f64>> {
        let all: Vec<usize> = (0..self.ahead.len()).collect();
        let bends = 2..2 + CHANGEPOINTS as usize;
        // Before the noise is known: as much as the target itself.
        let mut noise = self.gram.squared_errors(&[], &[]) / self.gram.rows();
        let mut sizes = vec![BEND_SCALE; all.len()];
        let mut fit = None;
        for _ in 0..REWEIGHTINGS {
            let penalty = |column: usize| match column {
                0 | 1 => noise / 25.0,
                _ if bends.contains(&column) => noise / (BEND_SCALE * (sizes[column] + 1e-4)),
                _ => noise / 100.0,
            };
            // A floor keeps columns apart that few bins cannot tell apart.
            let found = self.gram.solve(&all, |column| penalty(column) + 1e-7)?;
            noise = self.gram.squared_errors(&all, &found) / self.gram.rows();
            sizes.iter_mut().zip(&found).for_each(|(size, c)| *size = c.abs());
            fit = Some(found);
        }
        fit
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties::{expected, feed};
    use super::*;

    /// Bins of an hour; the count at each, rounded.
    fn series(bins: u32, value: impl Fn(f64) -> f64) -> Vec<u32> {
        let rounded = |x: f64| (0_u32..).find(|n| f64::from(*n) + 0.5 > x).expect("not negative");
        (0..bins).map(|hour| rounded(value(hour.into()))).collect()
    }

    #[test]
    fn a_bent_line_with_a_season_is_continued() {
        // Rises by 4 a day for 6 days, then by 24, around a daily wave of 200.
        let truth = |hour: f64| {
            let days = hour / 24.0;
            let trend = 500.0 + 4.0 * days + 20.0 * (days - 6.0).max(0.0);
            trend + 200.0 * (TAU * days).sin() + 60.0 * (2.0 * TAU * days).cos()
        };
        let (heat, mut model) = feed(&series(10 * 24, truth), 3600, Prophet::new());
        let found = expected(&heat, &mut model, 6);
        let exact: f64 = (240_u32..246).map(|hour| truth(hour.into())).sum();
        assert!((found / exact - 1.0).abs() < 0.01, "{found} for {exact}");
    }

    #[test]
    fn a_line_is_continued_and_a_constant_stays() {
        let (heat, mut model) = feed(&series(200, |hour| 5.0 * hour), 30, Prophet::new());
        assert!((expected(&heat, &mut model, 2) - 2005.0).abs() < 20.0);
        let (heat, mut model) = feed(&[8; 100], 30, Prophet::new());
        assert!((expected(&heat, &mut model, 5) - 40.0).abs() < 0.2);
    }

    #[test]
    fn one_bin_is_enough_to_answer() {
        let (heat, mut model) = feed(&[8], 30, Prophet::new());
        let found = expected(&heat, &mut model, 1);
        assert!((0.0..=16.0).contains(&found), "{found}");
    }
}
