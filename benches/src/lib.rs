//! What the benches share: inputs of realistic size, made deterministically.
//!
//! Run with `cargo bench -p benches`. The figures say how one version compares
//! with another on one quiet machine; they are no test and no promise.

#![forbid(unsafe_code)]

pub mod attached;
pub mod core;

use engine::format::record::{Entry, FragmentKey, MAX_ENTRIES, put_blocks};
use engine::table::entry::Place;
use engine::units::{Crc, VolumeId};

/// Records of whole windows, as sequential writes leave them: about `bytes` of them.
pub fn window_records(bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes + 512];
    let mut at = 0;
    let mut window = 0u32;
    while at < bytes {
        let key = FragmentKey { volume: VolumeId::new(1), start: window / 4 * 16 };
        let first = window % 4 * 64;
        let entries = (0..MAX_ENTRIES).map(|i| {
            let block = first + u32::try_from(i).expect("at most 64");
            Entry { place: Place::fast(0, block), crc: Crc::new(block) }
        });
        let first = u16::try_from(first).expect("below 256");
        at += put_blocks(&mut out[at..], key, first, entries);
        window += 1;
    }
    out.truncate(at);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_records_decode() {
        let bytes = super::window_records(10_000);
        let mut records = engine::format::record::Records::new(&bytes);
        assert!(records.by_ref().take(20).all(|record| record.is_ok()));
        assert!(records.next().is_some());
    }
}
