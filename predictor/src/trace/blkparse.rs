//! Text of blkparse(1) in its default output format:
//! `maj,min cpu seq time pid action rwbs sector + sectors [process]`, the time as
//! `seconds.nanoseconds`, a sector of 512 bytes.
//!
//! ```text
//!   8,0    3        1     0.000000000   697  Q   W 223490 + 8 [kjournald]
//!   8,0    3        9     0.001203000     0  C   W 223490 + 8 [0]
//! ```
//!
//! Actions Q, D and C with a range become records if RWBS names a read or a write; F before
//! the letter is a flush in front of it, letters behind it are modifiers. Flushes (F, or N
//! or W without a range), discards (D) and packet commands move no data of the device.
//! blkparse prints `Input file … added` in front of the events or, into a file, behind them,
//! and last a summary: for programs (`-s`), for CPUs, in total. The records end where it
//! starts.
//!
//! It does not read formats of `-f` and `-F`, does not tell devices apart, and takes failed
//! requests like those that completed.
#![forbid(unsafe_code)]

use super::csv::{number, number32};
use super::event::{Event, SECTOR_BYTES, Stage};
use super::{Op, Problem, Record};

/// Fields from the device to RWBS, which every line has.
const HEAD: usize = 7;
/// The same with `sector + sectors [process]`.
const WHOLE: usize = 11;

/// Whether the first line of a file looks like this format.
pub(super) fn recognise(line: &str) -> bool {
    is_input(line) || Line::split(line).is_ok()
}

/// Whether the summary starts here.
pub(super) fn is_summary(line: &str) -> bool {
    let line = line.trim_ascii_start();
    let cpu = line.strip_prefix("CPU").and_then(|rest| rest.bytes().next());
    cpu.is_some_and(|digit| digit.is_ascii_digit())
        || line.starts_with("Total (")
        || line.starts_with("Reads Queued:")
}

/// Whether blkparse prints this beside its events.
pub(super) fn is_beside(line: &str) -> bool {
    line.trim_ascii().is_empty()
        || is_input(line)
        || is_program(line)
        || line.starts_with("discarded traces containing")
}

/// `Input file sda.blktrace.0 added`
fn is_input(line: &str) -> bool {
    line.starts_with("Input file ") && line.ends_with(" added")
}

/// `name (pid)` or `name (pid, ...)`: the head of a program's summary. It is only passed
/// over: what follows it ends the records.
fn is_program(line: &str) -> bool {
    let Some((name, pid)) = line.rsplit_once(" (") else { return false };
    let pid = pid.strip_suffix(", ...)").or_else(|| pid.strip_suffix(')'));
    !name.contains(',') && pid.is_some_and(|pid| number32(pid, "pid").is_ok())
}

/// One event, or `None` for a line that moves no data.
pub(super) fn parse(line: &str) -> Result<Option<Event>, Problem> {
    let Line { time, pid, action, rwbs, rest, got } = Line::split(line)?;
    let (Some(stage), Some(op)) = (stage(action)?, operation(rwbs)?) else { return Ok(None) };
    let Some((offset_bytes, size_bytes)) = range(&rest[..got])? else { return Ok(None) };
    let record = Record::checked(Some(time / 1000), op, offset_bytes, size_bytes, pid)?;
    Ok(Some(Event { record, stage, time }))
}

/// A line whose head is well formed.
struct Line<'a> {
    time: u64,
    pid: u32,
    action: &'a str,
    rwbs: &'a str,
    /// What follows, as far as it matters.
    rest: [&'a str; WHOLE - HEAD],
    got: usize,
}

impl<'a> Line<'a> {
    fn split(line: &'a str) -> Result<Self, Problem> {
        let mut fields = [""; WHOLE];
        let mut got = 0_usize;
        for (place, field) in fields.iter_mut().zip(line.split_ascii_whitespace()) {
            *place = field;
            got += 1;
        }
        let [device, cpu, sequence, time, pid, action, rwbs, rest @ ..] = fields;
        let got = got.checked_sub(HEAD).ok_or(Problem::Fields { want: HEAD, got })?;
        let (major, minor) = device.split_once(',').ok_or(Problem::Number("device"))?;
        for (text, field) in [(major, "device"), (minor, "device"), (cpu, "cpu"), (sequence, "seq")]
        {
            number(text, field)?;
        }
        let (time, pid) = (nanoseconds(time)?, number32(pid, "pid")?);
        Ok(Self { time, pid, action, rwbs, rest, got })
    }
}

/// Digits, a point and nine digits.
fn nanoseconds(text: &str) -> Result<u64, Problem> {
    let wrong = Problem::Number("time");
    let (seconds, fraction) = text.split_once('.').ok_or(wrong)?;
    if fraction.len() != 9 {
        return Err(wrong);
    }
    let (seconds, fraction) = (number(seconds, "time")?, number(fraction, "time")?);
    seconds.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(fraction)).ok_or(wrong)
}

/// The stage that an action tells of, `None` for merges, plugs, remaps, messages and others.
fn stage(action: &str) -> Result<Option<Stage>, Problem> {
    match action {
        "Q" => Ok(Some(Stage::Queue)),
        "D" => Ok(Some(Stage::Issue)),
        "C" => Ok(Some(Stage::Complete)),
        _ if action.len() <= 2 && action.bytes().all(|b| b.is_ascii_alphabetic()) => Ok(None),
        _ => Err(Problem::Operation),
    }
}

/// Read or write, `None` for what moves no data.
fn operation(rwbs: &str) -> Result<Option<Op>, Problem> {
    if !rwbs.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(Problem::Operation);
    }
    match rwbs.strip_prefix('F').unwrap_or(rwbs).bytes().next() {
        Some(b'R') => Ok(Some(Op::Read)),
        Some(b'W') => Ok(Some(Op::Write)),
        _ => Ok(None),
    }
}

/// Bytes of `sector + sectors [process]`; `None` for a packet command, or a flush that was
/// asked for as an empty write. The bracket is wanted as it tells a whole line from a cut one.
fn range(fields: &[&str]) -> Result<Option<(u64, u32)>, Problem> {
    let closes = |field: &str| field.starts_with(['[', '(']);
    match fields {
        [only, ..] if closes(only) => Ok(None),
        [first, second, ..] if closes(second) => number(first, "sector").map(|_| None),
        [sector, "+", sectors, end] if closes(end) => {
            let sector = number(sector, "sector")?;
            let bytes = number32(sectors, "sectors")?.checked_mul(SECTOR_BYTES);
            let offset = sector.checked_mul(SECTOR_BYTES.into()).ok_or(Problem::PastEnd)?;
            Ok(Some((offset, bytes.ok_or(Problem::Number("sectors"))?)))
        }
        _ => Err(Problem::Fields { want: WHOLE, got: HEAD + fields.len() }),
    }
}

#[cfg(test)]
#[path = "blkparse_tests.rs"]
mod tests;
