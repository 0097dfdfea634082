//! Requests per segment and time bin, in bounded memory.
//!
//! Each segment that is asked for gets a row: a ring of closed bins and the one
//! that is open. Bins are numbered from time zero, so that a bin's number tells
//! the time of day. When all rows are taken, a row that was idle for its whole
//! ring is given to the newcomer; while there is none, the newcomer is counted
//! in the row of the rest, which always exists and is row 0.
//!
//! Invariants: `ring[bin % length]` holds `bin` for the newest `length` bins; a
//! row's bins before its first request are zero, as they were in truth; the
//! totals of a bin are the sum over its rows.
//!
//! A request that comes late counts in the open bin: closed bins never change.
//! Time that leaps beyond the ring empties it. It forecasts nothing.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::{HeatShape, Segment};
use crate::Access;

/// Requests of one segment in one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u32,
    /// Writes.
    pub writes: u32,
}

impl Counts {
    /// Both together.
    pub fn total(self) -> f64 {
        f64::from(self.reads) + f64::from(self.writes)
    }

    fn add(&mut self, write: bool, requests: u32) {
        let count = if write { &mut self.writes } else { &mut self.reads };
        *count = count.saturating_add(requests);
    }
}

#[derive(Clone, Debug)]
struct Row {
    segment: Segment,
    /// The bin of its newest request.
    touched: u64,
    ring: Vec<Counts>,
}

/// The binned requests of one volume.
#[derive(Clone, Debug)]
pub struct Heatmap {
    shape: HeatShape,
    rows: Vec<Row>,
    index: HashMap<Segment, usize>,
    /// Rows that may be given away.
    idle: Vec<usize>,
    /// Requests of all rows, a ring like theirs.
    totals: Vec<f64>,
    /// The first bin and the open one; `None` before any time is known.
    span: Option<(u64, u64)>,
}

impl Heatmap {
    /// A heatmap that has counted nothing.
    pub fn new(shape: HeatShape) -> Self {
        let length = Self::length(shape);
        let rest =
            Row { segment: Segment::REST, touched: 0, ring: vec![Counts::default(); length] };
        let totals = vec![0.0; length];
        let index = HashMap::from([(Segment::REST, 0)]);
        Self { shape, rows: vec![rest], index, idle: Vec::new(), totals, span: None }
    }

    fn length(shape: HeatShape) -> usize {
        usize::try_from(shape.ring_bins()).expect("at most 65536") + 1
    }

    /// Counts requests of a segment at a time.
    pub fn record(&mut self, time_ns: u64, segment: Segment, write: bool, requests: u32) {
        self.advance(time_ns);
        let (_, open) = self.span.expect("advanced");
        let row = self.row_for(segment);
        let slot = self.slot(open);
        self.rows[row].touched = open;
        let counts = &mut self.rows[row].ring[slot];
        let before = counts.total();
        counts.add(write, requests);
        self.totals[slot] += counts.total() - before;
    }

    /// Counts an access once in each segment that it touches, at most 64 of them.
    pub fn record_access(&mut self, access: &Access) {
        let size = self.shape.segment_size();
        let first = size.segment(access.fragment).get();
        let last = size.segment(access.last_fragment).get();
        for segment in (first..=last).take(64) {
            self.record(access.time_ns, Segment::new(segment), access.write, 1);
        }
    }

    /// Closes the bins that ended before this time.
    pub fn advance(&mut self, time_ns: u64) {
        let bin = time_ns / self.shape.bin_ns();
        let Some((first, open)) = self.span else {
            self.span = Some((bin, bin));
            return;
        };
        if bin <= open {
            return;
        }
        self.span = Some((first, bin));
        for fresh in bin.saturating_sub(self.shape.ring_bins()).max(open + 1)..=bin {
            let slot = self.slot(fresh);
            self.totals[slot] = 0.0;
            self.rows.iter_mut().for_each(|row| row.ring[slot] = Counts::default());
        }
        self.idle.clear();
        if self.rows.len() > self.shape.max_segments() {
            let oldest = self.oldest();
            let idle = (1..self.rows.len()).filter(|row| self.rows[*row].touched < oldest);
            self.idle = idle.collect();
        }
    }

