//! The server: one process that opens a pool, runs its cores and serves clients.
//!
//! Threads: one pinned core each ([`core_loop`]), which own all data; the
//! control thread ([`control`]), which owns catalog, listeners and signals; one
//! thread per admin connection ([`admin`]); one for training ([`trainer`]); one for
//! the heat of volumes ([`heat`]); one for what NVMe/TCP connections share
//! ([`nvmf`]). All but the cores reach them through mailboxes only and are never
//! on the data path.

pub mod admin;
pub mod by_hand;
pub mod command;
pub mod control;
pub mod core_loop;
pub mod embedded;
pub mod heat;
pub mod host;
pub mod notify;
pub mod nvmf;
pub mod observe;
pub mod open;
pub mod prediction;
pub mod recorder;
pub mod sink;
pub mod start;
pub mod tower;
mod trainer;
pub mod upgrade;
mod watches;

pub use control::serve;

use crate::core::arena::ArenaError;
use crate::core::executor::ExecutorError;
use crate::core::ring::RingError;
use crate::device::file::OpenError;
use crate::pool::PoolError;
use crate::target::nbd::listener::ListenError;

/// Why the server cannot start, or how it ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A device cannot be opened.
    #[error("device {}: {source}", path.display())]
    Device {
        /// Its path.
        path: std::path::PathBuf,
        /// The cause.
        source: OpenError,
    },
    /// Another server uses the data directory.
    #[error("{}: in use by another process", data_dir.display())]
    InUse {
        /// The directory.
        data_dir: std::path::PathBuf,
    },
    /// Some devices of the configuration hold a pool and others do not.
    #[error("{} holds no pool while other devices do: is it the right one?", path.display())]
    HalfPool {
        /// The device without one.
        path: std::path::PathBuf,
    },
    /// A new device file needs a size.
    #[error("device {} does not exist: give its size in tessera.toml to create it", path.display())]
    NoSize {
        /// Its path.
        path: std::path::PathBuf,
    },
    /// The pool cannot be made or opened.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// No memory for buffers.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// A core's ring cannot be made.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A core cannot be started, or panicked.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// A listener cannot be made.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The NVMe/TCP target cannot start.
    #[error(transparent)]
    Nvmf(#[from] crate::target::nvmf::fabric::StartError),
    /// The admin socket cannot be made.
    #[error(transparent)]
    Admin(#[from] crate::admin::server::ListenError),
    /// The system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// Draining took longer than allowed. Nothing acknowledged is lost.
    #[error("did not drain within {seconds} s: stopped anyway; nothing acknowledged is lost")]
    StopTimeout {
        /// `stop_timeout`.
        seconds: u32,
    },
}
