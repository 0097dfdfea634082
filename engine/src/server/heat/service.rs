//! The thread that collects counts and hands out forecasts.
//!
//! It wakes at the end of each bin and when it is asked something. What it sends
//! a core costs that no allocation: buffers for counts come with the question,
//! and a forecast is freed here, when the cores have had a whole bin to take the
//! next.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use predictor::SealError;
use predictor::heat::keep::{self, Kept};
use predictor::heat::{ForecasterKind, Horizon};

use super::follow::{Follower, Settings};
use super::report;
use crate::admin::heat::HeatReport;
use crate::core::cpus::give_way;
use crate::server::command::Command;
use crate::server::control::Server;
use crate::server::open::uuid_text;
use crate::server::start::spare_cpus;
use crate::tier::heat::{HeatCounts, HeatForecast};
use crate::units::{CoreId, VolumeId};

const FILE_NAME: &str = "heat.safetensors";
/// Longest wait for a core's counts: it answers within a pass.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two savings.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// What the thread may be asked.
pub enum HeatAsk {
    /// The heat of a volume, with its map if wanted; `None` of one that does not exist.
    Report(VolumeId, bool, Sender<Option<HeatReport>>),
    /// Go on with other settings.
    Set(HeatChange, Sender<()>),
    /// Save what was learned, and end.
    Stop,
}

/// Settings to change; absent ones stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeatChange {
    /// Who forecasts.
    pub forecaster: Option<ForecasterKind>,
    /// How far ahead.
    pub horizon: Option<Horizon>,
}

/// The thread, from outside.
pub struct HeatThread {
    asks: Sender<HeatAsk>,
    thread: JoinHandle<()>,
}

impl HeatThread {
    /// Starts following the volumes of a server, with at most `share` of a core; the cores get
    /// the forecasts if `tiering`.
    pub fn start(
        server: &Arc<Server>,
        settings: Settings,
        share: f32,
        tiering: bool,
    ) -> std::io::Result<Self> {
        let (asks, asked) = channel();
        let path = server.data_dir.join(FILE_NAME);
        let cpus = spare_cpus(&server.config);
        let server = Arc::downgrade(server);
        let body = move || {
            give_way(&cpus);
            let saved = kept(&path);
            let follower = Follower::new(settings, saved.clone());
            Service {
                server,
                follower,
                path,
                saved,
                share: share.clamp(0.001, 1.0),
                tiering,
                volumes: HashMap::new(),
                spare: Vec::new(),
                published: [None, None],
                clock: Clock::start(),
                forecast_at: None,
                rested: Instant::now(),
                save_at: Instant::now() + SAVE_EVERY,
            }
            .run(&asked);
        };
        let thread = std::thread::Builder::new().name("heat".into()).spawn(body)?;
        Ok(Self { asks, thread })
    }

    /// Where to ask.
    pub fn asks(&self) -> Sender<HeatAsk> {
        self.asks.clone()
    }

    /// Saves what was learned and ends; to be called while the cores run.
    pub fn stop(self) {
        // An error means that it has ended already.
        let _ = self.asks.send(HeatAsk::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the heat thread panicked");
        }
    }
}

/// What earlier runs have learned, if it can be read.
fn kept(path: &Path) -> Kept {
    match keep::load(path) {
        Ok(kept) => kept,
        Err(SealError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Kept::new(),
        Err(error) => {
            tracing::warn!(%error, "{}: not usable, learning anew", path.display());
            Kept::new()
        }
    }
}

/// Time of day that never steps: bins are numbered from midnight, UTC.
struct Clock {
    began: Instant,
    began_ns: u64,
}

impl Clock {
    fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began_ns = u64::try_from(since.as_nanos()).unwrap_or(0);
        Self { began: Instant::now(), began_ns }
    }

    fn now_ns(&self) -> u64 {
        let since = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.began_ns.saturating_add(since)
    }
}

struct Service {
    server: Weak<Server>,
    follower: Follower,
    path: PathBuf,
    /// What the file holds.
    saved: Kept,
    share: f32,
    tiering: bool,
    /// UUID and size of each volume.
    volumes: HashMap<VolumeId, (String, u64)>,
    /// Empty counts for the cores.
    spare: Vec<HeatCounts>,
    /// The forecast that the cores have or will take next, and the one before.
    published: [Option<Arc<HeatForecast>>; 2],
    clock: Clock,
    forecast_at: Option<Instant>,
    /// No forecast before this: its share of a core is used up.
    rested: Instant,
    save_at: Instant,
}

impl Service {
    fn run(mut self, asked: &Receiver<HeatAsk>) {
        loop {
            let (now, bin) = (self.clock.now_ns(), self.follower.bin_ns());
            let end = (now / bin + 1) * bin;
            match asked.recv_timeout(Duration::from_nanos(end - now)) {
                Ok(HeatAsk::Report(volume, map, answer)) => {
                    // The asker may have given up.
                    let _ = answer.send(self.report(volume, map));
                }
                Ok(HeatAsk::Set(change, done)) => {
                    self.set(change);
                    let _ = done.send(());
                }
                Ok(HeatAsk::Stop) | Err(RecvTimeoutError::Disconnected) => return self.save(),
                Err(RecvTimeoutError::Timeout) if self.turn(end) => {}
                Err(RecvTimeoutError::Timeout) => return,
            }
        }
    }

