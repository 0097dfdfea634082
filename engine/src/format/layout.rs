//! Where things stand: the geometry of a device and of the metadata zone.
//!
//! The metadata zone is one logical range, kept in two copies: on fast devices
//! 0 and 1 where there are two, else twice on device 0. It holds, in order,
//! the journal rings of all slices and the catalog, two checkpoint roots for
//! each of them, and the checkpoint extents.

use super::superblock::{RESERVED_BYTES, Role, Superblock, VERSION};
use crate::table::seat::MAX_DEVICE_BLOCKS;
use crate::units::{
    BLOCK_BYTES, BLOCK_BYTES_U32, DeviceId, DeviceOffset, FragmentSize, SLICES, SliceId,
};

/// The journal and table of volumes: one more than the slices.
pub const CATALOG: SliceId = SliceId::new(SLICES);
/// Journals in a pool: the slices' and the catalog's.
pub const JOURNALS: u16 = SLICES + 1;
/// Shortest journal ring: see `Table::request_commit` for what has to fit.
pub const MIN_JOURNAL_BLOCKS: u32 = 128;
/// A fast slot has one spare block for every eight.
pub const SPARE_SHIFT: u32 = 3;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Extents beside those of partly filled tables: their pages are counted in 32 bits.
const MAX_EXTENTS: u32 = u32::MAX / 32;

/// Bytes in a chunk: the slots of one whole segment.
pub const fn chunk_bytes(role: Role) -> u64 {
    slot_bytes(role, FragmentSize::MAX)
}

/// Bytes in a slot for a fragment of `size`.
pub const fn slot_bytes(role: Role, size: FragmentSize) -> u64 {
    slot_blocks(role, size) as u64 * BLOCK
}

/// Blocks in a slot: the fragment's, and on a fast device its spares.
pub const fn slot_blocks(role: Role, size: FragmentSize) -> u32 {
    match role {
        Role::Fast => size.blocks() + (size.blocks() >> SPARE_SHIFT),
        Role::Cold => size.blocks(),
    }
}

/// Offsets in the logical metadata zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaLayout {
    /// Blocks in a journal ring.
    pub journal_blocks: u32,
    /// Bytes in an extent.
    pub extent_bytes: u32,
    /// Number of extents.
    pub extents: u32,
    /// Device and start of each copy.
    pub copies: [(DeviceId, DeviceOffset); 2],
}

impl MetaLayout {
    /// From the superblocks of a pool, in device order.
    pub fn of(superblocks: &[Superblock]) -> Self {
        let first = &superblocks[0];
        let home = |copy: usize| {
            let found = superblocks.iter().find(|sb| sb.meta_offset[copy] != 0);
            let sb = found.expect("a checked pool has both metadata copies");
            (sb.device, DeviceOffset::new(sb.meta_offset[copy]))
        };
        Self {
            journal_blocks: first.journal_blocks,
            extent_bytes: first.extent_bytes,
            extents: first.extents,
            copies: [home(0), home(1)],
        }
    }

    /// Offset of the journal block with sequence `seq`.
    pub fn journal(&self, slice: SliceId, seq: u64) -> u64 {
        assert!(slice.get() < JOURNALS);
        let ring = u64::from(self.journal_blocks);
        (u64::from(slice.get()) * ring + seq % ring) * BLOCK
    }

    /// Offset of one of the two checkpoint roots.
    pub fn root(&self, slice: SliceId, which: u64) -> u64 {
        assert!(slice.get() < JOURNALS && which < 2);
        self.roots_start() + (u64::from(slice.get()) * 2 + which) * BLOCK
    }

    /// Offset of a checkpoint extent.
    pub fn extent(&self, extent: u32) -> u64 {
        assert!(extent < self.extents);
        self.extents_start() + u64::from(extent) * u64::from(self.extent_bytes)
    }

    /// Offset of a map page, counted from the first extent.
    pub fn page(&self, page: u32) -> u64 {
        assert!(page < self.pages());
        self.extents_start() + u64::from(page) * BLOCK
    }

    /// Map pages that all extents could hold.
    pub fn pages(&self) -> u32 {
        self.extents * (self.extent_bytes / BLOCK_BYTES_U32)
    }

    /// Where a byte of copy `copy` lies.
    pub fn place(&self, copy: usize, offset: u64) -> (DeviceId, DeviceOffset) {
        assert!(offset < self.bytes());
        let (device, base) = self.copies[copy];
        (device, DeviceOffset::new(base.get() + offset))
    }

    /// Bytes in one copy of the zone.
    pub fn bytes(&self) -> u64 {
        self.extents_start() + u64::from(self.extents) * u64::from(self.extent_bytes)
    }

    fn roots_start(&self) -> u64 {
        u64::from(JOURNALS) * u64::from(self.journal_blocks) * BLOCK
    }

    fn extents_start(&self) -> u64 {
        (self.roots_start() + u64::from(JOURNALS) * 2 * BLOCK).next_multiple_of(65536)
    }
}

/// Bytes of a device that are used: what a seat can name.
const MAX_DEVICE_BYTES: u64 = MAX_DEVICE_BLOCKS * BLOCK;

/// Size and role of a device that a new pool is made of.
#[derive(Clone, Copy, Debug)]
pub struct NewDevice {
    /// Bytes.
    pub size_bytes: u64,
    /// Tier.
    pub role: Role,
}

