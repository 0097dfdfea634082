//! The offline laboratory as a command: traces in, judged prefetchers out.
//!
//! What is judged and how is [`predictor::lab`]'s; here are the conditions that a user may
//! set, the reading of traces, the report ([`report`]) and the picture ([`chart`]).

pub mod chart;
pub mod report;
pub mod spread;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use engine::core::meter::Meter;
use predictor::Access;
use predictor::lab::{Contender, LabError, Run, Setup, footprint, run, shuffled};
use predictor::prefetch::Settings;
use predictor::trace::{Skipped, TraceError, open_all};

use crate::admin::size::{exact_size, parse_size};
use crate::error::CommandError;

/// Size of the fast tier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FastTier {
    /// Percent of the fragments that the trace touches, above 0 to 100.
    Share(f64),
    /// Bytes.
    Bytes(u64),
}

impl FastTier {
    /// Fragments of the tier, at least 1.
    fn fragments(self, footprint: usize, fragment_shift: u8) -> usize {
        let fragments = match self {
            Self::Bytes(bytes) => usize::try_from(bytes >> fragment_shift).unwrap_or(usize::MAX),
            Self::Share(percent) => share(footprint, percent),
        };
        // More than the trace touches is never filled, and the tier's map has 32-bit places.
        fragments.clamp(1, footprint.max(1))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a part of a count, rounded down"
)]
fn share(count: usize, percent: f64) -> usize {
    (count as f64 * percent / 100.0 + 1e-9) as usize
}

impl FromStr for FastTier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.ends_with('%') {
            let bytes = parse_size(text).map_err(|error| error.to_string())?;
            return Ok(Self::Bytes(bytes));
        }
        match percent(text)? {
            share if share > 0.0 && share <= 100.0 => Ok(Self::Share(share)),
            _ => Err("expected a share above 0% and up to 100%".to_owned()),
        }
    }
}

impl fmt::Display for FastTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => f.write_str(&exact_size(*bytes)),
        }
    }
}

/// Reads a percentage: `25%`, or `25`.
///
/// # Errors
/// If it is no number of 0 to 1000.
pub fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(value) if (0.0..=1000.0).contains(&value) => Ok(value),
        _ => Err("expected a percentage such as 25%".to_owned()),
    }
}

/// What a user sets.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The fragment's size and the depth.
    pub settings: Settings,
    /// The fast tier's size.
    pub fast_tier: FastTier,
    /// Who is judged, in this order.
    pub contenders: Vec<Contender>,
    /// Extra traffic that the learned one may cause, in % of the misses without prefetch.
    pub budget_pct: f64,
    /// The requests come in a random order.
    pub shuffle: bool,
    /// Writes trigger stages as reads do.
    pub writes_trigger: bool,
    /// Only reads miss, count and are foreseen.
    pub writes_free: bool,
    /// What runs on a core of a server is judged.
    pub served: bool,
    /// Of models and of the order.
    pub seed: u64,
}

impl Conditions {
    /// Bytes of a fragment.
    pub fn fragment_bytes(&self) -> u64 {
        1 << self.settings.fragment_shift
    }

    /// The tier for a trace, in fragments.
    pub fn tier_fragments(&self, trace: &Trace) -> usize {
        self.fast_tier.fragments(trace.footprint, self.settings.fragment_shift)
    }

    fn setup(&self, contender: Contender, trace: &Trace) -> Setup {
        Setup {
            extra_share: self.budget_pct / 100.0,
            writes_trigger: self.writes_trigger,
            writes_free: self.writes_free,
            served: self.served,
            seed: self.seed,
            ..Setup::new(contender, self.settings, self.tier_fragments(trace))
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fragment = exact_size(self.fragment_bytes());
        write!(f, "fragments of {fragment}, fast tier {}", self.fast_tier)?;
        write!(f, ", budget of extra traffic {}%", self.budget_pct)?;
        if !self.writes_trigger {
            f.write_str(", writes observed only")?;
        }
        if self.writes_free {
            f.write_str(", writes wait for nothing")?;
        }
        if self.served {
            f.write_str(", as on a server")?;
        }
        if self.shuffle { f.write_str(", requests shuffled") } else { Ok(()) }
    }
}

/// A trace, read.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The path as given, of several files that of the first.
    pub path: PathBuf,
    /// The file's name.
    pub name: String,
    /// The requests, of one volume.
    pub accesses: Vec<Access>,
    /// They carry times.
    pub has_clock: bool,
    /// Fragments that they touch.
    pub footprint: usize,
}

