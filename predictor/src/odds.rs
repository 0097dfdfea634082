//! Log-odds: what they mean as a probability, and how badly they foretold an outcome.
#![forbid(unsafe_code)]

/// The probability of log-odds.
pub(crate) fn logistic(odds: f32) -> f32 {
    1.0 / (1.0 + (-odds).exp())
}

/// The log loss of an outcome, without overflow.
pub(crate) fn log_loss(odds: f32, came: bool) -> f32 {
    let towards = if came { odds } else { -odds };
    (-towards).max(0.0) + (-towards.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_is_the_logarithm_of_the_probability() {
        for odds in [-3.0, -0.5, 0.0, 2.0] {
            let came = -logistic(odds).ln();
            assert!((log_loss(odds, true) - came).abs() < 1e-6);
            assert!((log_loss(-odds, false) - came).abs() < 1e-6);
        }
        assert_eq!((log_loss(200.0, true), log_loss(200.0, false)), (0.0, 200.0));
    }
}
