//! `tessera replay`: what prediction would bring on a trace, or the trace against a served
//! volume.

mod lab;
mod live;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use predictor::lab::{Contender, UnknownContender};

use super::{Context, attach};
use crate::error::CommandError;
pub(super) use live::{inspect, measure, set_prefetch};

/// Options of `replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Traces: CSV, MSR Cambridge CSV, fio iolog, blkparse text or binary blktrace, zstd or
    /// plain. Files of one name that ends in .blktrace.CPU are one trace
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Who stages ahead: names with commas between, all, or ablation
    /// (the learned one, whole and without each of its parts) [default: all]. With --live one,
    /// which the server is switched to first
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    prefetch: Vec<Choice>,
    /// Fragments staged ahead of a stream at most, up to 16 [default: 4]. With --live requests
    /// in flight at most [default: 1, with --speed 64]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: Option<u16>,
    #[command(flatten)]
    lab: lab::Options,
    #[command(flatten)]
    live: live::Options,
}

/// A value of `--prefetch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    All,
    /// The learned one, whole and without each of its parts.
    Ablation,
    One(Contender),
}

impl FromStr for Choice {
    type Err = UnknownContender;

    fn from_str(text: &str) -> Result<Self, UnknownContender> {
        match text {
            "all" => Ok(Self::All),
            "ablation" => Ok(Self::Ablation),
            _ => text.parse().map(Self::One),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Ablation => f.write_str("ablation"),
            Self::One(contender) => contender.fmt(f),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    if args.live.is_set() { live::run(args, context) } else { lab::run(args, context) }
}
