//! A stream of binary blktrace records: one CPU's file, or several behind each other.
//!
//! Files behind each other are read in that order, so the time goes back where one starts;
//! only as separate inputs can they be merged by it.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read};

use super::blktrace::{ByteOrder, HEADER_BYTES, Header};
use super::event::Step;
use super::{Place, Problem, TraceError};

/// The records of an input, one at a time.
pub(super) struct Binary<'a> {
    input: Box<dyn BufRead + Send + 'a>,
    order: ByteOrder,
    /// Where the next record starts.
    offset: u64,
}

impl<'a> Binary<'a> {
    pub fn new(input: Box<dyn BufRead + Send + 'a>, order: ByteOrder) -> Self {
        Self { input, order, offset: 0 }
    }

    pub fn step(&mut self) -> Result<Step, TraceError> {
        let place = Place::Byte(self.offset);
        let failed = |source| TraceError::Read { place, source };
        let mut bytes = [0; HEADER_BYTES];
        let got = fill(&mut self.input, &mut bytes).map_err(failed)?;
        if got == 0 {
            return Ok(Step::End);
        }
        self.offset += got as u64;
        if got < bytes.len() {
            return Ok(Step::Bad(place, Problem::Truncated));
        }
        let header = Header { bytes: &bytes, order: self.order };
        if !header.in_sync() {
            return Err(TraceError::Bad { place, problem: Problem::LostSync });
        }
        let payload_bytes = u64::from(header.payload_bytes());
        let mut payload = (&mut self.input).take(payload_bytes);
        let skipped = io::copy(&mut payload, &mut io::sink()).map_err(failed)?;
        self.offset += skipped;
        if skipped < payload_bytes {
            return Ok(Step::Bad(place, Problem::Truncated));
        }
        Ok(match header.event() {
            Ok(Some(event)) => Step::Event(event),
            Ok(None) => Step::Other,
            Err(problem) => Step::Bad(place, problem),
        })
    }
}

/// Reads until the buffer is full or the input ends; how much it read.
pub(super) fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
