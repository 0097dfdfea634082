//! How far a forecast looks ahead, as a user says it.
//!
//! A horizon comes with the bins that serve it: the two that the models were
//! judged on keep theirs, any other is cut into ten. It is written as a whole
//! number of seconds, minutes or hours: `30s`, `5min`, `1h`.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{HeatShape, HorizonBins};

/// Bins in a horizon that has no shape of its own, and horizons that are kept.
const BINS: u16 = 10;
const KEPT: u64 = 24;
const MOST_SEGMENTS: usize = 4096;

/// How far ahead, in seconds: ten seconds to a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Horizon {
    seconds: u32,
}

/// A text that is no horizon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a horizon from 10s to 24h, such as 5min or 1h")]
pub struct BadHorizon;

impl Horizon {
    /// For moving data between tiers.
    pub const FIVE_MINUTES: Horizon = Horizon { seconds: 300 };
    /// For placing it.
    pub const ONE_HOUR: Horizon = Horizon { seconds: 3600 };

    /// A horizon of so many seconds.
    ///
    /// # Errors
    /// Below ten seconds or above a day.
    pub fn new(seconds: u32) -> Result<Self, BadHorizon> {
        (10..=86_400).contains(&seconds).then_some(Self { seconds }).ok_or(BadHorizon)
    }

    /// Its length in seconds.
    pub const fn seconds(self) -> u32 {
        self.seconds
    }

    /// The bins that serve it.
    pub fn shape(self) -> (HeatShape, HorizonBins) {
        match self {
            Self::FIVE_MINUTES => HeatShape::five_minutes(),
            Self::ONE_HOUR => HeatShape::one_hour(),
            Self { seconds } => {
                let bin_s = u64::from(seconds.div_ceil(BINS.into()));
                let shape = HeatShape::new(bin_s, KEPT * u64::from(BINS), MOST_SEGMENTS);
                let shape = shape.expect("bins of one second to three hours");
                (shape, shape.horizon(BINS).expect("a part of what is kept"))
            }
        }
    }
}

impl Default for Horizon {
    fn default() -> Self {
        Self::FIVE_MINUTES
    }
}

impl fmt::Display for Horizon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.seconds {
            s if s.is_multiple_of(3600) => format!("{}h", s / 3600),
            s if s.is_multiple_of(60) => format!("{}min", s / 60),
            s => format!("{s}s"),
        };
        f.pad(&text)
    }
}

impl FromStr for Horizon {
    type Err = BadHorizon;

    fn from_str(text: &str) -> Result<Self, BadHorizon> {
        let units = [("min", 60), ("h", 3600), ("s", 1)];
        let found = units.into_iter().find_map(|(unit, scale)| {
            let number: u32 = text.strip_suffix(unit)?.trim().parse().ok()?;
            number.checked_mul(scale)
        });
        Self::new(found.ok_or(BadHorizon)?)
    }
}

impl TryFrom<String> for Horizon {
    type Error = BadHorizon;

    fn try_from(text: String) -> Result<Self, BadHorizon> {
        text.parse()
    }
}

impl From<Horizon> for String {
    fn from(horizon: Horizon) -> String {
        horizon.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_back_and_nonsense_is_refused() {
        for (text, seconds) in [("5min", 300), ("1h", 3600), ("10s", 10), ("24h", 86_400)] {
            let horizon: Horizon = text.parse().unwrap();
            assert_eq!((horizon.seconds(), horizon.to_string().as_str()), (seconds, text));
        }
        assert_eq!("90min".parse::<Horizon>().unwrap().to_string(), "90min");
        assert_eq!("3600s".parse::<Horizon>().unwrap(), Horizon::ONE_HOUR);
        for text in ["", "h", "5", "9s", "25h", "-5min", "1.5h", "5 m", "99999999999h"] {
            assert_eq!(text.parse::<Horizon>(), Err(BadHorizon), "{text}");
        }
    }

    #[test]
    fn every_horizon_has_bins() {
        for seconds in [10, 11, 59, 300, 301, 3600, 3601, 86_400] {
            let (shape, bins) = Horizon::new(seconds).unwrap().shape();
            let covered = bins.get() * shape.bin_ns() / 1_000_000_000;
            assert!((u64::from(seconds)..u64::from(seconds) + 10).contains(&covered), "{seconds}");
        }
    }
}
