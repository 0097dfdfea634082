//! Admin requests about prediction.

use std::path::Path;
use std::time::{Duration, Instant};

use predictor::Access;
use predictor::ledger::Ledger;
use predictor::online::{Bounds, Change, Sight, Tally, Tuner};
use predictor::trace;

use super::admin::catalog_error;
use super::command::{Command, CoreStats};
use super::control::Server;
use super::trainer::Training;
use crate::admin::config::Config;
use crate::admin::prediction::{
    ChangeReport, PredictorReport, PredictorSettings, ReasonReport, SourceReport, StudyReport,
};
use crate::admin::protocol::{AdminError, AdminResponse, ErrorCode, PrefetchKind, Progress};
use crate::core::clock;
use crate::units::ClientId;

type Answer = Result<AdminResponse, AdminError>;

/// Requests handed to the cores at once: few, for they learn between two turns.
const LESSON: usize = 256;

/// Time between two looks at what prediction brings.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Changes remembered.
const MOST_CHANGES: usize = 32;

/// Adjusts the settings of prediction, now and then.
pub struct Tuning {
    tuner: Option<Tuner>,
    last: Instant,
}

impl Tuning {
    /// One that has seen nothing.
    pub fn new(config: &Config) -> Tuning {
        let [low, high] = config.tuning.stage_threshold;
        let [few, many] = config.tuning.prefetch_depth;
        let stage_threshold = low..=high;
        let bounds = Bounds { stage_threshold, prefetch_depth: few as usize..=many as usize };
        let tuner = config.tuning.enabled.then(|| Tuner::new(bounds));
        Tuning { tuner, last: Instant::now() }
    }

    /// Looks, if it is time, and has the cores work by what follows.
    pub fn turn(&mut self, server: &Server) {
        let Some(tuner) = &mut self.tuner else { return };
        if self.last.elapsed() < LOOK_EVERY {
            return;
        }
        self.last = Instant::now();
        let seen = report(server, &server.ask_all(Command::Stats));
        let mut state = server.state();
        if state.prefetch != PrefetchKind::Learned {
            return;
        }
        let ledger = Ledger {
            issued: seen.staged,
            hits: seen.hits,
            late: seen.late,
            wasted: seen.wasted,
            misses: seen.misses,
        };
        let extra_share = seen.extra_fragments as f64 / seen.misses_without.max(1) as f64;
        let mut settings = state.settings;
        let Some(change) = tuner.look(&Sight { ledger, extra_share }, &mut settings) else {
            return;
        };
        let Change { setting, from, to, reason } = &change;
        tracing::info!("{setting} is {to} now, was {from}: {reason}");
        if state.changes.len() == MOST_CHANGES {
            state.changes.pop_front();
        }
        state.changes.push_back((Instant::now(), change));
        state.settings = settings;
        server.broadcast(|| Command::Prefetch(PrefetchKind::Learned, settings));
    }
}

/// What prediction does.
pub fn status(server: &Server) -> Answer {
    let stats = server.ask_all(Command::Stats);
    Ok(AdminResponse::Predictor(report(server, &stats)))
}

fn report(server: &Server, stats: &[CoreStats]) -> PredictorReport {
    let mut tally = Tally::default();
    stats.iter().filter_map(|core| core.prediction.as_ref()).for_each(|core| tally.add(core));
    let training = server.training.lock().expect("no holder panics");
    let towers_won = training.as_ref().map_or(0, Training::towers_won);
    drop(training);
    let sum = |count: fn(&CoreStats) -> u64| stats.iter().map(count).sum();
    let state = server.state();
    let share = state.settings.prefetch_budget;
    PredictorReport {
        prefetch: state.prefetch,
        settings: PredictorSettings {
            prefetch_depth: state.settings.prefetch_depth,
            stage_threshold: state.settings.stage_threshold,
            prefetch_budget: share,
            sequence_length: state.settings.sequence_length,
        },
        staged: sum(|core| core.counters.staged),
        hits: sum(|core| core.counters.hits),
        late: sum(|core| core.counters.late),
        wasted: sum(|core| core.counters.wasted),
        misses: sum(|core| core.counters.misses),
        crossings: tally.crossings,
        unranked: tally.unranked,
        unseen: tally.unseen,
        needless: tally.needless,
        refused: tally.refused,
        lost: tally.lost,
        threshold: tally.threshold,
        extra_fragments: tally.extra,
        misses_without: tally.ghost_misses,
        client_models: tally.models,
        models_won: tally.models_won,
        towers_won,
        untaught: tally.untaught,
        changes: state
            .changes
            .iter()
            .rev()
            .map(|(when, change)| ChangeReport {
                age_s: when.elapsed().as_secs(),
                change: change.clone(),
            })
            .collect(),
        proposers: tally
            .named()
            .map(|(name, source)| SourceReport {
                name: name.into(),
                staged: source.staged,
                used: source.used,
            })
            .collect(),
    }
}

/// Why the last stages of a volume were made, newest first.
pub fn explain(server: &Server, volume: &str, most: u32) -> Answer {
    let id = server.state().catalog.find(volume).map_err(catalog_error)?;
    let now = clock::now().get();
    let answers = server.ask_all(|reply| Command::Explain(Some(id), reply));
    let mut reasons: Vec<_> = answers.into_iter().flatten().collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.time_ns));
    reasons.truncate(most as usize);
    let state = server.state();
    let of = |volume| state.catalog.get(crate::units::VolumeId::new(volume));
    let place = |volume, fragment: u64| {
        of(volume).map_or(0, |volume| fragment.saturating_mul(volume.fragment.bytes()))
    };
    let told = reasons.iter().map(|reason| ReasonReport {
        age_ms: now.saturating_sub(reason.time_ns) / 1_000_000,
        client: format!("{:016x}", reason.client),
        trigger_volume: of(reason.trigger_volume).map_or_else(String::new, |v| v.name.clone()),
        trigger_byte: place(reason.trigger_volume, reason.trigger),
        staged_byte: place(reason.volume, reason.fragment),
        probability: reason.probability,
        threshold: reason.threshold,
        proposers: reason.sources().map(str::to_owned).collect(),
    });
    Ok(AdminResponse::Reasons { reasons: told.collect() })
}

/// Has the cores learn a client's pattern from a trace, as if it had been served.
pub fn study(
    server: &Server,
    vm: &str,
    volume: &str,
    path: &Path,
    report: &mut dyn FnMut(Progress),
) -> Answer {
    let (id, shift) = {
        let state = server.state();
        let id = state.catalog.find(volume).map_err(catalog_error)?;
        (id, state.catalog.get(id).expect("just found").fragment.log2())
    };
    let named = |error| AdminError::new(ErrorCode::Io, format!("{}: {error}", path.display()));
    let mut reader = trace::open(path).map_err(|error| named(error.to_string()))?;
    let client = ClientId::of(vm);
    let mut done = 0;
    let mut lesson = Vec::with_capacity(LESSON);
    loop {
        let record = reader.next().transpose().map_err(|error| named(error.to_string()))?;
        lesson.extend(record.map(|record| Access::from_record(&record, id.get(), shift)));
        if lesson.len() == LESSON || (record.is_none() && !lesson.is_empty()) {
            done += lesson.len() as u64;
            drop(server.ask_all(|reply| Command::Study(client, lesson.clone(), reply)));
            lesson.clear();
            report(Progress { what: "requests".into(), done, total: 0 });
        }
        if record.is_none() {
            break;
        }
    }
    Ok(AdminResponse::Studied(StudyReport { requests: done, skipped: reader.skipped().count }))
}
