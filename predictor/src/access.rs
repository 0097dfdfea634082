//! One request of a client, in the unit of prediction: fragments.
#![forbid(unsafe_code)]

use crate::trace::{Op, Record};

/// A read or write of one volume, as the prefetchers and the trainer see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Monotonic nanoseconds; 0 where no clock is known, then nothing is
    /// concluded from time.
    pub time_ns: u64,
    /// The volume's number.
    pub volume: u32,
    /// A write: observed, but it triggers no prediction.
    pub write: bool,
    /// First fragment touched, counted from the volume's start.
    pub fragment: u64,
    /// Last fragment touched, ≥ `fragment`.
    pub last_fragment: u64,
    /// First byte, counted from the volume's start.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub size_bytes: u32,
    /// log2 of the fragments' size in bytes.
    pub fragment_shift: u8,
}

impl Access {
    /// The access that a trace record of `volume` stands for, with fragments of
    /// `1 << fragment_shift` bytes.
    ///
    /// Times move one microsecond up, for 0 means "no clock".
    pub fn from_record(record: &Record, volume: u32, fragment_shift: u8) -> Self {
        let last = record.offset_bytes.saturating_add(u64::from(record.size_bytes.max(1)) - 1);
        Self {
            time_ns: record.time_us.map_or(0, |us| us.saturating_add(1).saturating_mul(1000)),
            volume,
            write: record.op == Op::Write,
            fragment: record.offset_bytes >> fragment_shift,
            last_fragment: last >> fragment_shift,
            offset_bytes: record.offset_bytes,
            size_bytes: record.size_bytes,
            fragment_shift,
        }
    }
}
