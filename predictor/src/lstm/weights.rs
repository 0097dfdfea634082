//! The model as plain arrays, in the order in which a core reads them.
#![forbid(unsafe_code)]

use super::{MAX_CLASSES, MAX_HIDDEN, Vocabulary};
use crate::random::Random;

/// Weights of one trained model; immutable, shared by `Arc`.
///
/// With V classes and H hidden units; gates stand in the order input, forget,
/// cell, output, as in candle.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    pub(super) serial: u64,
    pub(super) hidden: usize,
    pub(super) vocabulary: Vocabulary,
    /// V × 4H: what a class adds to the gates, biases included.
    pub(super) gates: Vec<f32>,
    /// H × 4H: what a hidden unit adds to the gates.
    pub(super) recurrent: Vec<f32>,
    /// H × V: what a hidden unit adds to the logits.
    pub(super) head: Vec<f32>,
    /// V: bias of the logits.
    pub(super) bias: Vec<f32>,
}

impl Weights {
    /// Counts the versions of a model; larger is newer.
    pub fn serial(&self) -> u64 {
        self.serial
    }
    /// Hidden units.
    pub fn hidden(&self) -> usize {
        self.hidden
    }
    /// The classes it speaks of.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
    /// Trained parameters.
    pub fn parameters(&self) -> usize {
        self.gates.len() + self.recurrent.len() + self.head.len() + self.bias.len()
    }

    /// An untrained model: uniform in ±1/√H, the forget gate biased by 1 so that
    /// memory is kept until training says otherwise.
    pub(super) fn untrained(vocabulary: Vocabulary, hidden: usize, random: &mut Random) -> Self {
        assert!(is_hidden(hidden));
        let classes = vocabulary.classes();
        let bound = 1.0 / (hidden as f32).sqrt();
        let mut uniform =
            |len: usize| -> Vec<f32> { (0..len).map(|_| random.symmetric(bound)).collect() };
        let mut gates = uniform(classes * 4 * hidden);
        for row in gates.chunks_exact_mut(4 * hidden) {
            row[hidden..2 * hidden].iter_mut().for_each(|gate| *gate += 1.0);
        }
        let (recurrent, head) = (uniform(hidden * 4 * hidden), uniform(hidden * classes));
        Self { serial: 0, hidden, vocabulary, gates, recurrent, head, bias: vec![0.0; classes] }
    }

    /// The same model for another vocabulary: classes of known deltas keep what
    /// they learned, new ones start untrained.
    pub(super) fn with_vocabulary(&self, vocabulary: Vocabulary, random: &mut Random) -> Self {
        let (hidden, classes) = (self.hidden, self.vocabulary.classes());
        let mut next = Self::untrained(vocabulary, hidden, random);
        let next_classes = next.vocabulary.classes();
        next.serial = self.serial;
        next.recurrent.clone_from(&self.recurrent);
        for new in 0..next_classes {
            let old = match next.vocabulary.delta(new) {
                None => new,
                Some(delta) => match self.vocabulary.class(delta) {
                    Vocabulary::OTHER => continue,
                    class => usize::from(class),
                },
            };
            let (from, to) = (old * 4 * hidden, new * 4 * hidden);
            next.gates[to..to + 4 * hidden].copy_from_slice(&self.gates[from..from + 4 * hidden]);
            for unit in 0..hidden {
                next.head[unit * next_classes + new] = self.head[unit * classes + old];
            }
            next.bias[new] = self.bias[old];
        }
        next
    }

    /// Holds between construction and use: sizes agree, every number is finite.
    pub(super) fn is_sound(&self) -> bool {
        let (hidden, classes) = (self.hidden, self.vocabulary.classes());
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        is_hidden(hidden)
            && classes <= MAX_CLASSES
            && self.gates.len() == classes * 4 * hidden
            && self.recurrent.len() == hidden * 4 * hidden
            && self.head.len() == hidden * classes
            && self.bias.len() == classes
            && [&self.gates, &self.recurrent, &self.head, &self.bias].iter().all(|v| finite(v))
    }
}

/// Hidden sizes that [`super::Inference`] runs: multiples of four up to the limit.
pub(super) fn is_hidden(hidden: usize) -> bool {
    hidden > 0 && hidden <= MAX_HIDDEN && hidden.is_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_vocabulary_keeps_what_was_learned() {
        let mut random = Random::new(1);
        let old =
            Weights::untrained(Vocabulary::from_deltas(vec![1, 2, 3]).unwrap(), 8, &mut random);
        let new = old.with_vocabulary(Vocabulary::from_deltas(vec![7, 3]).unwrap(), &mut random);
        assert!(old.is_sound() && new.is_sound());
        assert_eq!(new.recurrent, old.recurrent);
        assert_eq!(new.gates[3 * 32..4 * 32], old.gates[4 * 32..5 * 32]);
        assert_eq!(new.head[4 + 3], old.head[5 + 4]);
        assert_eq!(new.gates[..64], old.gates[..64]);
    }
}
