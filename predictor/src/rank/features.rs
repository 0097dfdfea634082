//! What the model sees of a candidate: one feature of each group.
//!
//! | group | values | feature |
//! |---|---|---|
//! | 0 | 8192 hashed | delta and the trigger's last jump |
//! | 1 | 352 x 22 | delta and the recency of the neighbour below |
//! | 2, 3 | 12 x 8 | share of what came next, or near, with the weight of all that did |
//! | 4 | 12 x 512 | votes, with who proposed |
//! | 5 | 12 x 12 x 12 | votes, share of what followed the last two, of what came next |
//! | 6, 7 | 34 x 13 | recency and visits of the candidate, of the trigger |
//! | 8 | 2 x 34 | last touch a write, recency |
//! | 9 | 41 x 16 | the walk's pace, place on the walk |
//! | 10 | 16 x 352 | neighbours resident, delta |
//! | 11 | 4096 hashed | how the walk arrived and dwelt, delta |
//! | 12 | 8192 hashed | how it arrived and where it entered, delta |
//! | 13 | 4096 hashed | requests and bytes in the fragment left, delta |
//! | 14 | 4096 hashed | how it arrived and where it entered, who proposed |
//! | 15 | 2 x 512 | read or write, who proposed |
//! | 16 | 8 x 9 | replay: alike before, crossings after |
//! | 17-19, 21 | 76 | success rates of past candidates: same pair, delta after the trigger, region, trigger |
//! | 20 | 76 x 76 | those of the pair and of the candidate |
//!
//! Numbers are binned by their logarithm, shares in tenths.
#![forbid(unsafe_code)]

use super::candidates::Candidate;
use super::history::{History, Touched};
use super::key::{Key, floor, mix, slot};
use super::rates::{Rate, Rates};
use super::walks::Left;
use crate::bins::{log2, offsets};
use crate::stream::Pace;
use crate::{Access, deep};

/// Success rates that a candidate's outcome is counted in.
pub(super) const RATES: usize = 5;
/// Features of a candidate.
const GROUPS: usize = 22;
/// Values of each group.
const SIZES: [usize; GROUPS] = [
    8192,
    DELTAS * 22,
    96,
    96,
    12 * SOURCES,
    1728,
    RECENCIES * VISITS,
    RECENCIES * VISITS,
    2 * RECENCIES,
    PACES * STEPS,
    16 * DELTAS,
    4096,
    8192,
    4096,
    4096,
    2 * SOURCES,
    REPLAYS,
    CLASSES,
    CLASSES,
    CLASSES,
    CLASSES * CLASSES,
    CLASSES,
];
const OFFSETS: [usize; GROUPS] = offsets(&SIZES);
/// Weights of a model.
pub(super) const WEIGHTS: usize = 1 << 16;
const _: () = assert!(OFFSETS[GROUPS - 1] + SIZES[GROUPS - 1] <= WEIGHTS);

const SOURCES: usize = 512;
const DELTAS: usize = 352;
/// Bin of a candidate in another volume.
const ELSEWHERE: usize = 199;
const RECENCIES: usize = 34;
/// Recency of what was never touched.
const UNKNOWN: usize = RECENCIES - 1;
const VISITS: usize = 13;
const STEPS: usize = 16;
const PACES: usize = 41;
const REPLAYS: usize = 8 * 9;
const CLASSES: usize = Rates::CLASSES;

/// The features of one candidate, as places in the tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    weights: [u16; GROUPS],
    pub rates: [u32; RATES],
}

impl Default for Features {
    fn default() -> Self {
        Features { weights: [0; GROUPS], rates: [0; RATES] }
    }
}

impl Features {
    /// Sets the feature of group `G`.
    #[expect(clippy::cast_possible_truncation, reason = "all places are below 2^16")]
    pub fn put<const G: usize>(&mut self, value: usize) {
        debug_assert!(value < SIZES[G], "{value} in group {G}");
        self.weights[G] = (OFFSETS[G] + value.min(SIZES[G] - 1)) as u16;
    }

