//! The bytes that requests carry: the values they write, and those they expect.

use super::oracle::Oracle;
use super::playground::Want;
use super::sector::{SectorKey, fill};
use super::shared::Shared;
use crate::device::sim::SECTOR_BYTES;
use crate::request::{Buf, Op};

/// How a comparison has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compares {
    Equal,
    Different,
    /// A failed change before may have come to the medium.
    Either,
}

/// Gives each sector of a change its value, and writes the values where there are bytes.
pub(super) fn set_values(want: &Want, buf: Option<&Buf>, oracle: &mut Oracle, shared: &mut Shared) {
    for (at, sector) in want.range().enumerate() {
        let key = SectorKey { volume: want.volume, sector };
        let zero = matches!(want.op, Op::Discard | Op::WriteZeroes);
        let value = oracle.send(key, zero);
        if let Some(buf) = buf {
            let place = buf.mem().plus(want.head() + at * SECTOR_BYTES);
            fill(key, value, shared.bytes_mut(place, SECTOR_BYTES));
        }
    }
}

/// Writes what a comparison expects behind what it writes: what is there, or in one of four, in
/// one sector, what never was.
pub(super) fn set_expected(
    want: &Want,
    value: u64,
    buf: &Buf,
    oracle: &Oracle,
    shared: &mut Shared,
) -> Compares {
    let wrong = value.is_multiple_of(4).then_some(value / 4 % want.sectors.1);
    let mut certain = true;
    for (at, sector) in want.range().enumerate() {
        let key = SectorKey { volume: want.volume, sector };
        let (newest, is_certain) = oracle.newest(key);
        certain &= is_certain;
        let expected = if wrong == Some(at as u64) { value } else { newest };
        let place = buf.mem().block(1).plus(want.head() + at * SECTOR_BYTES);
        fill(key, expected, shared.bytes_mut(place, SECTOR_BYTES));
    }
    match (wrong, certain) {
        (Some(_), _) => Compares::Different,
        (None, true) => Compares::Equal,
        (None, false) => Compares::Either,
    }
}
