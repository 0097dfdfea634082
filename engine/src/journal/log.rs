//! The pending log: records of completed changes that no flush has covered yet.
//!
//! Two halves take turns: one collects the current group while the other is
//! being committed. The memory is a mapped file tagged with the boot id, so it
//! survives the death of the process, and only that; in the simulator it is a
//! plain buffer with the same life. Appending makes no system call.
//!
//! Invariants: a half's length is stored after the bytes it covers; a half
//! belongs to one group; groups are numbered without gaps; a group never
//! outgrows a journal group ([`MAX_GROUP_BYTES`]).

use std::mem::offset_of;
use std::sync::atomic::{Ordering, compiler_fence};

use memmap2::MmapMut;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::format::journal_block::MAX_GROUP_BYTES;
use crate::planted::{Bug, planted};
use crate::units::SliceId;

/// The header as it lies in the file.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "fields are described in docs/format.md, which a test holds to them"
)]
pub struct RawLogHeader {
    pub magic: [u8; 8],
    pub boot: [u8; 16],
    pub pool: [u8; 16],
    pub slice: U16,
    pub reserved: [u8; 22],
}

/// The start of a half; its records follow.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "fields are described in docs/format.md, which a test holds to them"
)]
pub struct RawHalf {
    pub group: U64,
    pub bytes: U64,
}

const HEADER_BYTES: usize = size_of::<RawLogHeader>();
const HALF_HEADER_BYTES: usize = size_of::<RawHalf>();
const HALF_BYTES: usize = HALF_HEADER_BYTES + MAX_GROUP_BYTES;
/// Bytes of a pending log's memory.
pub const LOG_BYTES: usize = HEADER_BYTES + 2 * HALF_BYTES;
const MAGIC: [u8; 8] = *b"TSRLOG\x01\x00";

/// Whose log it is, and when it is worth anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTag {
    /// The kernel's boot id: another boot, another memory.
    pub boot: [u8; 16],
    /// The pool.
    pub pool: [u8; 16],
    /// The table.
    pub slice: SliceId,
}

impl LogTag {
    fn encode(&self) -> RawLogHeader {
        RawLogHeader {
            magic: MAGIC,
            boot: self.boot,
            pool: self.pool,
            slice: self.slice.get().into(),
            reserved: [0; 22],
        }
    }
}

/// The log's memory: [`LOG_BYTES`] long.
#[derive(Debug)]
pub enum LogMemory {
    /// Dies with its owner, unless the simulator keeps it.
    Heap(Box<[u8]>),
    /// A shared mapping of a file.
    Mapped(MmapMut),
}

impl LogMemory {
    /// Fresh memory on the heap.
    pub fn heap() -> Self {
        LogMemory::Heap(vec![0; LOG_BYTES].into_boxed_slice())
    }

    /// A copy on the heap, for a recovery that may die and be tried again.
    pub fn duplicate(&self) -> Self {
        LogMemory::Heap(self.bytes().into())
    }

    fn bytes(&self) -> &[u8] {
        match self {
            LogMemory::Heap(bytes) => bytes,
            LogMemory::Mapped(map) => map,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            LogMemory::Heap(bytes) => bytes,
            LogMemory::Mapped(map) => map,
        }
    }

    fn half(&self, half: usize) -> RawHalf {
        let (raw, _) =
            RawHalf::read_from_prefix(&self.bytes()[half_at(half)..]).expect("long enough");
        raw
    }
}

const fn half_at(half: usize) -> usize {
    HEADER_BYTES + half * HALF_BYTES
}

/// What a dead process left: its groups in ascending order, as `(group, records)`.
///
/// Empty if the memory has another tag or has never been used.
pub fn survivors(memory: &LogMemory, tag: &LogTag) -> Vec<(u64, Vec<u8>)> {
    assert_eq!(memory.bytes().len(), LOG_BYTES);
    if memory.bytes()[..HEADER_BYTES] != *tag.encode().as_bytes() {
        return Vec::new();
    }
    let mut groups = Vec::new();
    for half in 0..2 {
        let raw = memory.half(half);
        let len = usize::try_from(raw.bytes.get()).unwrap_or(usize::MAX);
        if len > 0 && len <= MAX_GROUP_BYTES {
            let start = half_at(half) + HALF_HEADER_BYTES;
            groups.push((raw.group.get(), memory.bytes()[start..start + len].to_vec()));
        }
    }
    groups.sort_by_key(|(group, _)| *group);
    groups
}

/// The log of one table.
#[derive(Debug)]
pub struct PendingLog {
    memory: LogMemory,
    /// Group that is being collected; its half is `group % 2`.
    group: u64,
    len: usize,
    reserved: usize,
    /// The group before is being committed, with so many bytes.
    committing: Option<usize>,
}

