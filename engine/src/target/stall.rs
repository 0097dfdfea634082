//! How long a client has kept something waiting.
//!
//! Invariant: time counts only while something is pending and none of it moves.

use super::STALL_NS;
use crate::units::Nanos;

/// Watches one direction of a connection.
#[derive(Debug, Default)]
pub(in crate::target) struct Stall {
    /// Bytes moved by then, and when that was first seen.
    seen: Option<(u64, Nanos)>,
}

impl Stall {
    /// Takes the count of bytes moved so far, `None` while nothing is pending;
    /// true once it has stood still for longer than [`STALL_NS`].
    pub(in crate::target) fn too_long(&mut self, moved: Option<u64>, now: Nanos) -> bool {
        let since = match (self.seen, moved) {
            (Some((seen, since)), Some(moved)) if seen == moved => since,
            _ => now,
        };
        self.seen = moved.map(|moved| (moved, since));
        now.since(since) > STALL_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_still_takes_too_long() {
        let mut stall = Stall::default();
        let mut at = |moved, ns| stall.too_long(moved, Nanos::new(ns));
        assert!(!at(Some(7), 0));
        assert!(!at(Some(7), STALL_NS));
        assert!(!at(Some(8), STALL_NS + 1), "it moved");
        assert!(!at(None, 2 * STALL_NS), "nothing is pending");
        assert!(!at(Some(8), 3 * STALL_NS));
        assert!(!at(Some(8), 4 * STALL_NS));
        assert!(at(Some(8), 4 * STALL_NS + 1));
    }
}
