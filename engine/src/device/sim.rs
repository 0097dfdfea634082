//! A simulated disk: volatile cache, reordering, torn writes, power cuts, faults.
//!
//! Operations complete in any order the world chooses. A completed write sits
//! in the cache until a flush that began after its completion ends; a power cut
//! keeps any subset of cached and unfinished writes, each torn at the disk's
//! power-fail unit. DMA moves its bytes at completion, so memory reused too
//! early shows. Faults are chosen by the world ([`How`]); the disk remembers
//! which blocks they made rotten. Bytes are kept sparsely. No time passes here.

mod medium;
mod rng;
#[cfg(test)]
mod tests;

pub use rng::Rng;

use medium::Medium;

use crate::table::sink::{Io, IoKind};
use crate::units::{BLOCK_BYTES, CoreId, Nanos};

/// Bytes of a sector, what clients address.
pub const SECTOR_BYTES: usize = 512;

/// How an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// As it should.
    Well,
    /// It moves other blocks than it was asked to: those from this one on.
    Astray(u64),
    /// A flush or FUA write that reports success and makes nothing durable.
    Lying,
}

/// An operation that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// What it was.
    pub io: Io,
    /// Who asked.
    pub owner: CoreId,
    /// A fault gave it other bytes than were written there.
    pub rotten: bool,
}

#[derive(Debug)]
struct Queued {
    io: Io,
    owner: CoreId,
    /// The medium's clock when it was submitted.
    began: u64,
    /// It does not end before.
    ready: Nanos,
}

/// One simulated disk.
#[derive(Debug, Default)]
pub struct SimDisk {
    medium: Medium,
    queue: Vec<Queued>,
    /// A power cut keeps or loses whole blocks, not sectors.
    whole_blocks: bool,
    /// Synchronous reads of the first block return the second.
    misled: Vec<(u64, u64)>,
}

impl SimDisk {
    /// An empty disk; `whole_blocks`: its power-fail unit is 4096 bytes, not 512.
    pub fn new(whole_blocks: bool) -> Self {
        Self { whole_blocks, ..Self::default() }
    }

    /// Starts an operation.
    pub fn submit(&mut self, io: Io, owner: CoreId) {
        let (began, ready) = (self.medium.clock(), Nanos::new(0));
        self.queue.push(Queued { io, owner, began, ready });
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// The `at`th operation under way.
    pub fn peek(&self, at: usize) -> &Io {
        &self.queue[at].io
    }

    /// Who asked for the `at`th operation.
    pub fn owner(&self, at: usize) -> CoreId {
        self.queue[at].owner
    }

    /// The `at`th operation does not end before `until`.
    pub fn delay(&mut self, at: usize, until: Nanos) {
        self.queue[at].ready = until;
    }

    /// True if the `at`th operation may end now.
    pub fn is_ready(&self, at: usize, now: Nanos) -> bool {
        self.queue[at].ready <= now
    }

    /// When the first operation may end.
    pub fn next_ready(&self) -> Option<Nanos> {
        self.queue.iter().map(|queued| queued.ready).min()
    }

    /// Completes the `at`th operation; `memory` is what it moves to or from.
    pub fn complete(&mut self, at: usize, memory: &mut [u8], how: How) -> Ended {
        let Queued { io, owner, began, .. } = self.queue.swap_remove(at);
        let first = io.offset.get() / BLOCK_BYTES as u64;
        let mut rotten = false;
        match (io.kind, how) {
            (IoKind::Read, How::Astray(other)) => {
                for (block, out) in (other..).zip(memory.chunks_exact_mut(BLOCK_BYTES)) {
                    self.medium.read(block, out);
                }
                rotten = true;
            }
            (IoKind::Read, _) => {
                for (block, out) in (first..).zip(memory.chunks_exact_mut(BLOCK_BYTES)) {
                    rotten |= self.medium.read(block, out);
                }
            }
            (IoKind::Write { fua }, how) => {
                let (target, astray) = match how {
                    How::Astray(other) => (other, true),
                    _ => (first, false),
                };
                for ((block, meant), bytes) in
                    (target..).zip(first..).zip(memory.chunks_exact(BLOCK_BYTES))
                {
                    if astray {
                        self.medium.spoil(meant);
                    }
                    self.medium.write(block, bytes, astray);
                    if fua && how != How::Lying {
                        self.medium.harden(block, u64::MAX);
                    }
                }
            }
            (IoKind::Flush, How::Lying) => {}
            (IoKind::Flush, _) => self.medium.flush(began),
        }
        Ended { io, owner, rotten }
    }

    /// Fails the `at`th operation. Of a write, any blocks may be in the cache; a flush may have
    /// dropped, for good, anything it should have made durable.
    pub fn fail(&mut self, at: usize, bytes: &[u8], rng: &mut Rng) -> Ended {
        let Queued { io, owner, began, .. } = self.queue.swap_remove(at);
        let first = io.offset.get() / BLOCK_BYTES as u64;
        match io.kind {
            IoKind::Read => {}
            IoKind::Write { .. } => {
                for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
                    if rng.one_in(2) {
                        self.medium.write(block, bytes, false);
                    }
                }
            }
            IoKind::Flush => self.medium.drop_some(began, rng),
        }
        Ended { io, owner, rotten: false }
    }

