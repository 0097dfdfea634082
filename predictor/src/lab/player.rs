//! The contenders behind one interface.
#![forbid(unsafe_code)]

use super::{Contender, LabError, Setup, Tier};
use crate::Access;
use crate::classic::{self, Rule, Touch};
use crate::ledger::Outcome;
use crate::lstm::{self, Trainer};
use crate::prefetch::{Prediction, Predictions, PrefetchKind, Prefetcher, Settings};
use crate::rank::{Budget, Crossing, Ranker};

/// The ranker judges its proposals by whether they come within a quarter of the crossings
/// that it takes to fill the tier.
const RESIDENCY_SHARE: usize = 4;
/// Probability of its next step that the LSTM alone stages from.
const SURE: f32 = 0.3;
/// A trace is of one client.
const CLIENT: u64 = 0;

/// A contender at work.
pub(super) enum Player {
    None,
    Classic(Box<dyn Rule>),
    /// One of a core, with what trains it.
    Core(Box<(Prefetcher, Option<Trainer>)>),
    Learned(Box<(Ranker, Budget)>),
}

impl Player {
    pub fn new(setup: &Setup) -> Result<Player, LabError> {
        let settings = setup.settings;
        settings.check()?;
        Ok(match setup.contender {
            Contender::None => Player::None,
            Contender::Classic(kind) => Player::Classic(classic::build(kind, &settings)),
            Contender::Readahead => {
                Player::Core(Box::new((Prefetcher::new(PrefetchKind::Readahead, settings)?, None)))
            }
            Contender::Lstm => Player::Core(Box::new((
                Prefetcher::new(
                    PrefetchKind::Lstm,
                    Settings { stage_threshold: SURE, ..settings },
                )?,
                Some(Trainer::new(settings, setup.seed)?),
            ))),
            Contender::Learned => {
                let residency = setup.tier_fragments / RESIDENCY_SHARE;
                let ranker = Ranker::new(residency as u64, settings.lead_ns());
                let budget =
                    Budget::new(setup.tier_fragments, setup.extra_share, settings.stage_threshold);
                Player::Learned(Box::new((ranker, budget)))
            }
        })
    }

    /// A fragment was asked for; before [`Player::touch`].
    pub fn demand(&mut self, (volume, fragment): (u32, u64), missed: bool) {
        if let Player::Learned(player) = self {
            player.1.demand(volume, fragment, missed);
        }
    }

    /// The same, to propose what may follow.
    pub fn touch(&mut self, access: &Access, touch: &Touch, tier: &Tier, out: &mut Predictions) {
        match self {
            Player::None => {}
            Player::Classic(rule) => rule.touch(touch, out),
            Player::Core(player) => {
                if touch.last {
                    player.0.observe(&Access { write: touch.write, ..*access }, out);
                }
            }
            Player::Learned(player) => {
                let (ranker, budget) = &mut **player;
                let resident = |volume, fragment| tier.contains(&(volume, fragment));
                let crossing = ranker.touch(CLIENT, access, touch.fragment, resident);
                let Some(Crossing { ranked, .. }) = crossing else { return };
                if touch.write || ranked.is_empty() {
                    return;
                }
                for ranked in ranked {
                    out.push(Prediction {
                        volume: ranked.volume,
                        fragment: ranked.fragment,
                        score: ranked.probability,
                    });
                }
                budget.crossed();
            }
        }
    }

    /// Whether a proposal is staged.
    pub fn admit(&mut self, score: f32) -> bool {
        match self {
            Player::Learned(player) => player.1.admit(score),
            _ => true,
        }
    }

    /// What became of a stage.
    pub fn outcome(&mut self, (volume, fragment): (u32, u64), outcome: Outcome) {
        match self {
            Player::None | Player::Learned(_) => {}
            Player::Core(player) => player.0.feedback(outcome),
            Player::Classic(rule) => match outcome {
                Outcome::Hit => rule.used(volume, fragment, false),
                Outcome::Late => rule.used(volume, fragment, true),
                Outcome::Wasted => rule.wasted(volume, fragment),
            },
        }
    }

    /// A round of training on a slice that is over; whether its model won, `None` without
    /// a round.
    pub fn train(
        &mut self,
        slice: &[Access],
        budget: lstm::Budget,
    ) -> Result<Option<bool>, LabError> {
        let Player::Core(player) = self else { return Ok(None) };
        let (prefetcher, Some(trainer)) = &mut **player else { return Ok(None) };
        trainer.push(slice);
        let report = trainer.train(budget)?;
        let won = report.weights.is_some();
        if let Some(weights) = report.weights {
            prefetcher.install(weights);
        }
        Ok((report.steps > 0).then_some(won))
    }
}
