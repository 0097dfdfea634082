//! Constant strides, confirmed by two equal deltas.
//!
//! Source: T.-F. Chen and J.-L. Baer, "Effective Hardware-Based Data Prefetching
//! for High-Performance Processors", IEEE Transactions on Computers 44(5), 1995:
//! the reference prediction table, whose entry is steady, and predicts,
//! once a stride has repeated.
//!
//! A request names no instruction, so the table is indexed by the streams of
//! [`crate::stream`] instead. Their lookahead program counter becomes
//! [`Settings::lookahead`]: as many strides as the stream takes while one fragment
//! is fetched, up to `prefetch_depth`. An entry of theirs keeps its stride through
//! one irregular step; a stream here must confirm anew.
#![forbid(unsafe_code)]

use super::{Rule, SCORE, Touch};
use crate::Access;
use crate::prefetch::{Prediction, Predictions, Settings};
use crate::stream::{Crossing, Streams};

/// Proposes the next strides of confirmed streams.
#[derive(Clone, Debug)]
pub(super) struct Stride {
    settings: Settings,
    streams: Streams,
    /// The newest crossing of the request under way.
    newest: Option<Crossing>,
}

impl Stride {
    pub fn new(settings: &Settings) -> Self {
        Self { settings: *settings, streams: Streams::new(), newest: None }
    }
}

impl Rule for Stride {
    fn touch(&mut self, touch: &Touch, out: &mut Predictions) {
        let access = Access {
            time_ns: touch.time_ns,
            volume: touch.volume,
            write: touch.write,
            fragment: touch.fragment,
            last_fragment: touch.fragment,
            ..Access::default()
        };
        let newest = &mut self.newest;
        self.streams.observe(&access, |crossing| *newest = Some(*crossing));
        if !touch.last {
            return;
        }
        let steady = self.newest.take().filter(|crossing| crossing.run >= 2 && !touch.write);
        let Some(crossing) = steady else { return };
        let mut fragment = crossing.fragment;
        for _ in 0..self.settings.lookahead(crossing.interval_ns) {
            let Some(next) = fragment.checked_add_signed(crossing.delta) else { return };
            fragment = next;
            out.push(Prediction { volume: touch.volume, fragment, score: SCORE });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    #[test]
    fn two_equal_deltas_confirm() {
        // A crossing a millisecond and 15 ms for a fetch: the whole depth is used.
        let settings = Settings { prefetch_depth: 3, ..Settings::default() };
        let (mut stride, mut driver) = (Stride::new(&settings), Driver::default());
        let got = driver.reads(&mut stride, [100, 93, 86, 79, 70, 61]);
        let expected: [&[u64]; 6] = [&[], &[], &[79, 72, 65], &[72, 65, 58], &[], &[52, 43, 34]];
        assert_eq!(got, expected);
    }

    #[test]
    fn streams_are_told_apart_and_writes_are_silent() {
        let settings = Settings { prefetch_depth: 1, ..Settings::default() };
        let (mut stride, mut driver) = (Stride::new(&settings), Driver::default());
        let got = driver.reads(&mut stride, [100, 5000, 102, 5003, 104, 5006]);
        assert_eq!(got[4..], [vec![106], vec![5009]]);
        assert!(driver.request(&mut stride, true, &[106]).is_empty());
        assert_eq!(driver.read(&mut stride, 108), [110], "the write went on with the stream");
    }

    #[test]
    fn the_volume_start_is_a_wall() {
        let settings = Settings { prefetch_depth: 4, ..Settings::default() };
        let (mut stride, mut driver) = (Stride::new(&settings), Driver::default());
        assert_eq!(driver.reads(&mut stride, [9, 6, 3])[2], [0]);
    }
}
