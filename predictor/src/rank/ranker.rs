//! Proposes, scores, remembers and learns, crossing by crossing.
#![forbid(unsafe_code)]

use super::candidates::{Candidates, MAX_CANDIDATES};
use super::features::Trigger;
use super::history::History;
use super::key::Key;
use super::samples::Samples;
use super::walks::Walks;
use super::wide::{Rates, Wide};
use crate::Access;
use crate::prefetch::Settings;

/// Of the candidates that did not come, one in so many is learned from, with that weight.
const SPARSE: u32 = 4;
/// Shortest residency that outcomes are judged by, in crossings.
const LEAST_RESIDENCY: u64 = 16;

/// A candidate and its probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ranked {
    /// The volume.
    pub volume: u32,
    /// The fragment's number in it; may lie past the volume's end.
    pub fragment: u64,
    /// Probability that it is touched while the tier would keep it, 0 to 1.
    pub probability: f32,
}

/// The learned prefetcher of one client.
pub struct Ranker {
    fragment_shift: u8,
    /// Time that staging takes.
    lead_ns: u64,
    residency: u64,
    history: History,
    walks: Walks,
    candidates: Candidates,
    samples: Samples,
    wide: Wide,
    rates: Rates,
    failures: u32,
    ranked: [Ranked; MAX_CANDIDATES],
}

impl Ranker {
    /// A ranker that has seen nothing; of the settings it heeds the fragment's size.
    /// `residency` is how many crossings a staged fragment stays without being touched.
    pub fn new(settings: &Settings, residency: u64) -> Ranker {
        Ranker {
            fragment_shift: settings.fragment_shift,
            lead_ns: settings.lead_ns(),
            residency: residency.max(LEAST_RESIDENCY),
            history: History::new(),
            walks: Walks::new(),
            candidates: Candidates::new(),
            samples: Samples::new(),
            wide: Wide::new(),
            rates: Rates::new(),
            failures: 0,
            ranked: [Ranked::default(); MAX_CANDIDATES],
        }
    }

    /// Memory of one ranker, all of it allocated at once.
    pub const fn bytes() -> usize {
        History::bytes() + Samples::bytes() + Wide::bytes() + Rates::bytes()
    }

    /// A request touches one of its fragments; requests come in order, and so do their
    /// fragments. `None` if that is no crossing, else the candidates, likeliest first;
    /// fragments that are `resident` are no candidates.
    pub fn touch(
        &mut self,
        access: &Access,
        fragment: u64,
        resident: impl Fn(u32, u64) -> bool,
    ) -> Option<&[Ranked]> {
        let key = Key::new(access.volume, fragment)?;
        let previous = self.history.recent(0);
        if previous == Some(key) {
            self.walks.dwell(access);
            return None;
        }
        self.settle(key);
        let (pace, left) = self.walks.cross(access, fragment);
        self.history.follow(key);
        let before = self.history.find(key).copied();
        self.history.record(key, access.write);
        let jump = previous.and_then(|previous| key.delta(previous)).unwrap_or(0);
        let trigger = Trigger {
            access,
            key,
            fragment_shift: self.fragment_shift,
            pace,
            left,
            before: before.as_ref(),
            jump,
        };
        Some(self.rank(&trigger, |key| resident(key.volume(), key.fragment())))
    }

    fn rank(&mut self, trigger: &Trigger<'_>, resident: impl Fn(Key) -> bool) -> &[Ranked] {
        let Ranker { lead_ns, history, candidates, samples, wide, rates, ranked, .. } = self;
        let (pace, before) = (&trigger.pace, trigger.before);
        candidates.propose(trigger.key, pace, *lead_ns, before, history, &resident);
        let found = candidates.as_slice();
        for (candidate, ranked) in found.iter().zip(ranked.iter_mut()) {
            let features = trigger.features(candidate, history, rates, &resident);
            *ranked = Ranked {
                volume: candidate.key.volume(),
                fragment: candidate.key.fragment(),
                probability: wide.probability(&features),
            };
            samples.push(candidate.key, history.now, &features);
        }
        let ranked = &mut ranked[..found.len()];
        ranked.sort_unstable_by(|a, b| {
            let order = b.probability.total_cmp(&a.probability);
            order.then_with(|| (a.volume, a.fragment).cmp(&(b.volume, b.fragment)))
        });
        ranked
    }

