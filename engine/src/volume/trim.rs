//! The edge of a shrunk volume: what a trim by whole segments leaves.

use super::placement::slice_of;
use crate::request::{Op, windows};
use crate::table::op::Part;
use crate::units::{FragmentSize, SEGMENT_BYTES, SliceId, VolumeId};

/// Durable discards from `size_bytes` to the end of its segment, for one slice.
///
/// They go to the slice's owner directly, once the volume's new size is known
/// to every core and requests under the old one have ended: a client that
/// writes behind the edge after it was discarded would leave bytes that a later
/// growth brings back. Each ends with `origin`.
pub fn edge_parts(
    volume: VolumeId,
    fragment: FragmentSize,
    size_bytes: u64,
    origin: u64,
) -> impl Iterator<Item = (SliceId, Part)> {
    let length = size_bytes.next_multiple_of(SEGMENT_BYTES) - size_bytes;
    windows(size_bytes, length).map(move |(offset, length)| {
        let part = Part {
            origin,
            volume,
            op: Op::Discard,
            fua: true,
            offset,
            length,
            fragment,
            stage: false,
            hint: None,
            buf: None,
        };
        (slice_of(volume, offset), part)
    })
}

/// The first segment that lies wholly behind `size_bytes`: where a trim begins.
pub fn first_segment_behind(size_bytes: u64) -> u32 {
    u32::try_from(size_bytes.div_ceil(SEGMENT_BYTES)).expect("volumes stay below 64 PiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_ends_with_its_segment() {
        let volume = VolumeId::new(1);
        let parts = |size| edge_parts(volume, FragmentSize::DEFAULT, size, 7).collect::<Vec<_>>();
        assert!(parts(2 * SEGMENT_BYTES).is_empty());
        let some = parts(2 * SEGMENT_BYTES - 300_000);
        let covered: u64 = some.iter().map(|(_, part)| u64::from(part.length)).sum();
        assert_eq!(covered, 300_000);
        assert!(some.iter().all(|(slice, _)| *slice == some[0].0));
        assert_eq!(first_segment_behind(2 * SEGMENT_BYTES - 300_000), 2);
        assert_eq!(first_segment_behind(2 * SEGMENT_BYTES), 2);
    }
}
