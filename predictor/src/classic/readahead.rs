//! Readahead of sequential streams, as Linux does it.
//!
//! Source: F. Wu, H. Xi, J. Li, N. Zou, "Linux readahead: less tricks for more",
//! Linux Symposium 2007 (on-demand readahead), and F. Wu, H. Xi, C. Xu, "On the
//! design of a new Linux readahead framework", SIGOPS Operating Systems Review 42(5),
//! 2008.
//!
//! A stream is confirmed by a request that goes on where an earlier one ended. When
//! such a read misses, a first window is proposed; its first fragment is the
//! marker. When the stream reaches the marker, the next window, twice as large up
//! to `prefetch_depth`, is proposed behind the last one, and the marker moves to its
//! start. A miss within a stream starts over with the first window: what was
//! proposed has been dropped or evicted.
//!
//! Linux keeps one stream for each open file and finds more by probing its page
//! cache; a volume has no open files, so 64 streams are kept in a table. Windows do
//! not include the fragment that was asked for, and do not depend on the request's
//! size. Reading backwards and within a window out of order is not followed.
#![forbid(unsafe_code)]

use super::{Rule, Touch, propose_run};
use crate::prefetch::{Predictions, Settings};

/// Streams followed at once.
const STREAMS: usize = 64;
/// Fragments of a stream's first window.
const FIRST_WINDOW: usize = 2;

/// What a stream's next complete read must propose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Due {
    #[default]
    Nothing,
    First,
    Next,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// When it was touched last; 0 if the slot is free.
    used: u64,
    volume: u32,
    position: u64,
    /// Last fragment proposed, if any was.
    end: Option<u64>,
    /// Size of the last window.
    size: usize,
    marker: Option<u64>,
    /// The request that opened it is still under way: one wide request is no walk.
    opening: bool,
    due: Due,
}

/// The windows of all streams.
#[derive(Clone, Debug)]
pub(super) struct Readahead {
    table: [Stream; STREAMS],
    clock: u64,
    limit: usize,
}

impl Readahead {
    pub fn new(settings: &Settings) -> Self {
        Self { table: [Stream::default(); STREAMS], clock: 0, limit: settings.prefetch_depth }
    }

    /// The stream that the touch continues, or a new one in the oldest slot.
    fn find(&mut self, touch: &Touch) -> &mut Stream {
        let continues = |stream: &Stream| {
            let next = stream.position.checked_add(1);
            let near = stream.position == touch.fragment || next == Some(touch.fragment);
            stream.used > 0 && stream.volume == touch.volume && near
        };
        let newest = |(_, stream): &(usize, &Stream)| stream.used;
        let streams = || self.table.iter().enumerate();
        if let Some((slot, _)) = streams().filter(|(_, s)| continues(s)).max_by_key(newest) {
            return &mut self.table[slot];
        }
        let (slot, _) = streams().min_by_key(newest).expect("the table is not empty");
        let fresh = Stream {
            volume: touch.volume,
            position: touch.fragment,
            opening: true,
            ..Stream::default()
        };
        self.table[slot] = fresh;
        &mut self.table[slot]
    }
}

impl Stream {
    fn cross(&mut self, touch: &Touch) {
        if self.position == touch.fragment {
            return;
        }
        self.position = touch.fragment;
        if self.opening {
            return;
        }
        if !touch.hit {
            self.due = Due::First;
        } else if self.marker == Some(touch.fragment) {
            self.due = Due::Next;
        }
    }

    fn propose(&mut self, limit: usize, out: &mut Predictions) {
        let behind = self.position.checked_add(1);
        let (first, size) = match std::mem::take(&mut self.due) {
            Due::Nothing => return,
            Due::First => (behind, FIRST_WINDOW),
            Due::Next => (behind.max(self.end.and_then(|e| e.checked_add(1))), self.size * 2),
        };
        let Some(first) = first else { return };
        self.size = size.min(limit);
        self.marker = Some(first);
        self.end = u64::try_from(self.size - 1).ok().and_then(|s| first.checked_add(s));
        propose_run(out, self.volume, first, self.size);
    }
}

impl Rule for Readahead {
    fn touch(&mut self, touch: &Touch, out: &mut Predictions) {
        self.clock += 1;
        let (clock, limit) = (self.clock, self.limit);
        let stream = self.find(touch);
        stream.used = clock;
        stream.cross(touch);
        if touch.last {
            stream.opening = false;
            if !touch.write {
                stream.propose(limit, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    fn depth(prefetch_depth: usize) -> Readahead {
        Readahead::new(&Settings { prefetch_depth, ..Settings::default() })
    }

    #[test]
    fn the_window_doubles_at_the_marker() {
        let (mut readahead, mut driver) = (depth(8), Driver::default());
        let got = driver.reads(&mut readahead, 10..19);
        let windows: [&[u64]; 9] = [
            &[],
            &[12, 13],
            &[14, 15, 16, 17],
            &[],
            &[18, 19, 20, 21, 22, 23, 24, 25],
            &[],
            &[],
            &[],
            &[26, 27, 28, 29, 30, 31, 32, 33],
        ];
        assert_eq!(got, windows);
    }

    #[test]
    fn a_miss_within_the_window_starts_over() {
        let (mut readahead, mut driver) = (depth(8), Driver::default());
        driver.reads(&mut readahead, 10..13);
        driver.evict(&mut readahead, 13);
        assert_eq!(driver.read(&mut readahead, 13), [14, 15]);
    }

    #[test]
    fn one_wide_request_is_no_walk_but_two_are() {
        let (mut readahead, mut driver) = (depth(4), Driver::default());
        assert!(driver.request(&mut readahead, false, &[10, 11, 12]).is_empty());
        assert_eq!(driver.request(&mut readahead, false, &[12, 13]), [14, 15]);
    }

    #[test]
    fn sixty_four_streams_are_followed() {
        let (mut readahead, mut driver) = (depth(4), Driver::default());
        let starts = |step: u64| (0..64).map(move |s| 1000 * s + step);
        driver.reads(&mut readahead, starts(0));
        assert!(driver.reads(&mut readahead, starts(1)).iter().all(|p| p.len() == 2));
        driver.read(&mut readahead, 70_000);
        assert!(driver.read(&mut readahead, 2).is_empty(), "the oldest made room");
    }

    #[test]
    fn writes_go_on_with_a_stream_and_leave_the_proposal_to_a_read() {
        let (mut readahead, mut driver) = (depth(4), Driver::default());
        driver.read(&mut readahead, 10);
        assert!(driver.request(&mut readahead, true, &[11]).is_empty());
        assert_eq!(driver.read(&mut readahead, 12), [13, 14]);
    }
}
