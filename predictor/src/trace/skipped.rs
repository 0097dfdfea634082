//! Account of what a reader passed over.
//!
//! It counts all and remembers the first few: enough to tell a damaged line from the
//! wrong file, in constant memory.
#![forbid(unsafe_code)]

use super::{Place, Problem, TraceError};

/// Most places that are remembered.
const REMEMBERED: usize = 8;

/// One bad line or record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Index among the files that were given, 0 if there is one.
    pub file: usize,
    /// Where in the file.
    pub place: Place,
    /// What is wrong.
    pub problem: Problem,
}

/// The bad lines or records that were passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The first eight in the order of reading.
    pub first: Vec<Skip>,
}

/// What happens to bad lines: counted, or the end.
#[derive(Debug, Default)]
pub(super) struct Tolerance {
    pub strict: bool,
    pub skipped: Skipped,
}

impl Tolerance {
    /// Takes note of a bad line or record; its error if none is tolerated.
    pub fn reject(&mut self, skip: Skip) -> Result<(), TraceError> {
        let Skip { place, problem, .. } = skip;
        if self.strict {
            return Err(TraceError::Bad { place, problem });
        }
        self.skipped.count += 1;
        if self.skipped.first.len() < REMEMBERED {
            self.skipped.first.push(skip);
        }
        Ok(())
    }
}
