//! A fragment: an aligned power-of-two piece of a volume, its slots and its block map.
//!
//! Invariants (checked by [`Fragment::self_check`]): a fast place named by an
//! entry is marked used in a slot that exists; no two entries name one place;
//! a cold entry implies a cold slot.

use super::entry::{BlockEntry, Place, SlotRef};
use crate::format::layout::slot_blocks;
use crate::format::record::{Entry, FragmentKey, Placement};
use crate::format::superblock::Role;
use crate::planted::{Bug, planted};
use crate::units::{FragmentSize, Generation, Nanos};

/// Whether a fragment's block map is on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// As it is.
    Clean,
    /// It has changed since: listed in [`super::slice::Slice::dirty`].
    Dirty,
    /// As it is, once the checkpoint under way is published.
    Writing,
}

/// A fragment's index in its slice, with the number that tells reuse apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragRef {
    /// Index in the slice's fragments.
    pub index: u32,
    /// Unique over the life of the process.
    pub uid: u32,
}

/// A fast slot and which of its blocks are taken: by an entry, a write under
/// way, a durable record not yet replaced, or a reader.
#[derive(Debug)]
pub struct FastSlot {
    /// Where it is.
    pub slot: SlotRef,
    used: Box<[u64]>,
    /// Taken blocks.
    pub taken: u32,
    /// A record names it; one that holds only clean copies is named nowhere.
    pub named: bool,
}

impl FastSlot {
    /// An empty slot.
    pub fn new(slot: SlotRef, size: FragmentSize) -> Self {
        let words = (slot_blocks(Role::Fast, size) as usize).div_ceil(64);
        Self { slot, used: vec![0; words].into_boxed_slice(), taken: 0, named: false }
    }

    fn is_free(&self, block: u32) -> bool {
        self.used[block as usize / 64] & (1 << (block % 64)) == 0
    }

    fn take(&mut self, block: u32) {
        assert!(self.is_free(block), "block {block} of a slot taken twice");
        self.used[block as usize / 64] |= 1 << (block % 64);
        self.taken += 1;
    }

    fn give(&mut self, block: u32) {
        assert!(!self.is_free(block), "block {block} of a slot freed twice");
        self.used[block as usize / 64] &= !(1 << (block % 64));
        self.taken -= 1;
    }

    /// First free block at or behind `from`.
    fn find_free(&self, from: u32, blocks: u32) -> Option<u32> {
        let mut word = from as usize / 64;
        let mut free = !*self.used.get(word)? & (u64::MAX << (from % 64));
        while free == 0 {
            word += 1;
            free = !*self.used.get(word)?;
        }
        let found = u32::try_from(word * 64).expect("a slot is small") + free.trailing_zeros();
        (found < blocks).then_some(found)
    }
}

/// A fragment in memory, with its block map.
#[derive(Debug)]
pub struct Fragment {
    /// Identity.
    pub key: FragmentKey,
    /// Size.
    pub size: FragmentSize,
    /// Told apart from earlier users of the index.
    pub uid: u32,
    /// Bumped by every change of contents or authority.
    pub generation: Generation,
    /// Fast slots.
    pub fast: [Option<FastSlot>; 2],
    /// Which fast slot new places come from.
    pub target: usize,
    /// Cold slot.
    pub cold: Option<SlotRef>,
    /// Entries whose authority is the cold slot.
    pub cold_blocks: u32,
    /// Entries with a clean fast copy beside their cold authority.
    pub copies: u32,
    /// Entries that are not holes.
    pub present: u32,
    /// `present` and `cold_blocks` as last accounted.
    pub accounted: (u32, u32),
    /// The newest placement is in the log or the journal.
    pub recorded: bool,
    /// Operations that hold this fragment.
    pub pins: u32,
    /// Stage slot, if one is loading or ready.
    pub stage: Option<u32>,
    /// A spill of these contents failed: its blocks or the cold slot are bad.
    pub stuck: bool,
    /// Listed in [`super::slice::Slice::unswept`].
    pub unswept: bool,
    /// Whether its map is on the device.
    pub saved: Saved,
    /// Used since the last look for a fragment to send away.
    pub referenced: bool,
    /// When it was last read or written by a client.
    pub last_use: Nanos,
    /// Separate demand uses since it went cold, saturating.
    pub touches: u8,
    map: Box<[BlockEntry]>,
}

impl Fragment {
    /// All holes, no slots.
    pub fn new(key: FragmentKey, size: FragmentSize, uid: u32) -> Self {
        Self {
            key,
            size,
            uid,
            generation: Generation::new(0),
            fast: [None, None],
            target: 0,
            cold: None,
            cold_blocks: 0,
            copies: 0,
            present: 0,
            accounted: (0, 0),
            recorded: false,
            pins: 0,
            stage: None,
            stuck: false,
            unswept: false,
            saved: Saved::Clean,
            referenced: true,
            last_use: Nanos::new(0),
            touches: 0,
            map: vec![BlockEntry::HOLE; size.blocks() as usize].into_boxed_slice(),
        }
    }

