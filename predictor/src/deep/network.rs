//! The same network in candle, and its optimiser.
#![forbid(unsafe_code)]

use candle_core::{Device, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, ops};

use super::inputs::ContextRows;
use super::layout::{
    CANDIDATE_GROUPS, CANDIDATE_ROWS, CONTEXT_GROUPS, CONTEXT_ROWS, GATES, HALF, HIDDEN, WIDTH,
};
use super::rows::sum_rows;
use super::{Crossing, Model, State};

/// Adam's step (Kingma, Ba, 2015), and how long it remembers gradients and their squares.
const LEARNING_RATE: f64 = 0.002;
const BETAS: (f64, f64) = (0.9, 0.99);

/// Sequences of crossings of equal length.
#[derive(Default)]
pub(super) struct Batch {
    sequences: usize,
    steps: usize,
    /// Rows of the contexts: steps × sequences × groups.
    contexts: Vec<u32>,
    /// What was remembered before each sequence: h and c, sequences × hidden.
    h: Vec<f32>,
    c: Vec<f32>,
    /// The step and sequence of each candidate, as step · sequences + sequence.
    met: Vec<u32>,
    /// Its rows: candidates × groups.
    candidates: Vec<u32>,
    /// 1 if it came.
    came: Vec<f32>,
}

impl Batch {
    /// Pads the sequences to `steps` crossings: a crossing without candidates teaches nothing.
    pub fn new(sequences: &[Vec<&Crossing>], steps: usize) -> Batch {
        let mut batch = Batch { sequences: sequences.len(), steps, ..Batch::default() };
        for step in 0..steps {
            for (row, sequence) in sequences.iter().enumerate() {
                let crossing = sequence.get(step);
                let rows = crossing.map_or(ContextRows::default(), |crossing| crossing.rows);
                batch.contexts.extend(rows.get().map(u32::from));
                for sample in crossing.into_iter().flat_map(|crossing| crossing.samples()) {
                    let met = step * sequences.len() + row;
                    batch.met.push(u32::try_from(met).expect("few"));
                    batch.candidates.extend(sample.rows.get().map(u32::from));
                    batch.came.push(f32::from(sample.came));
                }
            }
        }
        for sequence in sequences {
            let state = sequence.first().map_or(State::NONE, |crossing| crossing.state);
            batch.h.extend(state.h);
            batch.c.extend(state.c);
        }
        batch
    }

    /// Candidates in it.
    pub fn len(&self) -> usize {
        self.came.len()
    }
}

/// Encoder and tower as variables, with Adam's memory of them.
pub(super) struct Network {
    encoder: Var,
    recurrent: Var,
    bias: Var,
    view: Var,
    view_bias: Var,
    out: Var,
    candidates: Var,
    optimizer: AdamW,
}

impl Network {
    pub fn new(model: &Model) -> Result<Network> {
        let table = |values: &[f32], rows: usize, width: usize| {
            Var::from_slice(values, (rows, width), &Device::Cpu)
        };
        let [encoder, recurrent, bias, view, view_bias, out, candidates] =
            model.parts().map(|(_, values)| values);
        let encoder = table(encoder, CONTEXT_ROWS, GATES)?;
        let recurrent = table(recurrent, HIDDEN, GATES)?;
        let bias = table(bias, 1, GATES)?;
        let view = table(view, HIDDEN, WIDTH)?;
        let view_bias = table(view_bias, 1, WIDTH)?;
        let out = table(out, HALF, 1)?;
        let candidates = table(candidates, CANDIDATE_ROWS, WIDTH)?;
        let vars = [&encoder, &recurrent, &bias, &view, &view_bias, &out, &candidates];
        let (beta1, beta2) = BETAS;
        let params = ParamsAdamW { lr: LEARNING_RATE, beta1, beta2, eps: 1e-6, weight_decay: 0.0 };
        let optimizer = AdamW::new(vars.map(Var::clone).to_vec(), params)?;
        Ok(Network { encoder, recurrent, bias, view, view_bias, out, candidates, optimizer })
    }

