//! How a run fails.

use super::sector::Violation;
use crate::request::{Failure, Op};
use crate::units::{CoreId, VolumeId};

/// A broken promise.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Broken {
    /// A sector has a value that it may not have.
    #[error(transparent)]
    Value(#[from] Violation),
    /// A request failed, and nothing that was done to the world explains it.
    #[error("{op:?} of volume {volume} sectors {first}..{end} failed without a cause: {failure}")]
    Failed {
        /// What was asked.
        op: Op,
        /// Of which volume.
        volume: VolumeId,
        /// First sector.
        first: u64,
        /// Behind the last sector.
        end: u64,
        /// How it failed.
        failure: Failure,
    },
    /// A comparison with what is not there succeeded.
    #[error("a comparison with volume {volume} sectors {first}..{end} misses the difference")]
    Compared {
        /// Of which volume.
        volume: VolumeId,
        /// First sector.
        first: u64,
        /// Behind the last sector.
        end: u64,
    },
    /// A core sleeps although work waits for it, and nobody will ring.
    #[error("lost wake-up: core {0} sleeps, messages wait for it, nobody rings")]
    LostWake(CoreId),
    /// Nothing can happen any more, or nothing that helps.
    #[error("{0}")]
    Stuck(String),
    /// The pool does not open, or holds damage that was not inflicted.
    #[error("{0}")]
    Pool(String),
    /// An assertion.
    #[error("panic: {0}")]
    Panic(String),
}

impl Broken {
    /// What two failures have in common if they are the same but for numbers.
    pub fn class(&self) -> String {
        match self {
            Broken::Value(violation) => {
                let zeros = violation.got == "0";
                let foreign = violation.got.starts_with("foreign");
                format!("value {} zeros {zeros} foreign {foreign}", violation.when)
            }
            Broken::Failed { failure, .. } => format!("failed {failure:?}"),
            Broken::Compared { .. } => "compared".to_owned(),
            Broken::LostWake(_) => "lost wake-up".to_owned(),
            Broken::Stuck(what) | Broken::Pool(what) | Broken::Panic(what) => {
                let first = what.lines().next().unwrap_or_default();
                first.chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
            }
        }
    }

    /// The sectors that it is about.
    pub fn sectors(&self) -> Option<(VolumeId, std::ops::Range<u64>)> {
        match self {
            Broken::Value(Violation { key, .. }) => Some((key.volume, key.sector..key.sector + 1)),
            Broken::Failed { volume, first, end, .. } | Broken::Compared { volume, first, end } => {
                Some((*volume, *first..*end))
            }
            _ => None,
        }
    }
}