    /// As it was recorded, all holes.
    pub fn placed(key: FragmentKey, placement: &Placement) -> Self {
        let mut fragment = Self::new(key, placement.size, 0);
        fragment.generation = placement.generation;
        fragment.recorded = true;
        fragment.cold = placement.cold;
        for (which, slot) in placement.fast.iter().enumerate() {
            let fast = slot.map(|slot| FastSlot::new(slot, placement.size));
            fragment.fast[which] = fast.map(|fast| FastSlot { named: true, ..fast });
        }
        if fragment.fast[0].is_none() && fragment.fast[1].is_some() {
            fragment.target = 1;
        }
        fragment
    }

    /// Sets the authorities that a map page and replayed records add up to.
    pub fn adopt_map(&mut self, map: &[Option<Entry>]) -> Result<(), &'static str> {
        for (block, entry) in (0u32..).zip(map) {
            let Some(Entry { place, crc }) = *entry else { continue };
            if place == Place::COLD {
                if self.cold.is_none() {
                    return Err("a cold block without a cold slot");
                }
                self.set_entry(block, BlockEntry::cold(crc, 0));
            } else {
                if !self.adopt_place(place) {
                    return Err("a block's place claimed twice or outside its slot");
                }
                self.set_entry(block, BlockEntry::fast(place, crc, 0));
            }
        }
        Ok(())
    }

    /// What records say of a block; `None` for a hole.
    pub fn authority(&self, block: u32) -> Option<Entry> {
        let entry = self.entry(block);
        let place = if entry.is_cold() { Place::COLD } else { entry.place };
        (!entry.is_hole()).then_some(Entry { place, crc: entry.crc })
    }

    /// Nothing is lost if it leaves memory: its map is on the device, nobody holds it, and
    /// every taken place is named by an entry.
    pub fn may_leave(&self) -> bool {
        let taken: u32 = self.fast.iter().flatten().map(|slot| slot.taken).sum();
        let named = self.fast.iter().flatten().all(|slot| slot.named);
        let saved = self.saved == Saved::Clean || planted(Bug::MapLeftUnsaved);
        saved
            && self.pins == 0
            && self.stage.is_none()
            && self.recorded
            && !self.unswept
            && named
            && self.copies == 0
            && taken == self.present - self.cold_blocks
    }

    /// Bytes that it takes while it is in memory.
    pub fn heap_bytes(&self) -> u64 {
        let bitmap = (slot_blocks(Role::Fast, self.size) as usize).div_ceil(64) * 8;
        let map = size_of_val(&*self.map);
        (size_of::<Self>() + size_of::<usize>() + map + 2 * bitmap) as u64
    }

    /// Its name while it stands at `position` of its index.
    pub fn reference(&self, position: usize) -> FragRef {
        FragRef {
            index: u32::try_from(position).expect("fewer than 2^32 fragments"),
            uid: self.uid,
        }
    }

    /// A block's entry.
    pub fn entry(&self, block: u32) -> BlockEntry {
        self.map[block as usize]
    }

    /// The number in it of a block of its volume, if it covers that.
    pub fn block_of(&self, block: u64) -> Option<u32> {
        let first = u64::from(self.key.start) * 16;
        let within = u32::try_from(block.checked_sub(first)?).ok()?;
        (within < self.size.blocks()).then_some(within)
    }

    /// Where a block's entry is in memory.
    pub fn entry_address(&self, block: u32) -> *const BlockEntry {
        &raw const self.map[block as usize]
    }

    /// Replaces a block's entry, keeping the counts; returns the old one.
    pub fn set_entry(&mut self, block: u32, new: BlockEntry) -> BlockEntry {
        let old = std::mem::replace(&mut self.map[block as usize], new);
        self.present -= u32::from(!old.is_hole());
        self.present += u32::from(!new.is_hole());
        self.cold_blocks -= u32::from(old.is_cold());
        self.cold_blocks += u32::from(new.is_cold());
        self.copies -= u32::from(old.has_copy());
        self.copies += u32::from(new.has_copy());
        old
    }

    /// The block's group is durable, if it is the one with `mark`.
    pub fn clear_mark(&mut self, block: u32, mark: u16) {
        if let Some(entry) = self.map.get_mut(block as usize)
            && entry.mark() == mark
        {
            entry.clear_mark();
        }
    }

    /// It has bytes on a fast device, as authority or as a copy.
    pub fn is_warm(&self) -> bool {
        self.present > self.cold_blocks || self.copies > 0
    }

    /// A change happened.
    pub fn bump(&mut self) {
        self.stuck = false;
        self.generation = Generation::new(self.generation.get().wrapping_add(1));
    }

    /// What a record says of it. Slots that hold only clean copies are not named.
    pub fn placement(&self) -> Placement {
        let slot = |slot: &Option<FastSlot>| slot.as_ref().filter(|s| s.named).map(|s| s.slot);
        let fast = [slot(&self.fast[0]), slot(&self.fast[1])];
        Placement { size: self.size, generation: self.generation, fast, cold: self.cold }
    }

    /// Takes a free place for `block`: its home if possible, else a spare, else any.
    pub fn take_place(&mut self, block: u32) -> Option<Place> {
        let blocks = slot_blocks(Role::Fast, self.size);
        for which in [self.target, 1 - self.target] {
            let Some(slot) = &mut self.fast[which] else { continue };
            if slot.taken == blocks {
                continue;
            }
            let found = if slot.is_free(block) {
                Some(block)
            } else {
                slot.find_free(self.size.blocks(), blocks).or_else(|| slot.find_free(0, blocks))
            };
            let found = found.expect("a slot that is not full has a free block");
            slot.take(found);
            return Some(Place::fast(which, found));
        }
        None
    }

    /// Free places over both slots.
    pub fn free_places(&self) -> u32 {
        let blocks = slot_blocks(Role::Fast, self.size);
        self.fast.iter().flatten().map(|slot| blocks - slot.taken).sum()
    }

    /// Marks a place that recovery found in use; false if impossible.
    pub fn adopt_place(&mut self, place: Place) -> bool {
        let Some((which, block)) = place.as_fast() else { return false };
        let blocks = slot_blocks(Role::Fast, self.size);
        match &mut self.fast[which] {
            Some(slot) if block < blocks && slot.is_free(block) => {
                slot.take(block);
                true
            }
            _ => false,
        }
    }

    /// Gives a place back, unless its slot has left the fragment as a whole.
    pub fn give_place(&mut self, place: Place, slot: SlotRef) {
        let (which, block) = place.as_fast().expect("a fast place");
        if let Some(fast) = self.fast[which].as_mut().filter(|fast| fast.slot == slot) {
            fast.give(block);
        }
    }

    /// The slot that a fast place belongs to.
    pub fn slot_of(&self, place: Place) -> SlotRef {
        let (which, _) = place.as_fast().expect("a fast place");
        self.fast[which].as_ref().expect("the place's slot exists").slot
    }

    /// Records must name the slot of `place` from now on.
    pub fn name_slot_of(&mut self, place: Place) {
        let (which, _) = place.as_fast().expect("a fast place");
        let slot = self.fast[which].as_mut().expect("the place's slot exists");
        self.recorded &= slot.named;
        slot.named = true;
    }

    /// Where a fast place is on its device.
    pub fn device_block(&self, place: Place) -> SlotRef {
        let (which, block) = place.as_fast().expect("a fast place");
        let slot = self.fast[which].as_ref().expect("the place's slot exists").slot;
        SlotRef { block: slot.block + u64::from(block), ..slot }
    }

    /// Its blocks are not counted as they are.
    pub fn is_unaccounted(&self) -> bool {
        self.accounted != (self.present, self.cold_blocks)
    }

    /// A fast slot in which no block is taken.
    pub fn idle_slot(&self) -> Option<usize> {
        (0..2).find(|which| self.fast[*which].as_ref().is_some_and(|slot| slot.taken == 0))
    }

    /// Panics unless the invariants hold.
    pub fn self_check(&self) {
        let mut seen = std::collections::HashSet::new();
        let (mut present, mut cold, mut copies) = (0, 0, 0);
        for entry in &self.map {
            present += u32::from(!entry.is_hole());
            cold += u32::from(entry.is_cold());
            copies += u32::from(entry.has_copy());
            if let Some((which, block)) = entry.place.as_fast() {
                let slot = self.fast[which].as_ref().expect("entry names a missing slot");
                assert!(!slot.is_free(block), "entry names a free place");
                assert!(seen.insert(entry.place.raw()), "two entries share a place");
            }
        }
        assert_eq!((present, cold, copies), (self.present, self.cold_blocks, self.copies));
        assert!(cold == 0 || self.cold.is_some(), "cold entries without a cold slot");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::DeviceId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_free_block_is_found(taken in prop::collection::vec(0..320_u32, 0..400), from in 0..320_u32) {
            let device = DeviceId::new(0);
            let mut slot = FastSlot::new(SlotRef { device, block: 0 }, FragmentSize::DEFAULT);
            let blocks = slot_blocks(Role::Fast, FragmentSize::DEFAULT);
            for block in taken.into_iter().filter(|block| *block < blocks) {
                if slot.is_free(block) {
                    slot.take(block);
                }
            }
            let first = (from..blocks).find(|block| slot.is_free(*block));
            prop_assert_eq!(slot.find_free(from, blocks), first);
        }
    }
}
