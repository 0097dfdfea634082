//! Lines of bounded length.
//!
//! A line that is too long is passed over to its end without being kept.
#![forbid(unsafe_code)]

use std::io::{BufRead, Read};

use super::{Place, Problem, TraceError};

/// Longest line that is accepted, its newline included.
pub const MAX_LINE_BYTES: usize = 4096;

/// The lines of an input, one at a time.
pub(super) struct Lines<'a> {
    input: Box<dyn BufRead + Send + 'a>,
    buffer: Vec<u8>,
    number: u64,
}

impl<'a> Lines<'a> {
    pub fn new(input: Box<dyn BufRead + Send + 'a>) -> Self {
        Self { input, buffer: Vec::with_capacity(256), number: 0 }
    }

    /// Goes to the next line; `None` at the end of the input.
    pub fn advance(&mut self) -> Result<Option<Result<(), Problem>>, TraceError> {
        self.buffer.clear();
        self.number += 1;
        let place = self.place();
        let failed = |source| TraceError::Read { place, source };
        let mut limited = (&mut self.input).take(MAX_LINE_BYTES as u64);
        let read = limited.read_until(b'\n', &mut self.buffer).map_err(failed)?;
        if read == 0 {
            return Ok(None);
        }
        if self.buffer.pop_if(|last| *last == b'\n').is_some() {
            self.buffer.pop_if(|last| *last == b'\r');
            return Ok(Some(Ok(())));
        }
        if read < MAX_LINE_BYTES {
            return Ok(Some(Err(Problem::Truncated)));
        }
        self.input.skip_until(b'\n').map_err(failed)?;
        Ok(Some(Err(Problem::TooLong)))
    }

    /// The current line without its end.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    pub fn place(&self) -> Place {
        Place::Line(self.number)
    }
}
