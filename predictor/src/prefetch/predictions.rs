//! A fixed list of proposals.
#![forbid(unsafe_code)]

/// A fragment that is expected to be read soon.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// The volume.
    pub volume: u32,
    /// The fragment's number in it; may lie past the volume's end.
    pub fragment: u64,
    /// Estimated probability, 0 to 1.
    pub score: f32,
}

/// Up to [`Predictions::CAPACITY`] proposals, without a heap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Predictions {
    items: [Prediction; Self::CAPACITY],
    len: usize,
}

impl Predictions {
    /// Most proposals of one access.
    pub const CAPACITY: usize = 16;

    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }
    /// The proposals, most urgent first.
    pub fn as_slice(&self) -> &[Prediction] {
        &self.items[..self.len]
    }
    /// True without proposals.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Removes all.
    pub fn clear(&mut self) {
        self.len = 0;
    }
    /// Keeps the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
    /// Appends unless full or already proposed.
    pub(crate) fn push(&mut self, prediction: Prediction) {
        let same =
            |p: &Prediction| p.volume == prediction.volume && p.fragment == prediction.fragment;
        if self.len < Self::CAPACITY && !self.as_slice().iter().any(same) {
            self.items[self.len] = prediction;
            self.len += 1;
        }
    }
}
