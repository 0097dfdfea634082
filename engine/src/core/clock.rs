//! The monotonic clock of the reactor.
//!
//! State machines never read it: they are told the time.

use crate::units::Nanos;
use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds since the first call in this process; the same on every core.
pub fn now() -> Nanos {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    Nanos::new(u64::try_from(since.as_nanos()).expect("584 years of uptime"))
}
