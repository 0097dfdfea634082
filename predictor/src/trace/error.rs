//! What can be wrong with a trace, and where.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where in a trace, after decompression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a text, counted from 1.
    Line(u64),
    /// First byte of a binary record, counted from 0.
    Byte(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(out, "line {line}"),
            Self::Byte(byte) => write!(out, "byte {byte}"),
        }
    }
}

/// Why a trace cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened.
    #[error("cannot open the trace {path}")]
    Open {
        /// The path as given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The medium, or the decompression, failed.
    #[error("{place}: cannot read on: {source}")]
    Read {
        /// The line or record that could not be completed.
        place: Place,
        /// Why.
        source: io::Error,
    },
    /// The input is not a trace, lost its structure, or is read strictly and has a bad line.
    #[error("{place}: {problem}")]
    Bad {
        /// The offending line or record.
        place: Place,
        /// What is wrong with it.
        problem: Problem,
    },
    /// There are lines or records, and every one is bad.
    #[error("nothing can be read, {count} bad, the first at {place}: {problem}")]
    NoneReadable {
        /// How many are bad.
        count: u64,
        /// The first of them.
        place: Place,
        /// What is wrong with it.
        problem: Problem,
    },
    /// One of several files.
    #[error("{path}: {source}")]
    File {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<TraceError>,
    },
    /// A list of no files.
    #[error("no trace is given")]
    NoFiles,
    /// Several files are merged by time, and this one has none.
    #[error("the trace has no clock to be merged by")]
    NoClock,
    /// Clocks of two formats do not compare.
    #[error("the trace has another format than those before it")]
    OtherFormat,
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

/// What is wrong with a line or a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The input has no bytes.
    #[error("the trace is empty")]
    Empty,
    /// The first line starts none of the formats.
    #[error(
        "not a trace: expected a header time_us,op,offset_bytes,size_bytes[,pid], \
         or MSR Cambridge CSV, a fio iolog, blkparse text or binary blktrace"
    )]
    UnknownFormat,
    /// Binary blktrace, of another version than 7.
    #[error("blktrace version {0} is not supported")]
    Version(u8),
    /// Where a binary record should start is no magic number.
    #[error("no blktrace record starts here: the data lost their structure")]
    LostSync,
    /// The input ends within the line or record.
    #[error("the trace is truncated: it ends within this line or record")]
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
