//! The learned prefetcher as a core runs it: the ranker with its account of the tier.
//!
//! The targets' requests go through [`Predictor::touch`], which says what to stage; the owners
//! of the fragments answer through [`Predictor::met`] (what a request of a client met) and
//! [`Predictor::answered`] (what became of a stage asked for). From these it keeps a shadow
//! of the stages: which fragments need none, because their blocks are on a fast device, and
//! which are there or on their way. The [`Budget`] holds the traffic at what is allowed, and
//! the journal of the last stages says why each was made.
//!
//! Invariants: what is called for requests and answers allocates nothing; no clock of its own,
//! no I/O; equal calls give equal answers. The shadow is an estimate: an owner drops a stage
//! that is not needed.
#![forbid(unsafe_code)]

mod allowance;
mod awaited;
mod calm;
mod journal;
mod shadow;
mod tally;
mod tuner;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::prefetch::{Settings, SettingsError};
use crate::rank::{Asked, Budget, Model, Owner, Ranker, Saved};
use crate::{Access, deep};
use allowance::{Allowance, Work};
use awaited::Awaited;
use calm::Calm;
use journal::Journal;
pub use journal::Reason;
use shadow::Shadow;
pub use tally::{SourceTally, Tally};
pub use tuner::{Bounds, Change, Sight, Tuner};

/// Outcomes are judged by whether a fragment comes within this part of the crossings that it
/// takes to fill the tier.
const RESIDENCY_SHARE: usize = 4;
/// Least probability of another request at which the whole fragment is staged on a miss.
const WHOLE: f32 = 0.5;

/// Where a read found its blocks, in rising order of what it had to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    /// None was on a cold device alone; or it was no read.
    #[default]
    Near,
    /// Staged, or on their way there.
    Staged,
    /// It waited for the cold device; the rest of the fragment is staged behind it.
    Fetched,
    /// It waited for the cold device.
    Missed,
}

/// What became of a stage asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is being made, or was there.
    Taken,
    /// There is nothing to stage: no block is on a cold device alone.
    Needless,
    /// There is no room for it now.
    Refused,
}

/// What a request that came to another fragment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossed {
    /// More of the fragment is expected to be read: worth staging as a whole on a miss.
    pub whole: bool,
}

/// The predictor of one core.
pub struct Predictor {
    settings: Settings,
    ranker: Ranker,
    budget: Budget,
    shadow: Shadow,
    awaited: Awaited,
    allowance: Allowance,
    calm: Calm,
    tally: Tally,
    journal: Journal,
}

impl fmt::Debug for Predictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Predictor").field("tally", &self.tally).finish_non_exhaustive()
    }
}

impl Predictor {
    /// One that has seen nothing, for stages of `tier_fragments` fragments.
    ///
    /// # Errors
    /// If a setting is out of its range.
    pub fn new(settings: Settings, tier_fragments: usize) -> Result<Predictor, SettingsError> {
        settings.check()?;
        let tier = tier_fragments.max(1);
        let residency = (tier / RESIDENCY_SHARE) as u64;
        let share = f64::from(settings.prefetch_budget);
        Ok(Predictor {
            settings,
            ranker: Ranker::for_reads(residency, settings.lead_ns()),
            budget: Budget::new(tier, share, settings.stage_threshold),
            shadow: Shadow::new(tier),
            awaited: Awaited::new(),
            allowance: Allowance::default(),
            calm: Calm::new(),
            tally: Tally::default(),
            journal: Journal::new(),
        })
    }

    /// Stages hold so many fragments from now on: the account of them begins anew, what has
    /// been learned stays.
    pub fn resize(&mut self, tier_fragments: usize) {
        let tier = tier_fragments.max(1);
        let share = f64::from(self.settings.prefetch_budget);
        self.ranker.set_residency((tier / RESIDENCY_SHARE) as u64);
        self.budget = Budget::new(tier, share, self.settings.stage_threshold);
        self.shadow = Shadow::new(tier);
    }

    /// Changes the settings; what has been learned stays.
    ///
    /// # Errors
    /// If a setting is out of its range.
    pub fn configure(&mut self, settings: Settings) -> Result<(), SettingsError> {
        settings.check()?;
        self.budget.allow(f64::from(settings.prefetch_budget), settings.stage_threshold);
        self.settings = settings;
        Ok(())
    }

