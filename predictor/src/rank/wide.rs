//! Logistic regression over one-hot features.
#![forbid(unsafe_code)]

use super::features::{Features, WEIGHTS};

const LEARNING_RATE: f32 = 0.1;
const L2: f32 = 1e-5;
/// Keeps the first steps of a weight finite (AdaGrad).
const DAMPING: f32 = 0.1;

/// The model of one client, or of all.
pub(super) struct Wide {
    weights: Vec<f32>,
    /// Sum of the squared gradients of each; apart, for scoring does not touch them.
    squares: Vec<f32>,
}

impl Wide {
    pub fn new() -> Wide {
        Wide { weights: vec![0.0; WEIGHTS], squares: vec![0.0; WEIGHTS] }
    }

    pub const fn bytes() -> usize {
        2 * size_of::<f32>() * WEIGHTS
    }

    /// Becomes as another is.
    pub fn copy_from(&mut self, other: &Wide) {
        self.weights.copy_from_slice(&other.weights);
        self.squares.copy_from_slice(&other.squares);
    }

    /// Log-odds of a candidate with these features.
    pub fn odds(&self, features: &Features) -> f32 {
        features.weights().iter().map(|at| self.weights[usize::from(*at)]).sum()
    }

    /// One step towards `outcome` (0 or 1), counted `times`.
    pub fn learn(&mut self, features: &Features, outcome: f32, times: f32) {
        let error = (logistic(self.odds(features)) - outcome) * times;
        for at in features.weights() {
            let weight = &mut self.weights[usize::from(*at)];
            let squares = &mut self.squares[usize::from(*at)];
            let gradient = error + L2 * *weight;
            *squares += gradient * gradient;
            *weight -= LEARNING_RATE * gradient / (squares.sqrt() + DAMPING);
        }
    }
}

/// The probability of log-odds.
pub(super) fn logistic(odds: f32) -> f32 {
    1.0 / (1.0 + (-odds).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_learns_which_feature_tells() {
        let mut wide = Wide::new();
        let features = |values: [usize; 1]| {
            let mut features = Features::default();
            values.into_iter().for_each(|value| features.put::<15>(value));
            features
        };
        let (good, bad) = (features([2]), features([3]));
        assert!(wide.odds(&good).abs() < 1e-6, "nothing is known yet");
        for _ in 0..2000 {
            wide.learn(&good, 1.0, 1.0);
            wide.learn(&bad, 0.0, 4.0);
        }
        assert!(logistic(wide.odds(&good)) > 0.9 && logistic(wide.odds(&bad)) < 0.05);
        assert!(wide.weights.iter().all(|weight| weight.is_finite()));
    }
}
