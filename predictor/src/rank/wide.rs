//! Logistic regression over hashed one-hot features, and success rates as features.
#![forbid(unsafe_code)]

use super::features::{Features, RATES};
use super::key::{floor, log2, slot};

/// log2 of the weights.
const WEIGHT_BITS: u32 = 20;
/// log2 of the rates.
const RATE_BITS: u32 = 20;
const LEARNING_RATE: f32 = 0.1;
const L2: f32 = 1e-5;
/// Keeps the first steps of a weight finite (AdaGrad).
const DAMPING: f32 = 0.1;
/// What an observation of a rate keeps of those before it.
const MEMORY: f32 = 0.97;

/// The model.
pub(super) struct Wide {
    weights: Vec<f32>,
    /// Sum of the squared gradients of each; apart, for scoring does not touch them.
    squares: Vec<f32>,
}

impl Wide {
    pub fn new() -> Wide {
        Wide { weights: vec![0.0; 1 << WEIGHT_BITS], squares: vec![0.0; 1 << WEIGHT_BITS] }
    }

    pub const fn bytes() -> usize {
        (2 * size_of::<f32>()) << WEIGHT_BITS
    }

    /// Where a feature's weight is.
    pub fn place(group: u64, value: u64) -> u32 {
        u32::try_from(slot(group, value, WEIGHT_BITS)).expect("few bits")
    }

    /// The probability of a candidate with these features.
    pub fn probability(&self, features: &Features) -> f32 {
        let sum: f32 = features.weights().iter().map(|at| self.weights[*at as usize]).sum();
        logistic(sum)
    }

    /// One step towards `outcome` (0 or 1), counted `times`.
    pub fn learn(&mut self, features: &Features, outcome: f32, times: f32) {
        let error = (self.probability(features) - outcome) * times;
        for at in features.weights() {
            let weight = &mut self.weights[*at as usize];
            let squares = &mut self.squares[*at as usize];
            let gradient = error + L2 * *weight;
            *squares += gradient * gradient;
            *weight -= LEARNING_RATE * gradient / (squares.sqrt() + DAMPING);
        }
    }
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Sums of outcomes with fading memory, in thousandths: they stay below 1 / (1 - MEMORY) = 34.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    tried: u16,
    came: u16,
}

const THOUSAND: f32 = 1000.0;

impl Rate {
    fn count(&mut self, outcome: f32) {
        let faded = |sum: u16, more: f32| floor(f32::from(sum) * MEMORY + more * THOUSAND);
        (self.tried, self.came) = (faded(self.tried, 1.0), faded(self.came, outcome));
    }
}

/// How often candidates of a kind came, with fading memory.
pub(super) struct Rates {
    rates: Vec<Rate>,
    /// The step of the log-odds of each share, in [`SHARES`] parts.
    steps: [u8; SHARES + 1],
}

/// Parts that a share is rounded to before its log-odds are looked up.
const SHARES: usize = 256;

/// Log-odds in 15 steps.
fn odds_step(part: usize) -> u8 {
    let share = part as f32 / SHARES as f32;
    let odds = (share / (1.0 - share).max(0.01)).ln() * 1.5 + 6.0;
    u8::try_from(floor(odds.clamp(0.0, 14.0))).expect("at most 14")
}

impl Rates {
    /// Classes that [`Rates::class`] tells apart.
    pub const CLASSES: u64 = 76;

    pub fn new() -> Rates {
        Rates {
            rates: vec![Rate::default(); 1 << RATE_BITS],
            steps: std::array::from_fn(odds_step),
        }
    }

    pub const fn bytes() -> usize {
        size_of::<Rate>() << RATE_BITS
    }

    /// Where the rate of a kind is.
    pub fn place(group: u64, value: u64) -> u32 {
        u32::try_from(slot(group, value, RATE_BITS)).expect("few bits")
    }

    /// Log-odds in 15 steps, each with 5 steps of certainty; 0 before the first outcome.
    pub fn class(&self, place: u32) -> u64 {
        let rate = self.rates[place as usize];
        let (tried, came) = (f32::from(rate.tried) / THOUSAND, f32::from(rate.came) / THOUSAND);
        if tried < 0.5 {
            return 0;
        }
        let share = (came + 0.3) / (tried + 1.0);
        let step = self.steps[usize::from(floor(share * SHARES as f32))];
        let certainty = log2(floor(tried).into()).min(4);
        1 + u64::from(step) * 5 + certainty
    }

    pub fn learn(&mut self, places: &[u32; RATES], outcome: f32) {
        for place in places {
            self.rates[*place as usize].count(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(values: &[u64]) -> Features {
        let mut features = Features::default();
        values.iter().for_each(|value| features.put(*value, 1));
        features
    }

    #[test]
    fn the_model_learns_which_feature_tells() {
        let mut wide = Wide::new();
        let (good, bad) = (features(&[1, 2]), features(&[1, 3]));
        assert!((wide.probability(&good) - 0.5).abs() < 1e-6, "nothing is known yet");
        for _ in 0..2000 {
            wide.learn(&good, 1.0, 1.0);
            wide.learn(&bad, 0.0, 4.0);
        }
        assert!(wide.probability(&good) > 0.9 && wide.probability(&bad) < 0.05);
        assert!(wide.weights.iter().all(|weight| weight.is_finite()));
    }

    #[test]
    fn rates_have_classes_in_order() {
        let mut rates = Rates::new();
        let places = |n| [n; RATES];
        assert_eq!(rates.class(7), 0);
        for _ in 0..100 {
            rates.learn(&places(7), 1.0);
            rates.learn(&places(8), 0.0);
            rates.learn(&places(9), 1.0);
            rates.learn(&places(9), 0.0);
        }
        let [high, low, even] = [7, 8, 9].map(|place| rates.class(place));
        assert!(low < even && even < high && high < Rates::CLASSES, "{low} {even} {high}");
    }
}
