//! The deep half of the ranker: an LSTM over a client's crossings meets the candidates.
//!
//! The *encoder* reads one crossing at a time ([`ContextRows`]) and keeps a [`State`] for each
//! client. What it remembers becomes a [`View`], which gives each candidate
//! ([`CandidateRows`]) its log-odds:
//!
//! ```text
//! view  = bias + M·h          two halves of 16: u and q
//! e     = sum of the candidate's rows, two halves of 16: a and b
//! odds  = v·relu(a + u) + b·q
//! ```
//!
//! All inputs are one-hot, so that their products with a matrix are sums of its rows. On a
//! core stand [`Model`] and [`Window`]: no heap allocation, no lock, no clock. A [`Window`]
//! keeps crossings until their candidates' outcomes are known; then they go to the
//! [`Trainer`], which learns on a background thread, by the same network in candle, from
//! windows of a bounded [`Replay`], and hands out models.
//!
//! Invariants: a model that runs has finite weights only; equal seeds and inputs give equal
//! models. It does not know fragments, volumes or tiers: what is seen of them comes in bins
//! ([`Context`], [`Candidate`]).
#![forbid(unsafe_code)]

mod activation;
mod inference;
mod inputs;
mod layout;
mod model;
mod network;
mod replay;
mod rows;
mod trainer;
mod window;

pub use inference::{State, View};
pub use inputs::{Candidate, CandidateRows, Context, ContextRows};
pub use layout::{CANDIDATES, HIDDEN};
pub use model::Model;
pub use replay::Replay;
pub use trainer::{TrainError, Trainer};
pub use window::{Crossing, Tag, Window};
