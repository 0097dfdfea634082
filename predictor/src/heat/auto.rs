//! The forecaster that was best lately.
//!
//! All members forecast every time; each is charged the pinball loss of its own
//! past forecasts when their bins close, and old losses fade. This is selection
//! by prequential loss (Dawid, 1984). The choice stays until another member is
//! clearly better, for tiering must not follow every whim of a close race.
//!
//! It chooses for the whole volume, not for each segment, and mixes nothing. It
//! costs as much as all members together.
#![forbid(unsafe_code)]

use super::judge::compare;
use super::pending::Pending;
use super::{Forecast, ForecastError, Forecaster, ForecasterKind, Heatmap, LstmWeights};

/// What is left of a loss after a round.
const FADE: f64 = 0.95;
/// A challenger's loss must be below this part of the incumbent's.
const CLEARLY: f64 = 0.96;
/// Rounds between two changes.
const LEAST_ROUNDS: u32 = 4;

/// A choice among other forecasters.
pub struct Auto {
    members: Vec<Box<dyn Forecaster>>,
    losses: Vec<f64>,
    chosen: usize,
    /// The first change may come at once.
    rounds_since_change: u32,
    pending: Pending<Vec<Forecast>>,
}

impl Auto {
    /// A choice among these; it starts with the first.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(members: Vec<Box<dyn Forecaster>>) -> Self {
        assert!(!members.is_empty(), "there is something to choose");
        let losses = vec![0.0; members.len()];
        Self {
            members,
            losses,
            chosen: 0,
            rounds_since_change: LEAST_ROUNDS,
            pending: Pending::new(),
        }
    }

    fn choose(&mut self) {
        self.rounds_since_change = self.rounds_since_change.saturating_add(1);
        let best =
            (0..self.losses.len()).min_by(|a, b| self.losses[*a].total_cmp(&self.losses[*b]));
        let best = best.expect("not empty");
        let better = self.losses[best] < CLEARLY * self.losses[self.chosen];
        if better && self.rounds_since_change >= LEAST_ROUNDS {
            self.chosen = best;
            self.rounds_since_change = 0;
        }
    }
}

impl Forecaster for Auto {
    fn kind(&self) -> ForecasterKind {
        ForecasterKind::Auto
    }

    fn update(&mut self, heat: &Heatmap) -> Result<(), ForecastError> {
        for member in &mut self.members {
            member.update(heat)?;
        }
        while let Some((_, forecasts)) = self.pending.pop_due(heat) {
            for (loss, forecast) in self.losses.iter_mut().zip(&forecasts) {
                *loss = FADE * *loss + compare(forecast, heat).0.pinball;
            }
            self.choose();
        }
        Ok(())
    }

    fn forecast(&mut self, heat: &Heatmap) -> Result<Forecast, ForecastError> {
        let forecasts = self.members.iter_mut().map(|member| member.forecast(heat));
        let forecasts = forecasts.collect::<Result<Vec<_>, _>>()?;
        let answer = forecasts[self.chosen].clone();
        self.pending.push(answer.clone(), forecasts);
        Ok(answer)
    }

    fn chosen(&self) -> ForecasterKind {
        self.members[self.chosen].kind()
    }

    fn learned(&self) -> Result<Option<LstmWeights>, ForecastError> {
        let mut learned = self.members.iter().map(|member| member.learned());
        learned.find(|found| !matches!(found, Ok(None))).unwrap_or(Ok(None))
    }

    fn resume(&mut self, weights: &LstmWeights) -> Result<(), ForecastError> {
        self.members.iter_mut().try_for_each(|member| member.resume(weights))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heat::{HeatShape, HorizonBins, LEVELS, Segment};

    /// Expects the same of every row.
    struct Always(HorizonBins, f64);
    impl Forecaster for Always {
        fn kind(&self) -> ForecasterKind {
            if self.1 < 10.0 { ForecasterKind::Ewma } else { ForecasterKind::Prophet }
        }
        fn update(&mut self, _: &Heatmap) -> Result<(), ForecastError> {
            Ok(())
        }
        fn forecast(&mut self, heat: &Heatmap) -> Result<Forecast, ForecastError> {
            let row = (self.1, [self.1; LEVELS.len()]);
            Ok(Forecast::new(heat, self.0, (0..heat.rows()).map(|_| row)))
        }
    }

    /// What is chosen after each of `bins` bins of so many requests.
    fn run(auto: &mut Auto, heat: &mut Heatmap, bins: u64, requests: u32) -> Vec<ForecasterKind> {
        let run = (0..bins).map(|_| {
            auto.forecast(heat).unwrap();
            let time_ns = heat.open() * heat.shape().bin_ns();
            heat.record(time_ns, Segment::new(1), false, requests);
            heat.advance(time_ns + heat.shape().bin_ns());
            auto.update(heat).unwrap();
            auto.chosen()
        });
        run.collect()
    }

    #[test]
    fn the_better_is_chosen_but_not_for_a_whim() {
        use ForecasterKind::{Ewma, Prophet};
        let shape = HeatShape::new(30, 40, 4).unwrap();
        let horizon = shape.horizon(1).unwrap();
        let mut heat = Heatmap::new(shape);
        heat.record(0, Segment::new(1), false, 0);
        let members: Vec<Box<dyn Forecaster>> =
            vec![Box::new(Always(horizon, 5.0)), Box::new(Always(horizon, 15.0))];
        let mut auto = Auto::new(members);
        assert!(run(&mut auto, &mut heat, 10, 5).iter().all(|kind| *kind == Ewma));
        assert_eq!(run(&mut auto, &mut heat, 1, 15), [Ewma]);
        assert_eq!(run(&mut auto, &mut heat, 30, 15)[29], Prophet);
        // Equally far from both: the choice stays.
        assert!(run(&mut auto, &mut heat, 3, 10).iter().all(|kind| *kind == Prophet));
    }
}
