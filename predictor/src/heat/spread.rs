//! Quantiles around an expectation, learned from past errors.
//!
//! Counts of requests are far from normal: most segments are idle most of the
//! time. So no distribution is assumed. Expectations are sorted into levels; for
//! each level a fading histogram holds how far, in ln(1 + requests), the truth
//! was from the expectation. Its quantiles, moved by the expectation, are those
//! of the forecast. This is in the manner of conformal prediction within classes
//! (Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2005,
//! chapter 4), but the past fades so that it follows drift: no coverage is
//! guaranteed.
//!
//! All rows share the histograms: a segment steadier than others of its level
//! gets quantiles that are too wide.
#![forbid(unsafe_code)]

use super::LEVELS;

/// Expectations below 1 are divided finer, for most are there.
const LEVEL_EDGES: [f64; 19] = [
    0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0, 5.0, 8.0, 14.0, 24.0, 40.0, 80.0, 160.0, 400.0,
    1600.0, 6400.0,
];
/// Width of a cell, as a ratio of about a twentieth.
const CELL: f64 = 0.05;
/// Cells to each side of no error: e^8 of ratio.
const SIDE: i16 = 160;
const CELLS: usize = 2 * SIDE as usize;
/// How much of the past is left after a round.
const FADE: f64 = 0.98;
/// Observations that the prior counts for in each level.
const PRIOR: f64 = 10.0;

#[derive(Clone, Debug)]
pub(super) struct Spread {
    /// Of each level, the weights of the cells.
    levels: Vec<[f64; CELLS]>,
    /// Upper edges of the cells.
    edges: Vec<f64>,
}

impl Spread {
    /// Before the first error: as if counts were Poisson with a mean known to
    /// within a third.
    pub fn new() -> Self {
        let edges: Vec<f64> = (1 - SIDE..=SIDE).map(|cell| f64::from(cell) * CELL).collect();
        let mut levels = vec![[0.0; CELLS]; LEVEL_EDGES.len() + 1];
        for (level, cells) in levels.iter_mut().enumerate() {
            let expected = LEVEL_EDGES[level.min(LEVEL_EDGES.len() - 1)];
            let deviation = (expected / (1.0 + expected).powi(2) + 0.11).sqrt();
            let density = |edge: &f64| (-0.5 * ((edge - CELL / 2.0) / deviation).powi(2)).exp();
            let mass: f64 = edges.iter().map(density).sum();
            let weights = cells.iter_mut().zip(&edges);
            weights.for_each(|(cell, edge)| *cell = PRIOR * density(edge) / mass);
        }
        Self { levels, edges }
    }

    /// Lets the past fade; once per round, before its errors.
    pub fn fade(&mut self) {
        for cells in &mut self.levels {
            // A level that is not seen keeps what it knows.
            if cells.iter().sum::<f64>() > PRIOR {
                cells.iter_mut().for_each(|cell| *cell *= FADE);
            }
        }
    }

    /// Learns one error.
    pub fn observe(&mut self, expected: f64, actual: f64) {
        let error = actual.ln_1p() - expected.ln_1p();
        let cell = self.edges.partition_point(|edge| *edge < error).min(CELLS - 1);
        self.levels[level(expected)][cell] += 1.0;
    }

    /// The quantiles of an expectation.
    pub fn quantiles(&self, expected: f64) -> [f64; LEVELS.len()] {
        let cells = &self.levels[level(expected)];
        let mass: f64 = cells.iter().sum();
        LEVELS.map(|tau| {
            let error = self.quantile(cells, tau * mass);
            (expected.ln_1p() + error).exp_m1().max(0.0)
        })
    }

    /// The error below which a given weight lies.
    fn quantile(&self, cells: &[f64; CELLS], weight: f64) -> f64 {
        let mut below = 0.0;
        for (cell, edge) in cells.iter().zip(&self.edges) {
            if below + cell >= weight && *cell > 0.0 {
                return edge - CELL * (1.0 - (weight - below) / cell);
            }
            below += cell;
        }
        f64::from(SIDE) * CELL
    }
}

fn level(expected: f64) -> usize {
    LEVEL_EDGES.partition_point(|edge| *edge <= expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn quantiles_are_learned() {
        let (mut spread, mut random) = (Spread::new(), Random::new(2));
        // Either nothing or twice what was expected, and 30 % nothing.
        for _ in 0..200 {
            spread.fade();
            for _ in 0..20 {
                spread.observe(10.0, if random.unit() < 0.3 { 0.0 } else { 20.0 });
            }
        }
        let [low, median, high] = spread.quantiles(10.0);
        assert!(low < 0.6 && (median - 20.0).abs() < 1.1 && (high - 20.0).abs() < 1.1);
    }

    #[test]
    fn the_prior_is_sound_at_every_level() {
        let spread = Spread::new();
        for expected in [0.0, 0.01, 0.5, 3.0, 1e3, 1e15] {
            let [low, median, high] = spread.quantiles(expected);
            assert!(low <= median && median < high && high.is_finite(), "{expected}");
            assert!((median - expected).abs() <= 0.06 * (1.0 + expected), "{expected}: {median}");
        }
    }
}
