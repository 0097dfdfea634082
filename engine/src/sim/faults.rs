//! What goes wrong beside crashes: bits that rot on the medium.
//!
//! Metadata rots in one of its two copies only, and must be mended. Data has no
//! second copy: the examination must name exactly the rotten blocks, and reads
//! of them must fail.

use std::collections::BTreeSet;

use super::shared::SimPool;
use super::world::{BOOT, World};
use crate::check::{Depth, PendingLogs, Place, Report, check_pool, fragments};
use crate::format::layout::{CATALOG, JOURNALS};
use crate::format::superblock::COPY_OFFSETS;
use crate::journal::recover::{DamagedCopy, TablePart, read_table};
use crate::pool;
use crate::table::read::source;
use crate::units::{BLOCK_BYTES, DeviceId, SLICES, SliceId, VolumeId};

/// Bits of rotten blocks.
const BITS: u64 = (BLOCK_BYTES * 8) as u64;

impl World {
    fn bit(&mut self) -> usize {
        usize::try_from(self.rng.below(BITS)).expect("a bit of a block")
    }

    /// Rots up to three blocks of one copy of the metadata.
    pub(super) fn rot_metadata(&mut self) {
        self.outcome.flips += 1;
        let copy = self.rng.index(2);
        if self.rng.one_in(8) {
            let disk = self.rng.index(self.shared.disks.len());
            let bit = self.bit();
            let block = COPY_OFFSETS[copy] / BLOCK_BYTES as u64;
            return self.shared.disks[disk].flip(block, bit);
        }
        // A map page is mended only when it is next written: its other copy must stay good.
        let copy = self.rot_copy;
        let (device, start) = self.meta.copies[copy];
        let first = start.get() / BLOCK_BYTES as u64;
        let end = first + self.meta.bytes() / BLOCK_BYTES as u64;
        let disk = usize::from(device.get());
        self.shared.disks[disk].flush();
        let written = self.shared.disks[disk].written(first..end);
        for _ in 0..1 + self.rng.below(3) {
            let block = written[self.rng.index(written.len())];
            let bit = self.bit();
            self.shared.disks[disk].flip(block, bit);
        }
    }

    /// Rots one block that a journaled record names.
    pub(super) fn rot_data(&mut self) {
        let slice = SliceId::new(u16::try_from(self.rng.below(SLICES.into())).expect("small"));
        let mut disks = std::mem::take(&mut self.shared.disks);
        let mut io = SimPool { disks: &mut disks, fuel: None, rng: &mut self.rng };
        let pool = pool::inspect(&mut io, &self.sizes).expect("the pool was open a moment ago");
        let found = read_table(&mut io, &pool.meta, pool.table(slice), false);
        let fragments = found
            .map(|found| fragments(&mut io, &pool.meta, pool.table(slice), &found.state.fragments));
        self.shared.disks = disks;
        let mut stored = Vec::new();
        for fragment in fragments.unwrap_or_default() {
            let blocks = 0..fragment.size.blocks();
            stored.extend(blocks.filter_map(|b| source(&fragment, b)).map(|s| (s.device, s.block)));
        }
        if stored.is_empty() {
            return;
        }
        let (device, block) = stored[self.rng.index(stored.len())];
        let bit = self.bit();
        self.shared.disks[usize::from(device.get())].flip(block, bit);
        self.rotten.insert((device, block));
        self.outcome.flips += 1;
    }

    fn examine(&mut self) -> Report {
        self.outcome.checks += 1;
        let memory = (0..JOURNALS)
            .map(|slice| self.logs[usize::from(slice)].as_ref().map(|log| log.duplicate()))
            .collect();
        let logs = PendingLogs { boot: BOOT, memory };
        let mut disks = std::mem::take(&mut self.shared.disks);
        let mut io = SimPool { disks: &mut disks, fuel: None, rng: &mut self.rng };
        let report = check_pool(&mut io, &self.sizes, &logs, Depth::Deep);
        self.shared.disks = disks;
        report
    }

    /// A dead pool may be in need of repair, and hold rotten blocks, but no other damage.
    pub(super) fn examine_dead(&mut self) {
        for damage in self.examine().damage {
            let known = damage.what.is_repairable() || self.is_rotten(&damage.place).is_some();
            assert!(known, "dead pool: {}: {}", damage.place, damage.what);
        }
    }

    /// A recovered pool holds no damage but rotten blocks, which are remembered, and copies of
    /// map pages, which are mended when they are next written.
    pub(super) fn examine_recovered(&mut self) {
        let mut bad = BTreeSet::new();
        for damage in self.examine().damage {
            if let Place::Copy { at: DamagedCopy { part: TablePart::Map(_), .. }, .. } =
                damage.place
            {
                continue;
            }
            let block = self.is_rotten(&damage.place);
            let block = block.unwrap_or_else(|| {
                panic!("recovered pool: {}: {}", damage.place, damage.what);
            });
            bad.insert(block);
        }
        self.clients.bad = bad;
    }

    fn is_rotten(&self, place: &Place) -> Option<(VolumeId, u64)> {
        let Place::Block { volume, block, device, stored } = *place else { return None };
        let known: bool = self.rotten.contains(&(device, stored));
        known.then_some((volume, block))
    }

    /// An operation of a disk fails, if this world is one with faults and the time has come.
    pub(super) fn fails_now(&mut self, flush: bool) -> bool {
        let rarely = if flush { 60 } else { 150 };
        self.faulty && !self.auditing && self.rng.one_in(rarely)
    }
}

/// Used by worlds to name the catalog's log.
pub(super) const CATALOG_LOG: usize = CATALOG.get() as usize;

/// A device block.
pub(super) type DeviceBlock = (DeviceId, u64);
