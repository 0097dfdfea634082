//! Silence for a predictor that does harm.
//!
//! The rule: a running precision (exponentially weighted over the last 128
//! outcomes or so; hit 1, late ½, wasted 0) starts at ½. When it falls below
//! [`FLOOR`], proposals are withheld for [`FIRST_SILENCE`] triggers; then
//! [`PROBE`] proposals are let through. If their outcomes leave the precision
//! below the floor again, the next silence is twice as long, up to
//! [`LONGEST_SILENCE`]; if they lift it above [`RECOVERED`], the lengths start
//! over.
#![forbid(unsafe_code)]

use super::{Outcome, Predictions};

/// Weight of the newest outcome.
const ALPHA: f32 = 1.0 / 128.0;
/// Below this, each used stage costs three or more wasted ones.
const FLOOR: f32 = 0.25;
/// Above this the predictor counts as useful again.
const RECOVERED: f32 = 0.4;
/// Precision granted to a probe: some 25 wasted stages in a row end it, some 20
/// used ones restore trust.
const PROBE_CREDIT: f32 = 0.3;
/// Proposals let through by a probe.
const PROBE: u32 = 64;
const FIRST_SILENCE: u32 = 1 << 9;
const LONGEST_SILENCE: u32 = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    /// Triggers still to be withheld.
    Silent(u32),
    /// Proposals still let through while outcomes are awaited.
    Probe(u32),
}

/// The running precision and what follows from it.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    precision: f32,
    silence: u32,
    mode: Mode,
}

impl Guard {
    pub fn new() -> Self {
        Self { precision: 0.5, silence: FIRST_SILENCE, mode: Mode::Open }
    }

    pub fn is_silent(&self) -> bool {
        matches!(self.mode, Mode::Silent(_))
    }

    /// Withholds what must not be proposed now.
    pub fn filter(&mut self, out: &mut Predictions) {
        if out.is_empty() {
            return;
        }
        match self.mode {
            Mode::Open => {}
            Mode::Silent(0) => {
                self.precision = PROBE_CREDIT;
                self.mode = Mode::Probe(PROBE - 1);
                out.truncate(1);
            }
            Mode::Silent(left) => {
                self.mode = Mode::Silent(left - 1);
                out.clear();
            }
            // The probe is spent but its outcomes are not all in: wait, yet not
            // for ever, as an unused stage may stay resident for long.
            Mode::Probe(0) => self.fall_silent(out),
            Mode::Probe(left) => {
                out.truncate(1);
                self.mode = Mode::Probe(left - 1);
            }
        }
    }

    fn fall_silent(&mut self, out: &mut Predictions) {
        self.mode = Mode::Silent(self.silence);
        out.clear();
    }

    pub fn feedback(&mut self, outcome: Outcome) {
        let used = match outcome {
            Outcome::Hit => 1.0,
            Outcome::Late => 0.5,
            Outcome::Wasted => 0.0,
        };
        self.precision += ALPHA * (used - self.precision);
        if self.precision > RECOVERED {
            self.mode = Mode::Open;
            self.silence = FIRST_SILENCE;
        } else if self.precision < FLOOR && !self.is_silent() {
            if self.mode != Mode::Open {
                self.silence = (self.silence * 2).min(LONGEST_SILENCE);
            }
            self.mode = Mode::Silent(self.silence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefetch::Prediction;

    fn passes(guard: &mut Guard) -> bool {
        let mut out = Predictions::new();
        out.push(Prediction::default());
        guard.filter(&mut out);
        !out.is_empty()
    }

    fn silence(guard: &mut Guard) -> u32 {
        let mut withheld = 0;
        while !passes(guard) {
            withheld += 1;
        }
        withheld
    }

    #[test]
    fn waste_silences_and_each_failed_probe_doubles_the_silence() {
        let mut guard = Guard::new();
        while !guard.is_silent() {
            assert!(passes(&mut guard));
            guard.feedback(Outcome::Wasted);
        }
        assert_eq!(silence(&mut guard), FIRST_SILENCE);
        while !guard.is_silent() {
            guard.feedback(Outcome::Wasted);
        }
        assert_eq!(silence(&mut guard), 2 * FIRST_SILENCE);
        for _ in 0..32 {
            guard.feedback(Outcome::Hit);
        }
        assert!(!guard.is_silent());
        assert_eq!(guard.silence, FIRST_SILENCE);
        assert!((0..1000).all(|_| passes(&mut guard)));
    }

    #[test]
    fn a_probe_without_answers_ends() {
        let mut guard = Guard::new();
        while !guard.is_silent() {
            guard.feedback(Outcome::Wasted);
        }
        silence(&mut guard);
        let let_through = (0..5 * PROBE).filter(|_| passes(&mut guard)).count();
        assert_eq!(let_through + 1, PROBE as usize, "the first ended the silence");
    }

    #[test]
    fn useful_predictors_are_left_alone() {
        let mut guard = Guard::new();
        for i in 0..10_000 {
            assert!(passes(&mut guard));
            guard.feedback(if i % 2 == 0 { Outcome::Hit } else { Outcome::Wasted });
        }
    }
}
