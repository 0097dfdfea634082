//! Slots of one slice: free and used, chunk by chunk.
//!
//! A device's data area is cut into chunks; a slice claims whole chunks from
//! the pool and cuts each into slots of one size. Nothing of this is on disk:
//! the fragments' placements say which slots are used, hence which chunks are
//! owned. A slot must be given back only when no reader and no journaled
//! record needs it any more; a chunk goes back to the pool when it is empty.

use std::collections::HashMap;

use super::entry::SlotRef;
use super::sink::Sink;
use crate::format::layout::{slot_blocks, slot_bytes};
use crate::format::superblock::{Role, Superblock};
use crate::units::{BLOCK_BYTES, DeviceId, FragmentSize};

/// What the table knows of a device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceGeometry {
    /// Which.
    pub id: DeviceId,
    /// Tier.
    pub role: Role,
    /// First byte of chunk 0.
    pub data_offset: u64,
    /// Bytes in a chunk.
    pub chunk_bytes: u64,
    /// Number of chunks.
    pub chunks: u32,
}

impl DeviceGeometry {
    /// From a device's superblock.
    pub fn of(sb: &Superblock) -> Self {
        Self {
            id: sb.device,
            role: sb.role,
            data_offset: sb.data_offset,
            chunk_bytes: sb.chunk_bytes,
            chunks: sb.chunks,
        }
    }

    /// The chunk and slot number of `slot`, if it is a slot of that size on this device.
    pub fn locate(&self, slot: SlotRef, size: FragmentSize) -> Option<(u32, usize)> {
        let byte = slot.block.checked_mul(BLOCK_BYTES as u64)?.checked_sub(self.data_offset)?;
        let chunk = u32::try_from(byte / self.chunk_bytes).ok()?;
        let within = byte % self.chunk_bytes;
        let bytes = slot_bytes(self.role, size);
        (chunk < self.chunks && within.is_multiple_of(bytes))
            .then(|| (chunk, usize::try_from(within / bytes).expect("at most 256 slots")))
    }

    fn slot(&self, chunk: u32, index: usize, size: FragmentSize) -> SlotRef {
        let start = (self.data_offset + u64::from(chunk) * self.chunk_bytes) / BLOCK_BYTES as u64;
        let blocks = u64::from(slot_blocks(self.role, size));
        SlotRef { device: self.id, block: start + index as u64 * blocks }
    }
}

#[derive(Debug)]
struct Chunk {
    size: FragmentSize,
    /// Bit set: slot used.
    used: [u64; 4],
    count: u32,
}

fn slots_in_chunk(size: FragmentSize) -> u32 {
    1 << (FragmentSize::MAX.log2() - size.log2())
}

/// The slots that one slice owns on one device.
#[derive(Debug)]
pub struct Space {
    device: DeviceGeometry,
    chunks: HashMap<u32, Chunk>,
    /// Chunks that may have a free slot, by size class; entries may be stale.
    open: [Vec<u32>; 9],
}

fn class(size: FragmentSize) -> usize {
    usize::from(size.log2() - FragmentSize::MIN.log2())
}

/// Two fragments claim the same slot, or a slot is not on its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("slot at block {} of device {} is claimed twice or does not exist", slot.block, slot.device)]
pub struct SlotConflict {
    /// The slot.
    pub slot: SlotRef,
}

impl Space {
    /// No slots yet.
    pub fn new(device: DeviceGeometry) -> Self {
        Self { device, chunks: HashMap::new(), open: Default::default() }
    }

    /// Marks a slot that recovery found in use.
    pub fn adopt(&mut self, slot: SlotRef, size: FragmentSize) -> Result<(), SlotConflict> {
        let conflict = SlotConflict { slot };
        let (number, index) = self.device.locate(slot, size).ok_or(conflict)?;
        let fresh = !self.chunks.contains_key(&number);
        let chunk = self.chunks.entry(number).or_insert(Chunk { size, used: [0; 4], count: 0 });
        let bit = 1 << (index % 64);
        if chunk.size != size || chunk.used[index / 64] & bit != 0 {
            return Err(conflict);
        }
        chunk.used[index / 64] |= bit;
        chunk.count += 1;
        if fresh {
            self.open[class(size)].push(number);
        }
        Ok(())
    }

    /// The chunks this slice owns, in no order.
    pub fn owned(&self) -> impl Iterator<Item = u32> + '_ {
        self.chunks.keys().copied()
    }

    /// Slots in use.
    pub fn used_slots(&self) -> u64 {
        self.chunks.values().map(|chunk| u64::from(chunk.count)).sum()
    }

    /// Bytes of slots in use.
    pub fn used_bytes(&self) -> u64 {
        let bytes =
            |chunk: &Chunk| u64::from(chunk.count) * slot_bytes(self.device.role, chunk.size);
        self.chunks.values().map(bytes).sum()
    }

    /// A free slot, from an owned chunk or a newly claimed one.
    ///
    /// `urgent` may use the pool's reserve: it is for rewriting what exists.
    pub fn alloc(
        &mut self,
        size: FragmentSize,
        urgent: bool,
        sink: &mut impl Sink,
    ) -> Option<SlotRef> {
        let capacity = slots_in_chunk(size);
        let open = &mut self.open[class(size)];
        while let Some(&number) = open.last() {
            match self.chunks.get_mut(&number) {
                Some(chunk) if chunk.size == size && chunk.count < capacity => {
                    let index = first_free(&chunk.used);
                    chunk.used[index / 64] |= 1 << (index % 64);
                    chunk.count += 1;
                    return Some(self.device.slot(number, index, size));
                }
                _ => drop(open.pop()),
            }
        }
        let number = sink.claim_chunk(self.device.id, urgent)?;
        assert!(number < self.device.chunks, "the pool gave a chunk outside the device");
        let old = self.chunks.insert(number, Chunk { size, used: [1, 0, 0, 0], count: 1 });
        assert!(old.is_none(), "the pool gave chunk {number} twice");
        self.open[class(size)].push(number);
        Some(self.device.slot(number, 0, size))
    }

    /// Gives a slot back; an empty chunk returns to the pool.
    pub fn free(&mut self, slot: SlotRef, size: FragmentSize, sink: &mut impl Sink) {
        let (number, index) = self.device.locate(slot, size).expect("a slot of this device");
        let chunk = self.chunks.get_mut(&number).expect("a chunk of this slice");
        let bit = 1 << (index % 64);
        assert!(chunk.size == size && chunk.used[index / 64] & bit != 0, "slot freed twice");
        let was_full = chunk.count == slots_in_chunk(size);
        chunk.used[index / 64] &= !bit;
        chunk.count -= 1;
        if chunk.count == 0 {
            self.chunks.remove(&number);
            sink.release_chunk(self.device.id, number);
        } else if was_full {
            self.open[class(size)].push(number);
        }
    }
}

fn first_free(used: &[u64; 4]) -> usize {
    let word = used.iter().position(|word| *word != u64::MAX).expect("a free slot");
    word * 64 + used[word].trailing_ones() as usize
}
