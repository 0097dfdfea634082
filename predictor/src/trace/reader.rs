//! The streaming reader: decompression, lines, recognition of the format.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use super::csv::Columns;
use super::{Problem, Record, TraceError, iolog, msr};

/// Longest line that is accepted, its newline included.
pub const MAX_LINE_BYTES: usize = 4096;
/// First bytes of a zstd frame (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Opens a trace file.
///
/// # Errors
/// If the file cannot be opened, or its first line is not that of a trace.
pub fn open(path: &Path) -> Result<Reader<'static>, TraceError> {
    let file =
        File::open(path).map_err(|source| TraceError::Open { path: path.to_owned(), source })?;
    Reader::new(file)
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Csv(Columns),
    Msr,
    Iolog(u8),
}

/// Iterator over the records of a trace; it ends after the first error.
pub struct Reader<'a> {
    input: Box<dyn BufRead + Send + 'a>,
    format: Format,
    buffer: Vec<u8>,
    /// The line in `buffer`, counted from 1.
    line: u64,
    /// `buffer` holds a first line that is already a record.
    pending: bool,
    finished: bool,
}

impl<'a> Reader<'a> {
    /// Starts to read; recognises compression and format.
    ///
    /// # Errors
    /// If the input cannot be read or its first line is not that of a trace.
    pub fn new(input: impl Read + Send + 'a) -> Result<Self, TraceError> {
        let input = decompressed(input).map_err(|source| TraceError::Read { line: 1, source })?;
        let mut reader = Self {
            input,
            format: Format::Msr,
            buffer: Vec::with_capacity(256),
            line: 0,
            pending: false,
            finished: false,
        };
        if !reader.next_line()? {
            return Err(TraceError::Line { line: 1, problem: Problem::Empty });
        }
        let first = reader.text().map_err(|problem| reader.error(problem))?;
        if let Some(columns) = Columns::from_header(first) {
            reader.format = Format::Csv(columns);
        } else if let Some(version) = iolog::version(first) {
            reader.format = Format::Iolog(version);
        } else if msr::recognise(first) {
            reader.pending = true;
        } else {
            return Err(reader.error(Problem::UnknownFormat));
        }
        Ok(reader)
    }

    /// Whether the records carry a time.
    pub fn has_clock(&self) -> bool {
        match self.format {
            Format::Csv(columns) => columns.clock,
            Format::Msr => true,
            Format::Iolog(version) => version >= 3,
        }
    }

    /// Reads the next line into the buffer, without its end; false at the end.
    fn next_line(&mut self) -> Result<bool, TraceError> {
        self.buffer.clear();
        self.line += 1;
        let mut limited = (&mut self.input).take(MAX_LINE_BYTES as u64);
        let read = limited.read_until(b'\n', &mut self.buffer);
        match read {
            Err(source) => Err(TraceError::Read { line: self.line, source }),
            Ok(0) => Ok(false),
            Ok(_) if self.buffer.pop_if(|last| *last == b'\n').is_some() => {
                self.buffer.pop_if(|last| *last == b'\r');
                Ok(true)
            }
            Ok(MAX_LINE_BYTES) => Err(self.error(Problem::TooLong)),
            Ok(_) => Err(self.error(Problem::Truncated)),
        }
    }

    fn text(&self) -> Result<&str, Problem> {
        std::str::from_utf8(&self.buffer).map_err(|_| Problem::NotText)
    }

    fn error(&self, problem: Problem) -> TraceError {
        TraceError::Line { line: self.line, problem }
    }

    fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        while std::mem::take(&mut self.pending) || self.next_line()? {
            let parsed = self.text().and_then(|text| match self.format {
                Format::Csv(columns) => columns.parse(text).map(Some),
                Format::Msr => msr::parse(text).map(Some),
                Format::Iolog(version) => iolog::parse(text, version),
            });
            match parsed {
                Ok(None) => {}
                Ok(record) => return Ok(record),
                Err(problem) => return Err(self.error(problem)),
            }
        }
        Ok(None)
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let next = self.next_record().transpose();
        self.finished = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Looks at the first bytes and puts a decompressor in front if they ask for it.
fn decompressed<'a>(mut input: impl Read + Send + 'a) -> io::Result<Box<dyn BufRead + Send + 'a>> {
    let mut magic = Vec::with_capacity(ZSTD_MAGIC.len());
    (&mut input).take(ZSTD_MAGIC.len() as u64).read_to_end(&mut magic)?;
    let compressed = magic == ZSTD_MAGIC;
    let whole = Cursor::new(magic).chain(input);
    if compressed {
        Ok(Box::new(BufReader::new(zstd::Decoder::new(whole)?)))
    } else {
        Ok(Box::new(BufReader::new(whole)))
    }
}
