//! Power cuts of the real path: the load that runs in a guest, and its replays.
//!
//! `power run` drives `tessera serve` on block devices whose writes are logged,
//! and leaves marks in the kernel's trace of block requests: what was begun, and
//! what was acknowledged as durable. `power replay` reads the devices' logs and
//! the trace, and builds the images that a power cut could have left: every write
//! that a completed flush or FUA covers, any part of the others. Each image is
//! served again and every block compared with what may be read.
//!
//! Not here: the guest itself, which is `cargo xtask guest run power-cut`.

#![forbid(unsafe_code)]

mod content;
mod cut;
mod history;
mod load;
mod mark;
mod random;
mod replay;
mod served;
mod trace;
mod workload;
mod write_log;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Power cuts of the real path
#[derive(Debug, Parser)]
enum Cli {
    /// Drive a server on the pool of a data directory (in the guest)
    Run {
        /// Data directory with a tessera.toml
        #[arg(long)]
        data: PathBuf,
        /// The server's program
        #[arg(long)]
        tessera: PathBuf,
        /// Where marks are written: the kernel's trace_marker
        #[arg(long)]
        marks: PathBuf,
        /// Names the workload
        #[arg(long)]
        seed: u64,
        /// Length of the load
        #[arg(long)]
        seconds: u64,
    },
    /// Cut the power of a recorded run many times and examine what is left
    Replay {
        /// Directory with `trace`, `log0`, `log1` … and `tessera.toml` of the images
        #[arg(long)]
        recorded: PathBuf,
        /// The server's program
        #[arg(long)]
        tessera: PathBuf,
        /// As given to the run
        #[arg(long)]
        seed: u64,
        /// Power cuts
        #[arg(long, default_value_t = 200)]
        replays: u64,
        /// Only this replay, whose images are kept
        #[arg(long)]
        only: Option<u64>,
    },
}

fn main() -> ExitCode {
    let ended = match Cli::parse() {
        Cli::Run { data, tessera, marks, seed, seconds } => {
            let server = served::Program { tessera, data };
            load::run(&server, &marks, seed, Duration::from_secs(seconds)).map(|()| true)
        }
        Cli::Replay { recorded, tessera, seed, replays, only } => {
            replay::run(&recorded, &tessera, seed, only.map_or(0..replays, |n| n..n + 1))
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("power: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What stops a run or a replay: a rig that does not work, never a violation.
#[derive(Debug, thiserror::Error)]
enum PowerError {
    /// The system refused something.
    #[error("{what}: {source}")]
    System { what: String, source: std::io::Error },
    /// The server did not do what it must for a run to go on.
    #[error("{0}")]
    Server(String),
    /// The record of a run cannot be used.
    #[error("{file}: {why}")]
    Record { file: String, why: String },
    /// A client of the server failed.
    #[error(transparent)]
    Client(#[from] engine::target::nbd::client::Error),
    /// In the guest already, without any cut: what was read is not what was written.
    #[error("block {block} of volume {volume}: {why}")]
    Wrong { volume: u32, block: u64, why: String },
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> PowerError {
    let what = what.into();
    move |source| PowerError::System { what, source }
}
