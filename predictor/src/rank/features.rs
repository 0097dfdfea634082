//! What the model sees of a candidate: one hashed feature of each group.
//!
//! | groups | features |
//! |---|---|
//! | 0–1 | bias; who proposed |
//! | 2–5 | delta, alone and with the walk's run, the trigger's last jump, the recency of the neighbour below |
//! | 6–10 | shares and votes of the proposers |
//! | 11–13 | recency and number of visits of candidate and trigger; last touch a write |
//! | 14–16 | place on the walk; the walk's pace; neighbours resident |
//! | 17–23 | how the walk dwelt in the fragment it left, where the request begins in its new one; read or write |
//! | 24–25 | replay |
//! | 26–35 | success rates of past candidates of the same pair, candidate, trigger, delta and region |
//!
//! Numbers are binned by their logarithm, shares in tenths.
#![forbid(unsafe_code)]

use super::candidates::Candidate;
use super::history::{Fragment, History};
use super::key::{Key, floor, log2, mix};
use super::walks::Left;
use super::wide::{Rates, Wide};
use crate::Access;
use crate::stream::Pace;

/// Most features of a candidate.
const MAX_FEATURES: usize = 36;
/// Success rates that a candidate's outcome is counted in.
pub(super) const RATES: usize = 6;
/// Bin of what was never touched, or is in another volume.
const UNKNOWN: u64 = 30;

/// The features of one candidate, as places in the tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    weights: [u32; MAX_FEATURES],
    len: u8,
    pub rates: [u32; RATES],
}

impl Default for Features {
    fn default() -> Self {
        Features { weights: [0; MAX_FEATURES], len: 0, rates: [0; RATES] }
    }
}

impl Features {
    /// Adds the feature `value` of `group`.
    pub fn put(&mut self, group: u64, value: u64) {
        self.weights[usize::from(self.len)] = Wide::place(group, value);
        self.len += 1;
    }

    pub fn weights(&self) -> &[u32] {
        &self.weights[..usize::from(self.len)]
    }
}

/// What is the same for all candidates of a crossing.
pub(super) struct Trigger<'a> {
    pub access: &'a Access,
    /// The fragment come to.
    pub key: Key,
    /// log2 of the fragment's bytes.
    pub fragment_shift: u8,
    pub pace: Pace,
    pub left: Left,
    /// What was known of the fragment before this crossing.
    pub before: Option<&'a Fragment>,
    /// Fragments from the previous crossing's, 0 between volumes.
    pub jump: i64,
}

