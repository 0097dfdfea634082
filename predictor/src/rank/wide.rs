//! Logistic regression over one-hot features.
#![forbid(unsafe_code)]

use super::features::{Features, WEIGHTS};
use super::saved::Model;
use crate::odds::{log_loss, logistic};

const LEARNING_RATE: f32 = 0.1;
const L2: f32 = 1e-5;
/// Keeps the first steps of a weight finite (AdaGrad).
const DAMPING: f32 = 0.1;

/// The model of one client, or of all.
pub(super) struct Wide {
    weights: Vec<f32>,
    /// Sum of the squared gradients of each; apart, for scoring does not touch them.
    squares: Vec<f32>,
    /// Lessons learned.
    steps: u64,
    /// It has learned since it was last told.
    fresh: bool,
}

impl Wide {
    pub fn new() -> Wide {
        Wide { weights: vec![0.0; WEIGHTS], squares: vec![0.0; WEIGHTS], steps: 0, fresh: false }
    }

    pub const fn bytes() -> usize {
        2 * size_of::<f32>() * WEIGHTS
    }

    /// Becomes as another is.
    pub fn copy_from(&mut self, other: &Wide) {
        self.weights.copy_from_slice(&other.weights);
        self.squares.copy_from_slice(&other.squares);
        (self.steps, self.fresh) = (0, false);
    }

    /// Becomes as one that was saved.
    pub fn restore(&mut self, model: &Model) {
        self.weights.copy_from_slice(&model.weights);
        self.squares.copy_from_slice(&model.squares);
        (self.steps, self.fresh) = (0, false);
    }

    /// All that has been learned; `None` if nothing since this was last asked.
    pub fn model(&mut self) -> Option<Model> {
        if !std::mem::take(&mut self.fresh) {
            return None;
        }
        let (weights, squares) = (self.weights.clone(), self.squares.clone());
        Some(Model { weights, squares, steps: self.steps as f32 })
    }

    /// Nothing has been learned since it was made, copied or restored.
    pub fn is_idle(&self) -> bool {
        self.steps == 0
    }

    /// How badly it foretold an outcome: its log loss.
    pub fn loss(&self, features: &Features, outcome: f32) -> f32 {
        log_loss(self.odds(features), outcome > 0.5)
    }

    /// Log-odds of a candidate with these features.
    pub fn odds(&self, features: &Features) -> f32 {
        features.weights().iter().map(|at| self.weights[usize::from(*at)]).sum()
    }

    /// One step towards `outcome` (0 or 1), counted `times`.
    pub fn learn(&mut self, features: &Features, outcome: f32, times: f32) {
        let error = (logistic(self.odds(features)) - outcome) * times;
        self.steps += 1;
        self.fresh = true;
        for at in features.weights() {
            let weight = &mut self.weights[usize::from(*at)];
            let squares = &mut self.squares[usize::from(*at)];
            let gradient = error + L2 * *weight;
            *squares += gradient * gradient;
            *weight -= LEARNING_RATE * gradient / (squares.sqrt() + DAMPING);
        }
    }
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
