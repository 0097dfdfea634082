//! The candle model and its optimiser.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::rnn::{LSTM, LSTMConfig, LSTMState, RNN};
use candle_nn::{AdamW, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, ops};

use super::{State, Weights};

/// Sequences padded to one length: B rows of T steps.
pub(super) struct Batch {
    pub rows: usize,
    pub steps: usize,
    /// B × T classes read; any class where padded.
    pub inputs: Vec<u8>,
    /// B × T classes to predict; any class where `mask` is 0.
    pub targets: Vec<u32>,
    /// B × T: 1 where the target counts.
    pub mask: Vec<f32>,
    /// B states before the first step.
    pub states: Vec<State>,
}

/// candle's LSTM over one-hot classes, with a linear head.
pub(super) struct Model {
    /// 4H × V.
    w_ih: Var,
    /// 4H × H.
    w_hh: Var,
    /// V × H.
    head: Var,
    /// V.
    bias: Var,
    lstm: LSTM,
    linear: Linear,
    optimizer: AdamW,
    /// Everything that is not trained: vocabulary and sizes.
    template: Weights,
}

impl Model {
    pub fn new(weights: &Weights, learning_rate: f64) -> Result<Self> {
        let device = &Device::Cpu;
        let (hidden, classes) = (weights.hidden, weights.vocabulary.classes());
        let transposed = |values: &[f32], rows: usize, columns: usize| {
            let tensor = Tensor::from_slice(values, (rows, columns), device)?;
            Var::from_tensor(&tensor.t()?.contiguous()?)
        };
        let w_ih = transposed(&weights.gates, classes, 4 * hidden)?;
        let w_hh = transposed(&weights.recurrent, hidden, 4 * hidden)?;
        let head = transposed(&weights.head, hidden, classes)?;
        let bias = Var::from_slice(&weights.bias, classes, device)?;
        let named = HashMap::from([
            ("weight_ih_l0".to_owned(), w_ih.as_tensor().clone()),
            ("weight_hh_l0".to_owned(), w_hh.as_tensor().clone()),
        ]);
        let named = VarBuilder::from_tensors(named, DType::F32, device);
        // One-hot inputs make every row of w_ih its class's own bias.
        let lstm = LSTM::new(classes, hidden, LSTMConfig::default_no_bias(), named)?;
        let linear = Linear::new(head.as_tensor().clone(), Some(bias.as_tensor().clone()));
        let vars = vec![w_ih.clone(), w_hh.clone(), head.clone(), bias.clone()];
        let params = ParamsAdamW { lr: learning_rate, ..ParamsAdamW::default() };
        let optimizer = AdamW::new(vars, params)?;
        let template = weights.clone();
        Ok(Self { w_ih, w_hh, head, bias, lstm, linear, optimizer, template })
    }

    /// The model as it stands, with the given serial.
    pub fn export(&self, serial: u64) -> Result<Weights> {
        let transposed = |var: &Var| var.as_tensor().t()?.flatten_all()?.to_vec1::<f32>();
        Ok(Weights {
            serial,
            hidden: self.template.hidden,
            vocabulary: self.template.vocabulary.clone(),
            gates: transposed(&self.w_ih)?,
            recurrent: transposed(&self.w_hh)?,
            head: transposed(&self.head)?,
            bias: self.bias.as_tensor().to_vec1()?,
        })
    }

    /// Log-probabilities of the next class, (B·T) × V.
    pub fn forward(&self, batch: &Batch) -> Result<Tensor> {
        let device = &Device::Cpu;
        let (hidden, classes) = (self.template.hidden, self.template.vocabulary.classes());
        let mut one_hot = vec![0.0_f32; batch.inputs.len() * classes];
        for (row, class) in one_hot.chunks_exact_mut(classes).zip(&batch.inputs) {
            row[usize::from(*class)] = 1.0;
        }
        let input = Tensor::from_vec(one_hot, (batch.rows, batch.steps, classes), device)?;
        let initial = |part: fn(&State) -> &[f32]| {
            let values = batch.states.iter().flat_map(|s| &part(s)[..hidden]).copied().collect();
            Tensor::from_vec(values, (batch.rows, hidden), device)
        };
        let state = LSTMState::new(initial(|s| &s.h)?, initial(|s| &s.c)?);
        let states = self.lstm.seq_init(&input, &state)?;
        let outputs = self.lstm.states_to_tensor(&states)?;
        let logits = self.linear.forward(&outputs.flatten(0, 1)?)?;
        ops::log_softmax(&logits, 1)
    }

