//! The rows of the truth table in docs/format.md that concern a table.

use super::chain::{JournalEnd, write_group};
use super::log::{LogMemory, LogTag, PendingLog};
use super::parts::TableId;
use super::recover::{Found, RecoverError, read_table, replay_log, write_empty_root};
use crate::device::sim::{Rng, SimDisk};
use crate::format::checkpoint::Root;
use crate::format::layout::{MetaLayout, NewDevice, plan};
use crate::format::record::{FragmentKey, Placement, put_drop, put_fragment, put_holes};
use crate::format::superblock::Role;
use crate::sim::shared::SimPool;
use crate::units::{BLOCK_BYTES, Crc, FragmentSize, Generation, SliceId, VolumeId};

const ID: TableId = TableId { pool: 77, slice: SliceId::new(5) };

struct Rig {
    disks: Vec<SimDisk>,
    rng: Rng,
    meta: MetaLayout,
    end: JournalEnd,
}

fn key(start: u32) -> FragmentKey {
    FragmentKey { volume: VolumeId::new(1), start: start * 16 }
}

fn fragment(start: u32) -> Vec<u8> {
    let placement = Placement {
        size: FragmentSize::DEFAULT,
        generation: Generation::new(1),
        fast: [None, None],
        cold: None,
    };
    let mut out = vec![0; 64];
    let len = put_fragment(&mut out, key(start), &placement);
    out.truncate(len);
    out
}

impl Rig {
    /// An empty table and `groups` groups, each with one fragment.
    fn new(groups: u32) -> Self {
        let fast = NewDevice { size_bytes: 512 << 20, role: Role::Fast };
        let meta = MetaLayout::of(&plan(&[fast, fast]).expect("large enough"));
        let end = JournalEnd { next_seq: 1, prev: Crc::new(0), incarnation: 0, group: 0 };
        let disks = vec![SimDisk::default(), SimDisk::default()];
        let mut rig = Self { disks, rng: Rng::new(1), meta, end };
        write_empty_root(&mut rig.io(), &meta, ID).expect("written");
        for group in 0..groups {
            rig.append(&fragment(group));
        }
        rig
    }

    fn io(&mut self) -> SimPool<'_> {
        SimPool { disks: &mut self.disks, fuel: None, rng: &mut self.rng }
    }

    fn append(&mut self, records: &[u8]) {
        let (meta, mut end) = (self.meta, self.end.clone());
        write_group(&mut self.io(), &meta, ID, &mut end, records, 1).expect("written");
        self.end = end;
    }

    fn rot(&mut self, copy: usize, at: u64) {
        let (device, offset) = self.meta.place(copy, at);
        self.disks[usize::from(device.get())].flip(offset.get() / BLOCK_BYTES as u64, 99);
    }

    fn rot_journal(&mut self, copies: &[usize], seq: u64) {
        for copy in copies {
            self.rot(*copy, self.meta.journal(ID.slice, seq));
        }
    }

    /// Another root at `position`, whose snapshot may reflect groups up to `fuzzy_group`.
    fn put_root(&mut self, sequence: u64, position: u64, fuzzy_group: u64) {
        let root = Root { sequence, start_seq: 1, start_group: 1, fuzzy_group, ..Root::default() };
        let block = root.encode(ID.pool, ID.slice);
        for copy in 0..2 {
            let (device, offset) = self.meta.place(copy, self.meta.root(ID.slice, position));
            let at = offset.get() / BLOCK_BYTES as u64;
            self.disks[usize::from(device.get())].write_block(at, &block);
        }
    }

    fn read(&mut self) -> Result<Found, RecoverError> {
        let meta = self.meta;
        read_table(&mut self.io(), &meta, ID, true)
    }

    /// Reads without a write: the first one would fail.
    fn read_quietly(&mut self) -> Found {
        let mut io = SimPool { disks: &mut self.disks, fuel: Some(0), rng: &mut self.rng };
        read_table(&mut io, &self.meta, ID, true).expect("nothing to write")
    }

    /// Disk and block of a journal block's copy.
    fn journal_block(&self, copy: usize, seq: u64) -> (usize, u64) {
        let (device, offset) = self.meta.place(copy, self.meta.journal(ID.slice, seq));
        (usize::from(device.get()), offset.get() / BLOCK_BYTES as u64)
    }
}

#[test]
fn one_good_copy_is_believed_and_the_other_mended() {
    for copy in 0..2 {
        let mut rig = Rig::new(3);
        rig.rot_journal(&[copy], 2);
        rig.rot(1 - copy, rig.meta.root(ID.slice, 1));
        let found = rig.read().expect("one copy of each is good");
        assert_eq!((found.state.fragments.len(), found.damaged_copies), (3, 2));
        assert_eq!(rig.read().expect("mended").damaged_copies, 0);
    }
}