    /// A request of a client touches one of its fragments; requests come in order, and so do
    /// their fragments. Calls `stage` for what to stage; `None` if the client was in that
    /// fragment already. By the `clock`, in nanoseconds, it is seen to that this takes no more
    /// than its share of the core.
    pub fn touch(
        &mut self,
        client: u64,
        access: &Access,
        fragment: u64,
        clock: impl Fn() -> u64,
        stage: impl FnMut(u32, u64),
    ) -> Option<Crossed> {
        if self.ranker.dwells(client, access, fragment) {
            return None;
        }
        let start = clock();
        let work = self.allowance.work(start);
        self.tally.crossings += 1;
        self.tally.unranked += u64::from(work != Work::Whole);
        if work == Work::Nothing {
            self.tally.unseen += 1;
            return None;
        }
        let ranked = self.calm.crosses(access.volume) && work == Work::Whole;
        let crossed = self.cross(client, access, fragment, ranked, stage);
        self.allowance.took(clock().saturating_sub(start));
        Some(crossed)
    }

    fn cross(
        &mut self,
        client: u64,
        access: &Access,
        fragment: u64,
        ranked: bool,
        mut stage: impl FnMut(u32, u64),
    ) -> Crossed {
        let Predictor { ranker, budget, shadow, awaited, tally, journal, settings, .. } = self;
        if !access.write && !shadow.holds(access.volume, fragment) {
            awaited.begin(access.volume, fragment, access.time_ns);
        }
        let resident = |volume, fragment| shadow.holds(volume, fragment);
        // Where all is near, nothing is fetched whole.
        let asked = Asked { ranked, again: !shadow.is_near(access.volume, fragment) };
        let crossing = ranker.cross(client, access, fragment, asked, resident);
        let crossed = Crossed { whole: crossing.again >= WHOLE };
        let waiting = awaited.count(access.time_ns);
        for ranked in crossing.ranked.iter().take(settings.prefetch_depth) {
            let threshold = budget.threshold();
            if !budget.admit(ranked.probability, waiting) {
                continue;
            }
            tally.staged(ranked.sources);
            shadow.stage(ranked.volume, ranked.fragment, ranked.sources);
            journal.push(Reason::new(client, access, fragment, ranked, threshold));
            stage(ranked.volume, ranked.fragment);
        }
        crossed
    }

    /// Learns from a request that was made elsewhere or earlier: nothing is staged for it.
    pub fn study(&mut self, client: u64, access: &Access) {
        let Predictor { ranker, shadow, .. } = self;
        for fragment in access.fragment..=access.last_fragment {
            ranker.touch(client, access, fragment, |volume, f| shadow.holds(volume, f));
        }
    }

    /// What the request that came to these fragments met there; `whole` as foreseen of it
    /// ([`Crossed::whole`]).
    pub fn met(&mut self, volume: u32, fragments: RangeInclusive<u64>, met: Met, whole: bool) {
        fragments.for_each(|fragment| self.met_at(volume, fragment, met, whole));
    }

    fn met_at(&mut self, volume: u32, fragment: u64, met: Met, whole: bool) {
        self.awaited.end(volume, fragment);
        if met == Met::Near {
            self.shadow.near(volume, fragment);
            return;
        }
        self.calm.disturb(volume);
        let missed = met >= Met::Fetched;
        self.budget.demand(volume, fragment, missed, whole);
        if let Some(sources) = self.shadow.demand(volume, fragment, met < Met::Missed) {
            if missed {
                // It was lost on its way, or has left earlier than the shadow thought.
                self.tally.lost += 1;
            } else {
                self.tally.used(sources);
            }
        }
    }

    /// What became of a stage asked for.
    pub fn answered(&mut self, volume: u32, fragment: u64, answer: Answer) {
        if answer == Answer::Taken {
            return;
        }
        self.budget.refund();
        self.shadow.undo(volume, fragment);
        match answer {
            Answer::Needless => {
                self.tally.needless += 1;
                self.shadow.near(volume, fragment);
            }
            _ => self.tally.refused += 1,
        }
    }

    /// The tower runs this model from now on; it counts if it is trained.
    pub fn install(&mut self, model: Arc<deep::Model>, trained: bool) {
        self.ranker.install(model, trained);
    }

