//! What all cores have learned, on one background thread with a cap on its share of a core.
//!
//! The learned predictor's models learn on the cores; this thread gathers them now and then,
//! makes one of a client's several and one of all for the pool, saves them with the pool, and
//! hands them round. It trains the tower ([`Tower`]), and has the settings follow what
//! prediction brings, too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use predictor::deep;
use predictor::rank::{Model, Owner, Saved};

use super::tower::Tower;
use crate::core::cpus::give_way;

/// Pause without work: rare enough that an idle server stays idle.
const PAUSE: Duration = Duration::from_millis(500);
const RANKER_NAME: &str = "predictor.safetensors";
/// Time between two rounds of gathering.
const GATHER_EVERY: Duration = Duration::from_secs(60);

/// The training thread.
pub struct Training {
    ending: Arc<AtomicBool>,
    towers_won: Arc<AtomicU64>,
    thread: JoinHandle<()>,
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
    /// What all their models have learned.
    pub learned: Box<dyn Fn() -> Vec<(Owner, Model)> + Send>,
    /// Hands models round.
    pub remember: Box<dyn Fn(Arc<Saved>) + Send>,
    /// Has their towers run a model, which may be trained.
    pub install: Box<dyn Fn(Arc<deep::Model>, bool) + Send>,
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

    /// Gathers, saves and hands round, if it is time; true if it was.
    fn turn(&mut self, cores: &Cores) -> bool {
        let due = self.last.elapsed() >= GATHER_EVERY;
        if due && self.gather(cores) {
            (cores.remember)(Arc::clone(&self.saved));
        }
        due
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
    /// Starts the thread; `models` are those of an earlier run, `train_cpu` is its share of a
    /// core. It gives way to the cores, which have all CPUs but `spare`.
    pub fn start(
        data_dir: &Path,
        train_cpu: f32,
        spare: Vec<usize>,
        models: Arc<Saved>,
        mut tower: Tower,
        mut cores: Cores,
    ) -> std::io::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let towers_won = Arc::new(AtomicU64::new(0));
        let (stop, won) = (Arc::clone(&ending), Arc::clone(&towers_won));
        let mut gathering = Gathering::new(data_dir, models);
        let body = move || {
            give_way(&spare);
            let hand_out = |tower: &Tower, cores: &Cores| {
                let (model, trained) = tower.model();
                (cores.install)(model, trained);
            };
            hand_out(&tower, &cores);
            while !stop.load(Ordering::Acquire) {
                let begin = Instant::now();
                if tower.turn() {
                    hand_out(&tower, &cores);
                    won.store(tower.won(), Ordering::Relaxed);
                }
                if gathering.turn(&cores) {
                    tower.save();
                }
                (cores.tune)();
                rest(begin.elapsed(), train_cpu, &stop);
            }
            gathering.gather(&cores);
            tower.save();
        };
        let thread = std::thread::Builder::new().name("training".into()).spawn(body)?;
        Ok(Self { ending, towers_won, thread })
    }

    /// Models of the tower that have won against the one before.
    pub fn towers_won(&self) -> u64 {
        self.towers_won.load(Ordering::Relaxed)
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

/// Pauses so that the thread takes at most `share` of a core.
fn rest(spent: Duration, share: f32, stop: &AtomicBool) {
    let factor = (1.0 / share.clamp(0.01, 1.0) - 1.0).max(0.0);
    let until = Instant::now() + PAUSE.max(spent.mul_f32(factor));
    while !stop.load(Ordering::Acquire) {
        let Some(left) = until.checked_duration_since(Instant::now()) else { return };
        std::thread::park_timeout(left);
    }
}
