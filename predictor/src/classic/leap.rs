//! The majority trend among the recent deltas.
//!
//! Source: H. A. Maruf and M. Chowdhury, "Effectively Prefetching Remote Memory
//! with Leap", USENIX ATC '20: algorithm 1 (`FindTrend`) looks for a
//! strict majority by Boyer and Moore's vote, in the newest part of the history of
//! deltas first, then in windows of twice the size; algorithm 2 sizes the window of
//! prefetch by the hits since the last one, shrinks it by half at most, and
//! prefetches along the trend on a miss. The history holds 32 deltas, the window up
//! to 8 fragments, and the first vote is over a quarter of the history. Algorithm 1
//! is held against the paper's example; algorithm 2 and the three numbers were not
//! checked against its print.
//!
//! The history of each process becomes that of each volume. It records faults (see
//! `request`): a resident fragment causes no fault there either. Where no majority
//! exists, the paper reads "around" the page with the latest trend; here that is
//! ahead along the latest trend. Its data path and eager eviction are left out.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::request::Requests;
use super::{Rule, SCORE, Touch, VOLUMES, at};
use crate::ledger::Lru;
use crate::prefetch::{Prediction, Predictions};

/// Deltas remembered for each volume, `H_size`.
const HISTORY: usize = 32;
/// Parts of the history, `N_split`: the first vote is over one of them.
const SPLIT: usize = 4;
/// Largest window, `PWsize_max`.
const MAX_WINDOW: usize = 8;

/// The newest deltas, the newest first.
#[derive(Clone, Debug)]
struct History {
    deltas: VecDeque<i64>,
    size: usize,
}

impl History {
    fn new(size: usize) -> Self {
        Self { deltas: VecDeque::with_capacity(size), size }
    }

    fn record(&mut self, delta: i64) {
        self.deltas.truncate(self.size - 1);
        self.deltas.push_front(delta);
    }

    /// Algorithm 1. A history not yet full has no votes in its empty part.
    fn trend(&self, split: usize) -> Option<i64> {
        let mut window = self.size / split;
        while window <= self.size {
            if let Some(delta) = self.majority(window) {
                return Some(delta);
            }
            window *= 2;
        }
        None
    }

    /// The delta of more than half of the window.
    fn majority(&self, window: usize) -> Option<i64> {
        let newest = || self.deltas.iter().take(window).copied();
        let (mut candidate, mut lead) = (None, 0);
        for delta in newest() {
            if lead == 0 {
                candidate = Some(delta);
            }
            lead = if candidate == Some(delta) { lead + 1 } else { lead - 1 };
        }
        let votes = newest().filter(|delta| Some(*delta) == candidate).count();
        candidate.filter(|_| votes > window / 2)
    }
}

#[derive(Clone, Debug)]
struct Process {
    history: History,
    position: Option<u64>,
    /// The latest trend found.
    trend: Option<i64>,
    /// Size of the last window, `PWsize` of t - 1.
    window: usize,
    /// Proposals used since then, `C_hit`.
    hits: usize,
}

impl Default for Process {
    fn default() -> Self {
        let history = History::new(HISTORY);
        Self { history, position: None, trend: None, window: 0, hits: 0 }
    }
}

impl Process {
    fn record(&mut self, fragment: u64) {
        let before = self.position.replace(fragment);
        // Half of the numbers is farther than any volume is long.
        let delta = before.and_then(|before| fragment.checked_signed_diff(before));
        if let Some(delta) = delta {
            self.history.record(delta);
        }
    }

    /// Algorithm 2, `GetPrefetchWindowSize`.
    fn window(&mut self, follows: bool) -> usize {
        let wanted = match self.hits {
            0 => usize::from(follows),
            hits => (hits + 1).next_power_of_two().min(MAX_WINDOW),
        };
        self.hits = 0;
        self.window = wanted.max(self.window / 2);
        self.window
    }

