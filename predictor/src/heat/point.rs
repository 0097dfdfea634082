//! From an expectation to a forecast: what the classic models share.
//!
//! A [`PointModel`] says how many requests it expects of a row; [`Calibrated`]
//! feeds it the closed bins, adds quantiles from the errors of its own past
//! forecasts, and answers as a [`Forecaster`]. It learns the quantiles of those
//! forecasts that were asked for, when their bins are closed.
#![forbid(unsafe_code)]

use super::forecast::sane;
use super::pending::Pending;
use super::spread::Spread;
use super::{Forecast, ForecastError, Forecaster, ForecasterKind, Heatmap, HorizonBins};

/// A model of the expectation alone.
pub trait PointModel: Send {
    /// Which model it is.
    fn kind(&self) -> ForecasterKind;

    /// Takes a newly closed bin of all rows. Bins come in order; after a leap in
    /// time some are missing.
    fn update(&mut self, heat: &Heatmap, bin: u64);

    /// What is expected of a row from the open bin on. Rows are asked in turn
    /// from 0. The answer may be any number; it is made sound by the caller.
    fn expect(&mut self, heat: &Heatmap, row: usize, horizon: HorizonBins) -> f64;
}

/// A point model with learned quantiles.
#[derive(Clone, Debug)]
pub struct Calibrated<M> {
    model: M,
    horizon: HorizonBins,
    /// The first bin not yet given to the model.
    next: u64,
    pending: Pending<()>,
    spread: Spread,
}

impl<M: PointModel> Calibrated<M> {
    /// A forecaster for that horizon.
    pub fn new(model: M, horizon: HorizonBins) -> Self {
        Self { model, horizon, next: 0, pending: Pending::new(), spread: Spread::new() }
    }
}

impl<M: PointModel> Forecaster for Calibrated<M> {
    fn kind(&self) -> ForecasterKind {
        self.model.kind()
    }

    fn update(&mut self, heat: &Heatmap) -> Result<(), ForecastError> {
        for bin in self.next.max(heat.oldest())..heat.open() {
            self.model.update(heat, bin);
        }
        self.next = heat.open();
        while let Some((forecast, ())) = self.pending.pop_due(heat) {
            self.spread.fade();
            for segment in forecast.segments() {
                if let Some(row) = heat.row(segment.segment) {
                    self.spread.observe(segment.expected, heat.sum(row, forecast.bins()));
                }
            }
        }
        Ok(())
    }

    fn forecast(&mut self, heat: &Heatmap) -> Result<Forecast, ForecastError> {
        let rows = (0..heat.rows()).map(|row| {
            let expected = sane(self.model.expect(heat, row, self.horizon));
            (expected, self.spread.quantiles(expected))
        });
        let forecast = Forecast::new(heat, self.horizon, rows);
        self.pending.push(forecast.clone(), ());
        Ok(forecast)
    }
}
