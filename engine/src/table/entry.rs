//! The smallest parts of the table: places, slots and block entries.

use crate::units::{BLOCK_BYTES, Crc, DeviceId, DeviceOffset};

/// Where one block's bytes are: a place in a fast slot, the cold slot, or nowhere.
///
/// Bit 15 chooses the fast slot, bits 0–12 the block in it (< 4608).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u16);

impl Place {
    /// No fast place.
    pub const HOLE: Place = Place(0xffff);
    /// In records only: the authority is the cold slot, at the block's own position.
    pub const COLD: Place = Place(0xfffe);

    /// A block of fast slot 0 or 1.
    pub fn fast(slot: usize, block: u32) -> Self {
        assert!(slot < 2 && block < 4608);
        Place(u16::try_from(slot << 15 | block as usize).expect("16 bits"))
    }
    /// The stored form.
    pub const fn raw(self) -> u16 {
        self.0
    }
    /// From the stored form; [`Place::as_fast`] checks it against a slot.
    pub const fn from_raw(raw: u16) -> Self {
        Place(raw)
    }
    /// The fast slot and the block in it, if it is a fast place.
    pub fn as_fast(self) -> Option<(usize, u32)> {
        let block = u32::from(self.0 & 0x7fff);
        (block < 4608).then_some((usize::from(self.0 >> 15), block))
    }
}

/// A slot: a device and the first block of the slot on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotRef {
    /// The device.
    pub device: DeviceId,
    /// First block on the device, below 2^56.
    pub block: u64,
}

impl SlotRef {
    /// Stored form: device in the top byte; all ones for none.
    pub fn to_raw(slot: Option<SlotRef>) -> u64 {
        slot.map_or(u64::MAX, |slot| u64::from(slot.device.get()) << 56 | slot.block)
    }
    /// From the stored form. Whether device and block exist is checked at recovery.
    pub fn from_raw(raw: u64) -> Option<SlotRef> {
        let device = DeviceId::new(raw.to_le_bytes()[7]);
        (raw != u64::MAX).then_some(SlotRef { device, block: raw & ((1 << 56) - 1) })
    }
    /// Byte offset of a block of the slot.
    pub fn offset(self, block: u32) -> DeviceOffset {
        DeviceOffset::new((self.block + u64::from(block)) * BLOCK_BYTES as u64)
    }
}

/// A block of a fragment, in memory.
///
/// Authority: the cold slot if `COLD` is set, else the fast place, else zeros.
/// A fast place beside `COLD` is a clean copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// Fast place or [`Place::HOLE`].
    pub place: Place,
    /// Bit 0 `COLD`; bits 1–2 the mark of the uncommitted group that wrote it, 0 if committed.
    state: u16,
    /// Checksum, meaningful unless a hole.
    pub crc: Crc,
}

const COLD: u16 = 1;
const MARK_SHIFT: u32 = 1;

impl BlockEntry {
    /// Reads as zeros.
    pub const HOLE: BlockEntry = BlockEntry { place: Place::HOLE, state: 0, crc: Crc::new(0) };

    /// A block whose authority is a fast place, written by the group with `mark`.
    pub fn fast(place: Place, crc: Crc, mark: u16) -> Self {
        assert!(place.as_fast().is_some() && mark < 4);
        BlockEntry { place, state: mark << MARK_SHIFT, crc }
    }
    /// A block whose authority is the cold slot.
    pub fn cold(crc: Crc, mark: u16) -> Self {
        BlockEntry { place: Place::HOLE, state: COLD | mark << MARK_SHIFT, crc }
    }
    /// A hole made by the group with `mark`.
    pub fn hole(mark: u16) -> Self {
        BlockEntry { state: mark << MARK_SHIFT, ..Self::HOLE }
    }
    /// The same block with or without a clean fast copy beside its cold authority.
    #[must_use]
    pub fn with_copy(self, place: Place) -> Self {
        assert!(self.is_cold());
        BlockEntry { place, ..self }
    }
    /// No bytes anywhere.
    pub fn is_hole(self) -> bool {
        self.place == Place::HOLE && !self.is_cold()
    }
    /// The cold slot has the authority.
    pub fn is_cold(self) -> bool {
        self.state & COLD != 0
    }
    /// Only the cold slot has the bytes.
    pub fn only_cold(self) -> bool {
        self.is_cold() && self.place == Place::HOLE
    }
    /// The cold slot has the authority and a fast place a clean copy.
    pub fn has_copy(self) -> bool {
        self.is_cold() && self.place != Place::HOLE
    }
    /// The mark of the group that wrote it, 0 if committed.
    pub fn mark(self) -> u16 {
        self.state >> MARK_SHIFT
    }
    /// The group is durable.
    pub fn clear_mark(&mut self) {
        self.state &= COLD;
    }
}

const _: () = assert!(size_of::<BlockEntry>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_slots_round_trip() {
        assert_eq!(Place::fast(1, 4607).as_fast(), Some((1, 4607)));
        assert_eq!(Place::HOLE.as_fast(), None);
        assert_eq!(Place::COLD.as_fast(), None);
        let slot = SlotRef { device: DeviceId::new(3), block: 1 << 40 };
        assert_eq!(SlotRef::from_raw(SlotRef::to_raw(Some(slot))), Some(slot));
        assert_eq!(SlotRef::from_raw(SlotRef::to_raw(None)), None);
    }

    #[test]
    fn authority_is_told_by_flag_and_place() {
        let mut copy = BlockEntry::cold(Crc::new(1), 2);
        assert!(copy.only_cold() && !copy.is_hole());
        copy.place = Place::fast(0, 1);
        copy.clear_mark();
        assert!(copy.is_cold() && !copy.only_cold() && copy.mark() == 0);
        assert!(BlockEntry::hole(3).is_hole());
    }
}
