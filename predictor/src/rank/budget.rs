//! The exact account of what staging costs, and the probability it must have.
//!
//! The extra traffic is what was fetched, on demand or ahead, beyond the misses of a ghost
//! of the tier without staging; it includes what staging drove out. Nothing is staged while
//! it reaches the share of the ghost's misses that is allowed. The threshold falls slowly while there is
//! room and rises fast when there is none, so that room remains for the surest candidates.
//! Where nothing was spent it does not rise: that there is no traffic yet makes none dear.
#![forbid(unsafe_code)]

use crate::ledger::Ghost;

/// Factors of the threshold: at each crossing with room, at each without, at each refusal.
const FALL: f32 = 1.0 - 1e-4;
const RISE: f32 = 1.0 + 1e-4;
const REFUSED: f32 = 1.01;
const MOST: f32 = 0.95;
const FIRST: f32 = 0.2;

/// The account of one tier.
pub struct Budget {
    ghost: Ghost,
    share: f64,
    misses: u64,
    issued: u64,
    threshold: f32,
    /// What the threshold never falls below.
    least: f32,
}

impl Budget {
    /// For a tier of `fragments`; `share` of its misses without staging may be extra
    /// traffic: 0.25 for a quarter. What is less probable than `least` is never worth it.
    ///
    /// # Panics
    /// If the tier is empty, or the share is no number or negative.
    pub fn new(fragments: usize, share: f64, least: f32) -> Budget {
        assert!(share >= 0.0, "a share of the traffic");
        let threshold = FIRST.max(least);
        Budget { ghost: Ghost::new(fragments), share, misses: 0, issued: 0, threshold, least }
    }

    /// Changes what is allowed.
    pub fn allow(&mut self, share: f64, least: f32) {
        (self.share, self.least) = (share, least);
        self.threshold = self.threshold.max(least);
    }

    /// A stage that was counted as issued has moved nothing.
    pub fn refund(&mut self) {
        self.issued = self.issued.saturating_sub(1);
    }

    /// Misses that there would have been without staging.
    pub fn ghost_misses(&self) -> u64 {
        self.ghost.misses
    }

    /// A demand access to a fragment, which the tier had or missed. Whether it is one to `keep`
    /// on a miss holds for the ghost, too, so that both differ by what was staged alone.
    pub fn demand(&mut self, volume: u32, fragment: u64, missed: bool, keep: bool) {
        self.ghost.touch(volume, fragment, keep);
        self.misses += u64::from(missed);
    }

    /// Fetches beyond those without staging; negative where staging has saved some.
    pub fn extra(&self) -> i64 {
        (self.misses + self.issued).cast_signed() - self.ghost.misses.cast_signed()
    }

    fn room(&self) -> f64 {
        self.share * self.ghost.misses as f64 - self.extra() as f64
    }

    /// Whether a candidate is worth staging and can be paid for; counted as issued if so.
    pub fn admit(&mut self, probability: f32) -> bool {
        if probability.is_nan() || probability < self.threshold {
            return false;
        }
        if self.room() < 1.0 {
            if self.extra() > 0 {
                self.threshold = (self.threshold * REFUSED).min(MOST);
            }
            return false;
        }
        self.issued += 1;
        true
    }

    /// A crossing with candidates has been decided on.
    pub fn crossed(&mut self) {
        let factor = if self.extra() <= 0 || self.room() > 0.0 { FALL } else { RISE };
        self.threshold = (self.threshold * factor).clamp(self.least, MOST);
    }

    /// The probability that a candidate must have now.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: f32 = 0.15;

    #[test]
    fn nothing_is_staged_beyond_the_share() {
        let mut budget = Budget::new(4, 0.25, LEAST);
        assert!(!budget.admit(0.9), "no traffic, no share of it");
        assert!((budget.threshold() - FIRST).abs() < 1e-6, "but nothing is dear for that");
        for fragment in 0..40 {
            budget.demand(0, fragment, true, true);
        }
        let admitted = (0..100).filter(|_| budget.admit(0.9)).count();
        assert_eq!((admitted, budget.extra()), (10, 10));
        assert!(budget.threshold() > 0.4, "{}: refusals made it dear", budget.threshold());
        // A stage that is used saves a miss and may be spent anew.
        budget.demand(0, 100, false, true);
        assert_eq!(budget.extra(), 9);
        assert!(budget.admit(0.96) && !budget.admit(0.96));
    }

    #[test]
    fn the_threshold_falls_slowly_to_its_floor() {
        let mut budget = Budget::new(4, 0.25, LEAST);
        budget.demand(0, 1, true, true);
        budget.crossed();
        assert!(budget.threshold() < FIRST && budget.threshold() > FIRST * 0.999);
        (0..100_000).for_each(|_| budget.crossed());
        assert!((budget.threshold() - LEAST).abs() < 1e-6);
        assert!(!budget.admit(f32::NAN) && !budget.admit(0.14));
    }
}
