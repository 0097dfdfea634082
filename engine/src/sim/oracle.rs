//! What may be read: per sector, the values that were ever written to it.
//!
//! A value is a number; 0 is zeros. Clients never change one sector with two
//! requests at once, so the order of values is the order of requests.
//! Live reads may see the last completed value or a later one; after the death
//! of the process the same; after a power cut the last flushed value or a
//! later one. What is read after a restart is durable: it is the new beginning.
//! If a device has lied about a flush, after a power cut any value ever written
//! may be there, or none; never another sector's.

use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

use super::playground::PER_BLOCK;
use super::sector::{SectorKey, Violation, value_of};
use crate::device::sim::SECTOR_BYTES;
use crate::units::{BLOCK_BYTES, VolumeId};

#[derive(Clone, Debug)]
struct Sector {
    /// Values in the order in which they were sent; the first is where it began.
    values: SmallVec<[u64; 2]>,
    /// Values before the beginning, in worlds with lying devices.
    past: Vec<u64>,
    /// The last completed one.
    done: usize,
    /// The last flushed one.
    floor: usize,
    /// A request that changes it is under way.
    busy: bool,
    /// That request is a host's, which hears of its end late.
    host: bool,
    /// The sector has begun again meanwhile: that request may have been before or come after.
    cut: bool,
}

impl Default for Sector {
    fn default() -> Self {
        let past = Vec::new();
        let (busy, host, cut) = (false, false, false);
        Self { values: smallvec![0], past, done: 0, floor: 0, busy, host, cut }
    }
}

/// The sectors of one block; those never written are `None`.
#[derive(Debug, Default)]
struct Block {
    sectors: [Option<Box<Sector>>; BLOCK_BYTES / SECTOR_BYTES],
    /// Listed among the blocks that may hold something not flushed.
    listed: bool,
}

type BlockKey = (VolumeId, u64);

/// The oracle.
#[derive(Debug, Default)]
pub struct Oracle {
    blocks: FxHashMap<BlockKey, Block>,
    /// Blocks that may hold something completed and not flushed.
    dirty: Vec<BlockKey>,
    next: u64,
    /// Devices lie in this world: remember every value.
    keeps_past: bool,
    /// A lie may have come to light: any value ever written is possible.
    distrusts: bool,
}

impl Oracle {
    /// An oracle for a world whose devices may lie about flushes.
    pub fn keeping_past() -> Self {
        Self { keeps_past: true, ..Self::default() }
    }

    fn sector(&self, key: SectorKey) -> Option<&Sector> {
        let block = self.blocks.get(&(key.volume, key.sector / PER_BLOCK))?;
        block.sectors[within(key)].as_deref()
    }

    fn sector_mut(&mut self, key: SectorKey) -> Option<&mut Sector> {
        let block = self.blocks.get_mut(&(key.volume, key.sector / PER_BLOCK))?;
        block.sectors[within(key)].as_deref_mut()
    }

    /// True if a request already changes one of the sectors.
    pub fn is_busy(&self, volume: VolumeId, mut sectors: std::ops::Range<u64>) -> bool {
        sectors.any(|sector| self.sector(SectorKey { volume, sector }).is_some_and(|s| s.busy))
    }

    /// A request that sets a sector is sent; the value it writes. `zero`: it writes zeros.
    pub fn send(&mut self, key: SectorKey, zero: bool, host: bool) -> u64 {
        self.next += 1;
        let value = if zero { 0 } else { self.next };
        let block = self.blocks.entry((key.volume, key.sector / PER_BLOCK)).or_default();
        let sector = block.sectors[within(key)].get_or_insert_default();
        assert!(!sector.busy);
        sector.values.push(value);
        (sector.busy, sector.host) = (true, host);
        value
    }

    /// The value that the next change of a sector gets.
    pub fn next_value(&self) -> u64 {
        self.next + 1
    }

    /// The value last sent to a sector that no request changes now; true if it must be there.
    pub fn newest(&self, key: SectorKey) -> (u64, bool) {
        let (values, _) = self.known(key);
        let done = self.mark(key);
        (values[values.len() - 1], done + 1 == values.len() && !self.distrusts)
    }

    /// The request that was to set a sector to `value` has ended and left it as it was.
    pub fn unsent(&mut self, key: SectorKey, value: u64) {
        let Some(sector) = self.sector_mut(key) else { return };
        if sector.values.last() == Some(&value) {
            sector.values.pop();
            (sector.busy, sector.cut) = (false, false);
        }
    }

    /// The request that sets a sector has ended.
    pub fn sent(&mut self, key: SectorKey, ok: bool, durable: bool) {
        let at = (key.volume, key.sector / PER_BLOCK);
        // Forgotten with its volume's end.
        let Some(block) = self.blocks.get_mut(&at) else { return };
        let Some(sector) = block.sectors[within(key)].as_deref_mut() else { return };
        sector.busy = false;
        if std::mem::take(&mut sector.cut) || !ok {
            return;
        }
        sector.done = sector.values.len() - 1;
        if durable {
            sector.floor = sector.done;
        } else if !std::mem::replace(&mut block.listed, true) {
            self.dirty.push(at);
        }
    }

