//! The heat of a volume: requests per segment and time bin.
//!
//! A volume is divided into segments, runs of 64 fragments unless set
//! otherwise. [`Heatmap`] counts requests per segment and time bin in bounded
//! memory. It belongs on a background thread: it allocates. It performs no I/O
//! and has no clock: time comes with the requests.
#![forbid(unsafe_code)]

mod bins;
mod shape;

pub use bins::{Counts, Heatmap};
pub use shape::{HeatShape, HorizonBins, Segment, SegmentSize, ShapeError};
