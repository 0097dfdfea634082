//! From completed to durable: the pending log, group commit, checkpoints and
//! recovery of one table.
//!
//! A change is a record. It is first appended to the *pending log*, shared
//! memory that outlives the process; a commit makes the log's bytes one
//! journal group; a checkpoint makes the journal short; recovery reads
//! checkpoint, journal and pending log, in that order.

pub mod chain;
mod end_mark;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod io;
pub mod log;
pub mod parts;
mod reader;
pub mod recover;
#[cfg(test)]
mod recover_tests;
pub mod shm;
pub mod state;
