//! One request of a client, in the unit of prediction: fragments.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;

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
    /// A request for bytes of a volume with fragments of `1 << fragment_shift` bytes; one of no
    /// bytes touches the fragment that it begins in.
    pub fn new(
        time_ns: u64,
        volume: u32,
        write: bool,
        offset_bytes: u64,
        size_bytes: u32,
        fragment_shift: u8,
    ) -> Self {
        let last = offset_bytes.saturating_add(u64::from(size_bytes.max(1)) - 1);
        Self {
            time_ns,
            volume,
            write,
            fragment: offset_bytes >> fragment_shift,
            last_fragment: last >> fragment_shift,
            offset_bytes,
            size_bytes,
            fragment_shift,
        }
    }

    /// The fragments touched.
    pub fn fragments(&self) -> RangeInclusive<u64> {
        self.fragment..=self.last_fragment
    }

    /// The access that a trace record of `volume` stands for, with fragments of
    /// `1 << fragment_shift` bytes.
    ///
    /// Times move one microsecond up, for 0 means "no clock".
    pub fn from_record(record: &Record, volume: u32, fragment_shift: u8) -> Self {
        let time_ns = record.time_us.map_or(0, |us| us.saturating_add(1).saturating_mul(1000));
        let write = record.op == Op::Write;
        Self::new(time_ns, volume, write, record.offset_bytes, record.size_bytes, fragment_shift)
    }
}
