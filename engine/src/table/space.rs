//! Slots of one slice: free and used, chunk by chunk.
//!
//! A device's data area is cut into chunks; a slice claims whole chunks from
//! the pool and cuts each into slots of one size. Nothing of this is on disk:
//! the fragments' placements say which slots are used, hence which chunks are
//! owned. A slot must be given back only when no reader and no journaled
//! record needs it any more; a chunk goes back to the pool when it is empty.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

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

/// A chunk of at most 64 slots keeps a bit for each itself, a larger one an index of
/// [`Space::many`]: there are many chunks, and few with so small slots.
#[derive(Debug)]
struct Chunk {
    used: [u32; 2],
    count: u16,
    size: FragmentSize,
}

const _: () = assert!(size_of::<(u32, Chunk)>() == 16);

/// Used slots of a chunk with more than 64 of them.
type Many = [u64; 4];

impl Chunk {
    fn new(size: FragmentSize, many: &mut Vec<Many>, vacant: &mut Vec<u32>) -> Self {
        let mut used = [0, 0];
        if slots_in_chunk(size) > 64 {
            used[0] = vacant.pop().unwrap_or_else(|| {
                many.push([0; 4]);
                u32::try_from(many.len() - 1).expect("fewer than 2^32 chunks")
            });
        }
        Self { used, count: 0, size }
    }

    /// Changes the word of used slots `at`, of four; returns what `change` does.
    fn word<T>(&mut self, at: usize, many: &mut [Many], change: impl Fn(&mut u64) -> T) -> T {
        if slots_in_chunk(self.size) > 64 {
            return change(&mut many[self.used[0] as usize][at]);
        }
        let [low, high] = self.used.map(u64::from);
        let mut word = low | high << 32;
        let done = change(&mut word);
        let half = |word: u64| u32::try_from(word & 0xffff_ffff).expect("32 bits");
        self.used = [half(word), half(word >> 32)];
        done
    }

    fn take_first_free(&mut self, many: &mut [Many]) -> usize {
        let words = (slots_in_chunk(self.size) as usize).div_ceil(64);
        let free = |word: &mut u64| {
            let bit = word.trailing_ones();
            (bit < 64).then(|| {
                *word |= 1 << bit;
                bit as usize
            })
        };
        let found = (0..words).find_map(|at| Some(at * 64 + self.word(at, many, free)?));
        self.count += 1;
        found.expect("a free slot")
    }

    /// Sets or clears a slot's bit; returns what it was.
    fn replace(&mut self, slot: usize, used: bool, many: &mut [Many]) -> bool {
        let bit = 1u64 << (slot % 64);
        self.word(slot / 64, many, |word| {
            let was = *word & bit != 0;
            *word = if used { *word | bit } else { *word & !bit };
            was
        })
    }
}

fn slots_in_chunk(size: FragmentSize) -> u32 {
    1 << (FragmentSize::MAX.log2() - size.log2())
}

/// The slots that one slice owns on one device.
#[derive(Debug)]
pub struct Space {
    device: DeviceGeometry,
    chunks: HashMap<u32, Chunk, FxBuildHasher>,
    many: Vec<Many>,
    many_vacant: Vec<u32>,
    /// Chunks that may have a free slot, by size class; entries may be stale.
    open: [Vec<u32>; 9],
    /// A chunk that is being emptied: no slot of it is given out.
    closed: Option<u32>,
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
        Self {
            device,
            chunks: HashMap::default(),
            many: Vec::new(),
            many_vacant: Vec::new(),
            open: Default::default(),
            closed: None,
        }
    }

    /// Marks a slot that recovery found in use.
    pub fn adopt(&mut self, slot: SlotRef, size: FragmentSize) -> Result<(), SlotConflict> {
        let conflict = SlotConflict { slot };
        let (number, index) = self.device.locate(slot, size).ok_or(conflict)?;
        let fresh = !self.chunks.contains_key(&number);
        let Self { chunks, many, many_vacant, .. } = self;
        let chunk = chunks.entry(number).or_insert_with(|| Chunk::new(size, many, many_vacant));
        if chunk.size != size || chunk.replace(index, true, many) {
            return Err(conflict);
        }
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
                Some(chunk)
                    if chunk.size == size
                        && u32::from(chunk.count) < capacity
                        && self.closed != Some(number) =>
                {
                    let index = chunk.take_first_free(&mut self.many);
                    return Some(self.device.slot(number, index, size));
                }
                _ => drop(open.pop()),
            }
        }
        let number = sink.claim_chunk(self.device.id, urgent)?;
        assert!(number < self.device.chunks, "the pool gave a chunk outside the device");
        let mut chunk = Chunk::new(size, &mut self.many, &mut self.many_vacant);
        let index = chunk.take_first_free(&mut self.many);
        let old = self.chunks.insert(number, chunk);
        assert!(old.is_none(), "the pool gave chunk {number} twice");
        self.open[class(size)].push(number);
        Some(self.device.slot(number, index, size))
    }

    /// True if a slot of that size is free in an owned chunk.
    pub fn has_free(&self, size: FragmentSize) -> bool {
        let capacity = slots_in_chunk(size);
        let free = |number: &u32| {
            self.chunks
                .get(number)
                .is_some_and(|chunk| chunk.size == size && u32::from(chunk.count) < capacity)
        };
        self.open[class(size)].iter().any(free)
    }

    /// Gives no more slots of a chunk out, until it is empty or opened again.
    pub fn close(&mut self, chunk: u32) {
        self.open_all();
        self.closed = Some(chunk);
    }

    /// The closed chunk gives slots out again.
    pub fn open_all(&mut self) {
        if let Some(number) = self.closed.take()
            && let Some(chunk) = self.chunks.get(&number)
            && u32::from(chunk.count) < slots_in_chunk(chunk.size)
        {
            self.open[class(chunk.size)].push(number);
        }
    }

    /// Gives a slot back. A chunk that is empty by it is the slice's no more: the caller gives
    /// it to the pool.
    #[must_use]
    pub fn free(&mut self, slot: SlotRef, size: FragmentSize) -> Option<u32> {
        let (number, index) = self.device.locate(slot, size).expect("a slot of this device");
        let chunk = self.chunks.get_mut(&number).expect("a chunk of this slice");
        assert!(
            chunk.size == size && chunk.replace(index, false, &mut self.many),
            "slot freed twice"
        );
        let was_full = u32::from(chunk.count) == slots_in_chunk(size);
        chunk.count -= 1;
        if chunk.count == 0 {
            if slots_in_chunk(size) > 64 {
                self.many_vacant.push(chunk.used[0]);
            }
            self.chunks.remove(&number);
            self.closed.take_if(|closed| *closed == number);
            return Some(number);
        }
        if was_full {
            self.open[class(size)].push(number);
        }
        None
    }
}
