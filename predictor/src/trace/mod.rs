//! Block traces: reading several formats, writing our own.
//!
//! | format | recognised by |
//! |---|---|
//! | our CSV | header `time_us,op,offset_bytes,size_bytes[,pid]`, or `seq_no` first: no clock |
//! | MSR Cambridge CSV | seven fields, the fourth `Read` or `Write` |
//! | fio iolog v2, v3 | `fio version 2 iolog`, `fio version 3 iolog` |
//! | blkparse text | a first line of its default format, or `Input file … added` |
//! | binary blktrace | magic 0x65617407 in either byte order |
//!
//! The format and zstd compression are recognised by content, never by name.
//!
//! ```text
//! input → zstd → lines → csv, msr, iolog, blkparse ┐
//!              → records of blktrace ──────────────┴ events → merge → select → records
//! ```
//!
//! Reading streams in bounded memory: a line has at most [`MAX_LINE_BYTES`] bytes, of each
//! of several files one event is held, and of traces that see a request at several stages a
//! bounded number until the stage is chosen. Every line ends with a newline; a missing last
//! one tells a truncated file from a whole one.
//!
//! Bad lines and records are counted, reported with their place and passed over
//! ([`Reader::skipped`]), or are errors to a [`Reader::strict`] one. An unknown format, a
//! trace of bad lines only, and binary data that lost their structure are a [`TraceError`]
//! always; nothing panics. Devices, volumes and files within a trace are not told apart.
#![forbid(unsafe_code)]

mod binary;
mod blkparse;
mod blktrace;
mod csv;
mod error;
mod event;
mod iolog;
mod lines;
mod merge;
mod msr;
mod reader;
mod select;
mod skipped;
mod source;
mod text;
mod writer;

pub use error::{Place, Problem, TraceError};
pub use lines::MAX_LINE_BYTES;
pub use reader::{Reader, open, open_all};
pub use skipped::{Skip, Skipped};
pub use writer::Writer;

/// Direction of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A read.
    Read,
    /// A write.
    Write,
}

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Microseconds since an arbitrary start; `None` if the trace has no clock.
    pub time_us: Option<u64>,
    /// Read or write.
    pub op: Op,
    /// First byte; `offset_bytes + size_bytes` does not overflow.
    pub offset_bytes: u64,
    /// Length in bytes, at least 1.
    pub size_bytes: u32,
    /// Process id of who asked, 0 if unknown.
    pub client: u32,
}
