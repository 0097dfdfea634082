//! The heat forecast: how many requests each part of a volume will get.
//!
//! A volume is divided into segments, runs of 64 fragments unless set
//! otherwise. [`Heatmap`] counts requests per segment and time bin in bounded
//! memory; a [`Forecaster`] reads it and says, for a horizon of some bins, how
//! many requests each segment is expected to get, with quantiles. Normalised,
//! this is a probability distribution over the volume's segments, which
//! tiering, splits and migration act upon. [`evaluate`] judges any forecaster
//! on what follows what it has seen, never on what it learned from.
//!
//! | kind | model |
//! |---|---|
//! | `ewma` | exponentially weighted mean |
//! | `seasonal-naive` | the same hour yesterday |
//! | `holt-winters` | level, damped trend, additive season |
//! | `arima` | small ARIMA by Hannan–Rissanen, order by AIC |
//! | `prophet` | piecewise-linear trend and Fourier seasons |
//! | `lstm` | one recurrent network over all segments, quantile heads |
//! | `auto` | whichever of these was best lately |
//!
//! Everything here belongs on a background thread: it allocates, and candle is
//! called. It has no clock: time comes with the requests. Only [`keep`] performs
//! I/O. It decides nothing: what moves is the tiering's matter, for which
//! [`worth`] compares fragments.
#![forbid(unsafe_code)]

mod arima;
mod arma;
mod auto;
mod bins;
mod dense;
mod ewma;
mod forecast;
mod holt_winters;
mod horizon;
mod judge;
pub mod keep;
mod kind;
mod lstm;
mod pending;
mod point;
#[cfg(test)]
mod properties;
mod prophet;
mod rows;
mod seasonal_naive;
mod shape;
mod spread;
pub mod synthetic;
pub mod worth;

pub use arima::Arima;
pub use auto::Auto;
pub use bins::{Counts, Heatmap};
pub use ewma::Ewma;
pub use forecast::{Forecast, ForecastError, Forecaster, LEVELS, SegmentForecast};
pub use holt_winters::{HoltWinters, Smoothing};
pub use horizon::{BadHorizon, Horizon};
pub use judge::{Arrival, Scores, evaluate, pinball, recall};
pub use kind::{ForecasterKind, UnknownForecaster};
pub use lstm::{Lstm, LstmWeights};
pub use point::{Calibrated, PointModel};
pub use prophet::Prophet;
pub use seasonal_naive::SeasonalNaive;
pub use shape::{HeatShape, HorizonBins, Segment, SegmentSize, ShapeError};
