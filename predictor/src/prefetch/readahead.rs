//! The classic readahead, at fragment granularity.
//!
//! A stream is confirmed by one step of +1, or by two equal strides. It then
//! has a window of fragments staged ahead, first one, doubled each time the
//! stream reaches the trigger marker in the middle of it, up to the lookahead
//! that the stream's rate asks for. Any other step forgets the window.
#![forbid(unsafe_code)]

use super::{Prediction, Predictions, Settings};
use crate::Access;
use crate::stream::{Crossing, STREAMS, Streams};

/// Score of a proposal: the classic method has no probabilities.
const SCORE: f32 = 0.5;

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Fragments proposed ahead of the stream's position.
    ahead: usize,
    /// Size of the last window.
    size: usize,
}

impl Window {
    /// Follows one crossing of its stream; proposes if it is the last of a read.
    fn cross(&mut self, crossing: &Crossing, settings: &Settings, out: &mut Predictions) {
        if crossing.fresh || !(crossing.delta == 1 || crossing.run >= 2) {
            *self = Window::default();
            return;
        }
        self.ahead = self.ahead.saturating_sub(1);
        let limit = settings.lookahead(crossing.interval_ns);
        let at_marker = self.ahead <= self.size / 2;
        if crossing.write || !crossing.last || !at_marker {
            return;
        }
        self.size = (self.size * 2).clamp(1, limit);
        for step in self.ahead + 1..=self.size {
            let distance = i64::try_from(step).ok().and_then(|s| crossing.delta.checked_mul(s));
            let Some(fragment) = distance.and_then(|d| crossing.fragment.checked_add_signed(d))
            else {
                break;
            };
            out.push(Prediction { volume: crossing.volume, fragment, score: SCORE });
        }
        self.ahead = self.ahead.max(self.size);
    }
}

/// The classic prefetcher of one client.
#[derive(Clone, Debug)]
pub(super) struct Readahead {
    settings: Settings,
    streams: Streams,
    windows: [Window; STREAMS],
}

impl Readahead {
    pub fn new(settings: Settings) -> Self {
        Self { settings, streams: Streams::new(), windows: [Window::default(); STREAMS] }
    }

    pub fn observe(&mut self, access: &Access, out: &mut Predictions) {
        let Self { settings, streams, windows } = self;
        streams.observe(access, |crossing| windows[crossing.slot].cross(crossing, settings, out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fragment: u64) -> Access {
        // A millisecond per fragment: faster than the cold tier.
        Access {
            time_ns: 1_000_000 * (fragment + 1),
            volume: 3,
            write: false,
            fragment,
            last_fragment: fragment,
            ..Access::default()
        }
    }

    fn proposed(readahead: &mut Readahead, access: &Access) -> Vec<u64> {
        let mut out = Predictions::new();
        readahead.observe(access, &mut out);
        out.as_slice().iter().map(|p| p.fragment).collect()
    }

    #[test]
    fn the_window_doubles_at_the_marker() {
        let settings = Settings { prefetch_depth: 8, ..Settings::default() };
        let mut readahead = Readahead::new(settings);
        let got: Vec<Vec<u64>> = (10..19).map(|f| proposed(&mut readahead, &read(f))).collect();
        let expected: [&[u64]; 9] =
            [&[], &[12], &[13, 14], &[15, 16, 17], &[], &[18, 19, 20, 21, 22, 23], &[], &[], &[]];
        assert_eq!(got, expected);
    }

    #[test]
    fn strides_need_confirmation_and_jumps_forget() {
        let mut readahead = Readahead::new(Settings::default());
        assert!(proposed(&mut readahead, &read(100)).is_empty());
        assert!(proposed(&mut readahead, &read(97)).is_empty());
        assert_eq!(proposed(&mut readahead, &read(94)), [91]);
        assert!(proposed(&mut readahead, &read(120)).is_empty());
    }

    #[test]
    fn writes_never_trigger() {
        let mut readahead = Readahead::new(Settings::default());
        for fragment in 0..50 {
            let write = Access { write: true, ..read(fragment) };
            assert!(proposed(&mut readahead, &write).is_empty());
        }
        assert!(!proposed(&mut readahead, &read(50)).is_empty(), "but they are observed");
    }

    #[test]
    fn the_volume_start_is_a_wall() {
        let mut readahead = Readahead::new(Settings::default());
        for fragment in [4, 3, 2, 1] {
            proposed(&mut readahead, &read(fragment));
        }
        assert!(proposed(&mut readahead, &read(0)).is_empty());
    }
}
