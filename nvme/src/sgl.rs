//! SGL descriptors: where a command's data is (Base 4.3.2).
//!
//! ```text
//!  0  address, or an offset into the capsule
//!  8  length
//! 12  reserved
//! 15  type (7:4), subtype (3:0)
//! ```
//!
//! Fabrics over TCP know two: data in the capsule, at an offset, and data that the
//! transport moves by itself (TCP 3.3.2.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian};

/// Type and subtype of a data block at an offset in the capsule.
const IN_CAPSULE: u8 = 0x01;
/// Type and subtype of a transport data block.
const TRANSPORT: u8 = 0x5a;

/// One descriptor of 16 bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SglDescriptor {
    /// Address or offset.
    pub address: little_endian::U64,
    /// Bytes.
    pub length: little_endian::U32,
    /// Reserved.
    pub reserved: [u8; 3],
    /// Bits 7:4 the type, 3:0 the subtype.
    pub kind: u8,
}

const _: () = assert!(size_of::<SglDescriptor>() == 16);

/// What a descriptor says over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SglKind {
    /// The data follow the command, at `address` behind it.
    InCapsule,
    /// The transport moves the data.
    Transport,
    /// Anything else.
    Other,
}

impl SglDescriptor {
    /// Data of `length` bytes behind the command in its capsule.
    pub fn in_capsule(length: u32) -> Self {
        Self { length: length.into(), kind: IN_CAPSULE, ..Self::default() }
    }

    /// Data of `length` bytes that the transport moves.
    pub fn transport(length: u32) -> Self {
        Self { length: length.into(), kind: TRANSPORT, ..Self::default() }
    }

    /// What the descriptor says.
    pub fn kind(&self) -> SglKind {
        match self.kind {
            IN_CAPSULE => SglKind::InCapsule,
            TRANSPORT => SglKind::Transport,
            _ => SglKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_the_bytes_of_the_figure() {
        let sgl = SglDescriptor::transport(0x0102_0304);
        assert_eq!(sgl.as_bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0x5a]);
        assert_eq!(sgl.kind(), SglKind::Transport);
        assert_eq!(SglDescriptor::in_capsule(1).kind(), SglKind::InCapsule);
        for kind in [0x00, 0x10, 0x0a, 0x50, 0x51, 0xff] {
            let sgl = SglDescriptor { kind, ..SglDescriptor::default() };
            assert_eq!(sgl.kind(), SglKind::Other, "{kind:#x}");
        }
    }
}
