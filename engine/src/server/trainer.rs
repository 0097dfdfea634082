//! Continuous training, on one background thread with a cap on its share of a core.
//!
//! Cores push what they see into a bounded queue; this thread trains the LSTM on it, and
//! hands new weights to the cores only when they predict the newest window better than those
//! in use. The learned predictor's models learn on the cores; this thread gathers them now
//! and then, makes one of a client's several and one of all for the pool, and hands them
//! round. All of it is saved with the pool.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use predictor::Access;
use predictor::lstm::{Budget, Trainer, Weights};
use predictor::prefetch::Settings;
use predictor::rank::{Model, Owner, Saved};

use super::observe::Lesson;
use crate::units::ClientId;

/// Accesses that may wait to be learned from.
pub const LESSONS: usize = 1 << 15;
/// Fewer new accesses than this are not worth a round.
const MIN_FRESH: u64 = 512;
/// Optimiser steps of a round.
const STEPS: usize = 64;
/// Pause without work: rare enough that an idle server stays idle.
const PAUSE: Duration = Duration::from_millis(500);
const MODEL_NAME: &str = "model.bin";
const RANKER_NAME: &str = "predictor.safetensors";
/// Time between two rounds of gathering.
const GATHER_EVERY: Duration = Duration::from_secs(60);

/// The training thread.
pub struct Training {
    ending: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// The weights that an earlier run has saved, if they can be read.
pub fn saved_weights(data_dir: &Path) -> Option<Arc<Weights>> {
    let path = data_dir.join(MODEL_NAME);
    let bytes = fs::read(&path).ok()?;
    match Weights::from_bytes(&bytes) {
        Ok(weights) => Some(Arc::new(weights)),
        Err(error) => {
            tracing::warn!(%error, "{}: not usable, learning anew", path.display());
            None
        }
    }
}

/// The learned predictor's models that an earlier run has saved, if they can be read.
pub fn saved_models(data_dir: &Path) -> Saved {
    let path = data_dir.join(RANKER_NAME);
    if !path.exists() {
        return Saved::default();
    }
    Saved::load(&path).unwrap_or_else(|error| {
        tracing::warn!(%error, "{}: not usable, learning anew", path.display());
        Saved::default()
    })
}

/// What the training thread reaches the cores by.
pub struct Cores {
    /// Hands weights of the LSTM to them.
    pub publish: Box<dyn Fn(Arc<Weights>) + Send>,
    /// What all their models have learned.
    pub learned: Box<dyn Fn() -> Vec<(Owner, Model)> + Send>,
    /// Hands models round.
    pub remember: Box<dyn Fn(Arc<Saved>) + Send>,
    /// Looks at what prediction brings, and adjusts it.
    pub tune: Box<dyn FnMut() + Send>,
}

/// The learned predictor's models, gathered now and then.
struct Gathering {
    path: PathBuf,
    saved: Arc<Saved>,
    last: Instant,
}

impl Gathering {
    fn new(data_dir: &Path, saved: Arc<Saved>) -> Gathering {
        Gathering { path: data_dir.join(RANKER_NAME), saved, last: Instant::now() }
    }

    /// Gathers, saves and hands round, if it is time.
    fn turn(&mut self, cores: &Cores) {
        if self.last.elapsed() < GATHER_EVERY {
            return;
        }
        if self.gather(cores) {
            (cores.remember)(Arc::clone(&self.saved));
        }
    }

    /// Gathers and saves; true if there was anything new.
    fn gather(&mut self, cores: &Cores) -> bool {
        self.last = Instant::now();
        let learned = (cores.learned)();
        if learned.is_empty() {
            return false;
        }
        self.saved = Arc::new(Saved::gather(&self.saved, learned));
        if let Err(error) = self.saved.save(&self.path) {
            tracing::warn!(%error, "{}: the models are not saved", self.path.display());
        }
        true
    }
}

impl Training {
    /// Starts learning.
    pub fn start(
        data_dir: &Path,
        settings: Settings,
        train_cpu: f32,
        saved: Option<Arc<Weights>>,
        models: Arc<Saved>,
        lessons: Arc<ArrayQueue<Lesson>>,
        mut cores: Cores,
    ) -> std::io::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let swaps = Arc::new(AtomicU64::new(0));
        let (stop, count) = (Arc::clone(&ending), Arc::clone(&swaps));
        let path = data_dir.join(MODEL_NAME);
        let mut gathering = Gathering::new(data_dir, models);
        let body = move || {
            let Ok(mut trainer) = Trainer::new(settings, 1) else {
                return tracing::error!("the predictor's settings are out of range: no training");
            };
            if let Some(saved) = saved {
                trainer.resume(saved);
            }
            while !stop.load(Ordering::Acquire) {
                let spent = round(&mut trainer, &lessons, &path, &count, &cores.publish);
                let begin = Instant::now();
                gathering.turn(&cores);
                (cores.tune)();
                rest(spent + begin.elapsed(), train_cpu, &stop);
            }
            gathering.gather(&cores);
        };
        let thread = std::thread::Builder::new().name("training".into()).spawn(body)?;
        Ok(Self { ending, swaps, thread })
    }

    /// Times that new weights have won.
    pub fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Relaxed)
    }

    /// Ends after the round under way.
    pub fn stop(self) {
        self.ending.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the training thread panicked");
        }
    }
}

/// Learns from what has come in; returns the time it took.
fn round(
    trainer: &mut Trainer,
    lessons: &ArrayQueue<Lesson>,
    path: &Path,
    swaps: &AtomicU64,
    publish: &impl Fn(Arc<Weights>),
) -> Duration {
    let begin = Instant::now();
    let mut by_client: HashMap<ClientId, Vec<Access>> = HashMap::new();
    for _ in 0..lessons.len() {
        let Some((client, access)) = lessons.pop() else { break };
        by_client.entry(client).or_default().push(access);
    }
    for (client, accesses) in by_client {
        trainer.push_from(client.get(), &accesses);
    }
    if trainer.fresh() < MIN_FRESH {
        return Duration::ZERO;
    }
    match trainer.train(Budget { steps: STEPS }) {
        Ok(report) => {
            if let Some(weights) = report.weights {
                swaps.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    serial = weights.serial(),
                    crossings = report.crossings,
                    "new weights win on the newest window"
                );
                if let Err(error) = save(path, &weights) {
                    tracing::warn!(%error, "{}: the model is not saved", path.display());
                }
                publish(weights);
            }
        }
        Err(error) => tracing::warn!(%error, "a training round failed"),
    }
    begin.elapsed()
}

fn save(path: &Path, weights: &Weights) -> std::io::Result<()> {
    let fresh: PathBuf = path.with_extension("new");
    fs::write(&fresh, weights.to_bytes())?;
    fs::rename(fresh, path)
}

/// Pauses so that training takes at most `share` of a core.
fn rest(spent: Duration, share: f32, stop: &AtomicBool) {
    let factor = (1.0 / share.clamp(0.01, 1.0) - 1.0).max(0.0);
    let until = Instant::now() + PAUSE.max(spent.mul_f32(factor));
    while !stop.load(Ordering::Acquire) {
        let Some(left) = until.checked_duration_since(Instant::now()) else { return };
        std::thread::park_timeout(left);
    }
}
