//! The LSTM over fragment deltas: vocabulary, weights, inference, training.
//!
//! A stream's deltas become classes ([`Vocabulary`]); the network reads one
//! class per crossing and says how likely each class comes next. The model is
//! candle's own LSTM over one-hot classes with a linear head, trained by
//! [`Trainer`] on a background thread. One-hot inputs make the product of
//! input and weights a row of a table, so [`Weights`] hold the model exactly as
//! [`Inference`] runs it on a core: a gate table, the transposed recurrent
//! matrix, the head. [`Inference`] is plain loops, allocates nothing and agrees
//! with candle within 1e-4 (tested).
//!
//! The end of a stream is learned as [`Vocabulary::OTHER`]: what does not
//! continue must not be staged.
//!
//! candle is called only by [`Trainer`]; see [`crate::init`].
#![forbid(unsafe_code)]

mod chunk;
mod inference;
mod judge;
mod layout;
mod model;
mod trainer;
mod vocabulary;
mod weights;
mod window;

pub use inference::{Inference, State};
pub(crate) use inference::{sigmoid, tanh};
pub use judge::Score;
pub use layout::LayoutError;
pub use trainer::{Budget, TrainError, TrainReport, Trainer};
pub use vocabulary::Vocabulary;
pub use weights::Weights;

/// Most classes of a vocabulary.
pub const MAX_CLASSES: usize = 128;
/// Most hidden units.
pub const MAX_HIDDEN: usize = 64;
/// Classes of a newly learned vocabulary.
pub const CLASSES: usize = 64;
/// Hidden units of a new model.
pub const HIDDEN: usize = 32;
