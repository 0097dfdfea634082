//! The superblock: what a device is, which pool it belongs to and how it is cut.
//!
//! Two copies, [`COPY_OFFSETS`]; sequence `n` is written to copy `n % 2` and
//! flushed before the other is ever touched again, so one copy is always whole.
//! Assumes that a write to one copy cannot damage the other (64 KiB apart).

use std::cmp::Ordering;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{FormatError, block_crc};
use crate::units::{BLOCK_BYTES, DeviceId, SLICES};

/// The newest format version this program writes and reads.
pub const VERSION: u32 = 1;
/// Where the two copies stand, in bytes from the start of the device.
pub const COPY_OFFSETS: [u64; 2] = [0, 64 << 10];
/// Bytes at the start of a device kept for superblocks and future use.
pub const RESERVED_BYTES: u64 = 1 << 20;
/// Incompatible features this program knows: none yet beside the base format.
pub const KNOWN_INCOMPAT: u64 = 0;
/// Read-only-compatible features this program knows.
pub const KNOWN_RO_COMPAT: u64 = 0;

const MAGIC: [u8; 8] = *b"TESSERA\x01";

/// The superblock as it lies on the device.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "fields are described in docs/format.md, which a test holds to them"
)]
pub struct RawSuperblock {
    pub magic: [u8; 8],
    pub version: U32,
    pub crc: U32,
    pub pool_uuid: [u8; 16],
    pub device_uuid: [u8; 16],
    pub sequence: U64,
    pub compat: U64,
    pub ro_compat: U64,
    pub incompat: U64,
    pub incarnation: U64,
    pub size_bytes: U64,
    pub device: u8,
    pub devices: u8,
    pub role: u8,
    pub fast_devices: u8,
    pub slices: U16,
    pub reserved0: U16,
    pub journal_blocks: U32,
    pub extent_bytes: U32,
    pub extents: U32,
    pub chunks: U32,
    pub meta_offset: [U64; 2],
    pub meta_bytes: U64,
    pub data_offset: U64,
    pub chunk_bytes: U64,
    pub reserved: [u8; 3936],
}

const _: () = assert!(size_of::<RawSuperblock>() == BLOCK_BYTES);

/// The tier a device belongs to.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// NVMe or SSD: journals, tables, slots with spare blocks.
    #[default]
    Fast,
    /// HDD: slots without spares, written once and whole.
    Cold,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Role::Fast => "fast",
            Role::Cold => "cold",
        })
    }
}

/// A decoded superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Format version of what is on the device.
    pub version: u32,
    /// Features that may be ignored; unknown ones are kept.
    pub compat: u64,
    /// Features without which the pool may be read, but not written.
    pub ro_compat: u64,
    /// The pool's identity, shared by all its devices.
    pub pool_uuid: [u8; 16],
    /// This device's identity.
    pub device_uuid: [u8; 16],
    /// Incremented by every superblock write.
    pub sequence: u64,
    /// Incremented every time the pool is opened for writing.
    pub incarnation: u64,
    /// The device's size when it was added.
    pub size_bytes: u64,
    /// Index of this device in the pool.
    pub device: DeviceId,
    /// Devices in the pool.
    pub devices: u8,
    /// Tier.
    pub role: Role,
    /// How many devices, from index 0, are fast.
    pub fast_devices: u8,
    /// Blocks in each slice's journal ring.
    pub journal_blocks: u32,
    /// Bytes in a checkpoint extent.
    pub extent_bytes: u32,
    /// Checkpoint extents in the metadata zone.
    pub extents: u32,
    /// Data chunks on this device.
    pub chunks: u32,
    /// Where copies 0 and 1 of the metadata zone start on this device; 0 if the copy is elsewhere.
    pub meta_offset: [u64; 2],
    /// Bytes in one copy of the metadata zone.
    pub meta_bytes: u64,
    /// Where chunk 0 starts.
    pub data_offset: u64,
    /// Bytes in a chunk.
    pub chunk_bytes: u64,
}

