//! Readahead along confirmed sequential streams, as file systems have it.
//!
//! Source: the textbook method; the doubling window with a trigger in its middle is that of
//! Linux's readahead (F. Wu et al., "On the Design of a New Linux Readahead Framework",
//! SIGOPS OSR 42(5), 2008). Of each of [`STREAMS`] streams the position is kept. A request
//! that begins on the fragment behind it, or on one proposed already, continues the stream
//! and so confirms it; the first request of a stream proposes nothing. A confirmed stream has
//! a window of fragments proposed ahead, first one, doubled each time that half of it or less
//! is left, up to `prefetch_depth`.
//!
//! Only ascending streams are followed. What a core runs under the same name
//! ([`crate::prefetch`]) follows strides as well, in half as many streams, and looks as far
//! ahead as a stream's rate asks for.
#![forbid(unsafe_code)]

use super::request::{Request, Requests};
use super::{Rule, Touch, propose_run};
use crate::prefetch::{Predictions, Settings};

/// Streams followed at once.
const STREAMS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Stream {
    volume: u32,
    /// Its newest fragment.
    position: u64,
    /// The last fragment proposed, or the position.
    end: u64,
    /// Fragments of the newest window.
    window: u64,
    /// Number of the request that touched it last.
    used: u64,
}

impl Stream {
    fn is_continued_by(&self, request: &Request) -> bool {
        let reach = self.end.saturating_add(1);
        self.volume == request.volume && (self.position..=reach).contains(&request.first)
    }
}

/// The streams of all volumes.
#[derive(Clone, Debug)]
pub(super) struct Readahead {
    depth: u64,
    requests: Requests,
    streams: Vec<Stream>,
    clock: u64,
}

impl Readahead {
    pub fn new(settings: &Settings) -> Self {
        Self {
            depth: settings.prefetch_depth as u64,
            requests: Requests::new(),
            streams: Vec::with_capacity(STREAMS),
            clock: 0,
        }
    }

    /// The stream that the request continues, the nearest behind it; else a new one, and
    /// `None`.
    fn find(&mut self, request: &Request) -> Option<&mut Stream> {
        let streams = self.streams.iter().enumerate();
        let continued = streams.filter(|(_, stream)| stream.is_continued_by(request));
        let nearest = continued.max_by_key(|(_, stream)| (stream.position, stream.used));
        if let Some((slot, _)) = nearest {
            return Some(&mut self.streams[slot]);
        }
        let &Request { volume, last, .. } = request;
        let new = Stream { volume, position: last, end: last, window: 0, used: self.clock };
        if self.streams.len() < STREAMS {
            self.streams.push(new);
        } else if let Some(oldest) = self.streams.iter_mut().min_by_key(|s| s.used) {
            *oldest = new;
        }
        None
    }
}

impl Rule for Readahead {
    fn touch(&mut self, touch: &Touch, out: &mut Predictions) {
        let (_, Some(request)) = self.requests.follow(touch) else { return };
        self.clock += 1;
        let (clock, depth) = (self.clock, self.depth);
        let Some(stream) = self.find(&request) else { return };
        stream.used = clock;
        if request.last <= stream.position {
            return;
        }
        stream.position = request.last;
        stream.end = stream.end.max(stream.position);
        let left = stream.end - stream.position;
        if request.write || left > stream.window / 2 {
            return;
        }
        stream.window = (stream.window * 2).clamp(1, depth);
        let Some(first) = stream.end.checked_add(1) else { return };
        let count = stream.window.saturating_sub(left);
        stream.end = stream.end.saturating_add(count);
        propose_run(out, stream.volume, first, usize::try_from(count).expect("at most 16"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    fn depth(prefetch_depth: usize) -> Readahead {
        Readahead::new(&Settings { prefetch_depth, ..Settings::default() })
    }

    /// | read | left before | window | proposed |
    /// |------|-------------|--------|----------|
    /// | 11   | 0           | 1      | 12       |
    /// | 12   | 0           | 2      | 13, 14   |
    /// | 13   | 1 of 2      | 4      | 15..=17  |
    /// | 14   | 3 of 4      |        |          |
    /// | 15   | 2 of 4      | 4      | 18, 19   |
    /// | 16   | 3 of 4      |        |          |
    /// | 17   | 2 of 4      | 4      | 20, 21   |
    #[test]
    fn the_window_doubles_up_to_the_depth() {
        let (mut rule, mut driver) = (depth(4), Driver::default());
        let got = driver.reads(&mut rule, 10..18);
        let expected: [&[u64]; 8] =
            [&[], &[12], &[13, 14], &[15, 16, 17], &[], &[18, 19], &[], &[20, 21]];
        assert_eq!(got, expected);
    }

    #[test]
    fn a_stream_is_confirmed_first_and_jumps_start_another() {
        let (mut rule, mut driver) = (depth(4), Driver::default());
        assert!(driver.reads(&mut rule, [10, 500, 498, 90, 10]).iter().all(Vec::is_empty));
        assert_eq!(driver.read(&mut rule, 11), [12], "10 was still known");
        assert_eq!(driver.read(&mut rule, 501), [502]);
    }

    #[test]
    fn writes_are_followed_and_never_trigger() {
        let (mut rule, mut driver) = (depth(4), Driver::default());
        for fragment in 0..9 {
            assert!(driver.request(&mut rule, true, &[fragment]).is_empty());
        }
        assert_eq!(driver.request(&mut rule, false, &[9, 10]), [11]);
    }

    #[test]
    fn sixty_four_streams_are_followed_and_the_oldest_makes_room() {
        let (mut rule, mut driver) = (depth(4), Driver::default());
        let starts = (0..64).map(|n| n * 1000);
        driver.reads(&mut rule, starts.clone());
        let next = driver.reads(&mut rule, starts.map(|start| start + 1));
        assert!(next.iter().all(|proposed| proposed.len() == 1), "{next:?}");
        driver.read(&mut rule, 1 << 40);
        assert!(driver.read(&mut rule, 2).is_empty(), "the newcomer took its place");
        assert_eq!(driver.read(&mut rule, 2002), [2003, 2004]);
    }

    #[test]
    fn the_end_of_the_numbers_is_a_wall() {
        let (mut rule, mut driver) = (depth(4), Driver::default());
        let last = driver.reads(&mut rule, u64::MAX - 2..=u64::MAX);
        assert_eq!(last, [vec![], vec![u64::MAX], vec![]]);
    }
}