impl Trigger<'_> {
    /// The features of a candidate.
    pub fn features(
        &self,
        candidate: &Candidate,
        history: &History,
        rates: &Rates,
        resident: &impl Fn(Key) -> bool,
    ) -> Features {
        let mut features = Features::default();
        let delta = candidate.key.delta(self.key);
        let view = View {
            delta: delta.map_or(199, delta_bin),
            sources: u64::from(candidate.sources),
            run: u64::from(self.pace.run).min(8),
            steps: delta.map_or(0, |delta| steps(delta, self.pace.delta)),
        };
        self.position(&mut features, &view, candidate, history, resident);
        self.past(&mut features, &view, candidate, history);
        self.request(&mut features, &view);
        self.rates(&mut features, &view, candidate, rates);
        features
    }

    fn position(
        &self,
        features: &mut Features,
        view: &View,
        candidate: &Candidate,
        history: &History,
        resident: &impl Fn(Key) -> bool,
    ) {
        let neighbour = |delta| candidate.key.step(delta);
        let below = neighbour(-1).and_then(|key| history.find(key));
        let below = below.map_or(31, |fragment| log2(history.now - fragment.last).min(20));
        let here = |delta| u64::from(neighbour(delta).is_some_and(resident));
        let around = here(1) | here(-1) << 1 | here(-2) << 2 | here(-3) << 3;
        let pace = log2(self.pace.interval_ns.unwrap_or(0) / 1000);
        features.put(0, 0);
        features.put(1, view.sources);
        features.put(2, view.delta);
        features.put(3, view.delta * 16 + view.run);
        features
            .put(4, view.delta << 32 | mix(self.jump.clamp(-1000, 1000).cast_unsigned(), 0) >> 32);
        features.put(5, view.delta * 32 + below);
        features.put(14, view.steps * 16 + view.run);
        features.put(15, pace * 32 + view.steps);
        features.put(16, around * 512 + view.delta);
    }

    fn past(&self, features: &mut Features, view: &View, candidate: &Candidate, history: &History) {
        let known = history.find(candidate.key);
        let recency = |fragment: Option<&Fragment>| {
            fragment.map_or(UNKNOWN, |fragment| log2(history.now - fragment.last))
        };
        let visits = |fragment: Option<&Fragment>| {
            fragment.map_or(0, |fragment| log2(fragment.count).min(12))
        };
        let total = |total: f32| log2(floor(total).into());
        let next_total = self.before.map_or(0, |fragment| total(fragment.next.total));
        let near_total = self.before.map_or(0, |fragment| total(fragment.near.total));
        let (next, pair) = (tenths(candidate.next), tenths(candidate.pair));
        // A follower that came at each of the seven places of a window has a share of 1/7.
        let near = tenths(candidate.near * 7.0);
        features.put(6, next * 16 + next_total);
        features.put(7, near * 16 + near_total);
        features.put(8, tenths(candidate.votes * 3.5) * 512 + view.sources);
        features.put(9, pair);
        features.put(10, (tenths(candidate.votes * 7.0) * 12 + pair) * 12 + next);
        features.put(11, recency(known) * 16 + visits(known));
        features.put(12, recency(self.before) * 16 + visits(self.before));
        let written = known.is_some_and(|fragment| fragment.written);
        features.put(13, u64::from(written) * 32 + recency(known));
        let replay = candidate.replay * 16 + candidate.replay_at;
        features.put(24, replay);
        features.put(25, replay * 512 + view.sources);
    }

    fn request(&self, features: &mut Features, view: &View) {
        let arrival = self.arrival();
        let dwelt = self.dwelt();
        let write = u64::from(self.access.write);
        features.put(17, (arrival * 16 + dwelt) * 512 + view.delta);
        features.put(18, (arrival * 8 + self.entry()) * 512 + view.delta);
        features.put(19, (log2(self.left.requests).min(7) * 16 + dwelt) * 512 + view.delta);
        let place = (arrival * 16 + view.run) * 8 + self.entry();
        features.put(20, place * 16 + view.steps);
        features.put(21, (arrival * 8 + self.entry()) * 512 + view.sources);
        features.put(22, write * 512 + view.sources);
        features.put(23, (write * 512 + view.delta) * 16 + view.run);
    }

    fn rates(&self, features: &mut Features, view: &View, candidate: &Candidate, rates: &Rates) {
        let (trigger, key) = (self.key.get(), candidate.key.get());
        let manner = ((self.arrival() * 16 + self.dwelt()) * 16 + view.run) * 512 + view.delta;
        features.rates = [
            Rates::place(0, mix(trigger, key)),
            Rates::place(1, key),
            Rates::place(2, trigger),
            Rates::place(3, mix(trigger, view.delta)),
            Rates::place(4, key >> 4),
            Rates::place(5, manner),
        ];
        let classes = features.rates.map(|place| rates.class(place));
        for (group, class) in (26..).zip(classes) {
            features.put(group, class);
        }
        let cross = |a: usize, b: usize| classes[a] * Rates::CLASSES + classes[b];
        features.put(32, cross(0, 1));
        features.put(33, cross(0, 2));
        features.put(34, cross(1, 5));
        features.put(35, cross(3, 1));
    }

    /// Whether the request goes on where the last one ended, and began in a fragment below.
    fn arrival(&self) -> u64 {
        let start = self.key.fragment() << self.fragment_shift;
        u64::from(self.left.contiguous) + 2 * u64::from(self.access.offset_bytes < start)
    }

    /// Eighths of the fragment left that were asked for.
    fn dwelt(&self) -> u64 {
        (self.left.dwell_bytes.saturating_mul(8) >> self.fragment_shift).min(15)
    }

    /// The eighth of the fragment in which the request begins.
    fn entry(&self) -> u64 {
        let start = self.key.fragment() << self.fragment_shift;
        (self.access.offset_bytes.saturating_sub(start).saturating_mul(8) >> self.fragment_shift)
            .min(7)
    }
}

/// Bins that several groups use.
struct View {
    delta: u64,
    sources: u64,
    run: u64,
    steps: u64,
}

/// Small deltas exactly, large ones by logarithm and sign; below 512.
fn delta_bin(delta: i64) -> u64 {
    if delta.unsigned_abs() <= 16 {
        return 64_u64.wrapping_add_signed(delta);
    }
    200 + log2(delta.unsigned_abs()) * 2 + u64::from(delta < 0)
}

/// Which step of the walk a delta is: up to 8 exactly, then by logarithm; 0 if none.
fn steps(delta: i64, stride: i64) -> u64 {
    if stride == 0 || delta.checked_rem(stride) != Some(0) {
        return 0;
    }
    match u64::try_from(delta / stride) {
        Ok(few @ ..=8) => few,
        Ok(steps) => (5 + log2(steps)).min(15),
        Err(_) => 0,
    }
}

/// 0 for none, else 1 to 11.
fn tenths(share: f32) -> u64 {
    if share > 0.0 { 1 + u64::from(floor(share.min(1.0) * 10.0)) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_tell_small_deltas_apart_and_stay_small() {
        assert_eq!((delta_bin(-16), delta_bin(16), delta_bin(17)), (48, 80, 210));
        assert_eq!((delta_bin(-17), delta_bin(i64::MAX)), (211, 326));
        assert!(delta_bin(-(1 << 41)) < 512);
        assert_eq!([0.0, 0.01, 0.55, 1.0, 9.0].map(tenths), [0, 1, 6, 11, 11]);
        assert_eq!(
            [(6, 3), (-6, 3), (7, 3), (6, 0), (64, 1)].map(|(d, s)| steps(d, s)),
            [2, 0, 0, 0, 12]
        );
    }

    #[test]
    fn every_group_has_one_feature() {
        let mut history = History::new();
        let key = Key::new(0, 5).unwrap();
        history.record(key, false);
        let trigger = Trigger {
            access: &Access { offset_bytes: 5 << 20, size_bytes: 4096, ..Access::default() },
            key,
            fragment_shift: 20,
            pace: Pace::default(),
            left: Left::default(),
            before: None,
            jump: 0,
        };
        let candidate =
            Candidate { key: Key::new(0, 6).unwrap(), sources: 1, ..Candidate::default() };
        let features = trigger.features(&candidate, &history, &Rates::new(), &|_| false);
        assert_eq!(features.weights().len(), MAX_FEATURES);
    }
}