impl Superblock {
    /// The device image of the superblock.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut raw = RawSuperblock {
            magic: MAGIC,
            version: self.version.into(),
            crc: 0.into(),
            pool_uuid: self.pool_uuid,
            device_uuid: self.device_uuid,
            sequence: self.sequence.into(),
            compat: self.compat.into(),
            ro_compat: self.ro_compat.into(),
            incompat: 0.into(),
            incarnation: self.incarnation.into(),
            size_bytes: self.size_bytes.into(),
            device: self.device.get(),
            devices: self.devices,
            role: matches!(self.role, Role::Cold).into(),
            fast_devices: self.fast_devices,
            slices: SLICES.into(),
            reserved0: 0.into(),
            journal_blocks: self.journal_blocks.into(),
            extent_bytes: self.extent_bytes.into(),
            extents: self.extents.into(),
            chunks: self.chunks.into(),
            meta_offset: self.meta_offset.map(U64::new),
            meta_bytes: self.meta_bytes.into(),
            data_offset: self.data_offset.into(),
            chunk_bytes: self.chunk_bytes.into(),
            reserved: [0; 3936],
        };
        raw.crc = block_crc(raw.as_bytes(), 12).get().into();
        let mut block = [0; BLOCK_BYTES];
        block.copy_from_slice(raw.as_bytes());
        block
    }

    /// Decodes one copy. A newer version and unknown incompatible features are refused; features
    /// that forbid writing are for [`Superblock::writable`] to refuse.
    pub fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self, FormatError> {
        let raw = RawSuperblock::ref_from_bytes(block).expect("a block is a superblock's size");
        if raw.magic != MAGIC {
            return Err(FormatError::Magic);
        }
        if block_crc(block, 12).get() != raw.crc.get() {
            return Err(FormatError::Checksum);
        }
        if raw.version.get() > VERSION || raw.version.get() == 0 {
            return Err(FormatError::Version(raw.version.get()));
        }
        let unknown = raw.incompat.get() & !KNOWN_INCOMPAT;
        if unknown != 0 {
            return Err(FormatError::Features(unknown));
        }
        if raw.slices.get() != SLICES {
            return Err(FormatError::Field("slices"));
        }
        let role = match raw.role {
            0 => Role::Fast,
            1 => Role::Cold,
            _ => return Err(FormatError::Field("role")),
        };
        let this = Self {
            version: raw.version.get(),
            compat: raw.compat.get(),
            ro_compat: raw.ro_compat.get(),
            pool_uuid: raw.pool_uuid,
            device_uuid: raw.device_uuid,
            sequence: raw.sequence.get(),
            incarnation: raw.incarnation.get(),
            size_bytes: raw.size_bytes.get(),
            device: DeviceId::new(raw.device),
            devices: raw.devices,
            role,
            fast_devices: raw.fast_devices,
            journal_blocks: raw.journal_blocks.get(),
            extent_bytes: raw.extent_bytes.get(),
            extents: raw.extents.get(),
            chunks: raw.chunks.get(),
            meta_offset: raw.meta_offset.map(U64::get),
            meta_bytes: raw.meta_bytes.get(),
            data_offset: raw.data_offset.get(),
            chunk_bytes: raw.chunk_bytes.get(),
        };
        this.check().map(|()| this)
    }

    /// Whether a program that writes version `newest` may write to the device.
    pub fn writable(&self, newest: u32) -> Result<(), FormatError> {
        let unknown = self.ro_compat & !KNOWN_RO_COMPAT;
        match self.version.cmp(&newest) {
            _ if unknown != 0 => Err(FormatError::ReadOnly(unknown)),
            Ordering::Less => Err(FormatError::Older(self.version)),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(FormatError::Version(self.version)),
        }
    }

    fn check(&self) -> Result<(), FormatError> {
        let fail = |ok: bool, field| if ok { Ok(()) } else { Err(FormatError::Field(field)) };
        fail(self.device.get() < self.devices, "device")?;
        fail(self.fast_devices >= 1 && self.fast_devices <= self.devices, "fast_devices")?;
        fail((self.role == Role::Fast) == (self.device.get() < self.fast_devices), "role")?;
        fail(self.journal_blocks >= super::layout::MIN_JOURNAL_BLOCKS, "journal_blocks")?;
        fail(self.extent_bytes >= 4096 && self.extent_bytes.is_power_of_two(), "extent_bytes")?;
        fail(u32::try_from(self.incarnation).is_ok_and(|n| n < u32::MAX), "incarnation")?;
        fail(self.sequence < u64::MAX, "sequence")?;
        for start in self.meta_offset.into_iter().filter(|start| *start != 0) {
            let end = start.checked_add(self.meta_bytes);
            let fits = end.is_some_and(|end| end <= self.data_offset);
            fail(fits && start >= RESERVED_BYTES && is_block_aligned(start), "meta_offset")?;
        }
        let chunk = super::layout::chunk_bytes(self.role);
        fail(self.chunk_bytes == chunk, "chunk_bytes")?;
        let end = u64::from(self.chunks)
            .checked_mul(chunk)
            .and_then(|bytes| bytes.checked_add(self.data_offset));
        fail(end.is_some_and(|end| end <= self.size_bytes), "chunks")?;
        fail(is_block_aligned(self.data_offset), "data_offset")
    }
}

