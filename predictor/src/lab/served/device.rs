//! The head of the imagined device, which serves what it is handed in order.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ops::Range;

use super::super::disk::Model;
use super::super::tier::Key;

/// Demand that the head is given before a read of a stage that waits for it to be idle.
pub const MAX_PASSED_OVER: u32 = 32;

/// log2 of the bytes of a block.
pub(super) const BLOCK_SHIFT: u8 = 12;

/// Some blocks of a fragment.
#[derive(Default)]
pub(super) struct Blocks(Vec<u64>);

impl Blocks {
    pub fn insert(&mut self, blocks: Range<u32>) {
        for block in blocks {
            let word = block as usize / 64;
            if self.0.len() <= word {
                self.0.resize(word + 1, 0);
            }
            self.0[word] |= 1 << (block % 64);
        }
    }

    pub fn contains(&self, block: u32) -> bool {
        self.0.get(block as usize / 64).is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    pub fn covers(&self, mut blocks: Range<u32>) -> bool {
        blocks.all(|block| self.contains(block))
    }
}

/// A read of a client within a fragment, by number.
pub(super) type Part = u64;

/// A read of the head.
pub(super) enum Read {
    Demand(Part),
    Stage(Key, Range<u32>),
}

/// One head.
pub(super) struct Device {
    pub model: Model,
    position: Option<(u32, u64)>,
    free_ns: u64,
    /// Time that it has been given work for.
    pub busy_ns: u64,
    /// What it was handed, with the ends.
    reads: VecDeque<(u64, Read)>,
    /// Demand among it, and since the last read of a stage.
    demand: u32,
    passed_over: u32,
}

impl Device {
    pub fn new(model: Model) -> Device {
        let reads = VecDeque::new();
        Device { model, position: None, free_ns: 0, busy_ns: 0, reads, demand: 0, passed_over: 0 }
    }

    /// True if a read of a stage that nobody waits for may be handed over.
    pub fn is_free(&self) -> bool {
        self.demand == 0 || self.passed_over >= MAX_PASSED_OVER
    }

    /// The next read that has ended by then, and when.
    pub fn ended(&mut self, until: u64) -> Option<(u64, Read)> {
        let (end, read) = self.reads.pop_front_if(|(end, _)| *end <= until)?;
        self.demand -= u32::from(matches!(read, Read::Demand(_)));
        Some((end, read))
    }

    /// It is given a read.
    pub fn hand(&mut self, now: u64, volume: u32, bytes: Range<u64>, read: Read) {
        let is_near = self.position.is_some_and(|(of, position)| {
            of == volume && position.abs_diff(bytes.start) <= self.model.near_bytes
        });
        let seek_ns = if is_near { 0 } else { self.model.seek_ns };
        let length = bytes.end - bytes.start;
        let service_ns = seek_ns + length * 1_000_000_000 / self.model.bytes_per_second;
        self.position = Some((volume, bytes.end));
        self.busy_ns += service_ns;
        self.free_ns = self.free_ns.max(now) + service_ns;
        match read {
            Read::Demand(_) => {
                self.demand += 1;
                self.passed_over += 1;
            }
            Read::Stage(..) => self.passed_over = 0,
        }
        self.reads.push_back((self.free_ns, read));
    }
}
