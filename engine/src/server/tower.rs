//! Training of the ranker's tower, on the background thread.
//!
//! Cores hand settled crossings over through a bounded queue; what does not fit is lost, for
//! a sample teaches, too. A model that wins is handed to all cores, and kept for the next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use predictor::deep::{Crossing, Model, TrainError, Trainer};

const NAME: &str = "tower.safetensors";
/// Crossings that may wait: 1.5 MB.
const WAITING: usize = 2048;
/// Every server learns alike.
const SEED: u64 = 1;

/// Settled crossings on their way from the cores.
pub type Settled = Arc<ArrayQueue<Crossing>>;

/// Makes the queue.
pub fn queue() -> Settled {
    Arc::new(ArrayQueue::new(WAITING))
}

/// The trainer with what it is fed from.
pub struct Tower {
    trainer: Trainer,
    settled: Settled,
    path: PathBuf,
    /// There is a model that has not been saved.
    fresh: bool,
}

impl Tower {
    /// Continues from the model that an earlier run has saved, if it can be read; learns from
    /// so many crossings of a client in a row.
    ///
    /// # Errors
    /// If candle refuses.
    pub fn new(data_dir: &Path, length: usize, settled: Settled) -> Result<Tower, TrainError> {
        let path = data_dir.join(NAME);
        let known = path.exists().then(|| Model::load(&path));
        let trainer = match known {
            Some(Ok(model)) => Trainer::resume(model, SEED)?,
            Some(Err(error)) => {
                tracing::warn!(%error, "{}: not usable, learning anew", path.display());
                Trainer::new(SEED)?
            }
            None => Trainer::new(SEED)?,
        };
        let trainer = trainer.with_length(length);
        Ok(Tower { trainer, settled, path, fresh: false })
    }

    /// The model in use, and whether it is trained.
    pub fn model(&self) -> (Arc<Model>, bool) {
        (Arc::clone(self.trainer.model()), self.trainer.is_trained())
    }

    /// Models that have won.
    pub fn won(&self) -> u64 {
        self.trainer.won()
    }

    /// Learns from what has come; true if the model in use is another now.
    pub fn turn(&mut self) -> bool {
        let mut due = false;
        for _ in 0..self.settled.len() {
            let Some(crossing) = self.settled.pop() else { break };
            due = self.trainer.push(&crossing);
        }
        if !due {
            return false;
        }
        let won = self.trainer.round().unwrap_or_else(|error| {
            tracing::warn!(%error, "a training round failed");
            false
        });
        self.fresh |= won && self.trainer.is_trained();
        won
    }

    /// Saves the model, if it has changed.
    pub fn save(&mut self) {
        if !std::mem::take(&mut self.fresh) {
            return;
        }
        if let Err(error) = self.trainer.model().save(&self.path) {
            tracing::warn!(%error, "{}: the model is not saved", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use predictor::deep::{Candidate, Context, State, Window};

    /// Rounds of crossings with a candidate that comes at every other one.
    fn teach(tower: &mut Tower, rounds: u64) {
        let mut window = Window::new();
        for now in 0..256 * rounds {
            let context = Context { step: now.cast_signed() % 2, ..Context::default() };
            window.open(1, now, context.rows(), State::NONE);
            let candidate = Candidate { distance: Some(1), ..Candidate::default() };
            let tag = window.add(candidate.rows(&context));
            if now % 2 == 0 {
                window.came(tag);
            }
            let crossing = window.settled(now + 1).expect("the one just opened");
            tower.settled.push(*crossing).expect("there is room");
            if now % 256 == 255 {
                tower.turn();
            }
        }
    }

    #[test]
    fn what_was_learned_is_there_after_a_restart_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut tower = Tower::new(dir.path(), 16, queue()).unwrap();
        assert!(!tower.model().1, "nothing is known yet");
        teach(&mut tower, 1);
        tower.save();
        assert!(!dir.path().join(NAME).exists(), "too little is");
        teach(&mut tower, 20);
        let (model, trained) = tower.model();
        assert!(trained && tower.won() > 5, "{} won", tower.won());
        tower.save();
        let again = Tower::new(dir.path(), 16, queue()).unwrap();
        assert!(again.model() == (model, true) && again.won() == 0);

        std::fs::write(dir.path().join(NAME), b"nonsense").unwrap();
        let anew = Tower::new(dir.path(), 16, queue()).unwrap();
        assert!(!anew.model().1);
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let queue = queue();
        let mut window = Window::new();
        window.open(1, 0, Context::default().rows(), State::NONE);
        let crossing = *window.settled(1).unwrap();
        assert!((0..WAITING).all(|_| queue.push(crossing).is_ok()));
        assert!(queue.push(crossing).is_err());
    }
}
