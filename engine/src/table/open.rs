//! From recovered records to a slice that can work.

use std::collections::VecDeque;

use super::index::{Cursor, Index, Span};
use super::limbo::Limbo;
use super::pages::Pages;
use super::slice::{Commit, Journal, Slice, Snapshot};
use super::space::{DeviceGeometry, Space};
use crate::format::record::Placement;
use crate::format::superblock::Role;
use crate::journal::log::PendingLog;
use crate::journal::recover::{Found, RecoverError};
use crate::request::Buf;
use crate::units::SliceId;

/// Bytes of the buffer a slice needs to build a journal group.
pub const GROUP_BUF_BYTES: usize = 64 << 10;

/// Builds a slice. Every slot and map page must be claimed once and lie where it may.
pub fn open_slice(
    id: SliceId,
    found: Found,
    log: PendingLog,
    devices: &[DeviceGeometry],
    group_buf: Buf,
) -> Result<Box<Slice>, RecoverError> {
    assert!(group_buf.capacity() >= GROUP_BUF_BYTES);
    let record = |what| RecoverError::Record { slice: id, what };
    let index = found.state.fragments;
    let mut space: Vec<_> = devices.iter().map(|device| Space::new(*device)).collect();
    for (_, seat, size) in index.all() {
        claim_slots(&seat.placement(size), devices, &mut space).map_err(record)?;
    }
    let mut pages = Pages::default();
    claim_pages(&index, |page, count| pages.adopt(page, count)).map_err(record)?;
    let journal = Journal {
        next_seq: found.end.next_seq,
        tail_seq: found.root.start_seq,
        prev: found.end.prev,
        prev_incarnation: found.end.incarnation,
        committed: found.end.group,
        commit: Commit::Idle,
        wanted: false,
        root: found.root,
        next_root: Default::default(),
        snapshot: Snapshot::Idle,
        cursor: Cursor::default(),
        dirty_left: 0,
        written: Vec::new(),
        superseded: Vec::new(),
        group_buf,
    };
    Ok(Box::new(Slice {
        id,
        index,
        space,
        pages,
        spare_extents: Vec::new(),
        dirty: VecDeque::new(),
        loading: Default::default(),
        lost: Default::default(),
        log,
        journal,
        deferred: VecDeque::new(),
        unswept: Vec::new(),
        limbo: Limbo::default(),
        writing: Default::default(),
        waiting: VecDeque::new(),
        waiters: Vec::new(),
        dirty_devices: 0,
        dirty_volumes: Default::default(),
        failed: false,
        kicked: false,
    }))
}

/// Claims the slots of a recovered fragment.
pub fn claim_slots(
    placement: &Placement,
    devices: &[DeviceGeometry],
    space: &mut [Space],
) -> Result<(), &'static str> {
    let slots = [
        (placement.fast[0], Role::Fast),
        (placement.fast[1], Role::Fast),
        (placement.cold, Role::Cold),
    ];
    for (slot, role) in slots {
        let Some(slot) = slot else { continue };
        let device = usize::from(slot.device.get());
        if devices.get(device).is_none_or(|device| device.role != role) {
            return Err("a slot on a device of another tier");
        }
        space[device].adopt(slot, placement.size).map_err(|_| "a slot claimed twice")?;
    }
    Ok(())
}

