//! Bringing memory near before it is needed.
//!
//! Where many independent accesses miss the caches, asking for all of them
//! first lets the misses overlap. A hint only: nothing is read, nothing faults.

/// Bytes of a cache line.
pub const LINE_BYTES: usize = 64;

/// Brings the line at `at`, which need not be valid, into the second-level cache: many may be
/// asked for at once without pushing each other out.
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch accesses nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
