//! What a simulated disk holds: durable blocks under a volatile cache of writes.
//!
//! Every version of a block knows whether a fault has made it another than the
//! one that was written there (*rotten*): whoever reads it must notice.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Rng;
use crate::units::BLOCK_BYTES;

pub(super) type Block = Box<[u8; BLOCK_BYTES]>;

fn block_of(bytes: &[u8]) -> Block {
    bytes.to_vec().into_boxed_slice().try_into().expect("a block")
}

fn zeros() -> Block {
    block_of(&[0; BLOCK_BYTES])
}

#[derive(Debug)]
struct Version {
    bytes: Block,
    rotten: bool,
}

#[derive(Debug)]
struct Cached {
    order: u64,
    version: Version,
}

/// Durable blocks and the writes that are not.
#[derive(Debug, Default)]
pub(super) struct Medium {
    durable: FxHashMap<u64, Version>,
    /// Completed but not flushed: per block, in order of completion.
    cache: BTreeMap<u64, Vec<Cached>>,
    clock: u64,
    /// Regions that hold something: most journals are never written.
    regions: FxHashSet<u64>,
}

/// log2 of the blocks in a region.
const REGION_SHIFT: u32 = 4;

impl Medium {
    /// Counts completed writes: names a moment.
    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    /// True if nothing was ever written to the blocks of a range. May be false though nothing was.
    pub(super) fn is_empty(&self, range: std::ops::Range<u64>) -> bool {
        let regions = range.start >> REGION_SHIFT..=(range.end - 1) >> REGION_SHIFT;
        regions.into_iter().all(|region| !self.regions.contains(&region))
    }

    fn newest(&self, block: u64) -> Option<&Version> {
        let cached = self.cache.get(&block).and_then(|writes| writes.last());
        cached.map(|write| &write.version).or_else(|| self.durable.get(&block))
    }

    fn newest_mut(&mut self, block: u64) -> &mut Version {
        self.regions.insert(block >> REGION_SHIFT);
        match self.cache.get_mut(&block).and_then(|writes| writes.last_mut()) {
            Some(write) => &mut write.version,
            None => self
                .durable
                .entry(block)
                .or_insert_with(|| Version { bytes: zeros(), rotten: false }),
        }
    }

    /// Copies the newest completed bytes of a block; true if they are rotten.
    pub(super) fn read(&self, block: u64, out: &mut [u8]) -> bool {
        match self.newest(block) {
            Some(version) => {
                out.copy_from_slice(&version.bytes[..]);
                version.rotten
            }
            None => {
                out.fill(0);
                false
            }
        }
    }

    pub(super) fn is_rotten(&self, block: u64) -> bool {
        self.newest(block).is_some_and(|version| version.rotten)
    }

    /// Completes a write of one block into the cache.
    pub(super) fn write(&mut self, block: u64, bytes: &[u8], rotten: bool) {
        self.clock += 1;
        self.regions.insert(block >> REGION_SHIFT);
        let version = Version { bytes: block_of(bytes), rotten };
        self.cache.entry(block).or_default().push(Cached { order: self.clock, version });
    }

    /// The block is from now on another than the one that its writer believes in.
    pub(super) fn spoil(&mut self, block: u64) {
        self.newest_mut(block).rotten = true;
    }

    pub(super) fn flip(&mut self, block: u64, bit: usize) {
        let version = self.newest_mut(block);
        version.bytes[bit / 8] ^= 1 << (bit % 8);
        version.rotten = true;
    }

    /// Blocks in a range that hold something, in order.
    pub(super) fn written(&self, range: std::ops::Range<u64>) -> Vec<u64> {
        let durable = self.durable.keys().copied().filter(|block| range.contains(block));
        let cached = self.cache.range(range.clone()).map(|(block, _)| *block);
        let mut blocks: Vec<_> = durable.chain(cached).collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    /// Writes of a block that completed up to `began` become durable.
    pub(super) fn harden(&mut self, block: u64, began: u64) {
        let Some(writes) = self.cache.get_mut(&block) else { return };
        let count = writes.iter().take_while(|write| write.order <= began).count();
        if let Some(last) = writes.drain(..count).next_back() {
            self.durable.insert(block, last.version);
        }
        if writes.is_empty() {
            self.cache.remove(&block);
        }
    }

    /// The same for all blocks.
    pub(super) fn flush(&mut self, began: u64) {
        let Self { durable, cache, .. } = self;
        cache.retain(|block, writes| {
            let count = writes.iter().take_while(|write| write.order <= began).count();
            if let Some(last) = writes.drain(..count).next_back() {
                durable.insert(*block, last.version);
            }
            !writes.is_empty()
        });
    }

    /// Drops, for good, any writes that completed up to `began`; what shows instead is rotten.
    pub(super) fn drop_some(&mut self, began: u64, rng: &mut Rng) {
        let mut stale = Vec::new();
        self.cache.retain(|block, writes| {
            let before = writes.len();
            if rng.one_in(2) {
                writes.retain(|write| write.order > began);
            }
            if writes.len() < before {
                stale.push(*block);
            }
            !writes.is_empty()
        });
        for block in stale {
            if !self.cache.contains_key(&block) {
                self.spoil(block);
            }
        }
    }

    /// The power fails: of everything not durable, any unit may have been written or not.
    pub(super) fn power_cut(&mut self, unit_bytes: usize, rng: &mut Rng) {
        let lose_all = rng.one_in(4);
        for (block, writes) in std::mem::take(&mut self.cache) {
            for Cached { version, .. } in writes {
                let fate = if lose_all { 0 } else { rng.below(4) };
                if fate <= 1 {
                    continue;
                }
                let kept = |rng: &mut Rng| fate == 2 || rng.one_in(2);
                let old = self
                    .durable
                    .entry(block)
                    .or_insert_with(|| Version { bytes: zeros(), rotten: false });
                let mut whole = true;
                for at in (0..BLOCK_BYTES).step_by(unit_bytes) {
                    if kept(rng) {
                        let range = at..at + unit_bytes;
                        old.bytes[range.clone()].copy_from_slice(&version.bytes[range]);
                    } else {
                        whole = false;
                    }
                }
                old.rotten = version.rotten || old.rotten && !whole;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn forget_cache(&mut self) {
        self.cache.clear();
    }
}
