//! Block traces: reading several text formats, writing our own.
//!
//! | format | recognised by |
//! |---|---|
//! | our CSV | header `time_us,op,offset_bytes,size_bytes[,pid]`, or `seq_no` first: no clock |
//! | MSR Cambridge CSV | seven fields, the fourth `Read` or `Write` |
//! | fio iolog v2, v3 | `fio version 2 iolog`, `fio version 3 iolog` |
//!
//! The format and zstd compression are recognised by content, never by name.
//! Reading streams in constant memory: a line has at most
//! [`MAX_LINE_BYTES`] bytes. Every line ends with a newline; a missing last one
//! tells a truncated file from a whole one. Any other input is a
//! [`TraceError`] that names the line; nothing panics.
#![forbid(unsafe_code)]

mod csv;
mod error;
mod iolog;
mod msr;
mod reader;
mod writer;

pub use error::{Problem, TraceError};
pub use reader::{MAX_LINE_BYTES, Reader, open};
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
