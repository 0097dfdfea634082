//! The network as plain loops: what runs on a core.
#![forbid(unsafe_code)]

use super::{MAX_CLASSES, MAX_HIDDEN, Weights};

/// What the network remembers of one stream.
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub(super) h: [f32; MAX_HIDDEN],
    pub(super) c: [f32; MAX_HIDDEN],
}

impl State {
    /// The state before the first class.
    pub const fn zero() -> Self {
        Self { h: [0.0; MAX_HIDDEN], c: [0.0; MAX_HIDDEN] }
    }
}

/// Scratch space to run [`Weights`]; one per core is enough.
#[derive(Clone, Debug)]
pub struct Inference {
    gates: [f32; 4 * MAX_HIDDEN],
    odds: [f32; MAX_CLASSES],
}

impl Default for Inference {
    fn default() -> Self {
        Self::new()
    }
}

impl Inference {
    /// Scratch space for any weights.
    pub const fn new() -> Self {
        Self { gates: [0.0; 4 * MAX_HIDDEN], odds: [0.0; MAX_CLASSES] }
    }

    /// Reads one class: advances the state.
    ///
    /// # Panics
    /// If the class is not of the weights' vocabulary.
    pub fn step(&mut self, weights: &Weights, state: &mut State, class: u8) {
        let hidden = weights.hidden;
        let width = 4 * hidden;
        let class = usize::from(class);
        let gates = &mut self.gates[..width];
        gates.copy_from_slice(&weights.gates[class * width..(class + 1) * width]);
        accumulate(gates, &weights.recurrent, &state.h[..hidden]);
        // Candle's order: input, forget, cell, output.
        let (input, rest) = gates.split_at_mut(hidden);
        let (forget, rest) = rest.split_at_mut(hidden);
        let (cell, output) = rest.split_at_mut(hidden);
        for gate in [&mut *input, &mut *forget, &mut *output] {
            gate.iter_mut().for_each(|x| *x = sigmoid(*x));
        }
        let (h, c) = (&mut state.h[..hidden], &mut state.c[..hidden]);
        let gates = input.iter().zip(forget).zip(cell.iter().zip(output));
        for ((h, c), ((input, forget), (cell, output))) in h.iter_mut().zip(c).zip(gates) {
            *c = *forget * *c + *input * tanh(*cell);
            *h = *output * tanh(*c);
        }
    }

    /// The probability of each class to come next.
    pub fn probabilities(&mut self, weights: &Weights, state: &State) -> &[f32] {
        let classes = weights.vocabulary.classes();
        let odds = &mut self.odds[..classes];
        odds.copy_from_slice(&weights.bias);
        accumulate(odds, &weights.head, &state.h[..weights.hidden]);
        let largest = fold(odds, f32::MIN, |a, b| if a > b { a } else { b });
        odds.iter_mut().for_each(|x| *x = exp(*x - largest));
        let scale = 1.0 / fold(odds, 0.0, |a, b| a + b);
        odds.iter_mut().for_each(|x| *x *= scale);
        odds
    }
}

/// `out += Σ h[j] · matrix[j]`, four rows at a time so that `out` is loaded and
/// stored a quarter as often.
fn accumulate(out: &mut [f32], matrix: &[f32], h: &[f32]) {
    let width = out.len();
    let (h, _) = h.as_chunks::<4>();
    for (&[h0, h1, h2, h3], rows) in h.iter().zip(matrix.chunks_exact(4 * width)) {
        let (r0, rest) = rows.split_at(width);
        let (r1, rest) = rest.split_at(width);
        let (r2, r3) = rest.split_at(width);
        let rows = r0.iter().zip(r1).zip(r2.iter().zip(r3));
        for (sum, ((a, b), (c, d))) in out.iter_mut().zip(rows) {
            *sum += (h0 * a + h1 * b) + (h2 * c + h3 * d);
        }
    }
}

/// Folds in eight lanes, so that no step waits for the one before it.
fn fold(values: &[f32], start: f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [start; 8];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = join(*lane, *value);
        }
    }
    lanes.iter().chain(rest).fold(start, |a, b| join(a, *b))
}

/// e^x with a relative error below 1e-6, without a branch or a call, so that
/// loops over it become vector code. Out of ±87 it saturates.
fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, so that x − n ln 2 keeps its low bits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let r2 = r * r;
    // Taylor to the sixth power: |r| ≤ ln 2 / 2 leaves less than 2e-7.
    let low = 1.0 + r + r2 * 0.5;
    let high = 1.0 / 6.0 + r * (1.0 / 24.0) + r2 * (1.0 / 120.0 + r * (1.0 / 720.0));
    let p = low + r2 * r * high;
    // n is added to the exponent; the shift drops the bits of ROUND above it.
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[inline]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline]
pub(crate) fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_its_kin_are_exact_enough() {
        for i in -8700_i16..=8700 {
            let x = f32::from(i) / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 1e-6, "exp({x})");
            assert!((tanh(x) - x.tanh()).abs() < 1e-6, "tanh({x})");
        }
        assert!(exp(-1e30) < 1e-37 && exp(1e30).is_finite());
    }
}
