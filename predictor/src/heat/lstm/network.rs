//! The candle model: an LSTM, a linear head, its losses and its optimiser.
//!
//! The head gives four numbers per row, all relative to the base: the median and
//! the distances of the outer quantiles in ln(1 + requests), trained by pinball
//! loss, which a monotone scale does not mislead; and the logarithm of the
//! expectation, trained by the Poisson likelihood, whose least is at the mean for
//! any distribution. Distances pass softplus, so that quantiles never cross.
//! Numbers come and go in 64 bits, the network computes in 32.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::rnn::{LSTM, LSTMConfig, RNN};
use candle_nn::{AdamW, Linear, Module, Optimizer, ParamsAdamW, VarBuilder};

use super::features::FEATURES;
use crate::heat::LEVELS;
use crate::random::Random;

const HIDDEN: usize = 16;
const DTYPE: DType = DType::F32;
const OUTPUTS: usize = LEVELS.len() + 1;
const LEARNING_RATE: f64 = 4e-3;
/// Keeps the expectation of idle rows off zero, where no ratio reaches it.
const FLOOR: f64 = 0.05;
/// Truth beyond this multiple of the base teaches no more: one burst must not
/// throw the weights.
const MOST_RATIO: f64 = 20.0;

/// Rows to be read at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub rows: usize,
    /// Rows × steps × [`FEATURES`].
    pub inputs: Vec<f64>,
    pub bases: Vec<f64>,
}

/// What the head says, each rows × 1.
struct Outputs {
    /// In ln(1 + requests).
    quantiles: [Tensor; LEVELS.len()],
    /// Ln of the expectation.
    log_mean: Tensor,
}

pub(super) struct Network {
    lstm: LSTM,
    head: Linear,
    optimizer: AdamW,
    /// In the order of [`SHAPES`].
    vars: [Var; SHAPES.len()],
}

/// Rows and columns of the parameters: from the features, from the state, of
/// the head, its bias.
const SHAPES: [(usize, usize); 4] =
    [(4 * HIDDEN, FEATURES), (4 * HIDDEN, HIDDEN), (OUTPUTS, HIDDEN), (1, OUTPUTS)];

/// What a network has learned, as plain numbers in row order. The optimiser's
/// memory is not part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LstmWeights {
    parameters: [Vec<f32>; SHAPES.len()],
}

impl LstmWeights {
    /// The parameters' names in a file.
    pub(crate) const NAMES: [&str; SHAPES.len()] = ["input", "recurrent", "head", "bias"];

    /// Weights from parameters; `None` unless all are there in their sizes and
    /// every number is finite.
    pub(crate) fn new(parameters: [Vec<f32>; SHAPES.len()]) -> Option<Self> {
        let sound = parameters.iter().zip(SHAPES).all(|(values, (rows, columns))| {
            values.len() == rows * columns && values.iter().all(|value| value.is_finite())
        });
        sound.then_some(Self { parameters })
    }

    /// The parameters in the order of their names.
    pub(crate) fn parameters(&self) -> &[Vec<f32>; SHAPES.len()] {
        &self.parameters
    }
}

impl Network {
    /// An untrained network: uniform in ±1/√H, the forget gate open, the head
    /// almost silent.
    pub fn new(random: &mut Random) -> Result<Self> {
        let bound = 1.0 / (HIDDEN as f64).sqrt();
        let mut uniform = |(rows, columns): (usize, usize), bound: f64| -> Vec<f64> {
            (0..rows * columns).map(|_| bound * (2.0 * random.unit() - 1.0)).collect()
        };
        let mut input = uniform(SHAPES[0], bound);
        // The first feature is always 1; candle's gates: input, forget, cell, output.
        for unit in HIDDEN..2 * HIDDEN {
            input[unit * FEATURES] += 1.0;
        }
        let recurrent = uniform(SHAPES[1], bound);
        let head = uniform(SHAPES[2], 0.02);
        let tensor = |values: &[f64], shape: (usize, usize)| {
            Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(DTYPE)
        };
        Self::with([
            tensor(&input, SHAPES[0])?,
            tensor(&recurrent, SHAPES[1])?,
            tensor(&head, SHAPES[2])?,
            tensor(&[0.0; OUTPUTS], SHAPES[3])?,
        ])
    }

    /// A network that goes on from what another has learned.
    pub fn resume(weights: &LstmWeights) -> Result<Self> {
        let tensor = |at: usize| {
            Tensor::from_slice(&weights.parameters[at], SHAPES[at], &Device::Cpu)?.to_dtype(DTYPE)
        };
        Self::with([tensor(0)?, tensor(1)?, tensor(2)?, tensor(3)?])
    }

    fn with(tensors: [Tensor; SHAPES.len()]) -> Result<Self> {
        let [input, recurrent, head, bias] = tensors;
        let var = |tensor: &Tensor| Var::from_tensor(tensor);
        let vars = [var(&input)?, var(&recurrent)?, var(&head)?, var(&bias.flatten_all()?)?];
        let of = |at: usize| vars[at].as_tensor().clone();
        let named =
            HashMap::from([("weight_ih_l0".to_owned(), of(0)), ("weight_hh_l0".to_owned(), of(1))]);
        let named = VarBuilder::from_tensors(named, DTYPE, &Device::Cpu);
        let lstm = LSTM::new(FEATURES, HIDDEN, LSTMConfig::default_no_bias(), named)?;
        let linear = Linear::new(of(2), Some(of(3)));
        let params = ParamsAdamW { lr: LEARNING_RATE, ..ParamsAdamW::default() };
        let optimizer = AdamW::new(vars.to_vec(), params)?;
        Ok(Self { lstm, head: linear, optimizer, vars })
    }

