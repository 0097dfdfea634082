//! The reader: records of one trace or several, and an account of what was bad.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::merge::Merge;
use super::select::Select;
use super::skipped::{Skipped, Tolerance};
use super::source::Source;
use super::{Problem, Record, TraceError};

/// Opens a trace file.
///
/// # Errors
/// If the file cannot be opened or is not a trace.
pub fn open(path: &Path) -> Result<Reader<'static>, TraceError> {
    Reader::new(file(path)?)
}

/// Opens the files of one trace, such as those that blktrace writes for each CPU, to be
/// read as one in the order of time. Empty ones among them are passed over.
///
/// # Errors
/// If a file cannot be opened or is not a trace, or if they cannot be merged
/// ([`Reader::merge`]).
pub fn open_all<P: AsRef<Path>>(paths: &[P]) -> Result<Reader<'static>, TraceError> {
    if let [path] = paths {
        return open(path.as_ref());
    }
    let files: Result<Vec<_>, _> =
        paths.iter().map(|path| Ok((path.as_ref().to_owned(), file(path.as_ref())?))).collect();
    Reader::merge(files?)
}

fn file(path: &Path) -> Result<File, TraceError> {
    File::open(path).map_err(|source| TraceError::Open { path: path.to_owned(), source })
}

/// Iterator over the records of a trace; it ends after the first error.
///
/// Lines and records that are bad are no errors: they are passed over and accounted for in
/// [`Reader::skipped`], unless the reader is [`strict`](Reader::strict). Errors are a medium
/// that fails, binary data that lose their structure, and a trace of bad lines only.
pub struct Reader<'a> {
    merge: Merge<'a>,
    /// The names of several inputs, for errors.
    names: Vec<PathBuf>,
    select: Select,
    tolerance: Tolerance,
    /// The inputs ended, with this error if any.
    ended: Option<Result<(), TraceError>>,
}

impl<'a> Reader<'a> {
    /// Starts to read; recognises compression and format.
    ///
    /// # Errors
    /// If the input cannot be read or is not a trace.
    pub fn new(input: impl Read + Send + 'a) -> Result<Self, TraceError> {
        Ok(Self::of(vec![Source::new(input, 0)?], Vec::new()))
    }

    /// Reads several named inputs as one, in the order of time. Empty ones are passed over.
    ///
    /// # Errors
    /// If one cannot be read or is not a trace, if they have no clock or different formats,
    /// or if there is none.
    pub fn merge<R: Read + Send + 'a>(
        inputs: impl IntoIterator<Item = (PathBuf, R)>,
    ) -> Result<Self, TraceError> {
        let mut sources: Vec<Source<'a>> = Vec::new();
        let mut names = Vec::new();
        let mut none = TraceError::NoFiles;
        for (file, (path, input)) in inputs.into_iter().enumerate() {
            let source = Source::new(input, file).and_then(|source| match sources.first() {
                _ if !source.has_clock() => Err(TraceError::NoClock),
                Some(first) if !source.is_like(first) => Err(TraceError::OtherFormat),
                _ => Ok(source),
            });
            names.push(path.clone());
            let in_file = |source| TraceError::File { path, source: Box::new(source) };
            match source {
                Ok(source) => sources.push(source),
                // A CPU that did nothing.
                Err(error @ TraceError::Bad { problem: Problem::Empty, .. }) => {
                    none = in_file(error);
                }
                Err(error) => return Err(in_file(error)),
            }
        }
        if sources.is_empty() { Err(none) } else { Ok(Self::of(sources, names)) }
    }

    fn of(sources: Vec<Source<'a>>, names: Vec<PathBuf>) -> Self {
        Self {
            merge: Merge::new(sources),
            names,
            select: Select::default(),
            tolerance: Tolerance::default(),
            ended: None,
        }
    }

    /// Makes the first bad line or record an error.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.tolerance.strict = true;
        self
    }

    /// Whether the records carry a time.
    pub fn has_clock(&self) -> bool {
        self.merge.has_clock()
    }

    /// What was passed over so far: complete once the iterator ended, and possibly of lines
    /// behind the last record before.
    pub fn skipped(&self) -> &Skipped {
        &self.tolerance.skipped
    }

    /// Takes one event in, or the end.
    fn advance(&mut self) {
        match self.merge.next(&mut self.tolerance) {
            Ok(Some(event)) => self.select.push(event),
            Ok(None) => self.ended = Some(Ok(())),
            Err((file, error)) => {
                self.ended = Some(Err(match self.names.get(file) {
                    Some(path) => TraceError::File { path: path.clone(), source: Box::new(error) },
                    None => error,
                }));
            }
        }
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Record, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ended.is_none() && !self.select.is_settled() {
            self.advance();
        }
        loop {
            if let Some(record) = self.select.pop() {
                return Some(Ok(record));
            }
            match &mut self.ended {
                None => self.advance(),
                Some(end) => return std::mem::replace(end, Ok(())).err().map(Err),
            }
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "merge_tests.rs"]
mod merge_tests;
