//! The control thread: opens everything, waits for clients and signals, stops everything.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use predictor::online::Change;
use predictor::rank::{Ranker, Saved};
use rustix::event::{PollFd, PollFlags, poll};

use super::ServeError;
use super::admin;
use super::command::{Command, CoreMessage, CoreStats, Outcome};
use super::heat::{self, HeatThread};
use super::notify::{self, notify};
use super::nvmf::Fabric;
use super::open;
use super::prediction;
use super::recorder::Recorder;
use super::start::{self, CoreEnd, Kit, predictor_settings};
use super::tower::{self, Settled, Tower};
use super::trainer::{self, Training};
use crate::admin::config::Config;
use crate::admin::listener::NbdListener;
use crate::admin::protocol::PrefetchKind;
use crate::core::executor::{CoreThread, ExecutorError};
use crate::core::mailbox::Control as Mail;
use crate::device::Store;
use crate::pool::Pool;
use crate::pool::space_map::SpaceMap;
use crate::pool::stores::StorePool;
use crate::target::nbd::listener::{Address, Listener};
use crate::target::nvmf::fabric::Handle;
use crate::units::CoreId;
use crate::volume::catalog::Catalog;

/// Pause after the system had no room for another socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What admin requests work on; one at a time.
pub struct State {
    /// The volumes.
    pub catalog: Catalog,
    /// Synchronous access to the catalog's journal.
    pub io: StorePool,
    /// The trace being recorded.
    pub recorder: Option<Recorder>,
    /// Counters at the last reset.
    pub baseline: (Instant, Vec<CoreStats>),
    /// Who prefetches.
    pub prefetch: PrefetchKind,
    /// The predictor's settings in force.
    pub settings: predictor::prefetch::Settings,
    /// What the server has changed in them by itself, newest last, and when.
    pub changes: VecDeque<(Instant, Change)>,
    /// Bytes that stages may take on each core.
    pub stage_budget: u64,
}

/// The control side of a running server.
pub struct Server {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The configuration in force.
    pub config: Config,
    /// Identity and geometry.
    pub pool: Pool,
    /// The devices.
    pub stores: Vec<Arc<Store>>,
    /// Their paths.
    pub paths: Vec<PathBuf>,
    /// Free and taken space.
    pub space: Arc<SpaceMap>,
    /// What admin requests work on.
    pub state: Mutex<State>,
    mail: Mutex<Mail<CoreMessage>>,
    /// Where clients attach, as URIs.
    pub listeners: Vec<String>,
    /// When serving began.
    pub since: Instant,
    /// Ends the control thread's wait.
    stop: UnixStream,
    /// The training thread, until the server stops.
    pub training: Mutex<Option<Training>>,
    /// The thread that follows the heat of volumes, until the server stops.
    pub heat: Mutex<Option<HeatThread>>,
    /// To the NVMe/TCP target's fabric thread, where there is one.
    pub fabric: OnceLock<Handle>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Panics abort the process; a poisoned lock cannot be seen.
    mutex.lock().expect("no holder panics")
}

impl Server {
    /// Number of cores.
    pub fn cores(&self) -> u8 {
        u8::try_from(locked(&self.mail).cores()).expect("at most 64 cores")
    }

