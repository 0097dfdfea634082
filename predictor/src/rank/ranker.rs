//! Proposes, scores, remembers and learns, crossing by crossing.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::candidates::{Candidate, Candidates, MAX_CANDIDATES};
use super::clients::Clients;
use super::features::{Common, Found, Trigger};
use super::history::History;
use super::key::Key;
use super::models::{AGAIN, MODELS, Models};
use super::part::Part;
use super::rates::Rates;
use super::samples::Samples;
use super::saved::{Model, Owner, Saved};
use super::tower::Tower;
use crate::Access;
use crate::deep::{self, Tag};
use crate::odds::logistic;

/// Of the candidates that did not come, one in so many is learned from, with that weight.
const SPARSE: u32 = 4;
/// Seed of the hashes.
const SEED: u64 = 1;
/// Log-odds below which the tower is not asked: what it could add does not make the candidate
/// worth staging.
const HOPELESS: f32 = -3.0;
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
    /// Who proposed it, as bits: [`super::source_names`].
    pub sources: u16,
}

/// A client has come to another fragment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing<'a> {
    /// Probability that another request comes to the fragment while the tier would keep it.
    pub again: f32,
    /// What may come besides, likeliest first.
    pub ranked: &'a [Ranked],
}

/// What is asked at a crossing; without either it is followed and learned from only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What may come besides.
    pub ranked: bool,
    /// Whether another request comes to the fragment; only together with that.
    pub again: bool,
}

impl Asked {
    /// Both.
    pub const ALL: Asked = Asked { ranked: true, again: true };
}

/// The learned prefetcher of one core's clients.
pub struct Ranker {
    residency: u64,
    /// Time that staging takes.
    lead_ns: u64,
    history: History,
    clients: Clients,
    candidates: Candidates,
    samples: Samples,
    models: Models,
    rates: Rates,
    tower: Option<Box<Tower>>,
    /// For experiments.
    without: Option<Part>,
    /// Of the hashed features.
    salt: u64,
    failures: u32,
    /// Whether an outcome counts that a write has brought.
    writes_count: bool,
    ranked: [Ranked; MAX_CANDIDATES],
}

impl Ranker {
    /// A ranker that has seen nothing. `residency` is how many crossings a staged fragment
    /// stays without being touched, `lead_ns` how long staging one takes.
    pub fn new(residency: u64, lead_ns: u64) -> Ranker {
        Ranker {
            residency: residency.max(LEAST_RESIDENCY),
            lead_ns,
            history: History::new(),
            clients: Clients::new(),
            candidates: Candidates::new(),
            samples: Samples::new(),
            models: Models::new(),
            rates: Rates::new(),
            tower: None,
            without: None,
            salt: SEED,
            failures: 0,
            writes_count: true,
            ranked: [Ranked::default(); MAX_CANDIDATES],
        }
    }

    /// The same where a write waits for no fragment: only reads are foreseen.
    pub fn for_reads(residency: u64, lead_ns: u64) -> Ranker {
        Ranker { writes_count: false, ..Ranker::new(residency, lead_ns) }
    }

