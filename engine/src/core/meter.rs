//! What a thread has cost so far: its processor time, the system calls that this
//! crate made on it, and its heap allocations.
//!
//! Whoever enters the kernel on the data path says so with [`count_syscall`]; what
//! the standard library and the executor do beside it is not counted. Allocations
//! are counted where [`CountingAllocator`] is the program's global allocator. A
//! count is one increment of a thread's own memory: nothing is shared.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static SYSCALLS: Cell<u64> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// What one thread, or several, have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Processor time in nanoseconds.
    pub cpu_ns: u64,
    /// System calls of this crate.
    pub syscalls: u64,
    /// Heap allocations; 0 unless [`CountingAllocator`] is installed.
    pub allocations: u64,
}

impl Meter {
    /// Of the calling thread, since it began.
    pub fn of_this_thread() -> Meter {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid timespec to write to.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        assert_eq!(failed, 0, "clock_gettime: {}", std::io::Error::last_os_error());
        let seconds = u64::try_from(time.tv_sec).expect("not negative");
        let nanos = u64::try_from(time.tv_nsec).expect("not negative");
        Meter {
            cpu_ns: seconds * 1_000_000_000 + nanos,
            syscalls: SYSCALLS.get(),
            allocations: ALLOCATIONS.get(),
        }
    }

    /// Adds another thread's.
    #[must_use]
    pub fn plus(self, other: Meter) -> Meter {
        Meter {
            cpu_ns: self.cpu_ns + other.cpu_ns,
            syscalls: self.syscalls + other.syscalls,
            allocations: self.allocations + other.allocations,
        }
    }

    /// What has come since `before`.
    #[must_use]
    pub fn since(self, before: Meter) -> Meter {
        Meter {
            cpu_ns: self.cpu_ns - before.cpu_ns,
            syscalls: self.syscalls - before.syscalls,
            allocations: self.allocations - before.allocations,
        }
    }
}

/// The calling thread is about to enter the kernel.
#[inline]
pub fn count_syscall() {
    SYSCALLS.set(SYSCALLS.get() + 1);
}

/// The system's allocator, counting by thread.
#[derive(Debug)]
pub struct CountingAllocator;

fn count_allocation() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches
// only a thread-local number that needs neither memory nor a destructor.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_counts_its_own() {
        let before = Meter::of_this_thread();
        count_syscall();
        std::thread::spawn(count_syscall).join().expect("no panic");
        let mut spin = 0u64;
        while Meter::of_this_thread().cpu_ns == before.cpu_ns {
            spin = std::hint::black_box(spin + 1);
        }
        let cost = Meter::of_this_thread().since(before);
        assert_eq!(cost.syscalls, 1);
        assert_eq!(cost.plus(cost).syscalls, 2);
    }

    #[test]
    fn the_allocator_counts_and_serves() {
        let before = ALLOCATIONS.get();
        let layout = Layout::from_size_align(64, 8).expect("sound");
        // SAFETY: the layout has bytes; the block is freed with the layout it was made with.
        unsafe {
            let block = CountingAllocator.alloc_zeroed(layout);
            assert!(!block.is_null() && *block == 0);
            CountingAllocator.dealloc(block, layout);
        }
        assert_eq!(ALLOCATIONS.get(), before + 1);
    }
}
