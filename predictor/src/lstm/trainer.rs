//! Continuous training on the newest window.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::chunk::{Chunk, ROWS, batch, chunks};
use super::judge::{baseline, judge};
use super::model::Model;
use super::window::{Item, Window};
use super::{CLASSES, HIDDEN, Score, Vocabulary, Weights};
use crate::Access;
use crate::prefetch::{Settings, SettingsError};
use crate::random::Random;

/// Crossings that are kept: the newest quarter judges, the rest teaches.
const WINDOW: usize = 1 << 14;
/// Fewer crossings than this teach nothing worth installing.
const LEAST: usize = 256;
const LEARNING_RATE: f64 = 3e-3;

/// How much one round may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Optimiser steps, each on 32 sequences of `sequence_length`.
    pub steps: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { steps: 64 }
    }
}

/// Why a round failed: candle reports what should not occur with sound input.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A tensor operation failed.
    #[error("training failed: {0}")]
    Candle(#[from] candle_core::Error),
    /// The model grew beyond all numbers; it was set back to what is installed.
    #[error("training diverged; the model was reset")]
    Diverged,
}

/// What one round did.
#[derive(Clone, Debug, Default)]
pub struct TrainReport {
    /// Crossings in the window.
    pub crossings: usize,
    /// Optimiser steps made; 0 if there was too little to learn from.
    pub steps: usize,
    /// Mean cross-entropy of the last steps, in nats.
    pub loss: f32,
    /// The model trained now, on crossings newer than any it learned from.
    pub candidate: Score,
    /// The installed weights on the same crossings.
    pub installed: Option<Score>,
    /// "The next delta is the last one" on the same crossings.
    pub baseline: Score,
    /// To be installed on the cores: present only if the candidate won.
    pub weights: Option<Arc<Weights>>,
}

/// Owns the model, learns from what it is given, hands out winners.
///
/// Belongs on a background thread; the caller limits its share of time by
/// pausing between rounds. See [`crate::init`].
pub struct Trainer {
    settings: Settings,
    window: Window,
    random: Random,
    model: Option<Model>,
    installed: Option<Arc<Weights>>,
    serial: u64,
    trained_at: u64,
}

impl Trainer {
    /// A trainer that has seen nothing. Equal seeds and inputs give equal weights.
    ///
    /// # Errors
    /// If a setting is out of its range.
    pub fn new(settings: Settings, seed: u64) -> Result<Self, SettingsError> {
        settings.check()?;
        let window = Window::new(WINDOW);
        let random = Random::new(seed);
        let (model, installed) = (None, None);
        Ok(Self { settings, window, random, model, installed, serial: 0, trained_at: 0 })
    }

    /// Continues from weights kept earlier: they count as installed and training
    /// starts from them.
    pub fn resume(&mut self, weights: Arc<Weights>) {
        self.serial = self.serial.max(weights.serial);
        self.installed = Some(weights);
        self.model = None;
    }

    /// What the cores should run now.
    pub fn installed(&self) -> Option<&Arc<Weights>> {
        self.installed.as_ref()
    }

    /// Takes accesses of one client, in their order in time.
    pub fn push(&mut self, accesses: &[Access]) {
        self.push_from(0, accesses);
    }

    /// The same for several clients that share a model: their streams are kept
    /// apart by `client`.
    pub fn push_from(&mut self, client: u64, accesses: &[Access]) {
        self.window.push(client, accesses);
    }

    /// Crossings that came since the last round. Rounds pay from some hundred on;
    /// more often than that, winners are chosen on a window that hardly changed.
    pub fn fresh(&self) -> u64 {
        self.window.seen - self.trained_at
    }

    /// One round: learns from the older three quarters of the window, is judged
    /// on the newest quarter. The candidate wins if it is worth more there than
    /// the installed weights, the baseline, and staging nothing.
    ///
    /// # Errors
    /// If the model cannot be trained; the installed weights stay.
    pub fn train(&mut self, budget: Budget) -> Result<TrainReport, TrainError> {
        let crossings = self.window.len();
        let mut report = TrainReport { crossings, ..TrainReport::default() };
        self.trained_at = self.window.seen;
        let cut = crossings - crossings / 4;
        let sequences = self.window.sequences();
        if crossings < LEAST || budget.steps == 0 {
            return Ok(report);
        }
        self.prepare(cut)?;
        (report.steps, report.loss) = self.learn(&sequences, cut, budget)?;
        let candidate = self.export()?;
        let threshold = self.settings.stage_threshold;
        report.candidate = judge(&candidate, &sequences, cut, threshold);
        report.baseline = baseline(&sequences, cut, threshold);
        report.installed = self.installed.as_deref().map(|w| judge(w, &sequences, cut, threshold));
        let rival = report.installed.map_or(0.0, |score| score.utility(threshold));
        let rival = rival.max(report.baseline.utility(threshold)).max(0.0);
        if report.steps > 0 && report.candidate.utility(threshold) > rival {
            self.serial += 1;
            let winner = Arc::new(Weights { serial: self.serial, ..candidate });
            self.installed = Some(Arc::clone(&winner));
            report.weights = Some(winner);
        }
        Ok(report)
    }

    /// Makes the model, or moves it to a vocabulary that covers clearly more.
    fn prepare(&mut self, cut: usize) -> Result<(), TrainError> {
        let fresh = Vocabulary::learn(self.window.deltas(cut), CLASSES);
        let covered = |vocabulary: &Vocabulary| {
            let known = |delta: &i64| vocabulary.class(*delta) != Vocabulary::OTHER;
            self.window.deltas(cut).filter(known).count()
        };
        let current = match (&self.model, &self.installed) {
            (Some(model), _) => Some(model.export(self.serial)?),
            (None, Some(installed)) => Some(Weights::clone(installed)),
            (None, None) => None,
        };
        let weights = match current {
            None => Weights::untrained(fresh, HIDDEN, &mut self.random),
            Some(weights) if covered(&fresh) > covered(&weights.vocabulary) + cut / 50 => {
                weights.with_vocabulary(fresh, &mut self.random)
            }
            Some(_) if self.model.is_some() => return Ok(()),
            Some(weights) => weights,
        };
        self.model = Some(Model::new(&weights, LEARNING_RATE)?);
        Ok(())
    }

    fn export(&mut self) -> Result<Weights, TrainError> {
        let weights = self.model.as_ref().expect("prepared").export(self.serial)?;
        if weights.is_sound() {
            return Ok(weights);
        }
        self.model = None;
        Err(TrainError::Diverged)
    }

    /// Passes over the sequences before `cut` until the budget is spent.
    fn learn(
        &mut self,
        sequences: &[Vec<Item>],
        cut: usize,
        budget: Budget,
    ) -> Result<(usize, f32), TrainError> {
        let (mut steps, mut losses) = (0, 0.0);
        while steps < budget.steps {
            let weights = self.export()?;
            let mut chunks = chunks(&weights, sequences, cut, self.settings.sequence_length);
            if chunks.is_empty() {
                return Ok((0, 0.0));
            }
            // Equal lengths share a batch, so that little is padding.
            self.random.shuffle(&mut chunks);
            chunks.sort_by_key(|chunk| chunk.classes.len());
            let mut batches: Vec<&[Chunk]> = chunks.chunks(ROWS).collect();
            self.random.shuffle(&mut batches);
            let left = budget.steps - steps;
            for rows in batches.into_iter().take(left) {
                let loss = self.model.as_mut().expect("prepared").train(&batch(rows))?;
                steps += 1;
                losses += 0.1 * (loss - losses);
            }
        }
        Ok((steps, losses))
    }
}
