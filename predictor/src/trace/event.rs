//! What the formats have in common: a request, seen at one of its stages.
#![forbid(unsafe_code)]

use super::{Op, Place, Problem, Record};

/// Bytes of a sector, whatever the device's blocks are.
pub(super) const SECTOR_BYTES: u32 = 512;

/// Stage of a request at which a record was made, best first: only queueing tells who asked
/// and when, and sees requests before they are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Asked for. Formats that have one record for a request give this.
    Queue,
    /// Sent to the device.
    Issue,
    /// Answered by the device.
    Complete,
}

/// A record and what decides on its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub record: Record,
    pub stage: Stage,
    /// What several files are merged by: the time in the unit of the format, which is finer
    /// than that of the record.
    pub time: u64,
}

impl Event {
    /// Of a format with one record for a request.
    pub fn only(record: Record) -> Self {
        Self { record, stage: Stage::Queue, time: record.time_us.unwrap_or(0) }
    }
}

/// What a step through an input finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Event(Event),
    /// Well formed, but moves no data.
    Other,
    Bad(Place, Problem),
    End,
}

impl Record {
    /// A record whose range is checked, as every format needs it.
    pub(super) fn checked(
        time_us: Option<u64>,
        op: Op,
        offset_bytes: u64,
        size_bytes: u32,
        client: u32,
    ) -> Result<Self, Problem> {
        if size_bytes == 0 {
            return Err(Problem::ZeroSize);
        }
        if offset_bytes.checked_add(u64::from(size_bytes)).is_none() {
            return Err(Problem::PastEnd);
        }
        Ok(Self { time_us, op, offset_bytes, size_bytes, client })
    }
}