    /// Locks the state.
    pub fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Sends a command to a core; waits while its mailbox is full.
    pub fn send(&self, core: CoreId, command: Command) {
        let mut message = CoreMessage::Command(Box::new(command));
        loop {
            match locked(&self.mail).send(core, message) {
                Ok(()) => return,
                Err(back) => message = back,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends a command to each core.
    pub fn broadcast(&self, make: impl Fn() -> Command) {
        for core in 0..self.cores() {
            self.send(CoreId::new(core), make());
        }
    }

    /// Sends each core a command that it answers, and collects the answers.
    pub fn ask_all<T>(&self, make: impl Fn(std::sync::mpsc::Sender<T>) -> Command) -> Vec<T> {
        let waiting: Vec<Receiver<T>> = (0..self.cores())
            .map(|core| {
                let (sender, receiver) = channel();
                self.send(CoreId::new(core), make(sender));
                receiver
            })
            .collect();
        waiting.into_iter().filter_map(|receiver| receiver.recv().ok()).collect()
    }

    /// The same, for commands that succeed or fail.
    pub fn do_all(&self, make: impl Fn(std::sync::mpsc::Sender<Outcome>) -> Command) -> Outcome {
        let answers = self.ask_all(make);
        if answers.len() < usize::from(self.cores()) {
            return Err(crate::request::Failure::Stopping);
        }
        answers.into_iter().collect()
    }

    /// Asks the control thread to stop the server.
    pub fn request_stop(&self) {
        use std::io::Write;
        // A full pipe means that it has been asked already.
        let _ = (&self.stop).write(&[1]);
    }
}

/// Opens the pool and serves until SIGTERM, SIGINT or an admin request; then drains,
/// flushes and checkpoints.
pub fn serve(data_dir: &Path, config: Config) -> Result<(), ServeError> {
    let system = |what| move |source| ServeError::System { what, source };
    let opened = open::open(data_dir, &config)?;
    let nbd = listen(data_dir, &config)?;
    let admin_socket = crate::admin::server::listen(data_dir)?;
    let launched = launch(data_dir, config, opened, start::spawn)?;
    let Launched { server, cores, stopped, lock } = launched;
    let fabric = match Fabric::start(&server) {
        Ok(fabric) => fabric,
        Err(error) => {
            stop_cores(&server, cores)?;
            return Err(error.into());
        }
    };
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let end = server.stop.try_clone().map_err(system("making a socket pair"))?;
        signal_hook::low_level::pipe::register(signal, end).map_err(system("taking a signal"))?;
    }
    tracing::info!("serving {} on {} cores", data_dir.display(), server.cores());
    notify(notify::State::Ready);
    wait(&server, &nbd, &admin_socket, &stopped);
    notify(notify::State::Stopping);
    drop(nbd);
    // Left behind it would only be replaced by the next server.
    let _ = std::fs::remove_file(data_dir.join(crate::admin::protocol::SOCKET_NAME));
    fabric.close();
    let stopped = stop_cores(&server, cores);
    // Its queues have ended with the cores.
    fabric.stop();
    drop(lock);
    stopped
}

/// A server and its cores, as whoever runs them holds them.
pub(super) struct Launched<T> {
    pub server: Arc<Server>,
    pub cores: T,
    /// Readable once somebody has asked the server to stop.
    pub stopped: UnixStream,
    pub lock: open::DirLock,
}

/// Puts cores together on an open pool, lets `run` start them, and starts training.
pub(super) fn launch<T>(
    data_dir: &Path,
    config: Config,
    mut opened: open::Opened,
    run: impl FnOnce(Vec<Kit>) -> Result<T, ServeError>,
) -> Result<Launched<T>, ServeError> {
    let system = |what| move |source| ServeError::System { what, source };
    let volumes = opened.catalog.serving();
    let models = Arc::new(trainer::saved_models(data_dir));
    let settled = tower::queue();
    let cores = start::assemble(&config, &mut opened, &volumes, &models, &settled)?;
    let running = run(cores.kits)?;
    let (stop, stopped) = UnixStream::pair().map_err(system("making a socket pair"))?;
    let state = State {
        io: open::synchronous(&opened.stores)?.sharing_failures(Arc::clone(&cores.space)),
        catalog: opened.catalog,
        recorder: None,
        baseline: (Instant::now(), Vec::new()),
        prefetch: config.prefetch,
        settings: predictor_settings(&config),
        changes: VecDeque::new(),
        stage_budget: config.stage_budget.bytes(),
    };
    let server = Arc::new(Server {
        data_dir: data_dir.to_owned(),
        listeners: config.nbd.iter().map(|listener| listener.uri(data_dir, "")).collect(),
        pool: opened.pool,
        stores: opened.stores,
        paths: opened.paths,
        space: cores.space,
        state: Mutex::new(state),
        mail: Mutex::new(cores.control),
        since: Instant::now(),
        stop,
        training: Mutex::new(None),
        heat: Mutex::new(None),
        fabric: OnceLock::new(),
        config,
    });
    start_training(&server, models, settled)?;
    start_heat(&server)?;
    admin::finish_drops(&server);
    Ok(Launched { server, cores: running, stopped, lock: opened.lock })
}

fn start_training(
    server: &Arc<Server>,
    models: Arc<Saved>,
    settled: Settled,
) -> Result<(), ServeError> {
    let share = server.config.train_cpu * (1.0 - heat::SHARE_OF_TRAINING);
    let dir = &server.data_dir;
    let length = predictor_settings(&server.config).sequence_length;
    let failed = |source| ServeError::System { what: "starting the training thread", source };
    let tower = Tower::new(dir, length, settled).map_err(std::io::Error::other).map_err(failed)?;
    let training = Training::start(
        dir,
        share,
        start::spare_cpus(&server.config),
        models,
        tower,
        trainer_cores(server),
    );
    let training = training.map_err(failed)?;
    *locked(&server.training) = Some(training);
    Ok(())
}

/// The cores as the training thread reaches them, as long as the server is there.
fn trainer_cores(server: &Arc<Server>) -> trainer::Cores {
    let [one, two, three, four] = std::array::from_fn(|_| Arc::downgrade(server));
    let mut tuning = prediction::Tuning::new(&server.config);
    trainer::Cores {
        learned: Box::new(move || {
            let Some(server) = one.upgrade() else { return Vec::new() };
            // One at a time: copying them holds up a core.
            let of = |model| server.ask_all(|reply| Command::Learned(model, reply));
            (0..Ranker::MODELS).flat_map(of).flatten().collect()
        }),
        remember: Box::new(move |saved| {
            if let Some(server) = two.upgrade() {
                server.broadcast(|| Command::Remember(Arc::clone(&saved)));
            }
        }),
        install: Box::new(move |model, trained| {
            if let Some(server) = three.upgrade() {
                server.broadcast(|| Command::Tower(Arc::clone(&model), trained));
            }
        }),
        tune: Box::new(move || {
            if let Some(server) = four.upgrade() {
                tuning.turn(&server);
            }
        }),
    }
}

fn start_heat(server: &Arc<Server>) -> Result<(), ServeError> {
    let config = &server.config;
    let settings =
        heat::Settings { forecaster: config.forecaster, horizon: config.prediction_horizon };
    let share = config.train_cpu * heat::SHARE_OF_TRAINING;
    let started = HeatThread::start(server, settings, share, config.tier_policy.forecast);
    let what = "starting the heat thread";
    let thread = started.map_err(|source| ServeError::System { what, source })?;
    *locked(&server.heat) = Some(thread);
    Ok(())
}

fn listen(data_dir: &Path, config: &Config) -> Result<Vec<Listener>, ServeError> {
    let bind = |listener: &NbdListener| {
        let address = match listener {
            NbdListener::Unix(path) => Address::Unix(data_dir.join(path)),
            NbdListener::Tcp(address) => {
                Address::Tcp { address: *address, insecure: config.insecure_listen }
            }
        };
        Listener::bind(&address)
    };
    Ok(config.nbd.iter().map(bind).collect::<Result<_, _>>()?)
}

/// Accepts clients, in turn over the cores, until a stop is asked for.
fn wait(server: &Arc<Server>, nbd: &[Listener], admin: &UnixListener, stopped: &UnixStream) {
    let mut next = 0;
    loop {
        let mut fds: Vec<BorrowedFd<'_>> = nbd.iter().map(AsFd::as_fd).collect();
        fds.extend([admin.as_fd(), stopped.as_fd()]);
        let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        if poll(&mut polled, None).is_err() {
            continue;
        }
        let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[nbd.len() + 1] {
            return;
        }
        if ready[nbd.len()]
            && let Ok((stream, _)) = admin.accept()
        {
            let server = Arc::clone(server);
            std::thread::spawn(move || admin::serve(&server, stream));
        }
        for (listener, _) in nbd.iter().zip(&ready).filter(|(_, ready)| **ready) {
            accept(server, listener, &mut next);
        }
    }
}

fn accept(server: &Server, listener: &Listener, next: &mut u8) {
    loop {
        match listener.accept() {
            Ok(Some(socket)) => {
                server.send(CoreId::new(*next), Command::Connection(socket));
                *next = (*next + 1) % server.cores();
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot take a client");
                return std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Drains all cores within the configured time.
pub(super) fn stop_cores(
    server: &Server,
    threads: Vec<CoreThread<CoreEnd>>,
) -> Result<(), ServeError> {
    tracing::info!("stopping");
    // Unlocked before it ends: its thread asks for it, too.
    let training = locked(&server.training).take();
    if let Some(training) = training {
        training.stop();
    }
    if let Some(heat) = locked(&server.heat).take() {
        heat.stop();
    }
    // An admin request that holds the state must not hold up the stop.
    let recorder = server.state.try_lock().ok().and_then(|mut state| state.recorder.take());
    if let Some(recorder) = recorder {
        server.broadcast(|| Command::Tap(None));
        if let Err(error) = recorder.stop() {
            tracing::warn!(%error, "the trace is not complete");
        }
    }
    server.broadcast(|| Command::Stop);
    let seconds = server.config.stop_timeout;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let ends: Vec<_> = threads.into_iter().map(CoreThread::join).collect();
        let _ = sender.send(ends);
    });
    let ends: Vec<Result<CoreEnd, ExecutorError>> = receiver
        .recv_timeout(Duration::from_secs(seconds.into()))
        .map_err(|_| ServeError::StopTimeout { seconds })?;
    for end in ends {
        let lost = end??;
        if lost > 0 {
            tracing::error!(lost, "wakes that only the beat found: please report this");
        }
    }
    tracing::info!("stopped");
    Ok(())
}