#[test]
fn no_root_is_refused() {
    let mut rig = Rig::new(1);
    for (copy, which) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        rig.rot(copy, rig.meta.root(ID.slice, which));
    }
    assert!(matches!(rig.read(), Err(RecoverError::NoRoot { .. })));
}

#[test]
fn a_torn_tail_ends_the_journal() {
    let mut rig = Rig::new(3);
    rig.rot_journal(&[0, 1], 3);
    let found = rig.read().expect("nothing acknowledged the third");
    assert_eq!((found.end.group, found.state.fragments.len()), (2, 2));
}

#[test]
fn an_acknowledged_group_that_is_lost_is_refused() {
    let mut rig = Rig::new(4);
    rig.rot_journal(&[0, 1], 2);
    assert!(matches!(rig.read(), Err(RecoverError::Journal { seq: 2, .. })));
}

#[test]
fn a_group_counts_whole_or_not_at_all() {
    let mut rig = Rig::new(1);
    let records: Vec<u8> = (1..200).flat_map(fragment).collect();
    rig.append(&records);
    assert!(rig.end.next_seq > 3, "a group of several blocks");
    rig.rot_journal(&[0, 1], rig.end.next_seq - 1);
    let found = rig.read().expect("a torn tail");
    assert_eq!((found.end.group, found.state.fragments.len()), (1, 1));
}

#[test]
fn a_block_of_a_broken_chain_is_not_replayed() {
    let mut rig = Rig::new(2);
    let first = rig.end.clone();
    rig.append(&fragment(2));
    // The same place, sequence and group, written behind another second block.
    rig.end = JournalEnd { prev: Crc::new(1), ..first };
    rig.append(&fragment(3));
    let found = rig.read().expect("the journal ends before it");
    assert_eq!(found.end.group, 2);
}

#[test]
fn a_journal_that_ends_before_the_fuzzy_group_is_refused() {
    let mut rig = Rig::new(2);
    rig.put_root(2, 0, 3);
    assert!(matches!(rig.read(), Err(RecoverError::Journal { seq: 3, .. })));
    rig.append(&fragment(2));
    assert_eq!(rig.read().expect("complete").state.fragments.len(), 3);
}

#[test]
fn a_root_that_was_not_believed_is_never_believed_later() {
    for copy in 0..2 {
        let mut rig = Rig::new(2);
        // A checkpoint's root was written to one copy; a crash has torn the other.
        let root = Root { sequence: 2, start_seq: 2, start_group: 2, ..Root::default() };
        let (device, offset) = rig.meta.place(copy, rig.meta.root(ID.slice, 0));
        let (disk, block) = (usize::from(device.get()), offset.get() / BLOCK_BYTES as u64);
        rig.disks[disk].write_block(block, &root.encode(ID.pool, ID.slice));
        rig.rot(1 - copy, rig.meta.root(ID.slice, 0));
        rig.disks[disk].mislead(block, block + 1);
        assert_eq!(rig.read().expect("the root before it").root.sequence, 1);
        rig.disks[disk].lead_right();
        let found = rig.read().expect("the same");
        assert_eq!((found.root.sequence, found.damaged_copies), (1, 0));
    }
}

#[test]
fn a_group_that_was_not_believed_is_never_believed_later() {
    for copy in 0..2 {
        let mut rig = Rig::new(2);
        let (disk, block) = rig.journal_block(copy, 3);
        // The wrong read returns a block of the journal, or one that was never written.
        for other in [block - 1, block + 1] {
            rig.append(&fragment(2));
            rig.rot_journal(&[1 - copy], 3);
            rig.disks[disk].mislead(block, other);
            assert_eq!(rig.read().expect("a torn tail").end.group, 2);
            rig.disks[disk].lead_right();
            let found = rig.read_quietly();
            assert_eq!((found.end.group, found.damaged_copies), (2, 0));
            rig.end = found.end;
        }
        rig.append(&fragment(3));
        assert_eq!(rig.read().expect("it goes on").end.group, 3);
    }
}

#[test]
fn of_two_groups_that_continue_the_journal_the_later_incarnation_counts() {
    for copy in 0..2 {
        let mut rig = Rig::new(2);
        let before = rig.end.clone();
        let (disk, block) = rig.journal_block(copy, 3);
        let mut old = [0; BLOCK_BYTES];
        rig.append(&fragment(7));
        rig.disks[disk].read_block(block, &mut old);
        let (meta, mut end) = (rig.meta, before);
        write_group(&mut rig.io(), &meta, ID, &mut end, &fragment(8), 2).expect("written");
        rig.disks[disk].write_block(block, &old);
        let found = rig.read().expect("sound");
        let exists = |at| found.state.fragments.seat(key(at)).is_some();
        assert!(exists(8) && !exists(7) && found.damaged_copies == 1);
        assert_eq!((found.end, rig.read_quietly().damaged_copies), (end, 0));
    }
}

