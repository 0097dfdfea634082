//! Names for a table and for what is kept of it in two copies.

use crate::units::{DeviceId, DeviceOffset, SliceId};

/// Identity that every structure of a table must carry.
#[derive(Clone, Copy, Debug)]
pub struct TableId {
    /// Low half of the pool's UUID.
    pub pool: u64,
    /// The table.
    pub slice: SliceId,
}

/// A part of a table that is kept in two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TablePart {
    /// One of the two checkpoint roots.
    Root(u64),
    /// A page of the checkpoint in force.
    Page(u64),
    /// A map page.
    Map(u32),
    /// A journal block, by sequence.
    Journal(u64),
}

impl std::fmt::Display for TablePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TablePart::Root(which) => write!(f, "checkpoint root {which}"),
            TablePart::Page(page) => write!(f, "checkpoint page {page}"),
            TablePart::Map(page) => write!(f, "map page {page}"),
            TablePart::Journal(seq) => write!(f, "journal block {seq}"),
        }
    }
}

/// A copy that the other one proves wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedCopy {
    /// What it is a copy of.
    pub part: TablePart,
    /// 0 or 1.
    pub copy: usize,
    /// Where it lies.
    pub device: DeviceId,
    /// First byte on the device.
    pub offset: DeviceOffset,
}
