//! Self-describing sectors: volume, sector, generation, and bytes that follow from them.

use crate::random::Random;

/// Bytes in a sector: the smallest unit that a client writes or a medium tears.
pub const SECTOR: usize = 512;
/// Sectors in a block, the unit that is never torn.
pub const BLOCK_SECTORS: u64 = 8;

/// Bytes in a block.
pub const BLOCK: usize = 4096;

/// What sets the contents of one run's sectors apart from all others.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Of the workload.
    pub seed: u64,
    /// Index of the volume.
    pub volume: u32,
    /// In the volume.
    pub sector: u64,
}

/// Fills a sector with its contents of a generation; generation 0 is zeros.
pub fn fill(place: Place, generation: u32, out: &mut [u8]) {
    assert_eq!(out.len(), SECTOR);
    if generation == 0 {
        out.fill(0);
        return;
    }
    let Place { seed, volume, sector } = place;
    out[..4].copy_from_slice(&generation.to_le_bytes());
    out[4..8].copy_from_slice(&volume.to_le_bytes());
    out[8..16].copy_from_slice(&sector.to_le_bytes());
    let mut random = Random::of(&[seed, u64::from(volume), sector, u64::from(generation)]);
    for word in out[16..].chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
}

/// The generation of a sector.
///
/// # Errors
/// What is wrong with it, if it is not what was written there in any generation.
pub fn generation(place: Place, found: &[u8]) -> Result<u32, String> {
    if found.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let word = |at: usize| u32::from_le_bytes(found[at..at + 4].try_into().expect("four bytes"));
    let (generation, volume) = (word(0), word(4));
    let sector = u64::from_le_bytes(found[8..16].try_into().expect("eight bytes"));
    if (volume, sector) != (place.volume, place.sector) || generation == 0 {
        return Err(format!("foreign: says volume {volume} sector {sector}"));
    }
    let mut expected = [0; SECTOR];
    fill(place, generation, &mut expected);
    if expected != found {
        return Err(format!("torn or mixed within sector {sector}, generation {generation}"));
    }
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_say_what_they_are() {
        let place = Place { seed: 7, volume: 1, sector: 99 };
        let mut sector = [1; SECTOR];
        fill(place, 0, &mut sector);
        assert_eq!(generation(place, &sector), Ok(0));
        fill(place, 5, &mut sector);
        assert_eq!(generation(place, &sector), Ok(5));
        assert!(generation(Place { sector: 98, ..place }, &sector).is_err());
        assert!(generation(Place { seed: 8, ..place }, &sector).is_err());
        sector[511] ^= 1;
        assert!(generation(place, &sector).is_err());
    }
}
