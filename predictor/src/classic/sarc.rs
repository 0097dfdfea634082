//! Sequential detection with a threshold, synchronous and asynchronous prefetch of a
//! fixed degree: the prefetch side of SARC.
//!
//! Source: B. S. Gill and D. S. Modha, "SARC: Sequential Prefetching in Adaptive
//! Replacement Cache", USENIX ATC '05, section II. Each track has a counter: 1 if
//! the track before it is unknown when it is first touched, else one more than that
//! one's, up to [`THRESHOLD`], at which the track is sequential. A miss on a
//! sequential track prefetches the `prefetch_depth` tracks behind it; the track in
//! the middle of such a group is the asynchronous trigger, and a hit on it
//! prefetches the group behind.
//!
//! A rule does not see the cache: "present" means among the [`TRACKS`] touched last,
//! and a counter starts over when its track misses. The threshold and the place of
//! the trigger are parameters in the paper. The lists SEQ and RANDOM are the cache's
//! side, which the laboratory gives this rule instead of its LRU tier ([`super::SarcCache`]).
#![forbid(unsafe_code)]

use super::request::Requests;
use super::{Key, Rule, Touch, at, propose_run};
use crate::ledger::Lru;
use crate::prefetch::{Predictions, Settings};

/// Tracks remembered.
const TRACKS: usize = 1 << 13;
/// Counter of a sequential track, `seqThreshold`.
const THRESHOLD: u8 = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// 0 while uninitialized.
    counter: u8,
    /// It is the trigger of the group that ends here.
    trigger: Option<u64>,
}

/// Counters of the tracks.
#[derive(Clone, Debug)]
pub(super) struct Sarc {
    degree: usize,
    requests: Requests,
    tracks: Lru<Key, Track>,
    /// First track of the group that the request under way has to prefetch.
    due: Option<u64>,
}

impl Sarc {
    pub fn new(settings: &Settings) -> Self {
        Self {
            degree: settings.prefetch_depth,
            requests: Requests::new(),
            tracks: Lru::new(TRACKS),
            due: None,
        }
    }

    fn count(&mut self, touch: &Touch) {
        let before = touch.fragment.checked_sub(1);
        let before = before.and_then(|f| self.tracks.get(&(touch.volume, f)));
        let before = before.map_or(0, |track| track.counter);
        let track = at(&mut self.tracks, (touch.volume, touch.fragment));
        if track.counter == 0 || !touch.hit {
            track.counter = (before + 1).min(THRESHOLD);
        }
        if touch.write {
            return;
        }
        let trigger = track.trigger.take();
        let behind = match (touch.hit, trigger) {
            (false, _) if track.counter == THRESHOLD => Some(touch.fragment),
            (true, Some(end)) => Some(end),
            _ => return,
        };
        self.due = behind.and_then(|end| end.checked_add(1));
    }

    fn prefetch(&mut self, volume: u32, first: u64, out: &mut Predictions) {
        let size = u64::try_from(self.degree).expect("at most 16");
        let Some(end) = first.checked_add(size - 1) else { return };
        let trigger = Track { counter: THRESHOLD, trigger: Some(end) };
        self.tracks.insert((volume, end - size / 2), trigger);
        propose_run(out, volume, first, self.degree);
    }
}

impl Rule for Sarc {
    fn touch(&mut self, touch: &Touch, out: &mut Predictions) {
        let (_, request) = self.requests.follow(touch);
        self.count(touch);
        let Some(request) = request else { return };
        if let Some(first) = self.due.take() {
            // The request itself may have gone on into the group.
            let behind = request.last.checked_add(1);
            self.prefetch(request.volume, behind.map_or(first, |b| first.max(b)), out);
        }
    }

    fn is_sequential(&mut self, volume: u32, fragment: u64) -> bool {
        self.tracks.get(&(volume, fragment)).is_some_and(|track| track.counter == THRESHOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    fn degree(prefetch_depth: usize) -> Sarc {
        Sarc::new(&Settings { prefetch_depth, ..Settings::default() })
    }

    #[test]
    fn synchronous_then_asynchronous_groups() {
        let (mut sarc, mut driver) = (degree(4), Driver::default());
        let got = driver.reads(&mut sarc, 10..18);
        // The miss on 11 is sequential: 12 to 15, with the trigger 13; then 17.
        let expected: [&[u64]; 8] =
            [&[], &[12, 13, 14, 15], &[], &[16, 17, 18, 19], &[], &[], &[], &[20, 21, 22, 23]];
        assert_eq!(got, expected);
    }

    #[test]
    fn a_lost_group_is_fetched_by_the_next_sequential_miss() {
        let (mut sarc, mut driver) = (degree(4), Driver::default());
        driver.reads(&mut sarc, 10..12);
        (12..16).for_each(|f| driver.evict(&mut sarc, f));
        assert_eq!(driver.read(&mut sarc, 12), [13, 14, 15, 16]);
    }

    #[test]
    fn the_second_track_of_a_stream_is_sequential() {
        let (mut sarc, mut driver) = (degree(4), Driver::default());
        let mut sequential = |fragment| {
            driver.read(&mut sarc, fragment);
            sarc.is_sequential(3, fragment)
        };
        assert_eq!([10, 11, 12, 40].map(&mut sequential), [false, true, true, false]);
    }

    #[test]
    fn jumps_and_writes_do_not_trigger() {
        let (mut sarc, mut driver) = (degree(4), Driver::default());
        assert!(driver.reads(&mut sarc, [10, 20, 30, 29]).iter().all(Vec::is_empty));
        assert!(driver.request(&mut sarc, true, &[31]).is_empty());
        assert_eq!(driver.read(&mut sarc, 32), [33, 34, 35, 36], "the write was counted");
        assert!(driver.request(&mut sarc, true, &[33, 34]).is_empty());
        assert_eq!(driver.read(&mut sarc, 34), [37, 38, 39, 40], "the trigger stayed armed");
    }
}
