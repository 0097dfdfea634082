//! What may be read: per sector, the values that were ever written to it.
//!
//! A value is a number; 0 is zeros. Clients never change one sector with two
//! requests at once, so the order of values is the order of requests.
//! Live reads may see the last completed value or a later one; after the death
//! of the process the same; after a power cut the last flushed value or a
//! later one. What is read after a restart is durable: it is the new beginning.

use std::collections::BTreeMap;

use crate::device::sim::SECTOR_BYTES;
use crate::units::VolumeId;

/// A sector of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SectorKey {
    /// The volume.
    pub volume: VolumeId,
    /// Number of the 512-byte sector.
    pub sector: u64,
}

#[derive(Clone, Debug)]
struct Sector {
    /// Values in the order in which they were sent; the first is where it began.
    values: Vec<u64>,
    /// The last completed one.
    done: usize,
    /// The last flushed one.
    floor: usize,
    /// A request that changes it is under way.
    busy: bool,
}

impl Default for Sector {
    fn default() -> Self {
        Self { values: vec![0], done: 0, floor: 0, busy: false }
    }
}

/// A broken promise.
#[derive(Clone, Debug, thiserror::Error)]
#[error("volume {} sector {}: read {got}, may be one of {allowed:?} ({when})", key.volume, key.sector)]
pub struct Violation {
    /// Where.
    pub key: SectorKey,
    /// What was read, as a value or a description.
    pub got: String,
    /// What it could have been.
    pub allowed: Vec<u64>,
    /// In which situation.
    pub when: &'static str,
}

/// The oracle.
#[derive(Debug, Default)]
pub struct Oracle {
    sectors: BTreeMap<SectorKey, Sector>,
    next: u64,
}

/// Writes the sector's bytes for a value: value, volume and sector number, repeated.
pub fn fill(key: SectorKey, value: u64, out: &mut [u8]) {
    assert_eq!(out.len(), SECTOR_BYTES);
    if value == 0 {
        return out.fill(0);
    }
    for chunk in out.chunks_exact_mut(32) {
        chunk[..8].copy_from_slice(&value.to_le_bytes());
        chunk[8..16].copy_from_slice(&u64::from(key.volume.get()).to_le_bytes());
        chunk[16..24].copy_from_slice(&key.sector.to_le_bytes());
        chunk[24..].copy_from_slice(&(!value).to_le_bytes());
    }
}

/// The value that a sector's bytes stand for, or what is wrong with them.
pub fn value_of(key: SectorKey, bytes: &[u8]) -> Result<u64, String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let value = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let mut expected = [0; SECTOR_BYTES];
    fill(key, value, &mut expected);
    if bytes == expected {
        return Ok(value);
    }
    Err(format!("foreign or torn bytes {:02x?}…", &bytes[..32]))
}

impl Oracle {
    /// True if a request already changes one of the sectors.
    pub fn is_busy(&self, volume: VolumeId, sectors: std::ops::Range<u64>) -> bool {
        let range =
            SectorKey { volume, sector: sectors.start }..SectorKey { volume, sector: sectors.end };
        self.sectors.range(range).any(|(_, sector)| sector.busy)
    }

    /// A request that sets a sector is sent; the value it writes. `zero`: it writes zeros.
    pub fn send(&mut self, key: SectorKey, zero: bool) -> u64 {
        self.next += 1;
        let value = if zero { 0 } else { self.next };
        let sector = self.sectors.entry(key).or_default();
        assert!(!sector.busy);
        sector.values.push(value);
        sector.busy = true;
        value
    }

    /// The request that sets a sector has ended.
    pub fn sent(&mut self, key: SectorKey, ok: bool, durable: bool) {
        // Forgotten with its volume's end.
        let Some(sector) = self.sectors.get_mut(&key) else { return };
        sector.busy = false;
        if ok {
            sector.done = sector.values.len() - 1;
        }
        if ok && durable {
            sector.floor = sector.done;
        }
    }

    /// A position in a sector's history, for a read that begins now.
    pub fn mark(&self, key: SectorKey) -> usize {
        self.sectors.get(&key).map_or(0, |sector| sector.done)
    }

    /// A read that began at `mark` has returned `bytes`.
    pub fn check_live(&self, key: SectorKey, mark: usize, bytes: &[u8]) -> Result<(), Violation> {
        let fresh = Sector::default();
        let sector = self.sectors.get(&key).unwrap_or(&fresh);
        self.check(key, &sector.values[mark..], bytes, "live").map(drop)
    }

    fn check(
        &self,
        key: SectorKey,
        allowed: &[u64],
        bytes: &[u8],
        when: &'static str,
    ) -> Result<u64, Violation> {
        let violation = |got| Violation { key, got, allowed: allowed.to_vec(), when };
        let value = value_of(key, bytes).map_err(violation)?;
        if allowed.contains(&value) { Ok(value) } else { Err(violation(value.to_string())) }
    }

    /// The completed, not yet flushed sectors of a volume, for a flush that begins now.
    pub fn flush_begins(&self, volume: VolumeId) -> Vec<(SectorKey, usize)> {
        let range = SectorKey { volume, sector: 0 }..=SectorKey { volume, sector: u64::MAX };
        let dirty = self.sectors.range(range).filter(|(_, sector)| sector.done > sector.floor);
        dirty.map(|(key, sector)| (*key, sector.done)).collect()
    }

    /// That flush has succeeded.
    pub fn flush_ends(&mut self, covered: &[(SectorKey, usize)]) {
        for (key, done) in covered {
            if let Some(sector) = self.sectors.get_mut(key) {
                sector.floor = sector.floor.max(*done);
            }
        }
    }

    /// The process is gone: nothing is under way any more.
    pub fn restart(&mut self, power_cut: bool) {
        for sector in self.sectors.values_mut() {
            sector.busy = false;
            let keep = if power_cut { sector.floor } else { sector.done };
            sector.values.drain(..keep);
            sector.done = 0;
            sector.floor = 0;
        }
    }

    /// What was read first after a restart; it is the sector's new beginning.
    pub fn check_restarted(&mut self, key: SectorKey, bytes: &[u8]) -> Result<(), Violation> {
        let Some(sector) = self.sectors.get(&key) else {
            return self.check(key, &[0], bytes, "never written").map(drop);
        };
        let value = self.check(key, &sector.values, bytes, "after restart")?;
        self.sectors.insert(key, Sector { values: vec![value], ..Sector::default() });
        Ok(())
    }

    /// Sectors of a volume from `from` on exist no more: they begin again as zeros.
    pub fn forget(&mut self, volume: VolumeId, from: u64) -> Vec<SectorKey> {
        let range = SectorKey { volume, sector: from }..=SectorKey { volume, sector: u64::MAX };
        let gone: Vec<_> = self.sectors.range(range).map(|(key, _)| *key).collect();
        for key in &gone {
            self.sectors.remove(key);
        }
        gone
    }

    /// The volumes with known sectors.
    pub fn volumes(&self) -> Vec<VolumeId> {
        let mut volumes: Vec<_> = self.sectors.keys().map(|key| key.volume).collect();
        volumes.dedup();
        volumes
    }

    /// All sectors ever written.
    pub fn keys(&self) -> Vec<SectorKey> {
        self.sectors.keys().copied().collect()
    }
}
