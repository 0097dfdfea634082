//! One input of any format: decompression, recognition by content, tolerance of bad lines.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Cursor, Read};

use super::binary::{Binary, fill};
use super::blktrace::ByteOrder;
use super::event::{Event, Step};
use super::lines::Lines;
use super::skipped::{Skip, Tolerance};
use super::text::Text;
use super::{Place, Problem, TraceError};

/// First bytes of a zstd frame (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

enum Body<'a> {
    Text(Text<'a>),
    Binary(Binary<'a>),
}

/// The events of one input.
pub(super) struct Source<'a> {
    body: Body<'a>,
    /// Its index among those that were given.
    file: usize,
    /// Some line or record was well formed.
    readable: bool,
    bad: u64,
    first_bad: Option<(Place, Problem)>,
}

impl<'a> Source<'a> {
    /// Recognises compression and format.
    pub fn new(input: impl Read + Send + 'a, file: usize) -> Result<Self, TraceError> {
        let failed = |source| TraceError::Read { place: Place::Line(1), source };
        let (head, whole) = peek(input).map_err(failed)?;
        let (head, whole) = if head == Some(ZSTD_MAGIC) {
            peek(zstd::Decoder::with_buffer(whole).map_err(failed)?).map_err(failed)?
        } else {
            (head, whole)
        };
        let body = match head.and_then(ByteOrder::recognise) {
            Some(Ok(order)) => Body::Binary(Binary::new(whole, order)),
            Some(Err(problem)) => return Err(TraceError::Bad { place: Place::Byte(0), problem }),
            None => Body::Text(Text::new(Lines::new(whole))?),
        };
        Ok(Self { body, file, readable: false, bad: 0, first_bad: None })
    }

    /// Its index among those that were given.
    pub fn file(&self) -> usize {
        self.file
    }

    pub fn has_clock(&self) -> bool {
        match &self.body {
            Body::Text(text) => text.has_clock(),
            Body::Binary(_) => true,
        }
    }

    /// Whether the clocks of both compare.
    pub fn is_like(&self, other: &Self) -> bool {
        match (&self.body, &other.body) {
            (Body::Text(one), Body::Text(two)) => one.is_like(two),
            (Body::Binary(_), Body::Binary(_)) => true,
            _ => false,
        }
    }

    /// The next event; what is bad before it goes to `tolerance`.
    pub fn next(&mut self, tolerance: &mut Tolerance) -> Result<Option<Event>, TraceError> {
        loop {
            let step = match &mut self.body {
                Body::Text(text) => text.step()?,
                Body::Binary(binary) => binary.step()?,
            };
            match step {
                Step::Bad(place, problem) => {
                    tolerance.reject(Skip { file: self.file, place, problem })?;
                    self.bad += 1;
                    self.first_bad.get_or_insert((place, problem));
                    continue;
                }
                Step::End => return self.end(),
                Step::Event(_) | Step::Other => self.readable = true,
            }
            if let Step::Event(event) = step {
                return Ok(Some(event));
            }
        }
    }

    fn end(&self) -> Result<Option<Event>, TraceError> {
        match self.first_bad {
            Some((place, problem)) if !self.readable => {
                Err(TraceError::NoneReadable { count: self.bad, place, problem })
            }
            _ => Ok(None),
        }
    }
}

type Peeked<'a> = (Option<[u8; 4]>, Box<dyn BufRead + Send + 'a>);

/// Looks at the first bytes, if there are as many, without taking them.
fn peek<'a>(mut input: impl Read + Send + 'a) -> std::io::Result<Peeked<'a>> {
    let mut head = [0; 4];
    let filled = fill(&mut input, &mut head)?;
    let start = Cursor::new(head).take(filled as u64);
    let whole = Box::new(BufReader::new(start.chain(input)));
    Ok(((filled == head.len()).then_some(head), whole))
}