/// Claims the map pages of all spans.
pub fn claim_pages(
    index: &Index,
    mut claim: impl FnMut(u32, u32) -> bool,
) -> Result<(), &'static str> {
    let mut last = None;
    for (key, seat, size) in index.all() {
        let Some(page) = seat.page() else { continue };
        let this = (Span::of(key), page);
        if last.replace(this) != Some(this) && !claim(page, Span::pages(size)) {
            return Err("a map page claimed twice");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::{Entry, FragmentKey, Mapped};
    use crate::table::entry::{Place, SlotRef};
    use crate::table::fragment::Fragment;
    use crate::units::{Crc, DeviceId, FragmentSize, Generation, VolumeId};

    const CHUNK: u64 = 18 << 20;

    fn devices() -> [DeviceGeometry; 2] {
        let device = |id, role, chunk_bytes| {
            let id = DeviceId::new(id);
            DeviceGeometry { id, role, data_offset: 1 << 20, chunk_bytes, chunks: 4 }
        };
        [device(0, Role::Fast, CHUNK), device(1, Role::Cold, 16 << 20)]
    }

    fn at(device: u8, block: u64) -> Option<SlotRef> {
        Some(SlotRef { device: DeviceId::new(device), block })
    }

    fn placed(fast: [Option<SlotRef>; 2], cold: Option<SlotRef>) -> Placement {
        let generation = Generation::new(1);
        Placement { size: FragmentSize::DEFAULT, generation, fast, cold }
    }

    #[test]
    fn slots_are_claimed_once_and_on_a_device_of_their_tier() {
        let devices = devices();
        // Slots of 1 MiB fragments: 288 blocks on the fast device, 256 on the cold one.
        let sound = placed([at(0, 256), at(0, 256 + 288)], at(1, 256));
        let claim = |placements: &[Placement]| {
            let mut space: Vec<_> = devices.iter().map(|device| Space::new(*device)).collect();
            placements.iter().try_for_each(|p| claim_slots(p, &devices, &mut space))
        };
        assert_eq!(claim(&[sound]), Ok(()));
        assert_eq!(claim(&[sound, placed([at(0, 256 + 576), None], at(1, 512))]), Ok(()));
        for placements in [
            &[sound, placed([at(0, 256), None], None)][..],
            &[sound, placed([None, None], at(1, 256))],
            &[placed([at(0, 256), at(0, 256)], None)],
            &[placed([at(0, 257), None], None)],
            &[placed([at(0, 256 + CHUNK / 4096 * 4), None], None)],
        ] {
            assert_eq!(claim(placements), Err("a slot claimed twice"), "{placements:?}");
        }
        for slot in [at(1, 256), at(2, 256)] {
            let wrong = Err("a slot on a device of another tier");
            assert_eq!(claim(&[placed([slot, None], None)]), wrong, "{slot:?}");
        }
    }

    #[test]
    fn a_map_page_belongs_to_one_span() {
        let claimed = |pages: [u32; 2]| {
            let mut index = Index::default();
            for (start, page) in [0, 32].into_iter().zip(pages) {
                let key = FragmentKey { volume: VolumeId::new(1), start };
                let slot = at(0, 256 + u64::from(start) * 18);
                let mapped = Mapped { page: Some(page), written: 1, present: 1, cold_blocks: 0 };
                index.adopt(key, &placed([slot, None], None), &mapped).expect("a free seat");
            }
            let mut pages = Pages::default();
            claim_pages(&index, |page, count| pages.adopt(page, count))
        };
        assert_eq!(claimed([16, 17]), Ok(()));
        assert_eq!(claimed([16, 16]), Err("a map page claimed twice"));
    }

    #[test]
    fn places_are_claimed_once_and_inside_their_slot() {
        let key = FragmentKey { volume: VolumeId::new(1), start: 0 };
        let adopted = |placement: &Placement, places: &[Place]| {
            let entry = |place: &Place| Some(Entry { place: *place, crc: Crc::new(1) });
            let map: Vec<_> = places.iter().map(entry).collect();
            Fragment::placed(key, placement).adopt_map(&map)
        };
        let fast = placed([at(0, 256), None], None);
        assert_eq!(adopted(&fast, &[Place::fast(0, 287), Place::fast(0, 0)]), Ok(()));
        let wrong = Err("a block's place claimed twice or outside its slot");
        assert_eq!(adopted(&fast, &[Place::fast(0, 7), Place::fast(0, 7)]), wrong);
        assert_eq!(adopted(&fast, &[Place::fast(0, 288)]), wrong);
        assert_eq!(adopted(&fast, &[Place::fast(1, 0)]), wrong);
        assert_eq!(adopted(&fast, &[Place::COLD]), Err("a cold block without a cold slot"));
        assert_eq!(adopted(&placed([None; 2], at(1, 256)), &[Place::COLD]), Ok(()));
    }
}