    /// Flips a bit of a block, where its newest bytes are.
    pub fn flip(&mut self, block: u64, bit: usize) {
        self.medium.flip(block, bit);
    }

    /// True if a fault has given the block other bytes than were written to it last.
    pub fn is_rotten(&self, block: u64) -> bool {
        self.medium.is_rotten(block)
    }

    /// The blocks in a range that were ever written, in order.
    pub fn written(&self, range: std::ops::Range<u64>) -> Vec<u64> {
        self.medium.written(range)
    }

    /// Synchronous reads of `block` return `other` until [`SimDisk::lead_right`].
    pub fn mislead(&mut self, block: u64, other: u64) {
        self.misled.push((block, other));
    }

    /// Reads go where they should again.
    pub fn lead_right(&mut self) {
        self.misled.clear();
    }

    /// Reads the newest completed bytes of a block.
    pub fn read_block(&self, block: u64, out: &mut [u8]) {
        let misled = self.misled.iter().find(|(from, _)| *from == block);
        self.medium.read(misled.map_or(block, |(_, other)| *other), out);
    }

    /// Reads consecutive blocks.
    pub fn read_run(&self, first: u64, out: &mut [u8]) {
        let end = first + (out.len() / BLOCK_BYTES) as u64;
        if out.len() > BLOCK_BYTES && self.medium.is_empty(first..end) {
            return out.fill(0);
        }
        for (block, out) in (first..end).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
            self.read_block(block, out);
        }
    }

    /// Completes a write of one block into the cache.
    pub fn write_block(&mut self, block: u64, bytes: &[u8]) {
        self.medium.write(block, bytes, false);
    }

    /// Everything completed so far becomes durable.
    pub fn flush(&mut self) {
        self.medium.flush(u64::MAX);
    }

    /// The process dies: what it had started ends, or was never handed over.
    pub fn kill(&mut self, rng: &mut Rng, memory: &dyn Fn(&Io) -> Vec<u8>) {
        for Queued { io, .. } in std::mem::take(&mut self.queue) {
            if matches!(io.kind, IoKind::Write { .. }) && rng.one_in(2) {
                self.write_all(&io, &memory(&io));
            }
        }
    }

    /// The power fails: of everything not durable, any unit may have been written or not.
    pub fn power_cut(&mut self, rng: &mut Rng, memory: &dyn Fn(&Io) -> Vec<u8>) {
        for Queued { io, .. } in std::mem::take(&mut self.queue) {
            if matches!(io.kind, IoKind::Write { .. }) {
                self.write_all(&io, &memory(&io));
            }
        }
        let unit_bytes = if self.whole_blocks { BLOCK_BYTES } else { SECTOR_BYTES };
        self.medium.power_cut(unit_bytes, rng);
    }

    fn write_all(&mut self, io: &Io, bytes: &[u8]) {
        let first = io.offset.get() / BLOCK_BYTES as u64;
        for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
            self.write_block(block, bytes);
        }
    }
}
