//! Judging weights on crossings that they have not learned from.
#![forbid(unsafe_code)]

use super::window::{Item, Next};
use super::{Inference, State, Weights};

/// What a predictor of the next delta would have done on a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Read crossings whose successor is known.
    pub triggers: u64,
    /// Those at which it would have staged a fragment.
    pub proposed: u64,
    /// Those at which the stream went there next.
    pub right: u64,
}

impl Score {
    /// Right proposals minus the price of wrong ones.
    ///
    /// A proposal at exactly the threshold is worth nothing, so a wrong one
    /// costs t / (1 − t) right ones.
    pub fn utility(&self, stage_threshold: f32) -> f64 {
        let threshold = f64::from(stage_threshold);
        let wrong = (self.proposed - self.right) as f64;
        self.right as f64 - wrong * threshold / (1.0 - threshold)
    }

    fn count(&mut self, proposal: Option<i64>, next: Next) {
        self.triggers += 1;
        if let Some(delta) = proposal {
            self.proposed += 1;
            self.right += u64::from(next == Next::Move(delta));
        }
    }
}

/// The most likely delta, if it is likely enough.
fn propose(weights: &Weights, odds: &[f32], threshold: f32) -> Option<i64> {
    let best = (0..odds.len()).max_by(|a, b| odds[*a].total_cmp(&odds[*b]))?;
    weights.vocabulary.delta(best).filter(|_| odds[best] >= threshold)
}

/// Whether an item counts: a read, at or behind `from`, with a known successor.
fn counts(item: &Item, from: usize) -> bool {
    !item.write && item.order >= from && item.next != Next::Open
}

/// Runs weights over all sequences, as a core would, and judges the items from
/// position `from` on.
pub(super) fn judge(
    weights: &Weights,
    sequences: &[Vec<Item>],
    from: usize,
    threshold: f32,
) -> Score {
    let mut inference = Inference::new();
    let mut score = Score::default();
    for sequence in sequences {
        let mut state = State::zero();
        for item in sequence {
            inference.step(weights, &mut state, weights.vocabulary.class(item.delta));
            if counts(item, from) {
                let odds = inference.probabilities(weights, &state);
                score.count(propose(weights, odds, threshold), item.next);
            }
        }
    }
    score
}

/// The better of two rules that need no model: "the delta repeats", always or
/// only after it has repeated once.
pub(super) fn baseline(sequences: &[Vec<Item>], from: usize, threshold: f32) -> Score {
    let (mut always, mut confirmed) = (Score::default(), Score::default());
    for sequence in sequences {
        let mut previous = 0;
        for item in sequence {
            if counts(item, from) {
                let repeat = Some(item.delta).filter(|delta| *delta != 0);
                always.count(repeat, item.next);
                confirmed.count(repeat.filter(|delta| *delta == previous), item.next);
            }
            previous = item.delta;
        }
    }
    if always.utility(threshold) > confirmed.utility(threshold) { always } else { confirmed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(deltas: &[i64]) -> Vec<Item> {
        let next = |i: usize| deltas.get(i + 1).map_or(Next::End, |d| Next::Move(*d));
        let item = |(order, delta): (usize, &i64)| Item {
            order,
            delta: *delta,
            write: false,
            next: next(order),
        };
        deltas.iter().enumerate().map(item).collect()
    }

    #[test]
    fn the_baseline_repeats() {
        let steady = baseline(&[walk(&[0, 1, 1, 1, 1, 1])], 0, 0.5);
        assert_eq!(steady, Score { triggers: 6, proposed: 5, right: 4 });
        let erratic = baseline(&[walk(&[0, 1, 2, 3, 4, 5])], 0, 0.5);
        assert_eq!(erratic.proposed, 0, "confirmation is the better rule here");
        assert_eq!(baseline(&[walk(&[0, 1, 1])], 2, 0.5).triggers, 1);
    }

    #[test]
    fn utility_is_zero_at_the_threshold() {
        let score = Score { triggers: 20, proposed: 10, right: 4 };
        assert!(score.utility(0.4).abs() < 1e-6);
        assert!(score.utility(0.3) > 0.0);
    }
}