    /// A position in a sector's history, for a read that begins now.
    pub fn mark(&self, key: SectorKey) -> usize {
        self.sector(key).map_or(0, |sector| sector.done)
    }

    /// A read that began at `mark` has returned `bytes`.
    pub fn check_live(&self, key: SectorKey, mark: usize, bytes: &[u8]) -> Result<(), Violation> {
        let (values, past) = self.known(key);
        self.check(key, &values[mark..], past, bytes, "live").map(drop)
    }

    fn known(&self, key: SectorKey) -> (&[u64], &[u64]) {
        self.sector(key).map_or((&[0], &[]), |s| (s.values.as_slice(), s.past.as_slice()))
    }

    fn check(
        &self,
        key: SectorKey,
        allowed: &[u64],
        past: &[u64],
        bytes: &[u8],
        when: &'static str,
    ) -> Result<u64, Violation> {
        let violation = |got| Violation { key, got, allowed: allowed.to_vec(), when };
        let value = value_of(key, bytes).map_err(violation)?;
        let excused = self.distrusts && (value == 0 || past.contains(&value));
        let known = excused || allowed.contains(&value);
        if known { Ok(value) } else { Err(violation(value.to_string())) }
    }

    /// The completed, not yet flushed sectors of a volume, for a flush that begins now.
    pub fn flush_begins(&mut self, volume: VolumeId) -> Vec<(SectorKey, usize)> {
        let mut covered = Vec::new();
        let Self { blocks, dirty, .. } = self;
        dirty.retain(|at| {
            let Some(block) = blocks.get_mut(at) else { return false };
            let before = covered.len();
            let mut open = false;
            for (sector, number) in block.sectors.iter().zip(at.1 * PER_BLOCK..) {
                let Some(sector) = sector.as_deref().filter(|s| s.done > s.floor) else { continue };
                open = true;
                if at.0 == volume {
                    covered.push((SectorKey { volume, sector: number }, sector.done));
                }
            }
            block.listed = open;
            assert!(open || covered.len() == before);
            open
        });
        covered
    }

    /// That flush has succeeded.
    pub fn flush_ends(&mut self, covered: &[(SectorKey, usize)]) {
        for (key, done) in covered {
            if let Some(sector) = self.sector_mut(*key) {
                sector.floor = sector.floor.max(*done);
            }
        }
    }

    /// The process is gone: nothing is under way any more.
    pub fn restart(&mut self, power_cut: bool) {
        self.distrusts |= power_cut && self.keeps_past;
        self.dirty.clear();
        for block in self.blocks.values_mut() {
            block.listed = false;
            for sector in block.sectors.iter_mut().flatten() {
                (sector.busy, sector.cut) = (false, false);
                let keep = if power_cut { sector.floor } else { sector.done };
                let gone = sector.values.drain(..keep);
                if self.keeps_past {
                    sector.past.extend(gone);
                }
                sector.done = 0;
                sector.floor = 0;
            }
        }
    }

    /// What was read first after a restart; it is the sector's new beginning.
    pub fn check_restarted(&mut self, key: SectorKey, bytes: &[u8]) -> Result<(), Violation> {
        let (values, past) = self.known(key);
        let value = self.check(key, values, past, bytes, "after restart")?;
        let keeps_past = self.keeps_past;
        if let Some(sector) = self.sector_mut(key) {
            let before = std::mem::replace(&mut sector.values, smallvec![value]);
            if keeps_past {
                sector.past.extend(before);
            }
        }
        Ok(())
    }

    /// Sectors of a volume from `from` on exist no more: they begin again as zeros. Returns the
    /// blocks that held some.
    pub fn forget(&mut self, volume: VolumeId, from: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        self.blocks.retain(|(of, number), block| {
            if *of != volume || (number + 1) * PER_BLOCK <= from {
                return true;
            }
            gone.push(*number);
            let keep = usize::try_from(from.saturating_sub(number * PER_BLOCK)).expect("small");
            for sector in &mut block.sectors[keep..] {
                begin_again(sector);
            }
            keep > 0 || block.sectors.iter().any(Option::is_some)
        });
        gone.sort_unstable();
        gone
    }

    /// The volumes with known sectors.
    pub fn volumes(&self) -> Vec<VolumeId> {
        let mut volumes: Vec<_> = self.blocks.keys().map(|(volume, _)| *volume).collect();
        volumes.sort_unstable();
        volumes.dedup();
        volumes
    }

    /// All blocks with sectors ever written, in order.
    pub fn blocks(&self) -> Vec<(VolumeId, u64)> {
        let mut blocks: Vec<_> = self.blocks.keys().copied().collect();
        blocks.sort_unstable();
        blocks
    }
}

/// The sector is zeros, and may become what a host's request under way writes. Other requests
/// have ended, or are sure to be refused.
fn begin_again(sector: &mut Option<Box<Sector>>) {
    let Some(under_way) = sector.take().filter(|sector| sector.busy && sector.host) else { return };
    let last = under_way.values[under_way.values.len() - 1];
    let (values, busy, host, cut) = (smallvec![0, last], true, true, true);
    *sector = Some(Box::new(Sector { values, busy, host, cut, ..Sector::default() }));
}

fn within(key: SectorKey) -> usize {
    usize::try_from(key.sector % PER_BLOCK).expect("below eight")
}