    /// What it has learned; `None` if a number is beyond all bounds.
    pub fn weights(&self) -> Result<Option<LstmWeights>> {
        let values = |at: usize| {
            self.vars[at].as_tensor().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()
        };
        Ok(LstmWeights::new([values(0)?, values(1)?, values(2)?, values(3)?]))
    }

    fn forward(&self, batch: &Batch) -> Result<Outputs> {
        let device = &Device::Cpu;
        let steps = batch.inputs.len() / (batch.rows * FEATURES);
        let inputs = Tensor::from_slice(&batch.inputs, (batch.rows, steps, FEATURES), device)?;
        let inputs = inputs.to_dtype(DTYPE)?;
        let states = self.lstm.seq(&inputs)?;
        let last = states.last().expect("at least one step").h();
        let said = self.head.forward(last)?.chunk(OUTPUTS, 1)?;
        let column = |of: fn(f64) -> f64| {
            let values: Vec<f64> = batch.bases.iter().map(|base| of(*base)).collect();
            Tensor::from_vec(values, (batch.rows, 1), device)?.to_dtype(DTYPE)
        };
        let median = (column(f64::ln_1p)? + &said[0])?;
        let low = (&median - softplus(&said[1])?)?;
        let high = (&median + softplus(&said[2])?)?;
        // A runaway exponent would be worth e^5 times the base at most.
        let log_mean = (column(|base| (base + FLOOR).ln())? + said[3].clamp(-5.0, 5.0)?)?;
        Ok(Outputs { quantiles: [low, median, high], log_mean })
    }

    /// One optimiser step towards the requests that came; returns the loss before.
    pub fn train(&mut self, batch: &Batch, targets: &[f64]) -> Result<f64> {
        let device = &Device::Cpu;
        let outputs = self.forward(batch)?;
        let column =
            |values: Vec<f64>| Tensor::from_vec(values, (batch.rows, 1), device)?.to_dtype(DTYPE);
        // Busy rows weigh more, for they do in requests; not fully, to keep the peace.
        let weights: Vec<f64> = batch.bases.iter().map(|base| (1.0 + base).sqrt()).collect();
        let total: f64 = weights.iter().sum();
        let truth = column(targets.iter().map(|requests| requests.ln_1p()).collect())?;
        let mut loss = column(vec![0.0; batch.rows])?;
        for (tau, quantile) in LEVELS.iter().zip(&outputs.quantiles) {
            let short = (&truth - quantile)?;
            loss = ((loss + (short.relu()? * *tau)?)? + (short.neg()?.relu()? * (1.0 - tau))?)?;
        }
        let capped =
            targets.iter().zip(&batch.bases).map(|(y, base)| y.min(MOST_RATIO * (1.0 + base)));
        let capped = column(capped.collect())?;
        let scale = column(batch.bases.iter().map(|base| 1.0 / (1.0 + base)).collect())?;
        let poisson = (outputs.log_mean.exp()? - (capped * &outputs.log_mean)?)?;
        loss = (loss + (poisson * scale)?)?;
        let weights = column(weights.iter().map(|weight| weight / total).collect())?;
        let loss = (loss * weights)?.sum_all()?;
        self.optimizer.backward_step(&loss)?;
        loss.to_dtype(DType::F64)?.to_scalar()
    }

    /// The expectation and the quantiles of each row, in requests.
    pub fn predict(&self, batch: &Batch) -> Result<Vec<(f64, [f64; LEVELS.len()])>> {
        if batch.rows == 0 {
            return Ok(Vec::new());
        }
        let outputs = self.forward(batch)?;
        let [low, median, high] = &outputs.quantiles;
        let all = Tensor::cat(&[low, median, high, &outputs.log_mean], D::Minus1)?;
        let rows = all.to_dtype(DType::F64)?.to_vec2::<f64>()?.into_iter().map(|row| {
            let quantiles = [row[0], row[1], row[2]].map(f64::exp_m1);
            (row[3].exp(), quantiles)
        });
        Ok(rows.collect())
    }
}

/// ln(1 + e^x), without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()? + x.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_learn_the_quantiles_and_the_mean() {
        let mut random = Random::new(7);
        let mut network = Network::new(&mut random).unwrap();
        let rows = 64;
        let inputs = vec![0.5; rows * 2 * FEATURES];
        let batch = Batch { rows, inputs, bases: vec![20.0; rows] };
        let first = network.train(&batch, &vec![20.0; rows]).unwrap();
        assert!(first.is_finite());
        // 4 in three of four cases, else 44: a mean of 14.
        for _ in 0..200 {
            let targets = (0..rows).map(|_| if random.below(4) == 0 { 44.0 } else { 4.0 });
            network.train(&batch, &targets.collect::<Vec<_>>()).unwrap();
        }
        let (mean, [low, median, high]) = network.predict(&batch).unwrap()[0];
        assert!((mean - 14.0).abs() < 2.0, "{mean}");
        assert!(low <= median && median <= high);
        assert!((median - 4.0).abs() < 2.0 && (high - 44.0).abs() < 12.0, "{median} {high}");
    }

    #[test]
    fn softplus_is_exact_at_both_ends() {
        let x = Tensor::new(&[-800.0, 0.0, 800.0], &Device::Cpu).unwrap();
        let found = softplus(&x).unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(found, [0.0, 2.0_f64.ln(), 800.0]);
    }
}
