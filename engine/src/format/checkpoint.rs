//! A checkpoint: a root block and extents full of pages of records.
//!
//! The root names the extents and the journal block from which replay starts.
//! The snapshot is *fuzzy*: taken while records up to `fuzzy_group` were being
//! applied; replaying from `start_seq` to at least that group makes it exact.
//! Two roots per table, written in turn; the higher valid sequence counts.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{FormatError, block_crc};
use crate::units::{BLOCK_BYTES, Crc, SliceId};

const ROOT_MAGIC: u32 = u32::from_le_bytes(*b"TCR1");
const PAGE_MAGIC: u32 = u32::from_le_bytes(*b"TCP1");
/// Bytes of the root's fixed part.
pub const ROOT_BYTES: usize = 96;
/// Most extents a root can name.
pub const MAX_EXTENTS: usize = (BLOCK_BYTES - ROOT_BYTES) / 4;
/// Sequences and groups stay below: they are counted up, and never reach it by counting.
const MAX_SEQUENCE: u64 = 1 << 62;
/// Bytes of a page's header.
pub const PAGE_HEADER_BYTES: usize = 32;
/// Bytes of records in a page.
pub const PAGE_PAYLOAD_BYTES: usize = BLOCK_BYTES - PAGE_HEADER_BYTES;

/// The root's fixed part as it lies on the device; extent numbers (4 bytes each) follow.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "fields are described in docs/format.md, which a test holds to them"
)]
pub struct RawRoot {
    pub magic: U32,
    pub crc: U32,
    pub pool: U64,
    pub slice: U16,
    pub reserved0: U16,
    pub extents: U32,
    pub sequence: U64,
    pub start_seq: U64,
    pub start_prev: U32,
    pub incarnation: U32,
    pub start_group: U64,
    pub fuzzy_group: U64,
    pub pages: U64,
    pub reserved: [u8; 24],
}

const _: () = assert!(size_of::<RawRoot>() == ROOT_BYTES);

/// A decoded root.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Root {
    /// Incremented by every checkpoint of this table.
    pub sequence: u64,
    /// First journal block to replay.
    pub start_seq: u64,
    /// CRC of the journal block before it.
    pub start_prev: Crc,
    /// Incarnation of the journal block before it.
    pub incarnation: u32,
    /// Number of the first group to replay.
    pub start_group: u64,
    /// Last group whose effects the snapshot may hold; 0 if none.
    pub fuzzy_group: u64,
    /// Pages in use, over all extents.
    pub pages: u64,
    /// The extents, in order.
    pub extents: Vec<u32>,
}

impl Root {
    /// The root's device image.
    pub fn encode(&self, pool: u64, slice: SliceId) -> [u8; BLOCK_BYTES] {
        assert!(self.extents.len() <= MAX_EXTENTS);
        let mut raw = RawRoot {
            magic: ROOT_MAGIC.into(),
            crc: 0.into(),
            pool: pool.into(),
            slice: slice.get().into(),
            reserved0: 0.into(),
            extents: u32::try_from(self.extents.len()).expect("bounded above").into(),
            sequence: self.sequence.into(),
            start_seq: self.start_seq.into(),
            start_prev: self.start_prev.get().into(),
            incarnation: self.incarnation.into(),
            start_group: self.start_group.into(),
            fuzzy_group: self.fuzzy_group.into(),
            pages: self.pages.into(),
            reserved: [0; 24],
        };
        let mut block = [0; BLOCK_BYTES];
        for (at, extent) in self.extents.iter().enumerate() {
            let at = ROOT_BYTES + at * 4;
            block[at..at + 4].copy_from_slice(&extent.to_le_bytes());
        }
        block[..ROOT_BYTES].copy_from_slice(raw.as_bytes());
        raw.crc = block_crc(&block, 4).get().into();
        block[..ROOT_BYTES].copy_from_slice(raw.as_bytes());
        block
    }

    /// Decodes a root of this pool and table.
    pub fn decode(block: &[u8], pool: u64, slice: SliceId) -> Result<Self, FormatError> {
        let (raw, rest) =
            RawRoot::ref_from_prefix(block).map_err(|_| FormatError::Field("size"))?;
        if raw.magic.get() != ROOT_MAGIC {
            return Err(FormatError::Magic);
        }
        if block_crc(block, 4).get() != raw.crc.get() {
            return Err(FormatError::Checksum);
        }
        if raw.pool.get() != pool {
            return Err(FormatError::Foreign("pool"));
        }
        if raw.slice.get() != slice.get() {
            return Err(FormatError::Foreign("slice"));
        }
        if raw.start_group.get() == 0 {
            return Err(FormatError::Field("start_group"));
        }
        let counters = [raw.sequence, raw.start_seq, raw.start_group];
        if counters.iter().any(|counter| counter.get() >= MAX_SEQUENCE) {
            return Err(FormatError::Field("sequence"));
        }
        let count = raw.extents.get() as usize;
        let names = rest.get(..count * 4).ok_or(FormatError::Field("extents"))?;
        let extents =
            names.chunks_exact(4).map(|raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]));
        Ok(Self {
            sequence: raw.sequence.get(),
            start_seq: raw.start_seq.get(),
            start_prev: Crc::new(raw.start_prev.get()),
            incarnation: raw.incarnation.get(),
            start_group: raw.start_group.get(),
            fuzzy_group: raw.fuzzy_group.get(),
            pages: raw.pages.get(),
            extents: extents.collect(),
        })
    }
}

