//! A simulated disk: volatile cache, reordering, torn sectors, power cuts.
//!
//! Operations complete in any order the seed chooses. A completed write sits in
//! the cache until a flush that began after its completion ends; a power cut
//! keeps any subset of cached and unfinished writes, each torn at 512 bytes.
//! DMA moves its bytes at completion, so memory reused too early shows. Bytes
//! are kept sparsely. No time passes here: the world decides what happens next.

use std::collections::{BTreeMap, HashMap};

use crate::table::sink::{Io, IoKind};
use crate::units::{BLOCK_BYTES, CoreId};

/// Bytes that a power cut keeps or loses as one.
pub const SECTOR_BYTES: usize = 512;
const SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;

type Block = Box<[u8; BLOCK_BYTES]>;

/// SplitMix64: the one source of randomness of a simulation.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }
    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("an index")
    }
    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug)]
struct Cached {
    order: u64,
    bytes: Block,
}

/// One simulated disk.
#[derive(Debug, Default)]
pub struct SimDisk {
    durable: HashMap<u64, Block>,
    /// Completed but not flushed: per block, in order of completion.
    cache: BTreeMap<u64, Vec<Cached>>,
    clock: u64,
    /// Operations under way, with the cache clock at which they began.
    queue: Vec<(Io, CoreId, u64)>,
}

impl SimDisk {
    /// Starts an operation.
    pub fn submit(&mut self, io: Io, owner: CoreId) {
        self.queue.push((io, owner, self.clock));
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// Completes the `at`th operation; `memory` gives its bytes.
    pub fn complete(&mut self, at: usize, memory: &mut [u8]) -> (Io, CoreId) {
        let (io, owner, began) = self.queue.swap_remove(at);
        let first = io.offset.get() / BLOCK_BYTES as u64;
        match io.kind {
            IoKind::Read => {
                for (block, out) in (first..).zip(memory.chunks_exact_mut(BLOCK_BYTES)) {
                    self.read_block(block, out);
                }
            }
            IoKind::Write { fua } => {
                for (block, bytes) in (first..).zip(memory.chunks_exact(BLOCK_BYTES)) {
                    self.write_block(block, bytes);
                    if fua {
                        self.harden(block, u64::MAX);
                    }
                }
            }
            IoKind::Flush => self.flush_before(began),
        }
        (io, owner)
    }

    /// Fails the `at`th operation. Of a write, any blocks may be in the cache; a flush may have
    /// dropped, for good, anything it should have made durable.
    pub fn fail(&mut self, at: usize, bytes: &[u8], rng: &mut Rng) -> (Io, CoreId) {
        let (io, owner, began) = self.queue.swap_remove(at);
        let first = io.offset.get() / BLOCK_BYTES as u64;
        match io.kind {
            IoKind::Read => {}
            IoKind::Write { .. } => {
                for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
                    if rng.one_in(2) {
                        self.write_block(block, bytes);
                    }
                }
            }
            IoKind::Flush => self.cache.retain(|_, writes| {
                if rng.one_in(2) {
                    writes.retain(|write| write.order > began);
                }
                !writes.is_empty()
            }),
        }
        (io, owner)
    }

    /// Flips a bit of a block on the medium; nothing is cached while no process runs.
    pub fn flip(&mut self, block: u64, bit: usize) {
        self.flush();
        let bytes = self.durable.entry(block).or_insert_with(|| Box::new([0; BLOCK_BYTES]));
        bytes[bit / 8] ^= 1 << (bit % 8);
    }

    /// The blocks in a range that were ever written, in order.
    pub fn written(&self, range: std::ops::Range<u64>) -> Vec<u64> {
        let mut blocks: Vec<_> =
            self.durable.keys().copied().filter(|block| range.contains(block)).collect();
        blocks.sort_unstable();
        blocks
    }

    /// The operation that the `at`th slot of the queue holds.
    pub fn peek(&self, at: usize) -> &Io {
        &self.queue[at].0
    }

    /// Reads the newest completed bytes of a block.
    pub fn read_block(&self, block: u64, out: &mut [u8]) {
        let cached = self.cache.get(&block).and_then(|writes| writes.last());
        match cached.map(|write| &write.bytes).or_else(|| self.durable.get(&block)) {
            Some(bytes) => out.copy_from_slice(&bytes[..]),
            None => out.fill(0),
        }
    }

