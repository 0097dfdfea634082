//! What clients want: random requests, most of them on a few busy regions.

use std::collections::VecDeque;

use super::regime::Regime;
use crate::device::sim::{Rng, SECTOR_BYTES};
use crate::request::Op;
use crate::units::{BLOCK_BYTES, FragmentSize, SEGMENT_BYTES, VolumeId, WINDOW_BYTES};

pub(super) const PER_BLOCK: u64 = (BLOCK_BYTES / SECTOR_BYTES) as u64;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The operation.
    pub op: Op,
    /// Durable before it completes.
    pub fua: bool,
    /// On which volume.
    pub volume: VolumeId,
    /// First sector and how many.
    pub sectors: (u64, u64),
}

impl Want {
    pub(super) fn bytes(op: Op, fua: bool, volume: VolumeId, offset: u64, length: u64) -> Self {
        let sector = SECTOR_BYTES as u64;
        Self { op, fua, volume, sectors: (offset / sector, length / sector) }
    }

    /// The sectors, as a range.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.sectors.0..self.sectors.0 + self.sectors.1
    }

    /// Its bytes.
    pub(super) fn bytes_long(&self) -> usize {
        usize::try_from(self.sectors.1).expect("a window") * SECTOR_BYTES
    }

    /// It changes the volume.
    pub(super) fn changes(&self) -> bool {
        !matches!(self.op, Op::Read | Op::Flush)
    }

    /// Bytes of the first block that are not touched.
    pub(super) fn head(&self) -> usize {
        let first = self.sectors.0 * SECTOR_BYTES as u64 % BLOCK_BYTES as u64;
        usize::try_from(first).expect("below a block")
    }
}

/// Where clients write.
#[derive(Clone, Debug)]
pub struct Playground {
    /// Volumes and their sizes.
    pub volumes: Vec<(VolumeId, u64)>,
    /// Starts of the regions that get most requests, in bytes.
    pub hot: Vec<u64>,
    /// What kind of requests there are.
    pub regime: Regime,
}

impl Playground {
    /// Something a client may want; `None` if the volume is too short for it.
    ///
    /// Some requests return to one of the blocks in `wrong`.
    pub fn want(&self, wrong: &VecDeque<(VolumeId, u64)>, rng: &mut Rng) -> Option<Want> {
        let hot = self.hot[rng.index(self.hot.len())];
        if let Some((op, fua, offset, length)) = self.regime.request(rng, hot) {
            let (volume, size) = self.volumes[0];
            let length = length.min(size.checked_sub(offset)?);
            return Some(Want::bytes(op, fua, volume, offset, length));
        }
        let (volume, size) = self.volumes[rng.index(self.volumes.len())];
        let op = match rng.below(20) {
            0..=8 => Op::Write,
            9..=15 => Op::Read,
            16..=17 => Op::Flush,
            18 => Op::Discard,
            _ => Op::WriteZeroes,
        };
        if op == Op::Flush {
            return Some(Want::bytes(op, false, volume, 0, 0));
        }
        let sector = SECTOR_BYTES as u64;
        let mut offset = hot + rng.below(128) * sector;
        let mut length = match rng.below(12) {
            0..=4 => BLOCK_BYTES as u64,
            5..=9 => (1 + rng.below(12)) * sector,
            10 => (1 + rng.below(64)) * BLOCK_BYTES as u64,
            _ => (1 + rng.below(256)) * sector,
        };
        if rng.one_in(3) {
            offset -= offset % BLOCK_BYTES as u64;
        }
        if !wrong.is_empty() && rng.one_in(6) {
            let (_, block) = wrong[rng.index(wrong.len())];
            offset = block * BLOCK_BYTES as u64 + rng.below(PER_BLOCK) * sector;
            length = (1 + rng.below(PER_BLOCK)) * sector;
        } else if op == Op::Discard && rng.one_in(4) {
            offset = hot / SEGMENT_BYTES * SEGMENT_BYTES + rng.below(60) * WINDOW_BYTES;
            length = WINDOW_BYTES;
        }
        length = length.min(WINDOW_BYTES - offset % WINDOW_BYTES).min(size.checked_sub(offset)?);
        let in_a_block = length > 0 && offset % BLOCK_BYTES as u64 + length <= BLOCK_BYTES as u64;
        let op = match op {
            Op::Write if in_a_block && rng.one_in(8) => Op::CompareAndWrite,
            other => other,
        };
        Some(Want::bytes(op, rng.one_in(8), volume, offset, length))
    }
}

/// A few busy regions, across fragments and segments.
pub(super) fn playground(rng: &mut Rng, regime: Regime, fragment: FragmentSize) -> Playground {
    let regions = if fragment == FragmentSize::MAX { 24 } else { 6 };
    let windows = 3 * SEGMENT_BYTES / WINDOW_BYTES * 8;
    let mut hot = regime.regions(rng);
    if hot.is_empty() {
        let count = 1 + rng.below(regions);
        let region = |_| rng.below(windows) * WINDOW_BYTES % (40 * SEGMENT_BYTES);
        hot = (0..count).map(region).collect();
    }
    Playground { volumes: Vec::new(), hot, regime }
}