    /// One optimiser step; returns the mean cross-entropy before it, in nats.
    pub fn train(&mut self, batch: &Batch) -> Result<f32> {
        let device = &Device::Cpu;
        let items = batch.targets.len();
        let targets = Tensor::from_slice(&batch.targets, (items, 1), device)?;
        let mask = Tensor::from_slice(&batch.mask, (items, 1), device)?;
        let counted: f32 = batch.mask.iter().sum();
        assert!(counted > 0.0, "a batch has at least one target");
        let gained = (self.forward(batch)?.gather(&targets, 1)? * mask)?.sum_all()?;
        let loss = gained.affine(-1.0 / f64::from(counted), 0.0)?;
        self.optimizer.backward_step(&loss)?;
        loss.to_scalar()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Inference, Vocabulary};
    use super::*;
    use crate::random::Random;

    fn random_batch(random: &mut Random, classes: u64, rows: usize, steps: usize) -> Batch {
        let mut class = || u8::try_from(random.next() % classes).unwrap();
        let inputs: Vec<u8> = (0..rows * steps).map(|_| class()).collect();
        let targets = (0..rows * steps).map(|_| class().into()).collect();
        let states = vec![State::zero(); rows];
        Batch { rows, steps, inputs, targets, mask: vec![1.0; rows * steps], states }
    }

    #[test]
    fn plain_loops_agree_with_candle() {
        let mut random = Random::new(5);
        for (hidden, deltas) in [(32, 62), (4, 1), (64, 126), (12, 5)] {
            let deltas = (1..=deltas).map(|d| if d > 64 { 64 - d } else { d }).collect();
            let vocabulary = Vocabulary::from_deltas(deltas).unwrap();
            let classes = vocabulary.classes();
            let mut weights = Weights::untrained(vocabulary, hidden, &mut random);
            // Larger than a trained model's, so that the gates leave their linear range.
            weights.gates.iter_mut().for_each(|w| *w *= 6.0);
            weights.head.iter_mut().for_each(|w| *w *= 6.0);
            let mut batch = random_batch(&mut random, classes as u64, 3, 40);
            batch.states[1].h[0] = 0.7;
            batch.states[1].c[3] = -1.5;
            let model = Model::new(&weights, 0.001).unwrap();
            assert_eq!(model.export(0).unwrap(), weights);
            let candle = model.forward(&batch).unwrap().to_vec2::<f32>().unwrap();
            let mut inference = Inference::new();
            for row in 0..batch.rows {
                let mut state = batch.states[row];
                for step in 0..batch.steps {
                    let at = row * batch.steps + step;
                    inference.step(&weights, &mut state, batch.inputs[at]);
                    let plain = inference.probabilities(&weights, &state);
                    for (ours, theirs) in plain.iter().zip(&candle[at]) {
                        assert!((ours - theirs.exp()).abs() < 1e-4, "H {hidden} V {classes}");
                    }
                }
            }
        }
    }

    #[test]
    fn training_lowers_the_loss() {
        let mut random = Random::new(9);
        let vocabulary = Vocabulary::from_deltas(vec![1, 2, 3]).unwrap();
        let weights = Weights::untrained(vocabulary, 8, &mut random);
        let mut model = Model::new(&weights, 0.01).unwrap();
        let mut batch = random_batch(&mut random, 5, 4, 8);
        for (target, input) in batch.targets.iter_mut().zip(&batch.inputs) {
            *target = (u32::from(*input) + 1) % 5;
        }
        let first = model.train(&batch).unwrap();
        let last = (0..150).map(|_| model.train(&batch).unwrap()).last().unwrap();
        assert!(last < first / 4.0, "{first} → {last}");
        assert!(model.export(1).unwrap().is_sound());
    }
}