    /// Hands over the crossings that a tower can learn from, oldest first; those that are not
    /// taken are counted.
    pub fn settled(&mut self, mut take: impl FnMut(&deep::Crossing) -> bool) {
        while let Some(crossing) = self.ranker.settled() {
            self.tally.untaught += u64::from(!take(crossing));
        }
    }

    /// Takes models of an earlier run or of all cores: clients that come begin with theirs,
    /// and the pool's is taken if it foretells better.
    pub fn remember(&mut self, saved: Arc<Saved>) {
        self.ranker.remember(saved);
    }

    /// What the model of a number below [`Ranker::MODELS`] has learned, copied, and whose it
    /// is; `None` if that is nothing since it was last asked.
    pub fn learned(&mut self, model: usize) -> Option<(Owner, Model)> {
        self.ranker.learned(model)
    }

    /// The counters and the state of the budget.
    pub fn report(&self) -> Tally {
        Tally {
            threshold: self.budget.threshold(),
            extra: self.budget.extra(),
            ghost_misses: self.budget.ghost_misses(),
            models: self.ranker.models(),
            models_won: self.ranker.models_won(),
            ..self.tally.clone()
        }
    }

    /// The newest stages and why they were made, newest first; those of one volume, if asked.
    pub fn explain(&self, volume: Option<u32>) -> Vec<Reason> {
        self.journal.newest(volume)
    }

    /// Memory that all of it takes but the shadow and the ghost, which are 2 x 48 bytes for
    /// each fragment of the tier.
    pub const fn bytes() -> usize {
        Ranker::bytes() + Ranker::tower_bytes() + Shadow::BYTES + Journal::BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fragment: u64) -> Access {
        Access {
            time_ns: 1_000_000 * (fragment + 1),
            fragment,
            last_fragment: fragment,
            offset_bytes: fragment << 20,
            size_bytes: 65_536,
            fragment_shift: 20,
            ..Access::default()
        }
    }

    /// Walks over fragments that all lie on the cold device; stages asked for.
    fn walk(predictor: &mut Predictor, fragments: std::ops::Range<u64>) -> Vec<u64> {
        let mut asked = Vec::new();
        for fragment in fragments {
            let there = predictor.shadow.holds(0, fragment);
            predictor.touch(1, &read(fragment), fragment, || 0, |_, fragment| asked.push(fragment));
            let met = if there { Met::Staged } else { Met::Fetched };
            predictor.met(0, fragment..=fragment, met, true);
        }
        asked
    }

    #[test]
    fn a_walk_is_staged_and_explained() {
        let mut predictor = Predictor::new(Settings::default(), 64).unwrap();
        let asked = walk(&mut predictor, 0..2000);
        assert!(asked.len() > 1000, "{}", asked.len());
        let report = predictor.report();
        let used: u64 = report.sources().map(|source| source.used).sum();
        assert!(used > 1000 && report.crossings == 2000, "{used} {report:?}");
        let reasons = predictor.explain(Some(0));
        assert!(reasons.len() > 10 && predictor.explain(Some(1)).is_empty());
        assert!(reasons[0].probability >= reasons[0].threshold);
        assert!(reasons[0].fragment > reasons[0].trigger);
        assert!(reasons[0].sources().any(|name| name == "stride"), "{:?}", reasons[0]);
    }

    #[test]
    fn what_is_near_is_not_staged_again() {
        let mut predictor = Predictor::new(Settings::default(), 64).unwrap();
        let mut asked = 0;
        for round in 0..20 {
            for fragment in 0..400 {
                let mut stages = Vec::new();
                predictor.touch(1, &read(fragment), fragment, || 0, |_, f| stages.push(f));
                predictor.met(0, fragment..=fragment, Met::Near, false);
                asked += if round > 0 { stages.len() } else { 0 };
                stages.into_iter().for_each(|f| predictor.answered(0, f, Answer::Needless));
            }
        }
        assert_eq!(predictor.report().extra, 0, "needless stages cost nothing");
        assert!(asked < 100, "{asked}: it knows by then");
    }