/// Why devices cannot form a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// No fast device, or fast devices not first, or more than 255.
    #[error("a pool needs 1 to 63 devices, the fast ones first, at least one fast")]
    Devices,
    /// A device has no room for its metadata and eight chunks.
    #[error("device {device} is too small: {size_bytes} bytes, needs at least {needed}")]
    TooSmall {
        /// Which.
        device: usize,
        /// Its size.
        size_bytes: u64,
        /// The least that would do.
        needed: u64,
    },
}

/// Fewest chunks a device must hold to be of use.
const MIN_CHUNKS: u64 = 8;

/// A ring long enough that a checkpoint, which writes every seat of its slice, is rare next to
/// the journal it cuts: a block for every 16 GiB.
fn journal_blocks(total_bytes: u64) -> u32 {
    u32::try_from(total_bytes >> 34).unwrap_or(u32::MAX).clamp(256, 4096)
}

/// Cuts devices into a new pool. UUIDs are the caller's to fill in.
pub fn plan(devices: &[NewDevice]) -> Result<Vec<Superblock>, LayoutError> {
    let fast = devices.iter().take_while(|d| d.role == Role::Fast).count();
    let sorted = devices.iter().skip(fast).all(|d| d.role == Role::Cold);
    if fast == 0 || !sorted || devices.len() > 63 {
        return Err(LayoutError::Devices);
    }
    let small = devices[0].size_bytes < 4 << 30;
    let total: u64 = devices.iter().map(|d| d.size_bytes).sum();
    let journal_blocks = if small { MIN_JOURNAL_BLOCKS } else { journal_blocks(total) };
    let mut meta = MetaLayout {
        journal_blocks,
        extent_bytes: 64 << 10,
        extents: 0,
        copies: [(DeviceId::new(0), DeviceOffset::new(0)); 2],
    };
    // A map page for every 2 MiB of fragments, a seat for every fragment, both once in the
    // checkpoint in force and once in the next, and a partly filled extent of each per table.
    let table_bytes = total / BLOCK * 18;
    meta.extents = u32::try_from(table_bytes / u64::from(meta.extent_bytes))
        .unwrap_or(MAX_EXTENTS)
        .min(MAX_EXTENTS)
        + 5 * u32::from(JOURNALS);
    let meta_bytes = meta.bytes();
    let second = usize::from(fast > 1);
    let plan_one = |(index, device): (usize, &NewDevice)| {
        let mut at = RESERVED_BYTES;
        let mut meta_offset = [0; 2];
        for (copy, home) in [(0, 0), (1, second)] {
            if index == home {
                meta_offset[copy] = at;
                at += meta_bytes;
            }
        }
        let chunk = chunk_bytes(device.role);
        let needed = at + MIN_CHUNKS * chunk;
        if device.size_bytes < needed {
            let size_bytes = device.size_bytes;
            return Err(LayoutError::TooSmall { device: index, size_bytes, needed });
        }
        let id = u8::try_from(index).expect("at most 63 devices");
        Ok(Superblock {
            version: VERSION,
            compat: 0,
            ro_compat: 0,
            pool_uuid: [0; 16],
            device_uuid: [0; 16],
            sequence: 0,
            incarnation: 0,
            size_bytes: device.size_bytes,
            device: DeviceId::new(id),
            devices: u8::try_from(devices.len()).expect("at most 63 devices"),
            role: device.role,
            fast_devices: u8::try_from(fast).expect("at most 63 devices"),
            journal_blocks,
            extent_bytes: meta.extent_bytes,
            extents: meta.extents,
            chunks: u32::try_from((device.size_bytes.min(MAX_DEVICE_BYTES) - at) / chunk)
                .expect("below 64 TiB"),
            meta_offset,
            meta_bytes,
            data_offset: at,
            chunk_bytes: chunk,
        })
    };
    devices.iter().enumerate().map(plan_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn zones_do_not_overlap() {
        let devices = [
            NewDevice { size_bytes: GIB, role: Role::Fast },
            NewDevice { size_bytes: 3 * GIB, role: Role::Cold },
        ];
        let plan = plan(&devices).unwrap();
        let meta = MetaLayout::of(&plan);
        assert_eq!(meta.bytes(), plan[0].meta_bytes);
        assert_eq!(plan[0].meta_offset[1], plan[0].meta_offset[0] + plan[0].meta_bytes);
        assert_eq!(plan[0].data_offset, plan[0].meta_offset[1] + plan[0].meta_bytes);
        assert!(meta.journal(CATALOG, u64::MAX) < meta.root(SliceId::new(0), 0));
        assert!(meta.root(CATALOG, 1) < meta.extent(0));
        assert!(plan[0].data_offset < GIB / 6, "metadata takes {} bytes", plan[0].data_offset);
    }

    #[test]
    fn two_fast_devices_hold_a_copy_each() {
        let fast = NewDevice { size_bytes: GIB, role: Role::Fast };
        let plan = plan(&[fast, fast]).unwrap();
        let homes = MetaLayout::of(&plan).copies.map(|(device, _)| device.get());
        assert_eq!(homes, [0, 1]);
    }

    #[test]
    fn unfit_devices_are_refused() {
        let cold = NewDevice { size_bytes: GIB, role: Role::Cold };
        let tiny = NewDevice { size_bytes: 64 << 20, role: Role::Fast };
        assert_eq!(plan(&[cold]), Err(LayoutError::Devices));
        assert!(matches!(plan(&[tiny]), Err(LayoutError::TooSmall { device: 0, .. })));
    }
}