    /// Sets the feature of a hashed group, whose size is a power of two.
    fn hash<const G: usize>(&mut self, salt: u64, value: usize) {
        const { assert!(SIZES[G].is_power_of_two()) };
        self.put::<G>(slot(salt << 8 | G as u64, value as u64, SIZES[G].ilog2()));
    }

    pub fn weights(&self) -> &[u16; GROUPS] {
        &self.weights
    }

    fn value<const G: usize>(&self) -> usize {
        usize::from(self.weights[G]) - OFFSETS[G]
    }

    /// What the tower sees of a candidate.
    pub fn seen(&self, candidate: &Candidate, trigger: Key) -> deep::Candidate {
        let past = self.value::<6>();
        let candidate_rate = self.value::<20>() % CLASSES;
        deep::Candidate {
            sources: candidate.sources,
            distance: candidate.key.delta(trigger),
            steps: self.value::<9>() % STEPS,
            next: self.value::<2>() / 8,
            pair: self.value::<5>() / 12 % 12,
            near: self.value::<3>() / 8,
            votes: self.value::<4>() / SOURCES,
            recency: past / VISITS,
            visits: past % VISITS,
            rates: [
                self.value::<17>(),
                candidate_rate,
                self.value::<21>(),
                self.value::<18>(),
                self.value::<19>(),
            ],
            replay: self.value::<16>(),
            around: self.value::<10>() / DELTAS,
            below: self.value::<1>() % 22,
            written: self.value::<8>() >= RECENCIES,
        }
    }
}

/// What is the same for all candidates of a crossing.
pub(super) struct Trigger<'a> {
    pub access: &'a Access,
    /// The fragment come to.
    pub key: Key,
    pub pace: Pace,
    pub left: Left,
    /// What was known of the fragment before this crossing, and how many crossings ago it was
    /// touched.
    pub before: Option<(Touched, u64)>,
    /// Fragments from the previous crossing's, 0 between volumes.
    pub jump: i64,
    /// Of the hashed groups.
    pub salt: u64,
}

/// The same in bins.
pub(super) struct Common {
    salt: u64,
    jump: u64,
    pace: usize,
    write: usize,
    past: usize,
    next_total: usize,
    near_total: usize,
    arrival: usize,
    dwelt: usize,
    entry: usize,
    requests: usize,
}

/// What memory holds of a candidate and the fragment below it: touches with their age in
/// crossings, success rates and their places.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    known: Option<(Touched, u64)>,
    below: Option<(Touched, u64)>,
    places: [u32; RATES],
    rates: [Rate; RATES],
}

impl Found {
    /// Only what is known of a distance, not of fragments.
    pub fn forget_ids(&mut self) {
        let [.., delta, _, _] = self.rates;
        self.rates = [Rate::default(); RATES];
        self.rates[2] = delta;
    }
}

/// What is of one candidate, in bins that several groups use.
struct View {
    delta: usize,
    sources: usize,
    steps: usize,
}

