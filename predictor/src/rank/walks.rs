//! How a client's streams move, and how they dwell in the fragment they are in.
#![forbid(unsafe_code)]

use crate::Access;
use crate::stream::{Pace, STREAMS, Streams};

/// Most steps that a stream is looked ahead of.
const MOST_AHEAD: u64 = 60;

/// What was asked for in the fragment that a stream is in.
#[derive(Clone, Copy, Debug, Default)]
struct Dwell {
    end_bytes: u64,
    bytes: u64,
    requests: u64,
}

/// What a stream left behind when it came to its newest fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// The request begins where the stream's last one ended.
    pub contiguous: bool,
    /// Bytes asked for in the fragment left.
    pub dwell_bytes: u64,
    /// Requests there.
    pub requests: u64,
}

/// The streams of one client.
pub(super) struct Walks {
    streams: Streams,
    dwells: [Dwell; STREAMS],
    newest: usize,
}

impl Walks {
    pub fn new() -> Walks {
        Walks { streams: Streams::new(), dwells: [Dwell::default(); STREAMS], newest: 0 }
    }

    /// Another request in the fragment of the newest stream.
    pub fn dwell(&mut self, access: &Access) {
        let dwell = &mut self.dwells[self.newest];
        dwell.bytes += u64::from(access.size_bytes);
        dwell.requests += 1;
        dwell.end_bytes = access.offset_bytes.saturating_add(access.size_bytes.into());
    }

    /// The client comes to another fragment: how the stream that it belongs to moves, and
    /// what that left behind.
    pub fn cross(&mut self, access: &Access, fragment: u64) -> (Pace, Left) {
        let part = Access { fragment, last_fragment: fragment, ..*access };
        let mut fresh = false;
        self.newest = self.streams.observe(&part, |crossing| fresh = crossing.fresh);
        let before = std::mem::take(&mut self.dwells[self.newest]);
        self.dwell(access);
        let left = Left {
            contiguous: before.end_bytes == access.offset_bytes,
            dwell_bytes: before.bytes,
            requests: before.requests,
        };
        (self.streams.pace(self.newest), if fresh { Left::default() } else { left })
    }
}

/// The first step of a stream that a fetch of `lead_ns`, begun now, is in time for.
pub(super) fn steps_ahead(pace: &Pace, lead_ns: u64) -> i64 {
    let steps = pace.interval_ns.map_or(0, |interval| lead_ns / interval.max(1));
    1 + i64::try_from(steps.min(MOST_AHEAD)).expect("few")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fragment: u64, size_bytes: u32) -> Access {
        Access { offset_bytes: fragment << 20, size_bytes, ..Access::default() }
    }

    #[test]
    fn a_stream_tells_what_was_asked_for_where_it_dwelt() {
        let mut walks = Walks::new();
        walks.cross(&read(5, 4096), 5);
        walks.dwell(&read(5, 8192));
        walks.cross(&read(1000, 1 << 20), 1000);
        let (pace, left) = walks.cross(&read(6, 4096), 6);
        assert_eq!((pace.delta, pace.run), (1, 1));
        assert_eq!(left, Left { contiguous: false, dwell_bytes: 12_288, requests: 2 });
        let (_, left) = walks.cross(&read(1001, 4096), 1001);
        assert_eq!(left, Left { contiguous: true, dwell_bytes: 1 << 20, requests: 1 });
        let (_, left) = walks.cross(&read(1 << 20, 4096), 1 << 20);
        assert_eq!(left, Left::default(), "a new stream has left nothing");
    }

    #[test]
    fn fast_streams_are_looked_further_ahead_of() {
        let ahead = |interval_ns| steps_ahead(&Pace { interval_ns, ..Pace::default() }, 8_000_000);
        let intervals = [None, Some(1_000_000_000), Some(8_000_000), Some(1_000_000), Some(1)];
        assert_eq!(intervals.map(ahead), [1, 1, 2, 9, 61]);
    }
}
