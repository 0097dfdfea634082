//! ARMA(p, q) of one series, p and q up to 3.
//!
//! Hannan and Rissanen (1982), as in Brockwell and Davis, *Introduction to Time
//! Series and Forecasting*, 3rd ed., section 5.1.4, without the third step: a
//! long autoregression estimates the innovations; then the series is regressed
//! on its lags and theirs. One pass of sums serves all sixteen orders; the order
//! is that of the least AIC among those that are stationary and invertible.
//!
//! Without the third step the moving-average part is not fully efficient.
#![forbid(unsafe_code)]

use super::dense::Gram;

/// Largest p and q.
pub(super) const ORDER: usize = 3;
/// Fewer values than this determine no lags.
const LEAST: usize = 24;
const LONG: usize = 10;

/// x(t) = constant + Σ ar·x(t−i) + e(t) + Σ ma·e(t−j).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Arma {
    pub constant: f64,
    pub ar: Vec<f64>,
    pub ma: Vec<f64>,
    pub aic: f64,
}

impl Arma {
    /// The best order for a series. `centred` leaves the constant out.
    pub fn fit(series: &[f64], centred: bool) -> Self {
        let mean = series.iter().sum::<f64>() / series.len().max(1) as f64;
        let constant = if centred { 0.0 } else { mean };
        if series.len() < LEAST {
            return Self { constant, ar: Vec::new(), ma: Vec::new(), aic: f64::INFINITY };
        }
        // Lags of the centred series: far from 0 they would look alike.
        let shifted: Vec<f64> = series.iter().map(|x| x - constant).collect();
        let gram = lags(&shifted, &innovations(&shifted));
        let mut best = Self { constant: 0.0, ar: Vec::new(), ma: Vec::new(), aic: f64::INFINITY };
        for (p, q) in (0..=ORDER).flat_map(|p| (0..=ORDER).map(move |q| (p, q))) {
            if let Some(arma) = fit_order(&gram, p, q, centred).filter(|a| a.aic < best.aic) {
                best = arma;
            }
        }
        best.constant += constant * (1.0 - best.ar.iter().sum::<f64>());
        best
    }

    /// The next `ahead` values.
    pub fn forecast(&self, series: &[f64], ahead: usize) -> Vec<f64> {
        let mut values = series.to_vec();
        let mut errors = vec![0.0; series.len()];
        for t in self.ar.len()..series.len() {
            errors[t] = series[t] - self.step(&values[..t], &errors[..t]);
        }
        for _ in 0..ahead {
            values.push(self.step(&values, &errors));
            errors.push(0.0);
        }
        values.split_off(series.len())
    }

    /// What comes after those values.
    fn step(&self, values: &[f64], errors: &[f64]) -> f64 {
        let dot = |coefficients: &[f64], past: &[f64]| -> f64 {
            coefficients.iter().zip(past.iter().rev()).map(|(c, x)| c * x).sum()
        };
        self.constant + dot(&self.ar, values) + dot(&self.ma, errors)
    }
}

/// Errors of a long autoregression; 0 where its lags begin before the series.
fn innovations(series: &[f64]) -> Vec<f64> {
    let long = LONG.min(series.len() / 4);
    let columns: Vec<usize> = (0..long).collect();
    let mut gram = Gram::new(long);
    // The newest of the past first.
    let lags = |t: usize| -> Vec<f64> { series[t - long..t].iter().rev().copied().collect() };
    for (t, x) in series.iter().enumerate().skip(long) {
        gram.add(&lags(t), *x);
    }
    let mut errors = series.to_vec();
    if let Some(coefficients) = gram.solve(&columns, |_| 0.0) {
        for (t, error) in errors.iter_mut().enumerate().skip(long) {
            *error -= lags(t).iter().zip(&coefficients).map(|(x, c)| x * c).sum::<f64>();
        }
        errors[..long].fill(0.0);
    }
    errors
}

/// Sums over 1, three lags of the series, three of the errors.
fn lags(series: &[f64], errors: &[f64]) -> Gram {
    let mut gram = Gram::new(1 + 2 * ORDER);
    // The first errors are unknown; all orders see the same observations.
    for t in LONG.min(series.len() / 4) + ORDER..series.len() {
        let mut x = [1.0; 1 + 2 * ORDER];
        for lag in 1..=ORDER {
            x[lag] = series[t - lag];
            x[ORDER + lag] = errors[t - lag];
        }
        gram.add(&x, series[t]);
    }
    gram
}

