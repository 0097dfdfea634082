//! The learned ranker: cheap proposers say what may come, learning says which of it will.
//!
//! At each crossing of a client ([`Ranker::touch`]) the proposers ([`candidates`]) pool
//! fragments that are not resident: neighbours, the walk's strides, what followed the
//! fragment or the last two before, what was near it in time, what the last eight vote for,
//! and what came after it the last two times. A logistic model over one-hot features
//! ([`features`], [`wide`]) gives each the probability that it is touched within the
//! residency of the tier, and learns from what then happens ([`samples`]), whether the
//! candidate was staged or not: nothing has to be tried out to learn from it. The
//! [`Budget`] says from which probability on staging is worth its traffic.
//!
//! Beside it may stand a tower ([`crate::deep`]), which knows what the client did before:
//! once it is trained, both log-odds are mixed.
//!
//! The model is the "wide" half of Cheng et al., "Wide & Deep Learning" (2016), with
//! AdaGrad steps (Duchi et al., 2011) and success rates of past candidates as features.
//!
//! Invariants: no allocation after construction, all tables bounded ([`Ranker::bytes`]);
//! strictly prequential (a sample is scored before its outcome is learned); equal inputs
//! give equal outputs. It performs no I/O and does not know what staging costs.
#![forbid(unsafe_code)]

mod budget;
mod candidates;
mod clients;
mod features;
mod followers;
mod history;
mod key;
mod log;
mod models;
mod part;
mod ranker;
mod rates;
mod samples;
mod saved;
mod tower;
mod walks;
mod wide;

pub use budget::Budget;
pub use candidates::{SOURCES, source_names};
pub use part::Part;
pub use ranker::{Asked, Crossing, Ranked, Ranker};
pub use saved::{Model, Owner, Saved};
