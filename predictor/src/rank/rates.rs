//! How often candidates of a kind came, with fading memory.
#![forbid(unsafe_code)]

use super::features::RATES;
use super::key::{floor, slot};
use crate::bins::log2;

/// log2 of the rates.
const RATE_BITS: u32 = 20;
/// What an observation keeps of those before it.
const MEMORY: f32 = 0.97;
const THOUSAND: f32 = 1000.0;
/// Parts that a share is rounded to before its log-odds are looked up.
const SHARES: usize = 256;

/// Sums of outcomes in thousandths: they stay below 1 / (1 - MEMORY) = 34.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    tried: u16,
    came: u16,
}

impl Rate {
    fn count(&mut self, outcome: f32) {
        let faded = |sum: u16, more: f32| floor(f32::from(sum) * MEMORY + more * THOUSAND);
        (self.tried, self.came) = (faded(self.tried, 1.0), faded(self.came, outcome));
    }
}

/// The rates of all kinds, hashed.
pub(super) struct Rates {
    rates: Vec<Rate>,
    /// The step of the log-odds of each share, in [`SHARES`] parts.
    steps: [u8; SHARES + 1],
}

/// Log-odds in 15 steps.
fn odds_step(part: usize) -> u8 {
    let share = part as f32 / SHARES as f32;
    let odds = (share / (1.0 - share).max(0.01)).ln() * 1.5 + 6.0;
    u8::try_from(floor(odds.clamp(0.0, 14.0))).expect("at most 14")
}

impl Rates {
    /// Classes that [`Rates::class`] tells apart.
    pub const CLASSES: usize = 76;

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

    pub fn get(&self, place: u32) -> Rate {
        self.rates[place as usize]
    }

    /// Log-odds in 15 steps, each with 5 steps of certainty; 0 before the first outcome.
    pub fn class(&self, rate: Rate) -> usize {
        let (tried, came) = (f32::from(rate.tried) / THOUSAND, f32::from(rate.came) / THOUSAND);
        if tried < 0.5 {
            return 0;
        }
        let share = (came + 0.3) / (tried + 1.0);
        let step = self.steps[usize::from(floor(share * SHARES as f32))];
        let certainty = log2(floor(tried).into()).min(4);
        1 + usize::from(step) * 5 + certainty
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

    #[test]
    fn rates_have_classes_in_order() {
        let mut rates = Rates::new();
        let places = |n| [n; RATES];
        assert_eq!(rates.class(rates.get(7)), 0);
        for _ in 0..100 {
            rates.learn(&places(7), 1.0);
            rates.learn(&places(8), 0.0);
            rates.learn(&places(9), 1.0);
            rates.learn(&places(9), 0.0);
        }
        let [high, low, even] = [7, 8, 9].map(|place| rates.class(rates.get(place)));
        assert!(low < even && even < high && high < Rates::CLASSES, "{low} {even} {high}");
    }
}
