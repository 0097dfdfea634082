//! Writer of our CSV, optionally compressed.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::{Op, Record, TraceError};

/// zstd level: a trace of a million requests still takes below a second.
const LEVEL: i32 = 9;

enum Sink<W: Write> {
    Plain(W),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.write(bytes),
            Self::Zstd(inner) => inner.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(inner) => inner.flush(),
            Self::Zstd(inner) => inner.flush(),
        }
    }
}

/// Writes records as our CSV. The first record decides whether the file has a
/// clock. [`Writer::finish`] must be called: a file without its end reads as
/// truncated.
pub struct Writer<W: Write> {
    sink: Sink<W>,
    clock: Option<bool>,
    records: u64,
}

impl Writer<BufWriter<File>> {
    /// Creates (or replaces) a file; compressed if its name ends in `.zst`.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(path: &Path) -> Result<Self, TraceError> {
        let file = File::create(path)
            .map_err(|source| TraceError::Open { path: path.to_owned(), source })?;
        let zst = path.extension().is_some_and(|extension| extension == "zst");
        Self::new(BufWriter::new(file), zst)
    }
}

impl<W: Write> Writer<W> {
    /// Writes to `inner`, as zstd if `compress`.
    ///
    /// # Errors
    /// If the compressor cannot start.
    pub fn new(inner: W, compress: bool) -> Result<Self, TraceError> {
        let sink = if compress {
            let mut encoder = zstd::Encoder::new(inner, LEVEL).map_err(TraceError::Write)?;
            encoder.include_checksum(true).map_err(TraceError::Write)?;
            Sink::Zstd(encoder)
        } else {
            Sink::Plain(inner)
        };
        Ok(Self { sink, clock: None, records: 0 })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// If the medium fails, or the record has a time and its predecessors not
    /// (or the reverse).
    pub fn write(&mut self, record: &Record) -> Result<(), TraceError> {
        let has_time = record.time_us.is_some();
        match self.clock {
            None => self.header(has_time)?,
            Some(clock) if clock != has_time => {
                return Err(TraceError::MixedClock { record: self.records + 1, has_time });
            }
            Some(_) => {}
        }
        let first = record.time_us.unwrap_or(self.records);
        let op = match record.op {
            Op::Read => 'R',
            Op::Write => 'W',
        };
        let Record { offset_bytes, size_bytes, client, .. } = record;
        self.records += 1;
        writeln!(self.sink, "{first},{op},{offset_bytes},{size_bytes},{client}")
            .map_err(TraceError::Write)
    }

    /// Completes the file and hands the inner writer back, flushed.
    ///
    /// # Errors
    /// If the medium fails.
    pub fn finish(mut self) -> Result<W, TraceError> {
        if self.clock.is_none() {
            self.header(true)?;
        }
        let mut inner = match self.sink {
            Sink::Plain(inner) => inner,
            Sink::Zstd(encoder) => encoder.finish().map_err(TraceError::Write)?,
        };
        inner.flush().map_err(TraceError::Write)?;
        Ok(inner)
    }

    fn header(&mut self, clock: bool) -> Result<(), TraceError> {
        self.clock = Some(clock);
        let first = if clock { "time_us" } else { "seq_no" };
        writeln!(self.sink, "{first},op,offset_bytes,size_bytes,pid").map_err(TraceError::Write)
    }
}
