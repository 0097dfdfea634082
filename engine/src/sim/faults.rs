//! What goes wrong beside crashes, and what it excuses.
//!
//! Metadata is hit in one of its two copies only, always the same, and must be
//! mended. Data has no second copy: whoever reads it
//! must notice. The disks remember which blocks are rotten, so an error is
//! excused exactly where a device has returned wrong bytes.

use super::plan::Fault;
use super::trace::{Touches, sectors_of};
use super::world::World;
use crate::device::sim::{Ended, How, Rng};
use crate::format::superblock::COPY_OFFSETS;
use crate::table::op::Token;
use crate::table::sink::{Io, IoKind};
use crate::units::{BLOCK_BYTES, VolumeId};

/// Bits of rotten blocks.
const BITS: u64 = (BLOCK_BYTES * 8) as u64;

/// How an operation is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The device says that it has done it.
    Done(How),
    /// It fails.
    Fails,
}

/// What a block of a disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    Superblocks,
    /// A copy of the metadata.
    Metadata(usize),
    Data,
}

/// What may go wrong in a new world, and what does: one bit each.
pub(super) fn troubles(rng: &mut Rng) -> Vec<Fault> {
    // A liar breaks promises that nobody can keep: such worlds have nothing else.
    if rng.one_in(16) {
        return vec![Fault::Lies, Fault::Delays, Fault::Tiers, Fault::Recovery];
    }
    let odds = [
        (Fault::Errors, 6),
        (Fault::FailedFlushes, 8),
        (Fault::Flips, 5),
        (Fault::Misreads, 6),
        (Fault::Miswrites, 6),
        (Fault::Delays, 3),
        (Fault::Full, 4),
        (Fault::Refusals, 5),
        (Fault::Recovery, 1),
        (Fault::Volumes, 1),
        (Fault::Tiers, 1),
    ];
    odds.into_iter().filter(|(_, odds)| rng.one_in(*odds)).map(|(fault, _)| fault).collect()
}

