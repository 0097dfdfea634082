//! A core's own io_uring, for block I/O.
//!
//! Entries are pushed during a reactor pass and enter the kernel together
//! ([`Ring::submit`]); completions are read from shared memory, and the kernel
//! is entered for them only when it says that deferred work waits
//! (`DEFER_TASKRUN` with `TASKRUN_FLAG`). The ring belongs to the thread that
//! made it. It uses nothing newer than Linux 6.1.
//!
//! The core's eventfd is registered, but signalled only between [`Ring::arm`]
//! and [`Ring::disarm`]: a polling core needs no signals.
//!
//! Invariants: at most [`Ring::capacity`] entries are in flight, so the
//! completion queue (twice as long) never overflows. Never poll an eventfd or
//! a socket through this ring: with `DEFER_TASKRUN` and a registered eventfd
//! such wakes get lost; that is what [`crate::core::watch`] is for.

use crate::core::arena::{ArenaAddr, Arenas};
use crate::core::cpus::set_of;
use crate::core::meter::count_syscall;
use io_uring::{IoUring, cqueue, squeue};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Once};

/// The kernel takes at most this much in one registered buffer.
const MAX_REGISTERED_BYTES: usize = 1 << 30;

/// Why a ring could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel has no io_uring.
    #[error(
        "this kernel has no io_uring: Linux 6.1 or newer is needed, built with CONFIG_IO_URING"
    )]
    Missing,
    /// Switched off or filtered.
    #[error(
        "io_uring is not permitted here: set the sysctl kernel.io_uring_disabled to 0 \
         (1 allows root and kernel.io_uring_group only); in a container, allow the io_uring_* \
         system calls in its seccomp profile"
    )]
    Forbidden,
    /// The setup flags are unknown: an old kernel.
    #[error("the kernel's io_uring is too old: Linux 6.1 or newer is needed")]
    TooOld,
    /// Locked memory is limited.
    #[error(
        "not enough lockable memory for io_uring: raise the memlock limit (ulimit -l, LimitMEMLOCK=)"
    )]
    Memlock,
    /// Anything else.
    #[error("io_uring: {0}")]
    Io(#[from] io::Error),
}

impl RingError {
    /// Names the cause of a failed setup.
    pub(crate) fn from_setup(source: io::Error) -> RingError {
        match source.raw_os_error() {
            Some(libc::ENOSYS) => RingError::Missing,
            Some(libc::EPERM | libc::EACCES) => RingError::Forbidden,
            Some(libc::EINVAL) => RingError::TooOld,
            Some(libc::ENOMEM) => RingError::Memlock,
            _ => RingError::Io(source),
        }
    }
}

/// An io_uring of one core.
pub struct Ring {
    uring: IoUring,
    arenas: Arc<Arenas>,
    /// True if the arenas are registered: entry `arena * parts + offset / 1 GiB`.
    fixed: bool,
    parts: usize,
    in_flight: usize,
    capacity: usize,
    /// Rings with `SINGLE_ISSUER` belong to one thread.
    _not_send: PhantomData<*const ()>,
}

impl Ring {
    /// A ring for `entries` (a power of two) operations in flight, with every
    /// arena registered, on the thread that will use it. If the memlock limit
    /// forbids the registration, a warning is logged and I/O goes without.
    pub fn new(entries: u32, arenas: Arc<Arenas>) -> Result<Ring, RingError> {
        assert!(entries.is_power_of_two() && entries <= 16384, "a power of two of entries");
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(entries)
            .map_err(RingError::from_setup)?;
        let capacity = uring.params().sq_entries() as usize;
        let mut ring = Ring {
            uring,
            arenas,
            fixed: false,
            parts: 1,
            in_flight: 0,
            capacity,
            _not_send: PhantomData,
        };
        ring.register_arenas()?;
        Ok(ring)
    }