    /// The weights as they stand; `None` if one is not finite.
    pub fn export(&self) -> Result<Option<Model>> {
        let mut failed = None;
        let model = Model::from_parts(|name| {
            let var = match name {
                "encoder" => &self.encoder,
                "recurrent" => &self.recurrent,
                "bias" => &self.bias,
                "view" => &self.view,
                "view_bias" => &self.view_bias,
                "out" => &self.out,
                "candidates" => &self.candidates,
                _ => return None,
            };
            let values = var.as_tensor().flatten_all().and_then(|all| all.to_vec1::<f32>());
            values.map_err(|error| failed = Some(error)).ok()
        });
        failed.map_or(Ok(model), Err)
    }

    /// What is remembered after each crossing: (steps · sequences) × hidden.
    pub fn encode(&self, batch: &Batch) -> Result<Tensor> {
        let rows = batch.steps * batch.sequences;
        let sums = sum_rows(&self.encoder, batch.contexts.as_slice(), CONTEXT_GROUPS)?;
        let gates = sums.broadcast_add(&self.bias)?;
        let gates = gates.reshape((batch.steps, batch.sequences, GATES))?;
        let state =
            |values: &[f32]| Tensor::from_slice(values, (batch.sequences, HIDDEN), &Device::Cpu);
        let (mut h, mut c) = (state(&batch.h)?, state(&batch.c)?);
        let mut remembered = Vec::with_capacity(batch.steps);
        for step in 0..batch.steps {
            let gates = (gates.get(step)? + h.matmul(&self.recurrent)?)?;
            let gate = |n: usize| gates.narrow(1, n * HIDDEN, HIDDEN)?.contiguous();
            let kept = (ops::sigmoid(&gate(1)?)? * c)?;
            c = (kept + (ops::sigmoid(&gate(0)?)? * gate(2)?.tanh()?)?)?;
            h = (ops::sigmoid(&gate(3)?)? * c.tanh()?)?;
            remembered.push(h.clone());
        }
        Tensor::stack(&remembered, 0)?.reshape((rows, HIDDEN))
    }

    /// The log-odds of each candidate.
    pub fn odds(&self, batch: &Batch) -> Result<Tensor> {
        let views = self.encode(batch)?.matmul(&self.view)?.broadcast_add(&self.view_bias)?;
        let met = Tensor::from_slice(&batch.met, batch.met.len(), &Device::Cpu)?;
        let views = views.index_select(&met, 0)?;
        let sums = sum_rows(&self.candidates, batch.candidates.as_slice(), CANDIDATE_GROUPS)?;
        let half = |of: &Tensor, n: usize| of.narrow(1, n * HALF, HALF)?.contiguous();
        let bent = (half(&sums, 0)? + half(&views, 0)?)?.relu()?.matmul(&self.out)?;
        let product = (half(&sums, 1)? * half(&views, 1)?)?.sum(1)?;
        bent.squeeze(1)? + product
    }

