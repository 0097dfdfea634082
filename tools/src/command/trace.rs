//! `tessera trace record|replay`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Context, replay};
use crate::admin::{AdminRequest, AdminResponse};
use crate::error::CommandError;
use crate::interrupt::Interrupt;

/// What to do with traces.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Record what clients do, until --seconds are over or Ctrl-C
    Record {
        /// The file to make; compressed if its name ends in .zst
        file: PathBuf,
        /// Only this volume
        #[arg(long)]
        volume: Option<String>,
        /// End by itself after this time
        #[arg(long)]
        seconds: Option<u64>,
    },
    /// The same as `tessera replay`
    Replay(replay::Args),
}

/// Runs the command.
pub fn run(action: &Action, context: &Context) -> Result<(), CommandError> {
    match action {
        Action::Record { file, volume, seconds } => record(file, volume.clone(), *seconds, context),
        Action::Replay(args) => replay::run(args, context),
    }
}

fn record(
    file: &Path,
    volume: Option<String>,
    seconds: Option<u64>,
    context: &Context,
) -> Result<(), CommandError> {
    // The server has a working directory of its own.
    let path = std::path::absolute(file).map_err(CommandError::file(file))?;
    let interrupt = Interrupt::install().map_err(CommandError::file(file))?;
    let mut admin = context.admin()?;
    admin.call(&AdminRequest::TraceStart { path, volume })?;
    eprintln!("recording to {}; Ctrl-C ends it", file.display());
    // The server drops a silent connection: it is made anew at the end.
    drop(admin);
    let started = Instant::now();
    let over = || seconds.is_some_and(|s| started.elapsed() >= Duration::from_secs(s));
    while !interrupt.is_set() && !over() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let AdminResponse::Trace(report) = context.admin()?.call(&AdminRequest::TraceStop)? else {
        return Err(CommandError::WrongAnswer);
    };
    context.form.print(&report, |r| {
        format!("{}: {} requests, {} dropped", r.path.display(), r.records, r.dropped)
    });
    Ok(())
}
