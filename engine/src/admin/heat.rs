//! What the admin protocol says of heat.
//!
//! Fields are only ever added, with a default, as in [`super::report`].

use serde::{Deserialize, Serialize};

pub use predictor::heat::{ForecasterKind, Horizon};

/// How hot a volume is and is expected to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeatReport {
    /// The volume's name.
    pub volume: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// The forecaster that was asked for.
    pub forecaster: ForecasterKind,
    /// The one that made the forecast: another only if `auto` was asked for.
    pub chosen: Option<ForecasterKind>,
    /// How far the forecast looks ahead.
    pub horizon: Horizon,
    /// Seconds of a bin.
    pub bin_s: u64,
    /// Closed bins that are kept.
    pub bins: u64,
    /// Seconds since the forecast was made; absent while there is none.
    pub forecast_age_s: Option<u64>,
    /// Whether the cores spill by forecasts.
    pub tiering: bool,
    /// Seconds that the requests of `recent` took to come: a horizon, if so much is known.
    pub recent_s: u64,
    /// Segments that had requests or are expected to, ascending.
    pub segments: Vec<SegmentReport>,
    /// All other segments together.
    pub other: SegmentReport,
    /// Requests to any volume that found no room to be counted.
    pub lost: u64,
    /// Heat over time; only if it was asked for.
    pub map: Option<HeatMapReport>,
}

/// How hot a segment is and is expected to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SegmentReport {
    /// Its first byte.
    pub offset_bytes: u64,
    /// Reads of late; a long request counts once for each 256 KiB.
    pub reads: u64,
    /// Writes of late.
    pub writes: u64,
    /// Requests per second of late.
    pub per_s: f64,
    /// Requests per second that are expected on average over the horizon.
    pub expected_per_s: f64,
    /// Requests per second that are not exceeded with probability 0.1, 0.5 and 0.9.
    pub quantiles_per_s: [f64; 3],
    /// How likely a request within the horizon goes here.
    pub probability: f64,
}

/// Requests of groups of segments over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeatMapReport {
    /// When the first column begins, in seconds since 1970, UTC.
    pub start_unix_s: u64,
    /// Seconds of a column.
    pub column_s: u64,
    /// First byte of the first row.
    pub offset_bytes: u64,
    /// Bytes of a row.
    pub row_bytes: u64,
    /// Requests of each row, in ascending order of addresses, in each column; the last column
    /// is not over yet.
    pub rows: Vec<Vec<u64>>,
}