    /// One step of the optimiser; the mean log loss before it, in nats.
    pub fn train(&mut self, batch: &Batch) -> Result<f32> {
        assert!(batch.len() > 0, "a batch has candidates");
        let came = Tensor::from_slice(&batch.came, batch.len(), &Device::Cpu)?;
        let odds = self.odds(batch)?;
        // ln(1 + e^x) - x·came, without overflow.
        let soft = odds.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?;
        let loss = ((odds.relu()? + soft)? - (odds * came)?)?.mean_all()?;
        self.optimizer.backward_step(&loss)?;
        loss.to_scalar()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::inputs::random;
    use super::super::layout::CANDIDATES;
    use super::super::{View, Window};
    use super::*;
    use crate::random::Random;

    /// Crossings of one client with random inputs, the state being what the model makes of them.
    fn crossings(model: &Model, random: &mut Random, count: u64) -> Vec<Crossing> {
        let mut window = Window::new();
        let mut state = State::NONE;
        for now in 0..count {
            let rows = random::context(random);
            window.open(0, now, rows, state);
            model.step(&mut state, &rows);
            for _ in 0..random.below(CANDIDATES as u64 + 1) {
                let tag = window.add(random::candidate(random));
                if random.below(3) == 0 {
                    window.came(tag);
                }
            }
        }
        (0..count).map(|_| *window.settled(count).unwrap()).collect()
    }

    /// A model with larger weights than a fresh one's. Not so what goes round: beyond this the
    /// recurrence is chaotic, and any two ways of rounding part from each other.
    fn scaled(random: &mut Random, times: f32) -> Model {
        let model = Model::untrained(random);
        Model::from_parts(|name| {
            let part = model.parts().into_iter().find(|(of, _)| *of == name)?.1;
            let times = if name == "recurrent" { times.min(1.5) } else { times };
            Some(part.iter().map(|x| x * times).collect())
        })
        .unwrap()
    }

    fn probability(odds: f32) -> f32 {
        1.0 / (1.0 + (-odds).exp())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn plain_loops_agree_with_candle(seed: u64, times in 0.2_f32..4.0) {
            let mut random = Random::new(seed);
            let model = scaled(&mut random, times);
            let crossings = crossings(&model, &mut random, 60);
            // The second sequence begins with a state, the third is shorter.
            let sequences: Vec<Vec<&Crossing>> = [0..40, 20..60, 50..60]
                .map(|range| crossings[range].iter().collect())
                .to_vec();
            let batch = Batch::new(&sequences, 40);
            let network = Network::new(&model).unwrap();
            prop_assert_eq!(network.export().unwrap().unwrap(), model.clone());
            let odds = network.odds(&batch).unwrap().to_vec1::<f32>().unwrap();
            let encoded = network.encode(&batch).unwrap().to_vec2::<f32>().unwrap();
            let mut views: Vec<Option<View>> = vec![None; 3 * 40];
            for (row, sequence) in sequences.iter().enumerate() {
                let mut state = sequence[0].state;
                for (step, crossing) in sequence.iter().enumerate() {
                    model.step(&mut state, &crossing.rows);
                    for (ours, theirs) in state.h.iter().zip(&encoded[step * 3 + row]) {
                        prop_assert!((ours - theirs).abs() < 1e-5, "{ours} {theirs}");
                    }
                    views[step * 3 + row] = Some(model.view(&state));
                }
            }
            let mut at = 0;
            for (step, row) in (0..40).flat_map(|step| (0..3).map(move |row| (step, row))) {
                let Some(crossing) = sequences[row].get(step) else { continue };
                let view = views[step * 3 + row].unwrap();
                for sample in crossing.samples() {
                    let ours = probability(model.odds(&view, &sample.rows));
                    let theirs = probability(odds[at]);
                    prop_assert!((ours - theirs).abs() < 1e-5, "{ours} {theirs}");
                    at += 1;
                }
            }
            prop_assert_eq!(at, batch.len());
        }
    }

    #[test]
    fn training_lowers_the_loss_and_what_is_no_number_shows() {
        let mut random = Random::new(5);
        let model = Model::untrained(&mut random);
        let crossings = crossings(&model, &mut random, 64);
        let sequences: Vec<Vec<&Crossing>> =
            crossings.chunks(8).map(|chunk| chunk.iter().collect()).collect();
        let batch = Batch::new(&sequences, 8);
        let mut network = Network::new(&model).unwrap();
        let first = network.train(&batch).unwrap();
        let last = (0..100).map(|_| network.train(&batch).unwrap()).last().unwrap();
        assert!(last < first / 2.0, "{first} → {last}");
        assert!(network.export().unwrap().is_some_and(|trained| trained != model));
        let nan = Tensor::full(f32::NAN, (1, GATES), &Device::Cpu).unwrap();
        network.bias.set(&nan).unwrap();
        assert!(network.export().unwrap().is_none());
    }
}
