//! What can be wrong with a trace.
#![forbid(unsafe_code)]

use std::io;

/// Why a trace cannot be opened, read or written. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened.
    #[error("cannot open the trace {path}")]
    Open {
        /// The path as given.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The medium, or the decompression, failed.
    #[error("line {line}: cannot read on: {source}")]
    Read {
        /// The line that could not be completed.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// The text is not a trace.
    #[error("line {line}: {problem}")]
    Line {
        /// The offending line.
        line: u64,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The trace cannot be written.
    #[error("cannot write the trace: {0}")]
    Write(#[source] io::Error),
    /// Records with and without a clock cannot share a file.
    #[error("record {record} {} a time, unlike those before it", if *.has_time { "has" } else { "lacks" })]
    MixedClock {
        /// The record, counted from 1.
        record: u64,
        /// Whether it has a time.
        has_time: bool,
    },
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The input has no bytes.
    #[error("the trace is empty")]
    Empty,
    /// The first line starts none of the formats.
    #[error("not a trace: expected a header time_us,op,offset_bytes,size_bytes[,pid]")]
    UnknownFormat,
    /// The input ends within the line.
    #[error("the trace is truncated: it ends within this line")]
    Truncated,
    /// Longer than [`crate::trace::MAX_LINE_BYTES`].
    #[error("the line is too long")]
    TooLong,
    /// Not UTF-8.
    #[error("the line is not text")]
    NotText,
    /// Too few or too many fields.
    #[error("expected {want} fields, found {got}")]
    Fields {
        /// Fields of the format.
        want: usize,
        /// Fields of the line.
        got: usize,
    },
    /// A field is no decimal number, or too large.
    #[error("field {0} is not a number in range")]
    Number(&'static str),
    /// The operation is not known.
    #[error("field op is not a known operation")]
    Operation,
    /// A request of no bytes.
    #[error("the request has no bytes")]
    ZeroSize,
    /// `offset + size` exceeds 64 bits.
    #[error("the request ends beyond 2^64 bytes")]
    PastEnd,
}