fn fit_order(gram: &Gram, p: usize, q: usize, centred: bool) -> Option<Arma> {
    let constant = usize::from(!centred);
    let mut columns = vec![0; constant];
    columns.extend((1..=p).chain(ORDER + 1..=ORDER + q));
    let found = if columns.is_empty() { Vec::new() } else { gram.solve(&columns, |_| 0.0)? };
    let (ar, ma) = found[constant..].split_at(p);
    let negated: Vec<f64> = ma.iter().map(|b| -b).collect();
    if !is_stable(ar) || !is_stable(&negated) {
        return None;
    }
    // A constant series has no errors: then the smallest order wins.
    let variance = gram.squared_errors(&columns, &found) / gram.rows() + 1e-12;
    let aic = gram.rows() * variance.ln() + 2.0 * columns.len() as f64;
    let constant = if centred { 0.0 } else { found[0] };
    Some(Arma { constant, ar: ar.to_vec(), ma: ma.to_vec(), aic })
}

/// Whether 1 − Σ c·z^i has no root in the unit circle: by the recursion of Durbin
/// and Levinson (Brockwell and Davis, section 2.5.3) run backwards, all partial
/// autocorrelations are below 1.
fn is_stable(coefficients: &[f64]) -> bool {
    let mut phi = coefficients.to_vec();
    while let Some(last) = phi.pop() {
        if last.abs() >= 0.999 {
            return false;
        }
        let below = phi.iter().zip(phi.iter().rev());
        phi = below.map(|(a, b)| (a + last * b) / (1.0 - last * last)).collect();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn simulate(ar: &[f64], ma: &[f64], constant: f64, length: usize) -> Vec<f64> {
        let mut random = Random::new(11);
        let truth = Arma { constant, ar: ar.to_vec(), ma: ma.to_vec(), aic: 0.0 };
        let (mut values, mut errors) = (vec![0.0; 3], vec![0.0; 3]);
        for _ in 0..length + 100 {
            let error = random.normal();
            values.push(truth.step(&values, &errors) + error);
            errors.push(error);
        }
        values.split_off(103)
    }

    fn order(series: &[f64], p: usize, q: usize) -> Arma {
        fit_order(&lags(series, &innovations(series)), p, q, false).unwrap()
    }

    #[test]
    fn autoregressions_are_recovered() {
        let one = order(&simulate(&[0.7], &[], 3.0, 4000), 1, 0);
        assert!((one.ar[0] - 0.7).abs() < 0.03 && (one.constant - 3.0).abs() < 0.3);
        let two = order(&simulate(&[0.5, 0.3], &[], 0.0, 4000), 2, 0);
        assert!((two.ar[0] - 0.5).abs() < 0.04 && (two.ar[1] - 0.3).abs() < 0.04);
    }

    #[test]
    fn a_moving_average_is_recovered() {
        let found = order(&simulate(&[0.6], &[0.5], 0.0, 4000), 1, 1);
        assert!((found.ar[0] - 0.6).abs() < 0.05 && (found.ma[0] - 0.5).abs() < 0.06);
    }

    #[test]
    fn the_chosen_order_forecasts_like_the_truth() {
        let series = simulate(&[0.7], &[], 3.0, 4000);
        let found = Arma::fit(&series, false);
        // Towards the mean 10, by 0.7 a step.
        let last = series[series.len() - 1];
        for (k, value) in (1_i32..).zip(found.forecast(&series, 4)) {
            assert!((value - (10.0 + (last - 10.0) * 0.7_f64.powi(k))).abs() < 0.3);
        }
    }

    #[test]
    fn constants_and_short_series_give_their_mean() {
        for series in [vec![5.0; 100], vec![5.0; 3]] {
            let found = Arma::fit(&series, false);
            assert!(found.ar.is_empty() && found.ma.is_empty());
            assert!(found.forecast(&series, 2).iter().all(|x| (x - 5.0).abs() < 1e-9));
        }
        assert_eq!(Arma::fit(&[], false).forecast(&[], 2), [0.0, 0.0]);
    }

    #[test]
    fn stability_is_that_of_the_roots() {
        assert!(is_stable(&[]) && is_stable(&[0.9]) && is_stable(&[1.2, -0.5]));
        assert!(!is_stable(&[1.0]) && !is_stable(&[0.6, 0.5]) && !is_stable(&[0.0, 0.0, 1.1]));
    }
}
