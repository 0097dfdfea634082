//! One slice of the fragment table: fragments, slots, pending log, journal.
//!
//! The unit of ownership: exactly one core has it, and nothing in it is shared.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::fragment::{FragRef, Saved};
use super::index::{Cursor, Index, Span};
use super::limbo::{Freed, Limbo};
use super::pages::{EXTENT_PAGES, Pages};
use super::space::Space;
use crate::format::checkpoint::{PAGE_PAYLOAD_BYTES, Root};
use crate::format::record::seat_bytes;
use crate::journal::log::PendingLog;
use crate::request::{Buf, Failure};
use crate::units::{Crc, DeviceId, SliceId, VolumeId};

/// What a commit is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Nothing.
    Idle,
    /// Devices that hold the group's data are being flushed; so many to go.
    Flushing(u32),
    /// The group's blocks are being written.
    Writing {
        /// So many operations to go.
        left: u32,
        /// They are durable when they end.
        fua: bool,
    },
    /// The group is written, and the journals' devices are being flushed; so many to go.
    Sealing(u32),
}

/// What a checkpoint is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// Nothing.
    Idle,
    /// Waiting for its turn.
    Queued,
    /// More of what recovery replayed is to be merged, in the next turn.
    Merging,
    /// Map pages are being written; so many operations to go.
    Maps(u32),
    /// Extents are being written; so many operations to go.
    Pages(u32),
    /// Waiting until this group is durable.
    Closing(u64),
    /// Devices with the extents are being flushed; so many to go.
    Flushing(u32),
    /// The root is being written; so many operations to go.
    Root(u32),
}

/// Where the journal of a slice stands.
#[derive(Debug)]
pub struct Journal {
    /// Sequence of the next block.
    pub next_seq: u64,
    /// First block that a recovery would still replay.
    pub tail_seq: u64,
    /// CRC of the last block.
    pub prev: Crc,
    /// Incarnation in the last block.
    pub prev_incarnation: u32,
    /// Every group up to this one is durable.
    pub committed: u64,
    /// What the commit is doing.
    pub commit: Commit,
    /// Somebody wants a commit that could not start yet.
    pub wanted: bool,
    /// The published checkpoint.
    pub root: Root,
    /// The one being made.
    pub next_root: Root,
    /// What it is doing.
    pub snapshot: Snapshot,
    /// Where the checkpoint being made is among the seats.
    pub cursor: Cursor,
    /// Fragments that changed before it began and whose maps it has yet to write.
    pub dirty_left: usize,
    /// Fragments whose maps it has written.
    pub written: Vec<FragRef>,
    /// Map pages that nothing needs once it is published.
    pub superseded: Vec<(u32, u32)>,
    /// Memory for one group.
    pub group_buf: Buf,
}

impl Journal {
    /// Blocks that a recovery would replay.
    pub fn used(&self) -> u64 {
        self.next_seq - self.tail_seq
    }
}

/// Who waits for a group to become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// A part with FUA.
    Ask(u32),
    /// A volume flush.
    Flush(u32),
}

/// A slice.
#[derive(Debug)]
pub struct Slice {
    /// Which.
    pub id: SliceId,
    /// Fragments.
    pub index: Index,
    /// Slots, by device.
    pub space: Vec<Space>,
    /// Where maps are on the device.
    pub pages: Pages,
    /// Extents kept for checkpoints, beside those of the one in force.
    pub spare_extents: Vec<u32>,
    /// Fragments whose maps have changed since a checkpoint wrote them, oldest first.
    pub dirty: VecDeque<FragRef>,
    /// Spans being loaded.
    pub loading: SmallVec<[Span; 4]>,
    /// Spans whose map could not be read, and how whoever waits for one fails.
    pub lost: SmallVec<[(Span, Failure); 1]>,
    /// Completed changes not yet journaled.
    pub log: PendingLog,
    /// Journal and checkpoint.
    pub journal: Journal,
    /// What becomes free when a group is durable, in group order.
    pub deferred: VecDeque<(u64, Freed)>,
    /// Fragments that could not be dropped or cut down because the log was full.
    pub unswept: Vec<FragRef>,
    /// What becomes free when readers have left.
    pub limbo: Limbo,
    /// Pieces that change blocks, in flight.
    pub writing: SmallVec<[u32; 32]>,
    /// Pieces that wait for something in this slice.
    pub waiting: VecDeque<u32>,
    /// Who waits for which group.
    pub waiters: Vec<(u64, Waiter)>,
    /// Devices written by completed changes of the current group, one bit each.
    pub dirty_devices: u64,
    /// Volumes with records in the current and in the committing group.
    pub dirty_volumes: [SmallVec<[VolumeId; 4]>; 2],
    /// A journal or flush failed: nothing is acknowledged any more.
    pub failed: bool,
    /// The waiting pieces are to be tried again.
    pub kicked: bool,
}

