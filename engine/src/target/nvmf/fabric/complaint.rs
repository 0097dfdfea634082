//! Log lines that a stranger can cause, so many a second and no more.

use std::fmt::Display;

use crate::units::Nanos;

/// Lines a second.
const LINES: u32 = 20;
const SECOND_NS: u64 = 1_000_000_000;

/// Writes lines, and counts those that are too many.
#[derive(Debug, Default)]
pub struct Complaints {
    since: Nanos,
    written: u32,
    omitted: u64,
}

impl Complaints {
    /// A line may be written now; says how many were omitted before it.
    fn take(&mut self, now: Nanos) -> Option<u64> {
        if now.since(self.since) >= SECOND_NS {
            self.since = now;
            self.written = 0;
        }
        if self.written == LINES {
            self.omitted += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.omitted))
    }

    /// Names who was refused or disconnected, and why.
    pub fn line(&mut self, now: Nanos, what: &str, who: &dyn Display, why: &dyn Display) {
        let Some(omitted) = self.take(now) else { return };
        if omitted > 0 {
            tracing::warn!(omitted, "NVMe/TCP: more such lines than are written");
        }
        tracing::info!("NVMe/TCP: {who} {what}: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let mut complaints = Complaints::default();
        let now = Nanos::new(5 * SECOND_NS);
        let written = (0..100).filter(|_| complaints.take(now).is_some()).count();
        assert_eq!(written, 20);
        assert_eq!(complaints.take(now.after(SECOND_NS - 1)), None);
        assert_eq!(complaints.take(now.after(SECOND_NS)), Some(81));
        assert_eq!(complaints.take(now.after(SECOND_NS)), Some(0));
    }
}
