//! What all cores have learned, on one background thread with a cap on its share of a core.
//!
//! The learned predictor's models learn on the cores; this thread gathers them now and then,
//! makes one of a client's several and one of all for the pool, saves them with the pool, and
//! hands them round. It has the settings follow what prediction brings, too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use predictor::rank::{Model, Owner, Saved};

/// Pause without work: rare enough that an idle server stays idle.
const PAUSE: Duration = Duration::from_millis(500);
const RANKER_NAME: &str = "predictor.safetensors";
/// Time between two rounds of gathering.
const GATHER_EVERY: Duration = Duration::from_secs(60);

/// The training thread.
pub struct Training {
    ending: Arc<AtomicBool>,
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
    /// Starts the thread; `models` are those of an earlier run, `train_cpu` is its share of a
    /// core.
    pub fn start(
        data_dir: &Path,
        train_cpu: f32,
        models: Arc<Saved>,
        mut cores: Cores,
    ) -> std::io::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ending);
        let mut gathering = Gathering::new(data_dir, models);
        let body = move || {
            while !stop.load(Ordering::Acquire) {
                let begin = Instant::now();
                gathering.turn(&cores);
                (cores.tune)();
                rest(begin.elapsed(), train_cpu, &stop);
            }
            gathering.gather(&cores);
        };
        let thread = std::thread::Builder::new().name("training".into()).spawn(body)?;
        Ok(Self { ending, thread })
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
