//! Continuous training on settled crossings.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::network::{Batch, Network};
use super::{Crossing, Model, Replay};
use crate::random::Random;

/// Crossings between two rounds.
const SLICE: u64 = 256;
/// Steps of the optimiser in a round.
const STEPS: usize = 6;
/// Sequences of a step, and crossings in each.
const SEQUENCES: usize = 8;
const LENGTH: usize = 32;
/// Half of the sequences begin among so many of the newest crossings, half among all kept.
const FRESH: u64 = 2048;
/// Crossings before the first round.
const LEAST: u64 = 4 * LENGTH as u64;
/// Steps after which a model is worth running.
const TRAINED: u64 = 50;

/// Why a round failed: candle reports what should not occur with sound input.
#[derive(Debug, thiserror::Error)]
#[error("training failed: {0}")]
pub struct TrainError(#[from] candle_core::Error);

/// Learns from crossings, hands out models.
///
/// Belongs on a background thread; the caller limits its share of time by pausing between
/// rounds. See [`crate::init`].
pub struct Trainer {
    network: Network,
    replay: Replay,
    random: Random,
    /// The newest model whose numbers are all finite.
    model: Arc<Model>,
    steps: u64,
    fresh: u64,
    dropped: u64,
}

impl Trainer {
    /// A trainer that has seen nothing. Equal seeds and inputs give equal models.
    ///
    /// # Errors
    /// If candle refuses.
    pub fn new(seed: u64) -> Result<Trainer, TrainError> {
        let mut random = Random::new(seed);
        let model = Model::untrained(&mut random);
        Trainer::begin(model, random, 0)
    }

    /// The same, continuing from a model kept earlier.
    ///
    /// # Errors
    /// If candle refuses.
    pub fn resume(model: Model, seed: u64) -> Result<Trainer, TrainError> {
        Trainer::begin(model, Random::new(seed), TRAINED)
    }

    fn begin(model: Model, random: Random, steps: u64) -> Result<Trainer, TrainError> {
        let network = Network::new(&model)?;
        let (replay, model) = (Replay::new(), Arc::new(model));
        Ok(Trainer { network, replay, random, model, steps, fresh: 0, dropped: 0 })
    }

    /// Takes a settled crossing; those of a client come in order. True if a round is due.
    pub fn push(&mut self, crossing: &Crossing) -> bool {
        self.replay.push(crossing);
        self.fresh += 1;
        self.fresh >= SLICE
    }

    /// The newest model: the encoder's states in the crossings should come from it.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The model has learned enough to be asked.
    pub fn is_trained(&self) -> bool {
        self.steps >= TRAINED
    }

    /// Rounds whose weights outgrew all numbers and were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// One round; true if there is a newer model.
    ///
    /// # Errors
    /// If candle refuses; the model stays.
    pub fn round(&mut self) -> Result<bool, TrainError> {
        self.fresh = 0;
        let kept = self.replay.serials();
        if kept.end - kept.start < LEAST {
            return Ok(false);
        }
        let mut sound = true;
        for _ in 0..STEPS {
            let batch = self.draw();
            if batch.len() == 0 {
                continue;
            }
            sound &= self.network.train(&batch)?.is_finite();
            self.steps += 1;
        }
        let model = self.network.export()?.filter(|_| sound);
        match model {
            Some(model) => self.model = Arc::new(model),
            None => {
                self.network = Network::new(&self.model)?;
                self.dropped += 1;
            }
        }
        Ok(sound)
    }

    /// Sequences that begin anywhere.
    fn draw(&mut self) -> Batch {
        let kept = self.replay.serials();
        let end = kept.end - LENGTH as u64;
        let starts: [u64; SEQUENCES] = std::array::from_fn(|n| {
            let first = if n % 2 == 0 { kept.end.saturating_sub(FRESH) } else { 0 };
            let first = first.clamp(kept.start, end);
            first + self.random.below(end - first + 1)
        });
        let sequences =
            starts.map(|start| self.replay.from(start, LENGTH).collect::<Vec<&Crossing>>());
        Batch::new(&sequences, LENGTH)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Candidate, Context, State, Window};
    use super::*;

    /// Crossings between a symbol and the question that depends on it.
    const LATER: u64 = 10;

    /// Crossings of one client. At one in twelve it takes a step of +3 or -3, at random; ten
    /// crossings later there are two candidates, and which of them comes depends on that step.
    /// Nothing else does: nobody who sees the later crossing alone can tell.
    struct Riddle {
        random: Random,
        window: Window,
        state: State,
        now: u64,
        up: bool,
    }

    impl Riddle {
        fn new(seed: u64) -> Riddle {
            let (random, window) = (Random::new(seed), Window::new());
            Riddle { random, window, state: State::NONE, now: 0, up: false }
        }

        /// The next crossing, with what the model says of the two candidates if there are any:
        /// true if it is right.
        fn next(&mut self, model: &Model) -> (Crossing, Option<bool>) {
            let phase = self.now % (LATER + 2);
            if phase == 0 {
                self.up = self.random.below(2) == 0;
            }
            let step = match phase {
                0 if self.up => 3,
                0 => -3,
                LATER => 9,
                _ => 1,
            };
            let context = Context { step, ..Context::default() };
            self.window.open(1, self.now, context.rows(), self.state);
            model.step(&mut self.state, &context.rows());
            self.now += 1;
            let view = model.view(&self.state);
            let answer = (phase == LATER).then(|| {
                let [one, other] = [500, -500].map(|distance| {
                    Candidate { distance: Some(distance), ..Candidate::default() }.rows(&context)
                });
                let (first, second) = (self.window.add(one), self.window.add(other));
                self.window.came(if self.up { first } else { second });
                (model.odds(&view, &one) > model.odds(&view, &other)) == self.up
            });
            (*self.window.settled(self.now).expect("nothing waits"), answer)
        }

        /// Right answers of so many.
        fn ask(&mut self, model: &Model, forgetful: bool, questions: usize) -> usize {
            let (mut asked, mut right) = (0, 0);
            while asked < questions {
                if forgetful {
                    self.state = State::NONE;
                }
                let (_, answer) = self.next(model);
                asked += usize::from(answer.is_some());
                right += usize::from(answer == Some(true));
            }
            right
        }
    }

    fn taught(seed: u64, rounds: u32) -> Trainer {
        let mut trainer = Trainer::new(seed).unwrap();
        let mut riddle = Riddle::new(2);
        let mut done = 0;
        while done < rounds {
            let (crossing, _) = riddle.next(&Arc::clone(trainer.model()));
            if trainer.push(&crossing) {
                trainer.round().unwrap();
                done += 1;
            }
        }
        trainer
    }

    #[test]
    fn what_was_seen_ten_crossings_ago_is_learned() {
        let trainer = taught(1, 120);
        assert!(trainer.is_trained() && trainer.dropped() == 0);
        let right = Riddle::new(99).ask(trainer.model(), false, 400);
        assert!(right >= 390, "{right} of 400");
        let blind = Riddle::new(99).ask(trainer.model(), true, 400);
        assert!((120..=280).contains(&blind), "{blind} of 400 without memory");
    }

    #[test]
    fn equal_seeds_give_equal_models() {
        let (one, other) = (taught(5, 3), taught(5, 3));
        assert_eq!(one.model(), other.model());
        assert_ne!(one.model(), taught(6, 3).model());
    }

    #[test]
    fn rounds_that_end_in_no_numbers_are_dropped() {
        let mut trainer = taught(1, 2);
        let before = Arc::clone(trainer.model());
        let mut riddle = Riddle::new(2);
        riddle.state.c[0] = f32::NAN;
        for _ in 0..2 * FRESH {
            let (crossing, _) = riddle.next(&before);
            trainer.push(&crossing);
        }
        assert!(!trainer.round().unwrap());
        assert_eq!((trainer.dropped(), trainer.model()), (1, &before));
        let mut sane = Riddle::new(3);
        for _ in 0..1 << 15 {
            trainer.push(&sane.next(&before).0);
        }
        assert!(trainer.round().unwrap(), "it goes on from the last that was sound");
        assert_ne!(trainer.model(), &before);
    }

    #[test]
    fn a_model_kept_earlier_is_trained_already() {
        let trainer = taught(1, 1);
        assert!(!trainer.is_trained());
        let model = Model::clone(trainer.model());
        let mut resumed = Trainer::resume(model.clone(), 1).unwrap();
        assert_eq!(**resumed.model(), model);
        assert!(resumed.is_trained());
        assert!(!resumed.round().unwrap(), "nothing to learn from");
    }
}
