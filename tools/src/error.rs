//! Why a command failed.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use engine::check::CheckError;
use engine::server::upgrade::UpgradeError;
use predictor::lab::LabError;
use predictor::trace::TraceError;

use crate::admin::{ClientError, ConfigError};
use crate::block::BlockError;
use crate::image::ImageError;
use crate::qemu::QemuError;
use crate::replay::ReplayError;

/// Failure of a command; its text names the thing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The server refused, or there is none.
    #[error(transparent)]
    Server(#[from] ClientError),
    /// The server cannot start or go on.
    #[error(transparent)]
    Serve(#[from] engine::server::ServeError),
    /// The check cannot be made.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The upgrade cannot be made.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The block protocol failed.
    #[error("volume {volume}: {source}")]
    Block {
        /// The volume.
        volume: String,
        /// The cause.
        source: BlockError,
    },
    /// Import or export failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Import or export through qemu-img failed.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// The replay failed.
    #[error("{}: {source}", .trace.display())]
    Replay {
        /// The trace.
        trace: PathBuf,
        /// The cause.
        source: ReplayError,
    },
    /// The trace cannot be opened; the cause names it.
    #[error(transparent)]
    OpenTrace(TraceError),
    /// The trace is damaged.
    #[error("{}: {source}", .path.display())]
    Trace {
        /// The trace.
        path: PathBuf,
        /// The cause.
        source: TraceError,
    },
    /// The trace has no request.
    #[error("{}: no request can be read", .0.display())]
    EmptyTrace(PathBuf),
    /// The laboratory cannot run.
    #[error("{}: {source}", .trace.display())]
    Lab {
        /// The trace.
        trace: PathBuf,
        /// The cause.
        source: LabError,
    },
    /// The options do not go together.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be used.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file would be overwritten.
    #[error("{}: exists already; --force overwrites it", .0.display())]
    FileExists(PathBuf),
    /// An image does not fit.
    #[error("{}: {image_bytes} bytes do not fit into volume {volume} of {volume_bytes} bytes", .path.display())]
    TooLarge {
        /// The image.
        path: PathBuf,
        /// Its size.
        image_bytes: u64,
        /// The volume.
        volume: String,
        /// Its size.
        volume_bytes: u64,
    },
    /// The server answered a request with the report of another.
    #[error("the server's answer does not belong to the request; is it of the same version?")]
    WrongAnswer,
    /// No device of that id.
    #[error("no device {0} in this pool")]
    NoDevice(u8),
    /// The server offers no place to attach to.
    #[error("the server has no NBD listener")]
    NoListener,
    /// The server of the demo did not come up.
    #[error("the demo's server did not start: {log}")]
    NoServer {
        /// The end of its log.
        log: String,
    },
    /// Requests of a replay failed.
    #[error("{failed} of {requests} requests failed")]
    FailedRequests {
        /// Failed requests.
        failed: u64,
        /// All requests.
        requests: u64,
    },
    /// A check has found damage.
    #[error("{}: {found} places are damaged", .data_dir.display())]
    Damaged {
        /// The data directory.
        data_dir: PathBuf,
        /// Places.
        found: usize,
    },
    /// A measurement failed.
    #[error(transparent)]
    Bench(#[from] crate::command::bench::BenchError),
    /// Ended by a signal.
    #[error("interrupted")]
    Interrupted,
}

impl CommandError {
    /// For `map_err` on a file operation.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// The exit code: 2 where the fault is in what the user wrote, else 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_)
            | Self::Config(ConfigError::Line { .. })
            | Self::Check(CheckError::Config(ConfigError::Line { .. }))
            | Self::Upgrade(UpgradeError::Open(CheckError::Config(ConfigError::Line { .. }))) => {
                ExitCode::from(2)
            }
            _ => ExitCode::FAILURE,
        }
    }
}