    /// The same with other hashes, and learning from others of the failures: what differs then
    /// is chance.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Ranker {
        let phase = u32::try_from(seed % u64::from(SPARSE)).expect("below a small number");
        Ranker { salt: seed, failures: phase, ..self }
    }

    /// The same without one of its parts.
    #[must_use]
    pub fn without(self, part: Part) -> Ranker {
        let tower = self.tower.filter(|_| part != Part::Tower);
        let tower = tower.map(|tower| Box::new(tower.without(part)));
        Ranker { tower, without: Some(part), ..self }
    }

    /// A staged fragment stays for so many crossings from now on.
    pub fn set_residency(&mut self, crossings: u64) {
        self.residency = crossings.max(LEAST_RESIDENCY);
    }

    /// The tower runs this model from now on; it is built if there is none. Its odds count
    /// if the model is trained.
    pub fn install(&mut self, model: Arc<deep::Model>, trained: bool) {
        match &mut self.tower {
            Some(tower) => tower.install(model, trained),
            None => self.tower = Some(Box::new(Tower::new(model, trained))),
        }
    }

    /// Takes a crossing that the tower can learn from, oldest first. What is not taken in
    /// time is lost.
    pub fn settled(&mut self) -> Option<&deep::Crossing> {
        // As far as samples have expired: before the newest crossing.
        let until = self.history.now().saturating_sub(self.residency);
        self.tower.as_mut()?.window.settled(until)
    }

    /// Memory of a tower besides [`Ranker::bytes`].
    pub const fn tower_bytes() -> usize {
        Tower::bytes()
    }

    /// Clients with a model of their own.
    pub fn models(&self) -> u64 {
        self.models.owned()
    }

    /// Models that may be asked for by [`Ranker::learned`].
    pub const MODELS: usize = MODELS;

    /// Takes models of an earlier run or of all cores: clients that come begin with theirs.
    pub fn remember(&mut self, saved: Arc<Saved>) {
        self.models.remember(saved);
    }

    /// What the model of this number has learned, copied, and whose it is; `None` if that is
    /// nothing since it was last asked.
    pub fn learned(&mut self, model: usize) -> Option<(Owner, Model)> {
        self.models.learned(model)
    }

    /// Pool's models of all cores that have won against this core's.
    pub fn models_won(&self) -> u64 {
        self.models.won
    }

    /// Memory of a ranker, all of it allocated at once.
    pub const fn bytes() -> usize {
        History::bytes() + Clients::bytes() + Samples::bytes() + Models::bytes() + Rates::bytes()
    }

    /// A request of a client touches one of its fragments; requests come in order, and so do
    /// their fragments. `None` if that is no crossing; fragments that are `resident` are no
    /// candidates.
    pub fn touch(
        &mut self,
        client: u64,
        access: &Access,
        fragment: u64,
        resident: impl Fn(u32, u64) -> bool,
    ) -> Option<Crossing<'_>> {
        let crosses = !self.dwells(client, access, fragment);
        crosses.then(|| self.cross(client, access, fragment, Asked::ALL, resident))
    }

    /// The first half of [`Ranker::touch`]: true if the client is in that fragment already, or
    /// nothing can be learned of it; else [`Ranker::cross`] may follow.
    pub fn dwells(&mut self, client: u64, access: &Access, fragment: u64) -> bool {
        let Some(key) = Key::new(access.volume, fragment) else { return true };
        let place = self.clients.place(client);
        let follower = self.clients.get_mut(place);
        if follower.at() != Some(key) {
            return false;
        }
        follower.walks.dwell(access);
        let counts = self.writes_count || !access.write;
        let first = counts && !std::mem::replace(&mut follower.dwelt, counts);
        if first {
            self.came(key);
        }
        true
    }

    /// The client comes to the fragment from another one.
    ///
    /// # Panics
    /// If the fragment has no key: [`Ranker::dwells`] says so.
    pub fn cross(
        &mut self,
        client: u64,
        access: &Access,
        fragment: u64,
        asked: Asked,
        resident: impl Fn(u32, u64) -> bool,
    ) -> Crossing<'_> {
        let key = Key::new(access.volume, fragment).expect("a fragment with a key");
        let place = self.clients.place(client);
        if self.writes_count || !access.write {
            self.came(key);
        }
        self.expire();
        let follower = self.clients.get_mut(place);
        let previous = follower.at();
        let (pace, left) = follower.walks.cross(access, fragment);
        let before = self.history.find(key).copied();
        let before = before.map(|touched| (touched, self.history.age(&touched)));
        let visits = self.history.lore(key).map(|lore| lore.visits()).unwrap_or_default();
        self.history.record(&mut follower.recent, key, access.write);
        follower.crossings += 1;
        follower.dwelt = false;
        let now = self.history.now();
        follower.model = self.models.choose(client, follower.model, follower.crossings, now);
        if !asked.ranked {
            return Crossing { again: 0.0, ranked: &[] };
        }
        let resident = |key: Key| resident(key.volume(), key.fragment());
        let (recent, model) = (follower.recent, follower.model);
        self.candidates.propose(&recent, visits, &pace, self.lead_ns, &self.history, &resident);
        let jump = previous.and_then(|previous| key.delta(previous)).unwrap_or(0);
        let trigger = Trigger { access, key, pace, left, before, jump, salt: self.salt };
        let common = trigger.common(&self.history);
        let again = if asked.again { self.again(&trigger, &common, &resident) } else { 0.0 };
        let ranked = self.rank(&trigger, &common, (place, client), model, &resident);
        Crossing { again, ranked }
    }

    /// Whether another request comes to the fragment.
    fn again(
        &mut self,
        trigger: &Trigger<'_>,
        common: &Common,
        resident: &impl Fn(Key) -> bool,
    ) -> f32 {
        let Ranker { history, samples, models, rates, .. } = self;
        let here = Candidate { key: trigger.key, ..Candidate::default() };
        let found = trigger.look_up(&here, history, rates);
        let features = trigger.features(common, &here, &found, rates, resident);
        samples.push(here.key, history.now(), AGAIN, &features, Tag::default());
        logistic(models.get(AGAIN).odds(&features))
    }

    /// The candidates, likeliest first.
    fn rank(
        &mut self,
        trigger: &Trigger<'_>,
        common: &Common,
        client: (usize, u64),
        model: usize,
        resident: &impl Fn(Key) -> bool,
    ) -> &[Ranked] {
        let Ranker { history, candidates, samples, models, rates, tower, ranked, without, .. } =
            self;
        let (wide, now) = (models.get(model), history.now());
        let candidates = candidates.as_slice();
        let mut found = [Found::default(); MAX_CANDIDATES];
        for (candidate, found) in candidates.iter().zip(&mut found) {
            *found = trigger.look_up(candidate, history, rates);
            if *without == Some(Part::Ids) {
                found.forget_ids();
            }
        }
        let mut tower = tower.as_mut();
        let mut met = tower.as_mut().map(|tower| tower.cross(client, now, trigger, common));
        for ((candidate, found), ranked) in candidates.iter().zip(&found).zip(ranked.iter_mut()) {
            let features = trigger.features(common, candidate, found, rates, resident);
            let mut odds = wide.odds(&features);
            let mut tag = Tag::default();
            let hopeless = odds < HOPELESS && *without != Some(Part::Wide);
            if !hopeless && let (Some(tower), Some(met)) = (&mut tower, &mut met) {
                let seen = features.seen(candidate, trigger.key);
                (odds, tag) = tower.meet(met, candidate.key, &seen, odds);
            }
            *ranked = Ranked {
                volume: candidate.key.volume(),
                fragment: candidate.key.fragment(),
                probability: logistic(odds),
                sources: candidate.sources,
            };
            samples.push(candidate.key, now, model, &features, tag);
        }
        if let (Some(tower), Some(met)) = (tower, met) {
            tower.close(met);
        }
        let ranked = &mut ranked[..candidates.len()];
        ranked.sort_unstable_by(|a, b| {
            let order = b.probability.total_cmp(&a.probability);
            order.then_with(|| (a.volume, a.fragment).cmp(&(b.volume, b.fragment)))
        });
        ranked
    }

    /// Learns that a fragment has come.
    fn came(&mut self, key: Key) {
        let Ranker { samples, models, rates, tower, .. } = self;
        samples.came(key, |model, features, tag| {
            models.learn(model, features, 1.0, 1.0);
            if model != AGAIN {
                rates.learn(&features.rates, 1.0);
                if let Some(tower) = tower {
                    tower.window.came(tag);
                }
            }
        });
    }

    /// Learns which candidates have not come in time.
    fn expire(&mut self) {
        let Ranker { samples, models, rates, failures, .. } = self;
        let until = (self.history.now() + 1).saturating_sub(self.residency);
        while let Some(expired) = samples.expire(until, MAX_CANDIDATES + 1) {
            let Some((model, features)) = expired else { continue };
            if model == AGAIN {
                models.learn(model, features, 0.0, 1.0);
                continue;
            }
            rates.learn(&features.rates, 0.0);
            *failures += 1;
            if *failures == SPARSE {
                *failures = 0;
                models.learn(model, features, 0.0, SPARSE as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAD_NS: u64 = 15_000_000;

    fn read(fragment: u64) -> Access {
        let offset_bytes = fragment << 20;
        Access {
            fragment,
            last_fragment: fragment,
            fragment_shift: 20,
            offset_bytes,
            size_bytes: 1 << 20,
            ..Access::default()
        }
    }

    /// The likeliest candidate after each crossing.
    fn best(ranker: &mut Ranker, fragments: impl Iterator<Item = u64>) -> Vec<Option<Ranked>> {
        let touched = fragments.map(|fragment| {
            let ranked = ranker.touch(1, &read(fragment), fragment, |_, _| false);
            ranked.expect("a crossing").ranked.first().copied()
        });
        touched.collect()
    }

    #[test]
    fn a_ranker_fits_into_the_memory_of_a_core() {
        assert!(Ranker::bytes() <= 32 << 20, "{} bytes", Ranker::bytes());
    }

    #[test]
    fn only_crossings_are_ranked() {
        let mut ranker = Ranker::new(64, LEAD_NS);
        assert!(ranker.touch(1, &read(5), 5, |_, _| false).is_some());
        assert!(ranker.touch(1, &read(5), 5, |_, _| false).is_none());
        assert!(
            ranker.touch(1, &read(1 << 40), 1 << 40, |_, _| false).is_none(),
            "beyond all keys"
        );
    }

    #[test]
    fn a_scan_and_a_loop_are_learned() {
        let mut ranker = Ranker::new(64, LEAD_NS);
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
        let mut ranker = Ranker::new(64, LEAD_NS);
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
        let mut one = Ranker::new(64, LEAD_NS);
        let mut other = Ranker::new(64, LEAD_NS);
        for n in 0..500 {
            let fragment = n * n % 97;
            let resident = |_, fragment| fragment % 2 == 0;
            let a = one.touch(1, &read(fragment), fragment, resident).map(|c| c.ranked.to_vec());
            let b = other.touch(1, &read(fragment), fragment, resident).map(|c| c.ranked.to_vec());
            assert_eq!(a, b);
            assert!(a.into_iter().flatten().all(|ranked| ranked.fragment % 2 == 1));
        }
    }
}