impl Slice {
    /// Remembers that the current group holds a change of `volume` on `device`.
    pub fn mark_dirty(&mut self, volume: VolumeId, device: Option<DeviceId>) {
        if let Some(device) = device {
            self.dirty_devices |= 1 << device.get();
        }
        if !self.dirty_volumes[0].contains(&volume) {
            self.dirty_volumes[0].push(volume);
        }
    }

    /// The group whose durability covers all completed changes of `volume` (of any volume if `None`).
    pub fn group_to_cover(&self, volume: Option<VolumeId>) -> Option<u64> {
        let holds =
            |set: &SmallVec<[VolumeId; 4]>| volume.is_none_or(|volume| set.contains(&volume));
        if !self.log.is_empty() && holds(&self.dirty_volumes[0]) {
            Some(self.log.group())
        } else if self.log.is_committing() && holds(&self.dirty_volumes[1]) {
            Some(self.log.group() - 1)
        } else {
            None
        }
    }

    /// The mark of blocks written by `group`: 1..=3.
    pub fn mark(group: u64) -> u16 {
        u16::try_from(group % 3 + 1).expect("1 to 3")
    }

    /// The mark of the current group.
    pub fn current_mark(&self) -> u16 {
        Self::mark(self.log.group())
    }

    /// Frees something once the current group is durable.
    pub fn defer(&mut self, freed: Freed) {
        self.deferred.push_back((self.log.group(), freed));
    }

    /// The log has no room to drop or cut down this fragment: the next commit makes some.
    pub fn sweep_later(&mut self, at: FragRef) {
        let fragment = self.index.held(at);
        if !std::mem::replace(&mut fragment.unswept, true) {
            self.unswept.push(at);
        }
    }

    /// The fragment's map has changed.
    pub fn mark_unsaved(&mut self, at: FragRef) {
        let fragment = self.index.held(at);
        if std::mem::replace(&mut fragment.saved, Saved::Dirty) != Saved::Dirty {
            self.dirty.push_back(at);
        }
    }

    /// Gives map pages back: at once if no checkpoint being made could name them.
    pub fn free_pages(&mut self, page: u32, count: u32) {
        if self.journal.snapshot == Snapshot::Idle {
            self.pages.free(page, count);
        } else {
            self.journal.superseded.push((page, count));
        }
    }

    /// Extents that one checkpoint of so many fragments takes.
    pub fn seat_extents(fragments: usize) -> usize {
        let per_page = PAGE_PAYLOAD_BYTES / seat_bytes();
        (fragments / (per_page * EXTENT_PAGES as usize)) + 1
    }

    /// Extents missing for `pages` more map pages and one more fragment, every map and every
    /// seat kept twice: once in the checkpoint in force, once in the next.
    pub fn missing_extents(&self, pages: u32) -> (usize, usize) {
        let maps = (self.index.map_pages() + pages) * 2;
        let maps = maps.saturating_sub(self.pages.capacity()).div_ceil(EXTENT_PAGES);
        let held = self.spare_extents.len()
            + self.journal.root.extents.len()
            + self.journal.next_root.extents.len();
        let seats = 2 * Self::seat_extents(self.index.len() + 1);
        (maps as usize, seats.saturating_sub(held))
    }

    /// Every extent this slice holds.
    pub fn extents(&self) -> impl Iterator<Item = u32> + '_ {
        let root = self.journal.root.extents.iter().copied();
        root.chain(self.spare_extents.iter().copied()).chain(self.pages.extents())
    }

    /// Panics unless the slice's invariants hold.
    pub fn self_check(&self) {
        self.index.self_check();
        let groups = self.deferred.iter().map(|(group, _)| *group);
        assert!(groups.is_sorted(), "deferred frees out of group order");
        assert!(self.journal.tail_seq <= self.journal.next_seq);
        assert!(
            self.log.group() == self.journal.committed + 1 + u64::from(self.log.is_committing())
        );
    }
}
