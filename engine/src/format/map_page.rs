//! A map page: place and checksum of every block of an aligned 2 MiB of a volume.
//!
//! Written whole by checkpoints, never in place, in both copies of the
//! metadata zone; read when a fragment of its range is first used. A fragment
//! larger than 2 MiB has several, one behind the other. Which page is the
//! valid one is said by the fragment's seat record, page and checkpoint both.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::record::Entry;
use super::{FormatError, block_crc};
use crate::table::entry::Place;
use crate::units::{BLOCK_BYTES, Crc, SliceId, VolumeId};

const MAGIC: u32 = u32::from_le_bytes(*b"TMP1");
/// Blocks that a page speaks of: 2 MiB of a volume.
pub const PAGE_BLOCKS: usize = 512;

/// A page as it lies on the device.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "fields are described in docs/format.md, which a test holds to them"
)]
pub struct RawMapPage {
    pub magic: U32,
    pub crc: U32,
    pub pool: U64,
    pub slice: U16,
    pub reserved0: U16,
    pub volume: U32,
    pub unit: U32,
    pub written: U32,
    pub places: [U16; PAGE_BLOCKS],
    pub crcs: [U32; PAGE_BLOCKS],
    pub reserved: [u8; 992],
}

const _: () = assert!(size_of::<RawMapPage>() == BLOCK_BYTES);

/// What a page must say of itself to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapId {
    /// Low half of the pool's UUID.
    pub pool: u64,
    /// The table.
    pub slice: SliceId,
    /// The volume.
    pub volume: VolumeId,
    /// Which 2 MiB of the volume.
    pub unit: u32,
    /// Sequence of the checkpoint that wrote it.
    pub written: u32,
}

/// Writes a page; `entry` gives the authority of each of its blocks, `None` for a hole.
pub fn encode(page: &mut [u8], id: &MapId, entry: impl Fn(usize) -> Option<Entry>) {
    let raw = RawMapPage::mut_from_bytes(page).expect("a page is a block, aligned or not");
    raw.zero();
    raw.magic = MAGIC.into();
    raw.pool = id.pool.into();
    raw.slice = id.slice.get().into();
    raw.volume = id.volume.get().into();
    raw.unit = id.unit.into();
    raw.written = id.written.into();
    for (block, (place, crc)) in raw.places.iter_mut().zip(&mut raw.crcs).enumerate() {
        match entry(block) {
            Some(entry) => {
                *place = entry.place.raw().into();
                *crc = entry.crc.get().into();
            }
            None => *place = Place::HOLE.raw().into(),
        }
    }
    let crc = block_crc(page, 4);
    page[4..8].copy_from_slice(&crc.get().to_le_bytes());
}

/// The page in a block, if it is that page.
pub fn open<'a>(block: &'a [u8], id: &MapId) -> Result<&'a RawMapPage, FormatError> {
    let raw = RawMapPage::unchecked(block)?;
    if raw.magic.get() != MAGIC {
        return Err(FormatError::Magic);
    }
    if block_crc(block, 4).get() != raw.crc.get() {
        return Err(FormatError::Checksum);
    }
    let found = (raw.pool.get(), raw.slice.get(), raw.volume.get(), raw.unit.get());
    if found != (id.pool, id.slice.get(), id.volume.get(), id.unit) {
        return Err(FormatError::Foreign("map page"));
    }
    if raw.written.get() != id.written {
        return Err(FormatError::Foreign("checkpoint"));
    }
    Ok(raw)
}

impl RawMapPage {
    /// A block as a page, without looking at what it says of itself.
    pub(crate) fn unchecked(block: &[u8]) -> Result<&Self, FormatError> {
        RawMapPage::ref_from_bytes(block).map_err(|_| FormatError::Field("size"))
    }

    /// The authority of a block, `None` for a hole. Whether the place exists is the caller's to check.
    pub fn entry(&self, block: usize) -> Option<Entry> {
        let place = Place::from_raw(self.places[block].get());
        (place != Place::HOLE).then(|| Entry { place, crc: Crc::new(self.crcs[block].get()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MapId =
        MapId { pool: 1, slice: SliceId::new(2), volume: VolumeId::new(3), unit: 4, written: 5 };

    #[test]
    fn a_page_round_trips_and_opens_only_as_itself() {
        let mut page = [7; BLOCK_BYTES];
        let entry = Entry { place: Place::fast(1, 9), crc: Crc::new(77) };
        encode(&mut page, &ID, |block| (block % 3 == 1).then_some(entry));
        let raw = open(&page, &ID).expect("as written");
        assert_eq!((raw.entry(0), raw.entry(1)), (None, Some(entry)));
        for id in [
            MapId { pool: 0, ..ID },
            MapId { slice: SliceId::new(0), ..ID },
            MapId { volume: VolumeId::new(0), ..ID },
            MapId { unit: 0, ..ID },
            MapId { written: 4, ..ID },
        ] {
            assert!(matches!(open(&page, &id), Err(FormatError::Foreign(_))));
        }
        page[3000] ^= 1;
        assert_eq!(open(&page, &ID).err(), Some(FormatError::Checksum));
    }
}
