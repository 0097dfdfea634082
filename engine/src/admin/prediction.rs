//! What admin requests about prediction answer.

use serde::{Deserialize, Serialize};

use predictor::online::Change;

use super::protocol::PrefetchKind;

/// Settings of prediction in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PredictorSettings {
    /// Stages for one request at most.
    pub prefetch_depth: usize,
    /// Least probability that is ever staged.
    pub stage_threshold: f32,
    /// Extra traffic that staging may cause, as a share.
    pub prefetch_budget: f32,
    /// Crossings of a client that a network is trained on in a row.
    pub sequence_length: usize,
}

/// What prediction has done since the server's start, all cores together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PredictorReport {
    /// Who decides.
    pub prefetch: PrefetchKind,
    /// The settings in force.
    pub settings: PredictorSettings,
    /// Stages made.
    pub staged: u64,
    /// Reads served from a stage that was ready.
    pub hits: u64,
    /// Reads that waited for a stage under way.
    pub late: u64,
    /// Stages dropped unused.
    pub wasted: u64,
    /// Reads that waited for a cold device.
    pub misses: u64,
    /// Times that a client came to another fragment.
    pub crossings: u64,
    /// Of these, at how many nothing was predicted, for prediction had its share of the core.
    pub unranked: u64,
    /// Of these, how many were not even followed.
    pub unseen: u64,
    /// Predictions that there was nothing to stage for.
    pub needless: u64,
    /// Predictions that there was no room for.
    pub refused: u64,
    /// Stages that were not there when they were needed.
    pub lost: u64,
    /// Probability that a fragment must have now.
    pub threshold: f32,
    /// Fragments fetched beyond what would have been without prediction.
    pub extra_fragments: i64,
    /// Fragments that would have been missed without it.
    pub misses_without: u64,
    /// Clients with a model of their own.
    pub client_models: u64,
    /// Models of all cores that won against one core's.
    pub models_won: u64,
    /// Models of the tower that won against the one before.
    pub towers_won: u64,
    /// Crossings that its training had no room for.
    pub untaught: u64,
    /// What the server has changed by itself, newest first.
    pub changes: Vec<ChangeReport>,
    /// Who proposes, and with what success.
    pub proposers: Vec<SourceReport>,
}

/// A setting that the server has changed by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeReport {
    /// How long ago.
    pub age_s: u64,
    /// What and why.
    #[serde(flatten)]
    pub change: Change,
}

/// Stages that a proposer had a part in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// Stages asked for.
    pub staged: u64,
    /// Those that were used.
    pub used: u64,
}

/// Why a fragment was staged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReasonReport {
    /// How long ago.
    pub age_ms: u64,
    /// Whose pattern it was, as a hash of the name.
    pub client: String,
    /// Where the client was.
    pub trigger_volume: String,
    /// First byte of the fragment that it had come to.
    pub trigger_byte: u64,
    /// First byte of the fragment staged.
    pub staged_byte: u64,
    /// Probability that it is read in time.
    pub probability: f32,
    /// What that had to reach.
    pub threshold: f32,
    /// Who proposed it.
    pub proposers: Vec<String>,
}

/// A trace learned from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StudyReport {
    /// Requests learned from.
    pub requests: u64,
    /// Lines that were none.
    pub skipped: u64,
}
