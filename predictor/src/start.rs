//! What a process does once, before its first thread.

const VARIABLE: &str = "RAYON_NUM_THREADS";

/// Limits candle to the calling thread, by `RAYON_NUM_THREADS=1`.
///
/// Without it candle starts a worker per core on its first product, which
/// disturbs the pinned executors and slows these small models by 5 to 13 times.
/// A value that the user has set stays. Call it first in `main`: once another
/// thread runs, the environment must not change any more, so it is left alone.
///
/// Returns whether the variable is set now.
#[must_use = "false means that training will start foreign threads"]
#[allow(unsafe_code, reason = "std::env::set_var is unsafe; its condition is checked here")]
pub fn init() -> bool {
    if std::env::var_os(VARIABLE).is_none() && is_single_threaded() {
        // SAFETY: this is the process's only thread, as just counted, and it
        // starts none meanwhile: nobody else reads or writes the environment.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
    std::env::var_os(VARIABLE).is_some()
}

/// False too where it cannot be told.
fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}