    /// Learns that a fragment has come, and which candidates have not in time.
    fn settle(&mut self, key: Key) {
        let Ranker { samples, wide, rates, failures, .. } = self;
        samples.came(key, |features| {
            wide.learn(features, 1.0, 1.0);
            rates.learn(&features.rates, 1.0);
        });
        let until = (self.history.now + 1).saturating_sub(self.residency);
        while let Some(expired) = samples.expire(until, MAX_CANDIDATES) {
            let Some(features) = expired else { continue };
            rates.learn(&features.rates, 0.0);
            *failures += 1;
            if *failures == SPARSE {
                *failures = 0;
                wide.learn(features, 0.0, SPARSE as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fragment: u64) -> Access {
        let offset_bytes = fragment << 20;
        Access {
            fragment,
            last_fragment: fragment,
            offset_bytes,
            size_bytes: 1 << 20,
            ..Access::default()
        }
    }

    /// The likeliest candidate after each crossing.
    fn best(ranker: &mut Ranker, fragments: impl Iterator<Item = u64>) -> Vec<Option<Ranked>> {
        let touched = fragments.map(|fragment| {
            let ranked = ranker.touch(&read(fragment), fragment, |_, _| false);
            ranked.expect("a crossing").first().copied()
        });
        touched.collect()
    }

    #[test]
    fn a_ranker_fits_into_the_memory_of_a_core() {
        assert!(Ranker::bytes() <= 32 << 20, "{} bytes", Ranker::bytes());
    }

    #[test]
    fn only_crossings_are_ranked() {
        let mut ranker = Ranker::new(&Settings::default(), 64);
        assert!(ranker.touch(&read(5), 5, |_, _| false).is_some());
        assert!(ranker.touch(&read(5), 5, |_, _| false).is_none());
        assert!(ranker.touch(&read(1 << 40), 1 << 40, |_, _| false).is_none(), "beyond all keys");
    }

    #[test]
    fn a_scan_and_a_loop_are_learned() {
        let mut ranker = Ranker::new(&Settings::default(), 64);
        let scan = best(&mut ranker, 0..400);
        let last = scan.last().unwrap().unwrap();
        assert!((400..404).contains(&last.fragment) && last.probability > 0.9, "{last:?}");
        let round = [1 << 20, 7 << 20, 3 << 20, 9 << 20, 5 << 20];
        let again = best(&mut ranker, round.iter().copied().cycle().take(1000));
        let last = again.last().unwrap().unwrap();
        assert!(round.contains(&last.fragment) && last.probability > 0.9, "{last:?}");
    }

    #[test]
    fn what_never_comes_is_not_likely() {
        let mut ranker = Ranker::new(&Settings::default(), 64);
        let mut state = 1u64;
        let random = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 30
        });
        let ends = best(&mut ranker, random.take(3000));
        let likely = ends[1000..].iter().flatten().filter(|ranked| ranked.probability > 0.15);
        assert_eq!(likely.count(), 0);
    }

    #[test]
    fn residents_are_no_candidates_and_equal_inputs_rank_equally() {
        let mut one = Ranker::new(&Settings::default(), 64);
        let mut other = Ranker::new(&Settings::default(), 64);
        for n in 0..500 {
            let fragment = n * n % 97;
            let resident = |_, fragment| fragment % 2 == 0;
            let a = one.touch(&read(fragment), fragment, resident).map(<[Ranked]>::to_vec);
            let b = other.touch(&read(fragment), fragment, resident).map(<[Ranked]>::to_vec);
            assert_eq!(a, b);
            assert!(a.into_iter().flatten().all(|ranked| ranked.fragment % 2 == 1));
        }
    }
}