    /// Completes a write of one block into the cache.
    pub fn write_block(&mut self, block: u64, bytes: &[u8]) {
        self.clock += 1;
        let bytes = Box::new(bytes.try_into().expect("a block"));
        self.cache.entry(block).or_default().push(Cached { order: self.clock, bytes });
    }

    /// Everything completed so far becomes durable.
    pub fn flush(&mut self) {
        self.flush_before(self.clock);
    }

    fn flush_before(&mut self, began: u64) {
        let blocks: Vec<u64> = self.cache.keys().copied().collect();
        for block in blocks {
            self.harden(block, began);
        }
    }

    fn harden(&mut self, block: u64, began: u64) {
        let Some(writes) = self.cache.get_mut(&block) else { return };
        let count = writes.iter().take_while(|write| write.order <= began).count();
        if let Some(last) = writes.drain(..count).next_back() {
            self.durable.insert(block, last.bytes);
        }
        if writes.is_empty() {
            self.cache.remove(&block);
        }
    }

    /// The process dies: what it had started ends, or was never handed over.
    pub fn kill(&mut self, rng: &mut Rng, memory: &dyn Fn(&Io) -> Vec<u8>) {
        for (io, ..) in std::mem::take(&mut self.queue) {
            if matches!(io.kind, IoKind::Write { .. }) && rng.one_in(2) {
                let first = io.offset.get() / BLOCK_BYTES as u64;
                for (block, bytes) in (first..).zip(memory(&io).chunks_exact(BLOCK_BYTES)) {
                    self.write_block(block, bytes);
                }
            }
        }
    }

    /// The power fails: of everything not durable, any sector may have been written or not.
    pub fn power_cut(&mut self, rng: &mut Rng, memory: &dyn Fn(&Io) -> Vec<u8>) {
        for (io, ..) in std::mem::take(&mut self.queue) {
            if matches!(io.kind, IoKind::Write { .. }) {
                let first = io.offset.get() / BLOCK_BYTES as u64;
                for (block, bytes) in (first..).zip(memory(&io).chunks_exact(BLOCK_BYTES)) {
                    self.write_block(block, bytes);
                }
            }
        }
        let lose_all = rng.one_in(4);
        for (block, writes) in std::mem::take(&mut self.cache) {
            let bytes = self.durable.entry(block).or_insert_with(|| Box::new([0; BLOCK_BYTES]));
            for write in writes {
                let fate = if lose_all { 0 } else { rng.below(4) };
                for sector in 0..SECTORS {
                    let keep = match fate {
                        0 | 1 => false,
                        2 => true,
                        _ => rng.one_in(2),
                    };
                    if keep {
                        let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                        bytes[range.clone()].copy_from_slice(&write.bytes[range]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::sink::Mem;
    use crate::units::{DeviceId, DeviceOffset};

    fn io(kind: IoKind) -> Io {
        Io {
            device: DeviceId::new(0),
            kind,
            offset: DeviceOffset::new(0),
            mem: Mem { arena: 0, byte: 0 },
            bytes: 4096,
            token: 0,
            background: false,
        }
    }

    #[test]
    fn a_flush_covers_what_completed_before_it_began() {
        let mut disk = SimDisk::default();
        disk.write_block(0, &[1; BLOCK_BYTES]);
        disk.submit(io(IoKind::Flush), CoreId::new(0));
        disk.write_block(0, &[2; BLOCK_BYTES]);
        disk.complete(0, &mut []);
        let mut out = [0; BLOCK_BYTES];
        disk.read_block(0, &mut out);
        assert_eq!(out[0], 2);
        disk.cache.clear();
        disk.read_block(0, &mut out);
        assert_eq!(out[0], 1, "the later write was only cached");
    }

    #[test]
    fn a_power_cut_tears_at_sectors_only() {
        let mut torn = false;
        for seed in 0..64 {
            let mut disk = SimDisk::default();
            disk.write_block(0, &[1; BLOCK_BYTES]);
            disk.flush();
            disk.write_block(0, &[2; BLOCK_BYTES]);
            disk.power_cut(&mut Rng::new(seed), &|_| Vec::new());
            let mut out = [0; BLOCK_BYTES];
            disk.read_block(0, &mut out);
            for sector in out.chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
            }
            torn |= out.contains(&1) && out.contains(&2);
        }
        assert!(torn);
    }
}
