//! A text trace: its first line names the format, each later one is a record or not.
#![forbid(unsafe_code)]

use super::csv::Columns;
use super::event::{Event, Step};
use super::lines::Lines;
use super::{Problem, TraceError, blkparse, iolog, msr};

#[derive(Clone, Copy, Debug)]
enum Format {
    Csv(Columns),
    Msr,
    Iolog(u8),
    Blkparse,
}

/// The records of a text, one at a time.
pub(super) struct Text<'a> {
    lines: Lines<'a>,
    format: Format,
    /// The first line was no header and is still to be parsed.
    pending: bool,
    /// Only the summary of blkparse follows.
    summary: bool,
}

impl<'a> Text<'a> {
    /// Recognises the format.
    pub fn new(mut lines: Lines<'a>) -> Result<Self, TraceError> {
        let first = lines.advance()?.unwrap_or(Err(Problem::Empty));
        let format = first.and_then(|()| {
            let line = str::from_utf8(lines.bytes()).map_err(|_| Problem::NotText);
            // A process name need not be UTF-8.
            let start = readable(lines.bytes());
            if let Some(columns) = line.ok().and_then(Columns::from_header) {
                Ok(Format::Csv(columns))
            } else if let Some(version) = line.ok().and_then(iolog::version) {
                Ok(Format::Iolog(version))
            } else if line.is_ok_and(msr::recognise) {
                Ok(Format::Msr)
            } else if blkparse::recognise(start) {
                Ok(Format::Blkparse)
            } else {
                Err(line.err().unwrap_or(Problem::UnknownFormat))
            }
        });
        match format {
            Ok(format) => {
                let pending = matches!(format, Format::Msr | Format::Blkparse);
                Ok(Self { lines, format, pending, summary: false })
            }
            Err(problem) => Err(TraceError::Bad { place: lines.place(), problem }),
        }
    }

    pub fn has_clock(&self) -> bool {
        match self.format {
            Format::Csv(columns) => columns.clock,
            Format::Msr | Format::Blkparse => true,
            Format::Iolog(version) => version >= 3,
        }
    }

    /// Whether times of both count from the same moment, if any do.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.format) == std::mem::discriminant(&other.format)
    }

    pub fn step(&mut self) -> Result<Step, TraceError> {
        loop {
            let line = if std::mem::take(&mut self.pending) {
                Ok(())
            } else {
                match self.lines.advance()? {
                    None => return Ok(Step::End),
                    Some(line) => line,
                }
            };
            if self.is_beside() {
                continue;
            }
            return Ok(match line.and_then(|()| self.parse()) {
                Ok(Some(event)) => Step::Event(event),
                Ok(None) => Step::Other,
                Err(problem) => Step::Bad(self.lines.place(), problem),
            });
        }
    }

    /// Whether the line is not one of the trace. The summary is read to its end only to see
    /// a damaged compression.
    fn is_beside(&mut self) -> bool {
        if !matches!(self.format, Format::Blkparse) {
            return false;
        }
        let line = readable(self.lines.bytes());
        self.summary |= blkparse::is_summary(line);
        self.summary || blkparse::is_beside(line)
    }

    fn parse(&self) -> Result<Option<Event>, Problem> {
        let bytes = self.lines.bytes();
        let text = || str::from_utf8(bytes).map_err(|_| Problem::NotText);
        let record = match self.format {
            Format::Csv(columns) => Some(columns.parse(text()?)?),
            Format::Msr => Some(msr::parse(text()?)?),
            Format::Iolog(version) => iolog::parse(text()?, version)?,
            Format::Blkparse => return blkparse::parse(readable(bytes)),
        };
        Ok(record.map(Event::only))
    }
}

/// The start of a line up to the first byte that is not text.
fn readable(bytes: &[u8]) -> &str {
    bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}