impl Trigger<'_> {
    /// What all candidates share.
    pub fn common(&self, history: &History) -> Common {
        let lore = history.lore(self.key);
        let total = |total: f32| log2(floor(total).into());
        let start = self.key.fragment() << self.access.fragment_shift;
        let offset = self.access.offset_bytes;
        let eighths = |bytes: u64| narrow(bytes.saturating_mul(8) >> self.access.fragment_shift);
        Common {
            salt: self.salt,
            jump: self.jump.clamp(-1000, 1000).cast_unsigned(),
            pace: log2(self.pace.interval_ns.unwrap_or(0) / 1000).min(PACES - 1),
            write: usize::from(self.access.write),
            past: past(self.before),
            next_total: lore.map_or(0, |lore| total(lore.next.total)).min(7),
            near_total: lore.map_or(0, |lore| total(lore.near.total)).min(7),
            arrival: usize::from(self.left.contiguous) + 2 * usize::from(offset < start),
            dwelt: eighths(self.left.dwell_bytes).min(15),
            entry: eighths(offset.saturating_sub(start)).min(7),
            requests: log2(self.left.requests).min(7),
        }
    }

    /// What the encoder sees of the crossing, but for what it knows of the client.
    pub fn context(&self, common: &Common) -> deep::Context {
        deep::Context {
            jump: Some(self.jump).filter(|jump| *jump != 0),
            step: self.pace.delta,
            run: self.pace.run,
            write: self.access.write,
            arrival: common.arrival,
            entry: common.entry,
            size_bytes: self.access.size_bytes,
            dwelt: common.dwelt,
            requests: common.requests,
            recency: common.past / VISITS,
            visits: common.past % VISITS,
            pace: common.pace,
            next_total: common.next_total,
            ..deep::Context::default()
        }
    }

    /// Looks up what the features of a candidate need. Apart from them, so that the misses of
    /// one candidate's memory overlap with those of the next.
    pub fn look_up(&self, candidate: &Candidate, history: &History, rates: &Rates) -> Found {
        let aged = |touched: &Touched| (*touched, history.age(touched));
        let (trigger, key) = (self.key.get(), candidate.key.get());
        let delta = candidate.key.delta(self.key).map_or(ELSEWHERE, delta_bin);
        let places = [
            Rates::place(0, mix(trigger, key)),
            Rates::place(1, key),
            Rates::place(3, mix(trigger, delta as u64)),
            Rates::place(4, key >> 4),
            Rates::place(2, trigger),
        ];
        Found {
            known: history.find(candidate.key).map(aged),
            below: candidate.key.step(-1).and_then(|key| history.find(key)).map(aged),
            places,
            rates: places.map(|place| rates.get(place)),
        }
    }

    /// The features of a candidate.
    pub fn features(
        &self,
        common: &Common,
        candidate: &Candidate,
        found: &Found,
        rates: &Rates,
        resident: &impl Fn(Key) -> bool,
    ) -> Features {
        let mut features = Features { rates: found.places, ..Features::default() };
        let delta = candidate.key.delta(self.key);
        let view = View {
            delta: delta.map_or(ELSEWHERE, delta_bin),
            sources: candidate.sources.into(),
            steps: delta.map_or(0, |delta| steps(delta, self.pace.delta)),
        };
        position(&mut features, common, &view, candidate, found, resident);
        memory(&mut features, common, &view, candidate, found);
        request(&mut features, common, &view);
        let [pair, candidate, delta, region, trigger] = found.rates.map(|rate| rates.class(rate));
        features.put::<17>(pair);
        features.put::<18>(delta);
        features.put::<19>(region);
        features.put::<20>(pair * CLASSES + candidate);
        features.put::<21>(trigger);
        features
    }
}

fn position(
    features: &mut Features,
    common: &Common,
    view: &View,
    candidate: &Candidate,
    found: &Found,
    resident: &impl Fn(Key) -> bool,
) {
    let neighbour = |delta| candidate.key.step(delta);
    let below = found.below.map_or(21, |(_, age)| log2(age).min(20));
    let here = |delta| usize::from(neighbour(delta).is_some_and(resident));
    let around = here(1) | here(-1) << 1 | here(-2) << 2 | here(-3) << 3;
    features.hash::<0>(common.salt, view.delta << 32 | narrow(common.jump & 0xffff_ffff));
    features.put::<1>(view.delta * 22 + below);
    features.put::<9>(common.pace * STEPS + view.steps);
    features.put::<10>(around * DELTAS + view.delta);
}

fn memory(
    features: &mut Features,
    common: &Common,
    view: &View,
    candidate: &Candidate,
    found: &Found,
) {
    let known = found.known;
    let (next, pair) = (tenths(candidate.next), tenths(candidate.pair));
    // A follower that came at each of the seven places of a window has a share of 1/7.
    let near = tenths(candidate.near * 7.0);
    features.put::<2>(next * 8 + common.next_total);
    features.put::<3>(near * 8 + common.near_total);
    features.put::<4>(tenths(candidate.votes * 3.5) * SOURCES + view.sources);
    features.put::<5>((tenths(candidate.votes * 7.0) * 12 + pair) * 12 + next);
    features.put::<6>(past(known));
    features.put::<7>(common.past);
    let written = known.is_some_and(|(touched, _)| touched.written);
    features.put::<8>(usize::from(written) * RECENCIES + recency(known));
    let replay = narrow(candidate.replay * 9 + candidate.replay_at);
    features.put::<16>(replay);
}