/// A page's header as it lies on the device.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "fields are described in docs/format.md, which a test holds to them"
)]
pub struct RawPage {
    pub magic: U32,
    pub crc: U32,
    pub pool: U64,
    pub slice: U16,
    pub bytes: U16,
    pub sequence: U64,
    pub index: U32,
}

const _: () = assert!(size_of::<RawPage>() == PAGE_HEADER_BYTES);

/// Seals page `index` of checkpoint `sequence`; its payload of `bytes` is in place.
pub fn seal_page(
    page: &mut [u8],
    pool: u64,
    slice: SliceId,
    sequence: u64,
    index: u32,
    bytes: u16,
) {
    assert!(page.len() == BLOCK_BYTES && usize::from(bytes) <= PAGE_PAYLOAD_BYTES);
    let mut raw = RawPage {
        magic: PAGE_MAGIC.into(),
        crc: 0.into(),
        pool: pool.into(),
        slice: slice.get().into(),
        bytes: bytes.into(),
        sequence: sequence.into(),
        index: index.into(),
    };
    page[..PAGE_HEADER_BYTES].copy_from_slice(raw.as_bytes());
    raw.crc = block_crc(page, 4).get().into();
    page[..PAGE_HEADER_BYTES].copy_from_slice(raw.as_bytes());
}

/// The records of a page, if it is that page of that checkpoint.
pub fn open_page(
    page: &[u8],
    pool: u64,
    slice: SliceId,
    sequence: u64,
    index: u32,
) -> Result<&[u8], FormatError> {
    let (raw, payload) = RawPage::ref_from_prefix(page).map_err(|_| FormatError::Field("size"))?;
    if raw.magic.get() != PAGE_MAGIC {
        return Err(FormatError::Magic);
    }
    if block_crc(page, 4).get() != raw.crc.get() {
        return Err(FormatError::Checksum);
    }
    let found = (raw.pool.get(), raw.slice.get(), raw.sequence.get(), raw.index.get());
    if found != (pool, slice.get(), sequence, index) {
        return Err(FormatError::Foreign("page"));
    }
    payload.get(..usize::from(raw.bytes.get())).ok_or(FormatError::Field("bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_round_trips_and_belongs_to_its_table() {
        let root = Root {
            sequence: 4,
            start_group: 1,
            start_seq: 77,
            extents: vec![3, 1, 4],
            pages: 9,
            ..Root::default()
        };
        let block = root.encode(11, SliceId::new(5));
        assert_eq!(Root::decode(&block, 11, SliceId::new(5)), Ok(root));
        assert_eq!(Root::decode(&block, 12, SliceId::new(5)), Err(FormatError::Foreign("pool")));
        assert_eq!(Root::decode(&block, 11, SliceId::new(6)), Err(FormatError::Foreign("slice")));
    }

    #[test]
    fn a_root_whose_counters_could_overflow_is_refused() {
        let sound = Root { sequence: 4, start_group: 1, start_seq: 77, ..Root::default() };
        for root in [
            Root { sequence: u64::MAX, ..sound.clone() },
            Root { start_seq: u64::MAX - 1, ..sound.clone() },
            Root { start_group: MAX_SEQUENCE, ..sound.clone() },
        ] {
            let decoded = Root::decode(&root.encode(11, SliceId::new(5)), 11, SliceId::new(5));
            assert_eq!(decoded, Err(FormatError::Field("sequence")));
        }
    }

    #[test]
    fn a_page_opens_only_in_its_place() {
        let mut page = [0; BLOCK_BYTES];
        page[PAGE_HEADER_BYTES] = 42;
        seal_page(&mut page, 1, SliceId::new(2), 3, 4, 1);
        assert_eq!(open_page(&page, 1, SliceId::new(2), 3, 4), Ok([42].as_slice()));
        assert!(open_page(&page, 1, SliceId::new(2), 3, 5).is_err());
        page[100] ^= 1;
        assert_eq!(open_page(&page, 1, SliceId::new(2), 3, 4), Err(FormatError::Checksum));
    }
}