fn is_block_aligned(offset: u64) -> bool {
    offset.is_multiple_of(BLOCK_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            version: 1,
            compat: 0,
            ro_compat: 0,
            pool_uuid: [1; 16],
            device_uuid: [2; 16],
            sequence: 7,
            incarnation: 3,
            size_bytes: 1 << 30,
            device: DeviceId::new(0),
            devices: 2,
            role: Role::Fast,
            fast_devices: 1,
            journal_blocks: 128,
            extent_bytes: 65536,
            extents: 200,
            chunks: 20,
            meta_offset: [1 << 20, 64 << 20],
            meta_bytes: 50 << 20,
            data_offset: 128 << 20,
            chunk_bytes: 18 << 20,
        }
    }

    #[test]
    fn round_trip() {
        assert_eq!(Superblock::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let block = sample().encode();
        for bit in (0..BLOCK_BYTES * 8).step_by(61) {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn features_that_may_be_ignored_are_kept_and_others_forbid_writing() {
        let known = Superblock { compat: u64::MAX, ..sample() };
        assert_eq!(Superblock::decode(&known.encode()), Ok(known));
        assert_eq!(known.writable(1), Ok(()));
        let readable = Superblock { ro_compat: 12, ..sample() };
        assert_eq!(Superblock::decode(&readable.encode()), Ok(readable));
        assert_eq!(readable.writable(1), Err(FormatError::ReadOnly(12)));
        assert_eq!(sample().writable(2), Err(FormatError::Older(1)));
        assert_eq!(Superblock { version: 3, ..sample() }.writable(2), Err(FormatError::Version(3)));
    }

    #[test]
    fn a_newer_version_and_unknown_features_are_named() {
        let resealed = |change: fn(&mut RawSuperblock)| {
            let mut raw = RawSuperblock::read_from_bytes(&sample().encode()).unwrap();
            change(&mut raw);
            raw.crc = block_crc(raw.as_bytes(), 12).get().into();
            Superblock::decode(raw.as_bytes().try_into().unwrap())
        };
        assert_eq!(resealed(|raw| raw.version = 2.into()), Err(FormatError::Version(2)));
        assert_eq!(resealed(|raw| raw.version = 0.into()), Err(FormatError::Version(0)));
        assert_eq!(resealed(|raw| raw.incompat = 8.into()), Err(FormatError::Features(8)));
        assert_eq!(resealed(|raw| raw.chunks = 9999.into()), Err(FormatError::Field("chunks")));
        let field = |field| Err(FormatError::Field(field));
        assert_eq!(resealed(|raw| raw.sequence = u64::MAX.into()), field("sequence"));
        for start in [4096, (1 << 20) + 512, 127 << 20, u64::MAX] {
            let mut raw = RawSuperblock::read_from_bytes(&sample().encode()).unwrap();
            raw.meta_offset[1] = start.into();
            raw.crc = block_crc(raw.as_bytes(), 12).get().into();
            let decoded = Superblock::decode(raw.as_bytes().try_into().unwrap());
            assert_eq!(decoded, field("meta_offset"), "{start}");
        }
    }
}