impl PendingLog {
    /// Starts an empty log whose next group is `group`.
    pub fn start(mut memory: LogMemory, tag: &LogTag, group: u64) -> Self {
        assert_eq!(memory.bytes().len(), LOG_BYTES);
        for half in 0..2 {
            let at = half_at(half);
            memory.bytes_mut()[at..at + HALF_HEADER_BYTES].fill(0);
        }
        memory.bytes_mut()[..HEADER_BYTES].copy_from_slice(tag.encode().as_bytes());
        let mut this = Self { memory, group, len: 0, reserved: 0, committing: None };
        this.open_half();
        this
    }

    fn half(group: u64) -> usize {
        half_at(usize::from(group % 2 == 1))
    }

    fn store_len(&mut self, at: usize, len: usize) {
        // A killed process keeps its stores in program order; only the compiler could reorder them.
        compiler_fence(Ordering::SeqCst);
        let at = at + offset_of!(RawHalf, bytes);
        self.memory.bytes_mut()[at..at + 8].copy_from_slice(&(len as u64).to_le_bytes());
        compiler_fence(Ordering::SeqCst);
    }

    fn open_half(&mut self) {
        let at = Self::half(self.group);
        self.store_len(at, 0);
        let group = self.group;
        self.memory.bytes_mut()[at..at + 8].copy_from_slice(&group.to_le_bytes());
        self.len = 0;
    }

    /// The group that is being collected.
    pub fn group(&self) -> u64 {
        self.group
    }

    /// True if the current group has no records.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the current group, reservations included.
    pub fn load(&self) -> usize {
        self.len + self.reserved
    }

    /// True while a group is being committed.
    pub fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// Promises room for `bytes` in whatever group is current when they come.
    #[must_use]
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let fits = self.load() + bytes <= MAX_GROUP_BYTES;
        if fits {
            self.reserved += bytes;
        }
        fits
    }

    /// Gives a promise back, used or not.
    pub fn release(&mut self, bytes: usize) {
        assert!(bytes <= self.reserved, "released more than reserved");
        self.reserved -= bytes;
    }

    /// Appends one record by encoding it into the room behind the others.
    ///
    /// # Panics
    /// If there is no room: the caller has released a promise just before.
    pub fn append(&mut self, encode: impl FnOnce(&mut [u8]) -> usize) {
        if planted(Bug::DroppedRecord) && self.is_committing() {
            return;
        }
        let at = Self::half(self.group);
        let start = at + HALF_HEADER_BYTES;
        let room = &mut self.memory.bytes_mut()[start + self.len..start + MAX_GROUP_BYTES];
        self.len += encode(room);
        self.store_len(at, self.len);
    }

    /// Closes the current group for committing and opens the next.
    pub fn begin_commit(&mut self) -> u64 {
        assert!(self.committing.is_none() && self.len > 0);
        let group = self.group;
        self.committing = Some(self.len);
        self.group += 1;
        self.open_half();
        group
    }

    /// The records of the group being committed.
    pub fn committing(&self) -> &[u8] {
        let len = self.committing.expect("a commit is under way");
        let start = Self::half(self.group - 1) + HALF_HEADER_BYTES;
        &self.memory.bytes()[start..start + len]
    }

    /// The committed group is durable: its half is free.
    pub fn end_commit(&mut self) {
        assert!(self.committing.take().is_some());
        let at = Self::half(self.group - 1);
        self.store_len(at, 0);
    }

    /// Takes the memory, as the death of the process would.
    pub fn into_memory(self) -> LogMemory {
        self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag() -> LogTag {
        LogTag { boot: [1; 16], pool: [2; 16], slice: SliceId::new(3) }
    }

    fn put(log: &mut PendingLog, byte: u8) {
        log.append(|out| {
            out[..4].fill(byte);
            4
        });
    }

    #[test]
    fn both_groups_survive_the_process() {
        let mut log = PendingLog::start(LogMemory::heap(), &tag(), 9);
        put(&mut log, 1);
        assert_eq!(log.begin_commit(), 9);
        put(&mut log, 2);
        put(&mut log, 3);
        assert_eq!(log.committing(), [1; 4]);
        let left = survivors(&log.into_memory(), &tag());
        assert_eq!(left, [(9, vec![1; 4]), (10, vec![2, 2, 2, 2, 3, 3, 3, 3])]);
    }

    #[test]
    fn a_committed_group_is_forgotten_and_another_boot_sees_nothing() {
        let mut log = PendingLog::start(LogMemory::heap(), &tag(), 1);
        put(&mut log, 1);
        log.begin_commit();
        put(&mut log, 2);
        log.end_commit();
        let memory = log.into_memory();
        assert_eq!(survivors(&memory, &tag()), [(2, vec![2; 4])]);
        assert!(survivors(&memory, &LogTag { boot: [7; 16], ..tag() }).is_empty());
    }

    #[test]
    fn reservations_bound_a_group() {
        let mut log = PendingLog::start(LogMemory::heap(), &tag(), 1);
        assert!(log.reserve(MAX_GROUP_BYTES - 3));
        assert!(!log.reserve(4));
        log.release(MAX_GROUP_BYTES - 3);
        assert!(log.reserve(MAX_GROUP_BYTES));
    }
}
