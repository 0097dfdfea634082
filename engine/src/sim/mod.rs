//! The deterministic simulator: whole cores over simulated disks, one seed.
//!
//! Cores run the real composer, table, journal and recovery; only disks,
//! clock, memory and clients are simulated. The [`oracle`] knows for every
//! sector which values may be read, live, after the death of the process and
//! after a power cut. A run is a pure function of its seed.

pub mod client;
pub mod oracle;
pub mod shared;
pub mod world;

pub use world::{Outcome, run};
