//! Trace offsets on a volume of another size.

/// Where a trace request lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// First byte, a multiple of the block size.
    pub offset: u64,
    /// Bytes, a multiple of the block size.
    pub length: u32,
    /// It lay (partly) beyond the volume.
    pub moved: bool,
    /// It was longer than one request may be.
    pub clipped: bool,
}

/// Fits a trace request into a volume: the offset modulo the volume's size,
/// widened to whole blocks. The size is a multiple of the block size, so an
/// offset keeps its position within the block and within larger alignments
/// that divide the size; with 512-byte blocks, requests that are not 4 KiB
/// aligned stay so. A request over the end after that moves back.
///
/// # Panics
/// If the volume is empty or not whole blocks, or no block fits a transfer.
pub fn fold(offset: u64, size: u32, volume_bytes: u64, block_bytes: u32, max_bytes: u32) -> Folded {
    let block = u64::from(block_bytes);
    assert!(volume_bytes > 0 && volume_bytes.is_multiple_of(block), "{volume_bytes} bytes");
    let longest = volume_bytes.min(u64::from(max_bytes) / block * block);
    assert!(longest > 0, "at least one block");
    let start = offset % volume_bytes;
    let first = start / block * block;
    let wanted = (start + u64::from(size)).next_multiple_of(block) - first;
    let length = wanted.min(longest);
    Folded {
        offset: first.min(volume_bytes - length),
        length: u32::try_from(length).expect("at most max_bytes"),
        moved: start != offset || first + length > volume_bytes,
        clipped: length < wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fold_into_the_volume() {
        const V: u64 = 1 << 20;
        for (offset, size, block, want) in [
            (512, 512, 512, (512, 512, false, false)),
            (512, 512, 4096, (0, 4096, false, false)),
            (4000, 200, 4096, (0, 8192, false, false)),
            (V + 512, 4096, 512, (512, 4096, true, false)),
            (V - 512, 4096, 512, (V - 4096, 4096, true, false)),
            (u64::MAX - 1, 1, 512, (V - 512, 512, true, false)),
            (0, 1 << 19, 512, (0, 1 << 18, false, true)),
        ] {
            let got = fold(offset, size, V, block, 1 << 18);
            let got = (got.offset, got.length, got.moved, got.clipped);
            assert_eq!(got, want, "{offset}+{size}");
        }
    }

    #[test]
    fn a_tiny_volume_takes_everything() {
        let got = fold(12_345, 1 << 20, 4096, 4096, 1 << 25);
        assert_eq!((got.offset, got.length), (0, 4096));
    }
}
