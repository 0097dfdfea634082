//! Continuous training on settled crossings.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::network::{Batch, Network};
use super::{Crossing, Model, Replay};
use crate::odds::log_loss;
use crate::random::Random;

/// Crossings between two rounds.
const SLICE: u64 = 256;
/// Steps of the optimiser in a round.
const STEPS: usize = 6;
/// Sequences of a step.
const SEQUENCES: usize = 8;
/// Crossings in each, if nothing else is asked for.
const LENGTH: usize = 32;
/// Half of the sequences begin among so many of the newest crossings, half among all kept.
const FRESH: u64 = 2048;
/// Sequences' worth of crossings before the first round.
const LEAST: u64 = 4;
/// Steps after which a model is worth running.
const TRAINED: u64 = 50;

/// Why a round failed: candle reports what should not occur with sound input.
#[derive(Debug, thiserror::Error)]
#[error("training failed: {0}")]
pub struct TrainError(#[from] candle_core::Error);

/// Learns from crossings, hands out models.
///
/// Each round ends with a rival of the model in use, which takes its place if it foretells
/// better what comes until the next round: neither has learned from that.
///
/// Belongs on a background thread; the caller limits its share of time by pausing between
/// rounds. See [`crate::init`].
pub struct Trainer {
    network: Network,
    /// Crossings of a client that are learned from in a row.
    length: usize,
    replay: Replay,
    random: Random,
    /// The model in use, and the steps that made it.
    model: Arc<Model>,
    made_by: u64,
    /// As the last round left the network, if all its numbers are finite.
    rival: Option<Arc<Model>>,
    steps: u64,
    fresh: u64,
    won: u64,
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
        Ok(Trainer {
            network,
            length: LENGTH,
            replay: Replay::new(),
            random,
            model: Arc::new(model),
            made_by: steps,
            rival: None,
            steps,
            fresh: 0,
            won: 0,
            dropped: 0,
        })
    }

    /// The same, learning from so many crossings of a client in a row.
    ///
    /// # Panics
    /// If that is none.
    #[must_use]
    pub fn with_length(self, length: usize) -> Trainer {
        assert!(length > 0, "a sequence has crossings");
        Trainer { length, ..self }
    }

    /// Takes a settled crossing; those of a client come in order. True if a round is due.
    pub fn push(&mut self, crossing: &Crossing) -> bool {
        self.replay.push(crossing);
        self.fresh += 1;
        self.fresh >= SLICE
    }

    /// The model in use: the encoder's states in the crossings should come from it.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The model has learned enough to be asked.
    pub fn is_trained(&self) -> bool {
        self.made_by >= TRAINED
    }

    /// Models that have won against the one before.
    pub fn won(&self) -> u64 {
        self.won
    }

    /// Rounds whose weights outgrew all numbers and were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// One round; true if the model in use is another now.
    ///
    /// # Errors
    /// If candle refuses; the model stays.
    pub fn round(&mut self) -> Result<bool, TrainError> {
        let won = self.contest();
        self.fresh = 0;
        let kept = self.replay.serials();
        if kept.end - kept.start < LEAST * self.length as u64 {
            return Ok(won);
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
        self.rival = self.network.export()?.filter(|_| sound).map(Arc::new);
        if self.rival.is_none() {
            self.network = Network::new(&self.model)?;
            self.dropped += 1;
        }
        Ok(won)
    }

    /// Whether the rival foretells the crossings since the last round better than the model in
    /// use; it takes its place if so.
    fn contest(&mut self) -> bool {
        let Some(rival) = self.rival.take() else { return false };
        let kept = self.replay.serials();
        let newest = kept.end.saturating_sub(self.fresh).max(kept.start)..kept.end;
        let crossings = newest.map(|serial| self.replay.get(serial));
        let lead: f32 =
            crossings.map(|crossing| loss(&self.model, crossing) - loss(&rival, crossing)).sum();
        let wins = lead > 0.0;
        if wins {
            (self.model, self.made_by) = (rival, self.steps);
            self.won += 1;
        }
        wins
    }

    /// Sequences that begin anywhere.
    fn draw(&mut self) -> Batch {
        let kept = self.replay.serials();
        let end = kept.end - self.length as u64;
        let starts: [u64; SEQUENCES] = std::array::from_fn(|n| {
            let first = if n % 2 == 0 { kept.end.saturating_sub(FRESH) } else { 0 };
            let first = first.clamp(kept.start, end);
            first + self.random.below(end - first + 1)
        });
        let sequences =
            starts.map(|start| self.replay.from(start, self.length).collect::<Vec<&Crossing>>());
        Batch::new(&sequences, self.length)
    }
}

/// How badly a model foretells the outcomes of a crossing: their log loss.
fn loss(model: &Model, crossing: &Crossing) -> f32 {
    let mut state = crossing.state;
    model.step(&mut state, &crossing.rows);
    let view = model.view(&state);
    let samples = crossing.samples().iter();
    samples.map(|sample| log_loss(model.odds(&view, &sample.rows), sample.came)).sum()
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
        trainer.round().unwrap();
        assert_eq!((trainer.dropped(), trainer.model()), (1, &before));
        let mut sane = Riddle::new(3);
        for _ in 0..1 << 15 {
            trainer.push(&sane.next(&before).0);
        }
        assert!(!trainer.round().unwrap(), "a rival has to win first");
        let won = (0..20).any(|_| {
            for _ in 0..SLICE {
                trainer.push(&sane.next(&before).0);
            }
            trainer.round().unwrap()
        });
        assert!(won, "it goes on from the last that was sound");
        assert!(trainer.dropped() == 1 && trainer.model() != &before);
    }

    #[test]
    fn a_rival_that_foretells_worse_is_not_taken() {
        let mut trainer = taught(1, 60);
        let won = trainer.won();
        assert!(won > 20, "{won} of 60 rounds brought a better one");
        let before = Arc::clone(trainer.model());
        trainer.rival = Some(Arc::new(Model::untrained(&mut Random::new(9))));
        let mut riddle = Riddle::new(4);
        for _ in 0..SLICE {
            trainer.push(&riddle.next(&before).0);
        }
        assert!(!trainer.round().unwrap());
        assert_eq!((trainer.won(), trainer.model()), (won, &before));
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