fn request(features: &mut Features, common: &Common, view: &View) {
    let Common { salt, arrival, dwelt, entry, requests, write, .. } = *common;
    features.hash::<11>(salt, (arrival * 16 + dwelt) * DELTAS + view.delta);
    features.hash::<12>(salt, (arrival * 8 + entry) * DELTAS + view.delta);
    features.hash::<13>(salt, (requests * 16 + dwelt) * DELTAS + view.delta);
    features.hash::<14>(salt, (arrival * 8 + entry) * SOURCES + view.sources);
    features.put::<15>(write * SOURCES + view.sources);
}

fn recency(known: Option<(Touched, u64)>) -> usize {
    known.map_or(UNKNOWN, |(_, age)| log2(age).min(UNKNOWN - 1))
}

/// Recency and visits.
fn past(known: Option<(Touched, u64)>) -> usize {
    let visits = known.map_or(0, |(touched, _)| log2(touched.count.into()).min(VISITS - 1));
    recency(known) * VISITS + visits
}

/// A small number as an index.
fn narrow(value: u64) -> usize {
    usize::try_from(value).expect("64 bits")
}

/// Small deltas exactly, large ones by logarithm and sign, all below [`ELSEWHERE`] or from 200 on.
fn delta_bin(delta: i64) -> usize {
    if delta.unsigned_abs() <= 16 {
        return narrow(64_u64.wrapping_add_signed(delta));
    }
    200 + log2(delta.unsigned_abs()) * 2 + usize::from(delta < 0)
}

/// Which step of the walk a delta is: up to 8 exactly, then by logarithm; 0 if none.
fn steps(delta: i64, stride: i64) -> usize {
    if stride == 0 || delta.checked_rem(stride) != Some(0) {
        return 0;
    }
    match u64::try_from(delta / stride) {
        Ok(few @ ..=8) => narrow(few),
        Ok(steps) => (5 + log2(steps)).min(STEPS - 1),
        Err(_) => 0,
    }
}

/// 0 for none, else 1 to 11.
fn tenths(share: f32) -> usize {
    if share > 0.0 { 1 + usize::from(floor(share.min(1.0) * 10.0)) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::history::Recent;
    use super::*;

    #[test]
    fn bins_tell_small_deltas_apart_and_stay_small() {
        assert_eq!((delta_bin(-16), delta_bin(16), delta_bin(17)), (48, 80, 210));
        assert_eq!((delta_bin(-17), delta_bin(i64::MAX)), (211, 326));
        assert!(delta_bin(i64::MIN) < DELTAS && delta_bin(0) < ELSEWHERE);
        assert_eq!([0.0, 0.01, 0.55, 1.0, 9.0].map(tenths), [0, 1, 6, 11, 11]);
        assert_eq!(
            [(6, 3), (-6, 3), (7, 3), (6, 0), (64, 1)].map(|(d, s)| steps(d, s)),
            [2, 0, 0, 0, 12]
        );
    }

    #[test]
    fn every_group_has_its_own_feature() {
        let mut history = History::new();
        let key = Key::new(0, 5).unwrap();
        history.record(&mut Recent::default(), key, false);
        let access = Access {
            offset_bytes: 5 << 20,
            size_bytes: 4096,
            fragment_shift: 20,
            ..Access::default()
        };
        let trigger = Trigger {
            access: &access,
            key,
            pace: Pace::default(),
            left: Left::default(),
            before: None,
            jump: 0,
            salt: 1,
        };
        let candidate =
            Candidate { key: Key::new(0, 6).unwrap(), sources: 1, ..Candidate::default() };
        let common = trigger.common(&history);
        let rates = Rates::new();
        let found = trigger.look_up(&candidate, &history, &rates);
        let features = trigger.features(&common, &candidate, &found, &rates, &|_| false);
        for (group, weight) in features.weights().iter().enumerate() {
            let place = usize::from(*weight);
            assert!((OFFSETS[group]..OFFSETS[group] + SIZES[group]).contains(&place), "{group}");
        }
    }
}