    fn row_for(&mut self, segment: Segment) -> usize {
        if let Some(row) = self.index.get(&segment) {
            return *row;
        }
        let row = self.rows.len();
        if row <= self.shape.max_segments() {
            let ring = vec![Counts::default(); self.totals.len()];
            self.rows.push(Row { segment, touched: 0, ring });
            self.index.insert(segment, row);
            return row;
        }
        let oldest = self.oldest();
        while let Some(row) = self.idle.pop() {
            // It may have been asked for since it was found idle.
            if self.rows[row].touched < oldest {
                self.index.remove(&self.rows[row].segment);
                self.index.insert(segment, row);
                self.rows[row].segment = segment;
                return row;
            }
        }
        0
    }

    fn slot(&self, bin: u64) -> usize {
        let length = self.totals.len() as u64;
        usize::try_from(bin % length).expect("below the ring's length")
    }

    /// Resolution and bounds.
    pub fn shape(&self) -> HeatShape {
        self.shape
    }
    /// Rows, that of the rest included: rows are numbered below this.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }
    /// Whose row it is.
    pub fn segment(&self, row: usize) -> Segment {
        self.rows[row].segment
    }
    /// The row of a segment.
    pub fn row(&self, segment: Segment) -> Option<usize> {
        self.index.get(&segment).copied()
    }
    /// The bin that still counts; those before it are closed. 0 before any time
    /// is known.
    pub fn open(&self) -> u64 {
        self.span.map_or(0, |(_, open)| open)
    }
    /// The first closed bin that is kept; equals [`Heatmap::open`] if none is.
    pub fn oldest(&self) -> u64 {
        self.span.map_or(0, |(first, open)| open.saturating_sub(self.shape.ring_bins()).max(first))
    }
    /// Closed bins that are kept.
    pub fn closed_bins(&self) -> u64 {
        self.open() - self.oldest()
    }

    /// What a row counted in a bin; nothing outside the bins kept.
    pub fn counts(&self, row: usize, bin: u64) -> Counts {
        let kept = self.span.is_some() && (self.oldest()..=self.open()).contains(&bin);
        if kept { self.rows[row].ring[self.slot(bin)] } else { Counts::default() }
    }

    /// Reads and writes of a row in a bin.
    pub fn total(&self, row: usize, bin: u64) -> f64 {
        self.counts(row, bin).total()
    }

    /// Reads and writes of a row over bins.
    pub fn sum(&self, row: usize, bins: std::ops::Range<u64>) -> f64 {
        bins.map(|bin| self.total(row, bin)).sum()
    }

    /// Reads and writes of all rows in a bin.
    pub fn volume_total(&self, bin: u64) -> f64 {
        let kept = self.span.is_some() && (self.oldest()..=self.open()).contains(&bin);
        if kept { self.totals[self.slot(bin)] } else { 0.0 }
    }

    /// The newest closed bins of a row, at most `most`, the oldest first.
    pub fn history(&self, row: usize, most: u64) -> impl Iterator<Item = f64> {
        let start = self.open().saturating_sub(most).max(self.oldest());
        (start..self.open()).map(move |bin| self.total(row, bin))
    }

    /// The same requests in longer bins; nothing if these do not divide those.
    #[must_use]
    pub fn rebinned(&self, shape: HeatShape) -> Self {
        let mut longer = Self::new(shape);
        if self.span.is_none() || !shape.bin_ns().is_multiple_of(self.shape.bin_ns()) {
            return longer;
        }
        for bin in self.oldest()..=self.open() {
            let time_ns = bin.saturating_mul(self.shape.bin_ns());
            longer.advance(time_ns);
            for row in 0..self.rows() {
                let Counts { reads, writes } = self.counts(row, bin);
                for (write, requests) in [(false, reads), (true, writes)] {
                    if requests > 0 {
                        longer.record(time_ns, self.segment(row), write, requests);
                    }
                }
            }
        }
        longer
    }

    /// Bytes that the counts occupy.
    pub fn memory_bytes(&self) -> usize {
        self.totals.len() * (self.rows.len() * size_of::<Counts>() + size_of::<f64>())
    }

    /// Bytes that they can ever occupy.
    pub fn memory_bound_bytes(shape: HeatShape) -> usize {
        let rows = shape.max_segments() + 1;
        Self::length(shape) * (rows * size_of::<Counts>() + size_of::<f64>())
    }
}

#[cfg(test)]
#[path = "bins_tests.rs"]
mod tests;
