//! fio's iolog, versions 2 and 3.
//!
//! Version 2: `file add|open|close`, `file read|write|trim|sync|datasync offset
//! length`, `file wait offset length`. Version 3 puts a timestamp first, in
//! microseconds since the start.
//! Only reads and writes become records; all files count as one volume.
//! Version 2 has no clock.
#![forbid(unsafe_code)]

use super::csv::{number, record};
use super::{Op, Problem, Record};

/// The version that a first line announces.
pub(super) fn version(line: &str) -> Option<u8> {
    match line.trim_end() {
        "fio version 2 iolog" => Some(2),
        "fio version 3 iolog" => Some(3),
        _ => None,
    }
}

/// One record, or `None` for a line that moves no data.
pub(super) fn parse(line: &str, version: u8) -> Result<Option<Record>, Problem> {
    let mut fields = [""; 5];
    let got = line.split_ascii_whitespace().count();
    let skip = usize::from(version == 3);
    for (place, field) in fields.iter_mut().zip(line.split_ascii_whitespace()) {
        *place = field;
    }
    let time = match version {
        3 => Some(number(fields[0], "timestamp")?),
        _ => None,
    };
    let [_, action, offset, length] = [0, 1, 2, 3].map(|i| fields[(i + skip).min(4)]);
    let (want, op) = match action {
        "add" | "open" | "close" => (2, None),
        "read" => (4, Some(Op::Read)),
        "write" => (4, Some(Op::Write)),
        "trim" | "sync" | "datasync" | "wait" => (4, None),
        _ => return Err(Problem::Operation),
    };
    if got != want + skip {
        return Err(Problem::Fields { want: want + skip, got });
    }
    op.map(|op| record(time, op, offset, length, 0)).transpose()
}
