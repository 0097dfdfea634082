//! Fuzz target of the superblock and of what is built on several: see [`crate::fuzz`].

use super::{Pool, inspect};
use crate::format::fuzz::{block, reseal};
use crate::format::superblock::{COPY_OFFSETS, Superblock};
use crate::journal::fuzz::Disks;
use crate::journal::io::PoolIo;
use crate::units::{BLOCK_BYTES, DeviceId, DeviceOffset};

const DEVICES: u8 = 3;
/// Bytes of a superblock's fields; behind them it is reserved.
const FIELD_BYTES: usize = 160;
const CRC_AT: usize = 12;

/// Superblocks, one behind the other: alone, and as the devices of a pool.
pub fn superblock(bytes: &[u8]) {
    decode(&block(bytes));
    let Some((&given, bytes)) = bytes.split_first() else { return };
    let mut disks = Disks::new(1 + given % DEVICES);
    for (device, fields) in (0..disks.devices()).zip(bytes.chunks(FIELD_BYTES)) {
        let mut raw = block(fields);
        reseal(&mut raw, CRC_AT);
        decode(&raw);
        let offset = DeviceOffset::new(COPY_OFFSETS[usize::from(given >> 7)]);
        disks.write(DeviceId::new(device), offset, &raw).expect("memory does not fail");
    }
    let sizes = vec![u64::MAX; usize::from(disks.devices())];
    if let Ok(pool) = inspect(&mut disks, &sizes) {
        geometry(&pool);
    }
}

fn decode(raw: &[u8; BLOCK_BYTES]) {
    if let Ok(superblock) = Superblock::decode(raw) {
        assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
    }
}

/// A pool that was accepted has its metadata where it does not meet the data.
fn geometry(pool: &Pool) {
    for copy in 0..2 {
        let (device, start) = pool.meta.place(copy, 0);
        let home = &pool.superblocks[usize::from(device.get())];
        let end = start.get() + pool.meta.bytes();
        assert!(end <= home.data_offset && home.data_offset <= home.size_bytes);
    }
    assert!(pool.incarnation() < u32::MAX, "another opening has a number");
}