#[test]
fn the_end_is_marked_where_the_ring_does_not_show_it() {
    let mut rig = Rig::new(0);
    rig.read_quietly();
    let ring = rig.meta.journal_blocks;
    for group in 0..ring {
        rig.append(&fragment(group));
    }
    // Behind the end of a full ring is its start, which is needed still.
    rig.rot_journal(&[0], 1);
    for _ in 0..2 {
        assert_eq!(rig.read().expect("a full ring").end, rig.end);
    }
    let end = rig.end.clone();
    let root = Root {
        sequence: 2,
        start_seq: end.next_seq,
        start_prev: end.prev,
        incarnation: end.incarnation,
        start_group: end.group + 1,
        ..Root::default()
    };
    for copy in 0..2 {
        let (device, offset) = rig.meta.place(copy, rig.meta.root(ID.slice, 0));
        let at = offset.get() / BLOCK_BYTES as u64;
        rig.disks[usize::from(device.get())].write_block(at, &root.encode(ID.pool, ID.slice));
    }
    for _ in 0..3 {
        assert_eq!(rig.read_quietly().end, rig.end);
        rig.append(&fragment(7));
    }
}

#[test]
fn records_of_an_unknown_fragment_are_refused_behind_the_fuzzy_group_only() {
    let mut rig = Rig::new(1);
    let mut out = [0; 64];
    let len = put_holes(&mut out, key(9), 0, 1);
    rig.append(&out[..len]);
    assert!(matches!(rig.read(), Err(RecoverError::Record { .. })));
    rig.put_root(2, 0, 2);
    assert_eq!(rig.read().expect("a later drop is on record").state.fragments.len(), 1);
}

#[test]
fn the_highest_root_counts_where_it_belongs() {
    let mut rig = Rig::new(3);
    rig.put_root(4, 0, 0);
    assert_eq!(rig.read().expect("two whole roots").root.sequence, 4);
    rig.put_root(6, 1, 0);
    assert_eq!(rig.read().expect("an even one at the odd place is none").root.sequence, 4);
    rig.put_root(5, 1, 0);
    assert_eq!(rig.read().expect("two whole roots").root.sequence, 5);
}

#[test]
fn the_pending_log_of_this_boot_is_applied_and_journaled() {
    let tag = LogTag { boot: [1; 16], pool: [2; 16], slice: ID.slice };
    for (boot, expected) in [([1; 16], 3), ([9; 16], 2)] {
        let mut rig = Rig::new(2);
        let mut log = PendingLog::start(LogMemory::heap(), &tag, 3);
        log.append(|out| {
            let records = fragment(7);
            out[..records.len()].copy_from_slice(&records);
            records.len()
        });
        let now = LogTag { boot, ..tag };
        let (meta, mut found) = (rig.meta, rig.read().expect("sound"));
        let memory = log.into_memory();
        replay_log(&mut rig.io(), &meta, ID, &mut found, memory, &now, 2).expect("applied");
        assert_eq!(found.state.fragments.len(), expected);
        assert_eq!(rig.read().expect("sound").state.fragments.len(), expected, "journaled");
    }
}

#[test]
fn a_pending_log_with_a_gap_or_of_old_groups_adds_nothing() {
    let tag = LogTag { boot: [1; 16], pool: [2; 16], slice: ID.slice };
    for (group, refused) in [(4, true), (2, false)] {
        let mut rig = Rig::new(2);
        let mut log = PendingLog::start(LogMemory::heap(), &tag, group);
        log.append(|out| put_drop(out, key(0)));
        let (meta, mut found) = (rig.meta, rig.read().expect("sound"));
        let memory = log.into_memory();
        let replayed = replay_log(&mut rig.io(), &meta, ID, &mut found, memory, &tag, 2);
        assert_eq!(replayed.is_err(), refused);
        assert_eq!(found.state.fragments.len(), 2);
    }
}

#[test]
fn a_group_that_fails_half_way_is_no_part_of_the_chain() {
    for fuel in 0..4 {
        let mut rig = Rig::new(2);
        let before = rig.end.clone();
        let mut io = SimPool { disks: &mut rig.disks, fuel: Some(fuel), rng: &mut rig.rng };
        let failed = write_group(&mut io, &rig.meta, ID, &mut rig.end, &fragment(7), 1);
        assert!(failed.is_err(), "{fuel} steps of four");
        assert_eq!(rig.end, before);
        rig.append(&fragment(8));
        let state = rig.read().expect("the chain holds").state;
        let exists = |at| state.fragments.seat(key(at)).is_some();
        assert!(exists(8) && !exists(7));
    }
}
