//! Units of the heat forecast: segments, bins, horizons, and their limits.
//!
//! It checks what a user may set; it counts nothing.
#![forbid(unsafe_code)]

const SECOND_NS: u64 = 1_000_000_000;
const DAY_NS: u64 = 86_400 * SECOND_NS;

/// A segment of a volume, counted from the volume's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment(u64);

impl Segment {
    /// All segments together that have no row of their own in a heatmap.
    pub const REST: Segment = Segment(u64::MAX);

    /// The segment of that number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Fragments in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSize {
    fragments: u64,
}

impl SegmentSize {
    /// A size of 1 to 65,536 fragments.
    ///
    /// # Errors
    /// If it is out of this range.
    pub fn new(fragments: u64) -> Result<Self, ShapeError> {
        let valid = (1..=1 << 16).contains(&fragments);
        valid.then_some(Self { fragments }).ok_or(ShapeError::SegmentSize)
    }

    /// The segment that holds a fragment.
    pub fn segment(self, fragment: u64) -> Segment {
        Segment(fragment / self.fragments)
    }
}

impl Default for SegmentSize {
    fn default() -> Self {
        Self { fragments: 64 }
    }
}

/// How far a forecast looks ahead, in bins of its heatmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HorizonBins(u16);

impl HorizonBins {
    /// The number of bins.
    pub const fn get(self) -> u64 {
        self.0 as u64
    }
    /// The same as a factor.
    pub fn as_f64(self) -> f64 {
        self.0.into()
    }
}

/// What a shape must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Segments out of range.
    #[error("a segment must have 1 to 65536 fragments")]
    SegmentSize,
    /// Bins out of range.
    #[error("a bin must last 1 second to 1 day")]
    BinLength,
    /// The ring out of range.
    #[error("a heatmap must keep 4 to 65536 bins")]
    RingBins,
    /// Rows out of range.
    #[error("a heatmap must have 1 to 65536 segments")]
    MaxSegments,
    /// The horizon out of range.
    #[error("the horizon must be 1 bin to a quarter of the heatmap's bins")]
    Horizon,
}

/// Resolution and bounds of a heatmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeatShape {
    bin_ns: u64,
    ring_bins: u64,
    max_segments: usize,
    size: SegmentSize,
}

impl HeatShape {
    /// A heatmap of at most `max_segments` rows, each of `ring_bins` closed bins
    /// of `bin_s` seconds.
    ///
    /// # Errors
    /// If a number is out of range.
    pub fn new(bin_s: u64, ring_bins: u64, max_segments: usize) -> Result<Self, ShapeError> {
        if !(1..=86_400).contains(&bin_s) {
            return Err(ShapeError::BinLength);
        }
        if !(4..=1 << 16).contains(&ring_bins) {
            return Err(ShapeError::RingBins);
        }
        if !(1..=1 << 16).contains(&max_segments) {
            return Err(ShapeError::MaxSegments);
        }
        let size = SegmentSize::default();
        Ok(Self { bin_ns: bin_s * SECOND_NS, ring_bins, max_segments, size })
    }

    /// For a horizon of 5 minutes: bins of 30 s, two hours of them.
    pub fn five_minutes() -> (Self, HorizonBins) {
        let shape = Self::new(30, 240, 4096).expect("in range");
        (shape, HorizonBins(10))
    }

    /// For a horizon of one hour: bins of 5 minutes, two weeks and a day of them,
    /// so that a week is seen twice.
    pub fn one_hour() -> (Self, HorizonBins) {
        let shape = Self::new(300, 15 * 288, 1024).expect("in range");
        (shape, HorizonBins(12))
    }

    /// The same with segments of another size.
    #[must_use]
    pub fn with_segments(self, size: SegmentSize) -> Self {
        Self { size, ..self }
    }

    /// The same with fewer rows, or more.
    ///
    /// # Panics
    /// If the number is out of range.
    #[must_use]
    pub fn with_max_segments(self, max_segments: usize) -> Self {
        assert!((1..=1 << 16).contains(&max_segments), "a number of rows");
        Self { max_segments, ..self }
    }

    /// A horizon that these bins can serve.
    ///
    /// # Errors
    /// If it is no bin, or more than a quarter of those kept.
    pub fn horizon(self, bins: u16) -> Result<HorizonBins, ShapeError> {
        let valid = bins > 0 && u64::from(bins) * 4 <= self.ring_bins;
        valid.then_some(HorizonBins(bins)).ok_or(ShapeError::Horizon)
    }

    /// Length of a bin.
    pub fn bin_ns(self) -> u64 {
        self.bin_ns
    }
    /// Closed bins that are kept.
    pub fn ring_bins(self) -> u64 {
        self.ring_bins
    }
    /// Rows at most, without that of the rest.
    pub fn max_segments(self) -> usize {
        self.max_segments
    }
    /// Size of a segment.
    pub fn segment_size(self) -> SegmentSize {
        self.size
    }
    /// Bins in a day: the season. `None` where bins do not divide it.
    pub fn day_bins(self) -> Option<u64> {
        DAY_NS.is_multiple_of(self.bin_ns).then_some(DAY_NS / self.bin_ns)
    }
    /// Where a bin starts in its day, 0 to 1.
    pub fn day_phase(self, bin: u64) -> f64 {
        self.phase(bin, DAY_NS)
    }
    /// Where a bin starts in its week, 0 to 1.
    pub fn week_phase(self, bin: u64) -> f64 {
        self.phase(bin, 7 * DAY_NS)
    }
    fn phase(self, bin: u64, cycle_ns: u64) -> f64 {
        let start = u128::from(bin) * u128::from(self.bin_ns) % u128::from(cycle_ns);
        start as f64 / cycle_ns as f64
    }
    /// Days that so many bins last.
    pub fn days(self, bins: u64) -> f64 {
        bins as f64 * self.bin_ns as f64 / DAY_NS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_range_is_refused() {
        assert_eq!(HeatShape::new(0, 8, 1), Err(ShapeError::BinLength));
        assert_eq!(HeatShape::new(86_401, 8, 1), Err(ShapeError::BinLength));
        assert_eq!(HeatShape::new(30, 3, 1), Err(ShapeError::RingBins));
        assert_eq!(HeatShape::new(30, 8, 0), Err(ShapeError::MaxSegments));
        assert_eq!(SegmentSize::new(0), Err(ShapeError::SegmentSize));
        let shape = HeatShape::new(30, 8, 1).unwrap();
        assert_eq!(shape.horizon(0), Err(ShapeError::Horizon));
        assert_eq!(shape.horizon(3), Err(ShapeError::Horizon));
        assert_eq!(shape.horizon(2).unwrap().get(), 2);
    }

    #[test]
    fn days_and_segments_are_found() {
        let (shape, _) = HeatShape::one_hour();
        assert_eq!(shape.day_bins(), Some(288));
        assert_eq!(HeatShape::new(7, 8, 1).unwrap().day_bins(), None);
        assert_eq!(shape.day_phase(288 * 5 + 72), 0.25);
        assert!(shape.day_phase(u64::MAX) < 1.0);
        assert_eq!(shape.segment_size().segment(127), Segment::new(1));
    }
}