impl World {
    /// Such trouble is part of this world, and now is a time for it.
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.exists(fault) && !self.auditing
    }

    /// Such trouble is part of this world.
    pub(super) fn exists(&self, fault: Fault) -> bool {
        self.troubles.contains(&fault)
    }

    /// Bytes change on the media of this world.
    pub(super) fn rots(&self) -> bool {
        [Fault::Flips, Fault::Misreads, Fault::Miswrites].iter().any(|fault| self.exists(*fault))
    }

    /// Decides how an operation ends.
    pub(super) fn fate(&mut self, disk: usize, io: &Io) -> Fate {
        let flush = io.kind == IoKind::Flush;
        let durable = flush || io.kind == IoKind::Write { fua: true };
        if !flush && self.has(Fault::Errors) && self.fault_rng.one_in(self.error_odds)
            || flush && self.has(Fault::FailedFlushes) && self.flush_fails(disk)
        {
            return Fate::Fails;
        }
        if durable && self.has(Fault::Lies) && self.fault_rng.one_in(3) {
            self.lied = true;
            return Fate::Done(How::Lying);
        }
        let kind = if io.kind == IoKind::Read { Fault::Misreads } else { Fault::Miswrites };
        if !flush && self.has(kind) && self.fault_rng.one_in(250) {
            let other = self.astray(disk, io);
            return Fate::Done(other.map_or(How::Well, How::Astray));
        }
        Fate::Done(How::Well)
    }

    /// Of flushes side by side one fails often: what the others say means little then.
    fn flush_fails(&mut self, disk: usize) -> bool {
        let disk = &self.shared.disks[disk];
        let flushes = (0..disk.in_flight()).filter(|at| disk.peek(*at).kind == IoKind::Flush);
        let odds = if flushes.count() > 1 { 4 } else { 60 };
        self.fault_rng.one_in(odds)
    }

    /// Where an operation goes by mistake; `None` if all it could hit must not be hit now.
    fn astray(&mut self, disk: usize, io: &Io) -> Option<u64> {
        let first = io.offset.get() / BLOCK_BYTES as u64;
        let blocks = u64::from(io.bytes) / BLOCK_BYTES as u64;
        let written = self.shared.disks[disk].written(0..u64::MAX);
        let other = written[self.fault_rng.index(written.len().max(1))];
        let apart = other + blocks <= first || first + blocks <= other;
        let fair = |block| match self.zone(disk, block) {
            Zone::Superblocks => false,
            Zone::Metadata(copy) => copy == self.weak_copy,
            Zone::Data => true,
        };
        let meant = (first..first + blocks).all(fair);
        let hit = io.kind == IoKind::Read || (other..other + blocks).all(fair);
        (apart && meant && hit).then_some(other)
    }

    fn zone(&self, disk: usize, block: u64) -> Zone {
        let byte = block * BLOCK_BYTES as u64;
        if byte < 1 << 20 {
            return Zone::Superblocks;
        }
        let copies = self.meta.copies.iter().position(|(device, start)| {
            usize::from(device.get()) == disk
                && (start.get()..start.get() + self.meta.bytes()).contains(&byte)
        });
        copies.map_or(Zone::Data, Zone::Metadata)
    }

    /// A device has answered: requests whose blocks it has got wrong may fail.
    pub(super) fn look_at(&mut self, ended: &Ended) {
        if !ended.rotten {
            return;
        }
        self.outcome.wrong_reads += 1;
        if let Some((volume, blocks)) = self.blocks_of(&ended.io, usize::from(ended.owner.get())) {
            self.trace.tell(self.outcome.steps, || {
                let text = format!("wrong bytes for volume {volume} blocks {blocks:?}");
                (Touches::Sectors(volume, sectors_of(blocks.clone())), text)
            });
            self.clients.excuse(volume, &sectors_of(blocks));
        }
    }

    /// The blocks of a volume that an operation moves for a client.
    pub(super) fn blocks_of(
        &self,
        io: &Io,
        core: usize,
    ) -> Option<(VolumeId, std::ops::Range<u64>)> {
        let (piece, first, count) = match Token::unpack(io.token) {
            _ if io.kind == IoKind::Flush => return None,
            Token::Piece(piece, (first, count)) => (piece, first, count),
            Token::Old(piece, 0) => (piece, 0, 1),
            Token::Old(piece, _) => (piece, u32::MAX, 1),
            _ => return None,
        };
        let piece = self.cores[core].table.pieces.get(piece);
        let first = u64::from(piece.first + first.min(piece.count - 1));
        let start = u64::from(piece.key.start) * 16 + first;
        Some((piece.key.volume, start..start + u64::from(count)))
    }

    fn bit(&mut self) -> usize {
        usize::try_from(self.fault_rng.below(BITS)).expect("a bit of a block")
    }

    /// Flips bits of a few data blocks.
    pub(super) fn rot_data(&mut self) {
        let disk = self.fault_rng.index(self.shared.disks.len());
        let written = self.shared.disks[disk].written(0..u64::MAX);
        let data: Vec<u64> =
            written.into_iter().filter(|block| self.zone(disk, *block) == Zone::Data).collect();
        if data.is_empty() {
            return;
        }
        for _ in 0..1 + self.fault_rng.below(4) {
            let block = data[self.fault_rng.index(data.len())];
            let bit = self.bit();
            self.shared.disks[disk].flip(block, bit);
            self.outcome.flips += 1;
            self.trace.tell(self.outcome.steps, || {
                (Touches::All, format!("disk {disk} block {block}: bit {bit} flips"))
            });
        }
    }

    /// Flips bits of up to three blocks of the weak copy of the metadata.
    pub(super) fn rot_metadata(&mut self) {
        self.outcome.flips += 1;
        if self.fault_rng.one_in(8) {
            let disk = self.fault_rng.index(self.shared.disks.len());
            let bit = self.bit();
            let block = COPY_OFFSETS[self.weak_copy] / BLOCK_BYTES as u64;
            return self.shared.disks[disk].flip(block, bit);
        }
        let (disk, written) = self.weak_blocks();
        for _ in 0..1 + self.fault_rng.below(3) {
            let block = written[self.fault_rng.index(written.len())];
            let bit = self.bit();
            self.shared.disks[disk].flip(block, bit);
        }
    }

    /// Synchronous reads of up to three blocks of the weak copy will return others.
    pub(super) fn mislead_recovery(&mut self) {
        let (disk, written) = self.weak_blocks();
        let lone = self.lone_blocks(&written);
        for _ in 0..1 + self.fault_rng.below(3) {
            let aimed = !lone.is_empty() && self.fault_rng.one_in(2);
            let among = if aimed { &lone } else { &written };
            let block = among[self.fault_rng.index(among.len())];
            let other = written[self.fault_rng.index(written.len())];
            self.trace.tell(self.outcome.steps, || {
                (Touches::All, format!("disk {disk} block {block}: recovery reads {other}"))
            });
            self.shared.disks[disk].mislead(block, other);
        }
    }

    /// Those of the weak copy's blocks that the other copy does not have: what a crash interrupted.
    fn lone_blocks(&self, weak: &[u64]) -> Vec<u64> {
        let [from, to] = [self.weak_copy, 1 - self.weak_copy].map(|copy| {
            let (device, start) = self.meta.copies[copy];
            (&self.shared.disks[usize::from(device.get())], start.get() / BLOCK_BYTES as u64)
        });
        let (mut one, mut other) = ([0; BLOCK_BYTES], [0; BLOCK_BYTES]);
        let lone = weak.iter().copied().filter(|block| {
            from.0.read_block(*block, &mut one);
            to.0.read_block(block - from.1 + to.1, &mut other);
            one != other
        });
        lone.collect()
    }

    fn weak_blocks(&self) -> (usize, Vec<u64>) {
        let (device, start) = self.meta.copies[self.weak_copy];
        let first = start.get() / BLOCK_BYTES as u64;
        let end = first + self.meta.bytes() / BLOCK_BYTES as u64;
        let disk = usize::from(device.get());
        (disk, self.shared.disks[disk].written(first..end))
    }
}
