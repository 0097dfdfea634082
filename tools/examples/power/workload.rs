//! What the clients do, as a function of seed, connection and batch number.
//!
//! A connection sends a batch at once and waits for all of it before the next.
//! No two operations of a batch touch the same block, so the state after each
//! batch is known, whatever the order in which its operations were done.

use std::collections::HashSet;

use crate::content::BLOCK_SECTORS;
use crate::random::Random;

/// Clients of the server.
pub const CONNECTIONS: u32 = 4;
/// Names, MiB and fragment sizes of the volumes.
pub const VOLUMES: [(&str, u64, &str); 2] = [("vm0", 64, "256KiB"), ("vm1", 32, "64KiB")];

const MIB_SECTORS: u64 = (1 << 20) / 512;
/// Longest operation.
const MAX_BLOCKS: u64 = 64;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Contents of the batch's number as generation; durable at its reply if `fua`.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Reads as zeros afterwards.
    Trim,
    /// Zeros.
    WriteZeroes,
    /// Makes durable what was answered before it was sent.
    Flush,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// What it does.
    pub action: Action,
    /// First sector, in the volume.
    pub sector: u64,
    /// Sectors; 0 for a flush.
    pub sectors: u64,
}

impl Op {
    /// The blocks that it touches.
    pub fn blocks(&self) -> std::ops::Range<u64> {
        self.sector / BLOCK_SECTORS..(self.sector + self.sectors).div_ceil(BLOCK_SECTORS)
    }
}

/// A connection's own part of a volume.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// Index in [`VOLUMES`].
    pub volume: u32,
    /// First block.
    pub first: u64,
    /// Blocks.
    pub blocks: u64,
}

/// Where a connection works: half a volume, so that two share segments' slices.
pub fn region(connection: u32) -> Region {
    let volume = connection % 2;
    let (_, mib, _) = VOLUMES[volume as usize];
    let blocks = mib * MIB_SECTORS / BLOCK_SECTORS / 2;
    Region { volume, first: u64::from(connection / 2) * blocks, blocks }
}

/// A batch; numbers start at 1.
pub fn batch(seed: u64, connection: u32, number: u32) -> Vec<Op> {
    let mut random = Random::of(&[seed, u64::from(connection), u64::from(number)]);
    let region = region(connection);
    let flush = Op { action: Action::Flush, sector: 0, sectors: 0 };
    if random.chance(8) {
        return vec![flush];
    }
    let mut touched = HashSet::new();
    let mut ops = Vec::new();
    for _ in 0..=random.below(12) {
        let op = operation(&mut random, region);
        if op.blocks().all(|block| !touched.contains(&block)) {
            touched.extend(op.blocks());
            ops.push(op);
        }
    }
    if random.chance(8) {
        let at = random.below(ops.len() as u64 + 1);
        ops.insert(usize::try_from(at).expect("a short batch"), flush);
    }
    ops
}

fn operation(random: &mut Random, region: Region) -> Op {
    // Most of it in a small part, so that blocks are overwritten often.
    let within = if random.chance(75) { region.blocks / 16 } else { region.blocks };
    let most = if random.chance(10) { MAX_BLOCKS } else { 4 };
    let blocks = 1 + random.below(most);
    let first = region.first + random.below(within - blocks + 1);
    let (mut sector, mut sectors) = (first * BLOCK_SECTORS, blocks * BLOCK_SECTORS);
    if random.chance(40) {
        // Not whole blocks: a read-modify-write at both ends.
        let skip = random.below(BLOCK_SECTORS);
        sector += skip;
        sectors = 1 + random.below(sectors - skip);
    }
    let action = match random.below(100) {
        0..8 => Action::Trim,
        8..12 => Action::WriteZeroes,
        12..15 => Action::Write { fua: true },
        _ => Action::Write { fua: false },
    };
    Op { action, sector, sectors }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_repeatable_disjoint_and_inside_their_region() {
        for (connection, number) in (0..CONNECTIONS).flat_map(|c| (1..500).map(move |n| (c, n))) {
            let ops = batch(3, connection, number);
            assert_eq!(ops, batch(3, connection, number));
            let region = region(connection);
            let mut seen = HashSet::new();
            for block in ops.iter().flat_map(Op::blocks) {
                assert!((region.first..region.first + region.blocks).contains(&block));
                assert!(seen.insert(block), "two operations on one block");
            }
        }
    }
}
