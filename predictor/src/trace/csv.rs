//! Our own CSV: `time_us,op,offset_bytes,size_bytes[,pid]`.
#![forbid(unsafe_code)]

use super::{Op, Problem, Record};

/// The columns that a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// The first column is a time, not a sequence number.
    pub clock: bool,
    /// There is a fifth column, the process id.
    pub pid: bool,
}

impl Columns {
    /// From the first line; `None` if it is not our header.
    pub fn from_header(line: &str) -> Option<Self> {
        let (first, rest) = line.split_once(',')?;
        let clock = match first {
            "time_us" => true,
            "seq_no" => false,
            _ => return None,
        };
        match rest {
            "op,offset_bytes,size_bytes" => Some(Self { clock, pid: false }),
            "op,offset_bytes,size_bytes,pid" => Some(Self { clock, pid: true }),
            _ => None,
        }
    }

    /// One record from one line.
    pub fn parse(self, line: &str) -> Result<Record, Problem> {
        let want = if self.pid { 5 } else { 4 };
        let mut fields = [""; 5];
        split(line, ',', &mut fields[..want])?;
        let first = number(fields[0], if self.clock { "time_us" } else { "seq_no" })?;
        let op = match fields[1] {
            "R" => Op::Read,
            "W" => Op::Write,
            _ => return Err(Problem::Operation),
        };
        let client = if self.pid { number32(fields[4], "pid")? } else { 0 };
        let (offset, size) = (fields[2], fields[3]);
        record(self.clock.then_some(first), op, offset, size, client)
    }
}

/// Splits into exactly as many fields as `fields` has places.
pub(super) fn split<'a>(
    line: &'a str,
    separator: char,
    fields: &mut [&'a str],
) -> Result<(), Problem> {
    let got = line.split(separator).count();
    if got != fields.len() {
        return Err(Problem::Fields { want: fields.len(), got });
    }
    for (place, field) in fields.iter_mut().zip(line.split(separator)) {
        *place = field;
    }
    Ok(())
}

/// A record of text fields.
pub(super) fn record(
    time_us: Option<u64>,
    op: Op,
    offset: &str,
    size: &str,
    client: u32,
) -> Result<Record, Problem> {
    let offset_bytes = number(offset, "offset_bytes")?;
    let size_bytes = number32(size, "size_bytes")?;
    Record::checked(time_us, op, offset_bytes, size_bytes, client)
}

/// An unsigned decimal; no sign, no blanks.
pub(super) fn number(text: &str, field: &'static str) -> Result<u64, Problem> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Problem::Number(field));
    }
    text.parse().map_err(|_| Problem::Number(field))
}

/// The same, of 32 bits.
pub(super) fn number32(text: &str, field: &'static str) -> Result<u32, Problem> {
    u32::try_from(number(text, field)?).map_err(|_| Problem::Number(field))
}
