//! Starts a core: a pinned thread with a glommio executor on it.
//!
//! glommio schedules; all hot I/O runs on the core's own rings, so glommio gets
//! little I/O memory. Before a thread starts, what would make glommio fail
//! obscurely (memlock, io_uring switched off, a CPU that is not ours) is
//! looked at and named.

use crate::core::cpus::allowed_cpus;
use crate::core::ring::RingError;
use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};
use io_uring::IoUring;
use std::future::Future;
use std::time::Duration;

/// glommio refuses to start below this.
const MIN_MEMLOCK_BYTES: u64 = 512 << 10;
/// I/O memory for glommio's own file operations, of which there are few.
const GLOMMIO_IO_BYTES: usize = 64 << 10;
/// How long a busy reactor may keep the executor's own I/O and timers waiting.
/// Shorter costs CPU and makes glommio's parking bug likelier.
const PREEMPT: Duration = Duration::from_millis(10);

/// Why a core did not start, or how it ended.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The memlock limit is too small for any executor.
    #[error(
        "the memlock limit is {} KiB, the executor needs 512: raise it \
         (ulimit -l, LimitMEMLOCK= of the unit, limits.conf)", .have_bytes >> 10
    )]
    Memlock {
        /// The limit now.
        have_bytes: u64,
    },
    /// io_uring cannot be used.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The executor could not be started, or its thread panicked.
    #[error("core thread: {0}")]
    Executor(#[source] GlommioError<()>),
}

/// A running core.
#[derive(Debug)]
pub struct CoreThread<T: Send + 'static> {
    handle: ExecutorJoinHandle<T>,
}

impl<T: Send + 'static> CoreThread<T> {
    /// Waits for the core's future to end; a panic on the core is an error.
    pub fn join(self) -> Result<T, ExecutorError> {
        self.handle.join().map_err(ExecutorError::Executor)
    }
}

/// Starts a thread named after `name`, pinned to `cpu` (not pinned, with a
/// warning, if this process may not run there; `None` for not pinned), and
/// runs the future that `make` returns on its executor.
pub fn spawn_core<G, F, T>(
    cpu: Option<usize>,
    name: &str,
    make: G,
) -> Result<CoreThread<T>, ExecutorError>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    check_memlock(memlock_limit_bytes())?;
    IoUring::new(2).map_err(RingError::from_setup)?;
    let placement = match cpu {
        Some(cpu) if allowed_cpus().contains(&cpu) => Placement::Fixed(cpu),
        Some(cpu) => {
            tracing::warn!("{name} is not pinned: CPU {cpu} is not among those allowed to us");
            Placement::Unbound
        }
        None => Placement::Unbound,
    };
    let handle = LocalExecutorBuilder::new(placement)
        .name(name)
        .io_memory(GLOMMIO_IO_BYTES)
        .preempt_timer(PREEMPT)
        .spawn(make)
        .map_err(ExecutorError::Executor)?;
    Ok(CoreThread { handle })
}

fn check_memlock(have_bytes: u64) -> Result<(), ExecutorError> {
    if have_bytes < MIN_MEMLOCK_BYTES {
        return Err(ExecutorError::Memlock { have_bytes });
    }
    Ok(())
}

fn memlock_limit_bytes() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit to write to.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    assert_eq!(failed, 0, "getrlimit: {}", std::io::Error::last_os_error());
    limit.rlim_cur
}

#[cfg(all(test, not(loom)))]
#[path = "executor_tests.rs"]
mod tests;
