//! The exact account of what staging costs, and the probability it must have.
//!
//! The extra traffic is what was fetched, on demand or ahead, beyond the misses of a ghost
//! of the tier without staging; it includes what staging drove out. Nothing is staged while
//! it reaches the share of the ghost's misses that is allowed.
//!
//! The threshold follows from what is left of that. While much is left, all that is worth it
//! is staged; the last part is kept for ever surer candidates, which cost little: one that
//! comes has cost nothing. So it settles where spending is as fast as misses allow more, and
//! does so at the pace of the traffic, in a short trace or a long one.
//!
//! Besides its traffic, a stage costs those who wait. It begins when the demand before it has
//! ended, and in vain if its candidate has come by then; all the while it holds a place in the
//! tier, and what that drove out may have to be fetched, behind the same demand. So the longer
//! the demand that waits, the likelier must be what is staged behind it.
#![forbid(unsafe_code)]

use crate::ledger::Ghost;

/// The part of what is allowed that is kept for the surest.
const RESERVE: f64 = 0.15;
/// The threshold with nothing left.
const MOST: f32 = 0.95;
/// Fetches on demand that a sure stage may have before it; one half as likely, half as many.
/// With one, the fetch that a lone reader waits for, hardly any is refused that might be
/// worth it else.
const PATIENCE: f32 = 6.0;

/// The account of one tier.
pub struct Budget {
    ghost: Ghost,
    share: f64,
    misses: u64,
    issued: u64,
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
        Budget { ghost: Ghost::new(fragments), share, misses: 0, issued: 0, least }
    }

    /// Changes what is allowed.
    pub fn allow(&mut self, share: f64, least: f32) {
        (self.share, self.least) = (share, least);
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

    fn allowed(&self) -> f64 {
        self.share * self.ghost.misses as f64
    }

    fn room(&self) -> f64 {
        self.allowed() - self.extra() as f64
    }

    /// Whether a candidate is worth staging and can be paid for; counted as issued if so.
    /// `waiting` is how many fetches on demand the cold device has before it, 0 if that is
    /// not known.
    pub fn admit(&mut self, probability: f32, waiting: usize) -> bool {
        let worth = probability >= self.threshold() && probability * PATIENCE >= waiting as f32;
        let admitted = worth && self.room() >= 1.0;
        self.issued += u64::from(admitted);
        admitted
    }

    /// The probability that a candidate must have now.
    #[expect(clippy::cast_possible_truncation, reason = "a share")]
    pub fn threshold(&self) -> f32 {
        if self.extra() <= 0 {
            return self.least;
        }
        let left = self.room() / self.allowed().max(1.0);
        let scarce = (1.0 - left / RESERVE).clamp(0.0, 1.0) as f32;
        self.least + (MOST - self.least).max(0.0) * scarce * scarce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: f32 = 0.15;

    #[test]
    fn nothing_is_staged_beyond_the_share() {
        let mut budget = Budget::new(4, 0.25, LEAST);
        assert!(!budget.admit(0.99, 0), "no traffic, no share of it");
        for fragment in 0..40 {
            budget.demand(0, fragment, true, true);
        }
        let admitted = (0..100).filter(|_| budget.admit(0.99, 0)).count();
        assert_eq!((admitted, budget.extra()), (10, 10));
        // A stage that is used saves a miss and may be spent anew.
        budget.demand(0, 100, false, true);
        assert_eq!(budget.extra(), 9);
        assert!(budget.admit(0.99, 0) && !budget.admit(0.99, 0));
    }

    #[test]
    fn the_last_part_is_kept_for_the_surest() {
        let mut budget = Budget::new(4, 0.25, LEAST);
        (0..400).for_each(|fragment| budget.demand(0, fragment, true, true));
        assert!((budget.threshold() - LEAST).abs() < 1e-6);
        let admitted = (0..100).filter(|_| budget.admit(0.2, 0)).count();
        // With 15 of 100 left it begins to rise: at 11 by 0.8 x (4/15)².
        assert_eq!(admitted, 89);
        assert!((budget.threshold() - LEAST - 0.8 * (4.0_f32 / 15.0).powi(2)).abs() < 1e-6);
        let surer = (0..100).filter(|_| budget.admit(0.5, 0)).count();
        assert_eq!(surer, 6, "at 5 left by 0.8 x (10/15)² = 0.356");
        assert!(!budget.admit(f32::NAN, 0) && budget.admit(0.96, 0));
    }

    #[test]
    fn where_nothing_was_spent_nothing_is_dear() {
        let mut budget = Budget::new(4, 0.25, LEAST);
        assert!((budget.threshold() - LEAST).abs() < 1e-6);
        budget.demand(0, 1, true, true);
        assert!((budget.threshold() - LEAST).abs() < 1e-6);
    }

    /// | probability | may have before it |
    /// |-------------|--------------------|
    /// | 0.95        | 5.7: five fetches  |
    /// | 0.5         | 3                  |
    /// | 0.3         | 1.8: one           |
    /// | 0.16        | 0.96: none         |
    #[test]
    fn behind_demand_only_the_likely_is_staged() {
        let mut budget = Budget::new(4, 1.0, LEAST);
        (0..400).for_each(|fragment| budget.demand(0, fragment, true, true));
        for (probability, most) in [(0.95, 5), (0.5, 3), (0.3, 1), (0.16, 0)] {
            assert!(budget.admit(probability, most), "{probability}");
            let issued = budget.extra();
            assert!(!budget.admit(probability, most + 1), "{probability}");
            assert_eq!(budget.extra(), issued, "a refusal costs nothing");
        }
    }
}
