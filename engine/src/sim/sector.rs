//! A sector's bytes: what stands for a value, and how foreign or torn bytes show.

use crate::device::sim::SECTOR_BYTES;
use crate::units::VolumeId;

/// A sector of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectorKey {
    /// The volume.
    pub volume: VolumeId,
    /// Number of the 512-byte sector.
    pub sector: u64,
}

/// The 32 bytes that a sector of this value repeats: value, volume, sector number, complement.
fn pattern(key: SectorKey, value: u64) -> [u8; 32] {
    let mut out = [0; 32];
    if value != 0 {
        out[..8].copy_from_slice(&value.to_le_bytes());
        out[8..16].copy_from_slice(&u64::from(key.volume.get()).to_le_bytes());
        out[16..24].copy_from_slice(&key.sector.to_le_bytes());
        out[24..].copy_from_slice(&(!value).to_le_bytes());
    }
    out
}

/// Writes the sector's bytes for a value.
pub fn fill(key: SectorKey, value: u64, out: &mut [u8]) {
    assert_eq!(out.len(), SECTOR_BYTES);
    let pattern = pattern(key, value);
    for chunk in out.chunks_exact_mut(32) {
        chunk.copy_from_slice(&pattern);
    }
}

/// The value that a sector's bytes stand for, or what is wrong with them.
pub fn value_of(key: SectorKey, bytes: &[u8]) -> Result<u64, String> {
    let value = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let pattern = pattern(key, value);
    if bytes.chunks_exact(32).all(|chunk| chunk == pattern) {
        return Ok(value);
    }
    Err(format!("foreign or torn bytes {:02x?}…", &bytes[..32]))
}

/// A broken promise about the contents of a sector.
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
