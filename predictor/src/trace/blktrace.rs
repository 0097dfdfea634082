//! The binary record of blktrace(8), `struct blk_io_trace` of Linux
//! `include/uapi/linux/blktrace_api.h`, version 7, in the byte order of the traced machine.
//!
//! | offset | size | field | content |
//! |---|---|---|---|
//! | 0 | 4 | magic | 0x65617400 and the version in the last byte |
//! | 4 | 4 | sequence | number of the event |
//! | 8 | 8 | time | nanoseconds since the traced machine started |
//! | 16 | 8 | sector | of 512 bytes |
//! | 24 | 4 | bytes | length of the transfer, 0 if it has none |
//! | 28 | 4 | action | what happened (16 bits), above it the categories |
//! | 32 | 4 | pid | who caused it |
//! | 36 | 4 | device | major << 20, minor |
//! | 40 | 4 | cpu | where |
//! | 44 | 2 | error | of a completion |
//! | 46 | 2 | pdu_len | bytes of payload that follow |
//! | 48 | pdu_len | payload | a cgroup id, a packet command, a process name, … |
//!
//! No checksum: only the magic of the next record shows that a length was wrong.
//!
//! It does not tell devices apart, and takes failed requests like those that completed.
//! Notices, packet commands, discards, flushes without data and what drivers add are no
//! records. The 64-byte records of version 8 are not read.
#![forbid(unsafe_code)]

use super::event::{Event, SECTOR_BYTES, Stage};
use super::{Op, Problem, Record};

/// Bytes of a record in front of its payload.
pub(super) const HEADER_BYTES: usize = 48;
/// `BLK_IO_TRACE_MAGIC`, without the version.
const MAGIC: u32 = 0x6561_7400;
/// `BLK_IO_TRACE_VERSION`
const VERSION: u8 = 7;

const MAGIC_AT: usize = 0;
const TIME_AT: usize = 8;
const SECTOR_AT: usize = 16;
const BYTES_AT: usize = 24;
const ACTION_AT: usize = 28;
const PID_AT: usize = 32;
const PDU_LEN_AT: usize = 46;

/// `__BLK_TA_*`: what happened.
const QUEUE: u32 = 1;
const ISSUE: u32 = 7;
const COMPLETE: u32 = 8;
/// `__BLK_TA_CGROUP`: the payload starts with a cgroup id.
const CGROUP: u32 = 1 << 8;

/// `BLK_TC_*`: categories, here in their place in the action.
const READ: u32 = 1 << 16;
const WRITE: u32 = 1 << 17;
const PACKET: u32 = 1 << 25;
const NOTIFY: u32 = 1 << 26;
const DISCARD: u32 = 1 << 29;
const DRIVER: u32 = 1 << 30;

/// The order of bytes in a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }

    /// The order in which the first bytes of a file are a magic, and whether its version
    /// is ours; `None` if they are none.
    pub fn recognise(head: [u8; 4]) -> Option<Result<Self, Problem>> {
        let order =
            [Self::Little, Self::Big].into_iter().find(|order| order.u32(head) & !0xff == MAGIC)?;
        Some(match order.u32(head).to_le_bytes()[0] {
            VERSION => Ok(order),
            version => Err(Problem::Version(version)),
        })
    }
}

/// A record in front of its payload.
pub(super) struct Header<'a> {
    pub bytes: &'a [u8; HEADER_BYTES],
    pub order: ByteOrder,
}

impl Header<'_> {
    /// Whether a record is here at all.
    pub fn in_sync(&self) -> bool {
        self.u32(MAGIC_AT) == MAGIC | u32::from(VERSION)
    }

    pub fn payload_bytes(&self) -> u16 {
        self.order.u16(self.array(PDU_LEN_AT))
    }

    /// The event, or `None` if it moves no data.
    pub fn event(&self) -> Result<Option<Event>, Problem> {
        let (action, size_bytes) = (self.u32(ACTION_AT), self.u32(BYTES_AT));
        // The actions of notices are other ones, with the same numbers.
        if size_bytes == 0 || action & (NOTIFY | PACKET | DISCARD | DRIVER) != 0 {
            return Ok(None);
        }
        let stage = match action & 0xffff & !CGROUP {
            QUEUE => Stage::Queue,
            ISSUE => Stage::Issue,
            COMPLETE => Stage::Complete,
            _ => return Ok(None),
        };
        let op = match action & (READ | WRITE) {
            0 => return Ok(None),
            READ => Op::Read,
            WRITE => Op::Write,
            _ => return Err(Problem::Operation),
        };
        let sector = self.u64(SECTOR_AT);
        let offset = sector.checked_mul(SECTOR_BYTES.into()).ok_or(Problem::PastEnd)?;
        let time = self.u64(TIME_AT);
        let record = Record::checked(Some(time / 1000), op, offset, size_bytes, self.u32(PID_AT))?;
        Ok(Some(Event { record, stage, time }))
    }

    fn u32(&self, at: usize) -> u32 {
        self.order.u32(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        self.order.u64(self.array(at))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("the range has N bytes")
    }
}

#[cfg(test)]
#[path = "blktrace_tests.rs"]
mod tests;
