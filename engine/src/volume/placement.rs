//! Which slice owns a segment, and which core a slice.
//!
//! Slices are chosen by a hash of volume and segment, the same on every core
//! and at every start; cores take slices in turn, so a pool opens with any
//! number of cores.

use crate::units::{CoreId, SEGMENT_SHIFT, SLICES, SliceId, VolumeId};

/// The slice that owns the segment with this byte.
pub fn slice_of(volume: VolumeId, offset: u64) -> SliceId {
    let segment = offset >> SEGMENT_SHIFT;
    // The finaliser of SplitMix64: neighbouring segments land in unrelated slices.
    let mut x =
        segment.wrapping_add(u64::from(volume.get()) << 40).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    SliceId::new(u16::try_from(x % u64::from(SLICES)).expect("below 64"))
}

/// The core that owns a slice when `cores` are running.
pub fn core_of(slice: SliceId, cores: u8) -> CoreId {
    let core = slice.get() % u16::from(cores);
    CoreId::new(u8::try_from(core).expect("below the number of cores"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_spread_evenly_and_stay() {
        let mut count = [0u32; SLICES as usize];
        for segment in 0..6400u64 {
            count[usize::from(slice_of(VolumeId::new(3), segment << SEGMENT_SHIFT).get())] += 1;
        }
        assert!(count.iter().all(|n| (50..170).contains(n)), "{count:?}");
        let first = slice_of(VolumeId::new(1), 0);
        assert_eq!(first, slice_of(VolumeId::new(1), (1 << SEGMENT_SHIFT) - 1));
        assert_eq!(first.get(), 9, "placement is part of the on-disk format");
    }

    #[test]
    fn every_core_has_slices() {
        let owners: std::collections::HashSet<_> =
            (0..SLICES).map(|slice| core_of(SliceId::new(slice), 3)).collect();
        assert_eq!(owners.len(), 3);
    }
}