    #[test]
    fn where_nothing_cold_is_met_few_crossings_are_ranked() {
        let ranked = |met| {
            let mut predictor = Predictor::new(Settings::default(), 64).unwrap();
            let model = deep::Trainer::new(1).unwrap();
            predictor.install(Arc::clone(model.model()), false);
            let mut ranked = 0;
            for n in 0..4000 {
                let fragment = n * 7 % 400;
                predictor.touch(1, &read(fragment), fragment, || 0, |_, _| ());
                predictor.met(0, fragment..=fragment, met, false);
                predictor.settled(|_| {
                    ranked += 1;
                    true
                });
            }
            ranked
        };
        // What is ranked settles; the last of it has not yet.
        assert!((3900..4000).contains(&ranked(Met::Missed)));
        assert!((300..400).contains(&ranked(Met::Near)));
    }

    #[test]
    fn what_has_had_its_share_of_the_core_is_not_ranked_and_counted() {
        let mut predictor = Predictor::new(Settings::default(), 64).unwrap();
        walk(&mut predictor, 0..2000);
        let clock = std::cell::Cell::new(0);
        let slow = || {
            clock.set(clock.get() + 200_000);
            clock.get()
        };
        let mut asked = 0;
        for fragment in 2000..2400 {
            predictor.touch(1, &read(fragment), fragment, slow, |_, _| asked += 1);
            predictor.met(0, fragment..=fragment, Met::Fetched, true);
        }
        let report = predictor.report();
        assert!(report.unranked > 300 && report.unseen > 200, "{report:?}");
        assert!(report.unseen < report.unranked && asked < 100, "{asked}, {report:?}");
    }

    #[test]
    fn nothing_is_staged_behind_many_reads_that_wait() {
        let mut predictor = Predictor::new(Settings::default(), 64).unwrap();
        walk(&mut predictor, 0..2000);
        let cold = |n: u64| Access { time_ns: 2_000_000_000, ..read(1_000_000 + n * 5000) };
        for n in 0..8 {
            predictor.touch(2 + n, &cold(n), cold(n).fragment, || 0, |_, _| ());
        }
        let staged = |predictor: &mut Predictor, fragments: std::ops::Range<u64>| {
            let mut staged = 0;
            for fragment in fragments {
                let access = Access { time_ns: 2_000_000_000, ..read(fragment) };
                predictor.touch(1, &access, fragment, || 0, |_, _| staged += 1);
                predictor.met(0, fragment..=fragment, Met::Fetched, true);
            }
            staged
        };
        assert_eq!(staged(&mut predictor, 2000..2040), 0);
        for n in 0..8 {
            predictor.met(0, cold(n).fragment..=cold(n).fragment, Met::Missed, false);
        }
        assert!(staged(&mut predictor, 2040..2080) > 20, "nobody waits any more");
    }

    #[test]
    fn what_is_read_by_blocks_alone_is_no_extra_traffic() {
        let mut predictor = Predictor::new(Settings::default(), 64).unwrap();
        let mut staged = 0;
        for n in 0..4000_u64 {
            let fragment = (n % 120) * 53 % 1009;
            let there = predictor.shadow.holds(0, fragment);
            predictor.touch(1, &read(fragment), fragment, || 0, |_, _| staged += 1);
            let met = if there { Met::Staged } else { Met::Missed };
            predictor.met(0, fragment..=fragment, met, false);
        }
        let report = predictor.report();
        assert!(report.extra <= report.ghost_misses as i64 / 4, "{report:?}");
        assert!(staged > 2000, "{staged}: the budget is not used up by what was not staged");
    }

    #[test]
    fn settings_are_checked() {
        let bad = Settings { prefetch_depth: 0, ..Settings::default() };
        assert!(Predictor::new(bad, 64).is_err());
        let mut predictor = Predictor::new(Settings::default(), 64).unwrap();
        assert!(predictor.configure(bad).is_err());
        let none = Settings { prefetch_budget: 0.0, ..Settings::default() };
        predictor.configure(none).unwrap();
        assert_eq!(walk(&mut predictor, 0..500), [0; 0], "nothing may be spent");
    }

    #[test]
    fn a_predictor_fits_into_the_memory_of_a_core() {
        // A tier of 8 GiB of fragments of 1 MiB beside it.
        assert!(Predictor::bytes() + 8192 * 2 * 96 <= 32 << 20);
    }
}
