//! A journal block: a header and whole-group bytes of records.
//!
//! A commit group is 1..=15 consecutive blocks; only a complete group counts.
//! Block `seq` stands at ring position `seq % journal_blocks`. Each block names
//! the CRC of its predecessor, the incarnation of the pool that wrote it, and
//! the *watermark*: the highest block sequence known durable when it was built.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{FormatError, block_crc};
use crate::units::{BLOCK_BYTES, Crc, SliceId};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of records in one block.
pub const PAYLOAD_BYTES: usize = BLOCK_BYTES - HEADER_BYTES;
/// Blocks in the longest group.
pub const MAX_GROUP_BLOCKS: usize = 15;
/// Bytes of records in the longest group.
pub const MAX_GROUP_BYTES: usize = MAX_GROUP_BLOCKS * PAYLOAD_BYTES;

const MAGIC: u32 = u32::from_le_bytes(*b"TJN1");

/// The header as it lies on the device.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "fields are described in docs/format.md, which a test holds to them"
)]
pub struct RawHeader {
    pub magic: U32,
    pub crc: U32,
    pub pool: U64,
    pub slice: U16,
    pub index: U16,
    pub blocks: U16,
    pub bytes: U16,
    pub seq: U64,
    pub group: U64,
    pub durable: U64,
    pub prev: U32,
    pub incarnation: U32,
    pub reserved: U64,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Low half of the pool's UUID.
    pub pool: u64,
    /// Whose journal.
    pub slice: SliceId,
    /// Position in the group, from 0.
    pub index: u16,
    /// Blocks in the group.
    pub blocks: u16,
    /// Bytes of records in this block.
    pub bytes: u16,
    /// Sequence of this block.
    pub seq: u64,
    /// Number of the group.
    pub group: u64,
    /// Watermark: every block up to this sequence is durable.
    pub durable: u64,
    /// CRC field of the block before.
    pub prev: Crc,
    /// Incarnation that wrote it.
    pub incarnation: u32,
}

/// Writes the header over the first bytes of `block`, whose payload is in place
/// and zero behind `header.bytes`; returns the block's CRC.
pub fn seal(block: &mut [u8], header: &Header) -> Crc {
    assert_eq!(block.len(), BLOCK_BYTES);
    assert!(usize::from(header.bytes) <= PAYLOAD_BYTES && header.index < header.blocks);
    let mut raw = RawHeader {
        magic: MAGIC.into(),
        crc: 0.into(),
        pool: header.pool.into(),
        slice: header.slice.get().into(),
        index: header.index.into(),
        blocks: header.blocks.into(),
        bytes: header.bytes.into(),
        seq: header.seq.into(),
        group: header.group.into(),
        durable: header.durable.into(),
        prev: header.prev.get().into(),
        incarnation: header.incarnation.into(),
        reserved: 0.into(),
    };
    block[..HEADER_BYTES].copy_from_slice(raw.as_bytes());
    let crc = block_crc(block, 4);
    raw.crc = crc.get().into();
    block[..HEADER_BYTES].copy_from_slice(raw.as_bytes());
    crc
}

/// Decodes a block: header, its CRC, and the records in it.
pub fn open(block: &[u8]) -> Result<(Header, Crc, &[u8]), FormatError> {
    assert_eq!(block.len(), BLOCK_BYTES);
    let (raw, payload) = RawHeader::ref_from_prefix(block).expect("a block holds a header");
    if raw.magic.get() != MAGIC {
        return Err(FormatError::Magic);
    }
    let crc = block_crc(block, 4);
    if crc.get() != raw.crc.get() {
        return Err(FormatError::Checksum);
    }
    let header = Header {
        pool: raw.pool.get(),
        slice: SliceId::new(raw.slice.get()),
        index: raw.index.get(),
        blocks: raw.blocks.get(),
        bytes: raw.bytes.get(),
        seq: raw.seq.get(),
        group: raw.group.get(),
        durable: raw.durable.get(),
        prev: Crc::new(raw.prev.get()),
        incarnation: raw.incarnation.get(),
    };
    if usize::from(header.blocks) > MAX_GROUP_BLOCKS || header.index >= header.blocks {
        return Err(FormatError::Field("blocks"));
    }
    let records = payload.get(..usize::from(header.bytes)).ok_or(FormatError::Field("bytes"))?;
    Ok((header, crc, records))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_block_opens_and_a_changed_one_does_not() {
        let header = Header {
            pool: 1,
            slice: SliceId::new(2),
            index: 0,
            blocks: 1,
            bytes: 10,
            seq: 99,
            group: 40,
            durable: 98,
            prev: Crc::new(5),
            incarnation: 6,
        };
        let mut block = [0; BLOCK_BYTES];
        block[HEADER_BYTES..HEADER_BYTES + 10].copy_from_slice(b"0123456789");
        let crc = seal(&mut block, &header);
        assert_eq!(open(&block), Ok((header, crc, b"0123456789".as_slice())));
        block[4000] ^= 1;
        assert_eq!(open(&block), Err(FormatError::Checksum));
        assert_eq!(open(&[0; BLOCK_BYTES]), Err(FormatError::Magic));
    }
}