/// The files of each trace: those of one name that ends in `.blktrace.CPU` belong together,
/// all others are traces by themselves.
pub fn inputs(files: &[PathBuf]) -> Vec<Vec<PathBuf>> {
    let mut traces: Vec<Vec<PathBuf>> = Vec::new();
    let mut of_stem: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files {
        let stem = file.to_str().and_then(|text| text.rsplit_once('.'));
        let is_cpu = |cpu: &str| !cpu.is_empty() && cpu.bytes().all(|b| b.is_ascii_digit());
        let stem = stem.filter(|(stem, cpu)| stem.ends_with(".blktrace") && is_cpu(cpu));
        match stem.and_then(|(stem, _)| of_stem.insert(stem, traces.len())) {
            Some(at) => {
                traces[at].push(file.clone());
                of_stem.insert(stem.expect("it was found").0, at);
            }
            None => traces.push(vec![file.clone()]),
        }
    }
    traces
}

/// Reads a trace of one file or several; bad lines and records are passed over.
///
/// # Errors
/// If a file cannot be opened or read, or no request of it can be read.
pub fn load(paths: &[PathBuf], conditions: &Conditions) -> Result<(Trace, Skipped), CommandError> {
    let path = paths.first().expect("a trace has a file");
    let failed = |source| match source {
        TraceError::Open { .. } | TraceError::File { .. } => CommandError::OpenTrace(source),
        _ => CommandError::Trace { path: path.clone(), source },
    };
    let mut reader = open_all(paths).map_err(failed)?;
    let shift = conditions.settings.fragment_shift;
    let accesses = reader.by_ref().map(|record| Ok(Access::from_record(&record?, 0, shift)));
    let accesses: Vec<Access> = accesses.collect::<Result<_, _>>().map_err(failed)?;
    if accesses.is_empty() {
        return Err(CommandError::EmptyTrace(path.clone()));
    }
    let trace = Trace {
        path: path.clone(),
        name: name(path),
        has_clock: reader.has_clock(),
        footprint: footprint(&accesses),
        accesses: if conditions.shuffle { shuffled(&accesses, conditions.seed) } else { accesses },
    };
    Ok((trace, reader.skipped().clone()))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Of this thread: what else the machine does is not the prefetcher's cost.
fn processor_time() -> Duration {
    Duration::from_nanos(Meter::of_this_thread().cpu_ns)
}

/// Where [`judge`] has got to.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A contender begins.
    Begins(Contender),
    /// So many more requests are done.
    Went(usize),
}

/// The runs on one trace.
#[derive(Debug)]
pub struct Runs {
    /// Without prefetch: what costs are compared with.
    pub none: Run,
    /// Of each contender.
    pub runs: Vec<(Contender, Run)>,
}

/// Lets all contenders run on a trace.
///
/// # Errors
/// If a model cannot be trained.
pub fn judge(
    trace: &Trace,
    conditions: &Conditions,
    mut observe: impl FnMut(Step),
) -> Result<Runs, LabError> {
    let mut judge = |contender| {
        observe(Step::Begins(contender));
        let setup = conditions.setup(contender, trace);
        run(&trace.accesses, &setup, processor_time, |went| observe(Step::Went(went)))
    };
    let none = judge(Contender::None)?;
    let mut runs = Vec::new();
    for contender in &conditions.contenders {
        let run = if *contender == Contender::None { none.clone() } else { judge(*contender)? };
        runs.push((*contender, run));
    }
    Ok(Runs { none, runs })
}
