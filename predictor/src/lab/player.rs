//! The contenders behind one interface.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::future::Future;
use super::tier::{Key, Tier};
use super::{Contender, LabError, Setup};
use crate::Access;
use crate::classic::{self, Rule, Touch};
use crate::deep;
use crate::ledger::Outcome;
use crate::prefetch::{Prediction, Predictions, PrefetchKind, Prefetcher};
use crate::rank::{Budget, Crossing, Part, Ranker};

/// The ranker judges its proposals by whether they come within a quarter of the crossings
/// that it takes to fill the tier; the oracles look no further ahead.
const RESIDENCY_SHARE: usize = 4;
/// A trace is of one client.
const CLIENT: u64 = 0;
/// Crossings that the oracle looks ahead at most: more than pass while a fragment is fetched.
const FORESIGHT: usize = 256;

/// A contender at work.
pub(super) enum Player {
    None,
    Classic(Box<dyn Rule>),
    /// One of a core.
    Core(Box<Prefetcher>),
    /// With what trains its tower.
    Learned(Box<(Ranker, Budget, Option<deep::Trainer>)>),
    /// Chooses what comes within so many crossings among the candidates.
    Chooser(Box<(Ranker, Future)>, usize),
    /// Stages what comes within so many crossings.
    Oracle(Box<Future>, usize),
}

impl Player {
    /// A contender that has seen nothing; the oracles are told the accesses to come.
    pub fn new(setup: &Setup, accesses: &[Access]) -> Result<Player, LabError> {
        let settings = setup.settings;
        settings.check()?;
        let residency = (setup.tier_fragments / RESIDENCY_SHARE).max(1);
        let ranker = || {
            let made = if setup.writes_free { Ranker::for_reads } else { Ranker::new };
            made(residency as u64, settings.lead_ns()).seeded(setup.seed)
        };
        let future = || Future::new(accesses, setup.writes_free);
        let budget =
            || Budget::new(setup.tier_fragments, setup.extra_share, settings.stage_threshold);
        Ok(match setup.contender {
            Contender::None => Player::None,
            Contender::Classic(kind) => Player::Classic(classic::build(kind, &settings)),
            Contender::CoreReadahead => {
                Player::Core(Box::new(Prefetcher::new(PrefetchKind::Readahead, settings)?))
            }
            Contender::Without(Part::Tower) => {
                Player::Learned(Box::new((ranker(), budget(), None)))
            }
            Contender::Learned | Contender::Without(_) => {
                let trainer = deep::Trainer::new(setup.seed)?.with_length(settings.sequence_length);
                let mut ranker = ranker();
                ranker.install(Arc::clone(trainer.model()), false);
                if let Contender::Without(part) = setup.contender {
                    ranker = ranker.without(part);
                }
                Player::Learned(Box::new((ranker, budget(), Some(trainer))))
            }
            Contender::OracleCandidates => {
                Player::Chooser(Box::new((ranker(), future())), residency)
            }
            Contender::Oracle => Player::Oracle(Box::new(future()), residency.min(FORESIGHT)),
        })
    }

    /// A fragment was asked for; before [`Player::touch`].
    pub fn demand(&mut self, (volume, fragment): Key, missed: bool) {
        if let Player::Learned(player) = self {
            player.1.demand(volume, fragment, missed, true);
        }
    }

    /// The same, to propose what may follow.
    pub fn touch(&mut self, access: &Access, touch: &Touch, tier: &Tier, out: &mut Predictions) {
        let resident = |volume, fragment| tier.contains((volume, fragment));
        match self {
            Player::None => {}
            Player::Classic(rule) => rule.touch(touch, out),
            Player::Core(prefetcher) => {
                if touch.last {
                    prefetcher.observe(&Access { write: touch.write, ..*access }, out);
                }
            }
            Player::Learned(player) => {
                let ranker = &mut player.0;
                let crossing = ranker.touch(CLIENT, access, touch.fragment, resident);
                let Some(Crossing { ranked, .. }) = crossing else { return };
                if touch.write {
                    return;
                }
                for ranked in ranked {
                    out.push(Prediction {
                        volume: ranked.volume,
                        fragment: ranked.fragment,
                        score: ranked.probability,
                    });
                }
            }
            Player::Chooser(player, residency) => {
                let (ranker, future) = &mut **player;
                future.follow((touch.volume, touch.fragment), access.write);
                let crossing = ranker.touch(CLIENT, access, touch.fragment, resident);
                let Some(Crossing { ranked, .. }) = crossing else { return };
                let keys = ranked.iter().map(|ranked| (ranked.volume, ranked.fragment));
                let distances = keys.filter_map(|key| Some((future.distance(key)?, key)));
                let mut coming: Vec<_> = distances.filter(|(at, _)| *at <= *residency).collect();
                coming.sort_unstable();
                coming.into_iter().for_each(|(_, key)| propose(out, key));
            }
            Player::Oracle(future, foresight) => {
                if future.follow((touch.volume, touch.fragment), access.write) {
                    let missing =
                        future.next(*foresight).iter().filter(|key| !tier.contains(**key));
                    missing.take(Predictions::CAPACITY).for_each(|key| propose(out, *key));
                }
            }
        }
    }

    /// Whether a proposal is staged, behind so many fetches on demand.
    pub fn admit(&mut self, score: f32, waiting: usize) -> bool {
        match self {
            Player::Learned(player) => player.1.admit(score, waiting),
            _ => true,
        }
    }

    /// Whether a fragment just touched belongs to a sequential stream, for the tier.
    pub fn is_sequential(&mut self, (volume, fragment): Key) -> bool {
        match self {
            Player::Classic(rule) => rule.is_sequential(volume, fragment),
            _ => false,
        }
    }

    /// What became of a stage.
    pub fn outcome(&mut self, (volume, fragment): Key, outcome: Outcome) {
        match self {
            Player::Core(prefetcher) => prefetcher.feedback(outcome),
            Player::Classic(rule) => match outcome {
                Outcome::Hit => rule.used(volume, fragment, false),
                Outcome::Late => rule.used(volume, fragment, true),
                Outcome::Wasted => rule.wasted(volume, fragment),
            },
            _ => {}
        }
    }

    /// Whether a tower has enough to learn from: it trains often, for it learns while it is
    /// judged.
    pub fn is_due(&mut self) -> bool {
        let Player::Learned(player) = self else { return false };
        let (ranker, _, Some(trainer)) = &mut **player else { return false };
        let mut due = false;
        while let Some(crossing) = ranker.settled() {
            due |= trainer.push(crossing);
        }
        due
    }

    /// A round of training of the tower; true if it runs another model now.
    pub fn teach(&mut self) -> Result<bool, LabError> {
        let Player::Learned(player) = self else { return Ok(false) };
        let (ranker, _, Some(trainer)) = &mut **player else { return Ok(false) };
        let won = trainer.round()?;
        if won {
            ranker.install(Arc::clone(trainer.model()), trainer.is_trained());
        }
        Ok(won)
    }
}

fn propose(out: &mut Predictions, (volume, fragment): Key) {
    out.push(Prediction { volume, fragment, score: 1.0 });
}
