//! A seat: the few bytes that memory always holds of a fragment.
//!
//! Enough to place, age, drop and checkpoint a fragment whose block map is on
//! the device only. While the map is in memory, the [`super::fragment::Fragment`]
//! has the truth, and the seat is brought up to date when it leaves; page and
//! counts are the seat's own.

use super::entry::SlotRef;
use crate::format::record::{Mapped, Placement};
use crate::units::{DeviceId, FragmentSize, Generation, Nanos};

/// Slots lie below this device block: 64 TiB, so that a slot fits in five bytes.
pub const MAX_DEVICE_BLOCKS: u64 = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 34;
const SLOT_BYTES: usize = 5;
/// log2 of the nanoseconds in the unit of a seat's age: 69 s.
const AGE_SHIFT: u32 = 36;
const NONE: u32 = u32::MAX;

/// A fragment, its block map apart. What a lookup reads stands in the first eight bytes, which
/// no cache line divides.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Seat {
    here: u32,
    /// Position among the fragments of its segment.
    pub at: u8,
    /// A spill of these contents failed.
    pub stuck: bool,
    last_use: u16,
    generation: u32,
    page: u32,
    /// Checkpoint that wrote the map page.
    pub written: u32,
    /// Blocks that are not holes, as last accounted.
    pub present: u16,
    /// Of those, blocks whose authority is the cold slot.
    pub cold_blocks: u16,
    slots: [[u8; SLOT_BYTES]; 3],
}

const _: () = assert!(size_of::<Seat>() == 40);

fn pack(slot: Option<SlotRef>) -> [u8; SLOT_BYTES] {
    let Some(slot) = slot else { return [u8::MAX; SLOT_BYTES] };
    assert!(slot.device.get() < 63 && slot.block < MAX_DEVICE_BLOCKS, "a slot of a pool's device");
    let raw = u64::from(slot.device.get()) << SLOT_BITS | slot.block;
    let [a, b, c, d, e, ..] = raw.to_le_bytes();
    [a, b, c, d, e]
}

fn unpack([a, b, c, d, e]: [u8; SLOT_BYTES]) -> Option<SlotRef> {
    let raw = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]);
    let device = u8::try_from(raw >> SLOT_BITS).expect("six bits");
    let slot = SlotRef { device: DeviceId::new(device), block: raw & (MAX_DEVICE_BLOCKS - 1) };
    (device < 63).then_some(slot)
}

/// True if every slot is one that a seat can hold.
pub fn fits(placement: &Placement) -> bool {
    let fits = |slot: &SlotRef| slot.device.get() < 63 && slot.block < MAX_DEVICE_BLOCKS;
    placement.fast.iter().chain([&placement.cold]).flatten().all(fits)
}

impl Seat {
    /// A seat at position `at` of its segment, without a map in memory.
    pub fn new(at: u8, placement: &Placement) -> Self {
        let mut seat = Seat {
            slots: [[0; SLOT_BYTES]; 3],
            at,
            generation: 0,
            page: NONE,
            written: 0,
            here: NONE,
            present: 0,
            cold_blocks: 0,
            last_use: 0,
            stuck: false,
        };
        seat.set_placement(placement);
        seat
    }

    /// Where its copies lie.
    pub fn placement(&self, size: FragmentSize) -> Placement {
        let [first, second, cold] = self.slots.map(unpack);
        let generation = Generation::new(self.generation);
        Placement { size, generation, fast: [first, second], cold }
    }

    /// Replaces the placement.
    pub fn set_placement(&mut self, placement: &Placement) {
        self.slots = [placement.fast[0], placement.fast[1], placement.cold].map(pack);
        self.generation = placement.generation.get();
    }

    /// What a checkpoint says of its map.
    pub fn mapped(&self) -> Mapped {
        let Self { written, present, cold_blocks, .. } = *self;
        Mapped { page: self.page(), written, present, cold_blocks }
    }

    /// The first map page, if a checkpoint has written one.
    pub fn page(&self) -> Option<u32> {
        (self.page != NONE).then_some(self.page)
    }

    /// The map is, or is about to be, at `page`.
    pub fn set_page(&mut self, page: Option<u32>, written: u32) {
        self.page = page.unwrap_or(NONE);
        self.written = written;
    }

    /// Index of the fragment in memory.
    pub fn here(&self) -> Option<u32> {
        (self.here != NONE).then_some(self.here)
    }

    /// The fragment comes into, or leaves, memory.
    pub fn set_here(&mut self, here: Option<u32>) {
        self.here = here.unwrap_or(NONE);
    }

    /// When it was last used, rounded down to 69 s.
    pub fn last_use(&self) -> Nanos {
        Nanos::new(u64::from(self.last_use) << AGE_SHIFT)
    }

    /// Remembers when it was last used.
    pub fn set_last_use(&mut self, now: Nanos) {
        self.last_use = u16::try_from(now.get() >> AGE_SHIFT).unwrap_or(u16::MAX);
    }

    /// It has blocks whose authority is a fast place.
    pub fn is_warm(&self) -> bool {
        self.present > self.cold_blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_ages_survive_packing() {
        let slot = |device, block| Some(SlotRef { device: DeviceId::new(device), block });
        let placement = Placement {
            size: FragmentSize::DEFAULT,
            generation: Generation::new(9),
            fast: [slot(62, MAX_DEVICE_BLOCKS - 1), None],
            cold: slot(0, 0),
        };
        let mut seat = Seat::new(15, &placement);
        assert_eq!(seat.placement(FragmentSize::DEFAULT), placement);
        assert_eq!((seat.page(), seat.here(), seat.at), (None, None, 15));
        seat.set_last_use(Nanos::new(3 << AGE_SHIFT | 5));
        assert_eq!(seat.last_use(), Nanos::new(3 << AGE_SHIFT));
        let far = Placement { cold: slot(0, MAX_DEVICE_BLOCKS), ..placement };
        assert!(fits(&placement) && !fits(&far));
    }
}
