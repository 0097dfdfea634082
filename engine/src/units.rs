//! Newtypes with units, shared by every room of the engine.
//!
//! Invariants: a value of a type here is always in range for its unit; there
//! is no `Deref` and no implicit conversion, so a byte offset never becomes a
//! block number by accident. Nothing here does I/O.

use serde::{Deserialize, Serialize};

/// Bytes in a block: the unit of checksums, of mapping and of device I/O.
pub const BLOCK_BYTES: usize = 4096;
/// log2 of [`BLOCK_BYTES`].
pub const BLOCK_SHIFT: u32 = 12;
/// Bytes in a segment: the aligned piece of a volume that one slice owns.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// log2 of [`SEGMENT_BYTES`].
pub const SEGMENT_SHIFT: u32 = 24;
/// [`BLOCK_BYTES`] where a device operation's length is meant.
pub const BLOCK_BYTES_U32: u32 = 1 << BLOCK_SHIFT;
/// Blocks in a segment.
pub const SEGMENT_BLOCKS: u32 = 1 << (SEGMENT_SHIFT - BLOCK_SHIFT);
/// Slices of the fragment table, fixed when a pool is made.
pub const SLICES: u16 = 64;
/// A window: no engine request crosses an aligned boundary of this size.
pub const WINDOW_BYTES: u64 = 256 << 10;
/// Blocks in a window.
pub const WINDOW_BLOCKS: u32 = 64;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($raw);

        impl $name {
            /// Wraps a raw value.
            pub const fn new(raw: $raw) -> Self {
                Self(raw)
            }
            /// The raw value.
            pub const fn get(self) -> $raw {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

newtype!(
    /// A volume's number in its pool: not reused before every fragment of it is gone.
    VolumeId(u32)
);
newtype!(
    /// A device's index in its pool.
    DeviceId(u8)
);
newtype!(
    /// A core of this process, counted from 0.
    CoreId(u8)
);
newtype!(
    /// A slice of the fragment table.
    SliceId(u16)
);
newtype!(
    /// A byte offset in a volume.
    VolumeOffset(u64)
);
newtype!(
    /// A byte offset on a device.
    DeviceOffset(u64)
);
newtype!(
    /// Monotonic nanoseconds since an arbitrary start; simulated in tests.
    Nanos(u64)
);
newtype!(
    /// CRC-32C of one stored block.
    Crc(u32)
);
newtype!(
    /// Incremented by every change of a fragment's contents or place.
    Generation(u32)
);
newtype!(
    /// A client whose access pattern is its own: its name, hashed.
    ClientId(u64)
);

impl ClientId {
    /// The identity of a client by its name (a VM, a host's NQN): FNV-1a, stable across restarts.
    pub fn of(name: &str) -> ClientId {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        ClientId(hash)
    }
}

impl Nanos {
    /// Nanoseconds from `earlier` to `self`; 0 if `earlier` is later.
    pub const fn since(self, earlier: Nanos) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
    /// `self` moved `ns` nanoseconds into the future.
    #[must_use]
    pub const fn after(self, ns: u64) -> Nanos {
        Nanos(self.0.saturating_add(ns))
    }
}

/// CRC-32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> Crc {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    Crc(u32::try_from(crc).expect("a 32-bit CRC"))
}

/// log2 of a fragment's size: 64 KiB to 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentSize(u8);

impl FragmentSize {
    /// 64 KiB.
    pub const MIN: FragmentSize = FragmentSize(16);
    /// 16 MiB, a whole segment.
    pub const MAX: FragmentSize = FragmentSize(24);
    /// 1 MiB.
    pub const DEFAULT: FragmentSize = FragmentSize(20);

    /// From a log2 of bytes; `None` outside 16..=24.
    pub const fn from_log2(log2: u8) -> Option<Self> {
        if log2 >= Self::MIN.0 && log2 <= Self::MAX.0 { Some(Self(log2)) } else { None }
    }
    /// From bytes; `None` unless a power of two in range.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        if !bytes.is_power_of_two() {
            return None;
        }
        u8::try_from(bytes.trailing_zeros()).ok().and_then(Self::from_log2)
    }
    /// log2 of the size in bytes.
    pub const fn log2(self) -> u8 {
        self.0
    }
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.0
    }
    /// The size in blocks, 16..=4096.
    pub const fn blocks(self) -> u32 {
        1 << (self.0 as u32 - BLOCK_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_check_value() {
        assert_eq!(crc32c(b"123456789"), Crc::new(0xe306_9283));
    }

    #[test]
    fn client_ids_never_change() {
        // FNV-1a check values.
        assert_eq!(ClientId::of("").get(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(ClientId::of("a").get(), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn fragment_sizes_are_bounded_powers_of_two() {
        assert_eq!(FragmentSize::from_bytes(1 << 20), Some(FragmentSize::DEFAULT));
        assert_eq!(FragmentSize::from_bytes(3 << 20), None);
        assert_eq!(FragmentSize::from_bytes(32 << 10), None);
        assert_eq!(FragmentSize::MAX.blocks(), SEGMENT_BLOCKS);
    }
}
