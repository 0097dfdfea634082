//! Which forecaster runs: the user's choice, by name.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    Arima, Auto, Calibrated, Ewma, Forecaster, HeatShape, HoltWinters, HorizonBins, Lstm, Prophet,
    SeasonalNaive, Smoothing,
};

/// Which forecaster runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForecasterKind {
    /// Exponentially weighted mean.
    Ewma,
    /// What came a day ago.
    SeasonalNaive,
    /// Level, damped trend, season.
    HoltWinters,
    /// A small ARIMA of each segment.
    Arima,
    /// Piecewise-linear trend and Fourier seasons.
    Prophet,
    /// One recurrent network over all segments.
    Lstm,
    /// Whichever was best lately.
    #[default]
    Auto,
}

/// A name that is no forecaster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown forecaster; choose auto, lstm, arima, prophet, holt-winters, seasonal-naive or ewma"
)]
pub struct UnknownForecaster;

impl ForecasterKind {
    /// All kinds, in the order of reports.
    pub const ALL: [ForecasterKind; 7] = [
        Self::Ewma,
        Self::SeasonalNaive,
        Self::HoltWinters,
        Self::Arima,
        Self::Prophet,
        Self::Lstm,
        Self::Auto,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Ewma => "ewma",
            Self::SeasonalNaive => "seasonal-naive",
            Self::HoltWinters => "holt-winters",
            Self::Arima => "arima",
            Self::Prophet => "prophet",
            Self::Lstm => "lstm",
            Self::Auto => "auto",
        }
    }

    /// A forecaster of this kind that has seen nothing. Equal seeds and inputs
    /// give equal forecasts.
    pub fn build(self, shape: HeatShape, horizon: HorizonBins, seed: u64) -> Box<dyn Forecaster> {
        let season = shape.day_bins();
        let smoothing = Smoothing::for_horizon(horizon);
        match self {
            // So its mean age is about that of the last horizon's bins.
            Self::Ewma => Box::new(Calibrated::new(Ewma::new(horizon.as_f64() / 2.0), horizon)),
            Self::SeasonalNaive => Box::new(Calibrated::new(SeasonalNaive::new(season), horizon)),
            Self::HoltWinters => {
                Box::new(Calibrated::new(HoltWinters::new(smoothing, season), horizon))
            }
            Self::Arima => Box::new(Calibrated::new(Arima::new(), horizon)),
            Self::Prophet => Box::new(Calibrated::new(Prophet::new(), horizon)),
            Self::Lstm => Box::new(Lstm::new(horizon, seed)),
            Self::Auto => {
                let kinds = Self::ALL.into_iter().filter(|kind| *kind != Self::Auto);
                Box::new(Auto::new(kinds.map(|kind| kind.build(shape, horizon, seed)).collect()))
            }
        }
    }
}

impl fmt::Display for ForecasterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ForecasterKind {
    type Err = UnknownForecaster;

    fn from_str(text: &str) -> Result<Self, UnknownForecaster> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(UnknownForecaster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let (shape, horizon) = HeatShape::five_minutes();
        for kind in ForecasterKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(kind.build(shape, horizon, 1).kind(), kind);
        }
        assert_eq!("sarima".parse::<ForecasterKind>(), Err(UnknownForecaster));
    }
}
