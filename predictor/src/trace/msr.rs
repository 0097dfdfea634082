//! MSR Cambridge CSV (SNIA IOTTA 388):
//! `Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime`, without a
//! header; the timestamp counts 100 ns ticks of the Windows file time.
#![forbid(unsafe_code)]

use super::csv::{number, record, split};
use super::{Op, Problem, Record};

/// Whether the first line of a file looks like this format.
pub(super) fn recognise(line: &str) -> bool {
    let mut fields = [""; 7];
    split(line, ',', &mut fields).is_ok() && operation(fields[3]).is_some()
}

/// One record from one line.
pub(super) fn parse(line: &str) -> Result<Record, Problem> {
    let mut fields = [""; 7];
    split(line, ',', &mut fields)?;
    let ticks = number(fields[0], "Timestamp")?;
    let op = operation(fields[3]).ok_or(Problem::Operation)?;
    record(Some(ticks / 10), op, fields[4], fields[5], 0)
}

fn operation(text: &str) -> Option<Op> {
    match text {
        "Read" => Some(Op::Read),
        "Write" => Some(Op::Write),
        _ => None,
    }
}
