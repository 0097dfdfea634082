//! What a user can set.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Predictions;

/// Which prefetcher runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefetchKind {
    /// Nothing is staged ahead.
    None,
    /// The classic one: sequential and strided streams, a doubling window.
    Readahead,
    /// The learned ranker: [`crate::online`].
    #[default]
    Learned,
}

impl PrefetchKind {
    /// All kinds, in the order of reports.
    pub const ALL: [PrefetchKind; 3] = [Self::None, Self::Readahead, Self::Learned];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Readahead => "readahead",
            Self::Learned => "learned",
        }
    }
}

impl fmt::Display for PrefetchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PrefetchKind {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(SettingsError::Kind)
    }
}

/// A setting that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No such kind.
    #[error("unknown prefetcher; choose learned, readahead or none")]
    Kind,
    /// `sequence_length` out of range.
    #[error("sequence_length must be 2 to {}", Settings::MAX_SEQUENCE)]
    SequenceLength,
    /// `prefetch_depth` out of range.
    #[error("prefetch_depth must be 1 to {}", Predictions::CAPACITY)]
    PrefetchDepth,
    /// `stage_threshold` out of range.
    #[error("stage_threshold must be a probability of 0.05 to 0.95")]
    StageThreshold,
    /// `prefetch_budget` out of range.
    #[error("prefetch_budget must be a share of 0 to 1 of the traffic")]
    PrefetchBudget,
    /// `fragment_shift` out of range.
    #[error("fragments must have 64 KiB to 16 MiB")]
    FragmentShift,
}

/// The user's settings of prediction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Crossings of a client in a row that the ranker's tower is trained on.
    pub sequence_length: usize,
    /// Fragments staged ahead of a stream, or for one request, at most.
    pub prefetch_depth: usize,
    /// Least probability at which a fragment is staged.
    pub stage_threshold: f32,
    /// Traffic to the cold devices that staging may add, as a share of what there would be
    /// without it.
    pub prefetch_budget: f32,
    /// log2 of the fragment's size in bytes, 16 to 24.
    pub fragment_shift: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sequence_length: 32,
            prefetch_depth: 4,
            stage_threshold: 0.15,
            prefetch_budget: 0.25,
            fragment_shift: 20,
        }
    }
}

impl Settings {
    /// Longest sequence.
    pub const MAX_SEQUENCE: usize = 64;

    /// Checks every range.
    ///
    /// # Errors
    /// Names the first setting out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !(2..=Self::MAX_SEQUENCE).contains(&self.sequence_length) {
            return Err(SettingsError::SequenceLength);
        }
        if !(1..=Predictions::CAPACITY).contains(&self.prefetch_depth) {
            return Err(SettingsError::PrefetchDepth);
        }
        if !(0.05..=0.95).contains(&self.stage_threshold) {
            return Err(SettingsError::StageThreshold);
        }
        if !(0.0..=1.0).contains(&self.prefetch_budget) {
            return Err(SettingsError::PrefetchBudget);
        }
        if !(16..=24).contains(&self.fragment_shift) {
            return Err(SettingsError::FragmentShift);
        }
        Ok(())
    }

    /// Time that staging one fragment from the cold tier takes: a seek of 8 ms
    /// and the transfer at 150 MB/s, the disk that the tiers are planned for.
    pub(crate) fn lead_ns(&self) -> u64 {
        8_000_000 + (1_u64 << self.fragment_shift) * 1000 / 150
    }

    /// Fragments to look ahead on a stream with this time between crossings:
    /// enough that the farthest arrives before the stream does.
    pub(crate) fn lookahead(&self, interval_ns: Option<u64>) -> usize {
        let steps = match interval_ns {
            None => 2,
            Some(interval) => 1 + self.lead_ns() / interval.max(1),
        };
        usize::try_from(steps).unwrap_or(usize::MAX).min(self.prefetch_depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_shown() {
        for kind in PrefetchKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("Learned".parse::<PrefetchKind>(), Err(SettingsError::Kind));
    }

    #[test]
    fn every_range_is_checked() {
        let good = Settings::default();
        assert_eq!(good.check(), Ok(()));
        let bad = [
            (Settings { sequence_length: 1, ..good }, SettingsError::SequenceLength),
            (Settings { prefetch_depth: 17, ..good }, SettingsError::PrefetchDepth),
            (Settings { stage_threshold: f32::NAN, ..good }, SettingsError::StageThreshold),
            (Settings { prefetch_budget: -0.1, ..good }, SettingsError::PrefetchBudget),
            (Settings { fragment_shift: 25, ..good }, SettingsError::FragmentShift),
        ];
        for (settings, error) in bad {
            assert_eq!(settings.check(), Err(error));
        }
    }

    #[test]
    fn fast_streams_look_further() {
        let settings = Settings { prefetch_depth: 8, ..Settings::default() };
        assert_eq!(settings.lookahead(Some(1_000_000_000)), 1);
        assert_eq!(settings.lookahead(Some(5_000_000)), 3);
        assert_eq!(settings.lookahead(Some(0)), 8);
        assert_eq!(settings.lookahead(None), 2);
    }
}
