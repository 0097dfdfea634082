//! The deterministic simulator: whole cores over simulated disks, one seed.
//!
//! Cores run the real composer, table, journal, catalog and recovery; only
//! disks, clock, memory and clients are simulated. The [`oracle`] knows for
//! every sector which values may be read, live, after the death of the process
//! and after a power cut. Some worlds are short of space, some have devices
//! that fail operations, in some bits rot. A run is a pure function of its seed.

mod audit;
pub mod client;
mod control;
mod faults;
pub mod oracle;
mod restart;
pub mod shared;
pub mod world;

pub use world::{Outcome, run};