    fn register_arenas(&mut self) -> Result<(), RingError> {
        let mut regions = Vec::new();
        for arena in 0..self.arenas.count() {
            let (base, len) = self.arenas.region(arena);
            self.parts = len.div_ceil(MAX_REGISTERED_BYTES);
            regions.extend((0..self.parts).map(|part| libc::iovec {
                iov_base: base.wrapping_add(part * MAX_REGISTERED_BYTES).cast(),
                iov_len: (len - part * MAX_REGISTERED_BYTES).min(MAX_REGISTERED_BYTES),
            }));
        }
        // SAFETY: the regions are live mappings, kept so by `self.arenas`,
        // which outlives the ring (fields drop in order).
        match unsafe { self.uring.submitter().register_buffers(&regions) } {
            Ok(()) => self.fixed = true,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOMEM | libc::EPERM)) => {
                static WARNED: Once = Once::new();
                WARNED.call_once(|| tracing::warn!(
                    "buffers are not registered with io_uring ({e}): each I/O pins its pages \
                     anew; raise the memlock limit (ulimit -l, LimitMEMLOCK=) above the buffer memory"
                ));
            }
            Err(e) => return Err(RingError::Io(e)),
        }
        Ok(())
    }

    /// Registers the files that operations name by their index. Once per ring.
    pub fn register_files(&mut self, files: &[RawFd]) -> Result<(), RingError> {
        if files.is_empty() {
            return Ok(());
        }
        Ok(self.uring.submitter().register_files(files)?)
    }

    /// Registers the core's eventfd, silent until [`Ring::arm`].
    pub fn register_eventfd(&mut self, eventfd: BorrowedFd<'_>) -> Result<(), RingError> {
        self.uring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        self.disarm();
        Ok(())
    }

    /// Keeps the kernel's threads that work for this ring on these CPUs.
    pub fn keep_workers_on(&mut self, cpus: &[usize]) -> Result<(), RingError> {
        Ok(self.uring.submitter().register_iowq_aff(&set_of(cpus))?)
    }

    /// The registered buffer that holds `addr`; `None` if buffers are not registered.
    pub fn buffer_index(&self, addr: ArenaAddr) -> Option<u16> {
        let part = usize::try_from(addr.offset).expect("64-bit platform") / MAX_REGISTERED_BYTES;
        let index = addr.arena as usize * self.parts + part;
        self.fixed.then(|| u16::try_from(index).expect("the kernel takes at most 16384"))
    }

    /// The most operations in flight.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many more operations may be pushed now.
    pub fn room(&self) -> usize {
        self.capacity - self.in_flight
    }

    /// Operations pushed and not yet completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues an entry for the next [`Ring::submit`].
    ///
    /// # Safety
    /// Memory and descriptors that the entry names stay valid until its completion is reaped.
    ///
    /// # Panics
    /// If there is no [`Ring::room`].
    pub unsafe fn push(&mut self, entry: &squeue::Entry) {
        assert!(self.room() > 0, "more operations than the ring holds");
        // SAFETY: the caller's promise.
        let pushed = unsafe { self.uring.submission().push(entry) };
        assert!(pushed.is_ok(), "the submission queue is as long as the ring's capacity");
        self.in_flight += 1;
    }

    /// True if entries wait for [`Ring::submit`].
    pub fn queued(&mut self) -> bool {
        !self.uring.submission().is_empty()
    }

    /// Hands queued entries to the kernel and lets it finish deferred work, in
    /// at most one system call, in none if there is neither.
    pub fn submit(&mut self) -> Result<(), RingError> {
        let queue = self.uring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        count_syscall();
        match self.uring.submit() {
            Ok(_) => Ok(()),
            // Nothing was lost: what is still queued enters with the next pass.
            Err(e)
                if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) =>
            {
                Ok(())
            }
            Err(e) => Err(RingError::Io(e)),
        }
    }

    /// The next completion: user data and result as the kernel gave it.
    /// Call [`Ring::submit`] first.
    pub fn reap(&mut self) -> Option<(u64, i32)> {
        let entry: cqueue::Entry = self.uring.completion().next()?;
        self.in_flight -= 1;
        Some((entry.user_data(), entry.result()))
    }

    /// True if a completion waits, or deferred work that would produce one.
    pub fn overdue(&mut self) -> bool {
        self.uring.submission().taskrun() || !self.uring.completion().is_empty()
    }

    /// From now on completions signal the eventfd. Poll once more after this.
    pub fn arm(&mut self) {
        self.uring.completion().enable_eventfd();
    }

    /// Completions no longer signal the eventfd.
    pub fn disarm(&mut self) {
        self.uring.completion().disable_eventfd();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use io_uring::opcode;

    #[test]
    fn completes_what_was_pushed_and_is_bounded() {
        let (arenas, _cores) = Arenas::new(1, 1 << 20).expect("1 MiB");
        let mut ring = Ring::new(4, arenas).expect("io_uring");
        for token in 0..4 {
            // SAFETY: a no-op names no memory.
            unsafe { ring.push(&opcode::Nop::new().build().user_data(token)) };
        }
        assert_eq!(ring.room(), 0);
        let mut seen = Vec::new();
        while seen.len() < 4 {
            ring.submit().expect("submits");
            seen.extend(std::iter::from_fn(|| ring.reap()));
        }
        assert_eq!(seen, [(0, 0), (1, 0), (2, 0), (3, 0)]);
        assert_eq!((ring.room(), ring.overdue()), (4, false));
    }

    #[test]
    fn the_kernels_workers_of_a_ring_keep_to_the_cpus_given() {
        let &[_, .., last] = &crate::core::cpus::allowed_cpus()[..] else {
            return eprintln!("skipped: one CPU leaves workers no choice");
        };
        let (arenas, _cores) = Arenas::new(1, 1 << 20).expect("1 MiB");
        let mut ring = Ring::new(4, arenas).expect("io_uring");
        ring.keep_workers_on(&[last]).expect("known since 5.14");
        let entry = opcode::Nop::new().build().flags(squeue::Flags::ASYNC);
        // SAFETY: a no-op names no memory.
        unsafe { ring.push(&entry) };
        while ring.reap().is_none() {
            ring.submit().expect("submits");
        }
        // SAFETY: no arguments, no memory.
        let worker = format!("iou-wrk-{}", unsafe { libc::gettid() });
        let mut workers = 0;
        for task in std::fs::read_dir("/proc/self/task").expect("proc") {
            let status = task.expect("an entry").path().join("status");
            // A thread may end meanwhile.
            let Ok(status) = std::fs::read_to_string(status) else { continue };
            if status.starts_with(&format!("Name:\t{worker}\n")) {
                assert!(status.contains(&format!("\nCpus_allowed_list:\t{last}\n")), "{status}");
                workers += 1;
            }
        }
        assert!(workers > 0, "none was made");
    }

    #[test]
    fn setup_failures_name_cause_and_cure() {
        let of = |errno| RingError::from_setup(io::Error::from_raw_os_error(errno)).to_string();
        assert!(of(libc::EPERM).contains("kernel.io_uring_disabled"));
        assert!(of(libc::ENOSYS).contains("Linux 6.1"));
        assert!(of(libc::ENOMEM).contains("LimitMEMLOCK"));
    }
}
