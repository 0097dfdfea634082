//! From recovered records to a slice that can work.

use std::collections::VecDeque;

use super::entry::{BlockEntry, Place};
use super::fragment::FastSlot;
use super::index::Index;
use super::limbo::Limbo;
use super::slice::{Commit, Journal, Slice, Snapshot};
use super::space::{DeviceGeometry, Space};
use crate::format::record::FragmentKey;
use crate::format::superblock::Role;
use crate::journal::log::PendingLog;
use crate::journal::recover::{Found, RecoverError, RecoveredFragment};
use crate::request::Buf;
use crate::units::SliceId;

/// Bytes of the buffer a slice needs to build a journal group.
pub const GROUP_BUF_BYTES: usize = 64 << 10;

/// Builds a slice. Every slot and place must be claimed once and lie on its device.
pub fn open_slice(
    id: SliceId,
    found: &Found,
    log: PendingLog,
    devices: &[DeviceGeometry],
    group_buf: Buf,
) -> Result<Box<Slice>, RecoverError> {
    assert!(group_buf.capacity() >= GROUP_BUF_BYTES);
    let mut index = Index::default();
    let mut space: Vec<_> = devices.iter().map(|device| Space::new(*device)).collect();
    for (key, fragment) in &found.state.fragments {
        adopt(*key, fragment, devices, &mut index, &mut space)
            .map_err(|what| RecoverError::Record { slice: id, what })?;
    }
    let journal = Journal {
        next_seq: found.end.next_seq,
        tail_seq: found.root.start_seq,
        prev: found.end.prev,
        prev_incarnation: found.end.incarnation,
        committed: found.end.group,
        commit: Commit::Idle,
        wanted: false,
        root: found.root.clone(),
        next_root: Default::default(),
        snapshot: Snapshot::Idle,
        cursor: (0, 0),
        group_buf,
    };
    Ok(Box::new(Slice {
        id,
        index,
        space,
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

/// Puts a recovered fragment into the index and claims its slots and places.
pub(crate) fn adopt(
    key: FragmentKey,
    found: &RecoveredFragment,
    devices: &[DeviceGeometry],
    index: &mut Index,
    space: &mut [Space],
) -> Result<(), &'static str> {
    let placement = &found.placement;
    let at = index.insert(key, placement.size).ok_or("fragments of two sizes in a segment")?;
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
    let fragment = index.held(at);
    fragment.generation = placement.generation;
    fragment.recorded = true;
    fragment.cold = placement.cold;
    for (which, slot) in placement.fast.iter().enumerate() {
        fragment.fast[which] = slot.map(|slot| {
            let mut fast = FastSlot::new(slot, placement.size);
            fast.named = true;
            fast
        });
    }
    if fragment.fast[0].is_none() && fragment.fast[1].is_some() {
        fragment.target = 1;
    }
    for (block, entry) in (0u32..).zip(&found.entries) {
        let Some((place, crc)) = *entry else { continue };
        if place == Place::COLD {
            if fragment.cold.is_none() {
                return Err("a cold block without a cold slot");
            }
            fragment.set_entry(block, BlockEntry::cold(crc, 0));
        } else {
            if !fragment.adopt_place(place) {
                return Err("a block's place claimed twice or outside its slot");
            }
            fragment.set_entry(block, BlockEntry::fast(place, crc, 0));
        }
    }
    Ok(())
}
