//! The bytes that requests carry: the values they write, and those they expect.

use super::oracle::Oracle;
use super::playground::Want;
use super::sector::{SectorKey, fill};
use crate::device::sim::SECTOR_BYTES;
use crate::request::{Buf, Op};

/// Where the bytes of a request are that has ended.
#[derive(Debug)]
pub enum Payload {
    /// In its core's arena, if it has any.
    Arena(Option<Buf>),
    /// With a host: from the first byte of the range on.
    Host(Vec<u8>),
}

/// How a comparison has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compares {
    Equal,
    Different,
    /// A failed change before may have come to the medium.
    Either,
}

/// Gives each sector of a change its value, and writes the values where there are bytes for
/// the range. `host`: it is a host's.
pub(super) fn set_values(
    want: &Want,
    mut bytes: Option<&mut [u8]>,
    host: bool,
    oracle: &mut Oracle,
) {
    for (at, sector) in want.range().enumerate() {
        let key = SectorKey { volume: want.volume, sector };
        let zero = matches!(want.op, Op::Discard | Op::WriteZeroes);
        let value = oracle.send(key, zero, host);
        if let Some(bytes) = &mut bytes {
            fill(key, value, &mut bytes[at * SECTOR_BYTES..][..SECTOR_BYTES]);
        }
    }
}

/// Writes what a comparison expects: what is there, or in one of four, in one sector, what
/// never was. `value` is the one that the write after it begins with.
pub(super) fn set_expected(want: &Want, value: u64, bytes: &mut [u8], oracle: &Oracle) -> Compares {
    let wrong = value.is_multiple_of(4).then_some(value / 4 % want.sectors.1);
    let mut certain = true;
    for (at, sector) in want.range().enumerate() {
        let key = SectorKey { volume: want.volume, sector };
        let (newest, is_certain) = oracle.newest(key);
        certain &= is_certain;
        let expected = if wrong == Some(at as u64) { value } else { newest };
        fill(key, expected, &mut bytes[at * SECTOR_BYTES..][..SECTOR_BYTES]);
    }
    match (wrong, certain) {
        (Some(_), _) => Compares::Different,
        (None, true) => Compares::Equal,
        (None, false) => Compares::Either,
    }
}
