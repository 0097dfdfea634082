//! `tessera replay --live`: a trace against a served volume.

use std::path::{Path, PathBuf};
use std::time::Duration;

use predictor::trace::{Reader, TraceError};

use super::{Args, Context, attach};
use crate::admin::{AdminClient, AdminRequest, AdminResponse, PrefetchKind, StatsReport};
use crate::block::BlockClient;
use crate::command::status;
use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::progress::count_bar;
use crate::replay::report::{ReplayReport, ServerDelta};
use crate::replay::{self, ReplayError};

/// Options of a live replay.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "On a running server")]
pub(super) struct Options {
    /// Send the requests to a running server
    #[arg(long, requires = "volume")]
    live: bool,
    /// The volume; its contents are overwritten where the trace writes
    #[arg(long, requires = "live")]
    volume: Option<String>,
    /// Send each request at its time, this many times faster than recorded.
    /// Without it, and for traces without a clock, the next request follows a completion
    #[arg(long, value_parser = parse_speed, requires = "live")]
    speed: Option<f64>,
    /// Count reads slower than this many milliseconds
    #[arg(long, default_value_t = 4, value_name = "MS", requires = "live")]
    slow_ms: u32,
    /// End after this many requests
    #[arg(long, requires = "live")]
    requests: Option<u64>,
}

impl Options {
    /// Whether a live replay is asked for.
    pub fn is_set(&self) -> bool {
        self.live
    }
}

fn parse_speed(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(speed) if speed > 0.0 && f64::is_finite(speed) => Ok(speed),
        _ => Err("expected a number above 0"),
    }
}

/// The one file and the kind of prefetch that a live replay takes.
fn arguments(args: &Args) -> Result<(&PathBuf, Option<PrefetchKind>), CommandError> {
    let [file] = args.files.as_slice() else {
        return Err(CommandError::Usage("--live takes one trace".to_owned()));
    };
    let kind = match args.prefetch.as_slice() {
        [] => None,
        [one] => Some(one.to_string().parse().map_err(|error| {
            CommandError::Usage(format!("--prefetch {one} with --live: {error}"))
        })?),
        _ => return Err(CommandError::Usage("--live takes one --prefetch".to_owned())),
    };
    Ok((file, kind))
}

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let (file, kind) = arguments(args)?;
    let live = &args.live;
    let volume = live.volume.as_ref().expect("clap requires it");
    let (records, has_clock) = inspect(file)?;
    let mut speed = live.speed;
    if speed.is_some() && !has_clock {
        eprintln!("{}: the trace has no clock: closed loop", file.display());
        speed = None;
    }
    let default_depth = if speed.is_some() { 64 } else { 1 };
    let options = replay::Options {
        depth: args.depth.unwrap_or(default_depth).into(),
        speed,
        slow_read: Duration::from_millis(live.slow_ms.into()),
        max_requests: live.requests,
        max_time: None,
    };
    let interrupt = Interrupt::install().map_err(CommandError::file(file))?;
    let mut admin = context.admin()?;
    if let Some(kind) = kind {
        set_prefetch(&mut admin, kind)?;
    }
    let prefetch = status(&mut admin)?.prefetch;
    let mut client = attach(&mut admin, volume)?;
    let bar = count_bar(prefetch.to_string(), records.min(live.requests.unwrap_or(u64::MAX)));
    let report = measure(context, &mut client, file, prefetch, 0, &options, &interrupt, |sent| {
        bar.set_position(sent)
    })?;
    bar.finish_and_clear();
    context.form.print(&report, ReplayReport::table);
    match report.failed {
        0 => Ok(()),
        failed => {
            let requests = failed + report.read.count + report.write.count;
            Err(CommandError::FailedRequests { failed, requests })
        }
    }
}

/// Reads the whole trace once, so that a damaged one is refused before the
/// first write; its number of records and whether it has a clock.
pub(in crate::command) fn inspect(path: &Path) -> Result<(u64, bool), CommandError> {
    let failed = |source| CommandError::Trace { path: path.to_path_buf(), source };
    let reader = open(path)?;
    let clock = reader.has_clock();
    let mut records = 0;
    for record in reader {
        record.map_err(failed)?;
        records += 1;
    }
    Ok((records, clock))
}

/// Strict: a damaged trace is refused, not replayed in part.
fn open(path: &Path) -> Result<Reader<'static>, CommandError> {
    predictor::trace::open(path).map(Reader::strict).map_err(|source| match source {
        TraceError::Open { .. } => CommandError::OpenTrace(source),
        _ => CommandError::Trace { path: path.to_path_buf(), source },
    })
}

pub(in crate::command) fn set_prefetch(
    admin: &mut AdminClient,
    kind: PrefetchKind,
) -> Result<(), CommandError> {
    let (depth, threshold, share, budget_bytes) = (None, None, None, None);
    admin.call(&AdminRequest::SetPrefetch { kind, depth, threshold, share, budget_bytes })?;
    Ok(())
}

/// Over a connection of its own: the server drops one that is silent during a replay.
fn stats(context: &Context) -> Result<StatsReport, CommandError> {
    match context.admin()?.call(&AdminRequest::Stats { reset: false })? {
        AdminResponse::Stats(stats) => Ok(stats),
        _ => Err(CommandError::WrongAnswer),
    }
}

/// Replays the records from `skip` on between two looks at the server's counters.
#[expect(clippy::too_many_arguments, reason = "called twice, each argument plain")]
pub(in crate::command) fn measure(
    context: &Context,
    client: &mut dyn BlockClient,
    trace: &Path,
    prefetch: PrefetchKind,
    skip: usize,
    options: &replay::Options,
    interrupt: &Interrupt,
    observe: impl FnMut(u64),
) -> Result<ReplayReport, CommandError> {
    let failed = |source| match source {
        ReplayError::Interrupted => CommandError::Interrupted,
        source => CommandError::Replay { trace: trace.to_path_buf(), source },
    };
    let reader = open(trace)?;
    let before = stats(context)?;
    let outcome =
        replay::run(client, reader.skip(skip), options, interrupt, observe).map_err(failed)?;
    let after = stats(context)?;
    Ok(ReplayReport::new(prefetch, &outcome, ServerDelta::between(&before, &after)))
}
