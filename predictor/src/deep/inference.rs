//! The network as plain loops: what runs on a core.
//!
//! Sizes are constants and loops have no branch, so that they become vector code.
#![forbid(unsafe_code)]

use super::activation::{sigmoid, tanh};
use super::inputs::{CandidateRows, ContextRows};
use super::layout::{CANDIDATE_GROUPS, CONTEXT_GROUPS, HALF, HIDDEN, WIDTH};
use super::model::Model;

/// What the encoder remembers of one client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    pub(super) h: [f32; HIDDEN],
    pub(super) c: [f32; HIDDEN],
}

impl Default for State {
    fn default() -> Self {
        State::NONE
    }
}

impl State {
    /// Before a client's first crossing.
    pub const NONE: State = State { h: [0.0; HIDDEN], c: [0.0; HIDDEN] };
}

/// What the encoder tells the candidates of a crossing.
#[derive(Clone, Copy, Debug)]
pub struct View([f32; WIDTH]);

impl Model {
    /// Reads a crossing of a client.
    pub fn step(&self, state: &mut State, rows: &ContextRows) {
        let mut gates = self.bias;
        let (rows, _) = rows.get().as_chunks::<4>();
        for rows in rows {
            add(&mut gates, rows.map(|row| &self.encoder[usize::from(row)]));
        }
        accumulate(&mut gates, &self.recurrent, &state.h);
        let (input, rest) = gates.split_at(HIDDEN);
        let (forget, rest) = rest.split_at(HIDDEN);
        let (cell, output) = rest.split_at(HIDDEN);
        for i in 0..HIDDEN {
            let kept = sigmoid(forget[i]) * state.c[i];
            state.c[i] = kept + sigmoid(input[i]) * tanh(cell[i]);
        }
        for ((h, c), output) in state.h.iter_mut().zip(&state.c).zip(output) {
            *h = sigmoid(*output) * tanh(*c);
        }
    }

    /// What the candidates of a crossing are met with.
    pub fn view(&self, state: &State) -> View {
        let mut view = self.view_bias;
        accumulate(&mut view, &self.view, &state.h);
        View(view)
    }

    /// The log-odds of a candidate.
    pub fn odds(&self, view: &View, rows: &CandidateRows) -> f32 {
        let mut sum = [0.0; WIDTH];
        let (rows, _) = rows.get().as_chunks::<4>();
        for rows in rows {
            add(&mut sum, rows.map(|row| &self.candidates[usize::from(row)]));
        }
        let mut terms = [0.0; HALF];
        for i in 0..HALF {
            let bent = (sum[i] + view.0[i]).max(0.0) * self.out[i];
            terms[i] = bent + sum[HALF + i] * view.0[HALF + i];
        }
        terms.iter().sum()
    }
}

/// Four rows at a time, so that the sum is loaded and stored a quarter as often.
fn add<const N: usize>(sum: &mut [f32; N], [a, b, c, d]: [&[f32; N]; 4]) {
    for i in 0..N {
        sum[i] += (a[i] + b[i]) + (c[i] + d[i]);
    }
}

/// Adds the product of the state and a matrix.
fn accumulate<const N: usize>(sum: &mut [f32; N], matrix: &[[f32; N]], h: &[f32; HIDDEN]) {
    let (h, _) = h.as_chunks::<4>();
    let (rows, _) = matrix.as_chunks::<4>();
    for ([h0, h1, h2, h3], [a, b, c, d]) in h.iter().zip(rows) {
        for i in 0..N {
            sum[i] += (h0 * a[i] + h1 * b[i]) + (h2 * c[i] + h3 * d[i]);
        }
    }
}

/// All rows come in fours.
const _: () = assert!(
    CONTEXT_GROUPS.is_multiple_of(4)
        && CANDIDATE_GROUPS.is_multiple_of(4)
        && HIDDEN.is_multiple_of(4)
);
