//! The nonlinear functions of the network, for a core.
#![forbid(unsafe_code)]

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
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline]
pub(super) fn tanh(x: f32) -> f32 {
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