    /// Algorithm 2, `DoPrefetch`: the fragments to read.
    fn prefetch(&mut self) -> impl Iterator<Item = u64> + use<> {
        let trend = self.history.trend(SPLIT);
        let follows = trend.is_some() && trend == self.history.deltas.front().copied();
        let window = self.window(follows);
        self.trend = trend.or(self.trend);
        let delta = self.trend.filter(|delta| *delta != 0).unwrap_or(0);
        let start = self.position.filter(|_| delta != 0);
        let next = move |at: &u64| at.checked_add_signed(delta);
        std::iter::successors(start, next).skip(1).take(window)
    }
}

/// The trends of all volumes.
#[derive(Clone, Debug)]
pub(super) struct Leap {
    requests: Requests,
    processes: Lru<u32, Process>,
}

impl Leap {
    pub fn new() -> Self {
        Self { requests: Requests::new(), processes: Lru::new(VOLUMES) }
    }
}

impl Rule for Leap {
    fn touch(&mut self, touch: &Touch, out: &mut Predictions) {
        let (step, request) = self.requests.follow(touch);
        let process = at(&mut self.processes, touch.volume);
        if step.fault {
            process.record(touch.fragment);
        }
        if request.is_some_and(|r| r.miss.is_some() && !r.write) {
            for fragment in process.prefetch() {
                out.push(Prediction { volume: touch.volume, fragment, score: SCORE });
            }
        }
    }

    fn used(&mut self, volume: u32, fragment: u64, _late: bool) {
        self.requests.used(volume, fragment);
        at(&mut self.processes, volume).hits += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    /// The paper's example of trend detection: a history of 8, split in 2.
    #[test]
    fn the_trends_of_the_papers_example() {
        let accesses = [
            0x48, 0x45, 0x42, 0x3F, 0x3C, 0x02, 0x04, 0x06, 0x08, 0x0A, 0x0C, 0x10, 0x39, 0x12,
            0x14, 0x16,
        ];
        let mut history = History::new(8);
        let mut trends = Vec::new();
        let mut before: Option<i64> = None;
        for access in accesses {
            history.record(before.map_or(0, |before| access - before));
            before = Some(access);
            trends.push(history.trend(2));
        }
        assert_eq!(trends[3], Some(-3), "within t0 to t3");
        assert_eq!(trends[7], None, "neither in t4 to t7 nor in t0 to t7");
        assert_eq!(trends[8], Some(2), "within t5 to t8");
        assert_eq!(trends[15], Some(2), "not in t12 to t15, but in t8 to t15");
    }

    #[test]
    fn the_window_follows_the_hits() {
        let (mut leap, mut driver) = (Leap::new(), Driver::default());
        let got = driver.reads(&mut leap, 0..25);
        let triggers: Vec<(usize, Vec<u64>)> =
            got.into_iter().enumerate().filter(|(_, p)| !p.is_empty()).collect();
        // Five of the eight newest deltas make a majority. One hit asks for 2, two
        // hits for 4, four for 8, and eight for 16, of which 8 are allowed.
        let expected = [
            (5, vec![6]),
            (7, vec![8, 9]),
            (10, vec![11, 12, 13, 14]),
            (15, (16..24).collect()),
            (24, (25..33).collect()),
        ];
        assert_eq!(triggers, expected);
    }

    #[test]
    fn without_hits_the_window_shrinks_by_half() {
        let (mut leap, mut driver) = (Leap::new(), Driver::default());
        driver.reads(&mut leap, 0..25);
        // No step of 1 any more, but the majority of the history still is.
        let got = driver.reads(&mut leap, [1000, 5000, 9900, 20_000]);
        let expected: [&[u64]; 4] = [&[1001, 1002, 1003, 1004], &[5001, 5002], &[9901], &[]];
        assert_eq!(got, expected);
    }

    #[test]
    fn writes_are_recorded_but_do_not_trigger() {
        let (mut leap, mut driver) = (Leap::new(), Driver::default());
        for fragment in 0..8 {
            assert!(driver.request(&mut leap, true, &[fragment]).is_empty());
        }
        assert_eq!(driver.read(&mut leap, 8), [9]);
    }
}
