//! Prediction: which fragments come next, and where a volume will be hot.
//!
//! The learned ranker ([`rank`]) with its deep half ([`deep`]), the classic prefetchers it
//! must beat ([`classic`]), the laboratory that judges them on traces ([`lab`]), and the heat
//! forecast ([`heat`]).
//!
//! On the data path of a core stand only [`prefetch`] and [`online`] (with [`stream`],
//! [`rank`] and [`deep::Model`] below them) and [`ledger`]: no heap allocation, no lock, no
//! clock of their own. Training ([`deep::Trainer`]) belongs on a background thread. Nothing
//! here performs I/O but [`trace`], what is saved and loaded, and [`heat::keep`].
//!
//! A process that trains calls [`init`] before it starts its first thread.
#![deny(unsafe_code)]

mod access;
mod bins;
pub mod classic;
pub mod deep;
pub mod heat;
pub mod lab;
pub mod ledger;
mod odds;
pub mod online;
pub mod prefetch;
mod random;
pub mod rank;
mod sealed;
mod start;
pub mod stream;
pub mod trace;

pub use access::Access;
pub use sealed::SealError;
pub use start::init;
