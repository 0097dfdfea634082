//! Forecasts that wait for what they spoke of.
//!
//! The oldest are dropped beyond a bound: a forecaster that is asked more often
//! than once a bin learns from its last answers only.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::{Forecast, Heatmap};

const MOST: usize = 32;

#[derive(Clone, Debug, Default)]
pub(super) struct Pending<T> {
    queue: VecDeque<(Forecast, T)>,
}

impl<T> Pending<T> {
    pub fn new() -> Self {
        Self { queue: VecDeque::new() }
    }

    /// Keeps a forecast with what belongs to it.
    pub fn push(&mut self, forecast: Forecast, with: T) {
        if self.queue.len() == MOST {
            self.queue.pop_front();
        }
        self.queue.push_back((forecast, with));
    }

    /// The next forecast whose bins are all closed and still kept.
    pub fn pop_due(&mut self, heat: &Heatmap) -> Option<(Forecast, T)> {
        loop {
            let bins = self.queue.front()?.0.bins();
            if bins.end > heat.open() {
                return None;
            }
            let due = self.queue.pop_front();
            if bins.start >= heat.oldest() {
                return due;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heat::{HeatShape, Segment};

    #[test]
    fn what_is_due_comes_in_order_and_the_queue_is_bounded() {
        let shape = HeatShape::new(1, 200, 1).unwrap();
        let horizon = shape.horizon(3).unwrap();
        let mut heat = Heatmap::new(shape);
        let mut pending = Pending::new();
        for bin in 0..100 {
            heat.record(bin * shape.bin_ns(), Segment::new(1), false, 1);
            let rows = (0..heat.rows()).map(|_| (0.0, [0.0; 3]));
            pending.push(Forecast::new(&heat, horizon, rows), bin);
        }
        // The newest 32 of 100; those made at bins up to 96 end before bin 99.
        let due: Vec<u64> = std::iter::from_fn(|| pending.pop_due(&heat)).map(|(_, b)| b).collect();
        assert_eq!(due, (68..=96).collect::<Vec<_>>());
        heat.advance(1000 * shape.bin_ns());
        assert!(pending.pop_due(&heat).is_none(), "what they spoke of is no longer kept");
    }
}
