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