    /// A bin has ended. False if the server is gone.
    fn turn(&mut self, end_ns: u64) -> bool {
        if self.server.strong_count() == 0 {
            return false;
        }
        self.learn_volumes();
        let counts = self.collect(true);
        self.count(end_ns - 1, &counts);
        self.give_back(counts);
        let began = Instant::now();
        let Self { follower, volumes, .. } = self;
        follower.close(self.clock.now_ns().max(end_ns), |id| volumes.contains_key(&id));
        if began < self.rested {
            return true;
        }
        let forecast = follower.look_ahead(|id| volumes.get(&id).map_or(0, |known| known.1));
        self.publish(forecast);
        if Instant::now() >= self.save_at {
            self.save();
        }
        self.rested = Instant::now() + began.elapsed().mul_f32(1.0 / self.share - 1.0);
        true
    }

    fn publish(&mut self, forecast: HeatForecast) {
        self.forecast_at = Some(Instant::now());
        let forecast = Arc::new(forecast);
        if self.tiering
            && let Some(server) = self.server.upgrade()
        {
            server.broadcast(|| Command::Forecast(Some(Arc::clone(&forecast))));
        }
        let [before, _] = std::mem::take(&mut self.published);
        self.published = [Some(forecast), before];
    }

    /// Keeps up with the catalog, unless somebody is changing it.
    fn learn_volumes(&mut self) {
        let Some(server) = self.server.upgrade() else { return };
        let Ok(state) = server.state.try_lock() else { return };
        let known = |volume: &crate::volume::Volume| {
            let id = volume.view.id;
            let uuid = state.catalog.get(id).map(|named| uuid_text(&named.uuid))?;
            Some((id, (uuid, volume.view.size_bytes)))
        };
        self.volumes = state.catalog.serving().list().iter().filter_map(known).collect();
    }

    /// What the cores have counted; they begin at none if it is `taken`.
    fn collect(&mut self, taken: bool) -> Vec<HeatCounts> {
        let Some(server) = self.server.upgrade() else { return Vec::new() };
        let mut waiting = Vec::new();
        for core in 0..server.cores() {
            let (reply, answer) = sync_channel(1);
            let into = self.spare.pop().unwrap_or_default();
            server.send(CoreId::new(core), Command::Heat { into, taken, reply });
            waiting.push(answer);
        }
        drop(server);
        waiting.into_iter().filter_map(|answer| answer.recv_timeout(PATIENCE).ok()).collect()
    }

    fn give_back(&mut self, counts: Vec<HeatCounts>) {
        self.spare.extend(counts.into_iter().map(|mut counts| {
            counts.clear();
            counts
        }));
    }

    fn count(&mut self, time_ns: u64, counts: &[HeatCounts]) {
        for of_core in counts {
            self.follower.lost += of_core.lost();
            for seen in of_core.iter() {
                // A volume that was deleted meanwhile is nobody's.
                if let Some((owner, size)) = self.volumes.get(&seen.volume) {
                    self.follower.count(time_ns, owner, *size, seen);
                }
            }
        }
    }

    fn report(&mut self, volume: VolumeId, map: bool) -> Option<HeatReport> {
        self.learn_volumes();
        let size_bytes = self.volumes.get(&volume)?.1;
        let open = self.collect(false);
        let now_ns = self.clock.now_ns();
        let mut report = report::of(&self.follower, volume, size_bytes, &open, now_ns, map);
        report.tiering = self.tiering;
        report.forecast_age_s =
            self.forecast_at.filter(|_| report.chosen.is_some()).map(|at| at.elapsed().as_secs());
        self.give_back(open);
        Some(report)
    }

    fn set(&mut self, change: HeatChange) {
        let before = self.follower.settings();
        let forecaster = change.forecaster.unwrap_or(before.forecaster);
        let horizon = change.horizon.unwrap_or(before.horizon);
        let settings = Settings { forecaster, horizon };
        if settings == before {
            return;
        }
        tracing::info!(%forecaster, %horizon, "the heat forecast is set anew: it was asked for");
        self.follower.set(settings);
        self.forecast_at = None;
        // Until there is another, the cores go by what was used last.
        if let Some(server) = self.server.upgrade() {
            server.broadcast(|| Command::Forecast(None));
        }
    }

    fn save(&mut self) {
        self.save_at = Instant::now() + SAVE_EVERY;
        self.learn_volumes();
        let Self { follower, volumes, saved, path, .. } = self;
        let kept = follower.keep(|uuid| volumes.values().any(|(known, _)| known == uuid));
        if kept == saved {
            return;
        }
        match keep::save(path, kept) {
            Ok(()) => saved.clone_from(kept),
            Err(error) => tracing::warn!(%error, "{}: not saved", path.display()),
        }
    }
}
