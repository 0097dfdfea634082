//! `tessera replay`: a trace against a served volume.

use std::path::{Path, PathBuf};
use std::time::Duration;

use predictor::trace::{Reader, TraceError};

use super::{Context, attach};
use crate::admin::{AdminClient, AdminRequest, AdminResponse, PrefetchKind, StatsReport};
use crate::block::BlockClient;
use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::progress::count_bar;
use crate::replay::report::{ReplayReport, ServerDelta};
use crate::replay::{self, Options, ReplayError};

/// Options of `replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The trace: CSV, MSR Cambridge CSV, fio iolog, blkparse text or binary blktrace, zstd
    /// or plain
    file: PathBuf,
    /// Send the requests to a running server
    #[arg(long, required = true)]
    live: bool,
    /// The volume; its contents are overwritten where the trace writes
    #[arg(long)]
    volume: String,
    /// Send each request at its time, this many times faster than recorded.
    /// Without it, and for traces without a clock, the next request follows a completion
    #[arg(long, value_parser = parse_speed)]
    speed: Option<f64>,
    /// Switch the server's prefetching first
    #[arg(long)]
    prefetch: Option<PrefetchKind>,
    /// Requests in flight at most [default: 1, with --speed 64]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: Option<u16>,
    /// Count reads slower than this many milliseconds
    #[arg(long, default_value_t = 4, value_name = "MS")]
    slow_ms: u32,
    /// End after this many requests
    #[arg(long)]
    requests: Option<u64>,
}

fn parse_speed(text: &str) -> Result<f64, &'static str> {
    match text.parse() {
        Ok(speed) if speed > 0.0 && f64::is_finite(speed) => Ok(speed),
        _ => Err("expected a number above 0"),
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    assert!(args.live, "clap requires it");
    let (records, has_clock) = inspect(&args.file)?;
    let mut speed = args.speed;
    if speed.is_some() && !has_clock {
        eprintln!("{}: the trace has no clock: closed loop", args.file.display());
        speed = None;
    }
    let default_depth = if speed.is_some() { 64 } else { 1 };
    let options = Options {
        depth: args.depth.unwrap_or(default_depth).into(),
        speed,
        slow_read: Duration::from_millis(args.slow_ms.into()),
        max_requests: args.requests,
        max_time: None,
    };
    let interrupt = Interrupt::install().map_err(CommandError::file(&args.file))?;
    let mut admin = context.admin()?;
    if let Some(kind) = args.prefetch {
        set_prefetch(&mut admin, kind)?;
    }
    let prefetch = super::status(&mut admin)?.prefetch;
    let mut client = attach(&mut admin, &args.volume)?;
    let bar = count_bar(prefetch.to_string(), records.min(args.requests.unwrap_or(u64::MAX)));
    let report =
        measure(context, &mut client, &args.file, prefetch, 0, &options, &interrupt, |sent| {
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
pub(super) fn inspect(path: &Path) -> Result<(u64, bool), CommandError> {
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

pub(super) fn set_prefetch(
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
pub(super) fn measure(
    context: &Context,
    client: &mut dyn BlockClient,
    trace: &Path,
    prefetch: PrefetchKind,
    skip: usize,
    options: &Options,
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
